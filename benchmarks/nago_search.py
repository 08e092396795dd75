# Over 400 lines: one comparison, read from its settings down to its picture.
"""Which searches over generators of networks find small errors, and small networks?

On real trainings: BOHB beside plain Hyperband and random search at equal cost, and multi-objective
searches for small error and little memory, on HNAG and RNAG. Evaluations are kept by
hyperparameters and budget, so that searches share those that they have in common; finished searches
are kept, too. The same command goes on where it was interrupted, and `--finished` tabulates and
draws what is finished.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.measuring.records import recorded
from benchmarks.measuring.report import Column, Report, Table
from benchmarks.measuring.statistics import mean_and_error
from benchmarks.nago_data import CASES, PARAMETER_LIMIT
from hotnas_torch.comparison.code import code_version
from hotnas_torch.nago import (
    BOHB,
    MOBO,
    BNNSurrogate,
    GeneratorTraining,
    GPSurrogate,
    Hyperband,
    HypervolumeImprovement,
    RandomChoice,
    UncertainPareto,
    hypervolume,
    run_jobs,
)
from hotnas_torch.nn import TrainingSettings
from hotnas_torch.plot import plot_fronts, plot_progress

__all__ = [
    "MULTI", "ON_REQUEST", "QUICK", "SINGLE", "Settings", "Trainings", "run", "search_budgets",
    "search_front",
]  # fmt: skip

ON_REQUEST = "takes hours"
CHOICES = {"cases": tuple(CASES)}
_ETA = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """How large the comparison is.

    Attributes:
        seeds: Searches of each method.
        epochs: Full budget of a training; smaller ones are a half and a quarter of it.
        rounds: Total cost of a single-objective search, in rounds of Hyperband's brackets.
        evaluations: Trainings of a multi-objective search, each with the full budget.
        initial: How many of them are random.
        batch: How many are asked for at once.
        parameter_limit: Of every network.
        cases: Names in `benchmarks.nago_data.CASES`.
        finished: Whether only finished searches are tabulated, and none is made.
        storage: Where trainings and finished searches are kept.
    """

    seeds: int = 10
    epochs: int = 4
    rounds: int = 8
    evaluations: int = 34
    initial: int = 10
    batch: int = 4
    parameter_limit: int = PARAMETER_LIMIT
    cases: tuple[str, ...] = tuple(CASES)
    finished: bool = False
    storage: str = "runs/bench/nago"


QUICK = Settings(
    seeds=2,
    epochs=4,
    rounds=1,
    evaluations=8,
    initial=4,
    batch=2,
    parameter_limit=4_000,
    storage="runs/bench/nago-quick",
)
_ELSEWHERE = ("seeds", "cases", "finished", "storage")
"""Settings that change no search."""

SINGLE: Mapping[str, str] = {
    "random": "random search",
    "hyperband": "Hyperband",
    "bohb": "BOHB",
}
"""Single-objective searches."""

MULTI: Mapping[str, tuple[str, Callable[[], tuple[Any, Any]]]] = {
    "random": ("random search", lambda: (RandomChoice(), BNNSurrogate())),
    "pareto_bnn": ("uncertain Pareto points, BNN", lambda: (UncertainPareto(), BNNSurrogate())),
    "pareto_gp": ("uncertain Pareto points, GP", lambda: (UncertainPareto(), GPSurrogate())),
    "nehvi_bnn": ("qLogNEHVI, BNN", lambda: (HypervolumeImprovement(), BNNSurrogate())),
    "nehvi_gp": ("qLogNEHVI, GP", lambda: (HypervolumeImprovement(), GPSurrogate())),
}
"""Multi-objective searches: title, selection and surrogate."""


class Trainings:
    """Trainings of one case, each made once.

    Args:
        name: Name of the case.
        settings: How large the comparison is.
        folder: Where evaluations are kept.
    """

    def __init__(self, name: str, settings: Settings, folder: Path) -> None:
        self.space = CASES[name].space
        self._objective: GeneratorTraining[Any] = GeneratorTraining(
            CASES[name].generator,
            parameter_limit=settings.parameter_limit,
            settings=TrainingSettings(epochs=settings.epochs, batch_size=50, learning_rate=0.1),
        )
        self._file = folder / f"trainings-{name}.jsonl"

    def __call__(self, row: Sequence[float], epochs: int) -> tuple[float, float]:
        """Return validation error in percent and bytes per image; NaN for a failed training."""
        key = {"row": list(row), "epochs": epochs}
        (found,) = recorded(
            self._file, self._objective.describe(), [key], self._train, title="training"
        )
        error = math.nan if found["error"] is None else float(found["error"])
        return error, float(found["memory"])

    def _train(self, key: Mapping[str, Any]) -> dict[str, Any]:
        (theta,) = self.space.decode(torch.tensor([key["row"]], dtype=torch.float64))
        result = self._objective(theta, epochs=key["epochs"])
        return {
            "error": None if result.failed else result.value,
            "memory": result.metrics.get("memory", math.nan),
            "seconds": result.cost,
        }


def search_budgets(
    method: str, trainings: Trainings, settings: Settings, seed: int
) -> dict[str, list[float]]:
    """Run a single-objective search.

    Args:
        method: Name in `SINGLE`.
        trainings: What to evaluate.
        settings: How large the comparison is.
        seed: Of the search.

    Returns:
        `cost`: epochs spent when a training with the full budget ended, `error`: the lowest
        error of those so far.
    """
    generator = torch.Generator().manual_seed(seed)
    kind = BOHB if method == "bohb" else Hyperband
    smallest = settings.epochs if method == "random" else settings.epochs // _ETA**2
    search = kind(
        trainings.space,
        min_budget=smallest,
        max_budget=settings.epochs,
        eta=_ETA,
        generator=generator,
    )
    brackets = Hyperband(
        trainings.space,
        min_budget=settings.epochs // _ETA**2,
        max_budget=settings.epochs,
        eta=_ETA,
        generator=generator,
    ).brackets
    total = settings.rounds * sum(
        size * budget
        for bracket in brackets
        for size, budget in zip(bracket.sizes, bracket.budgets, strict=True)
    )
    run_jobs(
        search,
        lambda job: trainings(job.row, round(job.budget))[0],
        budget=total,
        progress=False,
    )
    costs: list[float] = []
    errors: list[float] = []
    spent = 0.0
    for job, value in search.results:
        spent += job.budget
        if job.budget == settings.epochs and not math.isnan(value):
            costs.append(spent)
            errors.append(min([*errors[-1:], value]))
    return {"cost": costs, "error": errors}


def search_front(
    method: str, trainings: Trainings, settings: Settings, seed: int
) -> dict[str, list[list[float]]]:
    """Run a multi-objective search.

    Args:
        method: Name in `MULTI`.
        trainings: What to evaluate.
        settings: How large the comparison is.
        seed: Of the search.

    Returns:
        `values`: error in percent and binary logarithm of the bytes per image of each
        evaluation, in order.
    """
    selection, surrogate = MULTI[method][1]()
    search = MOBO(
        trainings.space,
        selection=selection,
        surrogate=surrogate,
        num_initial=settings.initial,
        generator=torch.Generator().manual_seed(seed),
    )
    done = 0
    while done < settings.evaluations:
        num = settings.initial if done == 0 else min(settings.batch, settings.evaluations - done)
        rows = search.ask(num)
        found = [trainings(row, settings.epochs) for row in rows.tolist()]
        search.tell(
            rows,
            torch.tensor(
                [[error, math.log2(memory)] for error, memory in found], dtype=torch.float64
            ),
        )
        done += num
    return {"values": search.observations[1].tolist()}


def run(settings: Settings) -> Report:
    """Make the searches that are missing, then tabulate and draw."""
    torch.set_num_threads(1)
    searches = _Searches(settings)
    # Every method once before any twice: what an interrupted run leaves can be compared.
    for seed in range(settings.seeds):
        for case in settings.cases:
            searches.run(case, seed)
    return _report(searches, settings)


class _Searches:
    """Finished searches by case, kind, method and seed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.found: list[dict[str, Any]] = []
        self._records = Path(settings.storage)

    def run(self, case: str, seed: int) -> None:
        """Make the searches of a case and seed that are missing."""
        trainings = Trainings(case, self.settings, self._records)

        def measure(key: Mapping[str, Any]) -> dict[str, Any]:
            kind = search_budgets if key["kind"] == "single" else search_front
            return kind(key["method"], trainings, self.settings, seed)

        wanted = [
            {"case": case, "kind": kind, "method": method, "seed": seed}
            for kind, methods in (("single", SINGLE), ("multi", MULTI))
            for method in methods
        ]
        about = {k: v for k, v in asdict(self.settings).items() if k not in _ELSEWHERE}
        about["code"] = code_version("gp", "nago", "search")
        file = self._records / "searches.jsonl"
        if self.settings.finished:
            wanted = [key for key in wanted if _is_recorded(file, about, key)]
        title = f"{case}, seed {seed}"
        self.found += recorded(file, about, wanted, measure, title=title)

    def of(self, case: str, kind: str, method: str) -> list[dict[str, Any]]:
        """Return the finished searches of a method."""
        key = (case, kind, method)
        return [one for one in self.found if (one["case"], one["kind"], one["method"]) == key]


