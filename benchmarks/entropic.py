"""How fast are the entropic solvers beside POT's, at the same error?"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ot as pot
import torch
from matplotlib.figure import Figure

import hotnas_torch as ht
from benchmarks.measuring.evaluate import Array, marginal_error, objectives
from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.problems import Problems, random_problems
from benchmarks.measuring.report import Column, Report, Row, Table, number
from benchmarks.measuring.timing import Contender, alternate

__all__ = ["QUICK", "Settings", "draw", "run"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        sizes: Nodes, and how many problems of that size; ours and POT's batched solver get copies.
        batch: Problems that a batched solver gets at once.
        epsilons: Weights of the entropy in Sinkhorn.
        graph_epsilon: Weight of the entropy in entropic fused Gromov-Wasserstein.
        tol: L1 error of the marginals at which Sinkhorn stops.
        graph_tol: Change of the plan at which entropic fused Gromov-Wasserstein stops.
        rounds: Turns of each solver.
        seconds: Least processor time of a turn.
        seed: Of the problems.
    """

    sizes: tuple[tuple[int, int], ...] = ((8, 10), (11, 10), (20, 5))
    batch: int = 256
    epsilons: tuple[float, ...] = (0.1, 0.05)
    graph_epsilon: float = 0.05
    tol: float = 1e-6
    graph_tol: float = 1e-4
    rounds: int = 3
    seconds: float = 0.2
    seed: int = 0


QUICK = Settings(sizes=((8, 5), (20, 3)), rounds=2, seconds=0.05)

_COLUMNS = (
    Column("nodes", "n", number()),
    Column("epsilon", "epsilon", number()),
    Column("solver", "solver"),
    Column("rate", "problems/s", number()),
    Column("times", "ours / it", number()),
    Column("objective", "mean objective", number(6)),
    Column("marginal_error", "marginals off", number(2)),
)


@dataclass(frozen=True, slots=True)
class _Solver:
    name: str
    plans: Callable[[Problems], Array]
    batched: bool


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    report = Report()
    generator = torch.Generator().manual_seed(settings.seed)
    linear: list[dict[str, Any]] = []
    graphs: list[dict[str, Any]] = []
    for nodes, count in settings.sizes:
        problems = random_problems(nodes, count, loss="l2", pairs="all", generator=generator)
        for epsilon in settings.epsilons:
            rows = _measure(_sinkhorns(epsilon, settings.tol), problems, settings, _entropic_value)
            linear += [{"nodes": nodes, "epsilon": epsilon} | row for row in rows]
        epsilon = settings.graph_epsilon
        for pair in _graph_solvers(epsilon, settings.graph_tol):
            rows = _measure(pair, problems, settings, objectives)
            graphs += [{"nodes": nodes, "epsilon": epsilon} | row for row in rows]
    report.tables += [
        Table("sinkhorn", "Entropic transport, float64, one thread each", _COLUMNS, linear),
        Table(
            "entropic_fgw",
            "Entropic fused Gromov-Wasserstein, square loss, float64, one thread each",
            _COLUMNS,
            graphs,
        ),
    ]
    report.notes.append(
        "Mean objectives: <cost, plan> for transport; the objective without entropy, of the plan"
        " rounded onto the marginals, for graphs. 'Marginals off' is the L1 error of both sides."
        " 'ours / it' compares with our solver of the same algorithm, above it."
    )
    return report


def _entropic_value(problems: Problems, plans: Array) -> Array:
    value: Array = (problems.cost.numpy() * plans).sum((1, 2))
    return value


def _measure(
    solvers: Sequence[_Solver],
    problems: Problems,
    settings: Settings,
    value: Callable[[Problems, Array], Array],
) -> list[dict[str, Any]]:
    many = problems.copies(math.ceil(settings.batch / len(problems)))
    contenders = []
    for solver in solvers:
        batch = many if solver.batched else problems
        contenders.append(
            Contender(
                solver.name,
                lambda solver=solver, batch=batch: solver.plans(batch),  # type: ignore[misc]
                len(batch),
            )
        )
    with warnings.catch_warnings():
        # What did not converge shows in its marginals.
        warnings.simplefilter("ignore")
        rates = alternate(contenders, rounds=settings.rounds, seconds=settings.seconds)
        rows = []
        for solver in solvers:
            plans = solver.plans(problems)
            rows.append(
                {
                    "solver": solver.name,
                    "rate": rates[solver.name].median,
                    "rates": list(rates[solver.name].values),
                    "times": rates[solvers[0].name].over(rates[solver.name]),
                    "objective": float(value(problems, plans).mean()),
                    "marginal_error": float(marginal_error(problems, plans).mean()),
                }
            )
    return rows


