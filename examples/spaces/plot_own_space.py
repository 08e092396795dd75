"""
A search space of one's own
===========================

Choices, and a function that makes a network of them: everything else follows.
"""

import torch

import hotnas_torch as ht

# %%
# A chain of mobile blocks in four stages. Numbers in labels count: a kernel of 3 is nearer to one
# of 5 than to one of 7.

OPTIONS = {"kernel": [3, 5, 7], "expansion": [3, 6], "width": [16, 32, 64], "depth": [1, 2, 3, 4]}


def build(chosen):
    cells, channels, divisors = [], [], []
    for stage in range(4):
        kernel, expansion, width, depth = (chosen[f"{name}{stage}"] for name in OPTIONS)
        block = f"mb[expansion={expansion},kernel={kernel}]"
        cells += [ht.Cell(("input", block, "output"), ((0, 1), (1, 2)))] * depth
        channels, divisors = channels + [width] * depth, divisors + [2**stage] * depth
    return ht.Network.chain(cells, channels, divisors, input_channels=16)


space = ht.spaces.Choices({f"{n}{s}": OPTIONS[n] for s in range(4) for n in OPTIONS}, build)
print(f"{space.size():,} networks")

# %%
# A map of two hundred of them, by number of blocks.

networks = space.sample(200, generator=torch.Generator().manual_seed(0), distinct=True)
distances = ht.HOTNN(space=space)(networks)
figure = ht.plot.plot_map(distances, [net.num_cells for net in networks], label="blocks")

# %%
# A search for one with nine wide blocks and small kernels.


def objective(net):
    chosen = space.to_choices(net)
    kernels = sum(chosen[f"kernel{stage}"] for stage in range(4))
    return abs(net.num_cells - 9) + 0.1 * kernels + 64 / sum(net.channels)


strategy = ht.search.HOTNAS(space, generator=torch.Generator().manual_seed(0))
result = ht.search.run(strategy, objective, budget=30, batch_size=4, progress=False)
print(f"{result.best.value:.3f}", result.best.network.spec)
figure = ht.plot.plot_trace(result.values, num_initial=10)
