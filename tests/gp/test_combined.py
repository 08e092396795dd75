import re

import pytest
import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from gpytorch.kernels import MaternKernel, RBFKernel
from gpytorch.mlls import ExactMarginalLogLikelihood

from hotnas_torch import spaces
from hotnas_torch.distances import HOTNN, TreeWasserstein, WeisfeilerLehman
from hotnas_torch.gp import (
    HOTNNGP,
    CombinedGP,
    CombinedKernel,
    DistanceGP,
    DistanceKernel,
    PairMemory,
)
from hotnas_torch.spaces.encodings import encoding_of

SPACE = spaces.NASBench201()
SHARES = encoding_of(SPACE).of_rows


def rows(num, seed=0):
    return SPACE.encode(SPACE.sample(num, generator=torch.Generator().manual_seed(seed)))


def targets(X):
    return ((X == 3).sum(dim=1, keepdim=True) - 0.5 * (X == 0).sum(dim=1, keepdim=True)).double()


def fitted(model):
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model


def test_the_kernel_is_the_sum_of_products_of_its_parts():
    a, b = RBFKernel().double(), MaternKernel(nu=2.5).double()
    kernel = CombinedKernel({"a": a, "b": b}, ["a", "b * a"])
    kernel.shares = torch.tensor([0.3, 1.7])
    X, Z = rows(5), rows(4, seed=1)
    with torch.no_grad():
        of_a, of_b = a(X, Z).to_dense(), b(X, Z).to_dense()
        torch.testing.assert_close(kernel(X, Z).to_dense(), 0.3 * of_a + 1.7 * of_a * of_b)
        torch.testing.assert_close(kernel(X, diag=True), torch.full((5,), 2.0).double())


def test_elements_of_a_batch_have_shares_of_their_own():
    shape = torch.Size([2])
    kernel = CombinedKernel({"a": RBFKernel(batch_shape=shape)}, ["a"], batch_shape=shape)
    kernel.shares = torch.tensor([[0.5], [2.0]])
    X = torch.zeros(3, 1)
    with torch.no_grad():
        assert kernel(X).to_dense()[:, 0, 0].tolist() == pytest.approx([0.5, 2.0])
        assert kernel(X, diag=True)[:, 0].tolist() == pytest.approx([0.5, 2.0])


def test_one_distance_alone_has_its_exponential_kernel():
    X = rows(8)
    for distance in (HOTNN(space=SPACE), WeisfeilerLehman(SPACE)):
        model = CombinedGP(X, targets(X), space=SPACE, parts={"one": distance})
        with torch.no_grad():
            expected = DistanceKernel(
                distance, landmarks=None if distance.negative_definite else X
            ).double()
            expected.scales = model.kernel.kernels["one"].scales
            torch.testing.assert_close(model.kernel(X).to_dense(), expected(X).to_dense())


def test_the_covariance_is_positive_semi_definite():
    X = rows(40)
    model = fitted(CombinedGP(X, targets(X), space=SPACE))
    with torch.no_grad():
        assert float(torch.linalg.eigvalsh(model.kernel(rows(60, seed=3)).to_dense()).min()) > -1e-9


def test_it_predicts_what_neither_distance_does_alone():
    X, Z = rows(40), rows(200, seed=1)
    features = SHARES(X)[:, 3:4]

    def errors(parts):
        model = fitted(CombinedGP(X, features, space=SPACE, parts=parts))
        with torch.no_grad():
            return float((model.posterior(Z).mean - SHARES(Z)[:, 3:4]).square().mean().sqrt())

    hotnn, shares = HOTNN(space=SPACE), SHARES
    assert errors({"hotnn": hotnn, "operations": shares}) < 0.5 * errors({"hotnn": hotnn})


def test_few_observations_leave_lengthscales_where_they_start():
    X = rows(3)
    model = CombinedGP(X, targets(X) + X[:, :1], space=SPACE)
    before = {name: kernel.scales.detach().clone() for name, kernel in model.kernel.kernels.items()}
    fitted(model)
    for name, kernel in model.kernel.kernels.items():
        assert 0.2 < float(kernel.scales.detach() / before[name]) < 5.0, name


