"""
Several objectives
==================

Error and size at once: a front instead of one best network.
"""

import torch

import hotnas_torch as ht

# %%
# The size of a network is known without training it: it is computed, not modelled.

space = ht.spaces.NASBenchMacro()


def size(net):
    return float(sum((0, 3, 6)[int(layer)] for layer in net.spec))


def measure(net):
    return {"error": 10 + 8 * net.spec.count("0") / 8 + 1 / (1 + net.spec.count("2"))}


# %%
results = {}
for name in ("HOTNAS", "RandomSearch"):
    strategy = getattr(ht.search, name)(
        space,
        generator=torch.Generator().manual_seed(0),
        objectives=("error", "size"),
        known={"size": size},
    )
    results[name] = ht.search.run(strategy, measure, budget=40, batch_size=4, progress=False)
reference = results["RandomSearch"].reference_point
for name, result in results.items():
    print(
        f"{name:12} front of {len(result.front)}, hypervolume {result.hypervolume(reference):.2f}"
    )

# %%
figure = ht.plot.plot_fronts(
    {name: result.values for name, result in results.items()}, labels=("error", "size")
)
