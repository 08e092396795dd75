"""Registers and memory of the CUDA kernels, as the compiler reports them; their occupancy."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["LIMITS", "Kernel", "Limits", "kernels", "occupancy", "parse_report"]


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


LIMITS = {
    "sm_80": Limits(64, 32, 65536, 164 * 1024),
    "sm_90": Limits(64, 32, 65536, 228 * 1024),
    "sm_100": Limits(64, 32, 65536, 228 * 1024),
}

_REGISTER_UNIT = 256  # registers are handed out to a warp in such lots
_WARP_UNIT = 4  # warps get registers in fours
_SHARED_UNIT = 128
_SHARED_RESERVED = 1024  # of every block, by the driver


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


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the compiler says of one kernel.

    Attributes:
        operator: Name of the operator, such as ``"Fgw"``.
        dtype: ``"float32"`` or ``"float64"``.
        lanes: Threads per problem; None where a block works on one problem.
        architecture: Such as ``"sm_90"``.
        registers: Per thread.
        stack: Bytes per thread.
        spills: Bytes stored to and loaded from the stack for want of registers.
        shared: Bytes of shared memory fixed by the compiler.
    """

    operator: str
    dtype: str
    lanes: int | None
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
    """Read what ``ptxas -v`` printed."""
    found = []
    for match in _ENTRY.finditer(text):
        operator, kind, lanes, architecture, stack, stores, loads, registers, rest = match.groups()
        shared = re.search(r"(\d+) bytes smem", rest)
        found.append(
            Kernel(
                operator=operator,
                dtype="float32" if kind == "f" else "float64",
                lanes=int(lanes) if lanes else None,
                architecture=architecture,
                registers=int(registers),
                stack=int(stack),
                spills=int(stores) + int(loads),
                shared=int(shared[1]) if shared else 0,
            )
        )
    return found


def kernels(reports: Iterable[Path]) -> list[dict[str, object]]:
    """Tabulate the kernels of a build, with their occupancy.

    Args:
        reports: Files that the build keeps in ``cuda-report``, one per operator and type.

    Returns:
        A row per kernel and architecture: the fields of `Kernel`, ``threads`` of a block,
        ``shared_per_problem`` and ``global_per_problem`` in bytes (None for blocks that work on
        one problem, whose memory depends on its size) and ``occupancy``.
    """
    layout = {}
    for line in torch.ops.hotnas.cuda_kernels().splitlines():
        operator, bits, lanes, threads, near, far = line.split()
        layout[operator, f"float{bits}", int(lanes)] = int(threads), int(near), int(far)
    rows: list[dict[str, object]] = []
    for report in sorted(reports):
        for kernel in parse_report(report.read_text(encoding="utf-8")):
            lanes = kernel.lanes
            near: int | None
            if lanes is None:
                threads, near, far, shared = 128, None, None, kernel.shared
            else:
                threads, near, far = layout[kernel.operator, kernel.dtype, lanes]
                shared = kernel.shared + near * threads // lanes
            rows.append(
                {
                    **{name: getattr(kernel, name) for name in Kernel.__dataclass_fields__},
                    "threads": threads,
                    "shared_per_problem": near,
                    "global_per_problem": far,
                    "occupancy": occupancy(
                        LIMITS[kernel.architecture],
                        threads=threads,
                        registers=kernel.registers,
                        shared=shared,
                    ),
                }
            )
    return rows
