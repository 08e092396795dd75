"""
Architecture and hyperparameters together
=========================================

The best learning rate depends on the network. `ht.spaces.Joint` searches both at once.
"""

import math

import torch

import hotnas_torch as ht

# %%
# A function in place of a training: each identity layer costs, and the best learning rate falls
# with depth.

space = ht.spaces.NASBenchMacro()
joint = ht.spaces.Joint(space, {"lr": ht.spaces.Log(1e-4, 1.0), "batch": [32, 64, 128]})


def error(point):
    depth = 8 - point.network.spec.count("0")
    rate = math.log10(point.values["lr"]) + 0.4 * depth
    return 8 - depth + rate**2 + 0.2 * (point.values["batch"] != 64)


# %%
results = {}
for name in ("HOTNAS", "RandomSearch"):
    strategy = getattr(ht.search, name)(joint, generator=torch.Generator().manual_seed(0))
    results[name] = ht.search.run(strategy, error, budget=40, batch_size=4, progress=False)
    network, values = results[name].best.network
    print(f"{name:12} {results[name].best.value:.3f} {network.spec} lr={values['lr']:.4f}")

# %%
figure = ht.plot.plot_trace(results["HOTNAS"].values, num_initial=10)
