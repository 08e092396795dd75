"""What 100,000 and 1,000,000 architectures would need, from costs measured on few.

``python -m benchmarks.capacity`` measures processor time per pair, bytes that travel, and how well
a kernel on landmarks stands for the full one; the rest is multiplication.
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hotnas_torch as ht
from benchmarks.machine import Load
from benchmarks.report import Column, Report, Table, number
from hotnas_torch.gp.psd import landmark_features, whitener
from hotnas_torch.matrices.landmarks import farthest_points, k_medoids
from hotnas_torch.matrices.pairwise import Blocks, Tile, Tiling

__all__ = ["PARTS", "Settings", "main"]

_GIB = 2**30
_TILE = 512


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        samples: Networks of each space whose pairs are timed.
        sizes: Numbers of architectures to extrapolate to.
        landmarks: Landmarks of the largest of them.
        matrices: Spaces of the full matrices that landmarks are compared with.
        networks: Networks of each such matrix.
        nums: Numbers of landmarks that are compared.
        repeats: Choices of landmarks at each number.
        seed: Of everything.
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
    matrices: tuple[str, ...] = ("nasbench_macro", "nasbench101")
    networks: int = 5000
    nums: tuple[int, ...] = (50, 100, 200, 500, 1000)
    repeats: int = 2
    seed: int = 0


QUICK = Settings(
    samples=(("nasbench201", 60), ("nasbench_macro", 200)),
    matrices=("nasbench_macro",),
    networks=300,
    nums=(10, 50),
    repeats=2,
)


# --- costs ----------------------------------------------------------------------------------------


class _Watching:
    """An executor that notes what it would send, and computes here."""

    device = None

    def __init__(self) -> None:
        self.stages: list[tuple[Tiling, Blocks]] = []

    def tiles(self, tiling: Tiling, blocks: Blocks, todo: Sequence[Tile]) -> Any:
        self.stages.append((tiling, blocks))
        for tile in todo:
            yield tile, tiling.compute(tile, blocks)


def costs(settings: Settings) -> Report:
    """Processor time and bytes per pair, and what they add up to for many architectures."""
    report = Report(
        "capacity-costs",
        "what would matrices of very many architectures need?",
        {"samples": [list(sample) for sample in settings.samples], "seed": settings.seed},
    )
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


# --- landmarks ------------------------------------------------------------------------------------


def landmarks(settings: Settings) -> Report:
    """Error of the kernel on landmarks against the full matrix."""
    report = Report(
        "capacity-landmarks",
        "how well do landmarks stand for the full matrix?",
        {
            "spaces": settings.matrices,
            "networks": settings.networks,
            "repeats": settings.repeats,
            "seed": settings.seed,
        },
    )
    for name in settings.matrices:
        _compare_landmarks(name, settings, report)
    return report


def _compare_landmarks(name: str, settings: Settings, report: Report) -> None:
    """Adds a table and a note about one space."""
    num = settings.networks
    space = ht.spaces.get(name)
    generator = torch.Generator().manual_seed(settings.seed)
    networks = space.sample(num, generator=generator, distinct=True)
    distances = ht.HOTNN(space=space)(networks).double()
    lengthscale = float(distances.flatten()[::97].median())
    kernel = torch.exp(-distances / lengthscale)
    eigenvalues = torch.linalg.eigvalsh(kernel)
    size = float(kernel.norm())
    floor = float(eigenvalues.clamp_max(0.0).norm()) / size
    rows: list[dict[str, Any]] = []
    ways = {
        "random": lambda count, g: torch.randperm(num, generator=g)[:count],
        "farthest points": lambda count, g: (
            farthest_points(_block(distances), num, count, generator=g).indices
        ),
        "k-medoids": lambda count, g: k_medoids(_block(distances), num, count, generator=g).indices,
    }
    for count in settings.nums:
        for way, choose in ways.items():
            errors = []
            for repeat in range(settings.repeats):
                chosen = choose(count, torch.Generator().manual_seed(settings.seed + repeat))
                errors.append(
                    (*_errors(kernel, chosen), float(distances[:, chosen].min(1).values.max()))
                )
            relative, mean, radius = (
                sum(column) / len(errors) for column in zip(*errors, strict=True)
            )
            rows.append(
                {
                    "landmarks": count,
                    "way": way,
                    "relative_percent": 100 * relative,
                    "mean": mean,
                    "radius": radius / lengthscale,
                }
            )
    report.tables.append(
        Table(
            f"errors-{name}",
            f"Kernel exp(-d / median d) of {num:,} {name} networks by landmarks, means over"
            f" {settings.repeats} choices",
            (
                Column("landmarks", "landmarks", number()),
                Column("way", "chosen"),
                Column("relative_percent", "error, % of the norm", number()),
                Column("mean", "mean absolute error of an entry", number(2)),
                Column("radius", "farthest from a landmark, length scales", number(2)),
            ),
            rows,
        )
    )
    negative = int((eigenvalues < 0).sum())
    between = float((kernel.sum() - num) / (num * (num - 1)))
    report.notes.append(
        f"{name}: no positive semi-definite kernel is closer to the full matrix than"
        f" {100 * floor:.3g} % of its norm: that much lies in its {negative} negative eigenvalues,"
        f" down to {float(eigenvalues[0]):.2g}. The mean entry off the diagonal is {between:.3f}."
    )


def _block(distances: Tensor) -> Any:
    return lambda rows, cols: distances[rows[:, None], cols]


def _errors(kernel: Tensor, chosen: Tensor) -> tuple[float, float]:
    """Of the kernel on landmarks with its residual diagonal: relative norm, mean absolute."""
    features = landmark_features(kernel[:, chosen], whitener(kernel[chosen][:, chosen]))
    difference = features @ features.T - kernel
    # The residual makes the diagonal exact.
    difference.fill_diagonal_(0.0)
    return float(difference.norm() / kernel.norm()), float(difference.abs().mean())


# --- the command ----------------------------------------------------------------------------------

PARTS = {"costs": costs, "landmarks": landmarks}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print tables, and write JSON and Markdown.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default all")
    parser.add_argument("--output", type=Path, default=Path("runs/bench"), metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="small problems")
    arguments = parser.parse_args(argv)
    for name in arguments.parts:
        if name not in PARTS:
            parser.error(f"no part {name!r}; there are {', '.join(PARTS)}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.parts or PARTS:
        with Load() as load:
            report = PARTS[name](QUICK if arguments.quick else Settings())
        report.load = load
        report.write(arguments.output)
        print(report.markdown(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
