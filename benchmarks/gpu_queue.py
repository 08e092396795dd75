"""How long do a GPU's last groups work when the others are done: items by turns, or from a queue?

No measurement of a GPU. The kernels of distances between cells are interpreted (`tests.csrc.ptx`)
on pairs of a space, which says what cycles a pair takes by its iterations (`CYCLES`; `--nvcc PATH`
finds them anew). The processor's core counts the iterations of all pairs of a block of cells, and a
simulation hands them out, in their order, to the groups that an H100 holds at once.

By turns, a group takes every k-th item; from a queue, it takes the next that nobody has. The groups
of a warp either part, each at its own pace, or stay together, so that a warp waits for its slowest
group and then goes on: a GPU does something in between. The ideal is all work shared out evenly.
"""

import heapq
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import hotnas_torch as ht
from benchmarks.gpu_model import GPUS
from benchmarks.gpu_occupancy import LIMITS, read_table
from benchmarks.measuring.report import Column, Report, Table, Unavailable, number
from hotnas_torch.arch import Cell
from hotnas_torch.spaces import SearchSpace
from tests.csrc.ptx import Memory, Program, compile_kernels, structure

__all__ = ["CYCLES", "QUICK", "Settings", "makespans", "run"]

SPACES: dict[str, type[SearchSpace]] = {
    "nasbench201": ht.spaces.NASBench201,
    "nasbench101": ht.spaces.NASBench101,
}
CHOICES = {"spaces": tuple(SPACES)}
LANES = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """What is simulated.

    Attributes:
        spaces: Where the cells come from.
        sides: Cells of a side of a block; all its pairs are one launch.
        gpu: One of `benchmarks.gpu_model.GPUS`.
        nvcc: The CUDA compiler, to interpret again; None takes the cycles on record.
        interpreted: Pairs of a space that are interpreted then.
        seed: Of the sample.
    """

    spaces: tuple[str, ...] = ("nasbench201", "nasbench101")
    sides: tuple[int, ...] = (110, 512, 1000)
    gpu: str = "H100"
    nvcc: str | None = None
    interpreted: int = 40
    seed: int = 0


QUICK = Settings(spaces=("nasbench201",), sides=(110, 512))


@dataclass(frozen=True, slots=True)
class Line:
    """Cycles of a pair of cells, alone in its warp, by its iterations.

    Attributes:
        start: Of a pair without iterations.
        each: Of an iteration.
        explained: Share of the variance between pairs that the line explains.
    """

    start: float
    each: float
    explained: float


CYCLES = {
    "nasbench201": Line(-65_982.0, 60_570.0, 0.954),
    "nasbench101": Line(-11_283.0, 37_382.0, 0.954),
}
"""As `cycles_by_iterations` found them."""


