# Over 400 lines: one command, read from what is run to what is judged.
"""The tests of other libraries, run on ours, and why a case fails."""

import fnmatch
import importlib.metadata
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measuring.report import Claim, Column, Report, Table, Unavailable, number
from benchmarks.peers import record, sources
from hotnas_torch.files import write_text

__all__ = [
    "CHOICES", "QUICK", "SUITES", "Case", "Known", "Outcome", "Settings", "Suite", "judge", "run",
    "run_cases",
]  # fmt: skip

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent
CACHE = ROOT / "build" / "peers"
TIME_LIMIT = 240
"""Seconds of processor time for the cases of a file; on a busy machine it may last longer."""

_PEER = "fails without us as well"

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    # POT tests every backend that it can import.
    "POT_BACKEND_DISABLE_TENSORFLOW": "1",
    "POT_BACKEND_DISABLE_CUPY": "1",
    "POT_BACKEND_DISABLE_JAX": "1",
}


@dataclass(frozen=True, slots=True)
class Suite:
    """Test files of one library.

    Attributes:
        peer: Distribution that is tested.
        files: Paths inside the source, or beside this module.
        plugin: Adapter, a module of this package; None where the files themselves adapt.
        source: Where the files come from; None for those beside this module, which put ours into
            the test cases that the installed library ships.
        option: Field of the settings that gives the source by path.
    """

    peer: str
    files: Sequence[str]
    plugin: str | None
    source: sources.Archive | sources.Checkout | None = None
    option: str | None = None


SUITES = (
    Suite(
        "POT",
        [
            f"test/test_{name}.py"
            for name in (
                *("ot", "bregman", "solvers", "optim", "da", "mapping", "factored", "gmm"),
                "partial",
            )
        ],
        "pot",
        sources.POT,
        "pot_sdist",
    ),
    Suite(
        "POT",
        [
            "test/gromov/test_gw.py",
            "test/gromov/test_bregman.py",
            "test/gromov/test_estimators.py",
            "test/gromov/test_partial.py",
            "test/gromov/test_semirelaxed.py",
            "test/gromov/test_fugw.py",
            "test/gromov/test_dictionary.py",
            "test/unbalanced/test_sinkhorn.py",
            "test/unbalanced/test_mm.py",
            "test/unbalanced/test_lbfgs.py",
            "test/gromov/test_quantized.py",
            "test/gromov/test_utils.py",
            "test/batch/test_solve_batch.py",
            "test/batch/test_solve_gromov_batch.py",
        ],
        "pot",
        sources.POT_FOLDERS,
        "pot",
    ),
    Suite("gpytorch", ["gpytorch_cases.py"], None),
    Suite(
        "gpytorch",
        # The examples beside it ask how well a sine is learned, which is no function of networks.
        ["test/models/test_exact_gp.py"],
        "rbf_kernel",
        sources.GPYTORCH,
        "gpytorch_sdist",
    ),
    Suite(
        "botorch",
        [
            "test/models/test_gp_regression.py",
            "test/models/test_model_list_gp_regression.py",
            "test/acquisition/test_analytic.py",
            "test/acquisition/test_integration.py",
            "test/acquisition/test_monte_carlo.py",
            "test/acquisition/test_logei.py",
            "test/acquisition/multi_objective/test_monte_carlo.py",
            "test/sampling/pathwise/test_posterior_samplers.py",
            "test/sampling/pathwise/test_prior_samplers.py",
            "test/test_cross_validation.py",
            "test/test_end_to_end.py",
            "test/test_fit.py",
        ],
        "single_task_gp",
        sources.BOTORCH,
        "botorch",
    ),
    Suite("optuna", ["optuna_cases.py"], None),
)
CHOICES = {"libraries": tuple(dict.fromkeys(suite.peer for suite in SUITES))}


@dataclass(frozen=True, slots=True)
class Settings:
    """What is run.

    Attributes:
        libraries: Whose tests.
        only: Files whose path holds this text.
        pot: Source of POT by path, a clone.
        pot_sdist: Source archive of POT by path.
        gpytorch_sdist: Source archive of GPyTorch by path.
        botorch: Source of BoTorch by path, a clone.
        storage: File of all outcomes, of which those that are run now are replaced.
    """

    libraries: tuple[str, ...] = CHOICES["libraries"]
    only: str = ""
    pot: str | None = None
    pot_sdist: str | None = None
    gpytorch_sdist: str | None = None
    botorch: str | None = None
    storage: str = str(ROOT / "benchmarks" / "results" / "peers" / "outcomes.json")


QUICK = Settings(libraries=("optuna",))


