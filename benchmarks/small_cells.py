"""How many pairs of small cells does a thread compare, and how many would its arithmetic allow?"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.problems import (
    Problems,
    cell_problems,
    draw_pairs,
    random_problems,
    sized_cells,
)
from benchmarks.measuring.report import Column, Report, Table, number
from benchmarks.measuring.timing import Contender, alternate
from hotnas_torch import ot, spaces

__all__ = ["QUICK", "Settings", "draw", "run"]

_CELLS, _RANDOM = "cells", "random"

_FLOPS_PER_ENTRY = 7
"""Two differences, two magnitudes and a sum, then times the mass and added."""
_SIDE = 512
"""Of the matrices whose product says what one thread multiplies and adds."""
_COLUMNS = (
    Column("graphs", "graphs"),
    Column("rows", "n", number()),
    Column("columns", "m", number()),
    Column("starts", "starts", number()),
    Column("rate", "pairs/s", number()),
    Column("iterations", "iterations", "{:.2f}".format),
    Column("microseconds", "us per iteration", "{:.2f}".format),
    Column("bound", "gradients/s, arithmetic alone", number()),
    Column("share", "share of that", "{:.3f}".format),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        sizes: Nodes of both cells, from NAS-Bench-201, the smaller one first.
        starts: Starts per pair of cells.
        pairs: Pairs of cells of each size.
        nodes: Nodes of both of two random graphs, one start each.
        random_pairs: Pairs of random graphs of each size.
        rounds: Turns of each size.
        seconds: Least processor time of a turn.
        seed: Of the cells.
    """

    sizes: tuple[tuple[int, int], ...] = ((6, 6), (7, 7), (8, 8), (6, 7), (6, 8), (7, 8))
    starts: tuple[int, ...] = (1, 3)
    pairs: int = 1000
    nodes: tuple[int, ...] = (12, 16, 24, 32, 64, 128)
    random_pairs: int = 256
    rounds: int = 9
    seconds: float = 0.1
    seed: int = 0


QUICK = Settings(pairs=200, nodes=(12, 16), random_pairs=64, rounds=3, seconds=0.02)


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    flops = _flops(settings.rounds)
    contenders: list[Contender] = []
    rows: list[dict[str, Any]] = []
    for graphs, starts, problems in _problems(settings):

        def solve(problems: Problems = problems, starts: int = starts) -> Any:
            return ot.fgw(
                problems.cost,
                problems.struct_x,
                problems.struct_y,
                loss="l1",
                pairs="directed",
                alpha=problems.alpha,
                num_starts=starts,
                tol=1e-3,
                max_iter=200,
            )

        n, m = problems.cost.shape[1:]
        name = f"{graphs}, {n} x {m}, {starts}"
        contenders.append(Contender(name, solve, len(problems)))
        entries = n if n == m else n + m - 1
        operations = entries * n * m * _FLOPS_PER_ENTRY
        rows.append(
            {
                "name": name,
                "graphs": graphs,
                "rows": n,
                "columns": m,
                "starts": starts,
                "iterations": float(solve().iterations.double().mean()),
                "operations": operations,
                "bound": flops / operations,
            }
        )
    rates = alternate(contenders, rounds=settings.rounds, seconds=settings.seconds)
    for row in rows:
        row["rate"] = max(rates[row["name"]].values)
        row["microseconds"] = 1e6 / row["rate"] / row["iterations"]
        row["share"] = row["rate"] * row["iterations"] / row["bound"]
    return Report(
        tables=[
            Table("cells", "One thread, float32, cells of NAS-Bench-201 and random", _COLUMNS, rows)
        ],
        notes=[
            "Rates are of the best of the turns and count processor time; an iteration is a"
            " transport problem, of all starts together.",
            f"Arithmetic alone: {flops / 1e9:.1f} billion operations a second, as many as a thread"
            f" does in the product of two matrices of {_SIDE} columns, all of them spent on the"
            f" pair costs B(V) of an iteration, {_FLOPS_PER_ENTRY} for each entry of V and of B.",
        ],
    )


def _problems(settings: Settings) -> Iterator[tuple[str, int, Problems]]:
    """Yield the kind of the graphs, the starts, and the problems of one size."""
    generator = torch.Generator().manual_seed(settings.seed)
    space = spaces.get("nasbench201")
    for n, m in settings.sizes:
        first = sized_cells(space, n, settings.pairs, generator)
        second = first if n == m else sized_cells(space, m, settings.pairs, generator)
        cells = first if n == m else [*first, *second]
        sizes = [cell.num_nodes for cell in cells]
        x, y = draw_pairs(sizes, settings.pairs, generator, unequal=n != m)
        problems = cell_problems(
            [cells[k] for k in x.tolist()], [cells[k] for k in y.tolist()], tree=space.tree
        ).to(torch.float32)
        for starts in settings.starts:
            yield _CELLS, starts, problems
    for nodes in settings.nodes:
        problems = random_problems(
            nodes, settings.random_pairs, loss="l1", pairs="directed", generator=generator
        )
        yield _RANDOM, 1, problems.to(torch.float32)


def draw(report: Report) -> Figure:
    """Draw a roofline: operations a second that go into B(V), by how many an iteration has."""
    rows = report.rows("cells")
    figure, (axes,) = canvas(1, width=6.4)
    peak = rows[0]["bound"] * rows[0]["operations"]
    operations = np.geomspace(min(row["operations"] for row in rows) / 2, 1e8, 100)
    axes.axhline(peak / 1e9, color=INK, linewidth=1.4)
    axes.annotate(
        "product of two matrices",
        (operations[0], peak / 1e9),
        xytext=(0, -12),
        textcoords="offset points",
        color=INK,
        fontsize=9,
    )
    # What the smallest problems spend on everything else.
    rest = statistics.median(
        row["microseconds"] * 1e-6 - 1 / row["bound"] for row in rows if row["graphs"] == _CELLS
    )
    axes.plot(
        operations,
        operations / (rest + operations / peak) / 1e9,
        color=INK,
        linewidth=1.2,
        linestyle="--",
        label=f"and {1e6 * rest:.1f} us of everything else",
    )
    kinds = (_CELLS, COLOURS[0], "o"), (_RANDOM, COLOURS[2], "^")
    for kind, colour, marker in kinds:
        for equal in (True, False):
            points = [
                row
                for row in rows
                if row["graphs"] == kind and (row["rows"] == row["columns"]) == equal
            ]
            if not points:
                continue
            axes.plot(
                [row["operations"] for row in points],
                [row["operations"] / row["microseconds"] / 1e3 for row in points],
                color=colour,
                marker=marker,
                markerfacecolor=colour if equal else "none",
                markersize=6,
                linestyle="none",
                label=f"{kind}, {'equal' if equal else 'unequal'} sizes",
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations of B(V) in an iteration")
    axes.set_ylabel("billions of them a second")
    axes.set_title("Roofline of an iteration of iFGW, one thread")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return figure


def _flops(rounds: int) -> float:
    """Multiplications and additions a second of one thread, in the best of some products."""
    matrix = torch.ones(_SIDE, _SIDE)
    least = float("inf")
    for _ in range(rounds + 2):
        started = time.process_time()
        for _ in range(4):
            matrix @ matrix
        least = min(least, (time.process_time() - started) / 4)
    return 2 * _SIDE**3 / max(least, 1e-9)
