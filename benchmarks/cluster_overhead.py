"""What does Ray cost beside computing in one process?

On a Ray cluster of a head and two worker nodes, all processes of this machine.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hotnas_torch as ht
from benchmarks.measuring.cluster import descendants, processor_seconds, two_nodes
from benchmarks.measuring.machine import Load
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from hotnas_torch.arch import Network
from hotnas_torch.integrations.ray import RayExecutor
from hotnas_torch.matrices.pairwise import Blocks, Tile, Tiling
from hotnas_torch.matrices.solve_log import SolveLog

__all__ = ["ON_REQUEST", "QUICK", "Settings", "run"]

ON_REQUEST = "starts a Ray cluster"
_OVERHEAD = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        networks: NAS-Bench-201 networks of the matrix.
        rounds: Turns of each way of computing it.
        seed: Of the networks.
    """

    networks: int = 10_000
    rounds: int = 1
    seed: int = 0


QUICK = Settings(networks=600)


def cell_problem(num: int, seed: int) -> tuple[ht.HOTNN, list[Network]]:
    """Return NAS-Bench-201 networks, whose matrix is all work between cells."""
    space = ht.spaces.NASBench201()
    generator = torch.Generator().manual_seed(seed)
    return ht.HOTNN(space=space), space.sample(num, generator=generator, distinct=True)


def run(settings: Settings) -> Report:
    """Compute one matrix in this process with two threads, and on two nodes with one each."""
    report = Report()
    metric, networks = cell_problem(settings.networks, settings.seed)
    torch.set_num_threads(2)
    rows: list[dict[str, Any]] = []
    for turn in range(settings.rounds):
        rows.append(_turn("one process", turn, metric, networks, None))
        with two_nodes(num_cpus=1) as address, RayExecutor(address) as executor:
            rows.append(_turn("Ray", turn, metric, networks, executor))
    report.tables.append(
        Table(
            "turns",
            f"Matrix of {settings.networks:,} NAS-Bench-201 networks into a store",
            (
                Column("way", "computed by"),
                Column("turn", "turn", number()),
                Column("seconds", "s", number(4)),
                Column("processor_seconds", "processor s", number(4)),
                Column("solving_seconds", "of it solving", number(4)),
                Column("beside_percent", "beside solving, %", number()),
                Column("others", "busy with others", number(2)),
            ),
            rows,
        )
    )

    def mean(way: str, key: str) -> float:
        found = [row[key] for row in rows if row["way"] == way]
        return sum(found) / len(found)

    more = mean("Ray", "beside_percent") - mean("one process", "beside_percent")
    ratio = mean("Ray", "processor_seconds") / mean("one process", "processor_seconds")
    longest = max(row["seconds"] for row in rows)
    report.claims += [
        Claim("seconds of the longer run", ">=", 120, longest),
        Claim("processor time beside solving, % more with Ray", "<=", _OVERHEAD, more),
        Claim("all processor time, % more with Ray", "<=", _OVERHEAD, 100 * (ratio - 1)),
    ]
    wall = mean("Ray", "seconds") / mean("one process", "seconds")
    report.notes += [
        f"Wall clock: Ray with its two processors took {wall:.2f} times as long as one process with"
        " two threads, which means something only where few processors were busy with others.",
        "Ray's processor time is that of every process of the cluster from the moment when it is"
        " connected: the start of worker processes, which import torch, and the idle daemons of"
        " three nodes count.",
    ]
    return report


class _Timed:
    """Blocks that add up the processor seconds of solving, in a file per process."""

    def __init__(self, blocks: Blocks, folder: Path) -> None:
        self._blocks, self._folder = blocks, folder

    @property
    def device(self) -> torch.device:
        return self._blocks.device

    @property
    def log(self) -> SolveLog:
        return self._blocks.log

    def __call__(self, rows: Tensor, cols: Tensor) -> Tensor:
        started = time.process_time()
        values = self._blocks(rows, cols)
        with (self._folder / str(os.getpid())).open("a") as file:
            file.write(f"{time.process_time() - started}\n")
        return values

    def to(self, device: torch.device) -> "_Timed":
        return _Timed(self._blocks.to(device), self._folder)


class _Timing:
    """An executor whose blocks are timed."""

    device = None

    def __init__(self, executor: RayExecutor | None, folder: Path) -> None:
        self._executor, self._folder = executor, folder

    def tiles(
        self, tiling: Tiling, blocks: Blocks, todo: Sequence[Tile]
    ) -> Iterator[tuple[Tile, Tensor]]:
        timed = _Timed(blocks, self._folder)
        if self._executor is None:
            return ((tile, tiling.compute(tile, timed)) for tile in todo)
        return self._executor.tiles(tiling, timed, todo)

    def solving(self) -> float:
        """Return processor seconds inside the solvers."""
        return sum(
            float(line) for path in self._folder.iterdir() for line in path.read_text().split()
        )


def _turn(
    way: str, turn: int, metric: ht.HOTNN, networks: list[Network], executor: RayExecutor | None
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "times").mkdir()
        timing = _Timing(executor, folder / "times")
        everyone = [os.getpid(), *descendants(os.getpid())]
        before = processor_seconds(everyone)
        with Load() as load:
            metric.gram_store(networks, folder / "gram.zarr", executor=timing, progress=False)
            everyone = [os.getpid(), *descendants(os.getpid())]
            used = processor_seconds(everyone) - before
        solving = timing.solving()
    others = None
    if load.others is not None:
        # This process alone is what Load takes off.
        others = max(0.0, load.others - (used - load.cpu) / load.wall)
    return {
        "way": way,
        "turn": turn,
        "seconds": load.wall,
        "processor_seconds": used,
        "solving_seconds": solving,
        "beside_percent": 100 * (used - solving) / solving,
        "others": others,
    }
