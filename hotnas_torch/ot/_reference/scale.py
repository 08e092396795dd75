"""Exact changes of unit: every item is solved where its numbers are of size 1.

What the caller measures in, and how large a magnitude the dtype holds, then change no decision of a
solver. Powers of two do it without rounding.
"""

import torch
from torch import Tensor

__all__ = ["back", "exponent_of", "largest_of", "power_of_two"]


def largest_of(values: Tensor) -> Tensor:
    """Return the largest magnitude of each item, shape (B,); 0 where an item has no entries."""
    flat = values.flatten(1).abs()
    return flat.amax(1) if flat.shape[1] else flat.new_zeros(len(flat))


def exponent_of(values: Tensor) -> Tensor:
    """Return e with 2^e <= |values| < 2^(e + 1), int64, kept where 2^e and 2^-e are normal."""
    _, _, most = _layout(values.dtype)
    exponent = torch.frexp(values).exponent.to(torch.int64) - 1
    return torch.where(values == 0, -most, exponent).clamp(-most, most)


def power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 2^exponent; 0 or infinity where that is no normal number."""
    bits, digits, most = _layout(dtype)
    biased = (exponent + most + 1).clamp(0, 2 * most + 3)
    return (biased.to(bits) << digits).view(dtype)


def back(values: Tensor, exponent: Tensor) -> Tensor:
    """Multiply the items of `values` (B, ...) by 2^exponent (B,), in two steps for large ones."""
    first = exponent.div(2, rounding_mode="trunc")
    for part in (first, exponent - first):
        factor = power_of_two(part, values.dtype)
        values = values * factor.reshape(-1, *[1] * (values.dim() - 1))
    return values


def _layout(dtype: torch.dtype) -> tuple[torch.dtype, int, int]:
    """Integers of this width, binary digits of the fraction, largest e with 2^-e normal."""
    return (torch.int32, 23, 126) if dtype == torch.float32 else (torch.int64, 52, 1022)
