"""Matrices and searches on a local Ray cluster whose workers are killed, and what Ray costs.

``python -m benchmarks.cluster`` starts a head and two worker nodes as processes of this machine.
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hotnas_torch as ht
from benchmarks.machine import Load
from benchmarks.report import Claim, Column, Report, Table, number
from hotnas_torch.arch import Cell, Network
from hotnas_torch.integrations.ray import RayExecutor
from hotnas_torch.matrices import GramStore
from hotnas_torch.matrices.pairwise import Blocks, Tile, Tiling
from hotnas_torch.matrices.solve_log import SolveLog
from hotnas_torch.search import HOTNAS, Storage, Trial, run

__all__ = ["PARTS", "Settings", "main"]

_MIB = 2**20
_OVERHEAD = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        networks: Distinct networks of the matrix whose workers are killed.
        cells: Distinct cells that they are made of.
        overhead_networks: NAS-Bench-201 networks of the matrix that is timed.
        rounds: Turns of each way of computing it.
        evaluations: Of the search.
        kill_every: Finished evaluations between two kills.
        seed: Of everything.
    """

    networks: int = 20_000
    cells: int = 200
    overhead_networks: int = 10_000
    rounds: int = 1
    evaluations: int = 60
    kill_every: int = 10
    seed: int = 0


QUICK = Settings(
    networks=2000, cells=50, overhead_networks=600, rounds=1, evaluations=12, kill_every=5
)


# --- the problems ---------------------------------------------------------------------------------


def stacked_networks(num: int, num_cells: int, seed: int) -> list[Network]:
    """Distinct chains of two NAS-Bench-201 cells, 16 and 32 channels wide."""
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
    """The distance between `stacked_networks`, which are of no search space."""
    return ht.HOTNN(tree=ht.spaces.NASBench201().tree, state_scale=(1.0, 1.0), zeta=0.5)


def cell_problem(num: int, seed: int) -> tuple[ht.HOTNN, list[Network]]:
    """NAS-Bench-201 networks, whose matrix is all work between cells."""
    space = ht.spaces.NASBench201()
    generator = torch.Generator().manual_seed(seed)
    return ht.HOTNN(space=space), space.sample(num, generator=generator, distinct=True)


def slow_value(net: Network) -> float:
    """An objective that takes a second."""
    time.sleep(1.0)
    return 1.0 + net.spec.count("0")


# --- the cluster ----------------------------------------------------------------------------------


@contextlib.contextmanager
def two_nodes(*, num_cpus: int) -> Iterator[str]:
    """Address of a cluster with two worker nodes; everything it runs ends with the block."""
    # Otherwise workers give way to everything else on the machine, and so to what they are compared
    # with.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (spelt so by Ray)
    from ray.cluster_utils import Cluster

    options = {"object_store_memory": 256 * _MIB, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=num_cpus, **options)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


def descendants(pid: int) -> list[int]:
    """Living processes below one, from ``/proc``."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            # After the name, which may hold anything: state, parent, ...
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(path.name))
    found, left = [], [pid]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found


def busy_workers(task: str) -> list[int]:
    """Workers below this process that are running a task, which Ray puts into their title."""
    found = []
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if (
                (Path("/proc") / str(pid) / "cmdline")
                .read_bytes()
                .startswith(b"ray::" + task.encode())
            ):
                found.append(pid)
    return found


def processor_seconds(pids: Sequence[int]) -> float:
    """Processor seconds of living processes and of their children that have ended."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


# --- a matrix whose workers and driver are killed -------------------------------------------------


def recovery(settings: Settings) -> Report:
    """Kill a worker, then the driver, in the middle of a matrix; compare with one process."""
    report = Report(
        "cluster-recovery",
        "is a matrix the same after a worker and the driver were killed?",
        {"networks": settings.networks, "cells": settings.cells, "seed": settings.seed},
    )
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
                pid = driver.pid if victim == "driver" else _wait_for_worker("_solve", driver)
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
    command = [sys.executable, "-m", "benchmarks.cluster", "--child", str(store)]
    command += ["--networks", str(settings.networks), "--cells", str(settings.cells)]
    command += ["--seed", str(settings.seed)]
    command += [] if address is None else ["--address", address]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _finish(driver: "subprocess.Popen[str]") -> dict[str, Any]:
    out, _ = driver.communicate()
    if driver.returncode != 0:
        msg = f"a driver ended with exit code {driver.returncode}"
        raise RuntimeError(msg)
    answer: dict[str, Any] = json.loads(out)
    return answer


def _child(arguments: argparse.Namespace) -> None:
    """Compute the matrix of the recovery benchmark, on a cluster or alone."""
    # On a busy machine, threads that wait for each other would burn what they wait for.
    torch.set_num_threads(1)
    networks = stacked_networks(arguments.networks, arguments.cells, arguments.seed)
    seen: list[tuple[str, int, int]] = []
    with contextlib.ExitStack() as stack:
        executor = arguments.address and stack.enter_context(RayExecutor(arguments.address))
        counting = _Counting(executor)
        stacked_metric().gram_store(
            networks,
            arguments.child,
            executor=counting,
            progress=lambda *event: seen.append(event),
        )
    print(json.dumps({"computed": counting.computed.get("networks", 0)}))


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


