"""A pytest plugin that puts HOTNNKernel in the place of GPyTorch's RBFKernel, on points."""

from typing import Any

import gpytorch
import torch

from benchmarks.peers.points import Points, count_covariances
from benchmarks.peers.record import plain
from hotnas_torch.gp import HOTNNKernel

__all__ = ["PointsKernel"]


class PointsKernel(HOTNNKernel):
    """HOTNNKernel with the signature of RBFKernel, on points with one column."""

    def __init__(self, ard_num_dims: int | None = None, **kwargs: Any) -> None:
        landmarks = torch.linspace(0.0, 1.0, 12)[:-1, None]
        super().__init__(Points(ard_num_dims or 1), landmarks=landmarks, **kwargs)


def pytest_configure() -> None:
    """Take RBFKernel's place before the tests import it."""
    torch.set_num_threads(1)
    count_covariances()
    if not plain():
        gpytorch.kernels.RBFKernel = PointsKernel
