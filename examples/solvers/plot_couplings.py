"""
Couple two graphs
=================

A fused Gromov-Wasserstein coupling says which nodes of two graphs correspond, by what the nodes are
(a ground cost) and by how they are joined (two structure matrices).
"""

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import torch

import hotnas_torch as ht

# %%
# Two graphs: a ring of eight nodes, and the same ring with a tail. Structures are lengths of
# shortest paths; nodes are alike where their degrees are.

ring = nx.cycle_graph(8)
tailed = nx.cycle_graph(8)
nx.add_path(tailed, [0, 8, 9])


def structure(graph):
    return torch.tensor(nx.floyd_warshall_numpy(graph), dtype=torch.float64)


def degrees(graph):
    return torch.tensor([degree for _, degree in graph.degree], dtype=torch.float64)


cost = (degrees(ring)[:, None] - degrees(tailed)).abs()
result = ht.ot.fgw(cost, structure(ring), structure(tailed), alpha=0.5, loss="l1", num_starts=3)
print(f"value {result.objective:.4f}, converged: {bool(result.converged)}")

# %%
# The coupling, drawn: each line carries mass between two nodes.

places = nx.circular_layout(ring)
right = np.array([4.0, 0.0])
beside = {node: place + right for node, place in nx.kamada_kawai_layout(tailed).items()}
figure, axes = plt.subplots(figsize=(7, 3))
nx.draw(ring, places, ax=axes, node_size=80, node_color="tab:blue")
nx.draw(tailed, beside, ax=axes, node_size=80, node_color="tab:orange")
for i, j in result.plan.nonzero().tolist():
    (x0, y0), (x1, y1) = places[i], beside[j]
    axes.plot([x0, x1], [y0, y1], color="gray", alpha=0.7, lw=20 * float(result.plan[i, j]))
axes.set_title("mass that the coupling moves between two graphs")

# %%
# Any number of problems of one shape is one call. Here the trade-off between nodes and structure is
# swept; values and couplings come with a status and a duality gap each.

alphas = torch.linspace(0, 1, 21, dtype=torch.float64)
batch = [item.expand(21, *item.shape) for item in (cost, structure(ring), structure(tailed))]
generator = torch.Generator().manual_seed(0)
swept = ht.ot.fgw(*batch, alpha=alphas, loss="l1", num_starts=50, generator=generator)

figure, axes = plt.subplots(figsize=(5, 3))
axes.plot(alphas, swept.objective, marker="o", ms=3)
axes.set(xlabel="alpha: share of the structure", ylabel="distance")
figure.tight_layout()
