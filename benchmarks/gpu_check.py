"""``make gpu-check``: tests, sanitizer and rates of the CUDA kernels on the GPU of this machine."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hotnas_torch as ht
from benchmarks.gpu_model import GPUS, predict
from benchmarks.machine import versions
from hotnas_torch.ops import fgw

__all__ = ["main"]

SIZES = (8, 11, 20)
PAIRS = 200_000
SMALL_TESTS = "8-8 or 9-7 or graph or outside"


def run(command: list[str]) -> dict[str, Any]:
    """Run a part of the check; return whether it passed and the end of what it said."""
    environment = os.environ | {"HOTNAS_REQUIRE_CUDA": "1", "HOTNAS_REQUIRE_EXT": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return {"passed": done.returncode == 0, "output": (done.stdout + done.stderr)[-4000:]}


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Median time of a call on the device, after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return sorted(times)[repeats // 2]


def problems(n: int, pairs: int) -> tuple[Tensor, ...]:
    """Random directed problems as in ``python -m benchmarks speed``."""
    rng = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng).cuda()

    mass = torch.full((pairs, n), 1 / n, device="cuda")
    alpha = torch.full((pairs,), 0.5, device="cuda")
    return draw(pairs, n, n), draw(pairs, n, n), draw(pairs, n, n), mass, mass, alpha


def pairs_per_second(n: int) -> float:
    """Rate of the fused solver, one start per pair."""
    arguments = problems(n, PAIRS)
    none = arguments[0].new_empty(0)
    return PAIRS / seconds(lambda: fgw(*arguments, none, none, 0, 1, 1, 1e-4, 100, backend="ext"))


def pot_pairs_per_second(n: int) -> float | None:
    """Rate of POT's batched solver on the same GPU (square loss), where it is installed."""
    try:
        from ot.batch import solve_gromov_batch
    except ImportError:
        return None
    cost, x, y, a, b, _ = (tensor[:4096] for tensor in problems(n, 4096))
    return 4096 / seconds(
        lambda: solve_gromov_batch(x, y, M=cost, a=a, b=b, alpha=0.5, epsilon=0.01), repeats=2
    )


def gram_seconds(count: int) -> float:
    """Time of the distances between so many NAS-Bench-201 networks."""
    space = ht.spaces.NASBench201()
    networks = space.sample(count, generator=torch.Generator().manual_seed(0))
    distance = ht.HOTNN(space=space, device="cuda")
    distance(networks[:50])
    started = time.perf_counter()
    distance(networks)
    torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> int:
    """Run everything; exit status 1 when a test or the sanitizer fails, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--networks", type=int, default=10_000)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to check", file=sys.stderr)
        return 2
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "versions": versions(),
        "config": str(ht.show_config()),
        "tests": run([*pytest, "-m", "cuda"]),
    }
    if sanitizer := shutil.which("compute-sanitizer"):
        small = [*pytest, "tests/ops/test_cuda.py", "-m", "cuda", "-k", SMALL_TESTS]
        for tool in ("memcheck", "racecheck", "synccheck"):
            found[tool] = run([sanitizer, "--tool", tool, "--error-exitcode", "1", *small])
    model = next((name for name in GPUS if name in found["device"]), None)
    found["rates"] = [
        {
            "n": n,
            "pairs_per_second": pairs_per_second(n),
            "predicted": predict(GPUS[model], "Fgw", n)["pairs_per_second"] if model else None,
            "pot_pairs_per_second": pot_pairs_per_second(n),
        }
        for n in SIZES
    ]
    found["gram_seconds"] = {str(arguments.networks): gram_seconds(arguments.networks)}
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "gpu-check.json").write_text(json.dumps(found, indent=1) + "\n")
    lines = ["| n | pairs/s | predicted | POT |", "|---:|---:|---:|---:|"]
    for row in found["rates"]:
        cells = [row[key] for key in ("pairs_per_second", "predicted", "pot_pairs_per_second")]
        shown = ["-" if value is None else f"{value:,.0f}" for value in cells]
        lines.append(f"| {row['n']} | {' | '.join(shown)} |")
    (arguments.output / "gpu-check.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    failed = [
        name
        for name in ("tests", "memcheck", "racecheck", "synccheck")
        if not found.get(name, {"passed": True})["passed"]
    ]
    for name in failed:
        print(f"{name} failed:\n{found[name]['output']}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
