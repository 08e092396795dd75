"""
Methods compared
================

The same budget for several strategies, on a function that is quick to compute.
"""

import torch

import hotnas_torch as ht

# %%
space = ht.spaces.NASBenchMacro()


def error(net):
    wide = [int(layer) for layer in net.spec]
    return sum(
        (2 - layer) * weight for layer, weight in zip(wide, (1, 1, 2, 1, 3, 1, 1, 2), strict=True)
    )


METHODS = {
    "HOTNAS": ht.search.HOTNAS,
    "NAS-BOWL": ht.search.NASBOWL,
    "evolution": ht.search.RegularizedEvolution,
    "local search": ht.search.LocalSearch,
    "random": ht.search.RandomSearch,
}

# %%
# Three seeds each; regret is what is left to the best of the space.

regrets = {}
for label, method in METHODS.items():
    runs = []
    for seed in range(3):
        strategy = method(space, generator=torch.Generator().manual_seed(seed))
        found = ht.search.run(strategy, error, budget=40, batch_size=4, progress=False)
        runs.append(found.best_so_far)
    regrets[label] = torch.stack([torch.as_tensor(run) for run in runs]).numpy()

figure = ht.plot.plot_regrets({"weighted widths": regrets}, num_initial=10)
