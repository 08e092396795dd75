"""A small cluster of one head and two worker nodes, all on this machine."""

import logging
from collections.abc import Iterator

import pytest

ray = pytest.importorskip("ray")


@pytest.fixture(scope="package")
def cluster() -> Iterator[str]:
    """Address of a running cluster; the program is connected to it."""
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **memory})
    try:
        nodes.add_node(num_cpus=2, **memory)
        # Ray takes our word for the GPU.
        nodes.add_node(num_cpus=1, num_gpus=1, **memory)
        ray.init(address=nodes.address, log_to_driver=False, logging_level=logging.ERROR)
        yield nodes.address
    finally:
        ray.shutdown()
        nodes.shutdown()
