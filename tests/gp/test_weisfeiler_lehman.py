"""The Weisfeiler-Lehman Gaussian process against the textbook, in numpy and scipy."""

import copy
import math

import numpy as np
import pytest
import torch
from botorch.acquisition import qLogExpectedImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.sampling.normal import SobolQMCNormalSampler
from gpytorch.mlls import ExactMarginalLogLikelihood
from scipy.stats import multivariate_normal

from hotnas_torch import spaces
from hotnas_torch.distances import WeisfeilerLehman
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.gp import WeisfeilerLehmanGP, WeisfeilerLehmanKernel


def data(space, num, seed=0):
    nets = space.sample(num, generator=torch.Generator().manual_seed(seed), distinct=True)
    return nets, space.encode(nets)


def targets(nets, noise=0.05, seed=0):
    values = [
        sum(1.0 + 0.1 * place for place, cell in enumerate(net.cells) if "mb6_k5" in cell.ops)
        for net in nets
    ]
    Y = torch.tensor(values, dtype=torch.float64)[:, None]
    generator = torch.Generator().manual_seed(seed)
    return Y + noise * torch.randn(Y.shape, generator=generator, dtype=torch.float64)


def fitted(num=25, space=None, **settings):
    space = space or spaces.NASBenchMacro()
    nets, X = data(space, num)
    Y = targets(nets)
    model = WeisfeilerLehmanGP(X, Y, space=space, **settings)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model, nets, X, Y


