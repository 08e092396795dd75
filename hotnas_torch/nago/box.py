"""Boxes: spaces whose points are rows in the unit cube, for searches over few numbers."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from hotnas_torch.arguments import integer

__all__ = ["Box", "UnitBox", "check_box", "check_rows", "describe_box", "distinct_from"]


@runtime_checkable
class Box(Protocol):
    """The unit cube [0, 1]^d as hyperparameters, to be searched over or modelled.

    A point has a row of `dim` numbers in [0, 1]. Every row of the cube belongs to a point, several
    of them to the same one where a number is an integer or a choice. `UnitBox`, `ThetaSpace` and
    `FlatThetaSpace` are boxes, and so is whatever has these four.
    """

    @property
    def dim(self) -> int:
        """Columns d of a row."""
        ...

    def sample(self, num: int, *, generator: torch.Generator) -> Tensor:
        """Draw points uniformly, rounded.

        Args:
            num: How many, >= 0.
            generator: Source of randomness.

        Returns:
            (num, d) float64 on the CPU.
        """
        num = integer("num", num, least=0)
        drawn = torch.rand(
            num, self.dim, generator=generator, dtype=torch.float64, device=generator.device
        )
        return self.round(drawn.cpu())

    @abstractmethod
    def round(self, X: Tensor, /) -> Tensor:
        """Move rows (..., d) to where rows of the same point are equal."""
        ...

    @abstractmethod
    def decode(self, X: Tensor, /) -> Sequence[Any]:
        """Return the points of rows (N, d)."""
        ...


class UnitBox(Box):
    """The unit cube itself; its points are tuples of floats.

    Args:
        dim: Columns d, >= 1.
        levels: Number of values of each column, the middles of as many equal bins; 0 for any number
            in [0, 1]. None: all columns are continuous.

    Raises:
        ValueError: `dim` is below 1, `levels` has another length, or a negative entry.

    Example:
        >>> space = UnitBox(2, levels=(0, 2))
        >>> space.decode(torch.tensor([[0.3, 0.3]], dtype=torch.float64))
        [(0.3, 0.25)]
    """

    def __init__(self, dim: int, *, levels: Sequence[int] | None = None) -> None:
        dim = integer("dim", dim, least=1)
        levels = (0,) * dim if levels is None else tuple(levels)
        if len(levels) != dim:
            raise ValueError(f"levels must hold one number per column, {dim}; got {len(levels)}")
        levels = tuple(
            integer(f"levels[{column}]", count, least=0) for column, count in enumerate(levels)
        )
        self._dim = dim
        self.levels = levels

    @property
    def dim(self) -> int:
        """Columns d of a row."""
        return self._dim

    def round(self, X: Tensor, /) -> Tensor:
        """Move numbers of columns that have levels to the middles of their bins."""
        counts = torch.tensor(self.levels, dtype=X.dtype, device=X.device)
        places = (X * counts).floor().clamp_min(0.0).minimum(counts - 1.0)
        return torch.where(counts > 0, (places + 0.5) / counts, X)

    def decode(self, X: Tensor, /) -> list[tuple[float, ...]]:
        """Return rows (N, d) as tuples, rounded."""
        return [tuple(row) for row in self.round(X).tolist()]

    def __repr__(self) -> str:
        return f"UnitBox({self.dim}, levels={self.levels!r})"


def describe_box(space: Box) -> dict[str, Any]:
    """Return what tells a box from others, ready for `json.dumps`."""
    described: dict[str, Any] = {"name": type(space).__name__, "dim": space.dim}
    # Of UnitBox, and of boxes of hyperparameters with names and ranges.
    for name in ("levels", "dimensions"):
        described |= {name: [repr(entry) for entry in getattr(space, name, ())]}
    return described


def check_box(space: object) -> Box:
    """Return the space if it is a box.

    Raises:
        TypeError: It lacks what a box has.
    """
    if not isinstance(space, Box):
        raise TypeError(
            f"space must be a Box, with dim, sample, round and decode as UnitBox has; got {space!r}"
        )
    return space


def check_rows(name: str, rows: Tensor, dim: int) -> None:
    """Check that rows are numbers in the unit cube.

    Raises:
        TypeError: They are no tensor.
        ValueError: Another shape, or a number outside [0, 1]; the message gives the row.
    """
    if not isinstance(rows, Tensor):
        raise TypeError(f"{name} must be a tensor; got {type(rows).__name__}")
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise ValueError(f"{name} must have shape (N, {dim}); got {tuple(rows.shape)}")
    outside = ~((rows >= 0.0) & (rows <= 1.0))
    if bool(outside.any()):
        row, column = outside.nonzero()[0].tolist()
        raise ValueError(
            f"{name} must lie in [0, 1]; row {row}, column {column} is {float(rows[row, column])}"
        )


def distinct_from(rows: Tensor, known: Tensor) -> Tensor:
    """Which rows (N, d) equal neither a row of `known` (K, d) nor an earlier one, (N,) bool."""
    everything = torch.cat([known, rows])
    same = (everything[:, None] == rows[None]).all(dim=-1)
    before = torch.arange(len(everything))[:, None] < len(known) + torch.arange(len(rows))
    return ~(same & before).any(dim=0)
