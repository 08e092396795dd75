import copy
import math

import pytest
import torch
from botorch.fit import fit_gpytorch_mll
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import nn

from hotnas_torch import spaces
from hotnas_torch.gp import CombinedGP, FeatureMean, NetworkFeatures
from hotnas_torch.nn import (
    NASBench201Module,
    Skeleton,
    ZeroCost,
    jacobian_covariance,
    num_parameters,
    synflow,
)
from hotnas_torch.search import BayesianSearch, CombinedSurrogate, MutantPool

SPACE = spaces.NASBench201()
SMALL = Skeleton(channels=4, num_stages=2, cells_per_stage=1, input_channels=1)
ALL = "|{0}~0|+|{0}~0|{0}~1|+|{0}~0|{0}~1|{0}~2|"


def built(net):
    return NASBench201Module(net, SMALL, generator=torch.Generator().manual_seed(0))


def images(num):
    return torch.randn(num, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def made(make):
    """A module whose initial parameters, drawn by torch, do not matter."""
    with torch.random.fork_rng():
        return make()


def test_the_flow_of_linear_layers_is_the_product_of_their_absolute_weights():
    module = made(
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)
        )
    )
    with torch.no_grad():
        for layer in module[1:]:
            layer.weight.copy_(
                torch.linspace(-1.0, 2.0, layer.weight.numel()).reshape_as(layer.weight)
            )
    first, second = (layer.weight.detach().double().abs() for layer in module[1:])
    # Homogeneous of degree one in each layer: every layer has the whole output as its flow.
    expected = 2.0 * float((second @ first).sum())
    assert synflow(module, torch.zeros(1, 1, 2, 2)) == pytest.approx(math.log1p(expected))


def test_a_normalisation_changes_no_flow():
    convolution = made(lambda: nn.Conv2d(1, 2, 3, bias=False))
    with torch.no_grad():
        convolution.weight.fill_(-0.5)
    norm = nn.BatchNorm2d(2)
    norm.running_var.fill_(100.0)
    plain, normalised = nn.Sequential(convolution), nn.Sequential(convolution, norm)
    assert synflow(normalised, images(1)) == pytest.approx(synflow(plain, images(1)))


def test_images_that_a_module_tells_apart_score_higher():
    apart, same = made(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10))), nn.Flatten()
    with torch.no_grad():
        apart[1].weight.fill_(1.0)
    nonlinear = built(SPACE.from_string(ALL.format("nor_conv_3x3")))
    assert jacobian_covariance(nonlinear, images(6)) > jacobian_covariance(apart, images(6))
    assert jacobian_covariance(apart, images(6)) == pytest.approx(
        jacobian_covariance(same, images(6)), rel=1e-6
    )


def test_modules_stay_as_they_are():
    module = built(SPACE.from_string(ALL.format("nor_conv_3x3")))
    before = copy.deepcopy(module.state_dict())
    synflow(module, images(2))
    jacobian_covariance(module, images(2))
    assert module.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(one._forward_hooks for one in module.modules())


@pytest.mark.parametrize("score", ["synflow", "jacobian_covariance", "num_parameters"])
def test_every_network_has_a_score(score):
    nets = [
        SPACE.from_string(ALL.format(name)) for name in ("none", "skip_connect", "nor_conv_3x3")
    ]
    found = ZeroCost(built, images(4), score)(nets)
    assert found.shape == (3, 1)
    assert bool(found.isfinite().all())
    assert float(found[2]) > float(found[0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ZeroCost(3, images(1)), TypeError, "build must be a function"),
        (lambda: ZeroCost(built, [1.0]), TypeError, "images must be a Tensor"),
        (lambda: ZeroCost(built, images(1)[0]), ValueError, r"images must be \(N, C, H, W\)"),
        (lambda: ZeroCost(built, images(1), "grasp"), ValueError, "score must be one of"),
        (
            lambda: ZeroCost(built, images(1), "jacobian_covariance"),
            ValueError,
            "images must be at least two",
        ),
        (lambda: jacobian_covariance(nn.Flatten(), images(1)), ValueError, "with N >= 2"),
    ],
)
def test_what_cannot_be_scored_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_prior_mean_learns_what_features_tell():
    X = SPACE.encode(SPACE.sample(40, generator=torch.Generator().manual_seed(0)))
    scores = NetworkFeatures(SPACE, ZeroCost(built, images(1), "num_parameters"))
    Y, first = scores(X), X[:15]
    mean = FeatureMean(scores, first)
    model = CombinedGP(first, Y[:15], space=SPACE, terms=["wl"], mean_module=mean)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    assert float(mean.weights.detach()) > 0.5
    with torch.no_grad():
        missed = model.posterior(X[15:]).mean - Y[15:]
    assert float(missed.abs().max()) < 0.2 * float(Y.std())


def test_a_search_takes_scores_as_its_prior_mean():
    scores = NetworkFeatures(SPACE, ZeroCost(built, images(1), "num_parameters"))
    strategy = BayesianSearch(
        SPACE,
        generator=torch.Generator().manual_seed(0),
        surrogate=CombinedSurrogate(terms=["wl"], mean=scores),
        pool=MutantPool(pool_size=20),
        num_initial=6,
    )
    asked = strategy.ask(6)
    strategy.tell(asked, [10.0 - num_parameters(built(net)) for net in asked])
    assert len(strategy.ask(2)) == 2
    assert isinstance(strategy.model.mean_module, FeatureMean)
    assert strategy.settings()["surrogate"]["mean"] == "NetworkFeatures"


def test_features_that_are_not_finite_are_refused():
    rows = torch.tensor([[1.0], [math.nan], [2.0]]).double()
    with pytest.raises(ValueError, match=r"features must be finite; those of row \[1\]"):
        FeatureMean(lambda X: X, rows)
    mean = FeatureMean(lambda X: X, rows[::2])
    with pytest.raises(ValueError, match=r"features must be finite; those of row \[0\]"):
        mean(rows[1:2])
    with pytest.raises(ValueError, match="rows must be a tensor of shape"):
        FeatureMean(lambda X: X, rows[0])
    with pytest.raises(TypeError, match="features must be a function of rows"):
        FeatureMean("synflow", rows)
