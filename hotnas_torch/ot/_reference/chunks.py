"""Tensors by items, some of which are worked on; chunks of them that the device's memory holds."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

__all__ = ["Rows", "in_chunks", "numbers_at_once"]

_ON_CPU = 1 << 24
"""Numbers that are worked on together where caches count and not the calls."""
_SHARE_OF_GPU = 64
"""One of as many parts of a GPU's memory, in numbers of 8 bytes: two tiles of work may be there."""


def numbers_at_once(device: torch.device) -> int:
    """Numbers that the largest temporary tensors of one chunk may hold together."""
    if device.type == "cuda" and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(device).total_memory
        return max(_ON_CPU, int(total) // (8 * _SHARE_OF_GPU))
    return _ON_CPU


def in_chunks(items: Tensor, numbers: int) -> Iterator[Tensor]:
    """Split items, shape (B,), of which each works on so many numbers; no chunk is empty."""
    size = max(1, numbers_at_once(items.device) // max(1, numbers))
    return (part for part in items.split(size) if len(part))


@dataclass(frozen=True)
class Rows:
    """Tensors with one row per item."""

    def select(self, items: Tensor) -> Self:
        return type(self)(*(getattr(self, field.name)[items] for field in fields(self)))

    def fill(self, items: Tensor, found: Self) -> None:
        """Replace some of the items."""
        if found is not self:
            for field in fields(self):
                getattr(self, field.name)[items] = getattr(found, field.name)
