"""A small cluster of two nodes, both on this machine."""

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

ray = pytest.importorskip("ray")

_ATTEMPTS = 4


@pytest.fixture(scope="package")
def cluster() -> Iterator[str]:
    """Address of a running cluster; the program is connected to it."""
    nodes = _started()
    try:
        ray.init(address=nodes.address, log_to_driver=False, logging_level=logging.ERROR)
        yield nodes.address
    finally:
        ray.shutdown()
        nodes.shutdown()


def _started() -> Any:
    """Ray gives a node half a minute to start, which may be too little on a busy machine."""
    # Else workers are started 15 nicer than this program and starve on a busy machine.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (spelt so by Ray)
    from ray.cluster_utils import Cluster

    options = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    for attempt in range(_ATTEMPTS):
        nodes = Cluster()
        try:
            nodes.add_node(num_cpus=2, **options)
            # Ray takes our word for the GPU.
            nodes.add_node(num_cpus=1, num_gpus=1, **options)
        except Exception:
            nodes.shutdown()
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return nodes
    raise AssertionError
