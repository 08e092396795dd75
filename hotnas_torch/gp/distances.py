"""Distances between encoded rows, remembered while parameters stay as they are."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.distances import HOTNN, HeldCouplings
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.ot._operators.operator import is_tracked
from hotnas_torch.spaces import SearchSpace

__all__ = ["DistanceMemory", "NetworkIndex"]

_MAX_ENTRIES = 4
"""Sets of columns remembered per set of parameters."""

_MAX_ELEMENTS = 2**25
"""Distances remembered per set of columns."""


class NetworkIndex:
    """Numbers for the networks behind encoded rows; networks at distance 0 share one.

    Numbers are only ever added, so deep copies share them; models are copied whenever they are told
    a value.

    Args:
        space: Space whose rows are numbered.

    Attributes:
        networks: One network per number.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.networks: list[Network] = []
        self._by_row: dict[bytes, int] = {}
        self._by_key: dict[str, int] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "NetworkIndex":
        return self

    def __call__(self, X: Tensor) -> Tensor:
        """Numbers of the networks of rows.

        Args:
            X: Encoded rows, shape (..., d).

        Returns:
            Shape (...), int64 on the CPU.

        Raises:
            ArchitectureError: A row that encodes no network; the message gives its place.
            ValueError: Rows of another length than the space's.
        """
        if X.shape[-1] != self.space.dim:
            raise ValueError(
                f"X must have {self.space.dim} columns, those of space.encode for"
                f" {self.space!r}; got shape {tuple(X.shape)}"
            )
        # Adding 0 turns -0 into 0, which are different bytes.
        flat = X.detach().reshape(-1, X.shape[-1]).to("cpu", torch.float64) + 0.0
        distinct, inverse = distinct_rows(flat)
        names = [row.tobytes() for row in distinct.numpy()]
        unknown = [place for place, name in enumerate(names) if name not in self._by_row]
        if unknown:
            try:
                found = self.space.decode(distinct[unknown])
            except ArchitectureError:
                self.space.decode(flat)  # raises as well, and counts rows as the caller does
                raise
            for place, network in zip(unknown, found, strict=True):
                self._by_row[names[place]] = self._number(network)
        numbers = torch.tensor([self._by_row[name] for name in names], dtype=torch.int64)
        return numbers[inverse].reshape(X.shape[:-1])

    def _number(self, network: Network) -> int:
        number = self._by_key.setdefault(network.key, len(self.networks))
        if number == len(self.networks):
            self.networks.append(network)
        return number

    def select(self, numbers: Tensor) -> list[Network]:
        """Networks of the given numbers, shape (n,)."""
        return [self.networks[number] for number in numbers.tolist()]


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


