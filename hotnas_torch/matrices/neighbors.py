"""Nearest neighbours, without the whole matrix."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hotnas_torch.matrices.progress import Progress, progress_bar

__all__ = [
    "Neighbors",
    "Rows",
    "check_num_neighbors",
    "nearest",
    "nearest_by_bounds",
    "nearest_of_rows",
]

Rows = Callable[[Tensor], Tensor]
"""Distances, shape (r, C), of sorted distinct items, (r,) int64, to the C distinct items of the
columns; infinite where one is certainly not among the nearest."""


class Neighbors(NamedTuple):
    """Nearest neighbours of some networks.

    Attributes:
        distances: Ascending, shape (r, k).
        indices: Which networks they are, shape (r, k), int64; of equally near ones the first.
    """

    distances: Tensor
    indices: Tensor


def check_num_neighbors(k: int, others: int) -> None:
    """Refuse more neighbours than there are other networks, or none.

    Raises:
        TypeError: `k` is no integer.
        ValueError: `k` is out of range.
    """
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"k must be an integer; got {type(k).__name__}")
    if not 1 <= k <= others:
        raise ValueError(f"k must be between 1 and {others}, the other networks; got {k}")


def nearest(
    rows: Rows,
    row_items: Tensor,
    col_items: Tensor | None,
    k: int,
    *,
    at_once: int,
    progress: Progress = False,
) -> Neighbors:
    """Return the k nearest columns of every row.

    Args:
        rows: Computes distances.
        row_items: Item of every row, shape (A,), int64.
        col_items: Item of every column, shape (B,); None for the rows, of which none is its own
            neighbour.
        k: How many.
        at_once: How many items `rows` is asked for at a time.
        progress: As in `progress_bar`.
    """
    _, cols = torch.unique(row_items if col_items is None else col_items, return_inverse=True)
    indices = torch.empty(len(row_items), k, dtype=torch.int64)
    distances = None
    with progress_bar(progress, "neighbors", len(row_items)) as advance:
        order = torch.argsort(row_items, stable=True)
        for items in torch.unique(row_items).split(at_once):
            found = rows(items)
            first, last = torch.searchsorted(
                row_items[order], torch.stack([items[0], items[-1] + 1])
            ).tolist()
            for members in order[first:last].split(at_once):
                place = torch.searchsorted(items, row_items[members])
                part = found[place.to(found.device)][:, cols.to(found.device)]
                itself = members if col_items is None else None
                values, chosen = nearest_of_rows(part, itself, k)
                if distances is None:
                    distances = values.new_empty(len(row_items), k)
                distances[members.to(values.device)] = values
                indices[members] = chosen.cpu()
                advance(len(members))
    assert distances is not None
    return Neighbors(distances, indices.to(distances.device))


def nearest_of_rows(distances: Tensor, itself: Tensor | None, k: int) -> Neighbors:
    """Return the k nearest columns of rows of distances, (r, X); `itself` (r,) is never one."""
    if itself is not None:
        distances = distances.clone()
        distances[torch.arange(len(itself)), itself.to(distances.device)] = torch.inf
    values, places = distances.sort(dim=1, stable=True)
    return Neighbors(values[:, :k], places[:, :k])


def nearest_by_bounds(
    lower: Tensor, k: int, solve: Callable[[Tensor], Tensor], slack: float
) -> Tensor:
    """Return distances to the columns that can be among the k nearest, infinite elsewhere.

    The k of least bound are solved first. What is bounded from below by more than the farthest of
    these is not solved.

    Args:
        lower: Lower bounds of the distances, shape (r, c).
        k: How many columns have to be certain in each row.
        solve: Computes the distances of chosen entries, from shape (r, c), bool, to the same shape;
            infinite elsewhere.
        slack: Share by which rounding may have raised a bound.
    """
    k = min(k, lower.shape[1])
    chosen = torch.zeros_like(lower, dtype=torch.bool)
    chosen.scatter_(1, lower.topk(k, dim=1, largest=False).indices, True)
    distances = solve(chosen)
    farthest = distances.topk(k, dim=1, largest=False).values[:, -1:]
    rest = (lower * (1 - slack) <= farthest) & ~chosen
    return torch.where(rest, solve(rest), distances) if bool(rest.any()) else distances
