"""At which sizes is another library faster: POT, SciPy, lapx or OTT-JAX?

Every cell of the tables is measured in turns on one thread, and stands in `storage` when it is
done; the same command goes on from there.
"""

import importlib
import importlib.util
import os
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ot as pot
import torch
from scipy.optimize import linear_sum_assignment
from threadpoolctl import threadpool_limits

import hotnas_torch as ht
from benchmarks.measuring.evaluate import Array
from benchmarks.measuring.machine import core_digest, versions
from benchmarks.measuring.problems import Problems
from benchmarks.measuring.records import recorded
from benchmarks.measuring.report import Claim, Column, Report, Row, Table, number
from benchmarks.measuring.solvers import pot_conditional_gradient
from benchmarks.measuring.timing import Contender, alternate
from hotnas_torch.comparison.code import code_version

__all__ = ["CHOICES", "QUICK", "Settings", "run"]

Kind = Literal["transport", "sinkhorn", "fgw_l2", "fgw_l1", "entropic_fgw"]

OURS, BATCH = "hotnas_torch", "hotnas_torch, batch"
EPSILONS = (1.0, 0.05)
"""Weights of the entropy in Sinkhorn, of costs whose largest is about 1."""
GRAPH_EPSILON = 0.05
ALPHA = 0.5
TOL = 1e-6
"""L1 error of the masses at which Sinkhorn stops."""
EQUAL = 1e-5
"""What objectives of one optimum may differ by, of their size."""
_MOST_IN_TENSOR = 50
"""Nodes up to which POT gets the absolute loss, as a matrix of n^4 entries."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        kinds: Problems.
        sizes: Nodes of both sides.
        graph_sizes: The same of graphs.
        masses: "uniform" or "random".
        costs: "random", "tied" (integers from 0 to 9) or "points" (squared distances).
        problems: Of a cell, one after the other; of graphs one from 200 nodes on.
        entries: Of the costs of a batch, which has at most 256 problems.
        rounds: Turns of each solver.
        seconds: Least processor time of a turn.
        once: Who takes longer, in seconds, is run once.
        patience: A peer that took longer, in seconds, gets no larger problems.
        compiled: Nodes up to which OTT-JAX is compiled.
        seed: Of the problems.
        storage: Where cells are kept.
    """

    kinds: tuple[str, ...] = ("transport", "sinkhorn", "fgw_l2", "fgw_l1", "entropic_fgw")
    sizes: tuple[int, ...] = (5, 8, 12, 20, 32, 50, 100, 200, 300, 500)
    graph_sizes: tuple[int, ...] = (5, 8, 12, 20, 32, 50, 100, 200, 300)
    masses: tuple[str, ...] = ("uniform", "random")
    costs: tuple[str, ...] = ("random", "tied", "points")
    problems: int = 4
    entries: int = 100_000
    rounds: int = 3
    seconds: float = 0.01
    once: float = 0.3
    patience: float = 1.0
    compiled: int = 20
    seed: int = 0
    storage: str = "runs/bench/against"


QUICK = Settings(
    sizes=(8, 32), graph_sizes=(8,), costs=("random", "tied"), compiled=8,
    storage="runs/bench/against-quick",
)  # fmt: skip

CHOICES = {field: getattr(Settings(), field) for field in ("kinds", "masses", "costs")}


@dataclass(frozen=True, slots=True)
class _Problem:
    """One problem, in float64 for everybody."""

    cost: Array
    x: Array
    y: Array
    a: Array
    b: Array

    @property
    def uniform(self) -> bool:
        return bool((self.a == self.a[0]).all() and (self.b == self.b[0]).all())

    def tensors(self) -> list[torch.Tensor]:
        return [torch.from_numpy(getattr(self, field.name)) for field in fields(self)]


Solve = Callable[[_Problem], Array]


def _draw(nodes: int, masses: str, costs: str, rng: np.random.Generator) -> _Problem:
    def mass() -> Array:
        return np.full(nodes, 1 / nodes) if masses == "uniform" else rng.dirichlet(np.ones(nodes))

    def matrix() -> Array:
        if costs == "random":
            return rng.random((nodes, nodes))
        if costs == "tied":
            return rng.integers(0, 10, (nodes, nodes)) / 8
        return _squares(rng.random((nodes, 2)), rng.random((nodes, 2)))

    def structure() -> Array:
        if costs == "points":
            places = rng.random((nodes, 2))
            return np.sqrt(_squares(places, places))
        upper: Array = np.triu(matrix(), 1)
        return upper + upper.T

    return _Problem(matrix(), structure(), structure(), mass(), mass())


def _squares(one: Array, other: Array) -> Array:
    squares: Array = ((one[:, None] - other) ** 2).sum(-1)
    return squares


# --- solvers --------------------------------------------------------------------------------------


