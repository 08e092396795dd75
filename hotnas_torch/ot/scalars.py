"""Numbers that results may be differentiated in: floats, or tensors that hold one."""

import math

from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from hotnas_torch.arguments import number, shown
from hotnas_torch.ot._operators.operator import is_tracked, is_vmapped, plain

__all__ = ["Scalar", "constant", "fraction", "not_negative", "readable", "value_of"]

Scalar = float | Tensor
"""A number, or a 0-d tensor that holds one."""


def value_of(scalar: Scalar) -> float:
    """Return the number as a float, without its graph."""
    return float(plain(scalar)) if isinstance(scalar, Tensor) else scalar


def fraction(name: str, value: object) -> Scalar:
    """Return `value` if it is a number in [0, 1].

    Raises:
        TypeError: It is neither a real number nor a floating-point tensor without dimensions.
        ValueError: It is out of bounds, or `torch.vmap` maps it.
    """
    scalar, found = _checked(name, value, "a number in [0, 1]")
    if not 0.0 <= found <= 1.0:
        raise ValueError(f"{name} must be in [0, 1]; got {found}")
    return scalar


def not_negative(name: str, value: object) -> Scalar:
    """Return `value` if it is a finite number >= 0; raises as `fraction` does."""
    scalar, found = _checked(name, value, "a finite number >= 0")
    if not (found >= 0.0 and math.isfinite(found)):
        raise ValueError(f"{name} must be finite and >= 0; got {found}")
    return scalar


def constant(name: str, value: object) -> float:
    """Return `value` as a float >= 0; what it would have to be differentiated in is refused."""
    scalar = not_negative(name, value)
    if isinstance(scalar, Tensor) and is_tracked(scalar):
        raise ValueError(
            f"{name} is a constant, in which the distance is not differentiable; pass a float, or"
            f" {name}.detach()"
        )
    return value_of(scalar)


def readable(name: str, value: Tensor, expected: str) -> Tensor:
    """Return `value` if Python can look at it; else the error says that it must be `expected`.

    Raises:
        ValueError: A transform or a tracer has put something in its place, or it has no data.
    """
    if is_vmapped(value):
        raise ValueError(
            f"{name} must be {expected}; got what torch.vmap maps (make one distance per value,"
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


def _checked(name: str, value: object, expected: str) -> tuple[Scalar, float]:
    if isinstance(value, Tensor):
        if value.ndim != 0 or not value.is_floating_point():
            raise TypeError(
                f"{name} must be {expected}, a float or a 0-d floating-point tensor; got a tensor"
                f" of shape {tuple(value.shape)} and dtype {value.dtype}"
            )
        return value, value_of(readable(name, value, "one number"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"{name} must be {expected}, a float or a 0-d floating-point tensor; got {shown(value)}"
        )
    found = number(name, value)  # integers beyond floats are infinite
    return found, found
