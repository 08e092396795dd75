"""
The mean of graphs
==================

A barycenter is the graph whose squared distances to given ones are least on average, of any size.
"""

import matplotlib.pyplot as plt
import networkx as nx
import torch

import hotnas_torch as ht

# %%
# Twelve noisy rings of 12 to 18 nodes. Structures are lengths of shortest paths, over the size.

generator = torch.Generator().manual_seed(0)


def noisy_ring(nodes):
    graph = nx.cycle_graph(nodes)
    i, j = torch.randint(nodes, (2,), generator=generator).tolist()
    graph.add_edge(i, (i + 2) % nodes)
    graph.add_edge(j, nodes + 1)
    return nx.convert_node_labels_to_integers(graph)


graphs = [noisy_ring(12 + number % 7) for number in range(12)]
structures = [
    torch.tensor(nx.floyd_warshall_numpy(graph), dtype=torch.float64) / len(graph)
    for graph in graphs
]

# %%
# Their mean with fifteen nodes: neighbours are what is nearest in its structure.

found = ht.ot.fgw_barycenter(structures, nodes=15, num_starts=4)
print("converged:", bool(found.converged))
near = found.struct.clone().fill_diagonal_(torch.inf)
mean = nx.Graph()
for node in range(15):
    for other in near[node].topk(2, largest=False).indices.tolist():
        mean.add_edge(node, other)

figure, axes = plt.subplots(1, 6, figsize=(12, 2.4))
for shown, graph in zip(axes, [*graphs[:5], mean], strict=True):
    color = "tab:orange" if graph is mean else "tab:blue"
    nx.draw_kamada_kawai(graph, ax=shown, node_size=25, node_color=color)
axes[5].set_title("mean")
figure.tight_layout()
