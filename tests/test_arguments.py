"""What is taken, and what is refused by name before any work."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.arch import OperationTree
from hotnas_torch.arguments import (
    boolean,
    checked_options,
    choice,
    finite,
    integer,
    interval,
    items,
    kind,
    known_settings,
    number,
    random_generator,
    refuse_unknown,
    refused_by,
    takes,
    usable_device,
    working_dtype,
)
from hotnas_torch.errors import NonFiniteValueError


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_integers_of_all_kinds_are_taken_as_ints(value):
    found = integer("n", value, least=3, most=3)
    assert found == 3
    assert type(found) is int


@pytest.mark.parametrize("value", [True, np.bool_(True), torch.tensor(True), 3.0, "3", None, [3]])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(TypeError, match=r"^n must be an integer >= 1; got "):
        integer("n", value, least=1)


@pytest.mark.parametrize("value", [2**63, -(2**63), 10**5000], ids=["most", "least", "digits"])
def test_integers_beyond_64_bits_are_refused(value):
    with pytest.raises(ValueError, match=r"^n must be at (most 9223|least -9223)\d+; got "):
        integer("n", value)
    with pytest.raises(ValueError, match=r"^n must be between 0 and 9; got"):
        integer("n", value, least=0, most=9)


def test_several_booleans_are_no_boolean():
    with pytest.raises(TypeError, match=r"^b must be True or False; got Tensor"):
        boolean("b", torch.tensor([True, False]))


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), torch.tensor([0.5]), np.array(0.5)])
def test_numbers_of_all_kinds_are_taken_as_floats(value):
    found = number("x", value, above=0, most=1)
    assert found == 0.5
    assert type(found) is float


@pytest.mark.parametrize("value", ["0.5", True, None, torch.ones(2), 1j, [0.5]])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(TypeError, match=r"^x must be (a|one) number"):
        number("x", value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_without_bounds_all_numbers_are_taken_and_with_any_only_finite_ones(value):
    assert isinstance(number("x", value), float)
    for bound in ("least", "above", "most", "below"):
        with pytest.raises(ValueError, match=r"^x must be finite and"):
            number("x", value, **{bound: 0.0})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: integer("n", 0, least=1), ValueError, "n must be at least 1; got 0"),
        (lambda: integer("n", 9, most=8), ValueError, "n must be at most 8; got 9"),
        (lambda: integer("n", 9, least=1, most=8), ValueError, "n must be between 1 and 8; got 9"),
        (lambda: integer("n", "3"), TypeError, "n must be an integer; got '3' of type str"),
        (lambda: number("x", 0, above=0), ValueError, "x must be finite and > 0; got 0"),
        (lambda: number("x", -1, least=0), ValueError, "x must be finite and >= 0; got -1"),
        (lambda: number("x", 2, most=1), ValueError, "x must be finite and <= 1; got 2"),
        (lambda: number("x", 1, below=1), ValueError, "x must be finite and < 1; got 1"),
        (lambda: number("x", 1, least=0, below=1), ValueError, "x must be in [0, 1); got 1"),
        (lambda: number("x", 0, above=0, most=1), ValueError, "x must be in (0, 1]; got 0"),
        (lambda: number("x", [], above=0), TypeError, "x must be a finite number > 0; got list"),
        (lambda: number("x", [], least=0, most=1), TypeError, "x must be a number in [0, 1]; got"),
        (lambda: number("x", torch.ones(2)), TypeError, "x must be one number; got Tensor"),
        (lambda: boolean("b", 1), TypeError, "b must be True or False; got 1"),
        (lambda: choice("c", "x", ("a", "b")), ValueError, "c must be one of 'a', 'b'; got 'x'"),
        (lambda: choice("c", None, ("a", 0)), ValueError, "c must be one of 'a', 0; got None"),
        (lambda: interval("r", 3), TypeError, "r must be a range (low, high) with 0 < low < high"),
        (lambda: interval("r", (1, "2")), TypeError, "got (1, '2' of type str)"),
        (lambda: interval("r", (2, 1)), ValueError, "r must be a range"),
        (lambda: finite("y", math.inf), NonFiniteValueError, "y must be finite, or NaN for a fail"),
        (lambda: kind("t", 3, OperationTree), TypeError, "t must be an OperationTree; got 3"),
        (
            lambda: kind("t", [], torch.Tensor, optional=True, hint="stack it"),
            TypeError,
            "t must be a torch Tensor or None; got list (stack it)",
        ),
        (lambda: kind("s", 3, str), TypeError, "s must be a str; got 3"),
        (
            lambda: random_generator(0),
            TypeError,
            "generator must be a torch Generator; got 0 (pass generator=",
        ),
        (lambda: items("s", ["a", 3], str), TypeError, "s[1] must be a str; got 3"),
        (lambda: items("s", [], str), ValueError, "s must hold at least one str; got an empty"),
        (
            lambda: items("s", "a", str),
            TypeError,
            "s must be a list or tuple of str; got 'a' of",
        ),
        (lambda: working_dtype(torch.float16), TypeError, "dtype must be torch.float32 or torch.f"),
        (lambda: usable_device("gpu"), ValueError, "device must be 'cpu', 'cuda', 'cuda:1' or ali"),
    ],
)
def test_a_refusal_names_the_argument_what_was_expected_and_what_came(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_what_is_right_is_returned():
    assert boolean("b", np.bool_(False)) is False
    assert choice("c", 0, ("a", 0)) == 0
    assert interval("r", [1, 2]) == (1.0, 2.0)
    assert math.isnan(finite("y", math.nan))
    assert kind("space", spaces.Pooling(), spaces.SearchSpace).name == "pooling"
    assert kind("t", None, str, optional=True) is None
    assert items("s", ("a", "b"), str) == ["a", "b"]
    assert working_dtype(None) == torch.get_default_dtype()
    assert usable_device(None) == usable_device("cpu") == torch.device("cpu")


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert usable_device("cuda") == torch.device("cuda")
    with pytest.raises(ValueError, match=r"device 'cuda:1' needs a GPU .* there are 1"):
        usable_device("cuda:1")


# --- settings by name -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    rate: float = 0.1
    steps: int = 3


class Made:
    @takes("seed")
    def __init__(self, size, *, rate=0.1, **kwargs):
        self.given = (size, rate, kwargs)


@takes()
def made(size, *, rate=0.1):
    return size, rate


class Plain:
    def __init__(self, size, *, rate=0.1):
        pass


@pytest.mark.parametrize(
    ("function", "known"),
    [
        (Settings, ("rate", "steps")),
        (Made, ("size", "rate", "seed")),
        (made, ("size", "rate")),
        (Plain, ("size", "rate")),
    ],
)
def test_settings_of_functions_classes_and_dataclasses_are_known(function, known):
    assert known_settings(function) == known
    assert known_settings(function, without=["rate"]) == tuple(n for n in known if n != "rate")
    with pytest.raises(TypeError, match=r"settings has no setting 'rat' \(did you mean 'rate'\?\)"):
        refuse_unknown("settings", {"rat": 1}, known_settings(function))


def test_a_decorated_constructor_refuses_before_it_runs():
    assert Made(1, rate=2, seed=3).given == (1, 2, {"seed": 3})
    assert made(1) == (1, 0.1)
    message = "Made has no setting 'sed' (did you mean 'seed'?); it knows rate, seed, size"
    with pytest.raises(TypeError, match=re.escape(message)):
        Made(1, sed=3)
    with pytest.raises(TypeError, match=r"^made has no setting 'x'; it knows rate, size$"):
        made(1, x=3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rat": 1}, TypeError, r"model_options has no setting 'rat' \(did you mean 'rate'\?\)"),
        ({3: 1}, TypeError, "model_options has no setting 3; it knows rate, steps"),
        ([("rate", 1)], TypeError, "model_options must be a mapping of settings by name; got list"),
        ({"rate": torch.ones(1)}, TypeError, "model_options must be ready for json.dumps"),
        ({"rate": math.nan}, ValueError, "model_options must hold finite numbers"),
    ],
)
def test_options_that_are_handed_on_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        checked_options("model_options", options, known_settings(Settings))


def test_options_that_fit_are_copied():
    options: Mapping[str, float] = {"rate": 0.5}
    found = checked_options("model_options", options, known_settings(Settings))
    assert found == options
    assert found is not options
    assert checked_options("model_options", None, ()) == {}


def test_what_refuses_options_is_asked_and_named():
    with (
        pytest.raises(ValueError, match=r"^options = \{'rate': -1\} cannot be used: rate must be"),
        refused_by("options", {"rate": -1}),
    ):
        number("rate", -1, least=0.0)
