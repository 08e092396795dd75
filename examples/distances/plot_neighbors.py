"""
Nearest networks, five distances
================================

HOTNN, OTMANN, the edit distance, tree-Wasserstein and Weisfeiler-Lehman, beside each other.
"""

import matplotlib.pyplot as plt
import torch

import hotnas_torch as ht

# %%
space = ht.spaces.NASBench201()
networks = space.sample(60, generator=torch.Generator().manual_seed(1), distinct=True)
matrices = {
    name: ht.distances.get(name, space=space)(networks).double() for name in ht.distances.NAMES
}

# %%
# How far they agree: rank correlations of all pairs.

i, j = torch.triu_indices(60, 60, offset=1)
ranks = torch.stack([matrix[i, j].argsort().argsort().double() for matrix in matrices.values()])
agreement = torch.corrcoef(ranks)

figure, axes = plt.subplots(figsize=(5, 4))
shown = axes.imshow(agreement, vmin=0, vmax=1, cmap="viridis")
axes.set_xticks(range(5), list(matrices), rotation=30, ha="right")
axes.set_yticks(range(5), list(matrices))
for row in range(5):
    for column in range(5):
        axes.text(column, row, f"{agreement[row, column]:.2f}", ha="center", color="white")
figure.colorbar(shown)
figure.tight_layout()
