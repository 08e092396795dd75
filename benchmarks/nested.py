"""What does a HOTNN matrix of hierarchical networks cost?"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.measuring.figures import COLOURS, INK, canvas, log_log
from benchmarks.measuring.machine import peak_memory, processors
from benchmarks.measuring.report import Column, Report, Row, Table, number
from benchmarks.scaling import growth
from hotnas_torch.arch import NestedCell, Network
from hotnas_torch.distances import HOTNN
from hotnas_torch.matrices.progress import Progress
from hotnas_torch.nago import HNAG, RNAG, FlatThetaSpace, ThetaSpace

__all__ = ["QUICK", "Settings", "draw", "num_operations", "run"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        networks: Networks of the large matrix, each of a random HNAG.
        tol: Relative duality gap of its pairs.
        memory_budget: Bytes that it may hold beside the result.
        starts: Networks whose matrices with one start and with three are compared.
        hierarchical: Nodes of the graphs on all three levels of HNAG, by which growth is measured.
        flat: Nodes of each of the three graphs of RNAG, likewise.
        each: Networks of each size.
        seed: Of the networks.
    """

    networks: int = 500
    tol: float = 1e-2
    memory_budget: int = 512 * 2**20
    starts: int = 40
    hierarchical: tuple[int, ...] = (3, 4, 6, 8, 10)
    flat: tuple[int, ...] = (8, 16, 32, 64, 100)
    each: int = 8
    seed: int = 0


QUICK = Settings(networks=12, starts=6, hierarchical=(3, 4), flat=(4, 8), each=3)


def num_operations(network: Network) -> int:
    """Count operations of all levels."""
    return sum(
        cell.num_operations if isinstance(cell, NestedCell) else cell.num_nodes - 2
        for cell in network.cells
    )


class _Watch:
    """Notes when stages of a matrix begin and end."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, Any]] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.perf_counter(), time.process_time()
        first = self.stages.setdefault(stage, {"stage": stage, "pairs": total, "begun": now})
        if done == total:
            first["wall"], first["cpu"] = (b - a for a, b in zip(first["begun"], now, strict=True))

    def rows(self) -> list[Row]:
        """Return a row per stage, with pairs per processor second."""
        return [
            {
                **{name: stage[name] for name in ("stage", "pairs", "wall", "cpu")},
                "rate": stage["pairs"] / stage["cpu"] if stage["cpu"] > 0 else None,
            }
            for stage in self.stages.values()
        ]


def _networks(
    family: str, num: int, nodes: int | None, generator: torch.Generator
) -> list[Network]:
    """Networks of as many random generators, whose graphs have about so many nodes."""
    around = None
    if nodes is not None:
        spread = max(1, nodes // 10)
        around = max(3, nodes - spread), nodes + spread
    if family == "HNAG":
        space = ThetaSpace() if around is None else ThetaSpace(nodes=around, mid_nodes=around)
        thetas = space.decode(space.sample(num, generator=generator))
        return [HNAG().sample(theta, generator=generator) for theta in thetas]
    flat = FlatThetaSpace() if around is None else FlatThetaSpace(nodes=around)
    return [
        RNAG().sample(theta, generator=generator)
        for theta in flat.decode(flat.sample(num, generator=generator))
    ]


def _metric(**options: Any) -> HOTNN:
    family = HNAG()
    return HOTNN(tree=family.tree, state_scale=family.state_scale, dtype=torch.float32, **options)


def _timed(
    metric: HOTNN, nets: Sequence[Network], progress: Progress = False
) -> tuple[Tensor, float, float]:
    """A matrix, seconds and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    distances = metric(nets, progress=progress)
    return distances, time.perf_counter() - wall, time.process_time() - cpu


def run(settings: Settings) -> Report:
    """Measure."""
    torch.set_num_threads(processors())
    report = Report()
    generator = torch.Generator().manual_seed(settings.seed)
    report.tables += _matrix(settings, generator)
    report.tables.append(_growth(settings, generator))
    report.tables.append(_starts(settings, generator))
    for family in ("HNAG", "RNAG"):
        rows = [row for row in report.rows("growth") if row["family"] == family]
        exponent = growth([row["operations"] for row in rows], [row["cpu"] for row in rows])
        report.notes.append(
            f"{family}: processor seconds per pair of networks grow like operations^{exponent:.2f}."
        )
    report.notes.append(
        "Every network is a sample of another random generator: 3x3 convolutions, summed inputs."
        " Memory is the peak of the process, with Python and torch; times are those of all threads"
        " together where they say processor."
    )
    return report


