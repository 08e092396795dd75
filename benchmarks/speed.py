"""How much faster than POT is one thread, at the same objective?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measuring import solvers
from benchmarks.measuring.evaluate import Array, marginal_error, objectives
from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.problems import DARTS_NODES, Problems, random_problems, real_problems
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from benchmarks.measuring.solvers import Job
from benchmarks.measuring.timing import alternate
from hotnas_torch.ot.terms import Pairs

__all__ = ["QUICK", "Settings", "draw", "run"]


TARGETS = {8: 1000.0, 11: 600.0, 20: 300.0}
"""Promised multiples of POT's rate by number of nodes."""

OBJECTIVE_TOLERANCE = 1e-4
_STARTS = {solvers.OURS: "signature", f"{solvers.OURS}, product start": "product"}
"""Our solver's rows by name, and where each starts."""

_POT_STOPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        sizes: Nodes of the graphs, how many problems the clock sees, and how many the judge.
        pair_sets: Pair sets of the absolute loss.
        square_loss: Whether the square loss is measured, too.
        rounds: Turns of each solver.
        seconds: Least processor time of a turn.
        seed: Of the problems.
    """

    sizes: tuple[tuple[int, int, int], ...] = ((8, 100, 2000), (11, 60, 1000), (20, 30, 300))
    pair_sets: tuple[Pairs, ...] = ("directed", "ordered")
    square_loss: bool = True
    rounds: int = 5
    seconds: float = 0.25
    seed: int = 0


QUICK = Settings(sizes=((8, 40, 80), (11, 20, 40), (20, 8, 12)), rounds=3, seconds=0.05)

_COLUMNS = (
    Column("graphs", "graphs"),
    Column("nodes", "n", number()),
    Column("solver", "solver"),
    Column("rate", "pairs/s", number()),
    Column("times", "x POT", number()),
    Column("times_loose", "x POT, loose stop", number()),
    Column("objective", "mean objective", number(6)),
    Column("excess", "over POT's", number(2)),
    Column("excess_error", "+-", number(2)),
    Column("marginal_error", "marginals off", number(2)),
)


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(settings.seed)
    report = Report()
    for pairs in settings.pair_sets:
        rows: list[dict[str, Any]] = []
        for nodes, timed, count in settings.sizes:
            drawn = random_problems(nodes, count, loss="l1", pairs=pairs, generator=generator)
            rows += _measure(_absolute_solvers(drawn), drawn, timed, "random", settings)
            source, drawn = real_problems(nodes, count, pairs=pairs, generator=generator)
            rows += _measure(_absolute_solvers(drawn), drawn, timed, source, settings)
        if pairs == "directed" and settings.sizes[-1][0] > DARTS_NODES:
            _, timed, count = settings.sizes[-1]
            source, drawn = real_problems(DARTS_NODES, count, pairs=pairs, generator=generator)
            rows += _measure(_absolute_solvers(drawn), drawn, timed, source, settings)
        report.tables.append(
            Table(f"l1_{pairs}", f"Absolute loss, {pairs} pairs, one thread each", _COLUMNS, rows)
        )
        report.claims += _claims(rows, pairs)
    if settings.square_loss:
        rows = []
        for nodes, timed, _ in settings.sizes:
            drawn = random_problems(nodes, 64, loss="l2", pairs="all", generator=generator)
            rows += _measure(_square_solvers(), drawn, timed, "random symmetric", settings)
        report.tables.append(
            Table("l2_all", "Square loss, all pairs, one thread each", _COLUMNS, rows)
        )
    report.notes += [
        "Rates count processor time; solvers took turns, and 'x POT' is the median over the turns,"
        " of POT's own row, which comes first.",
        "Objectives are of the returned plans, rounded onto the marginals, in float64, by one"
        " fourfold sum for all solvers; '+-' is the standard error of 'over POT's'. Every solver"
        " has one start: ours the signature plan unless the name says otherwise, POT"
        " and OTT-JAX the product coupling.",
        "POT stops where the objective changes by less than 1e-9, its default. The row that names"
        " another stop uses the loosest one of 1e-3, 1e-4, ... that keeps its mean objective within"
        f" {OBJECTIVE_TOLERANCE:g} of that; 'x POT, loose stop' compares with it.",
        f"An objective counts as not worse within {OBJECTIVE_TOLERANCE:g}, or two standard errors.",
    ]
    if not solvers.have_ott():
        report.notes.append("OTT-JAX is not installed and was not measured (pip install ott-jax).")
    return report


Solver = Callable[[Problems], Job]


def _absolute_solvers(problems: Problems) -> list[Solver]:
    return [
        solvers.pot_conditional_gradient,
        *_loosest_pot(problems.items(slice(100))),
        solvers.ours,
        partial(solvers.ours, start="product"),
        solvers.ours_public,
    ]


def _loosest_pot(problems: Problems) -> list[Solver]:
    """POT with the loosest stop that changes its mean objective little, if there is one."""
    strict = solvers.pot_conditional_gradient(problems)
    acceptable = objectives(problems, strict.plans()).mean() * (1 + OBJECTIVE_TOLERANCE)
    for stop in _POT_STOPS:
        loose = solvers.pot_conditional_gradient(problems, stop=stop)
        if objectives(problems, loose.plans()).mean() <= acceptable:
            return [partial(solvers.pot_conditional_gradient, stop=stop)]
    return []


def _square_solvers() -> list[Solver]:
    chosen: list[Solver] = [
        solvers.pot_fused_gromov,
        solvers.ours,
        partial(solvers.ours, start="product"),
        solvers.pot_batch,
    ]
    return [*chosen, solvers.ott_gromov] if solvers.have_ott() else chosen


def _measure(
    chosen: Sequence[Solver], problems: Problems, timed: int, graphs: str, settings: Settings
) -> list[dict[str, Any]]:
    """One row per solver; the first, one of POT's, is what the others are compared with.

    Args:
        chosen: Solvers.
        problems: What the judge compares the plans on.
        timed: How many of them the clock sees, where a solver takes one after another.
        graphs: Where the problems come from.
        settings: Rounds and seconds.
    """
    one_by_one = problems.items(slice(timed))
    batched = problems.items(slice(64))
    rates_by_job = alternate(
        [
            solve(
                batched if solve in (solvers.pot_batch, solvers.ott_gromov) else one_by_one
            ).contender
            for solve in chosen
        ],
        rounds=settings.rounds,
        seconds=settings.seconds,
    )
    jobs = [solve(problems) for solve in chosen]
    strict = rates_by_job[jobs[0].name]
    loose = next(
        (rates for name, rates in rates_by_job.items() if name.startswith(f"{jobs[0].name}, stop")),
        None,
    )
    baseline: Array | None = None
    rows = []
    for job in jobs:
        plans = job.plans()
        values = objectives(problems, plans)
        baseline = values if baseline is None else baseline
        difference = (values - baseline) / baseline.mean()
        rates = rates_by_job[job.name]
        rows.append(
            {
                "graphs": graphs,
                "nodes": problems.cost.shape[1],
                "solver": job.name,
                "problems": len(values),
                "rate": rates.median,
                "rates": list(rates.values),
                "times": rates.over(strict),
                "times_loose": None if loose is None else rates.over(loose),
                "objective": float(values.mean()),
                "excess": float(difference.mean()),
                "excess_error": float(difference.std() / np.sqrt(len(difference))),
                "marginal_error": float(marginal_error(problems, plans).mean()),
            }
        )
    return rows


def _claims(rows: Sequence[dict[str, Any]], pairs: str) -> list[Claim]:
    """For every kind of problem, the rate of the fastest start that is not worse than POT's."""
    claims = []
    for nodes, graphs in dict.fromkeys((row["nodes"], row["graphs"]) for row in rows):
        if nodes not in TARGETS:
            continue
        fast_enough, start = 0.0, "no start"
        for row in rows:
            tolerance = max(OBJECTIVE_TOLERANCE, 2 * row["excess_error"])
            if (
                (row["nodes"], row["graphs"]) == (nodes, graphs)
                and row["solver"] in _STARTS
                and row["excess"] <= tolerance
                and row["times"] > fast_enough
            ):
                fast_enough, start = row["times"], f"{_STARTS[row['solver']]} start"
        text = f"n = {nodes}, {pairs}, {graphs}: times POT's rate, objective not worse ({start})"
        claims.append(Claim(text, ">=", TARGETS[nodes], fast_enough))
    return claims


