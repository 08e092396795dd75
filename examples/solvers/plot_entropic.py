"""
Entropy: from sharp to blurred couplings
========================================

`ht.ot.sinkhorn` regularises transport by the entropy of the plan; `ht.ot.sinkhorn_divergence`
takes the bias out of its value.
"""

import matplotlib.pyplot as plt
import torch

import hotnas_torch as ht

# %%
# Two histograms on a line.

place = torch.linspace(0, 1, 60, dtype=torch.float64)


def bumps(*centres):
    mass = sum(torch.exp(-((place - centre) ** 2) / 0.005) for centre in centres)
    return mass / mass.sum()


a, b = bumps(0.2, 0.5), bumps(0.4, 0.85)
cost = (place[:, None] - place).square()

# %%
# The smaller epsilon, the closer the plan is to that of exact transport.

figure, axes = plt.subplots(1, 4, figsize=(11, 3))
for shown, epsilon in zip(axes, (0.1, 0.01, 0.001), strict=False):
    plan = ht.ot.sinkhorn(cost, a, b, epsilon=epsilon).plan
    shown.imshow(plan.sqrt(), cmap="Blues")
    shown.set(title=f"epsilon = {epsilon}", xticks=[], yticks=[])
axes[3].imshow(ht.ot.transport(cost, a, b).plan.sqrt(), cmap="Blues")
axes[3].set(title="exact", xticks=[], yticks=[])
figure.tight_layout()

# %%
# The regularised value of two equal histograms is not zero; the divergence is.

shifts = torch.linspace(-0.3, 0.3, 31, dtype=torch.float64)
moved = torch.stack([bumps(0.5 + float(shift)) for shift in shifts])
fixed = bumps(0.5).expand(31, 60)
costs = cost.expand(31, 60, 60)
plain = ht.ot.sinkhorn(costs, fixed, moved, epsilon=0.05)
exact = ht.ot.transport(costs, fixed, moved)
debiased = ht.ot.sinkhorn_divergence(costs, costs, costs, fixed, moved, epsilon=0.05)

figure, axes = plt.subplots(figsize=(5, 3))
axes.plot(shifts, exact.objective, label="exact")
axes.plot(shifts, plain.objective, label="Sinkhorn")
axes.plot(shifts, debiased.objective, "--", label="divergence")
axes.set(xlabel="shift", ylabel="cost")
axes.legend()
figure.tight_layout()
