"""Do the CUDA kernels pass their tests and sanitizers on this GPU, and how fast are they?"""

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ot as pot
import torch
from torch import Tensor

import hotnas_torch as ht
from benchmarks.gpu_model import GPUS, predict
from benchmarks.measuring import solvers
from benchmarks.measuring.problems import Loss, Pairs, Problems
from benchmarks.measuring.report import Claim, Column, Report, Table, Unavailable, number
from hotnas_torch.ot._operators import fgw

__all__ = ["ON_REQUEST", "QUICK", "Settings", "run"]

ON_REQUEST = "needs a GPU"
SIZES = (8, 11, 20)
SMALL_TESTS = "8-8 or 9-7 or outside"
SANITIZERS = ("memcheck", "racecheck", "synccheck")


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        networks: NAS-Bench-201 networks of the matrix that is timed.
        pairs: Problems of a call of our solver.
        others: Problems of a call of another library's.
        log: File that takes each result as it comes, a line of JSON each.
    """

    networks: int = 10_000
    pairs: int = 200_000
    others: int = 4_096
    log: str = "runs/gpu_check.jsonl"


QUICK = Settings(networks=500, pairs=10_000, others=256)

_RATES = (
    Column("n", "n", number()),
    Column("pairs_per_second", "pairs/s", number()),
    Column("predicted", "predicted", number()),
    Column("pot_pairs_per_second", "POT", number()),
    Column("ott_pairs_per_second", "OTT-JAX", number()),
)


def run(settings: Settings) -> Report:
    """Check and measure.

    Raises:
        Unavailable: There is no CUDA device.
    """
    if not torch.cuda.is_available():
        raise Unavailable("no CUDA device")
    device, log = torch.device("cuda"), Path(settings.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    checks = checked(log)
    measured = rates(device, settings.pairs, settings.others)
    _keep(log, "rates", measured)
    spent = gram_seconds(settings.networks, device)
    gram = [{"networks": settings.networks, "seconds": spent}]
    _keep(log, "gram", gram)
    columns = (Column("networks", "networks", number()), Column("seconds", "s", number()))
    report = Report(
        tables=[
            Table("rates", f"Pairs per second on {torch.cuda.get_device_name()}", _RATES, measured),
            Table("gram", "Distances between NAS-Bench-201 networks", columns, gram),
        ]
    )
    for name, check in checks.items():
        if check["passed"] is None:
            report.notes.append(f"{name} was not run: {check['output']}")
            continue
        report.claims.append(Claim(f"{name}: passed", ">=", 1, float(check["passed"])))
        if not check["passed"]:
            report.notes.append(f"{name} failed:\n{check['output']}")
    report.notes.append(str(ht.show_config()))
    return report


def _keep(log: Path, what: str, found: object) -> None:
    """Append a result as it comes: what follows may take the machine with it."""
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"what": what, "found": found}) + "\n")


def _run(command: list[str], **variables: str) -> dict[str, Any]:
    """Run a part of the check; return whether it passed and the end of what it said."""
    required = {"HOTNAS_REQUIRE_CUDA": "1", "HOTNAS_REQUIRE_EXT": "1"}
    environment = os.environ | required | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return {"passed": done.returncode == 0, "output": (done.stdout + done.stderr)[-4000:]}


def find_sanitizer() -> str | None:
    """Find compute-sanitizer: on the path, in the toolkit, or in the wheel that carries it."""
    places = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"]
    for site in map(Path, sys.path):
        places += (site / "nvidia").glob("**/bin")
        places += (site / "nvidia").glob("**/compute-sanitizer")
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, places)])
    return shutil.which("compute-sanitizer", path=path)


def checked(log: Path) -> dict[str, dict[str, Any]]:
    """Run the CUDA tests, and the small ones once more under each tool of compute-sanitizer.

    Args:
        log: File that takes each result as it comes.

    Returns:
        Per check, `passed` (None where its tool is absent) and `output`.
    """
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    found: dict[str, dict[str, Any]] = {}

    def note(name: str, check: dict[str, Any]) -> None:
        found[name] = check
        _keep(log, name, check)

    note("tests", _run([*pytest, "-m", "cuda"]))
    sanitizer = find_sanitizer()
    for tool in SANITIZERS:
        if sanitizer is None:
            hint = "there is no compute-sanitizer (pip install nvidia-cuda-sanitizer-api)"
            note(tool, {"passed": None, "output": hint})
            continue
        small = [*pytest, "tests/ot/operators/test_cuda.py", "-m", "cuda", "-k", SMALL_TESTS]
        # torch hands out parts of large blocks, beyond whose ends the tool sees nothing wrong
        caching = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if tool == "memcheck" else {}
        note(tool, _run([sanitizer, "--tool", tool, "--error-exitcode", "1", *small], **caching))
    return found


def seconds(call: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Return the median time of a call on the device, after one to warm up."""

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    call()
    times = []
    for _ in range(repeats):
        finish()
        started = time.perf_counter()
        call()
        finish()
        times.append(time.perf_counter() - started)
    return sorted(times)[repeats // 2]


def problems(n: int, pairs: int, loss: Loss = "l1") -> Problems:
    """Return random directed problems, as the model counts them; of square loss, symmetric ones."""
    rng = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        values = torch.rand(pairs, n, n, generator=rng, dtype=torch.float64)
        return values if loss == "l1" else (values + values.mT) / 2

    mass = torch.full((pairs, n), 1 / n, dtype=torch.float64)
    pair_set: Pairs = "directed" if loss == "l1" else "all"
    return Problems(draw(), draw(), draw(), mass, mass, loss, pair_set)


def our_rate(n: int, pairs: int, device: torch.device) -> float:
    """Return pairs per second of the fused solver, one start per pair."""
    p = problems(n, pairs)
    cost, x, y, a, b = (
        tensor.to(device, torch.float32) for tensor in (p.cost, p.struct_x, p.struct_y, p.a, p.b)
    )
    alpha, none = cost.new_full((pairs,), p.alpha), cost.new_empty(0)
    arguments = (cost, x, y, a, b, alpha, none, none, 0, 1, 1, 1e-4, 100)
    return pairs / seconds(lambda: fgw(*arguments, backend="ext"), device)


def pot_rate(n: int, pairs: int, device: torch.device) -> float:
    """Return pairs per second of POT's batched solver with its torch backend, square loss."""
    p = problems(n, pairs, "l2")
    cost, x, y, a, b = (
        tensor.to(device, torch.float32) for tensor in (p.cost, p.struct_x, p.struct_y, p.a, p.b)
    )

    def solve() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it did not converge
            return pot.batch.solve_gromov_batch(
                x, y, a=a, b=b, M=cost, alpha=p.alpha, symmetric=True, grad="detach"
            )

    return pairs / seconds(solve, device, repeats=3)


def ott_rate(n: int, pairs: int, device: torch.device) -> float | None:
    """Return pairs per second of OTT-JAX, square loss; None where it has none of such devices."""
    if not solvers.have_ott():
        return None
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch has memory there too
    jax: Any = importlib.import_module("jax")
    if (jax.default_backend() == "gpu") != (device.type == "cuda"):
        return None
    return pairs / seconds(solvers.ott_gromov(problems(n, pairs, "l2")).solve, device, repeats=3)


def gram_seconds(count: int, device: torch.device) -> float:
    """Time of the distances between so many NAS-Bench-201 networks."""
    space = ht.spaces.NASBench201()
    networks = space.sample(count, generator=torch.Generator().manual_seed(0))
    distance = ht.HOTNN(space=space, device=device)
    distance(networks[:50])
    return seconds(lambda: distance(networks), device, repeats=1)


def rates(device: torch.device, pairs: int, others: int) -> list[dict[str, Any]]:
    """Measure every solver at every size, beside what the model predicts for this GPU.

    Args:
        device: Where the problems lie.
        pairs: Problems of a call of our solver.
        others: Problems of a call of another library's.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    model = next((gpu for gpu in GPUS if gpu in name), None)
    return [
        {
            "n": n,
            "pairs_per_second": our_rate(n, pairs, device),
            "predicted": predict(GPUS[model], "Fgw", n)["pairs_per_second"] if model else None,
            "pot_pairs_per_second": pot_rate(n, others, device),
            "ott_pairs_per_second": ott_rate(n, others, device),
        }
        for n in SIZES
    ]
