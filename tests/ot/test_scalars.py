import math

import pytest
import torch

from hotnas_torch.ot.scalars import constant, fraction, not_negative, value_of


@pytest.mark.parametrize("value", [0, 1, 0.25, torch.tensor(0.25)])
def test_fractions_are_kept(value):
    assert float(fraction("lam", value)) == float(value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, torch.tensor(2.0)])
def test_a_fraction_out_of_range_is_named(value):
    with pytest.raises(ValueError, match=r"^lam must be in \[0, 1\]; got "):
        fraction("lam", value)


@pytest.mark.parametrize("value", ["0.5", True, None, torch.ones(2), torch.tensor(1)])
def test_a_fraction_of_the_wrong_kind_is_named(value):
    with pytest.raises(TypeError, match=r"^lam must be a number"):
        fraction("lam", value)


@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_a_cost_must_be_finite_and_not_negative(value):
    with pytest.raises(ValueError, match=r"^unreachable must be finite and >= 0"):
        not_negative("unreachable", value)


def test_a_tensor_keeps_its_graph_and_a_constant_has_none():
    weight = torch.tensor(0.5, requires_grad=True)
    assert fraction("lam", weight) is weight
    assert value_of(weight) == 0.5
    assert constant("nu", weight.detach()) == 0.5
    with pytest.raises(ValueError, match=r"nu is a constant.*pass a float, or nu.detach\(\)"):
        constant("nu", weight)


def test_what_has_no_value_is_refused():
    with pytest.raises(ValueError, match="lam must hold a value"):
        fraction("lam", torch.tensor(0.5, device="meta"))
    with pytest.raises(ValueError, match=r"lam must be one number; got what torch.vmap maps"):
        torch.vmap(lambda one: fraction("lam", one))(torch.ones(3))