def _is_recorded(file: Path, about: Mapping[str, Any], key: Mapping[str, Any]) -> bool:
    """Whether a search is finished."""

    class Missing(Exception):
        pass

    def missing(_: Mapping[str, Any]) -> dict[str, Any]:
        raise Missing

    try:
        recorded(file, about, [key], missing, title="")
    except Missing:
        return False
    return True


def _report(searches: _Searches, settings: Settings) -> Report:
    cases = settings.cases
    columns = [Column("search", "search"), *(Column(case, case.upper(), str) for case in cases)]
    lowest = {
        (case, method): {
            one["seed"]: min(one["error"])
            for one in searches.of(case, "single", method)
            if one["error"]
        }
        for case in cases
        for method in SINGLE
    }
    report = Report(
        tables=[
            Table(
                "single",
                "Single objective, at equal cost: lowest validation error, %, with the full budget",
                columns,
                [
                    {"search": title} | {case: _entry(lowest, case, method) for case in cases}
                    for method, title in SINGLE.items()
                ],
            )
        ]
    )
    every = [
        _values(one)
        for case in cases
        for method in MULTI
        for one in searches.of(case, "multi", method)
    ]
    if every:
        pooled = torch.cat(every)
        low, high = pooled.amin(dim=0), pooled.amax(dim=0)
        left = {  # smaller is better, as above
            (case, method): {
                one["seed"]: -_share(_values(one), low, high)
                for one in searches.of(case, "multi", method)
            }
            for case in cases
            for method in MULTI
        }
        report.tables.append(
            Table(
                "multi",
                f"Two objectives, after {settings.evaluations} trainings: share of the volume"
                " between the best and the worst values that all searches on any generator met,"
                " error in percent and binary logarithm of memory",
                columns,
                [
                    {"search": title} | {case: _entry(left, case, method) for case in cases}
                    for method, (title, _) in MULTI.items()
                ],
            )
        )
    report.notes.append(
        f"{settings.epochs} epochs are the full budget, {settings.parameter_limit} parameters the"
        " limit. Mean ± standard error over seeds, and on how many of them a search is better than"
        " random search."
    )
    report.figures |= _drawn(searches, cases)
    return report


