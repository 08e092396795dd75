"""
A hierarchy learned from distances
==================================

Architectures are clustered into a tree, and a Monte-Carlo search goes down in it.
"""

import torch

import hotnas_torch as ht
from hotnas_torch.hierarchy import Schedule, TreeSampler, cluster, prefix_distances

# %%
# All 36 positions of poolings in a network of ten layers.

space = ht.spaces.Pooling()
networks = list(space)
distances = prefix_distances(networks, ht.HOTNN(space=space))
tree = cluster(distances)
figure = ht.plot.plot_hierarchy(tree, distances, labels=[net.spec for net in networks])

# %%
# Rewards steer the sampler towards branches that are worth it.

sampler = TreeSampler(tree, schedule=Schedule())
generator = torch.Generator().manual_seed(0)
rewards = torch.tensor([net.downsampling.count(1) / 10 for net in networks])
seen = []
for step in range(300):
    sampler.set_progress(step / 300)
    drawn = sampler.sample(1, generator=generator)
    sampler.update(drawn, rewards[drawn])
    seen.append(1 - float(rewards[drawn]))
print("found", networks[int(sampler.best(1, generator=generator))].spec)
figure = ht.plot.plot_trace(seen, label="1 - reward")