@dataclass(slots=True)
class _Entry:
    """Distances of many networks to one set of columns, for one parameter setting.

    Attributes:
        coefficients: What iFGW depends on.
        shares: What HOTNN depends on beyond.
        place: Row in `table` of every network number seen, -1 for none, int64.
        table: Distances, shape (rows, columns).
        batches: Which networks were computed together, and their cells' distances.
    """

    coefficients: Tensor
    shares: Tensor
    place: Tensor
    table: Tensor
    batches: list[tuple[Tensor, Tensor]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Square:
    """Couplings between one set of networks, for one parameter setting."""

    numbers: Tensor
    coefficients: Tensor
    shares: Tensor
    couplings: HeldCouplings


class DistanceMemory:
    """Distances between numbered networks, computed once per parameter setting.

    A change of eta or zeta computes transports between cells again, but no distance between cells.
    Deep copies share the memory; a pickled one is empty.

    Args:
        space: Space of the networks.

    Attributes:
        index: Numbers of the networks.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.index = NetworkIndex(space)
        self._entries: dict[tuple[int, tuple[int, ...]], _Entry] = {}
        self._last: dict[int, _Square] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "DistanceMemory":
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"space": self.index.space}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["space"])  # type: ignore[misc]

    def distances(self, metric: HOTNN, rows: Tensor, cols: Tensor, element: int = 0) -> Tensor:
        """Distances without a graph.

        Args:
            metric: Metric with its parameters.
            rows: Distinct numbers, shape (r,).
            cols: Distinct numbers, shape (c,).
            element: Whose parameters these are, where several sets are in use at the same time.

        Returns:
            Shape (r, c).
        """
        with torch.no_grad():
            entry = self._entry(metric, cols, element)
            missing = rows[entry.place[rows] < 0]
            if len(missing):
                if (len(entry.table) + len(missing)) * len(cols) > _MAX_ELEMENTS:
                    self._forget_rows(entry)
                    missing = rows
                self._extend(entry, metric, missing, cols)
            return entry.table[entry.place[rows].to(entry.table.device)]

    def _entry(self, metric: HOTNN, cols: Tensor, element: int) -> _Entry:
        name = element, tuple(cols.tolist())
        coefficients, shares = metric.ifgw.coefficients(), metric.shares()
        entry = self._entries.pop(name, None)
        if entry is None or not _same(entry.coefficients, coefficients):
            nothing = coefficients.new_empty(0, len(cols))
            entry = _Entry(coefficients, shares, torch.empty(0, dtype=torch.int64), nothing)
        elif not _same(entry.shares, shares):
            # The cells' distances still hold; the networks' are computed from them again.
            entry.shares = shares
            column = self.index.select(cols)
            tables = [
                metric(self.index.select(batch), column, cells=cells)
                for batch, cells in entry.batches
            ]
            entry.table = torch.cat([coefficients.new_empty(0, len(cols)), *tables])
        missing = len(self.index.networks) - len(entry.place)
        if missing:
            entry.place = torch.cat([entry.place, entry.place.new_full((missing,), -1)])
        self._entries[name] = entry
        mine = [other for other in self._entries if other[0] == element]
        if len(mine) > _MAX_ENTRIES:
            del self._entries[mine[0]]
        return entry

    def _forget_rows(self, entry: _Entry) -> None:
        entry.place.fill_(-1)
        entry.table = entry.table[:0]
        entry.batches.clear()

    def _extend(self, entry: _Entry, metric: HOTNN, rows: Tensor, cols: Tensor) -> None:
        of_rows, of_cols = self.index.select(rows), self.index.select(cols)
        # The same list on both sides is half the work.
        columns = None if torch.equal(rows, cols) else of_cols
        cells = metric.cell_distances(of_rows, columns)
        values = metric(of_rows, columns, cells=cells)
        entry.place[rows] = torch.arange(len(entry.table), len(entry.table) + len(rows))
        entry.table = torch.cat([entry.table, values])
        entry.batches.append((rows, cells))

    def attached(self, metric: HOTNN, rows: Tensor, cols: Tensor, element: int = 0) -> Tensor:
        """`distances` with a graph to the parameters; couplings are found when it is walked."""
        values = self.distances(metric, rows, cols, element)
        coefficients, shares = metric.ifgw.coefficients(), metric.shares()
        if not is_tracked(coefficients, shares):
            return values
        apply: Any = _OnDemand.apply
        result: Tensor = apply(values, self, metric, rows, cols, element, coefficients, shares)
        return result

    def couplings(
        self, metric: HOTNN, rows: Tensor, cols: Tensor, element: int = 0
    ) -> HeldCouplings:
        """Couplings between numbered networks; arguments as for `distances`.

        Those of the last square matrix are remembered; after a change of eta or zeta, the part of
        them that belongs to the nodes.
        """
        of_rows = self.index.select(rows)
        if not torch.equal(rows, cols):
            return metric.couplings(of_rows, self.index.select(cols))
        with torch.no_grad():
            coefficients, shares = metric.ifgw.coefficients(), metric.shares()
        last, cells = self._last.get(element), None
        known = last is not None and torch.equal(last.numbers, rows)
        if last is not None and known and _same(last.coefficients, coefficients):
            if _same(last.shares, shares):
                return last.couplings
            cells = last.couplings.cells
        found = metric.couplings(of_rows, cells=cells)
        self._last[element] = _Square(rows, coefficients, shares, found)
        return found


class _OnDemand(torch.autograd.Function):
    """Known distances, whose couplings are found only if a gradient is asked for."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        memory: DistanceMemory,
        metric: HOTNN,
        rows: Tensor,
        cols: Tensor,
        element: int,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.find = lambda: memory.couplings(metric, rows, cols, element)
        ctx.save_for_backward(*parameters)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("distances can be differentiated once (pass create_graph=False)")
        leaves = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            ctx.find().evaluate(*leaves).backward(grad)
        return (None,) * 6 + tuple(leaf.grad for leaf in leaves)


def _same(x: Tensor, y: Tensor) -> bool:
    return x.dtype == y.dtype and x.device == y.device and torch.equal(x, y)
