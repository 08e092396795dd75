"""
What an operation costs is learnable
====================================

Distances are differentiable in the lengths of the operation tree: here they are fitted so that
networks with similar values become near.
"""

import matplotlib.pyplot as plt
import torch

import hotnas_torch as ht

# %%
# Values depend on convolutions of size 3 alone. The tree knows nothing of that.

space = ht.spaces.NASBench201()
networks = space.sample(60, generator=torch.Generator().manual_seed(0), distinct=True)
values = torch.tensor([float(net.spec.count("nor_conv_3x3")) for net in networks])
lengths = {
    label: torch.tensor(float(length), requires_grad=True)
    for label, length in space.tree.lengths.items()
}


def correlation(distances):
    i, j = torch.triu_indices(60, 60, offset=1)
    pair = torch.stack([distances[i, j], (values[i] - values[j]).abs()])
    return torch.corrcoef(pair)[0, 1]


# %%
optimizer = torch.optim.Adam(lengths.values(), lr=0.05)
found = []
for _ in range(25):
    positive = {label: length.clamp_min(1e-3) for label, length in lengths.items()}
    tree = ht.OperationTree(space.tree.parents, positive)
    score = correlation(ht.HOTNN(space=space, tree=tree)(networks))
    optimizer.zero_grad()
    (-score).backward()
    optimizer.step()
    found.append(score.item())

figure, axes = plt.subplots(1, 2, figsize=(9, 3))
axes[0].plot(found)
axes[0].set(xlabel="step", ylabel="correlation with what is to be told")
axes[1].barh(list(lengths), [max(float(length), 0) for length in lengths.values()])
axes[1].set_xlabel("length of the edge above")
figure.tight_layout()
