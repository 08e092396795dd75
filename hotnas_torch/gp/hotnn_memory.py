"""HOTNN between numbered networks while its parameters move: distances and couplings."""

from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from hotnas_torch.arch import Cell, Network
from hotnas_torch.distances import HOTNN, HeldCouplings
from hotnas_torch.distances._tables.cell_tables import unique_cells
from hotnas_torch.gp.memory import Index, NetworkIndex, PairMemory
from hotnas_torch.ot._operators.operator import is_tracked
from hotnas_torch.spaces import SearchSpace

__all__ = ["HOTNNMemory", "Holding"]

_MAX_SETTINGS = 4
"""Sets of parameters whose distances are remembered."""

_MOST_HELD = 16
"""Sets of couplings held per batch element, enough for a few mini-batches."""


class _CellIndex(Index[Cell]):
    """Numbers of cells; isomorphic ones share one."""

    def key(self, thing: Cell) -> str:
        return thing.key


class _OnePart(PairMemory):
    """Pairs of a `HOTNN`, which may be replaced by one of the same parameters."""

    distance: HOTNN

    def _num_parts(self) -> int:
        return 1


class _CellPairs(_OnePart):
    """Distances between cells."""

    def _between(self, things_a: list[Cell], things_b: list[Cell] | None) -> Tensor:
        return self.distance.ifgw(things_a, things_b).unsqueeze(0)


class _NetworkPairs(_OnePart):
    """Distances between networks, from those between their cells."""

    def __init__(self, distance: HOTNN, index: NetworkIndex, cells: _CellPairs) -> None:
        super().__init__(distance, index)
        self.cells = cells

    def _between(self, things_a: list[Network], things_b: list[Network] | None) -> Tensor:
        rows = self._numbers(things_a)
        inside = self.cells(rows, rows if things_b is None else self._numbers(things_b))[0]
        return self.distance(things_a, things_b, cells=inside).unsqueeze(0)

    def _numbers(self, nets: list[Network]) -> Tensor:
        distinct, _ = unique_cells([cell for net in nets for cell in net.cells])
        return torch.tensor([self.cells.index.number(cell) for cell in distinct])


@dataclass(slots=True, eq=False)
class _Setting:
    """What is known for one set of parameters.

    Attributes:
        coefficients: What iFGW depends on.
        shares: What HOTNN depends on beyond.
        networks: Distances, and those between cells, which do not depend on `shares`.
    """

    coefficients: Tensor
    shares: Tensor
    networks: _NetworkPairs


@dataclass(frozen=True, slots=True)
class _Square:
    """Couplings between one set of networks, for one set of parameters."""

    numbers: Tensor
    coefficients: Tensor
    shares: Tensor
    couplings: HeldCouplings


class HOTNNMemory:
    """Distances between numbered networks, computed once per set of parameters.

    A change of eta or zeta computes transports between cells again, but no distance between cells.
    Deep copies share the memory; a pickled one is empty.

    Args:
        space: Space of the networks.

    Attributes:
        index: Numbers of the networks.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.index = NetworkIndex(space)
        self._cells = _CellIndex()
        self._settings: dict[int, list[_Setting]] = {}
        self._last: dict[int, _Square] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"space": self.index.space}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

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
            return self._networks(metric, element)(rows, cols)[0]

    def _networks(self, metric: HOTNN, element: int) -> PairMemory:
        """Return what is known for the parameters of a metric, of which few sets are kept."""
        coefficients, shares = metric.ifgw.coefficients(), metric.shares()
        kept = self._settings.setdefault(element, [])
        found = [one for one in kept if _same(one.coefficients, coefficients)]
        if found:
            setting = found[0]
            kept.remove(setting)
            if not _same(setting.shares, shares):
                setting.shares = shares
                setting.networks.forget()
        else:
            cells = _CellPairs(metric, self._cells)
            networks = _NetworkPairs(metric, self.index, cells)
            setting = _Setting(coefficients, shares, networks)
        # The parameters agree, their graphs need not.
        setting.networks.distance = setting.networks.cells.distance = metric
        self._settings[element] = [*kept, setting][-_MAX_SETTINGS:]
        return setting.networks

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
        memory: HOTNNMemory,
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


@dataclass(slots=True)
class Holding:
    """Couplings that stay as they were found.

    Attributes:
        chosen: Whether `couplings_held` asked for it, for all evaluations; otherwise a training
            did, for those with gradients.
        couplings: By batch element, rows and columns.
    """

    chosen: bool
    couplings: dict[tuple[int, bytes, bytes], HeldCouplings] = field(default_factory=dict)

    def find(
        self, memory: HOTNNMemory, metric: HOTNN, rows: Tensor, cols: Tensor, element: int
    ) -> HeldCouplings:
        """Couplings, held from now on; arguments as for `HOTNNMemory.couplings`."""
        name = element, rows.numpy().tobytes(), cols.numpy().tobytes()
        if name not in self.couplings:
            found = memory.couplings(metric, rows, cols, element)
            mine = [other for other in self.couplings if other[0] == element]
            if len(mine) >= _MOST_HELD:
                del self.couplings[mine[0]]
            self.couplings[name] = found
        return self.couplings[name]


def _same(x: Tensor, y: Tensor) -> bool:
    return x.dtype == y.dtype and x.device == y.device and torch.equal(x, y)
