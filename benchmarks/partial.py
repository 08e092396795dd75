"""How much faster than POT is one thread where masses need not be matched, objective alike?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ot as pot
import torch
from torch import Tensor

import hotnas_torch as ht
from benchmarks.measuring.evaluate import Array, divergence_of_products, pair_tensor
from benchmarks.measuring.problems import Problems, random_problems
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.solvers import Job
from benchmarks.measuring.timing import alternate
from hotnas_torch.ot._operators import unbalanced_value

__all__ = ["QUICK", "Settings", "run"]


TARGETS = {8: 100.0, 20: 50.0}
"""Promised multiples of POT's rate by number of nodes."""

PENALTY, EPSILON = 0.5, 0.05
"""Of unbalanced problems, whose costs are up to 1."""

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

_FEW = 8
"""Problems of unbalanced FGW, which take POT long; ours are as many in one call as of others."""

_DTYPES = {"": torch.float64, ", float32": torch.float32}
"""What our solvers compute in, by the end of their name; their plans are valued in float64."""


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
        rows += _measure("semi-relaxed", _semirelaxed(drawn), nodes, settings)
        rows += _measure("unbalanced, entropic", _entropic(drawn), nodes, settings)
        rows += _measure("unbalanced", _unbalanced(drawn), nodes, settings)
        for problem, epsilon in (("unbalanced FGW, entropic", EPSILON), ("unbalanced FGW", 0.0)):
            rows += _measure(problem, _unbalanced_fgws(drawn, epsilon), nodes, settings)
    report.tables.append(
        Table(
            "partial",
            f"One thread each, float64 unless named; {settings.mass:g} of the mass",
            _COLUMNS,
            rows,
        )
    )
    report.claims += _claims(rows)
    report.notes.append(
        "Rates count processor time; solvers took turns. Fused Gromov-Wasserstein has the square"
        " loss, all pairs and symmetric structures; POT starts from the product coupling. '+-' is"
        " the standard error of 'over POT's': from one start two descents may end in different"
        f" optima. Masses that are not matched cost {PENALTY:g} times their Kullback-Leibler"
        f" divergence (of products of masses, between graphs), entropy {EPSILON:g}; POT has its own"
        " tolerances, and two plans between graphs, of which the first counts. What is promised is"
        " of the fastest of our rows whose mean objective is not above POT's by more than"
        f" {TOLERANCE:g} of it, or two standard errors."
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

    def ours(some: Problems) -> Tensor:
        return ht.ot.partial_transport(some.cost, some.a, some.b, mass=mass).plan

    costs = problems.cost.numpy()

    def worth(plans: Array) -> Array:
        return np.asarray((costs * plans).sum((1, 2)))

    return [
        (Job("POT partial_wasserstein", theirs, len(problems), theirs), lambda: worth(theirs())),
        *_in_both("hotnas_torch.ot.partial_transport", ours, problems, worth),
    ]


def _in_both(
    name: str,
    plans: Callable[[Problems], Tensor],
    problems: Problems,
    worth: Callable[[Array], Array],
    copies: int = _COPIES,
) -> list[Solved]:
    """A solver of ours in float64 and float32; `worth` says what a plan is worth."""

    def row(ending: str, dtype: torch.dtype) -> Solved:
        single = problems.to(dtype)
        batch = single.copies(copies)

        def found() -> Array:
            return plans(single).double().numpy()

        job = Job(name + ending, lambda: plans(batch), len(batch), found)
        return job, lambda: worth(found())

    return [row(ending, dtype) for ending, dtype in _DTYPES.items()]


def _fgw_values(problems: Problems, plans: Array) -> Array:
    """Objectives of fused Gromov-Wasserstein, whatever mass the plans move."""
    values = np.empty(len(problems))
    for item, plan in enumerate(plans):
        flat = plan.ravel()
        pairs = pair_tensor(problems, item).reshape(flat.size, flat.size)
        linear = float((problems.cost[item].numpy() * plan).sum())
        values[item] = (1 - problems.alpha) * linear + problems.alpha * float(flat @ (pairs @ flat))
    return values


def _fgws(problems: Problems, mass: float) -> list[Solved]:
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

    def rows(name: str, **starts: Any) -> list[Solved]:
        def ours(some: Problems) -> Tensor:
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
            ).plan

        solver = f"hotnas_torch.ot.partial_fgw{name}"
        return _in_both(solver, ours, problems, lambda plans: _fgw_values(problems, plans))

    return [
        (
            Job("POT partial_fused_gromov_wasserstein", theirs, len(problems), theirs),
            lambda: theirs(log=True),
        ),
        *rows(""),
        *rows(", product start", init="product"),
        *rows(", product and three more", init="product", num_starts=4),
    ]


