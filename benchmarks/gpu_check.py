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
from hotnas_torch.ot import _operators as ops

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
)


_BESIDE = (
    Column("n", "n", number()),
    Column("solver", "solver"),
    Column("pairs_per_second", "pairs/s", number()),
    Column("objective", "mean objective", number(digits=5)),
)

_OPERATORS = (
    Column("operator", "operator"),
    Column("n", "n", number()),
    Column("per_second", "problems/s", number()),
    Column("predicted", "predicted", number()),
)


def run(settings: Settings) -> Report:
    """Check and measure.

    Raises:
        Unavailable: There is no CUDA device.
    """
    if not torch.cuda.is_available():
        raise Unavailable(f"no CUDA device: {why_no_gpu()}")
    device, log = torch.device("cuda"), Path(settings.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    checks = checked(log)
    measured = rates(device, settings.pairs)
    _keep(log, "rates", measured)
    compared = beside_peers(device, settings.others)
    _keep(log, "beside", compared)
    every = operator_rates(device, settings.pairs)
    _keep(log, "operators", every)
    spent = gram_seconds(settings.networks, device)
    gram = [{"networks": settings.networks, "seconds": spent}]
    _keep(log, "gram", gram)
    columns = (Column("networks", "networks", number()), Column("seconds", "s", number()))
    report = Report(
        tables=[
            Table("rates", f"Pairs per second on {torch.cuda.get_device_name()}", _RATES, measured),
            Table(
                "beside", "The same problems, square loss, all from one start", _BESIDE, compared
            ),
            Table("operators", "Every operator, float32", _OPERATORS, every),
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


def why_no_gpu() -> str:
    """Say what torch says when it is made to look: a driver that is missing or too old, say."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return "torch sees none"


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
    return pairs / seconds(lambda: ops.fgw(*arguments, backend="ext"), device)


def beside_peers(device: torch.device, pairs: int) -> list[dict[str, Any]]:
    """Solve the same problems of square loss with each library, and evaluate what it found.

    A coupling of OTT-JAX is entropic, and so blurred.
    """
    found = []
    for n in SIZES:
        p = problems(n, pairs, "l2")
        on_device = (p.cost, p.struct_x, p.struct_y, p.a, p.b)
        given = [tensor.to(device, torch.float32) for tensor in on_device]
        cost, x, y, *_ = given
        alpha, none = cost.new_full((pairs,), p.alpha), cost.new_empty(0)

        def ours(given: list[Tensor] = given, alpha: Tensor = alpha, none: Tensor = none) -> Tensor:
            arguments = (*given, alpha, none, none, 1, 0, 1, 1e-4, 100)
            return ops.fgw(*arguments, backend="ext")[0]

        def pots(given: list[Tensor] = given, share: float = p.alpha) -> Tensor:
            cost, x, y, a, b = given
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it did not converge
                plan: Tensor = pot.batch.solve_gromov_batch(
                    x, y, a=a, b=b, M=cost, alpha=share, symmetric=True, grad="detach"
                ).plan
            return plan

        solved: dict[str, Callable[[], Any]] = {"hotnas_torch": ours, "POT": pots}
        if has_ott(device):
            solved["OTT-JAX"] = solvers.ott_gromov(p).solve
        for name, solve in solved.items():
            plan = torch.as_tensor(solve(), dtype=torch.float32, device=device)
            quadratic = ops.quadratic_cost(plan, x, y, 1, 0, backend="torch")
            objective = (1 - alpha) * (cost * plan).sum((1, 2)) + alpha * quadratic
            rate = pairs / seconds(solve, device, repeats=3)
            mean = float(objective.mean())
            found.append({"n": n, "solver": name, "pairs_per_second": rate, "objective": mean})
    return found


def has_ott(device: torch.device) -> bool:
    """Whether OTT-JAX is installed and computes on devices of this kind."""
    if not solvers.have_ott():
        return False
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch has memory there too
    jax: Any = importlib.import_module("jax")
    return bool((jax.default_backend() == "gpu") == (device.type == "cuda"))


def operator_rates(device: torch.device, pairs: int) -> list[dict[str, Any]]:
    """Time every operator on random directed problems."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    model = next((gpu for gpu in GPUS if gpu in name), None)
    predicted = ("Fgw", "Transport", "Sinkhorn") if model else ()
    return [
        {
            "operator": operator,
            "n": n,
            "per_second": pairs / seconds(call, device, repeats=3),
            "predicted": predict(GPUS[model], operator, n)["pairs_per_second"]
            if model and operator in predicted
            else None,
        }
        for n in SIZES
        for operator, call in calls_of_operators(n, pairs, device).items()
    ]


def calls_of_operators(n: int, pairs: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """Return a call of every operator, by its name, of the compiled kernels."""
    p = problems(n, pairs)
    tensors = (p.cost, p.struct_x, p.struct_y, p.a, p.b)
    cost, x, y, a, b = (tensor.to(device, torch.float32) for tensor in tensors)
    alpha, none = cost.new_full((pairs,), p.alpha), cost.new_empty(0)
    graphs, plan = (cost, x, y, a, b, alpha), a[:, :, None] * b[:, None, :]
    each = torch.arange(pairs, device=device)
    labels = torch.zeros(pairs, n, dtype=torch.int64, device=device)
    cells = (
        *(labels, x[:, :, :6].contiguous(), x, a, labels, y[:, :, :6].contiguous(), y, b),
        *(cost.new_zeros(1, 1), each, each, 0.5, 0, 1, 0, 1, none, 1e-4, 100),
    )
    among = torch.arange(n, device=device).expand(pairs, n).contiguous()
    networks = (
        *(cost[0].contiguous(), among, a, x[:, :, :3].contiguous()),
        *(among, b, y[:, :, :3].contiguous(), each, each),
    )
    ext: dict[str, Any] = {"backend": "ext"}
    descent = (none, none, 0, 1, 1, 1e-4, 100)
    unbalanced = (0.1, 1.0, 1.0, 0, 1e-4, 100)
    return {
        "Transport": lambda: ops.transport(cost, a, b, **ext),
        "Sinkhorn": lambda: ops.sinkhorn(cost, a, b, 0.1, 1e-4, 100, **ext),
        "EntropicTransport": lambda: ops.entropic_transport(cost, a, b, 0.1, 1e-4, 100, **ext),
        "UnbalancedSinkhorn": lambda: ops.unbalanced_sinkhorn(cost, a, b, *unbalanced, **ext),
        "KlTransport": lambda: ops.kl_transport(cost, a, b, 1.0, 1.0, 1e-4, 100_000, **ext),
        "Fgw": lambda: ops.fgw(*graphs, *descent, **ext),
        "FgwBackward": lambda: ops.fgw_backward(plan, x, y, alpha, 0, 1, **ext),
        "EntropicFgw": lambda: ops.entropic_fgw(
            *graphs, none, 0.1, 0, 1, 0, 1e-4, 20, 1e-4, 100, **ext
        ),
        "SemirelaxedFgw": lambda: ops.semirelaxed_fgw(*graphs, *descent, **ext),
        "LowerBound": lambda: ops.fgw_lower_bound(*graphs, 0, 1, **ext),
        "CellDistances": lambda: ops.cell_distances(*cells, **ext),
        "NetworkDistances": lambda: ops.network_distances(*networks, **ext),
    }


def gram_seconds(count: int, device: torch.device) -> float:
    """Time of the distances between so many NAS-Bench-201 networks."""
    space = ht.spaces.NASBench201()
    networks = space.sample(count, generator=torch.Generator().manual_seed(0))
    distance = ht.HOTNN(space=space, device=device)
    distance(networks[:50])
    return seconds(lambda: distance(networks), device, repeats=1)


def rates(device: torch.device, pairs: int) -> list[dict[str, Any]]:
    """Measure the solver at every size, beside what the model predicts for this GPU.

    Args:
        device: Where the problems lie.
        pairs: Problems of a call.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    model = next((gpu for gpu in GPUS if gpu in name), None)
    return [
        {
            "n": n,
            "pairs_per_second": our_rate(n, pairs, device),
            "predicted": predict(GPUS[model], "Fgw", n)["pairs_per_second"] if model else None,
        }
        for n in SIZES
    ]