def _ours(kind: Kind, epsilon: float) -> Callable[..., Array]:
    """Of the tensors of a problem, or of a batch."""

    def call(*tensors: torch.Tensor) -> Array:
        cost, x, y, a, b = tensors
        result: Any
        if kind == "transport":
            result = ht.ot.transport(cost, a, b)
        elif kind == "sinkhorn":
            result = ht.ot.sinkhorn(cost, a, b, epsilon=epsilon, tol=TOL)
        elif kind == "entropic_fgw":
            result = ht.ot.entropic_fgw(
                cost, x, y, a, b, alpha=ALPHA, epsilon=epsilon, loss="l2", pairs="all"
            )
        else:
            result = ht.ot.fgw(
                cost, x, y, a, b, alpha=ALPHA, loss=kind[4:], pairs="all", init="product"
            )  # type: ignore[arg-type]
        plan: Array = result.plan.numpy()
        return plan

    return call


def _peers(
    kind: Kind, epsilon: float, nodes: int, uniform: bool, compiled: int
) -> dict[str, Solve]:
    """What others have for a problem, by name."""
    if kind == "transport":
        solvers: dict[str, Solve] = {"POT": lambda one: np.asarray(pot.emd(one.a, one.b, one.cost))}
        if uniform:
            solvers["SciPy"] = lambda one: _assigned(*linear_sum_assignment(one.cost), nodes)
            if importlib.util.find_spec("lap") is not None:
                lap: Any = importlib.import_module("lap")
                solvers["lapx"] = lambda one: _assigned(
                    np.arange(nodes), lap.lapjv(one.cost)[1], nodes
                )
        return solvers
    if kind == "sinkhorn":
        solvers = {
            "POT": lambda one: np.asarray(
                pot.sinkhorn(one.a, one.b, one.cost, epsilon, stopThr=TOL, numItermax=10_000)
            )
        }
    elif kind == "fgw_l2":
        return {
            "POT": lambda one: np.asarray(
                pot.gromov.fused_gromov_wasserstein(
                    one.cost, one.x, one.y, one.a, one.b, symmetric=True, alpha=ALPHA
                )
            )
        }
    elif kind == "fgw_l1":
        if nodes > _MOST_IN_TENSOR:
            return {}
        return {"POT": _pot_absolute}
    else:
        solvers = {
            "POT": lambda one: np.asarray(
                pot.gromov.entropic_fused_gromov_wasserstein(
                    one.cost, one.x, one.y, one.a, one.b, epsilon=epsilon, symmetric=True,
                    alpha=ALPHA, tol=1e-7,
                )
            )
        }  # fmt: skip
    if nodes <= compiled and importlib.util.find_spec("ott") is not None:
        solvers["OTT-JAX"] = (_ott_sinkhorn if kind == "sinkhorn" else _ott_gromov)(epsilon)
    return solvers


def _assigned(rows: Any, columns: Any, nodes: int) -> Array:
    plan = np.zeros((nodes, nodes))
    plan[rows, columns] = 1 / nodes
    return plan


def _pot_absolute(one: _Problem) -> Array:
    tensors = [tensor[None] for tensor in one.tensors()]
    plans: Array = pot_conditional_gradient(Problems(*tensors, "l1", "all", ALPHA)).plans()
    return plans[0]


def _jax() -> Any:
    one_thread = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ.setdefault("XLA_FLAGS", one_thread)
    jax: Any = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)
    return jax


@cache
def _ott_sinkhorn(epsilon: float) -> Solve:
    jax = _jax()
    geometry: Any = importlib.import_module("ott.geometry.geometry")
    problem: Any = importlib.import_module("ott.problems.linear.linear_problem")
    sinkhorn: Any = importlib.import_module("ott.solvers.linear.sinkhorn")
    solver = sinkhorn.Sinkhorn(threshold=TOL, max_iterations=10_000)

    def solve(cost: Any, a: Any, b: Any) -> Any:
        linear = problem.LinearProblem(geometry.Geometry(cost, epsilon=epsilon), a=a, b=b)
        return solver(linear).matrix

    compiled = jax.jit(solve)
    return lambda one: np.asarray(compiled(one.cost, one.a, one.b))


@cache
def _ott_gromov(epsilon: float) -> Solve:
    jax = _jax()
    geometry: Any = importlib.import_module("ott.geometry.geometry")
    quadratic: Any = importlib.import_module("ott.problems.quadratic.quadratic_problem")
    gromov: Any = importlib.import_module("ott.solvers.quadratic.gromov_wasserstein")
    sinkhorn: Any = importlib.import_module("ott.solvers.linear.sinkhorn")
    scale = 2 * ALPHA  # it weighs half the gradient of the quadratic term
    solver = gromov.GromovWasserstein(
        linear_solver=sinkhorn.Sinkhorn(threshold=TOL), epsilon=epsilon / scale, threshold=1e-7
    )

    def solve(cost: Any, x: Any, y: Any, a: Any, b: Any) -> Any:
        one, other, across = (geometry.Geometry(cost_matrix=matrix) for matrix in (x, y, cost))
        problem = quadratic.QuadraticProblem(
            one, other, across, fused_penalty=(1 - ALPHA) / scale, a=a, b=b
        )
        return solver(problem).matrix

    compiled = jax.jit(solve)
    return lambda one: np.asarray(compiled(one.cost, one.x, one.y, one.a, one.b))


