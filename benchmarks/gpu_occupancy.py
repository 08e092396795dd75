"""How many registers and how much memory do the CUDA kernels take, and what occupancy follows?

What the compiler reported. `--output benchmarks/results` writes the committed table anew.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.measuring.report import Column, Report, Table, Unavailable

__all__ = [
    "LIMITS", "ON_REQUEST", "QUICK", "RESULTS", "TILES", "Kernel", "Limits", "Settings", "compiler",
    "kernels", "lanes_for", "occupancy", "parse_report", "read_table", "run", "tile_for",
]  # fmt: skip

ON_REQUEST = "needs the reports of make cuda"
RESULTS = Path(__file__).parent / "results" / "gpu_occupancy.json"
"""The committed table, which tests hold against the build."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is tabulated.

    Attributes:
        reports: Folder where the build keeps the compiler's reports.
    """

    reports: str = "build/dev/cuda-report"


QUICK = Settings()


@dataclass(frozen=True, slots=True)
class Limits:
    """What one multiprocessor can hold (CUDA C++ programming guide, compute capabilities).

    Attributes:
        warps: Resident warps.
        blocks: Resident blocks.
        registers: 32-bit registers.
        shared: Bytes of shared memory.
    """

    warps: int
    blocks: int
    registers: int
    shared: int

    @property
    def shared_of_block(self) -> int:
        """Bytes of shared memory that one block can ask for."""
        return self.shared - _SHARED_RESERVED


_SHARED_RESERVED = 1024  # of every block, by the driver

LIMITS = {
    "sm_80": Limits(64, 32, 65536, 164 * 1024),
    "sm_86": Limits(48, 16, 65536, 100 * 1024),
    "sm_89": Limits(48, 24, 65536, 100 * 1024),
    "sm_90": Limits(64, 32, 65536, 228 * 1024),
    "sm_100": Limits(64, 32, 65536, 228 * 1024),
    "sm_120": Limits(48, 24, 65536, 100 * 1024),
}
SAME_CODE = {"sm_80": ("sm_86", "sm_89")}
"""GPUs that run the code of another architecture."""

TILES = (8, 16, 32, 64)
"""Nodes of a side up to which a kernel has problems share a block."""

_REGISTER_UNIT = 256  # registers are handed out to a warp in such lots
_WARP_UNIT = 4  # warps get registers in fours
_SHARED_UNIT = 128


def tile_for(nodes: int) -> int:
    """Return which of `TILES` takes problems of so many nodes."""
    return next(most for most in TILES if nodes <= most)


def lanes_for(nodes: int) -> int:
    """Return how many threads work on a problem of so many nodes, up to 64."""
    return min(tile_for(nodes), 32)


def occupancy(limits: Limits, *, threads: int, registers: int, shared: int) -> float:
    """Compute the share of a multiprocessor's warps that can be resident.

    Args:
        limits: The multiprocessor.
        threads: Threads of a block.
        registers: Registers of a thread.
        shared: Bytes of shared memory of a block.

    Returns:
        In [0, 1].
    """
    warps = -(-threads // 32)
    lot = -(-registers * 32 // _REGISTER_UNIT) * _REGISTER_UNIT
    by_registers = limits.registers // lot // _WARP_UNIT * _WARP_UNIT // warps
    block = -(-(shared + _SHARED_RESERVED) // _SHARED_UNIT) * _SHARED_UNIT
    blocks = min(limits.blocks, limits.warps // warps, by_registers, limits.shared // block)
    return blocks * warps / limits.warps


def threads_of_block(limits: Limits, *, threads: int, registers: int, lanes: int, near: int) -> int:
    """Return with how many threads a kernel is launched: whole warps, and most of them resident.

    Args:
        limits: The multiprocessor.
        threads: Threads that the kernel is compiled for.
        registers: Registers of a thread.
        lanes: Threads per problem.
        near: Bytes of shared memory per problem.
    """
    fitting = limits.shared_of_block // max(near, 1) * lanes // 32 * 32
    return max(
        range(min(threads, fitting), 0, -32),
        key=lambda size: occupancy(
            limits, threads=size, registers=registers, shared=near * size // lanes
        ),
    )


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the compiler says of one kernel.

    Attributes:
        operator: Name of the operator, such as `"Fgw"`.
        dtype: `"float32"` or `"float64"`.
        nodes: Most nodes of a side; None for those of larger problems, a block for each.
        architecture: Such as `"sm_90"`.
        registers: Per thread.
        stack: Bytes per thread.
        spills: Bytes stored to and loaded from the stack for want of registers.
        shared: Bytes of shared memory fixed by the compiler.
    """

    operator: str
    dtype: str
    nodes: int | None
    architecture: str
    registers: int
    stack: int
    spills: int
    shared: int


