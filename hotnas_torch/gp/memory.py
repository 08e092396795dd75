"""What encoded rows stand for, numbered; and what is known of numbers and of pairs of them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import shown
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space

__all__ = [
    "Index",
    "NetworkIndex",
    "NetworkMemory",
    "NumberedAnew",
    "PairMemory",
    "RowIndex",
    "typical_distance",
]

_MAX_ELEMENTS = 2**24
"""Remembered numbers beyond which pairs are forgotten."""

T = TypeVar("T")


class Index(ABC, Generic[T]):
    """Numbers for things; equal ones share one.

    Numbers are only ever added, so deep copies share them: models are copied whenever they are
    given an observation. A pickled index is empty.

    Attributes:
        things: What each number stands for.
    """

    def __init__(self) -> None:
        self.things: list[T] = []
        self._by_key: dict[Any, int] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"things": [], "_by_key": {}}

    def __len__(self) -> int:
        return len(self.things)

    @abstractmethod
    def key(self, thing: T) -> Any:
        """Return a name that equal things share, whatever their numbers are."""

    def number(self, thing: T) -> int:
        """Return the number of a thing, a new one if it is new."""
        number = self._by_key.setdefault(self.key(thing), len(self.things))
        if number == len(self.things):
            self.things.append(thing)
        return number

    def select(self, numbers: Tensor) -> list[T]:
        """Return what the given numbers, shape (n,), stand for."""
        return [self.things[number] for number in numbers.tolist()]


class RowIndex(Index[T]):
    """Numbers for what rows stand for.

    Args:
        dim: Columns of a row.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self._dim = dim
        self._by_row: dict[bytes, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_by_row": {}}

    @abstractmethod
    def _columns(self) -> str:
        """Return what the columns of a row are, for messages."""

    @abstractmethod
    def _decoded(self, rows: Tensor) -> Sequence[T]:
        """Return what distinct rows stand for."""

    def _check(self, rows: Tensor) -> None:
        """Raise an error that counts rows, shape (N, d), as the caller does."""

    def _rounded(self, rows: Tensor) -> Tensor:
        """Rows that are equal where what they stand for certainly is."""
        return rows

    def __call__(self, X: Tensor) -> Tensor:
        """Numbers of rows.

        Args:
            X: Rows, shape (..., d).

        Returns:
            Shape (...), int64 on the CPU.

        Raises:
            ValueError: Rows of another length, or that stand for nothing.
            ArchitectureError: A row that encodes no network; the message gives its place.
        """
        if X.shape[-1] != self._dim:
            raise ValueError(
                f"X must have {self._dim} columns, {self._columns()}; got shape {tuple(X.shape)}"
            )
        # Adding 0 turns -0 into 0, which are different bytes.
        flat = X.detach().reshape(-1, X.shape[-1]).to("cpu", torch.float64) + 0.0
        self._check(flat)
        distinct, inverse = distinct_rows(flat)
        names = [row.tobytes() for row in self._rounded(distinct).numpy()]
        unknown = [place for place, name in enumerate(names) if name not in self._by_row]
        if unknown:
            try:
                found = self._decoded(distinct[unknown])
            except ArchitectureError:
                self._decoded(flat)  # raises as well, and counts rows as the caller does
                raise
            for place, thing in zip(unknown, found, strict=True):
                self._by_row[names[place]] = self.number(thing)
        numbers = torch.tensor([self._by_row[name] for name in names], dtype=torch.int64)
        return numbers[inverse].reshape(X.shape[:-1])


class NetworkIndex(RowIndex[Network]):
    """Numbers for the networks behind encoded rows; networks at distance 0 share one.

    Args:
        space: Space whose rows are numbered.

    Raises:
        TypeError: `space` is no search space.
    """

    def __init__(self, space: SearchSpace) -> None:
        check_space(space)
        super().__init__(space.dim)
        self.space = space

    def _columns(self) -> str:
        return f"those of space.encode for {self.space!r}"

    def _decoded(self, rows: Tensor) -> Sequence[Network]:
        return self.space.decode(rows)

    def key(self, thing: Network) -> str:
        """Return the key of the network."""
        return thing.key


def distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows of a matrix, and which one every row is.

    Args:
        rows: Shape (N, d), float64 on the CPU, without -0.

    Returns:
        Shape (U, d), and (N,) int64.

    Complexity: O(N d + N log N), as rows are compared by a hash that is then verified.
    """
    generator = torch.Generator().manual_seed(0)
    high = torch.iinfo(torch.int64).max
    factors = torch.randint(-high, high, (rows.shape[1],), generator=generator) | 1
    bits = rows.contiguous().view(torch.int64)
    mixed = (bits ^ (bits >> 32)) * factors
    hashes, inverse = torch.unique(mixed.sum(1), return_inverse=True)
    place = torch.empty(len(hashes), dtype=torch.int64)
    place[inverse] = torch.arange(len(rows))
    distinct = rows[place]
    if torch.equal(distinct[inverse].view(torch.int64), bits):
        return distinct, inverse
    exact, inverse = torch.unique(rows, dim=0, return_inverse=True)
    return exact, inverse


class NetworkMemory(Generic[T]):
    """What a function says of networks, each asked about once.

    Deep copies share what is known; a pickled one knows nothing.

    Args:
        space: Search space of the rows.
        function: Maps N networks to N results, a list or a tensor whose first dimension they are.

    Attributes:
        index: Numbers of the networks.
    """

    def __init__(
        self, space: SearchSpace, function: Callable[[Sequence[Network]], Sequence[T] | Tensor]
    ) -> None:
        self.index = NetworkIndex(space)
        self._function = function
        self._known: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_known": None}

    def __call__(self, numbers: Tensor) -> Any:
        """Results for numbers: of shape (n,), a list; of any shape, where they are a tensor."""
        num_known = 0 if self._known is None else len(self._known)
        if new := self.index.things[num_known:]:
            found = self._function(new)
            if self._known is None:
                self._known = found
            elif isinstance(found, Tensor):
                self._known = torch.cat([self._known, found])
            else:
                self._known = [*self._known, *found]
        if isinstance(self._known, Tensor):
            return self._known[numbers]
        return [self._known[number] for number in numbers.tolist()]


class PairMemory:
    """The parts of a distance between numbered things, each pair computed once.

    Deep copies share the memory; a pickled one is empty. Where it has grown too large, rows that
    are no columns are forgotten, and everything if that does not help. Subclasses say what else
    than a `NetworkDistance` computes parts.

    Args:
        distance: The distance, a `distances.NetworkDistance` with a space if there is no `index`.
        index: Numbers of the things; None numbers the networks of the distance's space.

    Attributes:
        distance: As passed.
        index: Numbers of the things.
    """

    def __init__(self, distance: Any, index: Index[Any] | None = None) -> None:
        if index is None and not hasattr(distance, "space"):
            raise TypeError(
                f"distance must be one between networks, such as HOTNN; got {shown(distance)}"
            )
        self.distance = distance
        self.index: Index[Any] = NetworkIndex(distance.space) if index is None else index
        self.forget()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"distance": self.distance, "index": self.index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def forget(self) -> None:
        """Forget all pairs; numbers stay."""
        # Place of every number among rows and columns of the table, -1 for none.
        self._row = torch.empty(0, dtype=torch.int64)
        self._col = torch.empty(0, dtype=torch.int64)
        self._table = torch.empty(self._num_parts(), 0, 0, dtype=torch.float64)

    def _num_parts(self) -> int:
        return len(self.distance.parts)

    def _between(self, things_a: list[Any], things_b: list[Any] | None) -> Tensor:
        """Parts of distances, (K, A, B), symmetric to the bit; None stands for `things_a`."""
        found: Tensor = self.distance.part_distances(things_a, things_b)
        return found

    def __call__(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Parts of distances, without a graph.

        Args:
            rows: Distinct numbers, shape (r,).
            cols: Distinct numbers, shape (c,).

        Returns:
            Shape (K, r, c), in the type and on the device of what the distance returns.
        """
        with torch.no_grad():
            self._make_room(rows, cols)
            unknown = self._unknown(rows, cols)
            if bool(unknown.any()):
                # New rows first: where they are columns as well, they fill the others' gaps.
                self._compute(rows[unknown.all(1)], cols)
                unknown = self._unknown(rows, cols)
                self._compute(rows[unknown.any(1)], cols[unknown.any(0)])
            return self._table[:, self._row[rows][:, None], self._col[cols]]

    def _unknown(self, rows: Tensor, cols: Tensor) -> Tensor:
        return self._table[0][self._row[rows][:, None], self._col[cols]].isnan().cpu()

    def _compute(self, rows: Tensor, cols: Tensor) -> None:
        if len(rows) == 0 or len(cols) == 0:
            return
        # The same list on both sides is half the work.
        columns = None if torch.equal(rows, cols) else self.index.select(cols)
        found = self._between(self.index.select(rows), columns)
        # In the type and on the device of what it holds.
        self._table = self._table.to(found)
        self._table[:, self._row[rows][:, None], self._col[cols]] = found
        as_rows, as_cols = self._row[cols] >= 0, self._col[rows] >= 0
        mirrored = found[:, as_cols][:, :, as_rows].mT
        place = self._row[cols[as_rows]][:, None], self._col[rows[as_cols]]
        self._table[:, place[0], place[1]] = mirrored

    def _make_room(self, rows: Tensor, cols: Tensor) -> None:
        fresh = torch.full((len(self.index) - len(self._row),), -1)
        self._row, self._col = torch.cat([self._row, fresh]), torch.cat([self._col, fresh])
        if math.prod(self._size(rows, cols)) > _MAX_ELEMENTS:
            stays = (self._row >= 0) & (self._col >= 0)
            self._table = self._table[:, self._row[stays]]
            self._row = torch.full_like(self._row, -1)
            self._row[stays] = torch.arange(self._table.shape[1])
            if math.prod(self._size(rows, cols)) > _MAX_ELEMENTS:
                self.forget()
                self._row, self._col = torch.full((2, len(self.index)), -1)
        new_rows, new_cols = rows[self._row[rows] < 0], cols[self._col[cols] < 0]
        if len(new_rows) == 0 and len(new_cols) == 0:
            return
        _, num_rows, num_cols = self._table.shape
        grown = self._table.new_full(self._size(rows, cols), torch.nan)
        grown[:, :num_rows, :num_cols] = self._table
        self._row[new_rows] = torch.arange(num_rows, grown.shape[1])
        self._col[new_cols] = torch.arange(num_cols, grown.shape[2])
        self._table = grown
        self._mirror(new_cols[self._row[new_cols] >= 0])

    def _size(self, rows: Tensor, cols: Tensor) -> tuple[int, int, int]:
        """Shape of a table that holds these as well."""
        parts, num_rows, num_cols = self._table.shape
        num_rows += int((self._row[rows] < 0).sum())
        num_cols += int((self._col[cols] < 0).sum())
        return parts, num_rows, num_cols

    def _mirror(self, cols: Tensor) -> None:
        """Fill new columns of things that were rows before."""
        both = ((self._row >= 0) & (self._col >= 0)).nonzero().squeeze(1)
        known = self._table[:, self._row[cols][:, None], self._col[both]]
        self._table[:, self._row[both][:, None], self._col[cols]] = known.mT


class NumberedAnew(PairMemory):
    """Pairs that another memory keeps, with numbers of its own.

    Numbers of a memory that outlives models depend on all that was ever asked of it; those of a
    model's own, and with them its roundings, on the model's rows alone.

    Args:
        memory: Of a distance between networks; computes and keeps the pairs.
    """

    def __init__(self, memory: PairMemory) -> None:
        super().__init__(memory.distance)
        self._kept = memory

    def __getstate__(self) -> dict[str, Any]:
        return {"memory": self._kept}

    def _between(self, things_a: list[Any], things_b: list[Any] | None) -> Tensor:
        rows = self._known(things_a)
        return self._kept(rows, rows if things_b is None else self._known(things_b))

    def _known(self, things: list[Any]) -> Tensor:
        return torch.tensor([self._kept.index.number(thing) for thing in things])


def typical_distance(distances: Tensor) -> float:
    """Median distance between different things, from a matrix (n, n); 0 if there is none."""
    row, col = torch.triu_indices(len(distances), len(distances), offset=1)
    return float(distances[row, col].median()) if len(row) else 0.0
