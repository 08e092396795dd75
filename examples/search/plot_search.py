"""
A search, interrupted and resumed
=================================

With `storage`, a search survives whatever happens to the machine.
"""

import tempfile
from pathlib import Path

import torch

import hotnas_torch as ht

# %%
space = ht.spaces.NASBench201()
file = Path(tempfile.mkdtemp()) / "search.sqlite"


def strategy():
    return ht.search.HOTNAS(space, generator=torch.Generator().manual_seed(0))


calls = []


def objective(net):
    calls.append(net)
    if len(calls) == 17:
        raise KeyboardInterrupt  # somebody presses Ctrl-C
    return 10.0 - net.spec.count("conv_3x3") - 0.5 * net.spec.count("skip_connect")


# %%
# It stops in the middle.

try:
    ht.search.run(strategy(), objective, budget=40, storage=file, progress=False)
except KeyboardInterrupt:
    print(f"{len(calls)} evaluations were begun")

# %%
# The same call goes on where it was, and ends as if nothing had happened.

result = ht.search.run(strategy(), objective, budget=40, storage=file, progress=False)
whole = ht.search.run(strategy(), objective, budget=40, progress=False)
print(
    len(result.trials),
    "trials;",
    "as without the interruption:",
    bool((result.values == whole.values).all()),
)

# %%
figure = ht.plot.plot_trace(result.values, num_initial=10)