def _wait_for_worker(task: str, driver: "subprocess.Popen[str] | None" = None) -> int:
    while not (found := busy_workers(task)):
        if driver is not None and driver.poll() is not None:
            msg = "the driver ended before a worker was seen at work"
            raise RuntimeError(msg)
        time.sleep(0.005)
    return found[0]


# --- a search whose workers are killed ------------------------------------------------------------


def search(settings: Settings) -> Report:
    """Kill one of four workers again and again; look at the record."""
    import ray

    report = Report(
        "cluster-search",
        "does a search lose or repeat evaluations when workers are killed?",
        {
            "evaluations": settings.evaluations,
            "workers": 4,
            "kill_every": settings.kill_every,
            "seed": settings.seed,
        },
    )
    space = ht.spaces.NASBenchMacro()
    strategy = HOTNAS(
        space, generator=torch.Generator().manual_seed(settings.seed), model_options={"learn": []}
    )
    kills: list[dict[str, Any]] = []
    started = time.perf_counter()

    def kill(_: Trial) -> None:
        nonlocal finished
        finished += 1
        if finished % settings.kill_every == 0 and finished < settings.evaluations:
            pid = _wait_for_worker("_evaluate")
            os.kill(pid, signal.SIGKILL)
            seconds = time.perf_counter() - started
            kills.append({"finished": finished, "worker": pid, "seconds": seconds})

    finished = 0
    with tempfile.TemporaryDirectory() as name, two_nodes(num_cpus=2) as address:
        storage = Path(name) / "search.sqlite"
        with RayExecutor(address) as executor:
            result = run(
                strategy,
                slow_value,
                budget=settings.evaluations,
                workers=4,
                asynchronous=True,
                storage=storage,
                progress=kill,
                executor=executor,
            )
        assert not ray.is_initialized()
        with Storage(storage, read_only=True) as store:
            trials, asked = store.trials(space), store.num_trials
    seconds = time.perf_counter() - started
    values = {trial.number: trial.value for trial in trials}
    right = sum(trial.value == 1.0 + trial.network.spec.count("0") for trial in trials)
    report.tables.append(
        Table(
            "kills",
            f"Workers killed by signal 9 in a search of {settings.evaluations} evaluations,"
            f" {seconds:,.0f} s",
            (
                Column("finished", "evaluations finished", number()),
                Column("worker", "process killed"),
                Column("seconds", "s", number()),
            ),
            kills,
        )
    )
    report.claims += [
        Claim(
            "workers killed", ">=", (settings.evaluations - 1) // settings.kill_every, len(kills)
        ),
        Claim("evaluations in the record", ">=", settings.evaluations, len(values)),
        Claim("asked for and not in the record", "<=", 0, asked - len(values)),
        Claim(
            "networks in the record twice", "<=", 0, len(trials) - len({t.network for t in trials})
        ),
        Claim("failed or with another value than the objective's", "<=", 0, len(trials) - right),
        Claim("told to the strategy", ">=", settings.evaluations, len(strategy.observations)),
    ]
    assert len(result.trials) == len(trials)
    return report


# --- what Ray costs -------------------------------------------------------------------------------


class _Timed:
    """Blocks that add up the processor seconds of solving, in a file per process."""

    def __init__(self, blocks: Blocks, folder: Path) -> None:
        self._blocks, self._folder = blocks, folder

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
        """Processor seconds inside the solvers."""
        return sum(
            float(line) for path in self._folder.iterdir() for line in path.read_text().split()
        )


def overhead(settings: Settings) -> Report:
    """One matrix in this process with two threads, and on two nodes of one processor each."""
    report = Report(
        "cluster-overhead",
        "what does Ray cost beside computing in one process?",
        {
            "space": "nasbench201",
            "networks": settings.overhead_networks,
            "rounds": settings.rounds,
            "seed": settings.seed,
        },
    )
    metric, networks = cell_problem(settings.overhead_networks, settings.seed)
    torch.set_num_threads(2)
    rows: list[dict[str, Any]] = []
    for turn in range(settings.rounds):
        rows.append(_turn("one process", turn, metric, networks, None))
        with two_nodes(num_cpus=1) as address, RayExecutor(address) as executor:
            rows.append(_turn("Ray", turn, metric, networks, executor))
    report.tables.append(
        Table(
            "turns",
            f"Matrix of {settings.overhead_networks:,} NAS-Bench-201 networks into a store",
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


# --- the command ----------------------------------------------------------------------------------

PARTS = {"recovery": recovery, "search": search, "overhead": overhead}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print tables, and write JSON and Markdown.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        0, or 1 if a claim is not met.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default all")
    parser.add_argument("--output", type=Path, default=Path("runs/bench"), metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="small problems")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    for name in ("networks", "cells", "seed"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child is not None:
        _child(arguments)
        return 0
    for name in arguments.parts:
        if name not in PARTS:
            parser.error(f"no part {name!r}; there are {', '.join(PARTS)}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    logging.getLogger("ray").setLevel(logging.ERROR)
    met = True
    for name in arguments.parts or PARTS:
        with Load() as load:
            report = PARTS[name](QUICK if arguments.quick else Settings())
        report.load = load
        report.write(arguments.output)
        print(report.markdown(), flush=True)
        met &= all(claim.met for claim in report.claims)
    return 0 if met else 1


if __name__ == "__main__":
    # Under its own name, so that worker processes find what they are sent.
    from benchmarks import cluster

    sys.exit(cluster.main())
