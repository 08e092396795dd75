"""Models of networks with hyperparameters beside them."""

import math

import gpytorch
import pytest
import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import MixedSingleTaskGP
from botorch.models.kernels import CategoricalKernel
from gpytorch.kernels import MaternKernel
from gpytorch.mlls import ExactMarginalLogLikelihood

import hotnas_torch as ht
from hotnas_torch import spaces
from hotnas_torch.gp import HOTNNGP, DistanceGP, WeisfeilerLehmanGP, values_kernel
from hotnas_torch.spaces import Float, Integer, Joint, Log

BASE = spaces.NASBench201()
SPACE = Joint(
    BASE,
    {"lr": Log(1e-4, 1.0), "optimizer": ["sgd", "adam", "lamb"], "layers": Integer(1, 8)},
)


def value(point):
    """Depends on both: the best learning rate is another one for every number of convolutions."""
    best = -3.0 + 0.4 * point.network_spec.count("conv_3x3")
    return (
        -((math.log10(point.values["lr"]) - best) ** 2)
        - point.network_spec.count("none")
        - 1.0 * (point.values["optimizer"] == "sgd")
        + 0.1 * point.values["layers"]
    )


def data(num, seed=0):
    points = SPACE.sample(num, generator=torch.Generator().manual_seed(seed))
    Y = torch.tensor([[value(point)] for point in points], dtype=torch.float64)
    return SPACE.encode(points), Y


MODELS = {
    "hotnn": lambda X, Y: HOTNNGP(X, Y, space=SPACE),
    "additive": lambda X, Y: HOTNNGP(X, Y, space=SPACE, combine="additive"),
    "distribution": lambda X, Y: HOTNNGP(X, Y, space=SPACE, distribution="product"),
    "tree_wasserstein": lambda X, Y: DistanceGP(
        X, Y, distance=ht.distances.TreeWasserstein(BASE), space=SPACE
    ),
    "weisfeiler_lehman": lambda X, Y: WeisfeilerLehmanGP(X, Y, space=SPACE),
}


def fitted(name, X, Y):
    model = MODELS[name](X, Y)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model


def test_the_kernel_of_values_is_botorchs_and_gpytorchs():
    kernel = values_kernel(SPACE).double()
    numbers, categories = kernel.base_kernel.kernels
    numbers.lengthscale = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    categories.lengthscale = 0.4
    X, _ = data(12)
    scaled = torch.stack([(X[:, 6].log10() + 4) / 4, (X[:, 8] - 1) / 7], dim=1)
    matern = MaternKernel(nu=2.5, ard_num_dims=2).double()
    matern.lengthscale = numbers.lengthscale.detach()
    overlap = CategoricalKernel().double()
    overlap.lengthscale = 0.4
    expected = matern(scaled).to_dense() * overlap(X[:, 7:8]).to_dense()
    assert torch.allclose(kernel(X).to_dense(), expected, atol=1e-12)
    assert torch.allclose(kernel(X[:3], X).to_dense(), expected[:3], atol=1e-12)
    assert torch.allclose(kernel(X).diagonal(), torch.ones(12, dtype=torch.float64))


@pytest.mark.parametrize(
    "values", [{"lr": Log(1e-4, 1.0)}, {"a": ["x", "y"]}, {"a": ["x", "y"], "b": [True, False]}]
)
def test_hyperparameters_of_one_kind_have_a_kernel_as_well(values):
    space = Joint(BASE, values)
    X = space.encode(space.sample(8, generator=torch.Generator().manual_seed(0)))
    matrix = values_kernel(space).double()(X).to_dense().detach()
    assert torch.allclose(matrix, matrix.mT, atol=1e-12)
    assert float(torch.linalg.eigvalsh(matrix).min()) > -1e-9
    assert bool((matrix < 1.0 - 1e-6).any())


@pytest.mark.parametrize("name", MODELS)
def test_models_see_both_parts(name):
    X, Y = data(60)
    test_X, test_Y = data(60, seed=1)
    model = fitted(name, X, Y)
    with torch.no_grad():
        mean = model.posterior(test_X).mean
        error = float((mean - test_Y).square().mean() / test_Y.var())
        # Networks alone, and hyperparameters alone, explain at most their parts.
        assert error < (0.75 if name == "additive" else 0.6)
        moved = test_X.clone()
        moved[:, 6] = test_X[:, 6].roll(1)
        assert float((model.posterior(moved).mean - mean).abs().max()) > 0.1
        moved = test_X.clone()
        moved[:, :6] = test_X[:, :6].roll(1, dims=0)
        assert float((model.posterior(moved).mean - mean).abs().max()) > 0.1


@pytest.mark.parametrize("name", MODELS)
def test_observations_can_be_added(name):
    X, Y = data(20)
    model = fitted(name, X, Y)
    more_X, more_Y = data(4, seed=2)
    model.posterior(more_X)
    more = model.condition_on_observations(more_X, more_Y)
    errors = [
        float((one.posterior(more_X).mean.detach() - more_Y).abs().mean()) for one in (more, model)
    ]
    assert errors[0] < errors[1]


def test_networks_of_one_kind_make_it_a_model_of_the_values_alone():
    # With one network only, what is left is BoTorch's mixed model, up to its priors.
    point = SPACE.sample_one(generator=torch.Generator().manual_seed(0))
    X, _ = data(30)
    X[:, :6] = SPACE.encode([point])[:, :6]
    Y = torch.tensor([[value(one)] for one in SPACE.decode(X)], dtype=torch.float64)
    model = fitted("hotnn", X, Y)
    scaled = SPACE.scaled(X)
    theirs = MixedSingleTaskGP(scaled, Y, cat_dims=[1])
    fit_gpytorch_mll(ExactMarginalLogLikelihood(theirs.likelihood, theirs))
    test_X, _ = data(40, seed=3)
    test_X[:, :6] = X[0, :6]
    truth = torch.tensor([[value(one)] for one in SPACE.decode(test_X)], dtype=torch.float64)
    with torch.no_grad(), gpytorch.settings.fast_pred_var(False):
        errors = [
            float((posterior.mean - truth).square().mean().sqrt())
            for posterior in (model.posterior(test_X), theirs.posterior(SPACE.scaled(test_X)))
        ]
    assert max(errors) < 0.05 * float(truth.std())


def test_several_outputs_have_parameters_of_their_own():
    X, Y = data(12)
    model = HOTNNGP(X, torch.cat([Y, X[:, 6:7].log()], dim=1), space=SPACE, learn=[])
    mll = ExactMarginalLogLikelihood(model.likelihood, model)
    fit_gpytorch_mll(mll)
    assert model.posterior(X).mean.shape == (12, 2)
    (numbers,) = [m for m in model.modules() if isinstance(m, MaternKernel)]
    assert numbers.lengthscale.shape == (2, 1, 2)
    assert not torch.equal(numbers.lengthscale[0], numbers.lengthscale[1])


def test_rows_of_other_lengths_are_refused():
    X, Y = data(5)
    with pytest.raises(ValueError, match="train_X must have 9 columns"):
        HOTNNGP(torch.cat([X, X[:, :1]], dim=1), Y, space=SPACE)
    with pytest.raises(ValueError, match="d >= 9"):
        HOTNNGP(X[:, :6], Y, space=SPACE)
    with pytest.raises(TypeError, match="space must be a Joint or None"):
        DistanceGP(X, Y, distance=ht.distances.TreeWasserstein(BASE), space=BASE)
    other = Joint(BASE, {"x": Float(0.0, 1.0)})
    assert values_kernel(other).features.__self__ is other
