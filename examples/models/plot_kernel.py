"""
A Gaussian process on architectures
===================================

`ht.gp.HOTNNGP` is a BoTorch model: it is fitted by marginal likelihood, and learns the distance
too.
"""

import matplotlib.pyplot as plt
import torch
from botorch.fit import fit_gpytorch_mll
from gpytorch.mlls import ExactMarginalLogLikelihood

import hotnas_torch as ht

# %%
# Forty networks to learn from, two hundred to predict. The value is made up: convolutions help,
# and more where skip connections go around them.

space = ht.spaces.NASBench201()
networks = space.sample(240, generator=torch.Generator().manual_seed(0), distinct=True)
X = space.encode(networks)


def value(net):
    big, small, skips = (net.spec.count(n) for n in ("conv_3x3", "conv_1x1", "skip_connect"))
    return 1 - math_exp(-(0.5 * big + 0.3 * small) * (1 + 0.3 * skips))


def math_exp(x):
    return float(torch.tensor(x, dtype=torch.float64).exp())


Y = torch.tensor([[value(net)] for net in networks], dtype=torch.float64)
model = ht.gp.HOTNNGP(X[:40], Y[:40], space=space)
mll = fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))

# %%
with torch.no_grad():
    posterior = model.posterior(X[40:])
mean, deviation = posterior.mean[:, 0], posterior.variance[:, 0].sqrt()

figure, axes = plt.subplots(figsize=(4.5, 4))
axes.errorbar(Y[40:, 0], mean, yerr=2 * deviation, fmt="o", ms=3, alpha=0.5)
axes.plot([0, 1], [0, 1], color="gray", lw=1)
axes.set(xlabel="value", ylabel="predicted, two standard deviations")
figure.tight_layout()
