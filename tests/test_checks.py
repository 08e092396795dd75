import math

import pytest
import torch

from hotnas_torch._checks import (
    check_items,
    choice,
    count,
    fraction,
    not_negative,
    usable_device,
    working_dtype,
)


@pytest.mark.parametrize("value", [0, 1, 0.25, torch.tensor(0.25)])
def test_fractions_are_kept(value):
    assert float(fraction("lam", value)) == float(value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, torch.tensor(2.0)])
def test_a_fraction_out_of_range_is_named(value):
    with pytest.raises(ValueError, match=r"^lam must lie in \[0, 1\]; got "):
        fraction("lam", value)


@pytest.mark.parametrize("value", ["0.5", True, None, torch.ones(2), torch.tensor(1)])
def test_a_fraction_of_the_wrong_kind_is_named(value):
    with pytest.raises(TypeError, match=r"^lam must be a number"):
        fraction("lam", value)


@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_a_cost_must_be_finite_and_not_negative(value):
    with pytest.raises(ValueError, match=r"^unreachable must be finite and >= 0"):
        not_negative("unreachable", value)


def test_counts_have_limits():
    assert count("num_starts", 3, at_most=3) == 3
    with pytest.raises(ValueError, match="between 1 and 3, the starts there are; got 4"):
        count("num_starts", 4, at_most=3, why=", the starts there are")
    with pytest.raises(TypeError, match="got float"):
        count("max_iter", 1.0)


def test_a_choice_lists_what_there_is():
    with pytest.raises(ValueError, match="pairs must be one of 'directed', 'ordered'; got 'all'"):
        choice("pairs", "all", ("directed", "ordered"))


def test_working_dtype_is_torchs_default_or_what_is_asked_for():
    assert working_dtype(None) == torch.get_default_dtype()
    assert working_dtype(torch.float64) == torch.float64
    with pytest.raises(TypeError, match="float16"):
        working_dtype(torch.float16)


def test_lists_are_checked_item_by_item():
    assert check_items("cells", ("a", "b"), str) == ["a", "b"]
    with pytest.raises(TypeError, match=r"cells\[1\] must be a str; got int"):
        check_items("cells", ["a", 3], str)
    with pytest.raises(ValueError, match="cells must hold at least one str; got an empty list"):
        check_items("cells", [], str)
    with pytest.raises(TypeError, match=r"got int \(wrap it in a list\)"):
        check_items("numbers", 3, int)


def test_devices_are_checked_before_work(monkeypatch):
    assert usable_device(None) == usable_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device must be 'cpu', 'cuda', 'cuda:1' or alike; got 'g"):
        usable_device("gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert usable_device("cuda") == torch.device("cuda")
    with pytest.raises(ValueError, match=r"device 'cuda:1' needs a GPU .* there are 1"):
        usable_device("cuda:1")