def _semirelaxed(problems: Problems) -> list[Solved]:
    def theirs(log: bool = False) -> Array:
        found = [
            pot.gromov.semirelaxed_fused_gromov_wasserstein(
                *(
                    tensor[item].numpy()
                    for tensor in (problems.cost, problems.struct_x, problems.struct_y, problems.a)
                ),
                alpha=problems.alpha,
                symmetric=True,
                log=log,
            )
            for item in range(len(problems))
        ]
        return np.array([one[1]["srfgw_dist"] for one in found] if log else found)

    def ours(some: Problems) -> Tensor:
        return ht.ot.semirelaxed_fgw(
            some.cost,
            some.struct_x,
            some.struct_y,
            some.a,
            alpha=some.alpha,
            loss="l2",
            num_starts=1,
        ).plan

    return [
        (
            Job("POT semirelaxed_fused_gromov_wasserstein", theirs, len(problems), theirs),
            lambda: theirs(log=True),
        ),
        *_in_both(
            "hotnas_torch.ot.semirelaxed_fgw",
            ours,
            problems,
            lambda plans: _fgw_values(problems, plans),
        ),
    ]


def _entropic(problems: Problems) -> list[Solved]:
    return _against(
        problems,
        EPSILON,
        "sinkhorn_unbalanced",
        lambda *given: pot.unbalanced.sinkhorn_unbalanced(*given, EPSILON, PENALTY),
        "unbalanced_sinkhorn",
        lambda some: (
            ht.ot.unbalanced_sinkhorn(
                some.cost, some.a, some.b, epsilon=EPSILON, reg_m=PENALTY, tol=1e-6
            ).plan
        ),
    )


def _unbalanced(problems: Problems) -> list[Solved]:
    return _against(
        problems,
        0.0,
        "mm_unbalanced",
        lambda *given: pot.unbalanced.mm_unbalanced(*given, PENALTY),
        "unbalanced_transport",
        lambda some: ht.ot.unbalanced_transport(some.cost, some.a, some.b, reg_m=PENALTY).plan,
    )


def _unbalanced_fgws(problems: Problems, epsilon: float) -> list[Solved]:
    some = replace(problems, b=1.5 * problems.b).items(slice(_FEW))
    scale = 1 / some.alpha  # POT weighs the structure by 1

    def theirs() -> Array:
        return np.stack(
            [
                pot.gromov.fused_unbalanced_gromov_wasserstein(
                    *(
                        tensor[item].numpy()
                        for tensor in (some.struct_x, some.struct_y, some.a, some.b)
                    ),
                    reg_marginals=scale * PENALTY,
                    epsilon=scale * epsilon,
                    unbalanced_solver="sinkhorn_log" if epsilon else "mm",
                    alpha=scale * (1 - some.alpha),
                    M=some.cost[item].numpy(),
                )[0]
                for item in range(len(some))
            ]
        )

    def ours(some: Problems) -> Tensor:
        return ht.ot.unbalanced_fgw(
            some.cost,
            some.struct_x,
            some.struct_y,
            some.a,
            some.b,
            alpha=some.alpha,
            loss="l2",
            reg_m=PENALTY,
            epsilon=epsilon,
        ).plan

    def worth(plans: Array) -> Array:
        values = _fgw_values(some, plans)
        for item, (plan, a, b) in enumerate(
            zip(plans, some.a.numpy(), some.b.numpy(), strict=True)
        ):
            values[item] += PENALTY * divergence_of_products(plan.sum(1), a)
            values[item] += PENALTY * divergence_of_products(plan.sum(0), b)
            values[item] += epsilon * divergence_of_products(plan, np.outer(a, b))
        return values

    name = "fused_unbalanced_gromov_wasserstein"
    return [
        (Job(f"POT {name}", theirs, len(some), theirs), lambda: worth(theirs())),
        *_in_both(
            "hotnas_torch.ot.unbalanced_fgw", ours, some, worth, _COPIES * len(problems) // _FEW
        ),
    ]


def _against(
    problems: Problems,
    epsilon: float,
    their_name: str,
    their_plan: Callable[..., Array],
    name: str,
    plan: Callable[[Problems], Tensor],
) -> list[Solved]:
    """Both on problems of unequal masses; objectives are those of the plans."""
    some = replace(problems, b=1.5 * problems.b)

    def theirs() -> Array:
        return np.stack(
            [
                their_plan(*(tensor[item].numpy() for tensor in (some.a, some.b, some.cost)))
                for item in range(len(some))
            ]
        )

    def worth(plans: Array) -> Array:
        values = unbalanced_value(
            torch.as_tensor(plans), some.cost, some.a, some.b, epsilon, PENALTY, PENALTY, 0
        )
        return np.asarray(values)

    return [
        (Job(f"POT {their_name}", theirs, len(some), theirs), lambda: worth(theirs())),
        *_in_both(f"hotnas_torch.ot.{name}", plan, some, worth),
    ]
