"""How many pairs of small cells does a thread compare, and how many would its arithmetic allow?"""

import time
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.measuring.problems import cell_problems, draw_pairs, sized_cells
from benchmarks.measuring.report import Column, Report, Table, number
from benchmarks.measuring.timing import Contender, alternate
from hotnas_torch import ot, spaces

__all__ = ["QUICK", "Settings", "run"]

_FLOPS_PER_ENTRY = 7
"""Two differences, two magnitudes and a sum, then times the mass and added."""
_SIDE = 512
"""Of the matrices whose product says what one thread multiplies and adds."""
_COLUMNS = (
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
        starts: Starts per pair.
        pairs: Pairs of cells of each size.
        rounds: Turns of each size.
        seconds: Least processor time of a turn.
        seed: Of the cells.
    """

    sizes: tuple[tuple[int, int], ...] = ((6, 6), (7, 7), (8, 8), (6, 7), (6, 8), (7, 8))
    starts: tuple[int, ...] = (1, 3)
    pairs: int = 1000
    rounds: int = 9
    seconds: float = 0.1
    seed: int = 0


QUICK = Settings(pairs=200, rounds=3, seconds=0.02)


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    flops = _flops(settings.rounds)
    generator = torch.Generator().manual_seed(settings.seed)
    space = spaces.get("nasbench201")
    contenders: list[Contender] = []
    rows: list[dict[str, Any]] = []
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

            def solve(problems: Any = problems, starts: int = starts) -> Any:
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

            name = f"{n} x {m}, {starts}"
            contenders.append(Contender(name, solve, len(problems)))
            entries = n if n == m else n + m - 1
            rows.append(
                {
                    "name": name,
                    "rows": n,
                    "columns": m,
                    "starts": starts,
                    "iterations": float(solve().iterations.double().mean()),
                    "bound": flops / (entries * n * m * _FLOPS_PER_ENTRY),
                }
            )
    rates = alternate(contenders, rounds=settings.rounds, seconds=settings.seconds)
    for row in rows:
        row["rate"] = max(rates[row["name"]].values)
        row["microseconds"] = 1e6 / row["rate"] / row["iterations"]
        row["share"] = row["rate"] * row["iterations"] / row["bound"]
    return Report(
        tables=[Table("cells", "One thread, float32, NAS-Bench-201 cells", _COLUMNS, rows)],
        notes=[
            "Rates are of the best of the turns and count processor time; an iteration is a"
            " transport problem, of all starts together.",
            f"Arithmetic alone: {flops / 1e9:.1f} billion operations a second, as many as a thread"
            f" does in the product of two matrices of {_SIDE} columns, all of them spent on the"
            f" pair costs B(V) of an iteration, {_FLOPS_PER_ENTRY} for each entry of V and of B.",
        ],
    )


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
