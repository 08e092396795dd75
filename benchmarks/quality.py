"""How close to the best known coupling are the default settings?"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

import hotnas_torch as ht
from benchmarks.measuring.evaluate import Array, objectives
from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.problems import Problems, cell_problems, draw_pairs, sized_cells
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from hotnas_torch.arch import Cell
from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot._operators.fgw import NUM_STRUCTURAL_STARTS
from hotnas_torch.ot.terms import loss_code, pairs_code

__all__ = ["QUICK", "Settings", "draw", "renumbered", "run"]


MEAN_TARGET = 0.002
TAIL = 0.02
TAIL_TARGET = 0.01
_RENUMBERING_TARGET = 1e-6


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        pairs: Pairs of cells of each kind.
        random_starts: Starts of the reference.
        most_starts: Largest `num_starts` of the table.
        seed: Of cells, pairs and starts.
    """

    pairs: int = 300
    random_starts: int = 50
    most_starts: int = 8
    seed: int = 0


QUICK = Settings(pairs=60, random_starts=20)

_SPACES = ("nasbench201", "nasbench101")
_KINDS = ((False, "any sizes"), (True, "unequal sizes"))


@dataclass(frozen=True, slots=True)
class _Sample:
    """Pairs of cells of one space, as problems and as positions in IFGW's own tables."""

    name: str
    space: ht.spaces.SearchSpace
    cells: list[Cell]
    small: Tensor
    large: Tensor
    problems: Problems


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    report = Report()
    defaults: list[dict[str, Any]] = []
    by_starts: list[dict[str, Any]] = []
    for space_name in _SPACES:
        for unequal, kind in _KINDS:
            generator = torch.Generator().manual_seed(settings.seed)
            sample = _draw(space_name, settings, generator, unequal=unequal)
            found = _random_starts(sample.problems, settings.random_starts, generator)
            best = found.min(0)
            defaults.append({"space": space_name, "kind": kind} | _default_row(sample, best, found))
            extra = max(0, settings.most_starts - NUM_STRUCTURAL_STARTS)
            costs = torch.rand((extra, *sample.problems.cost.shape[1:]), generator=generator)
            for count in range(1, settings.most_starts + 1):
                by_starts.append(
                    {"space": space_name, "kind": kind} | _starts_row(sample, count, best, costs)
                )
    report.tables.append(
        Table(
            "default",
            f"ht.IFGW as it comes, over the best of {settings.random_starts} random starts"
            f" ({settings.pairs} pairs each)",
            (
                Column("space", "cells"),
                Column("kind", "pairs"),
                Column("sizes", "nodes"),
                Column("excess", "mean excess", _percent),
                Column("share", f"pairs > {TAIL:.0%} above", _percent),
                Column("worst", "worst", _percent),
                Column("better", "pairs better", _percent),
                Column("one_random_start", "one random start", _percent),
                Column("bound_gap", "above lower bound", _percent),
            ),
            defaults,
        )
    )
    report.tables.append(
        Table(
            "starts",
            "By num_starts: 1 signature, 2 + pointwise, 3 + order-preserving, then random vertices"
            " (float32, tol 1e-4)",
            (
                Column("space", "cells"),
                Column("kind", "pairs"),
                Column("starts", "num_starts", number()),
                Column("excess", "mean excess", _percent),
                Column("share", f"pairs > {TAIL:.0%} above", _percent),
                Column("worst", "worst", _percent),
                Column("microseconds", "us/pair", number()),
            ),
            by_starts,
        )
    )
    for row in defaults:
        where = f"{row['space']}, {row['kind']}"
        report.claims += [
            Claim(f"{where}: mean objective above the best", "<=", MEAN_TARGET, row["excess"]),
            Claim(f"{where}: pairs more than 2 % above", "<=", TAIL_TARGET, row["share"]),
            Claim(f"{where}: pairs below their lower bound", "<=", 0, row["below_bound"]),
        ]
    report.claims += _identities(settings)
    report.notes.append(
        "Mean excess is that of the means; a random start is the vertex that is cheapest under"
        " random costs, followed in float64 to a gap of 1e-7. 'One random start' is the mean"
        " objective of a single one of them. 'Above lower bound' is what the certified bound leaves"
        " open, from the best known coupling."
    )
    return report


def _percent(value: Any) -> str:
    return "-" if value is None else f"{100 * value:.3f} %"


def _draw(
    space_name: str, settings: Settings, generator: torch.Generator, *, unequal: bool
) -> _Sample:
    space = ht.spaces.get(space_name)
    cells = sized_cells(space, None, 2 * settings.pairs, generator)
    sizes = [cell.num_nodes for cell in cells]
    small, large = draw_pairs(sizes, settings.pairs, generator, unequal=unequal)
    first, second = ([cells[place] for place in places.tolist()] for places in (small, large))
    problems = cell_problems(first, second, tree=space.tree)
    return _Sample(space_name, space, cells, small, large, problems)


def _solve(
    problems: Problems, *, init: Tensor, start_costs: Tensor, starts: int, tol: float
) -> tuple[Tensor, ...]:
    alpha = problems.cost.new_full((len(problems),), problems.alpha)
    return ops.fgw(
        problems.cost,
        problems.struct_x,
        problems.struct_y,
        problems.a,
        problems.b,
        alpha,
        init,
        start_costs,
        loss_code(problems.loss),
        pairs_code(problems.pairs),
        starts,
        tol,
        5000,
    )


def _random_starts(problems: Problems, count: int, generator: torch.Generator) -> Array:
    """Objectives of descents from random vertices alone, shape (count, B)."""
    found = []
    none = problems.cost.new_empty(0)
    for _ in range(count):
        costs = torch.rand(problems.cost.shape, generator=generator, dtype=torch.float64)
        vertex = ops.transport(costs, problems.a, problems.b)[0]
        plans = _solve(problems, init=vertex, start_costs=none, starts=1, tol=1e-7)[0]
        found.append(objectives(problems, plans.numpy()))
    return np.stack(found)


