"""What kernels pass on, and the former place of some functions of `hotnas_torch.arguments`."""

from typing import Any

from hotnas_torch.arguments import integer, kind, known_settings, number, takes
from hotnas_torch.arguments import interval as span

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
"""What every kernel passes on to `gpytorch.kernels.Kernel`."""

LENGTHSCALE_SETTINGS = ("lengthscale_prior", "lengthscale_constraint")
"""What kernels with a lengthscale pass on to it."""


def check_kind(name: str, value: Any, wanted: type, *, optional: bool = True) -> None:
    """Call `kind`."""
    kind(name, value, wanted, optional=optional)


def positive(name: str, value: object) -> float:
    """Call `number`."""
    return number(name, value, above=0.0)


def whole(name: str, value: object, smallest: int) -> int:
    """Call `integer`."""
    return integer(name, value, least=smallest)
