"""
Why two networks are alike
==========================

A distance can be taken apart: which operations of two cells correspond, what each costs.
"""

import torch

import hotnas_torch as ht

# %%
# Two cells of NAS-Bench-101 and the coupling of their operations.

space = ht.spaces.NASBench101()
first, second = space.sample(2, generator=torch.Generator().manual_seed(3), distinct=True)
matching = ht.IFGW(space=space).matching(first.cells[0], second.cells[0])
figure = ht.plot.plot_cell_matching(matching, titles=("first", "second"))

# %%
# The same between all cells of the two networks.

hotnn = ht.HOTNN(space=space)
figure = ht.plot.plot_network_matching(hotnn.matching(first, second))
