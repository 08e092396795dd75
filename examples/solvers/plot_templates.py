"""
A layer of template graphs
==========================

`ht.nn.FGWTemplates` turns a batch of graphs into their distances to templates that are learned with
the rest of a model.
"""

import matplotlib.pyplot as plt
import networkx as nx
import torch
from torch import nn

import hotnas_torch as ht

# %%
# Two kinds of graphs that have the same sizes and numbers of edges: rings of communities, and
# random ones.


def make(number):
    if number % 2:
        return nx.connected_watts_strogatz_graph(12, 4, 0.05, seed=number)
    return nx.gnm_random_graph(12, 24, seed=number)


def adjacency(graph):
    return torch.tensor(nx.to_numpy_array(graph), dtype=torch.float32)


graphs = torch.stack([adjacency(make(number)) for number in range(120)])
kinds = torch.arange(120) % 2

# %%
# Four templates of six nodes and a linear layer, trained end to end.

generator = torch.Generator().manual_seed(0)
layer = ht.nn.FGWTemplates(4, 6, generator=generator)
with torch.random.fork_rng():
    torch.manual_seed(0)
    head = nn.Linear(4, 2)
optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.03)
losses = []
for _ in range(60):
    loss = nn.functional.cross_entropy(head(layer(graphs[:80])), kinds[:80])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
with torch.no_grad():
    right = (head(layer(graphs[80:])).argmax(1) == kinds[80:]).double().mean()
print(f"accuracy on graphs that were not trained on: {right:.2f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(7, 3))
axes[0].plot(losses)
axes[0].set(xlabel="step", ylabel="loss")
with torch.no_grad():
    found = layer(graphs[80:])
axes[1].scatter(found[:, 0], found[:, 1], c=kinds[80:], cmap="coolwarm", s=15)
axes[1].set(xlabel="distance to template 0", ylabel="to template 1")
figure.tight_layout()