class _Calls(TorchDispatchMode):
    """Keeps what the operator of cells was given, and what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[tuple[Any, ...], tuple[Tensor, ...]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is torch.ops.hotnas.cell_distances.default:
            self.calls.append((args, found))
        return found


def alike_cells(space: SearchSpace, count: int, seed: int) -> list[Cell]:
    """Return distinct cells of the size that most cells of a space have, in random order."""
    rng = torch.Generator().manual_seed(seed)
    found: dict[bytes, Cell] = {}
    drawn = 0
    while True:
        sizes = Counter(cell.num_nodes for cell in found.values())
        size, members = max(sizes.items(), key=lambda item: item[1], default=(0, 0))
        if members >= count:
            return [cell for cell in found.values() if cell.num_nodes == size][:count]
        if drawn > 60 * count:
            raise Unavailable(f"{space} has no {count} cells of one size among {drawn} networks")
        for network in space.sample(count, generator=rng):
            for cell in network.cells:
                found.setdefault(cell.key, cell.canonical())
        drawn += count


def solved(space: SearchSpace, cells: Sequence[Cell], side: int) -> _Calls:
    """Return the calls that compare `side` cells with `side` others."""
    calls = _Calls()
    with calls:
        ht.IFGW(space=space)(cells[:side], cells[side : 2 * side])
    return calls


def makespans(work: NDArray[np.float64], groups: int, of_warp: int) -> dict[str, float]:
    """Simulate one launch.

    Args:
        work: Time of every item, in the order of the launch.
        groups: Groups that work at once, whole warps of them.
        of_warp: Groups of a warp.

    Returns:
        Times until the last item is done, over that of work shared out evenly: `turns` and `queue`
        where the groups of a warp part, `turns_together` and `queue_together` where they do not.
    """
    ideal = work.sum() / groups

    def in_turns(items: NDArray[np.float64], workers: int) -> float:
        rounds = np.zeros(-(-len(items) // workers) * workers)
        rounds[: len(items)] = items
        return float(rounds.reshape(-1, workers).sum(0).max())

    def from_queue(items: NDArray[np.float64], workers: int) -> float:
        done = items[:workers].tolist()
        heapq.heapify(done)
        for item in items[workers:].tolist():
            heapq.heapreplace(done, done[0] + item)
        return max(done)

    whole = np.zeros(-(-len(work) // of_warp) * of_warp)
    whole[: len(work)] = work
    slowest = whole.reshape(-1, of_warp).max(1)
    return {
        "turns": in_turns(work, groups) / ideal,
        "queue": from_queue(work, groups) / ideal,
        "turns_together": in_turns(slowest, groups // of_warp) / ideal,
        "queue_together": from_queue(slowest, groups // of_warp) / ideal,
    }


def resident_groups(gpu: str) -> int:
    """Return how many pairs of up to 8 nodes a GPU works on at once, float32."""
    model = GPUS[gpu]
    wanted = {"operator": "CellDistances", "dtype": "float32", "nodes": str(LANES)}
    wanted["architecture"] = model.architecture
    kernel = next(row for row in read_table()[1] if wanted.items() <= row.items())
    share = float(kernel["occupancy"].rstrip("%")) / 100
    warps = round(model.multiprocessors * LIMITS[model.architecture].warps * share)
    return warps * 32 // LANES


def cycles_by_iterations(
    nvcc: Path, calls: Sequence[tuple[tuple[Any, ...], tuple[Tensor, ...]]], pairs: int
) -> Line:
    """Interpret pairs, evenly spaced among those of the calls, and fit a line.

    Raises:
        subprocess.CalledProcessError: The kernel does not compile.
    """
    program = Program(compile_kernels(nvcc, "CellDistances", "float"), f"ELi{LANES}EE")
    found = []
    for args, (_, _, iterations, _) in calls:
        share = -(-pairs * len(iterations) // sum(len(out[2]) for _, out in calls))
        for pair in range(0, len(iterations), -(-len(iterations) // share)):
            found.append((int(iterations[pair]), _interpreted(program, args, pair)))
    x, y = np.array(found, dtype=np.float64).T
    each, start = np.polyfit(x, y, 1)
    return Line(float(start), float(each), float(np.corrcoef(x, y)[0, 1] ** 2))


def _interpreted(program: Program, args: tuple[Any, ...], pair: int) -> int:
    """Cycles of one pair of a call."""
    *tables, x, y = (tensor.contiguous() for tensor in args[:11])
    memory, null = Memory(), ("P", 0)

    def array(tensor: Tensor) -> tuple[str, int]:
        return "P", memory.upload(tensor.numpy().tobytes())

    def side(first: int, which: Tensor) -> list[object]:
        labels, *others = (tensor[which] for tensor in tables[first : first + 4])
        return [("q", 1), labels.shape[1], *map(array, (labels, *others))]

    alpha, loss, pairs, literal, starts = args[11:16]
    tol, max_iter = args[17:19]
    near, far, none = 16 * 1024, 512 * 1024, torch.zeros(1, dtype=torch.int64)
    arguments = [*side(0, x[pair : pair + 1]), *side(4, y[pair : pair + 1]), array(tables[8])]
    arguments += [len(tables[8]), tables[1].shape[2], array(none), array(none), ("f", alpha)]
    arguments += [loss, pairs, literal, starts, 0, null, tol, max_iter]
    arguments += [array(torch.zeros(1)) for _ in range(4)]
    space = array(torch.zeros(far, dtype=torch.uint8))
    values = [structure(*arguments), struct.pack("q", 1), struct.pack("QQ", near, far)]
    values += [structure(space), structure(null)]
    return program.run(memory, values, threads=range(LANES), shared=near).cycles


def run(settings: Settings) -> Report:
    """Simulate."""
    groups = resident_groups(settings.gpu)
    rows, lines = [], []
    for name in settings.spaces:
        space = SPACES[name]()
        cells = alike_cells(space, 2 * max(settings.sides), settings.seed)
        line = CYCLES[name]
        if settings.nvcc is not None:
            some = solved(space, cells, min(settings.sides)).calls
            line = cycles_by_iterations(Path(settings.nvcc), some, settings.interpreted)
        lines.append({"space": name, "nodes": cells[0].num_nodes, "start": line.start,
                      "each": line.each, "explained": line.explained})  # fmt: skip
        for side in settings.sides:
            calls = solved(space, cells, side).calls
            counted = torch.cat([found[2] for _, found in calls]).double().numpy()
            work = line.start + line.each * counted
            rows.append({"space": name, "pairs": len(work), "per_group": len(work) / groups,
                         "spread": float(work.max() / work.mean()),
                         **makespans(work, groups, 32 // LANES)})  # fmt: skip
    columns = (
        Column("space", "space"),
        Column("pairs", "pairs", number()),
        Column("per_group", "pairs per group", number()),
        Column("spread", "largest over mean", number()),
        Column("turns", "by turns", number()),
        Column("queue", "from a queue", number()),
        Column("turns_together", "by turns, warps together", number()),
        Column("queue_together", "from a queue, warps together", number()),
    )
    of_lines = (
        Column("space", "space"),
        Column("nodes", "n", number()),
        Column("start", "cycles of a pair", number()),
        Column("each", "and of an iteration", number()),
        Column("explained", "share of variance explained", number()),
    )
    title = f"Time over that of work shared out evenly, {settings.gpu}, {groups:,} groups"
    return Report(
        tables=[
            Table("makespan", title, columns, rows),
            Table("cycles", "Cycles of a pair alone in its warp, interpreted", of_lines, lines),
        ]
    )
