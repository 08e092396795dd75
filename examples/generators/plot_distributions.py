"""
Shares of operations
====================

ANASOD encodes a network by how often it has each operation: 210 encodings for 15,625 networks of
NAS-Bench-201, and a search in few dimensions.
"""

import torch

import hotnas_torch as ht
from hotnas_torch.spaces.encodings import encoding_of

# %%
space = ht.spaces.NASBench201()
encoding = encoding_of(space)
print(encoding.operations, encoding.num_encodings())

# %%
# A search over the shares, whose networks are drawn from them.


def error(net):
    big, skips = net.spec.count("nor_conv_3x3"), net.spec.count("skip_connect")
    return abs(big - 4) + abs(skips - 1)


strategy = ht.search.ANASODBO(space, generator=torch.Generator().manual_seed(0), num_initial=8)
result = ht.search.run(strategy, error, budget=30, batch_size=4, progress=False)
print(result.best.value, result.best.network.spec)
figure = ht.plot.plot_trace(result.values, num_initial=8)
