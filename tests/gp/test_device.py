"""Gaussian processes are computed where their data lie, on a device that records what leaves it."""

import pytest
import torch
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

import hotnas_torch as ht
from hotnas_torch import _ext
from hotnas_torch.gp import HOTNNGP
from tests.generators.far_device import FAR, far_device, near

pytestmark = pytest.mark.ext

TRAINING, TEST = 12, 5


def test_only_rows_and_parameters_leave_the_device(
    monkeypatch: pytest.MonkeyPatch, rng: torch.Generator
) -> None:
    monkeypatch.setattr(_ext, "serves", lambda device: bool(device))
    space = ht.spaces.NASBench201()
    X = space.encode(space.sample(TRAINING + TEST, generator=rng))
    Y = torch.rand(TRAINING, 1, dtype=torch.float64, generator=rng)

    def posterior(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        model = HOTNNGP(X[:TRAINING].to(device), Y.to(device), space=space).to(device)
        likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
        value = likelihood(model(*model.train_inputs), model.train_targets)
        (slope,) = torch.autograd.grad(value, model.covar_module.base_kernel.raw_lam)
        found = model.posterior(X[TRAINING:].to(device))
        return found.mean, found.variance, slope

    expected = posterior(torch.device("cpu"))
    with far_device() as moved:
        found = posterior(FAR)
    for got, wanted in zip(found, expected, strict=True):
        assert got.device == FAR
        torch.testing.assert_close(near(got), wanted, rtol=1e-9, atol=1e-9)
    # networks are read from rows on the host; a distance matrix would have a square of them
    rows = {1, TRAINING * space.dim, TEST * space.dim, (TRAINING + TEST) * space.dim}
    assert {count for dtype, count in moved if dtype.is_floating_point} <= rows
