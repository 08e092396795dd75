"""
Constraints
===========

The most accurate network among those that are fast enough, where how fast is measured with the
error.
"""

import torch

import hotnas_torch as ht

# %%
space = ht.spaces.NASBench201()


def measure(net):
    big, small = net.spec.count("conv_3x3"), net.spec.count("conv_1x1")
    return {"accuracy": 60 + 5 * big + 3 * small, "latency": 1 + 1.0 * big + 0.4 * small}


strategy = ht.search.HOTNAS(
    space,
    generator=torch.Generator().manual_seed(0),
    objectives={"accuracy": "maximize"},
    constraints=["latency <= 4"],
)
result = ht.search.run(strategy, measure, budget=40, batch_size=4, progress=False)
print(result.best.network.spec, measure(result.best.network))

# %%
# Crosses are networks that are too slow.

feasible = [trial.outcome.metrics["latency"] <= 4 for trial in result.trials]
figure = ht.plot.plot_trace(
    [trial.outcome.metrics["accuracy"] for trial in result.trials],
    num_initial=10,
    direction="maximize",
    feasible=feasible,
    label="accuracy",
)
