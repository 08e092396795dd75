"""
On a Ray cluster
================

`RayExecutor` computes the tiles of a matrix, and evaluates the networks of a search, as tasks on a
cluster; here on one that this machine starts for itself.
"""

import logging
import os
import time

import ray
import torch

import hotnas_torch as ht
from hotnas_torch.integrations.ray import RayExecutor

# %%
# A cluster of one machine, which listens to itself alone. In earnest it runs already, and
# ``RayExecutor("HOST:6379")`` is all.

os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (spelt so by Ray)
_ = ray.init(
    num_cpus=2,
    include_dashboard=False,
    log_to_driver=False,
    logging_level=logging.ERROR,
    object_store_memory=80 * 2**20,
    _node_ip_address="127.0.0.1",
)
executor = RayExecutor()

# %%
# Distances are those of one process, to the bit.

space = ht.spaces.NASBench201()
networks = space.sample(120, generator=torch.Generator().manual_seed(0), distinct=True)
metric = ht.HOTNN(space=space)
distances = metric(networks, executor=executor)
print("equal to the bit:", torch.equal(distances, metric(networks)))
figure = ht.plot.plot_heat_map(distances)

# %%
# A search with four evaluations at once: the strategy is asked whenever one has finished.


def objective(net):
    time.sleep(0.01)
    return 10.0 - net.spec.count("conv_3x3") - 0.5 * net.spec.count("skip_connect")


strategy = ht.search.RegularizedEvolution(space, generator=torch.Generator().manual_seed(0))
result = ht.search.run(
    strategy,
    objective,
    budget=40,
    workers=4,
    asynchronous=True,
    executor=executor,
    progress=False,
)
print(f"best {result.best.value} of {len(result.trials)}")
figure = ht.plot.plot_trace(result.values)

# %%
executor.close()
ray.shutdown()