def _matrix(settings: Settings, generator: torch.Generator) -> list[Table]:
    """The large matrix, its stages, and what it holds."""
    before = peak_memory()
    nets = _networks("HNAG", settings.networks, None, generator)
    operations = [num_operations(net) for net in nets]
    metric = _metric(num_starts=1, tol=settings.tol, memory_budget=settings.memory_budget)
    watch = _Watch()
    distances, wall, cpu = _timed(metric, nets, watch)
    off = distances[~torch.eye(len(nets), dtype=torch.bool)]
    whole = {
        "networks": len(nets),
        "operations": float(np.mean(operations)),
        "most": max(operations),
        "wall": wall,
        "cpu": cpu,
        "before": before / 2**20,
        "peak": peak_memory() / 2**20,
        "symmetric": bool((distances == distances.T).all()),
        "zero": bool((distances.diagonal() == 0).all()),
        "median": float(off.median()),
    }
    return [
        Table(
            "matrix",
            f"Matrix of {len(nets)} HNAG networks, float32, one start, tol {settings.tol:g},"
            f" {processors()} threads",
            (
                Column("networks", "networks", number()),
                Column("operations", "operations, mean", number()),
                Column("most", "most", number()),
                Column("wall", "s", number()),
                Column("cpu", "processor s", number()),
                Column("before", "MiB before", number()),
                Column("peak", "MiB at the peak", number()),
                Column("symmetric", "symmetric", number()),
                Column("zero", "zero diagonal", number()),
                Column("median", "median distance", number()),
            ),
            [whole],
        ),
        Table(
            "stages",
            "Its stages: distinct graphs of operations, graphs of these, networks",
            (
                Column("stage", "stage"),
                Column("pairs", "pairs", number()),
                Column("wall", "s", number()),
                Column("cpu", "processor s", number()),
                Column("rate", "pairs / processor s", number()),
            ),
            watch.rows(),
        ),
    ]


def _growth(settings: Settings, generator: torch.Generator) -> Table:
    """Processor time per pair of networks over the size of networks."""
    rows = []
    for family, sizes in (("HNAG", settings.hierarchical), ("RNAG", settings.flat)):
        for nodes in sizes:
            nets = _networks(family, settings.each, nodes, generator)
            _, wall, cpu = _timed(_metric(num_starts=1), nets)
            pairs = len(nets) * (len(nets) - 1) / 2
            rows.append(
                {
                    "family": family,
                    "nodes": nodes,
                    "operations": float(np.mean([num_operations(net) for net in nets])),
                    "wall": wall / pairs,
                    "cpu": cpu / pairs,
                }
            )
    return Table(
        "growth",
        f"A pair of networks, {settings.each} of each size, one start",
        (
            Column("family", "generator"),
            Column("nodes", "nodes per graph", number()),
            Column("operations", "operations", number()),
            Column("wall", "s", number()),
            Column("cpu", "processor s", number()),
        ),
        rows,
    )


def _starts(settings: Settings, generator: torch.Generator) -> Table:
    """What fewer starts and a larger tolerance change."""
    nets = _networks("HNAG", settings.starts, None, generator)
    row, col = torch.triu_indices(len(nets), len(nets), offset=1)
    rows: list[Row] = []
    reference: Tensor | None = None
    for starts, tol in ((3, 1e-3), (1, 1e-3), (1, 1e-2)):
        distances, wall, cpu = _timed(_metric(num_starts=starts, tol=tol), nets)
        values = distances[row, col].double()
        reference = values if reference is None else reference
        rows.append(
            {
                "starts": starts,
                "tol": tol,
                "wall": wall,
                "cpu": cpu,
                "difference": float(((values - reference).abs() / reference).mean()),
                "rank": float(spearmanr(values.numpy(), reference.numpy()).statistic),
            }
        )
    return Table(
        "starts",
        f"Starts and tolerance, {len(nets)} HNAG networks",
        (
            Column("starts", "starts", number()),
            Column("tol", "tol", number()),
            Column("wall", "s", number()),
            Column("cpu", "processor s", number()),
            Column("difference", "mean relative difference", number()),
            Column("rank", "rank correlation", number(5)),
        ),
        rows,
    )


def draw(report: Report) -> Figure:
    """Draw processor seconds per pair of networks over their operations."""
    figure, (axes,) = canvas(1)
    rows = report.rows("growth")
    log_log(axes, sorted({round(row["operations"]) for row in rows if row["family"] == "HNAG"}))
    for place, family in enumerate(("HNAG", "RNAG")):
        chosen: Sequence[Row] = [row for row in rows if row["family"] == family]
        axes.plot(
            [row["operations"] for row in chosen],
            [row["cpu"] for row in chosen],
            marker="o",
            color=COLOURS[place],
            label=family,
        )
    axes.set_xlabel("operations of a network", color=INK)
    axes.set_ylabel("processor seconds per pair", color=INK)
    axes.legend(frameon=False, fontsize=9)
    return figure
