"""Do the solvers agree with scipy and POT?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import optimize
from torch import Tensor

import hotnas_torch as ht
from benchmarks.measuring import solvers
from benchmarks.measuring.evaluate import Array, objectives
from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.problems import Problems, random_problems
from benchmarks.measuring.report import Claim, Column, Report, Table, number

__all__ = ["QUICK", "Settings", "draw", "run"]


OBJECTIVE_TARGET = 1e-9
MARGINAL_TARGETS = {torch.float64: 1e-12, torch.float32: 1e-6}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        transports: Transport problems of each kind.
        graphs: Problems that are solved beside POT's `fused_gromov_wasserstein`.
        seed: Of the problems.
    """

    transports: int = 100
    graphs: int = 500
    seed: int = 0


QUICK = Settings(transports=15, graphs=60)


def run(settings: Settings) -> Report:
    """Measure."""
    report = Report()
    generator = torch.Generator().manual_seed(settings.seed)
    rows = [
        {"kind": kind} | _transport_errors(draw_one, settings.transports, generator)
        for kind, draw_one in _KINDS.items()
    ]
    report.tables.append(
        Table(
            "transport",
            f"ht.ot.transport, {settings.transports} problems of each kind, largest errors",
            (
                Column("kind", "problems"),
                Column("objective", "objective against linprog", number(2)),
                Column("marginals_float64", "marginals, float64", number(2)),
                Column("marginals_float32", "marginals, float32", number(2)),
            ),
            rows,
        )
    )
    for key, text, target in (
        ("objective", "transport: objective off scipy's linprog", OBJECTIVE_TARGET),
        ("marginals_float64", "transport: marginals, float64", MARGINAL_TARGETS[torch.float64]),
        ("marginals_float32", "transport: marginals, float32", MARGINAL_TARGETS[torch.float32]),
    ):
        report.claims.append(Claim(text, "<=", target, max(row[key] for row in rows)))
    graphs = _against_pot(settings.graphs, generator)
    report.tables.append(
        Table(
            "pot",
            f"ht.ot.fgw, l2, all pairs, beside fused_gromov_wasserstein on {settings.graphs}"
            " random problems",
            (
                Column("starts", "ours starts from"),
                Column("higher", "problems higher", number()),
                Column("same", "same", number()),
                Column("lower", "lower", number()),
                Column("ours", "mean, ours", number(6)),
                Column("pot", "mean, POT", number(6)),
                Column("worst", "most above", number(2)),
                Column("marginals", "marginals", number(2)),
            ),
            graphs,
        )
    )
    report.claims += [
        Claim(f"fgw from {row['starts']}: problems above POT's objective", "<=", 0, row["higher"])
        for row in graphs
    ]
    report.claims.append(
        Claim(
            "fgw: marginals, float64",
            "<=",
            MARGINAL_TARGETS[torch.float64],
            max(row["marginals"] for row in graphs),
        )
    )
    report.notes.append(
        "Marginal errors are the largest of a single row or column. Objectives are counted as the"
        " same within 1e-6 of their value."
    )
    return report


# --- transport ------------------------------------------------------------------------------------

Drawn = tuple[Tensor, Tensor, Tensor]
"""Cost (n, m) and masses (n,), (m,), float64."""


def _between(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (1,), generator=generator))


