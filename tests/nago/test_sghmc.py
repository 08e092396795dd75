import math

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct
from torch import Tensor

from hotnas_torch.errors import SolverError
from hotnas_torch.nago import sample_sghmc


def regression(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs with a column of ones, and targets with noise of variance 0.09."""
    X = torch.randn(20, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 0.3, 3.0])
    X = torch.cat([X, X.new_ones(20, 1)], dim=1)
    noise = torch.randn(20, generator=generator, dtype=torch.float64)
    return X, X @ X.new_tensor([0.5, -1.0, 0.2, 1.0]) + 0.3 * noise


def predicted(
    X: Tensor, y: Tensor, rng: torch.Generator, batch: int | None, **settings: object
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of predictions at X by samples of the weights' posterior."""

    def gradient(weights: Tensor) -> Tensor:
        if batch is None:
            return weights + (weights @ X.T - y) @ X / 0.09
        places = torch.randint(len(X), (len(weights), batch), generator=rng)
        inputs = X[places]
        misfit = (inputs @ weights[:, :, None]).squeeze(-1) - y[places]
        return weights + len(X) / batch * (misfit[:, None] @ inputs).squeeze(1) / 0.09

    options = {"num_burn_in": 800, "num_samples": 4, "thinning": 100, "step_size": 0.1} | settings
    start = torch.zeros(400, 4, dtype=torch.float64)
    samples = sample_sghmc(gradient, start, generator=rng, **options)
    f = samples.flatten(0, 1) @ X.T
    return f.mean(0), f.std(0)


@pytest.fixture
def known(rng: torch.Generator) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
    # Standard normal weights are a Gaussian process whose kernel is the inner product.
    X, y = regression(rng)
    process = GaussianProcessRegressor(DotProduct(0.0, "fixed"), alpha=0.09, optimizer=None)
    mean, deviation = process.fit(X.numpy(), y.numpy()).predict(X.numpy(), return_std=True)
    return X, y, mean, deviation


def test_samples_have_the_posterior_of_linear_regression(known, rng: torch.Generator) -> None:
    X, y, mean, deviation = known
    found_mean, found_deviation = predicted(X, y, rng, None)
    np.testing.assert_allclose(found_mean.numpy(), mean, atol=0.15 * deviation.max())
    np.testing.assert_allclose(found_deviation.numpy(), deviation, rtol=0.12)


def test_what_mini_batches_add_is_taken_away(known, rng: torch.Generator) -> None:
    X, y, _, deviation = known
    small = {"step_size": 0.05, "thinning": 200}
    error = {
        noisy: np.abs(
            predicted(X, y, rng, 5, noisy=noisy, **small)[1].numpy() / deviation - 1.0
        ).mean()
        for noisy in (False, True)
    }
    assert error[True] < 0.6 * error[False]


def test_chains_have_the_seeds_and_shape_they_are_given() -> None:
    def run(seed: int) -> Tensor:
        return sample_sghmc(
            lambda x: x,
            torch.zeros(3, 2, dtype=torch.float64),
            generator=torch.Generator().manual_seed(seed),
            num_burn_in=10,
            num_samples=4,
            thinning=3,
        )

    assert run(0).shape == (4, 3, 2)
    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
    assert len(run(0).unique()) == 24


def test_without_burn_in_masses_are_one(rng: torch.Generator) -> None:
    start = torch.zeros(4000, 1, dtype=torch.float64)
    samples = sample_sghmc(
        lambda x: x,
        start,
        generator=rng,
        num_burn_in=0,
        num_samples=1,
        thinning=400,
        step_size=0.1,
    )
    assert abs(samples.std().item() - 1.0) < 0.05


def test_chains_that_diverge_are_an_error(rng: torch.Generator) -> None:
    with pytest.raises(SolverError, match="step_size 1000"):
        sample_sghmc(
            lambda x: x,
            torch.ones(2, 1, dtype=torch.float64),
            generator=rng,
            num_burn_in=0,
            num_samples=1,
            thinning=500,
            step_size=1000.0,
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_burn_in", -1),
        ("num_samples", 0),
        ("thinning", 0),
        ("step_size", 0.0),
        ("step_size", math.inf),
        ("friction", 0.0),
        ("friction", 1.5),
    ],
)
def test_numbers_out_of_range_are_refused(name: str, value: float, rng: torch.Generator) -> None:
    options = {"num_burn_in": 1, "num_samples": 1, "thinning": 1} | {name: value}
    with pytest.raises(ValueError, match=f"{name} must be"):
        sample_sghmc(lambda x: x, torch.zeros(1), generator=rng, **options)