def _sinkhorns(epsilon: float, tol: float) -> list[_Solver]:
    def ours(problems: Problems) -> Array:
        plans: Array = ht.ot.sinkhorn(
            problems.cost, problems.a, problems.b, epsilon=epsilon, tol=tol
        ).plan.numpy()
        return plans

    def pot_one(method: str) -> Callable[[Problems], Array]:
        def solve(problems: Problems) -> Array:
            cost, a, b = (tensor.numpy() for tensor in (problems.cost, problems.a, problems.b))
            return np.stack(
                [
                    pot.sinkhorn(
                        a[item],
                        b[item],
                        cost[item],
                        epsilon,
                        method=method,
                        stopThr=tol,
                        numItermax=10_000,
                    )
                    for item in range(len(problems))
                ]
            )

        return solve

    def pot_batch(problems: Problems) -> Array:
        result = pot.batch.solve_batch(
            problems.cost,
            epsilon,
            a=problems.a,
            b=problems.b,
            tol=tol,
            max_iter=10_000,
            grad="detach",
        )
        plans: Array = result.plan.numpy()
        return plans

    return [
        _Solver("ht.ot.sinkhorn", ours, batched=True),
        _Solver("POT ot.sinkhorn", pot_one("sinkhorn"), batched=False),
        _Solver("POT ot.sinkhorn, log domain", pot_one("sinkhorn_log"), batched=False),
        _Solver("POT ot.batch.solve_batch", pot_batch, batched=True),
    ]


def _graph_solvers(epsilon: float, tol: float) -> list[list[_Solver]]:
    """Ours and POT's for each of the two algorithms."""

    def ours(method: Any) -> Callable[[Problems], Array]:
        def solve(problems: Problems) -> Array:
            plans: Array = ht.ot.entropic_fgw(
                problems.cost,
                problems.struct_x,
                problems.struct_y,
                problems.a,
                problems.b,
                epsilon=epsilon,
                alpha=problems.alpha,
                loss=problems.loss,
                pairs=problems.pairs,
                method=method,
                tol=tol,
            ).plan.numpy()
            return plans

        return solve

    def pot_one(solver: str) -> Callable[[Problems], Array]:
        def solve(problems: Problems) -> Array:
            cost, x, y, a, b = (
                tensor.numpy()
                for tensor in (
                    problems.cost,
                    problems.struct_x,
                    problems.struct_y,
                    problems.a,
                    problems.b,
                )
            )
            return np.stack(
                [
                    pot.gromov.entropic_fused_gromov_wasserstein(
                        cost[item],
                        x[item],
                        y[item],
                        a[item],
                        b[item],
                        loss_fun="square_loss",
                        epsilon=epsilon,
                        symmetric=True,
                        alpha=problems.alpha,
                        tol=tol,
                        solver=solver,
                        stopThr=0.1 * tol,
                    )
                    for item in range(len(problems))
                ]
            )

        return solve

    return [
        [
            _Solver("ht.ot.entropic_fgw, mirror", ours("mirror"), batched=True),
            _Solver("POT entropic FGW, PGD", pot_one("PGD"), batched=False),
        ],
        [
            _Solver("ht.ot.entropic_fgw, proximal", ours("proximal"), batched=True),
            _Solver("POT entropic FGW, PPA", pot_one("PPA"), batched=False),
        ],
    ]


def draw(report: Report) -> Figure:
    """Draw the rates by size; solvers that belong together share a panel."""
    figure, panels = canvas(2, width=6.2)
    for axes, name, title in zip(
        panels,
        ("sinkhorn", "entropic_fgw"),
        ("Entropic transport", "Entropic fused Gromov-Wasserstein"),
        strict=True,
    ):
        rows = report.rows(name)
        _bars(axes, rows)
        axes.set_title(title)
    panels[0].set_ylabel("problems per processor second")
    return figure


def _bars(axes: Any, rows: Sequence[Row]) -> None:
    groups = sorted({(-row["epsilon"], row["nodes"]) for row in rows})
    names = list(dict.fromkeys(row["solver"] for row in rows))
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        heights = [
            next(
                row["rate"]
                for row in rows
                if (-row["epsilon"], row["nodes"]) == group and row["solver"] == name
            )
            for group in groups
        ]
        middle = [group + (place - (len(names) - 1) / 2) * width for group in range(len(groups))]
        axes.bar(middle, heights, width=width * 0.92, color=COLOURS[place], label=name)
    axes.set_yscale("log")
    top = max(row["rate"] for row in rows)
    axes.set_ylim(top=top * 30)
    axes.set_xticks(
        range(len(groups)), [f"n = {nodes}\neps {-epsilon:g}" for epsilon, nodes in groups]
    )
    axes.grid(visible=False, axis="x")
    axes.tick_params(colors=INK)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