_ENTRY = re.compile(
    r"Compiling entry function '\w*?(?:tiles|blocks)INS\w_\d+([A-Z]\w*?)ItemI([fd])EE(?:Li(\d+)E)?"
    r".*?' for '(sm_\d+)'.*?"
    r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
    r"Used (\d+) registers([^\n]*)",
    re.DOTALL,
)


def parse_report(text: str) -> list[Kernel]:
    """Read what `ptxas -v` printed."""
    found = []
    for match in _ENTRY.finditer(text):
        operator, kind, nodes, architecture, stack, stores, loads, registers, rest = match.groups()
        shared = re.search(r"(\d+) bytes smem", rest)
        found.append(
            Kernel(
                operator=operator,
                dtype="float32" if kind == "f" else "float64",
                nodes=int(nodes) if nodes else None,
                architecture=architecture,
                registers=int(registers),
                stack=int(stack),
                spills=int(stores) + int(loads),
                shared=int(shared[1]) if shared else 0,
            )
        )
    return found


def kernels(folder: Path) -> list[dict[str, str]]:
    """Tabulate the kernels of a build, with their occupancy.

    Args:
        folder: Where the build keeps the compiler's reports: `cuda-report`.

    Returns:
        A row per kernel and GPU that runs it, of the columns of the table: the fields of `Kernel`,
        `threads` of a block, `shared` memory of a block, `global` memory per problem, both in
        bytes, and `occupancy`. The memory of blocks that work on one problem depends on its size:
        `-`.
    """
    layout = {}
    for line in torch.ops.hotnas.cuda_kernels().splitlines():
        operator, bits, nodes, threads, near, far = line.split()
        layout[operator, f"float{bits}", int(nodes)] = int(threads), int(near), int(far)
    rows: list[dict[str, str]] = []
    for report in sorted(folder.glob("*.txt")):
        for kernel in parse_report(report.read_text(encoding="utf-8")):
            for gpu in (kernel.architecture, *SAME_CODE.get(kernel.architecture, ())):
                limits = LIMITS[gpu]
                shared, threads, far = kernel.shared, 128, "-"
                if kernel.nodes is not None:
                    lanes = lanes_for(kernel.nodes)
                    threads, near, bytes_far = layout[kernel.operator, kernel.dtype, kernel.nodes]
                    threads = threads_of_block(
                        limits,
                        threads=threads,
                        registers=kernel.registers,
                        lanes=lanes,
                        near=near,
                    )
                    shared += near * threads // lanes
                    far = str(bytes_far)
                share = occupancy(
                    limits, threads=threads, registers=kernel.registers, shared=shared
                )
                row = {name: str(getattr(kernel, name)) for name in Kernel.__dataclass_fields__}
                row |= {"architecture": gpu, "threads": str(threads)}
                row |= {"shared": str(shared), "global": far}
                row |= {"nodes": "more" if kernel.nodes is None else str(kernel.nodes)}
                rows.append(row | {"occupancy": f"{share:.0%}"})
    order = [*map(str, TILES), "more"]
    return sorted(
        rows,
        key=lambda r: (r["architecture"], r["dtype"], r["operator"], order.index(r["nodes"])),
    )


def compiler(folder: Path) -> str:
    """Name the compiler of a build, with its version."""
    return (folder / "compiler.txt").read_text(encoding="utf-8").strip()


def run(settings: Settings) -> Report:
    """Tabulate the kernels of a build.

    Raises:
        Unavailable: It has no reports.
    """
    folder = Path(settings.reports)
    if not (folder / "compiler.txt").is_file():
        raise Unavailable(f"{folder} has no reports of the CUDA compiler (make cuda)")
    rows = kernels(folder)
    columns = [Column(name, name) for name in rows[0]]
    name = compiler(folder)
    report = Report(tables=[Table("kernels", "CUDA kernels", columns, rows)])
    report.tables.append(
        Table("compiler", "Compiled by", [Column("name", "compiler")], [{"name": name}])
    )
    return report


def read_table(path: Path = RESULTS) -> tuple[str, list[dict[str, str]]]:
    """Read what the command wrote: the compiler's name and the rows of `kernels`."""
    tables = json.loads(path.read_text(encoding="utf-8"))["tables"]
    return tables["compiler"][0]["name"], tables["kernels"]
