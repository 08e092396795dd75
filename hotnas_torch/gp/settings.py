"""Settings of kernels and models: unknown names and unusable values are refused at once."""

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

__all__ = [
    "KERNEL_SETTINGS",
    "LENGTHSCALE_SETTINGS",
    "check_kind",
    "known_settings",
    "positive",
    "span",
    "takes",
    "whole",
]

KERNEL_SETTINGS = ("batch_shape", "active_dims")
"""What every kernel passes on to :class:`gpytorch.kernels.Kernel`."""

LENGTHSCALE_SETTINGS = ("lengthscale_prior", "lengthscale_constraint")
"""What kernels with a lengthscale pass on to it."""

P = ParamSpec("P")
R = TypeVar("R")

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def takes(*passed_on: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a constructor or function refuse names that it does not know, before any work.

    Args:
        *passed_on: Names that it takes beyond those of its signature, through its ``**kwargs``.

    Returns:
        A decorator; the decorated raises a TypeError that names the unknown setting, the one that
        was perhaps meant, and all that are known.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known = (*_names(function), *passed_on)
        what = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            _refuse_unknown(what, kwargs, known)
            return function(*args, **kwargs)

        checked.known_settings = known  # type: ignore[attr-defined]
        return checked

    return decorate


def known_settings(function: Callable[..., Any], *, without: Iterable[str] = ()) -> tuple[str, ...]:
    """Names that a function decorated with `takes` knows, less some."""
    left_out = set(without)
    known: tuple[str, ...] = function.known_settings  # type: ignore[attr-defined]
    return tuple(name for name in known if name not in left_out)


def _names(function: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind in _NAMED and p.name != "self")


def _refuse_unknown(what: str, given: Iterable[str], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            raise TypeError(
                f"{what} has no setting {name!r}{meant}; it knows {', '.join(sorted(known))}"
            )


def positive(name: str, value: object) -> float:
    """Returns `value` as a float if it is a finite number > 0; the error names the argument."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a finite number > 0; got {_shown(value)}")
    number = float(value)
    if not 0.0 < number < math.inf:
        raise ValueError(f"{name} must be > 0 and finite; got {number:g}")
    return number


def whole(name: str, value: object, smallest: int) -> int:
    """Returns `value` if it is an integer >= `smallest`; the error names the argument."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer >= {smallest}; got {_shown(value)}")
    number = int(value)
    if number < smallest:
        raise ValueError(f"{name} must be at least {smallest}; got {number}")
    return number


def span(name: str, value: object) -> tuple[float, float]:
    """Returns `value` if it is a pair 0 < low < high < inf; the error names the argument."""
    expected = f"{name} must be a range (low, high) with 0 < low < high"
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{expected}; got {_shown(value)}")
    for end in value:
        if isinstance(end, bool) or not isinstance(end, Real):
            raise TypeError(f"{expected}; got {_shown(end)}")
    low, high = float(value[0]), float(value[1])
    if not 0.0 < low < high < math.inf:
        raise ValueError(f"{expected}; got ({low:g}, {high:g})")
    return low, high


def check_kind(name: str, value: object, kind: type, *, optional: bool = True) -> None:
    """Raises a TypeError unless `value` is of a class, or None where that is allowed."""
    if not isinstance(value, kind) and not (optional and value is None):
        expected = f"a {kind.__module__.split('.')[0]} {kind.__name__}"
        raise TypeError(
            f"{name} must be {expected}{' or None' if optional else ''}; got {_shown(value)}"
        )


def _shown(value: object) -> str:
    return f"{value!r}" if isinstance(value, Real | str) else type(value).__name__
