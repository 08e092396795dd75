"""
Gradients through a coupling
============================

Values are differentiable in costs, structures, masses and trade-offs. Here a graph is bent by
gradient descent until its distances are those of another one.
"""

import matplotlib.pyplot as plt
import torch

import hotnas_torch as ht

# %%
# The target is a circle of twelve points, known by its pairwise distances alone. We start from
# points drawn at random, and know nothing of which point is to become which.

angles = torch.arange(12, dtype=torch.float64) / 12 * 2 * torch.pi
circle = torch.stack([angles.cos(), angles.sin()], dim=1)
generator = torch.Generator().manual_seed(0)
points = torch.randn(12, 2, generator=generator, dtype=torch.float64).requires_grad_()
target = torch.cdist(circle, circle)
nothing = torch.zeros(12, 12, dtype=torch.float64)

# %%
# One call per step: the value, and its gradient in the structure, by the envelope theorem.

optimizer = torch.optim.Adam([points], lr=0.03)
values, snapshots = [], []
for step in range(301):
    structure = (points[:, None] - points).square().sum(-1).clamp_min(1e-12).sqrt()
    result = ht.ot.fgw(nothing, structure, target, alpha=1.0, loss="l2", num_starts=2)
    values.append(result.objective.item())
    if step % 100 == 0:
        snapshots.append(points.detach().clone())
    optimizer.zero_grad()
    result.objective.backward()
    optimizer.step()

# %%
# The points have found the circle, up to a rotation.

figure, axes = plt.subplots(1, 5, figsize=(11, 2.4))
for shown, found, step in zip(axes, snapshots, (0, 100, 200, 300), strict=False):
    shown.scatter(*found.T, s=20)
    shown.set(title=f"step {step}", aspect="equal", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5))
axes[4].semilogy(values)
axes[4].set(title="distance")
figure.tight_layout()
