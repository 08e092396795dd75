"""Where the encoded rows of a space hold operations."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hotnas_torch.spaces import (
    DARTS,
    NASBench201,
    NASBenchMacro,
    SearchSpace,
    Subset,
    TransNASMacro,
    TransNASMicro,
)

__all__ = ["Slots", "operation_slots"]


@dataclass(frozen=True)
class Slots:
    """Columns of an encoded row that hold an operation each.

    Attributes:
        blocks: Columns by block; operations are exchanged inside a block only, and every block has
            the same number of columns.
        operations: Names of the operations, k of them.
        first: Value that stands for the first operation in a row; the others follow. Any other
            value is an empty place.
        free: Whether every filling of the columns is an architecture, whatever the other columns.
    """

    blocks: tuple[tuple[int, ...], ...]
    operations: tuple[str, ...]
    first: int = 0
    free: bool = True

    @property
    def columns(self) -> list[int]:
        """All columns, block by block."""
        return [column for block in self.blocks for column in block]

    def present(self, rows: Tensor, columns: list[int]) -> Tensor:
        """Which of some columns hold an operation, (..., d) -> (..., len(columns)) bool."""
        values = rows[..., columns].round().long() - self.first
        return (values >= 0) & (values < len(self.operations))

    def counts(self, rows: Tensor) -> Tensor:
        """How often each operation occurs, (..., d) -> (..., k) int64."""
        num = len(self.operations)
        values = rows[..., self.columns].round().long() - self.first
        # What is no operation goes to a class of its own, which is dropped.
        values = torch.where((values >= 0) & (values < num), values, num)
        return functional.one_hot(values, num + 1).sum(dim=-2)[..., :num]

    def shares(self, rows: Tensor) -> Tensor:
        """Return the share of each operation, (..., d) -> (..., k); equal where there is none."""
        counts = self.counts(rows)
        total = counts.sum(dim=-1, keepdim=True)
        shares = counts.double() / total.clamp_min(1)
        return torch.where(total > 0, shares, 1.0 / counts.shape[-1]).to(rows.dtype)

    def joined(self) -> "Slots":
        """Return the same slots as one block."""
        return Slots((tuple(self.columns),), self.operations, self.first, self.free)


def operation_slots(space: SearchSpace) -> Slots | None:
    """Return where the rows of a space hold operations, or None where it does not choose any."""
    if isinstance(space, Subset):
        slots = operation_slots(space.space)
        if slots is None:
            return None
        return Slots(slots.blocks, slots.operations, slots.first, free=False)
    if isinstance(space, NASBench201 | NASBenchMacro | TransNASMicro):
        return Slots((tuple(range(space.dim)),), space.operations)
    if isinstance(space, DARTS):
        half = 4 * space.num_nodes
        return Slots((tuple(range(0, half, 2)), tuple(range(half, 2 * half, 2))), space.operations)
    if isinstance(space, TransNASMacro):
        return Slots((tuple(range(space.dim)),), space.operations, first=1, free=False)
    if space.operation_columns:
        return Slots((space.operation_columns,), space.operations)
    return None
