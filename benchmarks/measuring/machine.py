"""Where and with what a measurement was made, and how busy the machine was meanwhile."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import torch

import hotnas_torch as ht
from hotnas_torch import _ext

__all__ = [
    "Load",
    "core_digest",
    "describe",
    "peak_memory",
    "processors",
    "revision",
    "thread_seconds",
    "versions",
]

_PACKAGES = {
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "POT": "pot",
    "ott-jax": "ott-jax",
    "jax": "jax",
}


def processors() -> int:
    """Return processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Return versions of ours, of Python and of everything that is measured beside it."""
    found = {"hotnas_torch": ht.__version__, "python": platform.python_version()}
    for name, package in _PACKAGES.items():
        try:
            found[name] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def core_digest() -> str | None:
    """Return 16 hex digits of the compiled core's file; None where there is none."""
    core = _ext.path
    return None if core is None else hashlib.sha256(core.read_bytes()).hexdigest()[:16]


@functools.cache
def revision() -> str | None:
    """Name the commit that is measured, `-dirty` where files differ from it; None outside git.

    It is that of the first call: what is committed during a measurement is not what is measured.
    """
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    with contextlib.suppress(OSError):
        done = subprocess.run(
            command, cwd=Path(__file__).parent, check=False, capture_output=True, text=True
        )
        return done.stdout.strip() or None
    return None


def describe() -> dict[str, Any]:
    """Return the machine, as JSON-ready values."""
    config = ht.show_config()
    return {
        "processor": _processor_name(),
        "processors": processors(),
        "memory_gib": round(_physical_memory() / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "compiled_core": config.extension is not None,
        "compiled_core_missing_because": config.extension_reason,
        "instruction_set": config.instruction_set,
        "torch_threads": torch.get_num_threads(),
    }


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, bytes.

    Linux's own count for this program is taken where there is one: `getrusage` of a child process
    starts from what its parent held when it was started.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def thread_seconds() -> dict[str, float]:
    """Return processor seconds of each living thread of this process; empty where nothing tells."""
    seconds = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        # A thread may have ended since it was listed.
        with contextlib.suppress(OSError, ValueError, IndexError):
            seconds[path.parent.name] = int(path.read_text(encoding="ascii").split()[0]) / 1e9
    return seconds


class Load:
    """Processors that other programs kept busy while a `with` block ran.

    Attributes:
        others: Busy processors beside this process and its finished children; None where the
            system does not say.
        wall: Seconds that the block took.
        cpu: Processor seconds that this process and its finished children used.
    """

    others: float | None
    wall: float
    cpu: float

    def __enter__(self) -> Self:
        self._busy = _busy_seconds()
        self._own = _own_seconds()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self._started
        self.cpu = _own_seconds() - self._own
        busy = _busy_seconds()
        self.others = None
        if busy is not None and self._busy is not None and self.wall > 0:
            self.others = max(0.0, (busy - self._busy - self.cpu) / self.wall)


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _busy_seconds() -> float | None:
    """Processor seconds since boot that were not idle, over all processors."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            fields = [int(value) for value in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _, _, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
