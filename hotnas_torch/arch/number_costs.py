"""What numbers of operations differ by: ratios, on a scale from 0 to 1."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["number_difference", "read_numbers", "weighed"]

_ELEMENTS = 2**20
"""Differences that exist at one time for one number."""


def read_numbers(operations: Sequence[Mapping[str, float]], names: Sequence[str]) -> Tensor:
    """Return the numbers of L operations in the order of F names, (L, F) float64, NaN for none."""
    rows = [[numbers.get(name, torch.nan) for name in names] for numbers in operations]
    table = torch.tensor(rows, dtype=torch.float64, device="cpu")
    return table.reshape(len(rows), len(names))


def number_difference(x: Tensor, y: Tensor) -> Tensor:
    r"""Return the difference of numbers that broadcast, in [0, 1].

    .. math:: 1 - \sqrt{\min(x, y) / \max(x, y)}

    1/2 where one of the two is NaN, which stands for no number, and 0 where both are. The square
    root is exp(-|log x - log y| / 2), so this is a metric, and its value depends on the two numbers
    alone, the same to the bit either way round.
    """
    # Roots first: a ratio of doubles may leave their range.
    root_x, root_y = x.sqrt(), y.sqrt()
    apart = 1.0 - torch.minimum(root_x, root_y) / torch.maximum(root_x, root_y)
    one = torch.where(x.isnan() & y.isnan(), 0.0, 0.5).to(apart.dtype)
    return torch.where(apart.isnan(), one, apart)


def weighed(numbers: Tensor, weights: Tensor) -> Tensor:
    """Return the weighed sums of differences between operations.

    Args:
        numbers: Of L operations, (L, F) float64, on the CPU.
        weights: Of the numbers, (F,).

    Returns:
        (L, L), in the dtype and on the device of the weights; differentiable in these.
    """
    columns = numbers.to(weights.device).unbind(1)
    blocks = []
    for rows in torch.arange(len(numbers)).split(max(1, _ELEMENTS // max(1, len(numbers)))):
        block = weights.new_zeros(len(rows), len(numbers))
        for column, weight in zip(columns, weights, strict=True):
            apart = number_difference(column[rows.to(column.device), None], column)
            block = block + weight * apart.to(weights.dtype)
        blocks.append(block)
    return torch.cat(blocks)