def _drawn(searches: _Searches, cases: Sequence[str]) -> dict[str, Figure]:
    single: dict[str, dict[str, list[tuple[list[float], list[float]]]]] = {}
    fronts: dict[str, list[list[float]]] = {}
    for case in cases:
        for method, title in SINGLE.items():
            found = [one for one in searches.of(case, "single", method) if one["cost"]]
            if found:
                runs = [(one["cost"], one["error"]) for one in found]
                single.setdefault(case.upper(), {})[title] = runs
        points = [
            [error, 2.0**memory / 1024.0]
            for one in searches.of(case, "multi", "pareto_bnn")
            for error, memory in _values(one).tolist()
        ]
        if points:
            fronts[case.upper()] = points
    figures = {}
    if single:
        labels = ("epochs", "lowest validation error, %")
        figures["progress"] = plot_progress(single, labels=labels)
    if fronts:
        labels = ("validation error, %", "memory per image, KiB")
        figures["fronts"] = plot_fronts(fronts, labels=labels)
    return figures


def _values(search: Mapping[str, Any]) -> Tensor:
    """The evaluations of a multi-objective search that did not fail, (n, 2)."""
    values = torch.tensor(search["values"], dtype=torch.float64)
    return values[~values.isnan().any(dim=1)]


def _share(values: Tensor, low: Tensor, high: Tensor) -> float:
    span = torch.where(high > low, high - low, 1.0)
    return hypervolume((values - low) / span, torch.ones(2, dtype=torch.float64))


def _entry(found: Mapping[tuple[str, str], Mapping[int, float]], case: str, method: str) -> str:
    """Mean of the magnitudes, and on how many seeds they are smaller than random search's."""
    mine, random = found[case, method], found[case, "random"]
    if not mine:
        return "-"
    text = mean_and_error([abs(one) for one in mine.values()], 3)
    if method == "random":
        return text
    both = mine.keys() & random.keys()
    return f"{text} ({sum(mine[seed] < random[seed] for seed in both)} of {len(both)})"
