"""Pairs per second that a GPU should reach, from counted instructions and bytes: no measurement.

    python -m benchmarks.gpu_model                                # the table
    python -m benchmarks.gpu_model --count build/dev/count_main   # count instructions (valgrind)

What is counted: instructions, loads and stores of the CPU kernel on 8 lanes, which is the text and
the lane pattern of the GPU kernel for n <= 8 (larger problems take more lanes there, and fewer
instructions).

Assumptions, all on the slow side where we could not know:

- A GPU needs `EXPANSION` times as many instructions: addresses, operands that a CPU reads from
  memory within an instruction, reductions by shuffles.
- The groups of a warp never run together: each instruction works for one problem.
- Schedulers issue in `UTILISATION` of their cycles at best.
- An instruction waits `LATENCY` cycles for the one before it, the mean of arithmetic (4 to 6),
  shared memory (about 30) and the part of memory that only the second-level cache holds (about
  250).
- Resident warps as the compiler's report has it: 25 % for the solver that keeps atoms, 50 % for the
  others.
- Every load and store of a row moves 32 bytes through the second-level cache, as if no level before
  it held anything; memory itself moves inputs and results once.
"""

import argparse
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["COUNTS", "GPUS", "Gpu", "count", "predict"]

EXPANSION = 1.5
UTILISATION = 0.6
LATENCY = 20.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """Published figures of a GPU.

    Attributes:
        multiprocessors: Streaming multiprocessors, of 4 schedulers each.
        clock: Sustained clock in Hz.
        cache: Bytes per second of the second-level cache.
        memory: Bytes per second of the memory.
    """

    multiprocessors: int
    clock: float
    cache: float
    memory: float


GPUS = {
    "A100": Gpu(108, 1.41e9, 4.0e12, 2.0e12),
    "H100": Gpu(132, 1.755e9, 5.5e12, 3.35e12),
    "H200": Gpu(132, 1.755e9, 5.5e12, 4.8e12),
}


@dataclass(frozen=True, slots=True)
class Counts:
    """What one problem takes on 8 lanes.

    Attributes:
        instructions: Instructions.
        accesses: Loads and stores.
    """

    instructions: float
    accesses: float


COUNTS: dict[tuple[str, int], Counts] = {}
"""By operator and nodes, as `count` found them; see docs/cuda.md for the command."""

_OCCUPANCY = {"transport": 0.5, "sinkhorn": 0.5, "fgw": 0.25}
_MATRICES = {"transport": 2, "sinkhorn": 1, "fgw": 4}  # (n, n) arrays in and out
_WARPS = 64


def predict(gpu: Gpu, nodes: int, operator: str = "fgw") -> dict[str, float | str]:
    """Predict a rate.

    Args:
        gpu: The GPU.
        nodes: Nodes of both sides, one of those in `COUNTS`.
        operator: Name of the operator.

    Returns:
        Pairs per second if one resource alone mattered (``issue``, ``latency``, ``cache``,
        ``memory``), the least of them as ``pairs_per_second`` and its name as ``bound``.
    """
    counted = COUNTS[operator, nodes]
    instructions = EXPANSION * counted.instructions
    warps = gpu.multiprocessors * _WARPS * _OCCUPANCY[operator]
    rates = {
        "issue": gpu.multiprocessors * 4 * gpu.clock * UTILISATION / instructions,
        "latency": warps * gpu.clock / (LATENCY * instructions),
        "cache": gpu.cache / (32 * counted.accesses),
        "memory": gpu.memory / (4 * (_MATRICES[operator] * nodes**2 + 4 * nodes)),
    }
    bound = min(rates, key=lambda name: rates[name])
    return {**rates, "pairs_per_second": rates[bound], "bound": bound}


def count(program: Path, operator: str, nodes: int) -> Counts:
    """Count what one problem takes, by valgrind's counter of instructions.

    Args:
        program: ``count_main`` of a developer build (`make lanes`), on x86 with AVX2.
        operator: Name of the operator.
        nodes: Nodes of both sides.

    Raises:
        subprocess.CalledProcessError: The program or valgrind failed.
    """
    few, many = 100, 300

    def totals(problems: int) -> tuple[int, int]:
        command = ["valgrind", "--tool=lackey", "--basic-counts=yes", "--detailed-counts=yes"]
        done = subprocess.run(
            [*command, str(program), operator, str(nodes), str(problems)],
            capture_output=True,
            text=True,
            check=True,
        )
        said = done.stderr.replace(",", "")
        instructions = re.search(r"guest instrs:\s+(\d+)", said)
        accesses = re.findall(r"^==\d+==\s+(?:I|F|V|D)\S*\s+(\d+)\s+(\d+)", said, re.MULTILINE)
        if instructions is None:
            raise RuntimeError(f"valgrind said nothing about instructions: {said[-400:]}")
        return int(instructions[1]), sum(int(loads) + int(stores) for loads, stores in accesses)

    first, second = totals(few), totals(many)
    instructions, accesses = (
        (after - before) / (many - few) for before, after in zip(first, second, strict=True)
    )
    return Counts(round(instructions), round(accesses))


def main() -> None:
    """Print the table, or count."""
    parser = argparse.ArgumentParser(description="Rates that the model predicts for GPUs.")
    parser.add_argument("--count", type=Path, metavar="PROGRAM", help="count_main of a build")
    arguments = parser.parse_args()
    if arguments.count:
        for operator in _OCCUPANCY:
            for nodes in (8, 11, 20):
                print(f'    ("{operator}", {nodes}): {count(arguments.count, operator, nodes)},')
        return
    print("| operator | n | GPU | pairs/s | bound by |\n|---|---:|---|---:|---|")
    for operator, nodes in COUNTS:
        for name, gpu in GPUS.items():
            found = predict(gpu, nodes, operator)
            rate = float(found["pairs_per_second"])
            print(f"| {operator} | {nodes} | {name} | {rate:,.0f} | {found['bound']} |")


if __name__ == "__main__":
    main()
