"""What do the gradients of a whole HOTNN matrix cost?

The gradient of a matrix is found tile by tile: a tile's couplings are computed again, give a few
numbers per pair, and are forgotten. So the backward pass is to cost little more than a forward one,
and its memory is not to grow with the number of pairs.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure

import hotnas_torch as ht
from benchmarks.measuring.figures import COLOURS, INK, canvas
from benchmarks.measuring.machine import peak_memory
from benchmarks.measuring.process import in_process
from benchmarks.measuring.report import Claim, Column, Report, Table, number

__all__ = ["QUICK", "Settings", "draw", "run"]


PASSES_TARGET = 3.0
GROWTH_TARGET = 1.5
_MIB = 2**20
_STARTS = {"lam": 0.5, "eps": 0.8, "eta": 0.4, "zeta": 0.4}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        matrices: Search space and number of networks of each matrix, per space from small to large.
        seed: Of the networks and of the weights in the loss.
    """

    matrices: tuple[tuple[str, int], ...] = (
        ("nasbench201", 1000),
        ("nasbench201", 2000),
        ("transnas_macro", 1000),
        ("transnas_macro", 2000),
        ("darts", 150),
        ("darts", 300),
    )
    seed: int = 0


QUICK = Settings(
    matrices=(("nasbench201", 200), ("nasbench201", 400), ("transnas_macro", 500), ("darts", 40))
)


def run(settings: Settings) -> Report:
    """Measure."""
    report = Report()
    rows = [in_process(measure, *matrix, settings.seed) for matrix in settings.matrices]
    report.tables.append(
        Table(
            "matrices",
            "One thread; gradients in lam, eps, eta, zeta and all lengths of the operation tree",
            (
                Column("space", "space"),
                Column("networks", "networks", number()),
                Column("cells_unique", "unique cells", number()),
                Column("forward", "forward, processor s", number()),
                Column("backward", "backward, processor s", number()),
                Column("passes", "backward / forward", number()),
                Column("extra_mib", "backward's memory, MiB", number()),
                Column("couplings_mib", "all couplings, MiB", number()),
            ),
            rows,
        )
    )
    largest = {row["space"]: row for row in rows}
    for row in rows:
        report.claims.append(
            Claim(
                f"{row['networks']:,} {row['space']} networks: forward passes in a backward",
                "<=",
                PASSES_TARGET,
                row["passes"],
            )
        )
    for space, large in largest.items():
        small = next(row for row in rows if row["space"] == space)
        if small is large:
            continue
        times = (large["networks"] / small["networks"]) ** 2
        report.claims.append(
            Claim(
                f"{space}: growth of backward's memory for {times:.0f} times as many pairs",
                "<=",
                GROWTH_TARGET,
                large["extra_mib"] / max(small["extra_mib"], 1.0),
            )
        )
    report.notes.append(
        "The loss is a weighted sum of all distances. 'Backward's memory' is what the peak of the"
        " process rises by during the backward pass, less the gradient and the weights of the loss,"
        " which are as large as the matrix. 'All couplings' is what the couplings of all pairs,"
        " of the nodes of cells and of the cells of networks, would take together. A small matrix"
        " goes before, as the first backward pass of a process loads parts of torch."
    )
    return report


def measure(name: str, count: int, seed: int) -> dict[str, Any]:
    """Differentiate one matrix and return what it took.

    Args:
        name: Of the search space.
        count: Number of networks.
        seed: Of the networks and of the weights in the loss.
    """
    torch.set_num_threads(1)
    space = ht.spaces.get(name)
    generator = torch.Generator().manual_seed(seed)
    networks = space.sample(count, generator=generator, distinct=True)
    parameters: dict[str, Any] = {
        parameter: torch.tensor(value, requires_grad=True) for parameter, value in _STARTS.items()
    }
    lengths = space.tree.lengths_tensor(dtype=torch.float32).detach().requires_grad_()
    metric = ht.HOTNN(space=space, tree=space.tree.with_lengths(lengths), **parameters)
    metric(networks[:4]).sum().backward()
    cells = {cell.key: cell.num_nodes for network in networks for cell in network.cells}

    started = time.process_time()
    matrix = metric(networks)
    forward = time.process_time() - started
    weights = torch.rand(matrix.shape, generator=generator)
    loss = (matrix * weights).sum()
    peak, started = peak_memory(), time.process_time()
    loss.backward()
    backward = time.process_time() - started
    of_loss = matrix.numel() * matrix.element_size()
    extra = max(0, peak_memory() - peak - of_loss)
    return {
        "space": name,
        "networks": count,
        "cells_unique": len(cells),
        "forward": forward,
        "backward": backward,
        "passes": backward / forward,
        "extra_mib": extra / _MIB,
        "couplings_mib": _all_couplings(networks, list(cells.values())) / _MIB,
    }


def _all_couplings(networks: list[ht.Network], sizes: list[int]) -> float:
    """Bytes of the couplings of all unordered pairs, float32."""

    def of_pairs(counts: list[int]) -> float:
        return 4 * (sum(counts) ** 2 - sum(count**2 for count in counts)) / 2

    return of_pairs(sizes) + of_pairs([network.num_cells for network in networks])


def draw(report: Report) -> Figure:
    """Time of both passes, and memory of the backward one beside that of all couplings."""
    rows = list(reversed(report.rows("matrices")))
    figure, (left, right) = canvas(2, height=1.4 + 0.5 * len(rows))
    places = range(len(rows))
    forward = [row["forward"] for row in rows]
    left.barh(places, [1.0] * len(rows), height=0.6, color=COLOURS[0], label="forward")
    left.barh(
        places,
        [row["passes"] for row in rows],
        left=[1.0] * len(rows),
        height=0.6,
        color=COLOURS[1],
        label="backward",
    )
    for place, row in enumerate(rows):
        left.annotate(
            f"{forward[place]:.1f} + {row['backward']:.1f} s",
            (1.0 + row["passes"], place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    left.axvline(1.0 + PASSES_TARGET, color=INK, linewidth=1.2, linestyle="--")
    left.set_xlim(0, max(1.0 + PASSES_TARGET, *(1.0 + row["passes"] for row in rows)) * 1.25)
    left.set_yticks(list(places), [f"{row['networks']:,} {row['space']}" for row in rows])
    left.set_xlabel("forward passes (dashed: promised)")
    left.set_title("Processor time, one thread")
    right.barh(
        [place + 0.2 for place in places],
        [row["extra_mib"] for row in rows],
        height=0.38,
        color=COLOURS[1],
        label="backward pass",
    )
    right.barh(
        [place - 0.2 for place in places],
        [row["couplings_mib"] for row in rows],
        height=0.38,
        color=COLOURS[5],
        label="couplings of all pairs",
    )
    right.set_yticks(list(places), [""] * len(rows))
    right.set_xlabel("MiB")
    right.set_title("Memory")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper right")
        axes.set_ylim(-0.6, len(rows) + 0.1)
        axes.grid(visible=False, axis="y")
    return figure