@dataclass(frozen=True, slots=True)
class Known:
    """Why cases fail, as `known.toml` has it.

    Attributes:
        peer: Distribution.
        cases: Pattern of the cases' names, as `fnmatch` has it.
        kind: `"convention"`, a documented difference, or `"fault"`, one of ours still open.
        reason: In words.
    """

    peer: str
    cases: str
    kind: str
    reason: str

    def __post_init__(self) -> None:
        if self.kind not in ("convention", "fault"):
            raise ValueError(f"kind must be 'convention' or 'fault', got {self.kind!r}")

    def covers(self, peer: str, case: str) -> bool:
        """Return whether it speaks of a case."""
        return peer == self.peer and fnmatch.fnmatchcase(case, self.cases.replace("[", "[[]"))


@dataclass(frozen=True, slots=True)
class Case:
    """How one case ended.

    Attributes:
        case: Name, as pytest has it.
        outcome: `"passed"`, `"failed"` or `"skipped"`.
        reached: How often it reached what of ours.
        outside: How often a call was outside what ours solves, and why.
        message: Of a failure.
    """

    case: str
    outcome: str
    reached: dict[str, int] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    message: str = ""


@dataclass(slots=True)
class Outcome:
    """What a file of tests came to.

    Attributes:
        peer: Distribution.
        version: Of the installed distribution.
        tests: Version of the tests.
        file: Path of the file.
        cases: Cases that were collected and not skipped.
        reach_us: Of these, how many reached our code.
        passed: Of those that reached us.
        plain: Those that reached us and failed, but fail without us as well.
        known: Those that failed for a known reason.
        unexpected: The other failures that the library alone does not have, and those of the file
            as a whole.
        reached: What of ours was reached, by how many cases.
        outside: What kept cases that did not reach us away, by how many cases.
        failures: Each failure with its message and why.
    """

    peer: str
    version: str
    tests: str
    file: str
    cases: int = 0
    reach_us: int = 0
    passed: int = 0
    plain: int = 0
    known: int = 0
    unexpected: int = 0
    reached: dict[str, int] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)


def run_cases(
    folder: Path, names: Sequence[str], plugin: str | None, *, plain: bool = False
) -> tuple[list[Case], str]:
    """Run cases in a process of their own.

    Args:
        folder: Where the tests lie.
        names: Files or cases.
        plugin: See `Suite`.
        plain: Whether to leave the library as it came.

    Returns:
        The cases, and what went wrong with the run as a whole, or nothing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        lines = Path(scratch) / "cases.jsonl"
        lines.touch()
        settings = Path(scratch) / "pytest.ini"
        settings.write_text("[pytest]\n", encoding="utf-8")
        plugins = ["benchmarks.peers.record"]
        plugins += [] if plugin is None else [f"benchmarks.peers.{plugin}"]
        command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-W", "ignore"]
        command += ["-c", str(settings), "--rootdir", str(folder), "-p", "no:cacheprovider"]
        for name in plugins:
            command += ["-p", name]
        environment = os.environ | _ENVIRONMENT | {record.CASES: str(lines)}
        environment["PYTHONPATH"] = str(ROOT)
        if plain:
            environment[record.PLAIN] = "1"
        trouble = ""
        try:
            done = subprocess.run(
                [*command, *names],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=5 * TIME_LIMIT,
                preexec_fn=_limit_time,
                check=False,
            )
            if done.returncode == -signal.SIGXCPU:
                trouble = f"not done after {TIME_LIMIT} s of processor time"
            elif done.returncode not in (0, 1):
                trouble = f"pytest ended with {done.returncode}: {done.stdout.strip()[-300:]}"
        except subprocess.TimeoutExpired:
            trouble = f"not done after {5 * TIME_LIMIT} s"
        text = lines.read_text(encoding="utf-8")
        return [Case(**json.loads(line)) for line in text.splitlines()], trouble


def _limit_time() -> None:
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_CPU, (TIME_LIMIT, TIME_LIMIT + 5))


def judge(
    outcome: Outcome,
    cases: Sequence[Case],
    plain: Sequence[Case],
    known: Sequence[Known],
    trouble: str = "",
) -> Outcome:
    """Count cases and say of each failure why.

    Args:
        outcome: Receives the counts.
        cases: As they ended with ours.
        plain: How those that failed end without ours.
        known: Reasons.
        trouble: What went wrong with the run as a whole.

    Returns:
        `outcome`.
    """
    without_us = {case.case for case in plain if case.outcome == "failed"}
    names: Counter[str] = Counter()
    away: Counter[str] = Counter()
    for case in cases:
        if case.outcome == "skipped":
            continue
        outcome.cases += 1
        if case.reached:
            outcome.reach_us += 1
            outcome.passed += case.outcome == "passed"
            names.update(case.reached.keys())
        else:
            away.update(case.outside.keys())
        if case.outcome == "passed" or not (case.reached or case.case not in without_us):
            continue
        kind, why = ("peer", _PEER) if case.case in without_us else ("unexpected", "")
        outcome.failures.append(
            {"case": case.case, "kind": kind, "why": why, "message": case.message}
        )
    if trouble:
        outcome.failures.append(
            {"case": outcome.file, "kind": "unexpected", "why": "", "message": trouble}
        )
    outcome.reached = dict(sorted(names.items()))
    outcome.outside = dict(sorted(away.items()))
    return _explained(outcome, known)


def _explained(outcome: Outcome, known: Sequence[Known]) -> Outcome:
    """Say of each failure why, and count them by that."""
    for failure in outcome.failures:
        if failure["kind"] == "peer":
            continue
        covers = (item for item in known if item.covers(outcome.peer, failure["case"]))
        reason = next(covers, None)
        failure["kind"] = "unexpected" if reason is None else reason.kind
        failure["why"] = "" if reason is None else reason.reason
    kinds = Counter(failure["kind"] for failure in outcome.failures)
    outcome.plain, outcome.unexpected = kinds["peer"], kinds["unexpected"]
    outcome.known = kinds["convention"] + kinds["fault"]
    return outcome


def _measure(suite: Suite, folder: Path, file: str, known: Sequence[Known]) -> Outcome:
    version = importlib.metadata.version(suite.peer)
    label = version if suite.source is None else suite.source.label
    cases, trouble = run_cases(folder, [file], suite.plugin)
    failed = [case.case for case in cases if case.outcome == "failed"]
    plain: list[Case] = []
    if failed and suite.plugin is not None:
        plain, _ = run_cases(folder, failed, suite.plugin, plain=True)
    return judge(Outcome(suite.peer, version, label, file), cases, plain, known, trouble)


def read_known(file: Path = HERE / "known.toml") -> list[Known]:
    """Return the reasons for failures.

    Raises:
        ValueError, TypeError: An entry is not what `Known` says.
    """
    return [Known(**item) for item in tomllib.loads(file.read_text(encoding="utf-8"))["known"]]


def _merged(file: Path, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """What is on file, with the files that were run now replaced, in the order of the suites."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    by_file = {(row["peer"], row["file"]): Outcome(**row) for row in found}
    by_file |= {(outcome.peer, outcome.file): outcome for outcome in outcomes}
    wanted = [(suite.peer, path) for suite in SUITES for path in suite.files]
    return [by_file[name] for name in wanted if name in by_file]