def _cost(n: int, m: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(n, m, generator=generator, dtype=torch.float64) - 1


def _masses(n: int, generator: torch.Generator) -> Tensor:
    mass = torch.rand(n, generator=generator, dtype=torch.float64) + 0.05
    return mass / mass.sum()


def _sizes(generator: torch.Generator) -> tuple[int, int]:
    return _between(2, 12, generator), _between(2, 12, generator)


def _random(generator: torch.Generator) -> Drawn:
    n, m = _sizes(generator)
    return _cost(n, m, generator), _masses(n, generator), _masses(m, generator)


def _degenerate(generator: torch.Generator) -> Drawn:
    """Equal masses whose partial sums meet: many bases describe one vertex."""
    n = _between(2, 12, generator)
    m = n * _between(1, 2, generator)
    return (
        _cost(n, m, generator),
        torch.full((n,), 1 / n, dtype=torch.float64),
        torch.full((m,), 1 / m, dtype=torch.float64),
    )


def _tied(generator: torch.Generator) -> Drawn:
    """Costs of three values and masses of few units: many optima."""
    n, m = _sizes(generator)
    cost = torch.randint(0, 3, (n, m), generator=generator).double()
    a = torch.randint(1, 4, (n,), generator=generator).double()
    b = torch.randint(1, 4, (m,), generator=generator).double()
    return cost, a / a.sum(), b / b.sum()


def _zero_mass(generator: torch.Generator) -> Drawn:
    cost, a, b = _random(generator)
    a[1:] *= torch.rand(len(a) - 1, generator=generator) < 0.5
    b[1:] *= torch.rand(len(b) - 1, generator=generator) < 0.5
    return cost, a / a.sum(), b / b.sum()


def _single(generator: torch.Generator) -> Drawn:
    """One node on one side or on both: there is one coupling only."""
    n, m = [(1, 1), (1, 7), (6, 1)][_between(0, 2, generator)]
    return _cost(n, m, generator), _masses(n, generator), _masses(m, generator)


_KINDS: dict[str, Callable[[torch.Generator], Drawn]] = {
    "random": _random,
    "degenerate": _degenerate,
    "tied": _tied,
    "zero masses": _zero_mass,
    "n = 1": _single,
}


def _transport_errors(
    draw_one: Callable[[torch.Generator], Drawn], count: int, generator: torch.Generator
) -> dict[str, Any]:
    errors = {"objective": 0.0, "marginals_float64": 0.0, "marginals_float32": 0.0}
    for _ in range(count):
        cost, a, b = draw_one(generator)
        result = ht.ot.transport(cost, a, b)
        errors["objective"] = max(
            errors["objective"], abs(result.objective.item() - _linprog(cost, a, b))
        )
        single = ht.ot.transport(cost.float(), a.float(), b.float())
        for name, plan in (("float64", result.plan), ("float32", single.plan)):
            off = max(
                (plan.double().sum(1) - a).abs().max().item(),
                (plan.double().sum(0) - b).abs().max().item(),
            )
            errors[f"marginals_{name}"] = max(errors[f"marginals_{name}"], off)
    return errors


def _linprog(cost: Tensor, a: Tensor, b: Tensor) -> float:
    n, m = cost.shape
    marginals = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    result = optimize.linprog(
        cost.flatten().numpy(),
        A_eq=marginals,
        b_eq=np.concatenate([a.numpy(), b.numpy()]),
        method="highs",
    )
    if result.status != 0:
        msg = f"scipy's linprog failed: {result.message}"
        raise RuntimeError(msg)
    return float(result.fun)


# --- fused Gromov-Wasserstein ---------------------------------------------------------------------


def _against_pot(count: int, generator: torch.Generator) -> list[dict[str, Any]]:
    ours: dict[str, list[Array]] = {name: [] for name in _STARTS}
    theirs: list[Array] = []
    marginals = dict.fromkeys(_STARTS, 0.0)
    sizes = (4, 6, 8, 11, 15)
    for nodes in sizes:
        problems = random_problems(
            nodes, count // len(sizes), loss="l2", pairs="all", generator=generator
        )
        theirs.append(objectives(problems, solvers.pot_fused_gromov(problems).plans()))
        for name, starts in _STARTS.items():
            plan = _ours(problems, starts)
            ours[name].append(objectives(problems, plan.numpy()))
            off = max(
                (plan.sum(2) - problems.a).abs().max().item(),
                (plan.sum(1) - problems.b).abs().max().item(),
            )
            marginals[name] = max(marginals[name], off)
    pot = np.concatenate(theirs)
    rows = []
    for name in _STARTS:
        values = np.concatenate(ours[name])
        above = values / pot - 1
        rows.append(
            {
                "starts": name,
                "higher": int((above > 1e-6).sum()),
                "same": int((np.abs(above) <= 1e-6).sum()),
                "lower": int((above < -1e-6).sum()),
                "ours": float(values.mean()),
                "pot": float(pot.mean()),
                "worst": float(above.max()),
                "marginals": marginals[name],
            }
        )
    return rows


_STARTS = {"POT's start": 1, "POT's start and three of ours": 4}


def _ours(problems: Problems, starts: int) -> Tensor:
    return ht.ot.fgw(
        problems.cost,
        problems.struct_x,
        problems.struct_y,
        problems.a,
        problems.b,
        alpha=problems.alpha,
        loss=problems.loss,
        pairs=problems.pairs,
        init="product",
        num_starts=starts,
        tol=1e-9,
        max_iter=5000,
    ).plan


def draw(report: Report) -> Figure:
    """Draw the largest errors of the transports on a logarithmic scale, beside what is promised."""
    figure, (axes,) = canvas(1, width=6.4)
    rows = report.rows("transport")
    smallest = 1e-17
    for place, (key, text, target) in enumerate(
        (
            ("marginals_float32", "marginals, float32", MARGINAL_TARGETS[torch.float32]),
            ("objective", "objective against linprog, float64", OBJECTIVE_TARGET),
            ("marginals_float64", "marginals, float64", MARGINAL_TARGETS[torch.float64]),
        )
    ):
        errors = [max(row[key], smallest) for row in rows]
        axes.plot(
            range(len(rows)),
            errors,
            color=COLOURS[place],
            marker="o",
            linestyle="none",
            label=text,
        )
        axes.axhline(target, color=COLOURS[place], linewidth=1.2, linestyle="--")
    axes.annotate(
        "dashed: promised",
        (0.99, 0.03),
        xycoords="axes fraction",
        ha="right",
        fontsize=8,
        color=INK,
    )
    axes.set_yscale("log")
    axes.set_ylim(smallest / 3, 1e-2)
    axes.set_xticks(range(len(rows)), [row["kind"] for row in rows])
    axes.set_title("Exact transport: largest errors")
    axes.legend(frameon=False, fontsize=9, loc="upper right")
    return figure
