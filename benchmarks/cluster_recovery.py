"""Is a matrix the same after a worker and the driver were killed?

On a Ray cluster of a head and two worker nodes, all processes of this machine.
"""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hotnas_torch as ht
from benchmarks.measuring.cluster import two_nodes, wait_for_worker
from benchmarks.measuring.process import command
from benchmarks.measuring.report import Claim, Column, Report, Table, number
from hotnas_torch.arch import Cell, Network
from hotnas_torch.integrations.ray import RayExecutor
from hotnas_torch.matrices import GramStore
from hotnas_torch.matrices.pairwise import Blocks, Tile, Tiling

__all__ = ["ON_REQUEST", "QUICK", "Settings", "run"]

ON_REQUEST = "starts a Ray cluster"
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        networks: Distinct networks of the matrix.
        cells: Distinct cells that they are made of.
        seed: Of the networks.
    """

    networks: int = 20_000
    cells: int = 200
    seed: int = 0


QUICK = Settings(networks=2000, cells=50)


def stacked_networks(num: int, num_cells: int, seed: int) -> list[Network]:
    """Return distinct chains of two NAS-Bench-201 cells, 16 and 32 channels wide."""
    generator = torch.Generator().manual_seed(seed)
    space = ht.spaces.NASBench201()
    by_key: dict[str, Cell] = {}
    while len(by_key) < num_cells:
        cell = space.sample_one(generator=generator).cells[0]
        by_key.setdefault(cell.key, cell)
    cells = list(by_key.values())
    found: dict[tuple[int, ...], Network] = {}
    while len(found) < num:
        chosen = tuple(torch.randint(num_cells, (2,), generator=generator).tolist())
        if chosen not in found:
            stages = [cells[place] for place in chosen]
            found[chosen] = Network.chain(stages, (16, 32), (1, 2), input_channels=16)
    return list(found.values())


def stacked_metric() -> ht.HOTNN:
    """Return the distance between `stacked_networks`, which are of no search space."""
    return ht.HOTNN(tree=ht.spaces.NASBench201().tree, state_scale=(1.0, 1.0), zeta=0.5)


def run(settings: Settings) -> Report:
    """Kill a worker, then the driver, in the middle of a matrix; compare with one process."""
    report = Report()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone, cluster = folder / "alone.zarr", folder / "cluster.zarr"
        started = time.perf_counter()
        _finish(_stack(settings, alone, None))
        rows.append({"event": "one process, finished", "seconds": time.perf_counter() - started})
        total = len(_tiles(alone))
        with two_nodes(num_cpus=1) as address:
            started = time.perf_counter()
            events = iter([("worker", total // 3), ("driver", 2 * total // 3)])
            driver = _stack(settings, cluster, address)
            for victim, when in events:
                _wait_for(lambda when=when: len(_tiles(cluster)) >= when, driver)
                pid = driver.pid if victim == "driver" else wait_for_worker("_solve", driver)
                os.kill(pid, signal.SIGKILL)
                rows.append(
                    {
                        "event": f"{victim} {pid} killed by signal 9",
                        "tiles": len(_tiles(cluster)),
                        "seconds": time.perf_counter() - started,
                    }
                )
            driver.wait()
            kept = len(_tiles(cluster))
            driver = _stack(settings, cluster, address)
            rows.append(
                {
                    "event": "driver started again",
                    "tiles": kept,
                    "seconds": time.perf_counter() - started,
                }
            )
            computed = _finish(driver)["computed"]
            rows.append(
                {
                    "event": f"finished, {computed} tiles computed by the second driver",
                    "tiles": len(_tiles(cluster)),
                    "seconds": time.perf_counter() - started,
                }
            )
        different = _different_tiles(alone, cluster)
        size = sum(path.stat().st_size for path in _tiles(cluster).values()) / _MIB
        store = GramStore(cluster)
        num, num_distinct = len(store), len(store.items.unique())
    report.tables.append(
        Table(
            "events",
            f"Matrix of {num:,} networks ({num_distinct:,} of them distinct) on two worker nodes,"
            f" {size:,.0f} MiB of tiles",
            (
                Column("event", "event"),
                Column("tiles", "tiles there", number()),
                Column("seconds", "s", number()),
            ),
            rows,
        )
    )
    report.claims += [
        Claim("networks", ">=", settings.networks, num),
        Claim("tiles that differ from those of one process in any bit", "<=", 0, different),
        Claim("tiles that the second driver computed again", "<=", 0, computed - (total - kept)),
    ]
    report.notes.append(
        f"The networks are distinct chains of two NAS-Bench-201 cells out of {settings.cells:,}"
        " (16 and 32 channels): TransNAS-Bench-101 macro has 3,256 networks and NAS-Bench-201"
        " 15,625, too few."
    )
    return report


def _stack(settings: Settings, store: Path, address: str | None) -> "subprocess.Popen[str]":
    drive = command(compute, str(store), settings.networks, settings.cells, settings.seed, address)
    return subprocess.Popen(drive, stdout=subprocess.PIPE, text=True)


def _finish(driver: "subprocess.Popen[str]") -> dict[str, Any]:
    out, _ = driver.communicate()
    if driver.returncode != 0:
        msg = f"a driver ended with exit code {driver.returncode}"
        raise RuntimeError(msg)
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return answer


def compute(store: str, count: int, cells: int, seed: int, address: str | None) -> dict[str, int]:
    """Compute the matrix into a store, and return how many tiles of networks this took.

    Args:
        store: Its folder.
        count: Number of networks.
        cells: Number of cells that they are made of.
        seed: Of the networks.
        address: Of the cluster; None computes in this process.
    """
    # On a busy machine, threads that wait for each other would burn what they wait for.
    torch.set_num_threads(1)
    networks = stacked_networks(count, cells, seed)
    with contextlib.ExitStack() as stack:
        executor = None if address is None else stack.enter_context(RayExecutor(address))
        counting = _Counting(executor)
        stacked_metric().gram_store(networks, store, executor=counting, progress=False)
    return {"computed": counting.computed.get("networks", 0)}


class _Counting:
    """An executor that counts the tiles of the last stage, which are those of networks."""

    def __init__(self, executor: RayExecutor | None) -> None:
        self._executor = executor
        self.device = None
        self.computed: dict[str, int] = {}

    def tiles(
        self, tiling: Tiling, blocks: Blocks, todo: Sequence[Tile]
    ) -> Iterator[tuple[Tile, Tensor]]:
        stage = type(blocks).__name__.removesuffix("Blocks").lower() + "s"
        if self._executor is None:
            found = ((tile, tiling.compute(tile, blocks)) for tile in todo)
        else:
            found = self._executor.tiles(tiling, blocks, todo)
        for item in found:
            self.computed[stage] = self.computed.get(stage, 0) + 1
            yield item


def _tiles(store: Path) -> dict[str, Path]:
    """Files of finished tiles of networks."""
    found = (store / "distances" / "c").glob("*/*")
    return {f"{path.parent.name}/{path.name}": path for path in found if path.name.isdigit()}


def _different_tiles(one: Path, other: Path) -> int:
    first, second = _tiles(one), _tiles(other)
    same = sum(
        name in second and first[name].read_bytes() == second[name].read_bytes() for name in first
    )
    return max(len(first), len(second)) - same


def _wait_for(reached: Callable[[], bool], driver: "subprocess.Popen[str]") -> None:
    while not reached():
        if driver.poll() is not None:
            msg = f"the driver ended too early, exit code {driver.returncode}"
            raise RuntimeError(msg)
        time.sleep(0.05)
