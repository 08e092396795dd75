"""A search space whose rows are points, for tests that draw them at random."""

import torch
from torch import Tensor

from benchmarks.peers.record import reached
from hotnas_torch.gp import LandmarkKernel
from hotnas_torch.spaces import NASBenchMacro

__all__ = ["Points", "count_covariances"]


_PERIOD = 1.25
"""Tests like 0 and 1 for two different points."""


class Points(NASBenchMacro):
    """NAS-Bench-Macro with a network at every point: column j holds every dim-th choice.

    Points that are near each other stand for networks that share their first choices, points a
    period apart for the same network.

    Args:
        dim: Columns of a row, 1 to 8.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self._choices = len(self._columns)
        self._columns = tuple(f"x{column}" for column in range(dim))

    def _check_rows(self, X: Tensor) -> Tensor:
        values = X.detach().to("cpu", torch.float64)
        values = values / _PERIOD
        left = values - values.floor()
        rows = torch.empty(len(values), self._choices, dtype=torch.int64)
        for choice in range(self._choices):
            column = choice % self.dim
            scaled = 3 * left[:, column]
            rows[:, choice] = scaled.floor().clamp(0, 2)
            left[:, column] = scaled - scaled.floor()
        return rows


def count_covariances() -> None:
    """Let every covariance that a kernel of ours computes count as reaching us."""
    forward = LandmarkKernel.forward

    def counted(self: LandmarkKernel, *args: object, **kwargs: object) -> Tensor:
        reached(type(self).__name__)
        return forward(self, *args, **kwargs)

    LandmarkKernel.forward = counted
