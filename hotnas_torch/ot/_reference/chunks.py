"""Tensors by items, some of which are worked on; chunks of them that the device's memory holds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Self, TypeVar

import torch
from torch import Tensor

__all__ = ["Rows", "in_chunks", "iterate", "numbers_at_once"]

_ON_CPU = 1 << 24
"""Numbers that are worked on together where caches count and not the calls."""
_SHARE_OF_GPU = 64
"""One of as many parts of a GPU's memory, in numbers of 8 bytes: two tiles of work may be there."""

_STEPS_BETWEEN_LOOKS = 8
"""Steps after which the host asks a device which items go on; a processor is asked after each."""


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

    def where(self, chosen: Tensor, other: Self) -> Self:
        """Return the same with the chosen items, a mask of shape (B,), of `other`."""
        mine, others = (
            [getattr(rows, field.name) for field in fields(self)] for rows in (self, other)
        )
        return type(self)(
            *(
                torch.where(chosen.view(-1, *[1] * (x.dim() - 1)), y, x)
                for x, y in zip(mine, others, strict=True)
            )
        )


_Given = TypeVar("_Given", bound=Rows)
_Found = TypeVar("_Found", bound=Rows)


def iterate(
    given: _Given,
    found: _Found,
    going: Tensor,
    step: Callable[[_Given, _Found, int], tuple[_Found, Tensor]],
    most: int,
) -> None:
    """Take steps with some of the items, each until it is done.

    Args:
        given: What steps read.
        found: What they change; holds the results at the end.
        going: Which items begin, shape (B,), bool.
        step: From rows of `given` and `found` and the number of the step, from 1 on, to what takes
            the place of the latter, and which of them go on, bool.
        most: Most steps.
    """
    together = 1 if going.device.type == "cpu" else _STEPS_BETWEEN_LOOKS
    items = going.nonzero().squeeze(1)
    rows, now = given.select(items), found.select(items)
    on = torch.ones_like(items, dtype=torch.bool)
    for number in range(1, most + 1):
        if len(items) == 0:
            return
        new, goes_on = step(rows, now, number)
        now = new if together == 1 else now.where(on, new)
        on = on & goes_on
        if number % together and number < most:
            continue
        kept = on.nonzero().squeeze(1)
        if len(kept) < len(items):
            found.fill(items, now)
            items, rows, now, on = items[kept], rows.select(kept), now.select(kept), on[kept]
    found.fill(items, now)
