"""Numbers of channels of supernets of any size."""

from __future__ import annotations

import math

__all__ = ["check_sizes", "scaled"]


def scaled(channels: int, width: float) -> int:
    """Returns so many channels times a width, rounded, at least 1."""
    return max(1, round(channels * width))


def check_sizes(width: float, input_channels: int, num_classes: int) -> None:
    """Checks what a supernet is built from.

    Raises:
        ValueError: ``width`` is not positive and finite, or a number is too small.
    """
    if not 0.0 < width < math.inf:
        raise ValueError(f"width must be positive and finite; got {width!r}")
    for name, value, smallest in (
        ("input_channels", input_channels, 1),
        ("num_classes", num_classes, 2),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
            raise ValueError(f"{name} must be an int of at least {smallest}; got {value!r}")
