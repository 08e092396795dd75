import math
from typing import Any

import numpy as np
import pytest
import torch
from botorch.acquisition.analytic import LogExpectedImprovement
from botorch.acquisition.logei import qLogExpectedImprovement
from botorch.exceptions.errors import UnsupportedError
from botorch.posteriors.ensemble import EnsemblePosterior
from botorch.sampling.get_sampler import get_sampler
from sklearn.linear_model import BayesianRidge
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from hotnas_torch.nago import BNN, NoisyEnsemblePosterior, Sampling

FEW = Sampling(num_chains=4, num_samples=5, num_burn_in=800, thinning=20, num_descent=100)


def data(generator: torch.Generator, num: int = 100) -> tuple[Tensor, Tensor]:
    """Noise of deviation 0.02 on the left to 0.5 on the right; a second output without noise."""
    X = torch.rand(num, 2, generator=generator, dtype=torch.float64)
    drawn = torch.randn(num, generator=generator, dtype=torch.float64)
    noisy = torch.sin(4 * X[:, 0]) + (0.02 + 0.48 * X[:, 0]) * drawn
    return X, torch.stack([noisy, 100.0 * X[:, 1]], dim=1)


@pytest.fixture(scope="module")
def model() -> BNN:
    generator = torch.Generator().manual_seed(0)
    return BNN(*data(generator), sampling=FEW, generator=generator)


@pytest.fixture
def X(rng: torch.Generator) -> Tensor:
    return torch.rand(5, 3, 2, generator=rng, dtype=torch.float64)


# --- what is learned ------------------------------------------------------------------------------


def test_it_learns_where_observations_are_noisy(model: BNN) -> None:
    ends = torch.tensor([[0.1, 0.5], [0.9, 0.5]], dtype=torch.float64)
    low, high = model.noise_variance(ends)[..., 0].mean(0).sqrt().tolist()
    assert low < 0.2
    assert 0.3 < high < 0.8


def test_it_learns_the_average(model: BNN, rng: torch.Generator) -> None:
    X = torch.rand(50, 2, generator=rng, dtype=torch.float64)
    mean = model.posterior(X).mean
    assert (mean[:, 0] - torch.sin(4 * X[:, 0])).square().mean().sqrt() < 0.2
    assert (mean[:, 1] - 100.0 * X[:, 1]).square().mean().sqrt() < 10.0


def test_homoscedastic_noise_is_the_same_everywhere(rng: torch.Generator) -> None:
    X, Y = data(rng)
    model = BNN(X, Y[:, :1], noise="homoscedastic", sampling=FEW, generator=rng)
    noise = model.noise_variance(X).squeeze(-1)
    assert torch.equal(noise, noise[:, :1].expand_as(noise))
    assert 0.1 < noise.mean().sqrt() < 0.5


def test_without_layers_it_is_bayesian_linear_regression(rng: torch.Generator) -> None:
    X = torch.rand(80, 3, generator=rng, dtype=torch.float64)
    noise = 0.2 * torch.randn(80, generator=rng, dtype=torch.float64)
    y = X @ X.new_tensor([1.0, -2.0, 0.5]) + 3.0 + noise
    sampling = Sampling(
        num_chains=20,
        num_samples=10,
        num_burn_in=500,
        thinning=20,
        step_size=0.1,
        num_descent=100,
    )
    model = BNN(
        X, y[:, None], noise="homoscedastic", num_layers=0, sampling=sampling, generator=rng
    )
    theirs = BayesianRidge().fit(X.numpy(), y.numpy())
    mean, deviation = theirs.predict(X.numpy(), return_std=True)
    # Their deviation is of observations.
    posterior = model.posterior(X, observation_noise=True)
    np.testing.assert_allclose(posterior.mean.squeeze(1).numpy(), mean, atol=0.03)
    np.testing.assert_allclose(posterior.variance.sqrt().squeeze(1).numpy(), deviation, rtol=0.1)


