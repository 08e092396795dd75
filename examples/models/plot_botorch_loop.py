"""
A BoTorch loop
==============

Fit, acquire, evaluate: the model and the space drop into a loop as BoTorch's tutorials have it.
"""

import matplotlib.pyplot as plt
import torch
from botorch.acquisition import qLogExpectedImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.optim import optimize_acqf_discrete
from gpytorch.mlls import ExactMarginalLogLikelihood

import hotnas_torch as ht

# %%
space = ht.spaces.NASBench201()
generator = torch.Generator().manual_seed(0)


def evaluate(X):
    nets = space.decode(X)
    counts = [(n.spec.count("conv_3x3"), n.spec.count("skip_connect")) for n in nets]
    return torch.tensor([[big + 1.5 * min(skips, 2)] for big, skips in counts]).double()


X = space.encode(space.sample(8, generator=generator, distinct=True))
Y = evaluate(X)

# %%
best = [float(Y.max())]
for _ in range(8):
    model = ht.gp.HOTNNGP(X, Y, space=space)
    mll = fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    pool = space.encode(space.sample(200, generator=generator, distinct=True))
    with torch.random.fork_rng():  # BoTorch draws from torch's global source of randomness
        torch.manual_seed(0)
        acquisition = qLogExpectedImprovement(model, best_f=Y.max())
        candidates, _ = optimize_acqf_discrete(acquisition, q=2, choices=pool)
    X, Y = torch.cat([X, candidates]), torch.cat([Y, evaluate(candidates)])
    best.append(float(Y.max()))

figure, axes = plt.subplots(figsize=(5, 3))
axes.step(range(8, 8 + 2 * len(best), 2), best, where="post")
axes.set(xlabel="evaluations", ylabel="best value")
figure.tight_layout()