def test_memories_are_asked_for_each_pair_once(monkeypatch):
    distance = TreeWasserstein(SPACE)
    memory, X = PairMemory(distance), rows(10)
    first = CombinedGP(X, targets(X), space=SPACE, parts={"tw": distance}, memories={"tw": memory})
    expected = first.posterior(X).mean.detach()
    monkeypatch.setattr(memory, "_between", lambda *_: pytest.fail("known pairs were computed"))
    again = CombinedGP(X, targets(X), space=SPACE, parts={"tw": distance}, memories={"tw": memory})
    assert torch.equal(again.posterior(X).mean.detach(), expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"terms": "hotnn"}, TypeError, "terms must be a sequence of str"),
        ({"terms": []}, ValueError, "terms must hold at least one term; got none"),
        ({"terms": ["hotnn", 3]}, TypeError, r"terms[1] must be a str; got 3"),
        ({"terms": ["hotnn", "wl * edits"]}, ValueError, r"terms[1] must multiply 'hotnn', 'wl'"),
        ({"terms": ["hotnn", "wl", " wl*"]}, ValueError, r"terms[2] must multiply"),
        ({"terms": ["hotnn * wl", "wl * hotnn"]}, ValueError, "terms[1] must not repeat"),
        (
            {"terms": ["a"], "parts": {"a": SHARES, "wl": SHARES}},
            ValueError,
            "terms must use all parts (leave 'wl' out of them)",
        ),
        ({"parts": {}}, ValueError, "parts must hold at least one"),
        ({"parts": [HOTNN(space=SPACE)]}, TypeError, "parts must be a mapping"),
        (
            {"parts": {"a b": SHARES}},
            ValueError,
            "parts must have names such as 'hotnn'; got 'a b'",
        ),
        ({"parts": {"a": 3}}, TypeError, "parts['a'] must be a NetworkDistance or a function"),
        (
            {"parts": {"a": TreeWasserstein(spaces.NASBenchMacro())}},
            ValueError,
            "parts['a'] must be of NASBench201",
        ),
        ({"memories": {"x": None}}, ValueError, "memories must be of distances among the parts"),
        ({"space": "nasbench201"}, TypeError, "space must be a SearchSpace"),
        ({"train_Y": torch.ones(4, 1).double()}, ValueError, "all 4 targets of output 0 are 1"),
    ],
)
def test_what_cannot_be_combined_is_refused(change, error, message):
    X = rows(4)
    with pytest.raises(error, match=re.escape(message)):
        CombinedGP(**({"train_X": X, "train_Y": targets(X), "space": SPACE} | change))


def test_kernels_that_are_none_are_refused():
    with pytest.raises(TypeError, match="kernels must be a mapping from names to Kernels"):
        CombinedKernel({"a": 3}, ["a"])


@pytest.mark.parametrize(
    "make",
    [
        lambda X, Y: CombinedGP(
            X, Y, space=SPACE, parts={"tw": TreeWasserstein(SPACE), "o": SHARES}
        ),
        lambda X, Y: DistanceGP(X, Y, distance=WeisfeilerLehman(SPACE)),
        lambda X, Y: HOTNNGP(X, Y, space=SPACE, learn=[]),
    ],
    ids=["combined", "distance", "hotnn"],
)
@pytest.mark.parametrize("given", [False, True], ids=["fitted", "given_an_observation"])
def test_single_rows_are_predicted_as_in_batches_of_their_own(make, given):
    X, Z = rows(12), rows(9, seed=2)
    model = make(X, targets(X)).eval()
    if given:
        model.posterior(X)
        model = model.condition_on_observations(Z[:2], targets(Z[:2]))
    with torch.no_grad():
        found = model.posterior(Z[:, None])
        expected = SingleTaskGP.posterior(model, Z[:, None])
    assert found.mean.shape == expected.mean.shape == (9, 1, 1)
    torch.testing.assert_close(found.mean, expected.mean, atol=1e-9, rtol=0.0)
    torch.testing.assert_close(found.variance, expected.variance, atol=1e-8, rtol=0.0)


def test_two_outputs_are_two_models():
    X, Z = rows(12), rows(5, seed=2)
    Y = torch.cat([targets(X), targets(X).square()], dim=1)
    both = CombinedGP(X, Y, space=SPACE)
    both.kernel.shares = torch.tensor([[0.2, 0.3, 0.4], [0.5, 0.6, 0.7]]).double()
    with torch.no_grad():
        found = both.posterior(Z)
        for place in range(2):
            one = CombinedGP(X, Y[:, place : place + 1], space=SPACE)
            one.kernel.shares = both.kernel.shares[place]
            expected = one.posterior(Z)
            part = both.subset_output([place]).posterior(Z)
            for of_both in (found.mean[:, place : place + 1], part.mean):
                torch.testing.assert_close(of_both, expected.mean)
            for of_both in (found.variance[:, place : place + 1], part.variance):
                torch.testing.assert_close(of_both, expected.variance, atol=1e-7, rtol=1e-6)


def test_a_model_of_hyperparameters_beside_networks_learns_from_both():
    joint = spaces.Joint(SPACE, {"lr": spaces.Log(1e-4, 1.0)})
    nets = joint.sample(25, generator=torch.Generator().manual_seed(0))
    Y = torch.tensor([[abs(net.values["lr"] - 0.1)] for net in nets], dtype=torch.float64)
    model = fitted(CombinedGP(nets[:20], Y[:20], space=joint))
    with torch.no_grad():
        found = model.posterior(nets[20:]).mean
    assert float((found - Y[20:]).abs().mean()) < 0.5 * float((Y - Y.mean()).abs().mean())
