"""How much faster than POT is one thread where a part of the mass is moved, objective alike?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ot as pot
import torch

import hotnas_torch as ht
from benchmarks.measuring.evaluate import Array
from benchmarks.measuring.problems import Problems, random_problems
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.solvers import Job
from benchmarks.measuring.timing import alternate

__all__ = ["QUICK", "Settings", "run"]


TARGETS = {8: 30.0, 20: 10.0}
"""Promised multiples of POT's rate by number of nodes."""

TOLERANCE = 1e-6
"""Of a mean objective relative to POT's."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        sizes: Nodes of the graphs, and how many problems each solver gets.
        mass: What is moved of masses of 1.
        rounds: Turns of each solver.
        seconds: Least processor time of a turn.
        seed: Of the problems.
    """

    sizes: tuple[tuple[int, int], ...] = ((8, 64), (20, 32))
    mass: float = 0.7
    rounds: int = 3
    seconds: float = 0.2
    seed: int = 0


QUICK = Settings(sizes=((8, 16), (20, 8)), rounds=2, seconds=0.05)

_COLUMNS = (
    Column("problem", "problem"),
    Column("nodes", "n", number()),
    Column("solver", "solver"),
    Column("rate", "problems/s", number()),
    Column("times", "x POT", number()),
    Column("objective", "mean objective", number(6)),
    Column("excess", "over POT's", number(2)),
    Column("excess_error", "+-", number(2)),
)

Solved = tuple[Job, Callable[[], Array]]
"""A solver with its problems, and what gives their objectives."""

_COPIES = 16
"""Of the problems, in one call of ours."""


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(settings.seed)
    report = Report()
    rows: list[dict[str, Any]] = []
    for nodes, count in settings.sizes:
        drawn = random_problems(nodes, count, loss="l2", pairs="all", generator=generator)
        rows += _measure("transport", _transports(drawn, settings.mass), nodes, settings)
        rows += _measure("fused Gromov-Wasserstein", _fgws(drawn, settings.mass), nodes, settings)
    report.tables.append(
        Table("partial", f"{settings.mass:g} of the mass, one thread each, float64", _COLUMNS, rows)
    )
    report.claims += _claims(rows)
    report.notes.append(
        "Rates count processor time; solvers took turns. Fused Gromov-Wasserstein has the square"
        " loss, all pairs and symmetric structures; POT starts from the product coupling. '+-' is"
        " the standard error of 'over POT's': from one start two descents may end in different"
        " optima. What is promised is of the fastest of our rows whose mean objective is not above"
        f" POT's by more than {TOLERANCE:g} of it, or two standard errors."
    )
    return report


def _measure(
    problem: str,
    solved: Sequence[Solved],
    nodes: int,
    settings: Settings,
) -> list[dict[str, Any]]:
    """A row for each solver; the first is POT's, with which the others are compared."""
    rates = alternate(
        [job.contender for job, _ in solved], rounds=settings.rounds, seconds=settings.seconds
    )
    expected = solved[0][1]()
    rows = []
    for job, objectives in solved:
        values = objectives()
        over = (values - expected) / expected.mean()
        rows.append(
            {
                "problem": problem,
                "nodes": nodes,
                "solver": job.name,
                "rate": rates[job.name].median,
                "times": rates[job.name].over(rates[solved[0][0].name]),
                "objective": float(values.mean()),
                "excess": float(over.mean()),
                "excess_error": float(over.std() / np.sqrt(len(over))),
            }
        )
    return rows


def _claims(rows: Sequence[dict[str, Any]]) -> list[Claim]:
    claims = []
    for problem, nodes in dict.fromkeys((row["problem"], row["nodes"]) for row in rows):
        if nodes not in TARGETS:
            continue
        fastest = max(
            (
                row["times"]
                for row in rows
                if (row["problem"], row["nodes"]) == (problem, nodes)
                and row["solver"].startswith("hotnas_torch")
                and row["excess"] <= max(TOLERANCE, 2 * row["excess_error"])
            ),
            default=0.0,
        )
        text = f"{problem}, n = {nodes}: times POT's rate, objective not worse"
        claims.append(Claim(text, ">=", TARGETS[nodes], fastest))
    return claims


def _transports(problems: Problems, mass: float) -> list[Solved]:
    single, batch = problems, problems.copies(_COPIES)

    def theirs() -> Array:
        return np.stack(
            [
                pot.partial.partial_wasserstein(
                    *(tensor[item].numpy() for tensor in (problems.a, problems.b, problems.cost)),
                    m=mass,
                )
                for item in range(len(problems))
            ]
        )

    def ours(some: Problems) -> ht.ot.PartialTransportResult:
        return ht.ot.partial_transport(some.cost, some.a, some.b, mass=mass)

    costs = problems.cost.numpy()
    return [
        (
            Job("POT partial_wasserstein", theirs, len(problems), theirs),
            lambda: (costs * theirs()).sum((1, 2)),
        ),
        (
            Job(
                "hotnas_torch.ot.partial_transport",
                lambda: ours(batch),
                len(batch),
                lambda: ours(single).plan.numpy(),
            ),
            lambda: ours(single).objective.numpy(),
        ),
    ]


def _fgws(problems: Problems, mass: float) -> list[Solved]:
    batch = problems.copies(_COPIES)

    def theirs(log: bool = False) -> Array:
        found = [
            pot.gromov.partial_fused_gromov_wasserstein(
                *(
                    tensor[item].numpy()
                    for tensor in (
                        problems.cost,
                        problems.struct_x,
                        problems.struct_y,
                        problems.a,
                        problems.b,
                    )
                ),
                m=mass,
                alpha=problems.alpha,
                loss_fun="square_loss",
                symmetric=True,
                log=log,
            )
            for item in range(len(problems))
        ]
        return np.array([one[1]["partial_fgw_dist"] for one in found] if log else found)

    def ours(some: Problems, **starts: Any) -> ht.ot.PartialFGWResult:
        return ht.ot.partial_fgw(
            some.cost,
            some.struct_x,
            some.struct_y,
            some.a,
            some.b,
            mass=mass,
            alpha=some.alpha,
            loss="l2",
            **starts,
        )

    def row(name: str, **starts: Any) -> Solved:
        job = Job(
            f"hotnas_torch.ot.partial_fgw{name}",
            lambda: ours(batch, **starts),
            len(batch),
            lambda: ours(problems, **starts).plan.numpy(),
        )
        return job, lambda: ours(problems, **starts).objective.numpy()

    return [
        (
            Job("POT partial_fused_gromov_wasserstein", theirs, len(problems), theirs),
            lambda: theirs(log=True),
        ),
        row(""),
        row(", product start", init="product"),
        row(", product and three more", init="product", num_starts=4),
    ]