@pytest.mark.parametrize("noise", ["heteroscedastic", "homoscedastic"])
def test_chains_follow_the_gradient_of_the_posterior(
    noise: str, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = torch.rand(9, 2, generator=rng, dtype=torch.float64)
    y = torch.randn(9, 1, generator=rng, dtype=torch.float64)
    y = (y - y.mean()) / y.std(correction=0)
    gradients = []

    def model_at(parameters: Tensor | None) -> tuple[BNN, Tensor]:
        """The model whose two networks have these parameters, or those that chains start with."""
        kept = []

        def sampled(gradient, initial, **_):
            gradients.append(gradient)
            kept.append(initial if parameters is None else parameters)
            return kept[0][None]

        monkeypatch.setattr("hotnas_torch.nago.bnn.sample_sghmc", sampled)
        two = Sampling(num_chains=2, num_samples=1, num_descent=0)
        return BNN(X, y, noise=noise, sampling=two, generator=rng), kept[0]

    def potential(parameters: Tensor) -> Tensor:
        model, _ = model_at(parameters)
        density = Normal(model.forward(X), model.noise_variance(X).sqrt()).log_prob(y).sum()
        prior = Normal(torch.zeros_like(parameters), 1.0).log_prob(parameters).sum()
        return -density - prior

    _, start = model_at(None)
    slope = gradients[0](start)
    for _ in range(5):
        way = torch.randn(start.shape, generator=rng, dtype=torch.float64)
        ahead, behind = potential(start + 1e-5 * way), potential(start - 1e-5 * way)
        torch.testing.assert_close((ahead - behind) / 2e-5, (slope * way).sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("batch_size", [None, 20])
def test_the_generator_decides(batch_size: int | None, rng: torch.Generator) -> None:
    X, Y = data(rng)
    few = Sampling(2, 2, num_burn_in=50, thinning=5, batch_size=batch_size, num_descent=20)
    values = [
        BNN(X, Y, sampling=few, generator=torch.Generator().manual_seed(seed)).forward(X)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_targets_may_have_any_unit(rng: torch.Generator) -> None:
    X, Y = data(rng)
    few = Sampling(num_chains=2, num_samples=2, num_burn_in=50, thinning=5, num_descent=20)
    small, large = (
        BNN(X, 3.0 + unit * Y, sampling=few, generator=torch.Generator().manual_seed(0))
        for unit in (1.0, 1000.0)
    )
    torch.testing.assert_close(1000.0 * (small.forward(X) - 3.0), large.forward(X) - 3.0)
    torch.testing.assert_close(1e6 * small.noise_variance(X), large.noise_variance(X))


# --- as a BoTorch model ---------------------------------------------------------------------------


def test_shapes_are_those_that_botorch_expects(model: BNN, X: Tensor) -> None:
    assert model.num_outputs == 2
    assert model.batch_shape == torch.Size()
    assert model.num_members == 20
    assert model.forward(X).shape == (5, 20, 3, 2)
    for noisy in (False, True):
        posterior = model.posterior(X, observation_noise=noisy)
        assert posterior.mean.shape == posterior.variance.shape == (5, 3, 2)
        assert posterior.batch_shape == torch.Size([5])
    assert model.posterior(X, output_indices=[1]).mean.shape == (5, 3, 1)


def test_points_are_predicted_by_themselves(model: BNN, X: Tensor) -> None:
    whole = model.posterior(X, observation_noise=True)
    alone = model.posterior(X[2, 1:2], observation_noise=True)
    torch.testing.assert_close(alone.mean, whole.mean[2, 1:2])
    torch.testing.assert_close(alone.variance, whole.variance[2, 1:2])


def test_outputs_can_be_taken_apart(model: BNN, X: Tensor) -> None:
    second = model.subset_output([1])
    assert second.num_outputs == 1
    torch.testing.assert_close(second.forward(X), model.forward(X)[..., 1:])
    torch.testing.assert_close(second.noise_variance(X), model.noise_variance(X)[..., 1:])


def test_it_moves_like_a_module(model: BNN, X: Tensor) -> None:
    single = model.subset_output([0, 1]).to(torch.float32)
    assert single.forward(X.float()).dtype == torch.float32
    torch.testing.assert_close(
        single.forward(X.float()), model.forward(X).float(), rtol=1e-3, atol=1e-2
    )
    assert model.forward(X).dtype == torch.float64


def test_acquisition_functions_work_and_have_gradients(model: BNN, X: Tensor) -> None:
    first = model.subset_output([0])
    analytic = LogExpectedImprovement(first, best_f=0.5)
    sampler = get_sampler(first.posterior(X), torch.Size([32]), seed=0)
    batch = qLogExpectedImprovement(first, best_f=0.5, sampler=sampler)
    for function, rows in ((analytic, X[:, :1]), (batch, X)):
        moving = rows.clone().requires_grad_()
        values = function(moving)
        assert values.shape == (5,)
        (slope,) = torch.autograd.grad(values.sum(), moving)
        assert torch.isfinite(slope).all()
        assert slope.abs().max() > 0


# --- predictive distribution ----------------------------------------------------------------------


def test_the_predictive_distribution_is_a_mixture(model: BNN, X: Tensor) -> None:
    Y = model.posterior(X).mean + 0.1
    posterior = model.posterior(X, observation_noise=True)
    values, noise = model.forward(X).movedim(1, -1), model.noise_variance(X).movedim(1, -1)
    mixture = MixtureSameFamily(Categorical(torch.ones_like(values)), Normal(values, noise.sqrt()))
    torch.testing.assert_close(posterior.mean, mixture.mean)
    torch.testing.assert_close(posterior.log_prob(Y), mixture.log_prob(Y))
    # BoTorch divides by the number of members less one.
    exact = values.var(-1, correction=0)
    torch.testing.assert_close(posterior.variance - exact * 20 / 19, mixture.variance - exact)


def test_observations_are_drawn_from_the_mixture() -> None:
    values = torch.tensor([0.0, 10.0], dtype=torch.float64)[:, None, None].expand(2, 2, 1)
    noise = torch.tensor([1.0, 4.0], dtype=torch.float64)[:, None, None].expand(2, 2, 1)
    posterior = NoisyEnsemblePosterior(values, noise)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = posterior.rsample(torch.Size([4000])).squeeze(-1)
    member = drawn > 5.0
    assert abs(member.double().mean() - 0.5) < 0.05
    # One member for all points of a draw, noise of its own at each.
    assert (member[:, 0] == member[:, 1]).double().mean() > 0.98
    apart = (drawn - torch.where(member, 10.0, 0.0))[:, 0]
    assert abs(apart[~member[:, 1]].std().item() - 1.0) < 0.1
    assert abs(apart[member[:, 1]].std().item() - 2.0) < 0.15


def test_noise_has_no_base_samples(model: BNN, X: Tensor) -> None:
    posterior = model.posterior(X, observation_noise=True)
    assert isinstance(model.posterior(X), EnsemblePosterior)
    with pytest.raises(UnsupportedError, match="observation_noise=False"):
        posterior.rsample_from_base_samples(torch.Size([1]), torch.zeros(1, 5).long())
    with pytest.raises(UnsupportedError, match="must be a bool"):
        model.posterior(X, observation_noise=torch.ones(1))
    with pytest.raises(ValueError, match="noise must have the shape of values"):
        NoisyEnsemblePosterior(torch.zeros(2, 1, 1), torch.ones(1, 1, 1))


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"train_Y": torch.zeros(4)}, r"shapes \(n, d\) and \(n, m\)"),
        ({"train_X": torch.zeros(1, 2), "train_Y": torch.zeros(1, 1)}, "at least two"),
        ({"train_Y": torch.tensor([[0.0], [1.0], [math.nan], [0.0]])}, "row 2, output 0 is nan"),
        ({"noise": "none"}, "noise must be"),
        ({"num_layers": -1}, "num_layers must be at least 0"),
        ({"width": 0}, "width must be at least 1"),
        ({"noise_variance": 0.0}, "noise_variance must be finite and > 0"),
        ({"sampling": Sampling(num_chains=1, num_samples=1)}, "must be at least 2"),
        ({"sampling": Sampling(batch_size=0)}, "batch_size must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    given: dict[str, object], expected: str, rng: torch.Generator
) -> None:
    options = {"train_X": torch.zeros(4, 2), "train_Y": torch.zeros(4, 1)} | given
    with pytest.raises(ValueError, match=expected):
        BNN(**options, generator=rng)


# --- noise that is known --------------------------------------------------------------------------


def known(num: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    X = torch.rand(num, 1, generator=generator, dtype=torch.float64)
    drawn = torch.randn(num, 1, generator=generator, dtype=torch.float64)
    return X, torch.sin(6.0 * X) + (0.04 + 0.3 * X) * drawn


@pytest.mark.slow  # 400 observations, with the default chains
def test_the_noise_is_within_30_percent_where_data_are_dense() -> None:
    X, Y = known(400)
    model = BNN(X, Y, generator=torch.Generator().manual_seed(1))
    inside = torch.tensor([[0.1], [0.2], [0.35], [0.5], [0.65], [0.8], [0.95]]).double()
    found = model.noise_variance(inside).mean(0).sqrt()
    ratio = found / (0.04 + 0.3 * inside)
    assert bool(((ratio > 0.7) & (ratio < 1.3)).all()), ratio.flatten()


@pytest.mark.slow
def test_no_chain_stays_where_the_function_is_noise() -> None:
    # Started at draws from the prior, one of these ten does: its noise is that of the targets.
    X, Y = known(200, seed=2)
    short = Sampling(num_burn_in=600, num_samples=2, thinning=10)
    model = BNN(X, Y, weight_scale=2.0, sampling=short, generator=torch.Generator().manual_seed(4))
    deviations = model.noise_variance(torch.tensor([[0.1]]).double()).sqrt().flatten()
    assert float(deviations.max()) < 0.5 * float(Y.std())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_scale": 0.0}, "weight_scale must be"),
        ({"sampling": Sampling(num_descent=-1)}, "num_descent must be at least 0"),
    ],
)
def test_settings_of_the_start_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BNN(*known(5), **settings, generator=torch.Generator())
