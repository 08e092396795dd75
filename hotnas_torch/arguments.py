"""Checks of what callers pass: what is wrong is said by name, before work starts."""

from __future__ import annotations

import math
import operator
from typing import Any

from hotnas_torch.errors import NonFiniteValueError

__all__ = ["boolean", "finite", "integer", "number"]


def integer(name: str, value: Any, *, least: int | None = None) -> int:
    """Returns a whole number of any kind as an int.

    Args:
        name: What the message calls it.
        value: An int, or an integer of NumPy or torch; a bool is none.
        least: Smallest that is allowed.

    Raises:
        TypeError: It is no integer.
        ValueError: It is below ``least``.
    """
    try:
        if _is_boolean(value):
            raise TypeError
        found = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, {_got(value)}.") from None
    if least is not None and found < least:
        raise ValueError(f"{name} must be at least {least}, got {found}.")
    return found


def boolean(name: str, value: Any) -> bool:
    """Returns True or False.

    Raises:
        TypeError: It is neither.
    """
    if not _is_boolean(value):
        raise TypeError(f"{name} must be True or False, {_got(value)}.")
    return bool(value)


def number(name: str, value: Any) -> float:
    """Returns a number of any kind as a float.

    Args:
        name: What the message calls it.
        value: A real number, NaN and infinities included; or an array or tensor that holds just
            one. A text that reads like a number is none, and a bool neither.

    Raises:
        TypeError: It is no number.
    """
    found = value
    if callable(item := getattr(value, "item", None)):
        try:
            found = item()
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{name} must be one number, {_got(value)}.") from None
    if _is_boolean(found) or not hasattr(type(found), "__float__"):
        raise TypeError(f"{name} must be a number, {_got(value)}.")
    try:
        return float(found)
    except OverflowError:
        return math.inf if found > 0 else -math.inf


def finite(name: str, value: Any) -> float:
    """Returns a value of an objective as a float, NaN being a failed evaluation.

    Raises:
        TypeError: It is no number, see :func:`number`.
        NonFiniteValueError: It is infinite.
    """
    found = number(name, value)
    if math.isinf(found):
        raise NonFiniteValueError(
            f"{name} must be finite, or NaN for a failed evaluation; got {found}."
        )
    return found


def _is_boolean(value: Any) -> bool:
    # NumPy's and torch's have a dtype that says so.
    return isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))


def _got(value: Any) -> str:
    return f"got {value!r} of type {type(value).__name__}"