def _summary(values: Array, best: Array) -> dict[str, float]:
    """Excess over the best known; a distance of 0 that both found counts as no excess."""
    relative = np.where(
        best > 0, values / np.where(best > 0, best, 1) - 1, (values > 1e-6) * np.inf
    )
    return {
        "excess": float(values.mean() / best.mean() - 1),
        "share": float((relative > TAIL).mean()),
        "worst": float(relative.max()),
        "better": float((relative < -1e-6).mean()),
    }


def _default_row(sample: _Sample, best: Array, found: Array) -> dict[str, Any]:
    tables = ht.IFGW(space=sample.space).prepare(sample.cells)
    values = tables.solve(sample.small, sample.large).double().numpy()
    problems = sample.problems
    bound = ops.fgw_lower_bound(
        problems.cost,
        problems.struct_x,
        problems.struct_y,
        problems.a,
        problems.b,
        problems.cost.new_full((len(problems),), problems.alpha),
        loss_code(problems.loss),
        pairs_code(problems.pairs),
    ).numpy()
    known = np.minimum(best, values)
    nodes = [sample.cells[place].num_nodes for place in [*sample.small, *sample.large]]
    return {
        "sizes": f"{min(nodes)} to {max(nodes)}",
        **_summary(values, best),
        "one_random_start": float(found.mean() / best.mean() - 1),
        "bound_gap": float((known - bound).mean() / known.mean()),
        "below_bound": float((known < bound - 1e-6).sum()),
    }


def _starts_row(sample: _Sample, count: int, best: Array, costs: Tensor) -> dict[str, Any]:
    problems = sample.problems.to(torch.float32)
    none = problems.cost.new_empty(0)
    random = costs[: max(0, count - NUM_STRUCTURAL_STARTS)]

    def solve() -> Tensor:
        return _solve(problems, init=none, start_costs=random, starts=count, tol=1e-4)[0]

    plans = solve().double().numpy()
    used, calls = time.process_time(), 0
    while time.process_time() - used < 0.05:
        solve()
        calls += 1
    microseconds = 1e6 * (time.process_time() - used) / calls / len(problems)
    values = objectives(sample.problems, plans)
    return {"starts": count, **_summary(values, best), "microseconds": microseconds}


def _identities(settings: Settings) -> list[Claim]:
    """d(x, x) = 0, d(x, y) = d(y, x), and nothing depends on the numbering of nodes."""
    claims = []
    for space_name in _SPACES:
        generator = torch.Generator().manual_seed(settings.seed)
        space = ht.spaces.get(space_name)
        cells = sized_cells(space, None, 40, generator)[:40]
        moved = [renumbered(cell, generator) for cell in cells]
        metric = ht.IFGW(space=space)
        forth, back = metric(cells, moved), metric(moved, cells)
        own = metric(cells)
        claims += [
            Claim(f"{space_name}: largest d(x, x)", "<=", 0, float(own.diagonal().max())),
            Claim(
                f"{space_name}: pairs with d(x, y) != d(y, x)",
                "<=",
                0,
                float((forth != back.T).sum()),
            ),
            Claim(
                f"{space_name}: largest change by renumbering",
                "<=",
                _RENUMBERING_TARGET,
                float((forth - own).abs().max()),
            ),
        ]
    return claims


def renumbered(cell: Cell, generator: torch.Generator) -> Cell:
    """Return the same cell with its inner nodes in another topological order."""
    remaining = set(range(1, cell.num_nodes - 1))
    order = [0]
    while remaining:
        ready = sorted(
            node for node in remaining if not remaining.intersection(cell.predecessors(node))
        )
        chosen = ready[int(torch.randint(len(ready), (1,), generator=generator))]
        order.append(chosen)
        remaining.remove(chosen)
    order.append(cell.num_nodes - 1)
    place = {node: position for position, node in enumerate(order)}
    edges = sorted((place[i], place[j]) for i, j in cell.edges)
    return Cell(tuple(cell.ops[node] for node in order), tuple(edges))


def _limit(axes: Axes, height: float, starts: Sequence[int]) -> None:
    axes.axhline(height, color=INK, linewidth=1.2, linestyle="--")
    axes.annotate(
        f"promised for the default: {height:.1%}",
        (starts[-1], height),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=INK,
    )


def draw(report: Report) -> Figure:
    """Draw the mean excess and share of bad pairs over the number of starts."""
    figure, (left, right) = canvas(2)
    rows = report.rows("starts")
    series = sorted({(row["space"], row["kind"]) for row in rows}, reverse=True)
    for place, (space, kind) in enumerate(series):
        chosen = [row for row in rows if (row["space"], row["kind"]) == (space, kind)]
        style: dict[str, Any] = {
            "color": COLOURS[place],
            "marker": "o" if kind == _KINDS[0][1] else "s",
            "markersize": 5,
            "label": f"{space}, {kind}",
        }
        starts = [row["starts"] for row in chosen]
        left.plot(starts, [row["excess"] for row in chosen], **style)
        right.plot(starts, [row["share"] for row in chosen], **style)
    _limit(left, MEAN_TARGET, starts)
    _limit(right, TAIL_TARGET, starts)
    for axes in (left, right):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xticks(starts)
        axes.set_xlabel("num_starts")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    left.set_title(f"Mean objective above the best of {report.settings['random_starts']} starts")
    right.set_title(f"Pairs more than {TAIL:.0%} above it")
    right.legend(frameon=False, fontsize=9)
    return figure