def _totals(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    rows = []
    for peer in dict.fromkeys(outcome.peer for outcome in outcomes):
        mine = [asdict(outcome) for outcome in outcomes if outcome.peer == peer]
        keys = ("cases", "reach_us", "passed", "plain", "known", "unexpected")
        sums = {key: sum(row[key] for row in mine) for key in keys}
        rows.append({"peer": peer, "version": "", "tests": "", "file": "all of them"} | sums)
    return rows


def run(settings: Settings) -> Report:
    """Run tests, and judge them together with those on file.

    Args:
        settings: Which ones.

    Raises:
        Unavailable: A source cannot be had.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    known, outcomes = read_known(), []
    for suite in SUITES:
        files = [file for file in suite.files if settings.only in file]
        if suite.peer not in settings.libraries or not files:
            continue
        folder = HERE
        if suite.source is not None:
            given = getattr(settings, suite.option) if suite.option else None
            try:
                folder = suite.source.obtain(CACHE, given and Path(given))
            except sources.Missing as error:
                hint = f"--{str(suite.option).replace('_', '-')} PATH gives it"
                message = f"{suite.peer} {suite.source.label}: {error} ({hint})"
                raise Unavailable(message) from error
        for file in files:
            outcome = _measure(suite, folder, file, known)
            outcomes.append(outcome)
            print(
                f"{suite.peer} {file}: {outcome.cases} cases, {outcome.reach_us} reach us,"
                f" {outcome.passed} pass, {outcome.unexpected} fail unexpectedly",
                flush=True,
            )
    storage = Path(settings.storage)
    merged = [_explained(outcome, known) for outcome in _merged(storage, outcomes)]
    stored = json.dumps([asdict(outcome) for outcome in merged], indent=1)
    write_text(storage, stored + "\n")
    unexpected = sum(outcome.unexpected for outcome in outcomes)
    return Report(
        tables=_tables(merged),
        claims=[Claim("failures that have no known reason", "<=", 0, unexpected)],
    )


def _tables(outcomes: Sequence[Outcome]) -> list[Table]:
    count = number()
    columns = [
        Column("peer", "library"),
        Column("version", "installed"),
        Column("tests", "tests of"),
        Column("file", "file"),
        Column("cases", "cases", count),
        Column("reach_us", "reach us", count),
        Column("passed", "passed", count),
        Column("plain", "fail without us too", count),
        Column("known", "known reason", count),
        Column("unexpected", "unexpected", count),
    ]
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    why = [Column(name, name) for name in ("case", "kind", "why")]
    rows = [*(asdict(outcome) for outcome in outcomes), *_totals(outcomes)]
    return [
        Table("files", "Tests of other libraries, run on ours", columns, rows),
        Table("failures", "Failures, and why", why, failures),
    ]
