"""
A generator of networks
=======================

NAGO draws networks from random graphs of random graphs; a few hyperparameters stand for a whole
family.
"""

import torch

import hotnas_torch as ht
from hotnas_torch.nago import HNAG, ThetaSpace

# %%
family, space = HNAG(), ThetaSpace(nodes=(3, 5), mid_nodes=(1, 3))
generator = torch.Generator().manual_seed(0)
rows = space.sample(6, generator=generator)
thetas = space.decode(rows)
networks = [family.sample(theta, generator=generator) for theta in thetas for _ in range(4)]
figure = ht.plot.plot_network(networks[0], title="one of the first family")

# %%
# Networks of one generator are nearer to each other than to others.

hotnn = ht.HOTNN(tree=family.tree, state_scale=family.state_scale)
distances = hotnn(networks)
labels = [f"{number // 4}.{number % 4}" for number in range(24)]
figure = ht.plot.plot_heat_map(distances, labels)