def draw(report: Report) -> Figure:
    """Draw multiples of POT's rate beside the promised ones, and mean objectives, by pair set."""
    tables = [table for table in report.tables if table.name.startswith("l1_")]
    figure, panels = canvas(2, len(tables), height=3.8)
    for place, table in enumerate(tables):
        _draw_pair_set(panels[2 * place], panels[2 * place + 1], table)
    return figure


def _draw_pair_set(left: Axes, right: Axes, table: Table) -> None:
    pairs = table.name.removeprefix("l1_")
    sizes = sorted({row["nodes"] for row in table.rows})
    series = [(kind, solver) for kind in ("random", "cells") for solver in _STARTS]
    for place, (kind, solver) in enumerate(series):
        chosen = [
            row
            for row in table.rows
            if row["solver"] == solver and (row["graphs"] == "random") == (kind == "random")
        ]
        chosen.sort(key=lambda row: int(row["nodes"]))
        style: dict[str, Any] = {
            "color": COLOURS[0 if kind == "random" else 1],
            "marker": "o" if solver == solvers.OURS else "s",
            "markerfacecolor": None if solver == solvers.OURS else "white",
            "markersize": 6,
            "label": f"{'random graphs' if kind == 'random' else 'cells'}, {_STARTS[solver]} start",
        }
        left.plot(
            [row["nodes"] for row in chosen],
            [row["times"] for row in chosen],
            linewidth=1.4,
            linestyle="-" if solver == solvers.OURS else "--",
            **style,
        )
        right.errorbar(
            [row["nodes"] * (1 + 0.02 * (place - 1.5)) for row in chosen],
            [100 * row["excess"] for row in chosen],
            yerr=[200 * row["excess_error"] for row in chosen],
            capsize=3,
            linestyle="none",
            **style,
        )
    for size, target in TARGETS.items():
        if size in sizes:
            left.plot([size * 0.93, size * 1.07], [target, target], color=INK, linewidth=2.5)
    left.plot([], [], color=INK, linewidth=2.5, label="promised")
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xticks([], minor=True)
        axes.set_xlim(sizes[0] * 0.85, sizes[-1] * 1.18)
        axes.set_xlabel("nodes")
    left.set_yscale("log")
    ticks = [200, 300, 500, 1000, 2000]
    left.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    left.set_yticks([], minor=True)
    left.set_title(f"{pairs.capitalize()} pairs: rate of one thread")
    left.set_ylabel("multiple of POT's ot.optim.cg")
    left.legend(frameon=False, fontsize=8)
    right.axhline(0, color=INK, linewidth=1)
    right.set_title(f"{pairs.capitalize()} pairs: mean objective over POT's")
    right.set_ylabel("per cent, +- 2 standard errors")
