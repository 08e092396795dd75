"""Gaussian processes on grids are the ones that GPyTorch knows."""

import gpytorch
import pytest
import torch

from benchmarks.measuring.grid_gp import Factor, exponential, matern, predict


@pytest.fixture
def points(rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(60, 1, generator=rng, dtype=torch.float64)
    noise = 0.05 * torch.randn(60, generator=rng, dtype=torch.float64)
    return x, 3.0 + torch.sin(6.0 * x[:, 0]) + noise


def test_predictions_are_gpytorchs_at_the_chosen_parameters(points) -> None:
    x, y = points
    train, test = torch.arange(45), torch.arange(45, 60)
    factor = matern(x, "x")
    found = predict([factor], y, train, test)
    kernel = factor.matrices[found.chosen[0]]
    noise = 10.0 ** (-4.0 + 0.5 * found.chosen[1])
    among = kernel[:45, :45] + noise * torch.eye(45, dtype=torch.float64)
    inverse = torch.linalg.inv(among)
    mean = inverse.sum(0) @ y[:45] / inverse.sum()
    scale = (y[:45] - mean) @ inverse @ (y[:45] - mean) / 45
    normal = gpytorch.distributions.MultivariateNormal(mean.expand(45), scale * among)
    torch.testing.assert_close(found.mean, mean + kernel[45:, :45] @ inverse @ (y[:45] - mean))
    explained = ((kernel[45:, :45] @ inverse) * kernel[45:, :45]).sum(1)
    torch.testing.assert_close(found.variance, scale * (1.0 - explained + noise))
    for place in range(len(factor.matrices)):
        other = factor.matrices[place][:45, :45] + noise * torch.eye(45, dtype=torch.float64)
        solved = torch.linalg.inv(other)
        m = solved.sum(0) @ y[:45] / solved.sum()
        s = (y[:45] - m) @ solved @ (y[:45] - m) / 45
        rival = gpytorch.distributions.MultivariateNormal(m.expand(45), s * other)
        assert rival.log_prob(y[:45]) <= normal.log_prob(y[:45]) + 1e-9


def test_a_factor_that_matters_is_found(points, rng: torch.Generator) -> None:
    x, y = points
    other = torch.rand(60, 1, generator=rng, dtype=torch.float64)
    distances = [torch.cdist(other, other, p=1.0), torch.cdist(x, x, p=1.0)]
    found = predict([exponential(distances, "d")], y, torch.arange(45), torch.arange(45, 60))
    assert found.chosen[0] == 1
    assert float((found.mean - y[45:]).abs().mean()) < 0.15


def test_exponentials_are_positive_semi_definite(rng: torch.Generator) -> None:
    raw = torch.rand(30, 30, generator=rng, dtype=torch.float64)
    factor: Factor = exponential([(raw + raw.T).fill_diagonal_(0.0)], "d")
    assert factor.axes == (1, 15)
    assert float(torch.linalg.eigvalsh(factor.matrices).min()) > -1e-9
    torch.testing.assert_close(
        factor.matrices.diagonal(dim1=-2, dim2=-1), torch.ones(1, 15, 30, dtype=torch.float64)
    )