def test_the_noise_of_values_that_say_nothing_ends_at_its_bound():
    space = spaces.NASBenchMacro()
    nets, X = data(space, 25)
    Y = torch.randn(25, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = WeisfeilerLehmanGP(X, Y, space=space)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    assert model.likelihood.noise.item() == pytest.approx(1e-2, rel=1e-3)
    assert len(nets) == 25


# --- kernel ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 2])
def test_the_kernel_is_the_similarity_of_the_networks(level):
    space = spaces.TransNASMacro()
    nets, X = data(space, 7)
    kernel = WeisfeilerLehmanKernel(space, level=level, max_level=3)
    expected = WeisfeilerLehman(space=space, level=level).similarity(nets)
    assert torch.allclose(kernel(X).to_dense(), expected)
    assert torch.allclose(kernel(X[:3], X[2:]).to_dense(), expected[:3, 2:])
    assert torch.allclose(kernel(X[:3], X[2:5], diag=True), expected[:3, 2:5].diagonal())
    assert torch.equal(kernel(X, diag=True), torch.ones(7, dtype=torch.float64))


def test_batches_of_rows_are_batches_of_matrices():
    space = spaces.NASBenchMacro()
    nets, X = data(space, 12)
    kernel = WeisfeilerLehmanKernel(space)
    expected = WeisfeilerLehman(space=space).similarity(nets)
    first, second = X.reshape(3, 4, -1), X[:5].expand(3, 5, -1)
    values = kernel(first, second).to_dense()
    for place in range(3):
        assert torch.allclose(values[place], expected[4 * place : 4 * place + 4, :5])
    assert torch.equal(kernel(X.unsqueeze(1)).to_dense(), X.new_ones(12, 1, 1))


def test_the_level_is_part_of_the_state():
    space = spaces.NASBenchMacro()
    kernel = WeisfeilerLehmanKernel(space, level=1, max_level=3)
    other = WeisfeilerLehmanKernel(space, level=3)
    other.load_state_dict(kernel.state_dict())
    assert other.level == 1
    with pytest.raises(ValueError, match="level must lie between 0 and 3; got 4"):
        kernel.level = 4


# --- model ----------------------------------------------------------------------------------------


def test_level_and_noise_have_the_largest_evidence():
    model, nets, _, _ = fitted(levels=(0, 1, 2, 3))
    y = model.train_targets.numpy()

    def evidence(level, noise):
        similarity = WeisfeilerLehman(space=model.covar_module._index.space, level=level)
        covariance = similarity.similarity(nets).numpy() + noise * np.eye(len(y))
        return multivariate_normal(np.zeros(len(y)), covariance).logpdf(y)

    noise = model.likelihood.noise.item()
    best = evidence(model.covar_module.level, noise)
    everything = [
        evidence(level, value) for level in range(4) for value in np.geomspace(1.1e-5, 9.9e-3, 40)
    ]
    assert best >= max(everything) - 1e-3
    assert max(everything) - min(everything) > 1.0
    mll = ExactMarginalLogLikelihood(model.likelihood, model).train()
    found = mll(model(*model.train_inputs), model.train_targets) * len(y)
    assert found.item() == pytest.approx(best, abs=1e-6)


def test_the_posterior_is_that_of_the_textbook():
    model, nets, _, Y = fitted()
    others, Z = data(spaces.NASBenchMacro(), 9, seed=1)
    metric = WeisfeilerLehman(space=spaces.NASBenchMacro(), level=model.covar_module.level)
    noise = model.likelihood.noise.item()
    covariance = metric.similarity(nets) + noise * torch.eye(len(nets), dtype=torch.float64)
    cross = metric.similarity(others, nets)
    mean, scale = Y.mean(), Y.std()
    expected = mean + scale * cross @ torch.linalg.solve(covariance, (Y - mean) / scale)
    explained = (cross @ torch.linalg.solve(covariance, cross.mT)).diagonal()
    with torch.no_grad():
        joint = model.posterior(Z)
        single = model.posterior(Z.unsqueeze(1))
    for posterior in (joint, single):
        assert torch.allclose(posterior.mean.reshape(-1, 1), expected, atol=1e-6)
        assert torch.allclose(posterior.variance.flatten(), scale**2 * (1.0 - explained), atol=1e-6)


def test_it_predicts_what_depends_on_place_and_operation():
    model, *_ = fitted(60)
    others, Z = data(spaces.NASBenchMacro(), 100, seed=1)
    with torch.no_grad():
        mean = model.posterior(Z).mean
    both = torch.stack([mean.flatten(), targets(others, noise=0.0).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.95


def test_botorch_takes_it():
    model, _, _, Y = fitted()
    sampler = SobolQMCNormalSampler(torch.Size([16]), seed=0)
    acquisition = qLogExpectedImprovement(model, best_f=Y.max(), sampler=sampler)
    _, Z = data(spaces.NASBenchMacro(), 6, seed=1)
    with torch.no_grad():
        assert acquisition(Z.reshape(3, 2, -1)).shape == (3,)
        conditioned = model.condition_on_observations(Z[:1], Y.max().reshape(1, 1) + 3.0)
        assert conditioned.posterior(Z[:1]).mean > model.posterior(Z[:1]).mean + 0.5


@pytest.mark.parametrize(("name", "levels"), [("nasbench201", (1, 2, 3)), ("darts", (0, 1, 2, 3))])
def test_levels_are_those_of_the_paper(name, levels):
    space = spaces.get(name)
    _, X = data(space, 4)
    Y = torch.arange(4.0, dtype=torch.float64)[:, None]
    assert WeisfeilerLehmanGP(X, Y, space=space).levels == levels


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"space": "macro"}, TypeError, "space must be a SearchSpace; got"),
        ({"train_Y": torch.zeros(3)}, ValueError, r"train_Y must have shape \(\.\.\., n, m\)"),
        ({"train_Y": torch.rand(3, 2, generator=torch.Generator())}, ValueError, r"\(3, 2\)"),
        ({"train_Y": torch.ones(3, 1)}, ValueError, "train_Y must vary; all 3 targets"),
        (
            {"train_Y": torch.tensor([[1.0], [math.nan], [2.0]])},
            ValueError,
            "finite; row 1, output 0 is nan",
        ),
        ({"train_X": torch.zeros(3, 9)}, ValueError, r"train_X must have 8 columns.* \(3, 9\)"),
        ({"levels": ()}, ValueError, "levels must hold at least one"),
        ({"levels": (-1,)}, ValueError, r"levels\[\d\] must be at least 0; got -1"),
        ({"noise_bounds": (0.1, 0.01)}, ValueError, r"0 < low < high; got \(0.1, 0.01\)"),
        ({"aggregation": "sum"}, ValueError, "aggregation must be one of"),
        ({"contract": ["nope"]}, ValueError, "contract must hold labels of NASBenchMacro"),
    ],
)
def test_bad_arguments_are_refused(change, kind, message):
    good = {
        "train_X": torch.zeros(3, 8).double(),
        "train_Y": torch.tensor([[0.0], [1.0], [2.0]]).double(),
        "space": spaces.NASBenchMacro(),
    }
    with pytest.raises(kind, match=message):
        WeisfeilerLehmanGP(**(good | change))


def test_a_row_that_is_no_network_is_named():
    space = spaces.NASBenchMacro()
    _, X = data(space, 3)
    X[1, 2] = 7.0
    model = WeisfeilerLehmanGP(X, torch.tensor([[0.0], [1.0], [2.0]]).double(), space=space)
    with pytest.raises(ArchitectureError, match=r"X\[1\]"):
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))


def test_copies_share_the_labels_of_networks():
    space = spaces.NASBench201()
    _, X = data(space, 5)
    kernel = WeisfeilerLehmanKernel(space)
    first = kernel(X).to_dense()
    twin = copy.deepcopy(kernel)
    assert twin._index is kernel._index
    assert torch.equal(twin(X).to_dense(), first)
