"""How many pairs per second should a GPU reach, by counted instructions and bytes?

No measurement of a GPU: the counts are on record in `COUNTS`, and made anew with `--nvcc PATH`.

What is counted: every instruction of the compiled kernels, in PTX, on random problems, as
`tests.csrc.ptx` runs them; also the cycles of a warp that is alone on its multiprocessor.
Registers and memory are those of the committed table of `benchmarks.gpu_occupancy`.

Assumptions, on the slow side where we could not know:

- Instructions of PTX count as they are; the assembler merges some of them, above all moves and the
  addresses of neighbours.
- The groups of a warp either never run together, so that each instruction works for one problem,
  or always, so that a warp does at each place what its slowest group does there. What is predicted
  is the range between the two.
- Schedulers issue in `UTILISATION` of their cycles at best.
- A warp starts instructions in order, each when its operands are there (`tests.csrc.ptx.CYCLES`),
  and every access to global memory takes as long as the second-level cache. Warps hide each other's
  waits and nothing else does.
- Every access to a row of global memory moves whole sectors of 32 bytes through the second-level
  cache, as if no level before it held anything. The part of what all resident problems touch that
  exceeds this cache comes from memory, each time.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.gpu_occupancy import LIMITS, lanes_for, occupancy, read_table, tile_for
from benchmarks.measuring.report import Column, Report, Table, number
from tests.csrc.ptx import Memory, Program, Tally, compile_kernels, structure

__all__ = ["COUNTS", "GPUS", "QUICK", "Counts", "Gpu", "Settings", "count", "predict", "run"]

UTILISATION = 0.6
_SECTOR = 32
_NEAR = 16 * 1024
"""Bytes of shared memory that any of these problems has to itself when counting."""
_PROBLEMS = {8: 16, 11: 8, 20: 2}
"""Problems to average over when counting, by nodes."""
_ENDLESS = 10**9
"""Instructions of all threads before counting gives up; bounds of 20 nodes take 148 million."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is computed.

    Attributes:
        nvcc: The CUDA compiler, to count again; None takes the counts on record.
    """

    nvcc: str | None = None


QUICK = Settings()


@dataclass(frozen=True, slots=True)
class Gpu:
    """Published figures of a GPU.

    Attributes:
        architecture: Such as `"sm_90"`.
        multiprocessors: Streaming multiprocessors, of 4 schedulers each.
        clock: Sustained clock in Hz.
        cache: Bytes of the second-level cache.
        cache_rate: Bytes per second of the second-level cache.
        memory_rate: Bytes per second of the memory.
    """

    architecture: str
    multiprocessors: int
    clock: float
    cache: float
    cache_rate: float
    memory_rate: float


GPUS = {
    "A100": Gpu("sm_80", 108, 1.41e9, 40e6, 4.0e12, 2.0e12),
    "H100": Gpu("sm_90", 132, 1.755e9, 50e6, 5.5e12, 3.35e12),
    "H200": Gpu("sm_90", 132, 1.755e9, 50e6, 5.5e12, 4.8e12),
}


@dataclass(frozen=True, slots=True)
class Counts:
    """What one problem takes, on average.

    Attributes:
        instructions: Instructions of a warp.
        cycles: Cycles of a warp that is alone.
        accesses: Loads and stores of global memory.
        touched: Bytes of global memory, each counted once.
        shared_instructions: Instructions of a warp whose groups stay together, over its groups.
        shared_cycles: Cycles of such a warp, likewise.
    """

    instructions: int
    cycles: int
    accesses: int
    touched: int
    shared_instructions: int
    shared_cycles: int


COUNTS = {
    ("Fgw", 8): Counts(29819, 273220, 1266, 4698, 10398, 92875),
    ("Fgw", 11): Counts(51124, 409269, 2089, 11064, 30341, 236859),
    ("Fgw", 20): Counts(108452, 757030, 4304, 35472, 108452, 757030),
    ("Transport", 8): Counts(2763, 26026, 81, 880, 859, 7403),
    ("Transport", 11): Counts(3941, 34417, 90, 1468, 2172, 18270),
    ("Transport", 20): Counts(7076, 57264, 122, 4096, 7076, 57264),
    ("Sinkhorn", 8): Counts(6797, 51935, 103, 748, 2247, 15913),
    ("Sinkhorn", 11): Counts(8946, 68864, 141, 1548, 5077, 37747),
    ("Sinkhorn", 20): Counts(9562, 87780, 231, 4828, 9562, 87780),
    ("EntropicTransport", 8): Counts(8539, 82152, 260, 1076, 2690, 23507),
    ("EntropicTransport", 11): Counts(11498, 110361, 360, 2148, 6332, 58385),
    ("EntropicTransport", 20): Counts(14207, 161479, 612, 6644, 14207, 161479),
    ("UnbalancedSinkhorn", 8): Counts(8451, 79811, 229, 1004, 2286, 21147),
    ("UnbalancedSinkhorn", 11): Counts(9903, 93938, 272, 2060, 5164, 48404),
    ("UnbalancedSinkhorn", 20): Counts(12286, 125516, 379, 5852, 12286, 125516),
    ("KlTransport", 8): Counts(19117, 145198, 253, 1008, 6597, 49083),
    ("KlTransport", 11): Counts(34366, 260731, 421, 2036, 17760, 133789),
    ("KlTransport", 20): Counts(91336, 715722, 1182, 6432, 91336, 715722),
    ("SemirelaxedFgw", 8): Counts(38516, 374659, 3728, 3784, 11153, 108182),
    ("SemirelaxedFgw", 11): Counts(83619, 737045, 8428, 8040, 45108, 397848),
    ("SemirelaxedFgw", 20): Counts(360928, 2898712, 37822, 26728, 360928, 2898712),
    ("EntropicFgw", 8): Counts(158648, 1302862, 16129, 3832, 45515, 371883),
    ("EntropicFgw", 11): Counts(361218, 2855766, 38713, 8468, 189106, 1493672),
    ("EntropicFgw", 20): Counts(1447086, 11123266, 160301, 28840, 1447086, 11123266),
    ("LowerBound", 8): Counts(232608, 1735584, 3477, 2220, 59552, 441226),
    ("LowerBound", 11): Counts(659628, 4749438, 8623, 5204, 331839, 2385265),
    ("LowerBound", 20): Counts(4632540, 31672054, 49321, 18012, 4632540, 31672054),
    ("CellDistances", 8): Counts(47904, 441751, 2049, 5045, 14018, 129643),
    ("CellDistances", 11): Counts(73979, 582659, 3046, 11268, 46672, 365560),
    ("CellDistances", 20): Counts(268842, 1739872, 10884, 37146, 268842, 1739872),
    ("NetworkDistances", 8): Counts(3731, 38665, 103, 400, 933, 9666),
    ("NetworkDistances", 11): Counts(5575, 53816, 127, 552, 2788, 26908),
    ("NetworkDistances", 20): Counts(12631, 106612, 199, 976, 12631, 106612),
    ("FgwBackward", 8): Counts(34024, 617382, 3380, 2632, 8506, 154346),
    ("FgwBackward", 11): Counts(94426, 1650849, 8870, 6036, 47213, 825424),
    ("FgwBackward", 20): Counts(624682, 10329234, 54104, 20968, 624682, 10329234),
}
"""By operator and nodes of both sides, as `count` found them."""


def predict(
    gpu: Gpu,
    operator: str,
    nodes: int,
    table: Mapping[tuple[str, int], Counts] = COUNTS,
) -> dict[str, float | str]:
    """Predict a rate.

    Args:
        gpu: The GPU.
        operator: One of those in `table`.
        nodes: Nodes of both sides, likewise.
        table: What a problem takes.

    Returns:
        Pairs per second if one resource alone mattered and the groups of a warp never ran together
        (`issue`, `latency`, `cache`, `memory`), the least of them as `pairs_per_second` and its
        name as `bound`; `at_best` and `bound_at_best`, the same where they always do.
    """
    counts, lanes = table[operator, nodes], lanes_for(nodes)
    wanted = {"operator": operator, "dtype": "float32", "nodes": str(tile_for(nodes))}
    wanted["architecture"] = gpu.architecture
    kernel = next(row for row in read_table()[1] if wanted.items() <= row.items())
    limits = LIMITS[gpu.architecture]
    share = occupancy(
        limits,
        threads=int(kernel["threads"]),
        registers=int(kernel["registers"]),
        shared=int(kernel["shared"]),
    )
    warps = gpu.multiprocessors * limits.warps * share
    moved = counts.accesses * max(_SECTOR, 4 * lanes)
    resident = warps * 32 / lanes * counts.touched
    missed = max(0.0, 1 - gpu.cache / resident)
    issued = gpu.multiprocessors * 4 * gpu.clock * UTILISATION
    of_memory = {
        "cache": gpu.cache_rate / moved,
        "memory": gpu.memory_rate / (missed * moved + counts.touched),
    }
    apart, together = (
        {"issue": issued / instructions, "latency": warps * gpu.clock / cycles} | of_memory
        for instructions, cycles in (
            (counts.instructions, counts.cycles),
            (counts.shared_instructions, counts.shared_cycles),
        )
    )
    bound, at_best = (min(rates, key=rates.__getitem__) for rates in (apart, together))
    found: dict[str, float | str] = {"pairs_per_second": apart[bound], "bound": bound}
    found |= {"at_best": together[at_best], "bound_at_best": at_best}
    return apart | found


def count(nvcc: Path, operator: str, nodes: int, problems: int) -> Counts:
    """Count what random problems take: directed pairs, absolute loss, one start, even masses.

    Args:
        nvcc: The CUDA compiler.
        operator: Such as `"Fgw"`; networks have three kinds of cells.
        nodes: Nodes of both sides.
        problems: How many to average over.

    Raises:
        subprocess.CalledProcessError: The kernel does not compile.
    """
    rng = torch.Generator().manual_seed(0)
    lanes = lanes_for(nodes)
    groups = 32 // lanes
    program = Program(compile_kernels(nvcc, operator, "float"), f"ELi{tile_for(nodes)}EE")
    totals = [0.0] * len(Counts.__dataclass_fields__)
    for _ in range(problems):
        content = [torch.rand(groups, nodes, nodes, generator=rng) for _ in range(3)]
        alone = _run(program, operator, [part[:1] for part in content], range(lanes))
        warp = _run(program, operator, content, range(32))
        totals[0] += alone[0].instructions
        totals[1] += alone[0].cycles
        totals[2] += alone[0].kinds["ld.global"] + alone[0].kinds["st.global"]
        totals[3] += 4 * alone[1].touched
        totals[4] += warp[0].instructions / groups
        totals[5] += warp[0].cycles / groups
    return Counts(*(round(total / problems) for total in totals))


def _run(
    program: Program, operator: str, content: list[Tensor], threads: range
) -> tuple[Tally, Memory]:
    """Solve one problem per group of lanes; `content` is costs and structures (groups, n, n)."""
    memory = Memory()
    lanes = lanes_for(content[0].shape[1])

    def array(tensor: Tensor) -> tuple[str, int]:
        return "P", memory.upload(bytes(tensor.numpy().tobytes()))

    arguments = _arguments(operator, content, array)
    # every thread of a warp has its place, whether it has a problem or not
    near, far = _NEAR + 4 * lanes % 128, 512 * 1024
    space = array(torch.zeros(32 // lanes * far, dtype=torch.uint8))
    values = [structure(*arguments), struct.pack("q", len(content[0]))]
    values += [struct.pack("QQ", near, far), structure(space), structure(("P", 0))]
    shared = near * (32 // lanes)
    tally = program.run(memory, values, threads=threads, shared=shared, steps=_ENDLESS)
    return tally, memory


def _arguments(
    operator: str, content: list[Tensor], array: Callable[[Tensor], tuple[str, int]]
) -> list[object]:
    """Return the values of an operator's structure in `csrc/core/arguments.h`, results as zeros."""
    items, nodes, _ = content[0].shape

    def zeros(*shape: int) -> tuple[str, int]:
        return array(torch.zeros(items, *shape))

    def counting(count: int) -> tuple[str, int]:
        return array(torch.arange(items * nodes).view(items, nodes) % count)

    inf, null = math.inf, ("P", 0)
    cost, x, y = map(array, content)
    even = array(torch.full((items, nodes), 1 / nodes))
    alpha = array(torch.full((items,), 0.5))
    plan, f, g = zeros(nodes, nodes), zeros(nodes), zeros(nodes)
    value, gap, iterations, status = (zeros() for _ in range(4))
    which, labels = array(torch.arange(items)), counting(3)
    table = array(1 - torch.eye(3))
    transport = [nodes, nodes, cost, even, even]
    graphs = [nodes, nodes, cost, x, y, even, even, alpha]
    starts = [null, null, 0, 0, 1, 1, 1e-4, 100]
    cell = [("q", items), nodes, labels, even, x, even]
    network = [("q", items), nodes, labels, even, even]
    return {
        "Transport": [nodes, nodes, 0, cost, even, even, plan, value, f, g, iterations, status],
        "Sinkhorn": [*transport, 0.1, 1e-4, 100, f, g, gap, iterations, status],
        "EntropicTransport": [*transport, 0.1, 1e-4, 100,
                              plan, value, zeros(), f, g, gap, iterations, status],
        "UnbalancedSinkhorn": [*transport, 0.1, 0.3, 0.3, 0, 1e-4, 100,
                               f, g, gap, iterations, status],
        "KlTransport": [*transport, 0.3, inf, 1e-4, 100,
                        plan, value, f, g, gap, iterations, status],
        "Fgw": [*graphs, *starts, 0, plan, value, f, g, gap, iterations, status],
        "SemirelaxedFgw": [*graphs, *starts, plan, value, f, gap, iterations, status],
        "EntropicFgw": [*graphs, null, 0.1, 0, 1, 0, 1e-4, 20, 1e-4, 100,
                        plan, f, g, gap, iterations, status],
        "FgwBackward": [nodes, nodes, array(torch.full((items, nodes, nodes), nodes**-2.0)), x, y,
                        alpha, 0, 1, zeros(nodes, nodes), zeros(nodes, nodes), value],
        "LowerBound": [*graphs, 0, 1, value],
        "CellDistances": [*cell, *cell[:4], y, even, table, 3, 1, which, which, ("f", 0.5),
                          0, 1, 0, 1, 0, null, 1e-4, 100, value, gap, iterations, status],
        "NetworkDistances": [*network, *network, table, ("q", 3), ("q", 3), 1, which, which, value],
    }[operator]  # fmt: skip


def run(settings: Settings) -> Report:
    """Predict, from the counts on record or from new ones."""
    counts = COUNTS
    if settings.nvcc is not None:
        nvcc = Path(settings.nvcc)
        counts = {key: count(nvcc, *key, _PROBLEMS[key[1]]) for key in COUNTS}
    rows = [
        {"operator": operator, "nodes": nodes, "gpu": name, **predict(gpu, operator, nodes, counts)}
        for operator, nodes in counts
        for name, gpu in GPUS.items()
    ]
    columns = (
        Column("operator", "operator"),
        Column("nodes", "n", number()),
        Column("gpu", "GPU"),
        Column("pairs_per_second", "pairs/s, groups apart", number(2)),
        Column("bound", "bound by"),
        Column("at_best", "together", number(2)),
        Column("bound_at_best", "bound by"),
    )
    counted = [
        {"operator": operator, "nodes": nodes, **asdict(one)}
        for (operator, nodes), one in counts.items()
    ]
    of_counts = [Column(name, name, number()) for name in Counts.__dataclass_fields__]
    return Report(
        tables=[
            Table("rates", "Predicted rates, float32", columns, rows),
            Table("counts", "Per problem", (*columns[:2], *of_counts), counted),
        ],
    )
