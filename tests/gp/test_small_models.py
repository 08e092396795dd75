"""What the model does with little data: on small spaces, and with data that it cannot use."""

import math

import pytest
import torch
from botorch.fit import fit_gpytorch_mll
from gpytorch.mlls import ExactMarginalLogLikelihood

from hotnas_torch import spaces
from hotnas_torch.distances import TreeWasserstein
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.gp import HOTNNGP, DistanceGP, FeatureGP, WeisfeilerLehmanGP
from hotnas_torch.spaces.encodings import encoding_of

SPACE = spaces.NASBench201()
MACRO = spaces.NASBenchMacro()


def rows(num):
    return SPACE.encode(SPACE.sample(num, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"train_X": rows(3)[:1], "train_Y": torch.ones(1, 1).double()}, ValueError, "two obs"),
        ({"train_Y": torch.tensor([[1.0], [math.nan], [2.0]])}, ValueError, "row 1, output 0 is"),
        ({"train_Y": torch.tensor([[1.0], [2.0], [math.inf]])}, ValueError, "row 2, output 0 is"),
        ({"train_Y": torch.full((3, 1), 0.25)}, ValueError, "all 3 targets of output 0 are 0.25"),
        ({"train_Y": torch.ones(3)}, ValueError, r"shape \(..., n, m\).*unsqueeze"),
        ({"train_X": rows(3)[:, :4]}, ValueError, "d >= 6"),
        ({"train_X": rows(3) + 9.0}, ArchitectureError, r"X\[0\].*describes no network"),
        ({"train_X": rows(3) + 0.5}, ArchitectureError, "whole number"),
        ({"space": "nasbench201"}, TypeError, "space must be a SearchSpace; got"),
        ({"combine": "sum", "train_X": torch.rand(3, 7)}, ValueError, "got 'sum'"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else None,
)
def test_what_cannot_be_modelled_is_refused(change, error, message):
    X = rows(3)
    arguments = {"train_X": X, "train_Y": X[:, :1], "space": SPACE} | change
    if change.get("combine"):
        arguments["train_X"] = torch.cat([X, X[:, :1]], dim=1)
    for name in ("train_X", "train_Y"):
        arguments[name] = arguments[name].double()
    with pytest.raises(error, match=message):
        HOTNNGP(**arguments)


@pytest.mark.parametrize("name", ["transnas_macro", "nasbench_macro"])
def test_small_spaces_are_modelled(name, rng):
    space = spaces.get(name)
    nets = space.sample(12, generator=rng, distinct=True)
    Y = space.encode(nets).square().sum(1, keepdim=True)
    model = HOTNNGP(space.encode(nets), Y, space=space)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    kernel = model.architecture_kernels[0]
    assert kernel.raw_eta.requires_grad
    assert kernel.raw_zeta.requires_grad
    assert torch.isfinite(model.posterior(space.encode(nets[:3])).mean).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda X, Y: HOTNNGP(X, Y, space=MACRO, learn=()),
        lambda X, Y: DistanceGP(X, Y, distance=TreeWasserstein(MACRO)),
        lambda X, Y: FeatureGP(X, Y, encoding_of(MACRO).of_rows),
        lambda X, Y: WeisfeilerLehmanGP(X, Y, space=MACRO),
    ],
    ids=["HOTNNGP", "DistanceGP", "FeatureGP", "WeisfeilerLehmanGP"],
)
@pytest.mark.parametrize(
    ("rows_as", "targets_as"),
    [
        (torch.int64, torch.float64),
        (torch.float32, torch.float64),
        (torch.float64, torch.int64),
        (torch.uint8, torch.int32),
    ],
)
def test_types_that_hold_the_same_numbers_make_the_same_model(make, rows_as, targets_as, rng):
    X = MACRO.encode(MACRO.sample(8, generator=rng, distinct=True))
    Y = X.square().sum(1, keepdim=True)
    expected = make(X, Y).posterior(X)
    model = make(X.to(rows_as), Y.to(targets_as))
    for test in (X, X.long(), X.float()):
        found = model.posterior(test)
        assert found.mean.dtype == torch.float64
        torch.testing.assert_close(found.mean, expected.mean)
        torch.testing.assert_close(found.variance, expected.variance)


def test_constant_targets_of_a_model_of_features_are_predicted(rng):
    X = MACRO.encode(MACRO.sample(6, generator=rng, distinct=True))
    model = FeatureGP(X, torch.full((6, 1), 3.0).double(), encoding_of(MACRO).of_rows)
    assert model.posterior(X).mean.flatten().tolist() == pytest.approx([3.0] * 6)
