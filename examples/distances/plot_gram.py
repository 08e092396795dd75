"""
A matrix of 2,000 networks
==========================

All distances between 2,000 architectures, as a map and as a tree of what is near to what.
"""

import time

import torch

import hotnas_torch as ht

# %%
# Two million pairs of networks, each a coupling of their cells by couplings of their operations.

space = ht.spaces.NASBench201()
networks = space.sample(2000, generator=torch.Generator().manual_seed(0), distinct=True)
started = time.perf_counter()
distances = ht.HOTNN(space=space)(networks)
print(f"{len(distances)} networks in {time.perf_counter() - started:.1f} s")

# %%
# The first sixty, ordered by a tree of average linkage.

figure = ht.plot.plot_heat_map(distances[:60, :60])

# %%
# A map: networks with more convolutions of size 3 lie apart from those with few.

convolutions = [net.spec.count("nor_conv_3x3") for net in networks[:600]]
figure = ht.plot.plot_map(distances[:600, :600], convolutions, label="3x3 convolutions")
