"""What would matrices of very many architectures need?

Measured are processor time per pair and bytes that travel; the rest is multiplication.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

import hotnas_torch as ht
from benchmarks.measuring.report import Column, Report, Table, number
from hotnas_torch.matrices.pairwise import Blocks, Tile, Tiling

__all__ = ["ON_REQUEST", "QUICK", "Settings", "run"]

ON_REQUEST = "needs Ray"
_GIB = 2**30
_TILE = 512


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        samples: Networks of each space whose pairs are timed.
        sizes: Numbers of architectures to extrapolate to.
        landmarks: Landmarks of the largest of them.
        seed: Of the networks.
    """

    samples: tuple[tuple[str, int], ...] = (
        ("nasbench101", 400),
        ("nasbench201", 800),
        ("darts", 150),
        ("transnas_macro", 1500),
        ("nasbench_macro", 1500),
    )
    sizes: tuple[int, ...] = (100_000, 1_000_000)
    landmarks: int = 1000
    seed: int = 0


QUICK = Settings(samples=(("nasbench201", 60), ("nasbench_macro", 200)))


def run(settings: Settings) -> Report:
    """Measure processor time and bytes per pair, and add up what many architectures need."""
    report = Report()
    torch.set_num_threads(1)
    rows = [_cost(space, num, settings.seed) for space, num in settings.samples]
    report.tables.append(
        Table(
            "costs",
            "Measured on samples, one thread, float32",
            (
                Column("space", "space"),
                Column("networks", "networks", number()),
                Column("cells_per_network", "new cells per network", number()),
                Column("space_cells", "cells in all", number()),
                Column("prepare_us", "µs per network, tables", number()),
                Column("cell_pair_us", "µs per pair of cells", number()),
                Column("network_pair_us", "µs per pair of networks", number()),
                Column("cell_bytes", "bytes sent per cell", number()),
                Column("network_bytes", "bytes sent per network", number()),
            ),
            rows,
        )
    )
    large = [_needs(row, size) for size in settings.sizes for row in rows if row["open"]]
    report.tables.append(
        Table(
            "full",
            "Full matrices, extrapolated: the upper half, 4 bytes a pair",
            (
                Column("space", "space"),
                Column("networks", "networks", number()),
                Column("processor_hours", "processor hours", number()),
                Column("store_gib", "store, GiB", number()),
                Column("tables_gib", "tables per worker, GiB", number()),
                Column("tiles", "tiles", number()),
            ),
            large,
        )
    )
    few = [
        _needs(row, size, settings.landmarks)
        for size in settings.sizes
        for row in rows
        if row["open"]
    ]
    report.tables.append(
        Table(
            "landmarks",
            f"Distances of all to {settings.landmarks:,} landmarks instead, extrapolated",
            (
                Column("space", "space"),
                Column("networks", "networks", number()),
                Column("processor_hours", "processor hours", number()),
                Column("store_gib", "result, GiB", number()),
            ),
            few,
        )
    )
    report.notes += [
        "Extrapolated are spaces that have as many architectures: NAS-Bench-101 has 423,624, so its"
        " second row stands for a space of such cells. NAS-Bench-201 (15,625 strings), TransNAS-"
        "Bench-101 macro (3,256) and NAS-Bench-Macro (6,561) fit one machine whole.",
        "A worker sends a tile of distances once, 4 bytes a pair, to the program that writes the"
        " store; tables go to each worker process once.",
    ]
    return report


class _Watching:
    """An executor that notes what it would send, and computes here."""

    device = None

    def __init__(self) -> None:
        self.stages: list[tuple[Tiling, Blocks]] = []

    def tiles(self, tiling: Tiling, blocks: Blocks, todo: Sequence[Tile]) -> Any:
        self.stages.append((tiling, blocks))
        for tile in todo:
            yield tile, tiling.compute(tile, blocks)


def _cost(name: str, num: int, seed: int) -> dict[str, Any]:
    space = ht.spaces.get(name)
    networks = space.sample(num, generator=torch.Generator().manual_seed(seed), distinct=True)
    metric = ht.HOTNN(space=space)
    # By stage: processor time when it began and when it was last heard of, and its pairs.
    marks: dict[str, tuple[float, float, int]] = {}

    def progress(stage: str, _: int, total: int) -> None:
        now = time.process_time()
        begun = marks[stage][0] if stage in marks else now
        marks[stage] = (begun, now, total)

    watching = _Watching()
    started = time.process_time()
    metric(networks, progress=progress, executor=watching)
    cell_tiling, cell_blocks = watching.stages[0]
    network_tiling, network_blocks = watching.stages[-1]
    prepare = marks["cells"][0] - started
    num_cells = len({cell for net in networks for cell in net.cells})
    pair_us = {
        stage: 1e6 * (end - begin) / max(pairs, 1) for stage, (begin, end, pairs) in marks.items()
    }
    return {
        "space": name,
        "networks": num,
        "cells_per_network": num_cells / num,  # of a sample; fewer where cells repeat
        "space_cells": None if space.size() > 10**9 else int(space.size()),
        "open": name in ("nasbench101", "darts"),
        "prepare_us": 1e6 * prepare / num,
        "cell_pair_us": pair_us["cells"],
        "network_pair_us": pair_us["networks"],
        "cell_bytes": _bytes(cell_blocks) / cell_tiling.shape[0],
        "network_bytes": _bytes(network_blocks.tables) / network_tiling.shape[0],  # type: ignore[attr-defined]
    }


def _bytes(content: object) -> int:
    """What a worker process receives."""
    from ray import cloudpickle

    return len(cloudpickle.dumps(content))


def _needs(row: dict[str, Any], size: int, landmarks: int | None = None) -> dict[str, Any]:
    cells = row["cells_per_network"]
    others = size / 2 if landmarks is None else landmarks
    # A tile of networks computes its cells itself: all of one network with all of another.
    seconds = size * others * (cells**2 * row["cell_pair_us"] + row["network_pair_us"]) / 1e6
    return {
        "space": row["space"],
        "networks": size,
        "processor_hours": (seconds + size * row["prepare_us"] / 1e6) / 3600,
        "store_gib": size * others * 4 / _GIB,
        "tables_gib": size * (cells * row["cell_bytes"] + row["network_bytes"]) / _GIB,
        "tiles": math.ceil(size / _TILE) * (math.ceil(size / _TILE) + 1) // 2,
    }
