"""
Read a benchmark's file
=======================

Published benchmarks are files with a line per architecture. `ht.objectives` reads them as they are
published; a table of one's own is a CSV file, or a DataFrame of pandas.
"""

import csv
import tempfile
from pathlib import Path

import torch

import hotnas_torch as ht

# %%
# A table of one's own: the string of a network and what was measured of it, here made up.

space = ht.spaces.NASBench201()
networks = space.sample(400, generator=torch.Generator().manual_seed(0), distinct=True)
file = Path(tempfile.mkdtemp()) / "measured.csv"
with file.open("w", newline="") as stream:
    lines = csv.writer(stream)
    lines.writerow(["arch", "accuracy", "latency_ms"])
    for network in networks:
        large, small = network.spec.count("conv_3x3"), network.spec.count("conv_1x1")
        accuracy = 90.0 + large + 0.6 * small + 0.5 * network.spec.count("skip_connect")
        lines.writerow([network.spec, accuracy, 2.0 + 1.1 * large + 0.4 * small])

# %%
# Larger accuracies are better, so values are negative ones; other columns are metrics. What
# is wrong with a file is refused with its line, before a search begins.

table = ht.objectives.Table(file, "accuracy", space=space)
print(table(networks[0]))
try:
    ht.objectives.Table(file, "acuracy", space=space)
except ht.errors.TableError as error:
    print(str(error).replace(str(file), "measured.csv"))

# %%
# A search among the networks of the table: a subset of the space.

measured = ht.spaces.Subset(space, networks)
strategy = ht.search.RegularizedEvolution(measured, generator=torch.Generator().manual_seed(0))
result = ht.search.run(strategy, table, budget=120, progress=False)
values = sorted(table(network).value for network in networks)
print(f"{result.best.value} is number {1 + values.index(result.best.value)} of {len(values)}")
figure = ht.plot.plot_trace(result.values, label="- accuracy (smaller is better)")

# %%
# Tables that are published have names, and their columns units: each value is an error or a cost.
# The library holds none of the files; `sha256=` makes sure of the version::
#
#     ht.objectives.NASBench201Table("nb201.csv.gz", "cifar100_test", sha256="...")

columns = ht.objectives.NASBench201Table.known_columns
print("NAS-Bench-201:", ", ".join(columns))
