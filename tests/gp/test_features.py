import pytest
import torch
from botorch.acquisition.objective import ScalarizedPosteriorTransform
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from scipy.spatial.distance import cdist

from hotnas_torch import spaces
from hotnas_torch.gp import FeatureGP, FeatureKernel, NetworkFeatures
from hotnas_torch.gp.features import feature_kernel
from hotnas_torch.spaces.encodings import AdjacencyEncoding, encoding_of

SPACE = spaces.NASBench201()
ENCODING = encoding_of(SPACE)


def rows(num, seed=0):
    return SPACE.encode(SPACE.sample(num, generator=torch.Generator().manual_seed(seed)))


def targets(X):
    return ((X == 3).sum(dim=1, keepdim=True) - 0.5 * (X == 0).sum(dim=1, keepdim=True)).double()


def test_the_kernel_is_matern_between_features():
    kernel = feature_kernel(ENCODING.of_rows)
    kernel.base_kernel.lengthscale = 0.3
    X, Z = rows(8), rows(5, seed=1)
    distance = cdist(ENCODING.of_rows(X).numpy(), ENCODING.of_rows(Z).numpy()) / 0.3
    scaled = 5.0**0.5 * torch.from_numpy(distance)
    expected = (1.0 + scaled + scaled.square() / 3.0) * torch.exp(-scaled)
    with torch.no_grad():
        assert torch.allclose(kernel(X, Z).to_dense(), expected, atol=1e-9)
        assert torch.allclose(kernel(X, X, diag=True), torch.ones(8, dtype=torch.float64))
        batch = kernel(X.reshape(2, 4, 6), Z[:4].expand(2, 4, 6)).to_dense()
        assert torch.allclose(batch[1], kernel(X[4:], Z[:4]).to_dense())


def test_kernels_multiply_and_add():
    kernel = feature_kernel(ENCODING.of_rows)
    other = FeatureKernel(MaternKernel(nu=0.5).double(), lambda X: X / 4.0)
    X = rows(6)
    with torch.no_grad():
        product, total = (kernel * other)(X).to_dense(), (kernel + other)(X).to_dense()
        first, second = kernel(X).to_dense(), other(X).to_dense()
        assert torch.allclose(product, first * second)
        assert torch.allclose(total, first + second)
        assert float(torch.linalg.eigvalsh(product).min()) > -1e-9


def test_hyperparameters_are_fitted_inside_their_ranges():
    X = rows(40)
    model = FeatureGP(X, targets(X), ENCODING.of_rows)
    mll = ExactMarginalLogLikelihood(model.likelihood, model)
    mll.train()
    before = mll(model(*model.train_inputs), model.train_targets).item()
    fit_gpytorch_mll(mll)
    mll.train()
    assert mll(model(*model.train_inputs), model.train_targets).item() > before
    assert 0.01 <= model.covar_module.base_kernel.lengthscale.item() <= 0.5
    assert 0.5 <= model.covar_module.outputscale.item() <= 5.0
    assert 0.99e-6 <= model.likelihood.noise.item() <= 0.1
    Z = rows(30, seed=2)
    with torch.no_grad():
        mean = model.eval().posterior(Z).mean
    assert float(torch.corrcoef(torch.stack([mean[:, 0], targets(Z)[:, 0]]))[0, 1]) > 0.95


def test_the_posterior_is_botorchs_on_the_features():
    X, Z = rows(20), rows(7, seed=1)
    model = FeatureGP(X, targets(X), ENCODING.of_rows).eval()
    base = MaternKernel(nu=2.5).double()
    base.lengthscale = model.covar_module.base_kernel.lengthscale.item()
    scaled = ScaleKernel(base).double()
    scaled.outputscale = model.covar_module.outputscale.item()
    reference = SingleTaskGP(ENCODING.of_rows(X), targets(X), covar_module=scaled)
    reference.likelihood.noise = model.likelihood.noise.item()
    reference.mean_module = model.mean_module
    points = ENCODING.of_rows(Z)
    with torch.no_grad():
        expected = reference.eval().posterior(points)
        for found in (model.posterior(Z), model.on_features().posterior(points)):
            assert torch.allclose(found.mean, expected.mean, atol=1e-8)
            assert torch.allclose(found.variance, expected.variance, atol=1e-8)


def test_the_model_on_features_is_differentiable_in_them():
    X = rows(15)
    model = FeatureGP(X, targets(X), ENCODING.of_rows).eval().on_features()
    points = torch.softmax(
        torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1
    )
    assert torch.autograd.gradcheck(
        lambda p: model.posterior(p[:, None]).mean.squeeze(), points.requires_grad_()
    )


def test_what_is_believed_is_conditioned_on():
    X = rows(15)
    model = FeatureGP(X, targets(X), ENCODING.of_rows).eval()
    Z = rows(1, seed=9)
    with torch.no_grad():
        before = model.posterior(Z)
        after = model.condition_on_observations(Z, before.mean).posterior(Z)
        assert torch.allclose(after.mean, before.mean, atol=1e-6)
        assert float(after.variance) < float(before.variance)


@pytest.mark.parametrize("name", ["lengthscale", "outputscale", "noise"])
def test_an_empty_range_is_refused(name):
    X = rows(5)
    with pytest.raises(ValueError, match=rf"{name} must be a range \(low, high\) with 0 < low"):
        FeatureGP(X, targets(X), ENCODING.of_rows, **{name: (0.5, 0.1)})


@pytest.mark.parametrize(
    "features", [ENCODING.of_rows, NetworkFeatures(SPACE, AdjacencyEncoding(SPACE))]
)
def test_a_model_that_is_given_an_observation_copies_no_networks(features):
    X = rows(12)
    model = FeatureGP(X[:10], targets(X[:10]), features).eval()
    model.posterior(X[:10])
    conditioned = model.condition_on_observations(X[10:], targets(X[10:]))
    twin = conditioned.features
    assert twin is features or twin.__self__ is ENCODING
    assert torch.equal(twin(X), features(X))


@pytest.mark.parametrize("noise", [False, True])
def test_single_points_are_predicted_as_in_batches_of_their_own(noise):
    X = rows(20)
    model = FeatureGP(X[:12], targets(X[:12]), ENCODING.of_rows).eval()
    found = model.posterior(X[:, None], observation_noise=noise)
    expected = SingleTaskGP.posterior(model, X[:, None], observation_noise=noise)
    assert found.mean.shape == expected.mean.shape == (20, 1, 1)
    assert torch.allclose(found.mean, expected.mean, atol=1e-9)
    assert torch.allclose(found.variance, expected.variance, atol=1e-9)
    weighted = ScalarizedPosteriorTransform(torch.tensor([-2.0], dtype=torch.float64))
    found = model.posterior(X[:, None], posterior_transform=weighted)
    expected = SingleTaskGP.posterior(model, X[:, None], posterior_transform=weighted)
    assert torch.allclose(found.mean, expected.mean, atol=1e-9)
    assert torch.allclose(found.variance, expected.variance, atol=1e-9)
    assert found.base_sample_shape == expected.base_sample_shape
    base = torch.ones(5, *found.base_sample_shape, dtype=torch.float64)
    drawn, wanted = (
        one.rsample_from_base_samples(torch.Size([5]), base) for one in (found, expected)
    )
    assert torch.allclose(drawn, wanted, atol=1e-7)


def test_a_batch_shape_that_is_none_is_refused():
    with pytest.raises(TypeError, match=r"batch_shape must be a .*Sequence or None; got 3"):
        FeatureKernel(MaternKernel(), ENCODING.of_rows, batch_shape=3)
