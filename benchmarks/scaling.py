"""How do rate and time per iteration grow with the number of nodes?"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measuring import solvers
from benchmarks.measuring.figures import COLOURS, INK, canvas, label_ends, log_log
from benchmarks.measuring.problems import Problems, padded, random_problems
from benchmarks.measuring.report import Claim, Column, Report, Row, Table, number
from benchmarks.measuring.solvers import Job
from benchmarks.measuring.timing import Contender, alternate
from hotnas_torch import ot
from hotnas_torch.ot.terms import Loss, Pairs

__all__ = ["QUICK", "Settings", "draw", "growth", "run"]


TARGET = 3.2
MIXED_TARGET, MIXED_NODES = 1.3, 30
"""Time of a batch of several sizes over that of a batch of each, promised from so many nodes on."""
FIRST, LAST = 8, 32
"""Sizes between which the exponent is promised."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        sizes: Nodes of the graphs.
        problems: Problems of each size that ours solves.
        peer_entries: Decides the peers' problems: so many entries of their dense (nm, nm) matrices.
        rounds: Turns of each solver.
        seconds: Least processor time of a turn.
        mixed: Nodes of graphs that are solved in one batch, and how many problems of each size.
        seed: Of the problems.
    """

    sizes: tuple[int, ...] = (5, 8, 11, 14, 20, 28, 32)
    problems: int = 256
    peer_entries: int = 4_000_000
    rounds: int = 3
    seconds: float = 0.25
    mixed: tuple[tuple[tuple[int, ...], int], ...] = (
        ((5, 8, 11, 14, 20, 28, 32), 128),
        ((30, 60, 100, 200, 300), 4),
    )
    seed: int = 0


QUICK = Settings(
    problems=64, peer_entries=500_000, rounds=2, seconds=0.05, mixed=(((5, 11, 20), 32),)
)


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    report = Report()
    generator = torch.Generator().manual_seed(settings.seed)
    rows: list[dict[str, Any]] = []
    for nodes in settings.sizes:
        absolute = random_problems(
            nodes, settings.problems, loss="l1", pairs="directed", generator=generator
        )
        square = random_problems(
            nodes, settings.problems, loss="l2", pairs="all", generator=generator
        )
        few = slice(min(64, settings.problems, max(8, settings.peer_entries // nodes**4)))
        rows += _measure(
            [solvers.ours(absolute), solvers.pot_conditional_gradient(absolute.items(few))],
            absolute,
            settings,
        )
        jobs = [
            solvers.ours(square, start="product"),
            solvers.pot_fused_gromov(square.items(few)),
            solvers.pot_batch(square.items(slice(64))),
        ]
        if solvers.have_ott():
            jobs.append(solvers.ott_gromov(square))
        rows += _measure(jobs, square, settings)
    report.tables.append(
        Table(
            "rates",
            "Pairs per processor second, one thread each",
            (
                Column("loss", "loss"),
                Column("solver", "solver"),
                Column("nodes", "n", number()),
                Column("rate", "pairs/s", number()),
                Column("times", "ours / it", number()),
                Column("iterations", "iterations", number()),
                Column("per_iteration", "us/iteration", number()),
            ),
            sorted(rows, key=lambda row: (row["loss"], row["solver"], row["nodes"])),
        )
    )
    for loss, title in (("l1", "absolute loss, directed"), ("l2", "square loss, all pairs")):
        measured = [row for row in ours_rows(rows, loss) if FIRST <= row["nodes"] <= LAST]
        if len(measured) > 1:
            exponent = growth(
                [row["nodes"] for row in measured], [row["per_iteration"] for row in measured]
            )
            report.claims.append(
                Claim(f"{title}: exponent of the time per iteration", "<=", TARGET, exponent)
            )
    mixed = [
        _measure_mixed(sizes, count, loss, settings, generator)
        for sizes, count in settings.mixed
        for loss in ("l1", "l2")
    ]
    report.tables.append(
        Table(
            "mixed",
            "Graphs of several sizes, `ht.ot.fgw`, milliseconds: one batch of all, a batch of each",
            (
                Column("loss", "loss"),
                Column("sizes", "n"),
                Column("count", "problems of each", number()),
                Column("together", "together", number()),
                Column("apart", "apart", number()),
                Column("times", "together / apart", "{:.2f}".format),
            ),
            mixed,
        )
    )
    for row in mixed:
        if row["least"] < MIXED_NODES:
            continue
        text = f"{row['loss']}, n = {row['sizes']}: time of one batch over that of its parts"
        report.claims.append(Claim(text, "<=", MIXED_TARGET, row["times"]))
    report.notes.append(
        f"The exponent is the slope of a least-squares line through the logarithms, n = {FIRST} to"
        f" {LAST}; an iteration is one exact transport problem with all that goes with it."
    )
    return report


def _measure_mixed(
    sizes: Sequence[int],
    count: int,
    loss: Loss,
    settings: Settings,
    generator: torch.Generator,
) -> dict[str, Any]:
    pairs: Pairs = "directed" if loss == "l1" else "all"
    parts = [
        random_problems(nodes, count, loss=loss, pairs=pairs, generator=generator).to(torch.float32)
        for nodes in sizes
    ]

    def job(name: str, problems: Problems) -> Contender:
        def solve() -> ot.FGWResult:
            return ot.fgw(
                problems.cost,
                problems.struct_x,
                problems.struct_y,
                problems.a,
                problems.b,
                loss=loss,
                pairs=pairs,
                alpha=problems.alpha,
            )

        return Contender(name, solve, 1)

    contenders = [job("together", padded(parts))]
    contenders += [job(str(nodes), part) for nodes, part in zip(sizes, parts, strict=True)]
    rates = alternate(contenders, rounds=settings.rounds, seconds=settings.seconds)
    together, *apart = (rates[contender.name].values for contender in contenders)
    sums = [sum(1 / rate for rate in turn) for turn in zip(*apart, strict=True)]
    times = [1 / rate / total for rate, total in zip(together, sums, strict=True)]
    return {
        "loss": loss,
        "sizes": ", ".join(map(str, sizes)),
        "least": min(sizes),
        "count": count,
        "together": 1e3 / max(together),
        "apart": 1e3 * min(sums),
        "times": statistics.median(times),
        "all_times": times,
    }


def ours_rows(rows: Sequence[Row], loss: str) -> list[Row]:
    """Return our rows of one loss, smallest first."""
    chosen = [row for row in rows if row["loss"] == loss and row["iterations"] is not None]
    return sorted(chosen, key=lambda row: int(row["nodes"]))


def growth(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Return the exponent p of the least-squares fit times ~ sizes^p on logarithmic scales."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def _measure(jobs: Sequence[Job], problems: Problems, settings: Settings) -> list[dict[str, Any]]:
    rates = alternate(
        [job.contender for job in jobs], rounds=settings.rounds, seconds=settings.seconds
    )
    rows = []
    for job in jobs:
        iterations = None if job.iterations is None else job.iterations()
        rate = rates[job.name].median
        rows.append(
            {
                "loss": problems.loss,
                "solver": job.name,
                "nodes": problems.cost.shape[1],
                "rate": rate,
                "rates": list(rates[job.name].values),
                "times": rates[jobs[0].name].over(rates[job.name]),
                "iterations": iterations,
                "per_iteration": None if iterations is None else 1e6 / rate / iterations,
            }
        )
    return rows


def draw(report: Report) -> Figure:
    """Draw throughput against size, every solver; time per iteration with its fit."""
    rows = report.rows("rates")
    figure, (left, right) = canvas(2, width=6.6, height=4.8)
    sizes = sorted({row["nodes"] for row in rows})
    _draw_rates(left, rows, sizes)
    _draw_iterations(right, rows, sizes)
    return figure


def _curves(
    axes: Axes,
    rows: Sequence[Row],
    value: Callable[[Row], float],
    names: dict[tuple[str, str], str],
) -> None:
    labels = []
    for place, ((loss, solver), text) in enumerate(names.items()):
        chosen = [row for row in rows if row["loss"] == loss and row["solver"] == solver]
        if not chosen:
            continue
        chosen.sort(key=lambda row: int(row["nodes"]))
        x, y = [row["nodes"] for row in chosen], [value(row) for row in chosen]
        ours = solver.startswith(solvers.OURS)
        axes.plot(
            x,
            y,
            color=COLOURS[place],
            marker="o" if loss == "l1" else "s",
            markersize=5,
            linewidth=2.2 if ours else 1.4,
            linestyle="-" if loss == "l1" else "--",
        )
        labels.append((text, float(x[-1]), float(y[-1]), COLOURS[place]))
    label_ends(axes, labels)


def _draw_rates(axes: Axes, rows: Sequence[Row], sizes: Sequence[int]) -> None:
    log_log(axes, sizes)
    rates = [row["rate"] for row in rows]
    axes.set_xlim(sizes[0] * 0.9, sizes[-1] * 2.6)
    axes.set_ylim(min(rates) / 2, max(rates) * 2)
    solver_names = sorted({row["solver"] for row in rows})
    ott = next((name for name in solver_names if name.startswith("OTT")), "OTT-JAX")
    _curves(
        axes,
        rows,
        lambda row: float(row["rate"]),
        {
            ("l1", solvers.OURS): "ours, L1",
            ("l1", solvers.POT_CONDITIONAL_GRADIENT): "POT cg, L1",
            ("l2", f"{solvers.OURS}, product start"): "ours, L2",
            ("l2", solvers.POT_FUSED_GROMOV): "POT FGW, L2",
            ("l2", solvers.POT_BATCH): "POT batch, L2",
            ("l2", ott): "OTT-JAX, L2",
        },
    )
    axes.set_xlabel("nodes")
    axes.set_ylabel("pairs per processor second")
    axes.set_title("Throughput of one thread")


def _draw_iterations(axes: Axes, rows: Sequence[Row], sizes: Sequence[int]) -> None:
    log_log(axes, sizes)
    for loss, colour, name in (("l1", COLOURS[0], "L1, directed"), ("l2", COLOURS[2], "L2, all")):
        chosen = ours_rows(rows, loss)
        x = [row["nodes"] for row in chosen]
        y = [row["per_iteration"] for row in chosen]
        fitted = [(n, t) for n, t in zip(x, y, strict=True) if FIRST <= n <= LAST]
        exponent = growth([n for n, _ in fitted], [t for _, t in fitted])
        axes.plot(
            x, y, color=colour, marker="o", linestyle="none", label=f"{name}: n^{exponent:.2f}"
        )
        ends = np.array([fitted[0][0], fitted[-1][0]], dtype=float)
        middle = np.exp(np.mean(np.log(fitted), axis=0))
        axes.plot(ends, middle[1] * (ends / middle[0]) ** exponent, color=colour, linewidth=1.4)
        if loss == "l1":
            limit = fitted[0][1] * (ends / ends[0]) ** TARGET
            axes.plot(ends, limit, color=INK, linewidth=1, linestyle=":", label=f"n^{TARGET}")
    axes.set_xlim(sizes[0] * 0.9, sizes[-1] * 1.1)
    axes.set_xlabel("nodes")
    axes.set_ylabel("microseconds")
    axes.set_title("Time of one iteration (one exact transport)")
    axes.legend(frameon=False, fontsize=9)