# --- objectives -----------------------------------------------------------------------------------


def _value(kind: Kind, epsilon: float, one: _Problem, plan: Array) -> float:
    """The objective by its definition, entropy included."""
    linear = float((one.cost * plan).sum())
    entropy = float((plan * np.log(np.maximum(plan, 1e-300))).sum())
    if kind == "transport":
        return linear
    if kind == "sinkhorn":
        return linear + epsilon * entropy
    rows, columns = plan.nonzero()
    if kind == "fgw_l1":
        masses, quadratic = plan[rows, columns], 0.0
        for i, j, mass in zip(rows, columns, masses, strict=True):
            quadratic += mass * float(np.abs(one.x[i, rows] - one.y[j, columns]) @ masses)
    else:
        p, q = plan.sum(1), plan.sum(0)
        squares = p @ (one.x**2 @ p) + q @ (one.y**2 @ q)
        quadratic = float(squares - 2 * (plan * (one.x @ plan @ one.y.T)).sum())
    value = (1 - ALPHA) * linear + ALPHA * quadratic
    return value + epsilon * entropy if kind == "entropic_fgw" else value


# --- cells ----------------------------------------------------------------------------------------


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    wanted = [
        {"kind": kind, "epsilon": epsilon, "nodes": nodes, "masses": masses, "costs": costs}
        for kind in settings.kinds
        for epsilon in _epsilons(kind)
        for masses in settings.masses
        for costs in settings.costs
        for nodes in (settings.graph_sizes if "fgw" in kind else settings.sizes)
    ]
    about = {"settings": asdict(settings) | {"storage": ""}, "versions": dict(versions())}
    about |= {"code": code_version("ot"), "core": core_digest()}
    for unseen in ("kinds", "sizes", "graph_sizes", "masses", "costs"):
        del about["settings"][unseen]  # which cells there are changes none of them
    dear: dict[tuple[str, ...], float] = {}

    def measure(key: Mapping[str, Any]) -> Mapping[str, Any]:
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an iteration limit shows in the objective
            return _measure(settings, dear, **key)

    rows = recorded(Path(settings.storage) / "cells.jsonl", about, wanted, measure, title="cells")
    report = Report()
    for kind in settings.kinds:
        for epsilon in _epsilons(kind):
            found = [row for row in rows if (row["kind"], row["epsilon"]) == (kind, epsilon)]
            name = kind if len(_epsilons(kind)) == 1 else f"{kind}_{epsilon:g}"
            report.tables.append(_table(kind, epsilon, name, found))
            report.claims += _claims(name, found)
    report.notes += _notes(report)
    return report


def _epsilons(kind: str) -> tuple[float, ...]:
    if kind == "sinkhorn":
        return EPSILONS
    return (GRAPH_EPSILON,) if kind == "entropic_fgw" else (0.0,)


