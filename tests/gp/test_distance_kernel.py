import copy
import math

import pytest
import torch
from botorch.acquisition import LogExpectedImprovement
from botorch.fit import fit_gpytorch_mll
from gpytorch.mlls import ExactMarginalLogLikelihood

from hotnas_torch.distances import TreeWasserstein
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.gp import DistanceGP, DistanceKernel, PairMemory
from hotnas_torch.testing.strategy import toy_value
from tests.gp.digits import SPACE, Digits, X, nets

__all__ = ["X", "nets"]  # fixtures


def targets(nets):
    return -torch.tensor([[toy_value(net)] for net in nets], dtype=torch.float64)


# --- kernel ---------------------------------------------------------------------------------------


def test_copies_share_the_memory(X):
    distance = Digits()
    kernel = DistanceKernel(distance, landmarks=X).double()
    kernel(X).to_dense()
    before = distance.pairs
    copy.deepcopy(kernel)(X).to_dense()
    assert distance.pairs == before


def test_it_is_the_formula(nets, X):
    distance = Digits()
    kernel = DistanceKernel(distance).double()
    kernel.scales = torch.tensor([3.0, 20.0])
    kernel.initialize(raw_shares=torch.tensor([0.0, math.log(3.0)]))
    total, count = distance.part_distances(nets)
    expected = 0.25 * torch.exp(-total / 3.0) + 0.75 * torch.exp(-(count**2) / 20.0)
    assert torch.allclose(kernel(X).to_dense(), expected)
    assert torch.allclose(kernel(X[:3], X).to_dense(), expected[:3])
    assert kernel(X, diag=True).tolist() == [1.0] * 12


def test_with_landmarks_it_is_positive_semidefinite(nets, X, rng):
    kernel = DistanceKernel(Digits(), landmarks=X[:6]).double()
    kernel.scales = torch.tensor([50.0, 900.0])
    more = torch.cat([X, SPACE.encode(SPACE.sample(20, generator=rng))])
    gram = kernel(more).to_dense()
    assert torch.linalg.eigvalsh(gram).min() > -1e-9
    plain = DistanceKernel(Digits()).double()
    plain.scales = kernel.scales
    assert torch.linalg.eigvalsh(plain(more).to_dense()).min() < -1e-3


def test_gradients_are_those_of_finite_differences(X):
    kernel = DistanceKernel(Digits(), landmarks=X[:5], cutoff=1e-3).double()

    def gram(scales, shares):
        values = {"raw_scales": scales, "raw_shares": shares}
        return torch.func.functional_call(kernel, values, (X[:7], X))

    raw = (
        torch.tensor([0.1, -0.3], dtype=torch.float64, requires_grad=True),
        torch.tensor([0.2, 0.4], dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda *raw: gram(*raw).to_dense(), raw)


# --- model ----------------------------------------------------------------------------------------


def fitted(model):
    with torch.random.fork_rng():
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model.eval()


@pytest.mark.parametrize("distance", [Digits(), TreeWasserstein(SPACE, grams=2)])
def test_fitting_gains_likelihood_and_predicts(distance, rng):
    nets = SPACE.sample(50, generator=rng, distinct=True)
    X, Y = SPACE.encode(nets), targets(nets)
    model = DistanceGP(X[:40], Y[:40], distance=distance)
    mll = ExactMarginalLogLikelihood(model.likelihood, model)

    def likelihood():
        model.train()
        with torch.no_grad():
            return mll(model(*model.train_inputs), model.train_targets).item()

    before = likelihood()
    fitted(model)
    assert likelihood() > before + 0.01
    model.eval()
    with torch.no_grad():
        error = model.posterior(X[40:]).mean - Y[40:]
    assert error.square().mean() < 0.6 * (Y[40:] - Y[:40].mean()).square().mean()


def test_an_output_scale_far_out_still_has_a_density(nets, X):
    # An optimiser goes there for targets that are noise alone.
    model = DistanceGP(X, targets(nets), distance=Digits())
    with torch.no_grad():
        model.covar_module.raw_outputscale.fill_(-1e6)
    mll = ExactMarginalLogLikelihood(model.likelihood, model)
    assert math.isfinite(mll(model(*model.train_inputs), model.train_targets).item())


def test_it_does_what_botorch_asks_of_a_model(nets, X):
    Y = torch.cat([targets(nets), 2.0 - X.sum(1, keepdim=True)], dim=1)
    model = fitted(DistanceGP(X[:8], Y[:8], distance=Digits()))
    assert model.num_outputs == 2
    assert model.posterior(X[8:].unsqueeze(1)).mean.shape == (4, 1, 2)
    one = model.subset_output([1])
    assert torch.allclose(one.posterior(X).mean, model.posterior(X).mean[:, 1:])
    single = fitted(DistanceGP(X[:8], Y[:8, :1], distance=Digits()))
    before = single.posterior(X[8:9]).variance.item()
    conditioned = single.condition_on_observations(X[8:9], Y[8:9, :1])
    assert conditioned.posterior(X[8:9]).variance.item() < before
    values = LogExpectedImprovement(single, best_f=Y[:8, 0].max())(X.unsqueeze(1))
    assert torch.isfinite(values).all()


def test_a_distance_that_needs_no_landmarks_gets_none(nets, X):
    with_landmarks = DistanceGP(X, targets(nets), distance=Digits()).kernel
    assert with_landmarks.landmarks is not None
    assert DistanceGP(X, targets(nets), distance=TreeWasserstein(SPACE)).kernel.landmarks is None


def test_wrong_input_is_named(nets, X):
    Y = targets(nets)
    with pytest.raises(TypeError, match="distance must be a NetworkDistance; got str"):
        DistanceKernel("otmann")
    with pytest.raises(TypeError, match="distance must be a NetworkDistance"):
        DistanceGP(X, Y, distance=None)
    with pytest.raises(ValueError, match="memory must be one of the distance"):
        DistanceKernel(Digits(), memory=PairMemory(Digits()))
    with pytest.raises(ValueError, match="train_X must have 8 columns"):
        DistanceGP(torch.cat([X, X[:, :1]], dim=1), Y, distance=Digits())
    with pytest.raises(ValueError, match="must vary"):
        DistanceGP(X, Y.clone().fill_(1.0), distance=Digits())
    with pytest.raises(ArchitectureError, match=r"X\[1\] = \[9, 7"):
        DistanceGP(torch.cat([X[:1], X[:1] + 7]), Y[:2], distance=Digits())
