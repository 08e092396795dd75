"""A search that takes no time, with measurements and failures whose names are awkward."""

import math

import torch

from hotnas_torch import spaces
from hotnas_torch.objectives import Evaluation
from hotnas_torch.search import RandomSearch


def strategy(space=None, **goal):
    return RandomSearch(
        space or spaces.NASBench201(), generator=torch.Generator().manual_seed(0), **goal
    )


def objective(net):
    size = len(net.spec)
    if net.spec.endswith("none~2|"):
        return Evaluation.failure("<broken> & 'lost' \N{PILE OF POO}")
    return Evaluation(size + 0.25, {"accuracy": 100.0 - size, "<i>": math.pi}, cost=float(size))
