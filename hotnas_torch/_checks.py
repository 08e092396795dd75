"""Checks of the numbers and choices that configure a metric."""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from hotnas_torch.ot._operators.operator import is_tracked, is_vmapped, plain

__all__ = [
    "Scalar",
    "check_items",
    "choice",
    "constant",
    "count",
    "fraction",
    "not_negative",
    "number",
    "readable",
    "usable_device",
    "working_dtype",
]

Scalar = float | Tensor
"""A number, or a 0-d tensor that holds one."""

Choice = TypeVar("Choice", bound=str)
Item = TypeVar("Item")


def _scalar(name: str, value: object, expected: str) -> tuple[Scalar, float]:
    if isinstance(value, Tensor):
        if value.ndim != 0 or not value.is_floating_point():
            raise TypeError(
                f"{name} must be {expected}: a float or a 0-d floating-point tensor; got a tensor"
                f" of shape {tuple(value.shape)} and dtype {value.dtype}"
            )
        return value, number(readable(name, value, "one number"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"{name} must be {expected}: a float or a 0-d floating-point tensor;"
            f" got {type(value).__name__}"
        )
    return float(value), float(value)


def readable(name: str, value: Tensor, expected: str) -> Tensor:
    """Return `value` if Python can look at it; else the error says that `name` must be `expected`.

    Raises:
        ValueError: A transform or a tracer has put something in its place, or it has no data.
    """
    if is_vmapped(value):
        raise ValueError(
            f"{name} must be {expected}; got what torch.vmap maps (make one metric per value,"
            " in a loop)"
        )
    if get_proxy_mode() is not None:
        raise ValueError(
            f"{name} must be {expected}; got what torch.func.linearize records (use"
            " torch.func.jvp at each tangent)"
        )
    if value.is_meta:
        raise ValueError(f"{name} must hold a value; got a tensor on the meta device")
    return value


def number(value: Scalar) -> float:
    """The value as a float, without its graph."""
    return float(plain(value)) if isinstance(value, Tensor) else value


def constant(name: str, value: object) -> float:
    """Return `value` as a float >= 0; what it would have to be differentiated in is refused."""
    scalar = not_negative(name, value)
    if isinstance(scalar, Tensor) and is_tracked(scalar):
        raise ValueError(
            f"{name} is a constant, in which the distance is not differentiable; pass a float, or"
            f" {name}.detach()"
        )
    return number(scalar)


def fraction(name: str, value: object) -> Scalar:
    """Return `value` if it is a number in [0, 1]; the error names the argument `name`."""
    scalar, plain = _scalar(name, value, "a number in [0, 1]")
    if not 0.0 <= plain <= 1.0:
        raise ValueError(f"{name} must lie in [0, 1]; got {plain}")
    return scalar


def not_negative(name: str, value: object) -> Scalar:
    """Return `value` if it is a finite number >= 0; the error names the argument `name`."""
    scalar, plain = _scalar(name, value, "a finite number >= 0")
    if not (plain >= 0.0 and math.isfinite(plain)):
        raise ValueError(f"{name} must be finite and >= 0; got {plain}")
    return scalar


def count(name: str, value: object, *, at_most: int | None = None, why: str = "") -> int:
    """Return `value` if it is an integer >= 1 (and <= `at_most`); the error names `name`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer >= 1; got {type(value).__name__}")
    if value < 1 or (at_most is not None and value > at_most):
        limits = ">= 1" if at_most is None else f"between 1 and {at_most}{why}"
        raise ValueError(f"{name} must be {limits}; got {value}")
    return value


def choice(name: str, value: Choice, allowed: Sequence[Choice]) -> Choice:
    """Return `value` if it is one of `allowed`; the error names `name` and lists them."""
    if value not in allowed:
        known = ", ".join(repr(item) for item in allowed)
        raise ValueError(f"{name} must be one of {known}; got {value!r}")
    return value


def working_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Return float32 or float64, torch's default when `dtype` is None."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.float32 or torch.float64; got {dtype!r}")
    return dtype


def check_items(name: str, items: Sequence[Item], kind: type[Item]) -> list[Item]:
    """Return `items` as a list if it is a non-empty sequence of `kind`; the error names the index.

    Args:
        name: Argument to name in an error.
        items: What the caller passed.
        kind: Type that every item must have.

    Raises:
        TypeError: Not a sequence, or an item of another type.
        ValueError: An empty sequence.
    """
    if not isinstance(items, list | tuple):
        hint = " (wrap it in a list)" if isinstance(items, kind) else ""
        raise TypeError(
            f"{name} must be a list or tuple of {kind.__name__}; got {type(items).__name__}{hint}"
        )
    if not items:
        raise ValueError(f"{name} must hold at least one {kind.__name__}; got an empty list")
    for index, item in enumerate(items):
        if not isinstance(item, kind):
            raise TypeError(f"{name}[{index}] must be a {kind.__name__}; got {type(item).__name__}")
    return list(items)


def usable_device(device: torch.device | str | None) -> torch.device:
    """Reads `device`; None is the CPU.

    Raises:
        ValueError: No device is called so, or it is a GPU that this process does not have.
    """
    try:
        found = torch.device("cpu" if device is None else device)
    except RuntimeError as error:
        raise ValueError(
            f"device must be 'cpu', 'cuda', 'cuda:1' or alike; got {device!r}"
        ) from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {device!r} needs a GPU that torch can use, and there are"
            f" {torch.cuda.device_count()} (see torch.cuda.device_count(); device='cpu' needs none)"
        )
    return found
