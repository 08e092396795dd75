"""A distance that counts what it computes, on networks that are digits."""

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.distances import KernelTerm, NetworkDistance

SPACE = spaces.NASBenchMacro()


class Digits(NetworkDistance):
    """Sum of the differences of digits, and number of digits that differ; counts pairs."""

    parts = ("sum", "count")
    kernel_terms = (KernelTerm((0,), 1, 1e-2, 1e2), KernelTerm((1,), 2, 1e-1, 1e3))

    def __init__(self, space=SPACE):
        super().__init__(space)
        self.pairs = 0

    def _tables(self, nets):
        return torch.tensor([[int(digit) for digit in net.spec] for net in nets]).double()

    def _values(self, tables, i, j):
        self.pairs += len(i)
        difference = (tables[i] - tables[j]).abs()
        return torch.stack([difference.sum(1), (difference > 0).sum(1)])

    def _pair_bytes(self, _):
        return 256

    def _combine(self, parts):
        return parts.sum(0)


@pytest.fixture
def nets(rng):
    return SPACE.sample(12, generator=rng, distinct=True)


@pytest.fixture
def X(nets):
    return SPACE.encode(nets)
