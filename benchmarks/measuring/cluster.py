"""A Ray cluster of processes on this machine, and its workers."""

import contextlib
import logging
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["busy_workers", "descendants", "processor_seconds", "two_nodes", "wait_for_worker"]

_MEMORY = 256 * 2**20


@contextlib.contextmanager
def two_nodes(*, num_cpus: int) -> Iterator[str]:
    """Start a cluster with two worker nodes, which ends with the block; yield its address."""
    # Otherwise workers give way to everything else on the machine, and so to what they are compared
    # with.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (spelt so by Ray)
    from ray.cluster_utils import Cluster

    logging.getLogger("ray").setLevel(logging.ERROR)
    options = {"object_store_memory": _MEMORY, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=num_cpus, **options)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


def descendants(pid: int) -> list[int]:
    """Find living processes below one, from `/proc`."""
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
    """Find workers below this process that run a task, which Ray puts into their title."""
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
    """Add up the processor seconds of living processes and of their children that have ended."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def wait_for_worker(task: str, driver: "subprocess.Popen[str] | None" = None) -> int:
    """Return the process of a worker that is running a task, once there is one.

    Args:
        task: Name of the function.
        driver: Who started it.

    Raises:
        RuntimeError: The driver ended before.
    """
    while not (found := busy_workers(task)):
        if driver is not None and driver.poll() is not None:
            msg = "the driver ended before a worker was seen at work"
            raise RuntimeError(msg)
        time.sleep(0.005)
    return found[0]