def _measure(
    settings: Settings,
    dear: dict[tuple[str, ...], float],
    kind: Kind,
    epsilon: float,
    nodes: int,
    masses: str,
    costs: str,
) -> dict[str, Any]:
    rng = np.random.default_rng([settings.seed, nodes])
    count = 1 if nodes >= 200 and "fgw" in kind else settings.problems
    problems = [_draw(nodes, masses, costs, rng) for _ in range(count)]
    ours = _ours(kind, epsilon)
    single = [one.tensors() for one in problems]
    size = (
        max(1, min(256, settings.entries // nodes**2))
        if "fgw" not in kind
        else max(1, min(256, settings.entries // 4 // nodes**2))
    )
    many = [
        torch.stack([parts[k % count] for k in range(size)]) for parts in zip(*single, strict=True)
    ]
    peers = {
        name: solve
        for name, solve in _peers(
            kind, epsilon, nodes, masses == "uniform", settings.compiled
        ).items()
        if dear.get((kind, masses, costs, name), 0.0) <= settings.patience
    }
    for name, solve in peers.items():
        if name == "OTT-JAX":
            solve(problems[0])  # compiles
    plans: dict[str, list[Array]] = {}

    def solve_all(name: str, solve: Solve) -> None:
        plans[name] = [solve(one) for one in problems]

    def ours_alone() -> None:
        plans[OURS] = [ours(*parts) for parts in single]

    contenders = [
        Contender(OURS, ours_alone, count),
        Contender(BATCH, lambda: ours(*many), size),
        *(Contender(name, partial(solve_all, name, solve), count) for name, solve in peers.items()),
    ]
    rates = alternate(
        contenders, rounds=settings.rounds, seconds=settings.seconds, once=settings.once
    )
    seconds = {name: 1 / found.median for name, found in rates.items()}
    for name in peers:
        dear[kind, masses, costs, name] = seconds[name]
    values = {
        name: [_value(kind, epsilon, one, plan) for one, plan in zip(problems, found, strict=True)]
        for name, found in plans.items()
    }
    return {
        "batch": size,
        "seconds": seconds,
        "single": {name: rates[OURS].over(rates[name]) for name in peers},
        "batched": {name: rates[BATCH].over(rates[name]) for name in peers},
        "objectives": values,
    }


# --- the report -----------------------------------------------------------------------------------

_TITLES = {
    "transport": "Exact transport",
    "sinkhorn": f"Sinkhorn, epsilon = {{epsilon:g}}, to an L1 error of {TOL:g}",
    "fgw_l2": "Fused Gromov-Wasserstein, squared loss, all from the product of the masses",
    "fgw_l1": "Fused Gromov-Wasserstein, absolute loss, all from the product of the masses",
    "entropic_fgw": "Entropic fused Gromov-Wasserstein, squared loss, epsilon = {epsilon:g}",
}


def _table(kind: str, epsilon: float, name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    peers = list(dict.fromkeys(peer for row in rows for peer in row["single"]))
    columns = [
        Column("masses", "masses"),
        Column("costs", "costs"),
        Column("nodes", "n", number()),
        Column("us", "single, us", number()),
        Column("us_batch", "batch, us", number()),
    ]
    for peer in peers:
        columns.append(Column(f"single {peer}", f"{peer} / single", number()))
        columns.append(Column(f"batched {peer}", f"{peer} / batch", number()))
    columns.append(Column("agreement", "objectives"))
    shown = [dict(row) | _shown(row) for row in rows]
    return Table(name, _TITLES[kind].format(epsilon=epsilon), columns, shown)


def _shown(row: Mapping[str, Any]) -> Row:
    shown: dict[str, Any] = {
        "us": 1e6 * row["seconds"][OURS],
        "us_batch": 1e6 * row["seconds"][BATCH],
    }
    for how in ("single", "batched"):
        shown |= {f"{how} {peer}": times for peer, times in row[how].items()}
    return shown | {"agreement": _agreement(row)}


def _agreement(row: Mapping[str, Any]) -> str:
    """Whether all ended at one objective; else by how much the others are above or below ours."""
    ours = statistics.fmean(row["objectives"][OURS])
    said = []
    for peer in row["single"]:
        theirs = statistics.fmean(row["objectives"][peer])
        apart = (theirs - ours) / max(abs(ours), 1e-9)
        if abs(apart) > EQUAL:
            said.append(f"{peer} {100 * apart:+.2g} %")
    return ", ".join(said) or "equal"


def _claims(name: str, rows: Sequence[Mapping[str, Any]]) -> list[Claim]:
    claims = []
    for peer in ("POT", "SciPy"):
        # Its single calls take 2 microseconds, less than one operation of torch.
        for how in ("single", "batched") if peer == "POT" else ("batched",):
            times = [row[how][peer] for row in rows if peer in row[how]]
            if times:
                call = "single calls" if how == "single" else "batches"
                text = f"{name}, {call}: least multiple of {peer}'s speed"
                claims.append(Claim(text, ">=", 1.0, min(times)))
    return claims


def _notes(report: Report) -> list[str]:
    notes = [
        "Ratios are times per problem, the other's over ours, above 1 where we are faster:"
        " processor time of one thread, float64, each in turn; the median over the rounds. Single:"
        " a call per problem, of the public function with all that it checks and returns, duals,"
        " status and gradient beside the plan. Batch: one call for up to 256 problems, beside the"
        " other's calls one by one.",
        f"Objectives: 'equal' within {EQUAL:g} of ours, else by how much the mean of the other's is"
        " above ours. Problems that are not convex, and ties in them, end in one of several optima;"
        " of entropic ones the plan that each stops at counts.",
        "POT has no absolute loss: ot.optim.cg with its n^4 terms as a matrix, up to"
        f" {_MOST_IN_TENSOR} nodes. A peer that took too long on one size is left out of larger"
        " ones.",
    ]
    slower = [
        f"{table.name} {row['masses']} {row['costs']} n = {row['nodes']} ({how} {times:.2f})"
        for table in report.tables
        for row in table.rows
        for how in ("single", "batched")
        for peer, times in row[how].items()
        if peer == "lapx" and times < 1
    ]
    if slower:
        notes.append("lapx is faster in: " + "; ".join(slower) + ".")
    return notes
