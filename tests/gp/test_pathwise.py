"""Samples of functions, against the posterior that they are drawn from."""

import pickle

import pytest
import torch
from botorch.acquisition.thompson_sampling import PathwiseThompsonSampling
from botorch.exceptions.errors import UnsupportedError
from botorch.models import SingleTaskGP
from botorch.sampling.pathwise import (
    draw_kernel_feature_paths,
    draw_matheron_paths,
    get_matheron_path_model,
)
from gpytorch.kernels import ScaleKernel

from hotnas_torch import spaces
from hotnas_torch.distances import OTMANN, TreeWasserstein
from hotnas_torch.gp import HOTNNGP, DistanceGP, FeatureGP, HOTNNKernel
from hotnas_torch.gp.pathwise import LandmarkFeatureMap
from hotnas_torch.nago import HNAG, GeneratorGP, GeneratorSamples, ThetaSpace
from hotnas_torch.spaces.encodings import encoding_of

pytestmark = pytest.mark.ext

SPACE = spaces.NASBench201()
NUM = 4096
# Of a mean of NUM draws and of their variance, five standard errors.
MEAN, VARIANCE = 5 / NUM**0.5, 5 * (2 / NUM) ** 0.5


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)
    return SPACE.encode(SPACE.sample(16, generator=generator, distinct=True))


@pytest.fixture(autouse=True)
def _botorch_draws_globally():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def targets(X):
    return (X == 3).sum(1, keepdim=True).double() - 0.3 * (X == 0).sum(1, keepdim=True)


MODELS = {
    "hotnn": lambda X, Y: HOTNNGP(X, Y, space=SPACE),
    "noise known": lambda X, Y: HOTNNGP(X, Y, torch.full_like(Y, 0.1), space=SPACE),
    "distance": lambda X, Y: DistanceGP(X, Y, distance=OTMANN(SPACE)),
    "features": lambda X, Y: FeatureGP(X, Y, encoding_of(SPACE).of_rows),
    "kernel": lambda X, Y: SingleTaskGP(
        X, Y, covar_module=ScaleKernel(HOTNNKernel(SPACE, landmarks=X))
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_paths_have_the_mean_and_covariance_of_the_posterior(name, rows):
    model = MODELS[name](rows[:10], targets(rows[:10])).eval()
    test = torch.cat([rows[8:], rows[12:13]])  # seen, unseen, and one twice
    with torch.no_grad():
        posterior = model.posterior(test)
        drawn = draw_matheron_paths(model, torch.Size([NUM]))(test)
    assert drawn.shape == (NUM, 9)
    assert torch.allclose(drawn[:, 4], drawn[:, 8], atol=1e-9)
    scale = posterior.variance.squeeze(1).sqrt()
    apart = (drawn.mean(0) - posterior.mean.squeeze(1)) / scale
    assert apart.abs().max() < MEAN
    found = torch.cov((drawn / scale).T)
    expected = posterior.mvn.covariance_matrix / scale / scale[:, None]
    # Random Fourier features are approximate, features of landmarks are not.
    assert (found - expected).abs().max() < (0.3 if name == "features" else VARIANCE)


def test_paths_of_the_prior_have_the_covariance_of_the_kernel(rows):
    model = HOTNNGP(rows[:10], targets(rows[:10]), space=SPACE, outcome_transform=None)
    with torch.no_grad():
        drawn = draw_kernel_feature_paths(model, torch.Size([NUM]))(rows)
        covariance = model.covar_module(rows).to_dense()
    assert (torch.cov(drawn.T) - covariance).abs().max() < VARIANCE


def test_features_are_exact_for_landmarks_and_for_each_row(rows):
    kernel = HOTNNKernel(SPACE, landmarks=rows[:10]).double()
    features = LandmarkFeatureMap(kernel, 4096)
    with torch.no_grad():
        found = features(rows)
        assert found.shape == (16, features.num_outputs) == (16, 20 + 4096)
        torch.testing.assert_close(found @ found.T, kernel(rows).to_dense())
        # The same in another process, which numbers networks as it meets them.
        restored = pickle.loads(pickle.dumps(kernel))
        restored(rows.flip(0)).to_dense()
        torch.testing.assert_close(LandmarkFeatureMap(restored, 4096)(rows), found)
        batches = features(rows.reshape(4, 2, 2, 6))
        torch.testing.assert_close(batches.reshape(found.shape), found)


def test_outputs_have_paths_of_their_own(rows):
    Y = torch.cat([targets(rows), -targets(rows).square()], dim=1)
    model = HOTNNGP(rows[:10], Y[:10], space=SPACE).eval()
    with torch.no_grad():
        posterior = model.posterior(rows)
        drawn = draw_matheron_paths(model, torch.Size([NUM]))(rows).mT
        apart = (drawn.mean(0) - posterior.mean) / posterior.variance.sqrt()
        assert apart.abs().max() < MEAN
        assert (drawn.var(0) / posterior.variance - 1.0).abs().max() < VARIANCE
        one = get_matheron_path_model(model).posterior(rows.unsqueeze(1)).mean
    assert one.shape == (16, 1, 2)


def test_thompson_sampling_scores_networks(rows):
    model = HOTNNGP(rows[:10], targets(rows[:10]), space=SPACE).eval()
    values = PathwiseThompsonSampling(model)(rows.unsqueeze(1))
    assert values.shape == (16,)
    assert len(values.unique()) > 10


def test_columns_of_a_row_are_found_among_others(rows):
    wide = torch.cat([torch.zeros_like(rows[:, :2]), rows], dim=1)
    kernel = HOTNNKernel(SPACE, landmarks=rows[:5], active_dims=range(2, 8)).double()
    plain = HOTNNKernel(SPACE, landmarks=rows[:5]).double()
    expected = LandmarkFeatureMap(plain, 64)(rows)
    assert torch.equal(LandmarkFeatureMap(kernel, 64)(wide), expected)


def test_generators_have_paths():
    space = ThetaSpace(nodes=(3, 4), mid_nodes=(1, 2))
    X = space.sample(8, generator=torch.Generator().manual_seed(0))
    samples = GeneratorSamples(HNAG(), space, size=1)
    model = GeneratorGP(X[:5], X[:5, :1], samples=samples, by="networks").eval()
    with torch.no_grad():
        posterior = model.posterior(X)
        drawn = draw_matheron_paths(model, torch.Size([NUM]))(X)
    apart = (drawn.mean(0) - posterior.mean.squeeze(1)) / posterior.variance.squeeze(1).sqrt()
    assert apart.abs().max() < MEAN


def test_a_kernel_without_landmarks_is_refused(rows):
    model = DistanceGP(rows, targets(rows), distance=TreeWasserstein(SPACE))
    with pytest.raises(UnsupportedError, match="paths of a DistanceKernel need its landmarks"):
        draw_matheron_paths(model, torch.Size([2]))
