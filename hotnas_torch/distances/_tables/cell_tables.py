# Over 400 lines: one table and what is computed from it.
"""Unique cells as solver-ready tensors, and the distances of chosen pairs of them."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.arch import ArchitectureBatch, Cell, OperationTree
from hotnas_torch.distances._tables.cost_slopes import CostSlopes
from hotnas_torch.distances._tables.envelope import HeldCells
from hotnas_torch.matrices.pairwise import distinct_pairs
from hotnas_torch.matrices.solve_log import Reports, SolveLog
from hotnas_torch.ot._operators import (
    Backend,
    cell_distances,
    fgw,
    fgw_backward,
    partial_fgw,
)

__all__ = ["CellTables", "SolverSettings", "pair_costs", "partial_masses", "unique_cells"]

LOSS_L1 = 0
PAIR_SETS = {"all": 0, "directed": 1, "ordered": 2}
"""Codes of the solver's pair sets."""

_HELD_ELEMENTS = 2**20
"""Entries of all couplings that exist at one time while slopes are computed."""


@dataclass(frozen=True, slots=True)
class SolverSettings:
    """What the fused solver needs to know beside the tables.

    Attributes:
        alpha: Weight of the pairwise term, 1 - lam.
        pairs: "directed" or "ordered".
        literal: Whether the node cost is multiplied as Eq. 9 prints it.
        num_starts: Starts per pair, the best objective kept.
        tol: Relative duality gap at which a pair is finished.
        max_iter: Largest number of transports per start.
        backend: "auto", "ext" or "torch".
        partial: Share of the nodes of the smaller cell that are matched; None for all of both.
    """

    alpha: float
    pairs: Literal["directed", "ordered"]
    literal: bool
    num_starts: int
    tol: float
    max_iter: int
    backend: Backend
    partial: float | None = None


@dataclass(frozen=True, slots=True)
class _SizeClass:
    """Tensors of the cells that have one number of nodes: no padding, so no padded work."""

    start: int
    labels: Tensor
    lengths: Tensor
    reachable: Tensor
    features: Tensor
    struct: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> "_SizeClass":
        return _SizeClass(
            self.start,
            self.labels.to(device),
            self.lengths.to(device),
            self.reachable.to(device),
            self.features.to(device),
            self.struct.to(device),
            self.weights.to(device),
        )


def unique_cells(cells: Sequence[Cell]) -> tuple[list[Cell], list[int]]:
    """Canonical, distinct cells in the order that fixes which cell of a pair gives the rows.

    Args:
        cells: Any cells; isomorphic ones count once.

    Returns:
        The canonical forms sorted by (number of nodes, key), and the position in that list of
        every given cell. Two cells are ordered alike in every list that holds both, which is what
        makes their distance the same to the bit wherever it is computed.
    """
    # Spaces hand out shared cell objects, so most of a long list is settled by identity.
    by_identity = {id(cell): cell for cell in cells}
    by_key = {cell.key: cell.canonical() for cell in by_identity.values()}
    order = sorted(by_key, key=lambda key: (by_key[key].num_nodes, key))
    position = {key: index for index, key in enumerate(order)}
    by_object = {identity: position[cell.key] for identity, cell in by_identity.items()}
    return [by_key[key] for key in order], [by_object[id(cell)] for cell in cells]


def pair_costs(
    labels: Tensor,
    lengths: Tensor,
    reachable: Tensor,
    label_cost: Tensor,
    eps: Tensor | float,
    unreachable: Tensor | float,
) -> Tensor:
    """Costs between the nodes of one cell (Eq. 6), finite where no information flows.

    Args:
        labels: Operation of every node, shape (U, n), int64.
        lengths: Path lengths of every node, shape (U, n, 6).
        reachable: Whether a directed path leads from the row's to the column's node, (U, n, n).
        label_cost: eps times the operation costs, shape (L, L).
        eps: Share of the operation cost, in [0, 1].
        unreachable: Cost where no path leads from i to k.

    Returns:
        eps * D(o_i, o_k) + (1 - eps) * H(s_i, s_k) where k is reachable from i, `unreachable`
        elsewhere, 0 on the diagonal; shape (U, n, n).
    """
    operation = label_cost[labels[:, :, None], labels[:, None, :]]
    return _pair_costs(operation, lengths, reachable, eps, unreachable)


def partial_masses(n: int, m: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Masses of the nodes of two cells of which a part is matched, (n,) and (m,).

    Every node has the same, so that a cell lies within a larger one; the smaller cell has 1 in all.
    """
    each = 1 / min(n, m)
    return like.new_full((n,), each), like.new_full((m,), each)


def _pair_costs(
    operation: Tensor,
    lengths: Tensor,
    reachable: Tensor,
    eps: Tensor | float,
    unreachable: Tensor | float,
) -> Tensor:
    """`pair_costs` from eps times the operation costs between the nodes, shape (U, n, n)."""
    cost = operation + (1 - eps) * _mean_difference(lengths, lengths)
    limit = torch.as_tensor(unreachable, dtype=cost.dtype, device=cost.device)
    cost = torch.where(reachable, cost, limit)
    diagonal = torch.eye(cost.shape[-1], dtype=torch.bool, device=cost.device)
    return cost.masked_fill(diagonal, 0.0)


def _mean_difference(x: Tensor, y: Tensor) -> Tensor:
    """H, the mean absolute difference of path lengths: (U, n, 6) and (U, m, 6) to (U, n, m)."""
    return torch.cdist(x, y, p=1.0) / x.shape[-1]


class CellTables:
    """Unique cells with everything that a distance between two of them needs.

    Args:
        cells: Canonical, distinct cells sorted by size, as `unique_cells` returns them.
        tree: Operation tree with a row for every label.
        eps: Share of the operation cost in node and pair costs.
        max_nodes: Nodes of the space's largest cell, where path lengths are raw; None normalises
            path lengths by the cell's longest path.
        unreachable: Pair cost where no path leads from one node to the other.
        settings: Solver settings.
        dtype: float32 or float64.
        device: Where the tensors live.
        log: Receives what the solver reports; None makes one.
        label_cost: eps times the operation costs, (L, L), if these are known already.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        *,
        tree: OperationTree,
        eps: Tensor | float,
        max_nodes: int | None,
        unreachable: Tensor | float,
        settings: SolverSettings,
        dtype: torch.dtype,
        device: torch.device,
        log: SolveLog | None = None,
        label_cost: Tensor | None = None,
    ) -> None:
        self.cells = list(cells)
        self.settings = settings
        self.log = SolveLog(settings.max_iter) if log is None else log
        sizes = [cell.num_nodes for cell in self.cells]
        self._sizes = torch.tensor(sizes, dtype=torch.int64)
        self._tree = tree
        self._dtype, self._device = dtype, device
        if label_cost is None:
            label_cost = eps * tree.distance_matrix(dtype=dtype, device=device)
        self.label_cost = label_cost
        self._classes: dict[int, _SizeClass] = {}
        for size in sorted(set(sizes)):
            start = sizes.index(size)
            members = self.cells[start : start + sizes.count(size)]
            batch = self._batch(members, max_nodes)
            lengths = batch.path_lengths(normalize=max_nodes is None)
            reachable = batch.reachability()
            self._classes[size] = _SizeClass(
                start=start,
                labels=batch.labels,
                lengths=lengths,
                reachable=reachable,
                features=(1 - eps) * lengths / lengths.shape[-1],
                struct=_pair_costs(
                    self._costs_inside(batch.labels), lengths, reachable, eps, unreachable
                ),
                weights=batch.weights,
            )

    # What nodes are and cost: `NestedTables` has more to say about both.

    def _batch(self, cells: Sequence[Cell], max_nodes: int | None) -> ArchitectureBatch:
        """Cells of one size, with the number of every node's label."""
        return ArchitectureBatch.from_cells(
            cells, self._tree, max_nodes=max_nodes, device=self._device, dtype=self._dtype
        )

    def _costs_inside(self, labels: Tensor) -> Tensor:
        """Operation costs, times eps, within cells: labels (U, n) to (U, n, n)."""
        return self.label_cost[labels[:, :, None], labels[:, None, :]]

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self._device

    def to(self, device: torch.device) -> "CellTables":
        """Return the same tables on another device, which report to the same log."""
        moved = copy.copy(self)
        moved._device = device
        moved.label_cost = self.label_cost.to(device)
        moved._classes = {size: table.to(device) for size, table in self._classes.items()}
        return moved

    def labels_by_size(self) -> Iterator[Tensor]:
        """Numbers of the labels, shape (cells, nodes) int64 per size, in the order of the cells."""
        for table in self._classes.values():
            yield table.labels

    def operation_cost(self, row: int, col: int) -> Tensor:
        """Operation share of the node cost (Eq. 4) between two cells, shape (n, m)."""
        x, i = self._locate(row)
        y, j = self._locate(col)
        return self.label_cost[x.labels[i][:, None], y.labels[j]]

    def location_cost(self, row: int, col: int) -> Tensor:
        """Location share of the node cost (Eq. 4) between two cells, shape (n, m)."""
        x, i = self._locate(row)
        y, j = self._locate(col)
        return torch.cdist(x.features[i], y.features[j], p=1.0)

    def linear_factor(self, row: int, col: int) -> Tensor:
        """Return factors of the node cost: ones, or (n-1-i)(m-1-j) as Eq. 9 prints it."""
        return self._linear_factor(self.cells[row].num_nodes, self.cells[col].num_nodes)

    def _linear_factor(self, n: int, m: int) -> Tensor:
        if not self.settings.literal:
            return torch.ones(n, m, dtype=self._dtype, device=self._device)
        later_x = torch.arange(n - 1, -1, -1, dtype=self._dtype, device=self._device)
        later_y = torch.arange(m - 1, -1, -1, dtype=self._dtype, device=self._device)
        return later_x[:, None] * later_y

    def struct(self, index: int) -> Tensor:
        """Pair costs of one cell, shape (n, n)."""
        table, position = self._locate(index)
        return table.struct[position]

    def _locate(self, index: int) -> tuple[_SizeClass, int]:
        table = self._classes[self.cells[index].num_nodes]
        return table, index - table.start

    def block(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Distances between chosen cells.

        Args:
            rows: Positions of cells, shape (r,), int64 on the CPU.
            cols: Positions of cells, shape (c,), int64 on the CPU.

        Returns:
            Distances, shape (r, c); 0 where both positions are equal. An unordered pair that the
            block contains twice is solved once.
        """
        small, large, expand = distinct_pairs(rows, cols, len(self.cells))
        return expand(self.solve(small, large))

    def solve(self, small: Tensor, large: Tensor) -> Tensor:
        """Distances of pairs of positions, `small` giving the rows of the coupling.

        Args:
            small: Positions, shape (P,), int64 on the CPU.
            large: Positions, shape (P,), int64 on the CPU, larger than `small` item by item.

        Returns:
            Distances, shape (P,), on the device of the tables.

        Raises:
            SolverError: A pair ended without a finite value.
        """
        values = torch.zeros(small.shape, dtype=self._dtype, device=self._device)
        reports = Reports()
        for n, m, members, x, y in self._size_combinations(small, large):
            values[members] = self._solve_class(
                *(n, m, x, y),
                *(self._classes[n].labels, self._classes[m].labels, self.label_cost),
                reports,
            )
        self.log.take(reports)
        return values

    @property
    def bounded(self) -> bool:
        """Whether `bounds` can be had."""
        return self.settings.partial is None

    def bounds(self, small: Tensor, large: Tensor) -> Tensor:
        """Lower bounds of `solve`, shape (P,): the node costs alone, as no pair cost is negative.

        One transport problem, a fifth to a seventh of the price.
        """
        values = torch.zeros(small.shape, dtype=self._dtype, device=self._device)
        share = 1.0 - self.settings.alpha
        if share == 0.0:
            return values
        reports = Reports()
        for n, m, members, x, y in self._size_combinations(small, large):
            objective, gap, _, status = self._distances(
                *(n, m, x, y),
                *(self._classes[n].labels, self._classes[m].labels, self.label_cost),
                alpha=0.0,
                num_starts=1,
            )
            reports.add(objective, gap, status)
            values[members] = (objective - gap).clamp_min(0.0) * share
        self.log.take(reports)
        return values

    def held(self, rows: Tensor, cols: Tensor) -> HeldCells:
        """Couplings between chosen cells, found once and held; arguments as for `block`.

        Raises:
            SolverError: A pair ended without a finite value.

        Complexity: a pair costs one solution and O(n^2 m^2) for a dense coupling; 2E + 3 numbers
            are kept of it, E being the number of lengths and weights of the operation tree.
        """
        small, large, expand = distinct_pairs(rows, cols, len(self.cells))
        costs = CostSlopes(self._tree, self._dtype, self._device)
        slopes = torch.zeros(
            len(small), 2 * costs.num_coefficients + 3, dtype=self._dtype, device=self._device
        )
        reports = Reports()
        for n, m, members, x, y in self._size_combinations(small, large):
            size = max(1, _HELD_ELEMENTS // (n * m))
            for chunk, i, j in zip(*(t.split(size) for t in (members, x, y)), strict=True):
                slopes[chunk] = self._slopes(n, m, i, j, costs, reports)
        self.log.take(reports)
        return HeldCells(slopes, expand)

    def _size_combinations(
        self, small: Tensor, large: Tensor
    ) -> Iterator[tuple[int, int, Tensor, Tensor, Tensor]]:
        """Sizes (n, m) that occur among pairs, which pairs have them, and these, on the device.

        All goes there in one piece, so that every size can be queued before a result is looked at.
        """
        base = int(self._sizes.max()) + 1
        combined = self._sizes[small] * base + self._sizes[large]
        order = torch.argsort(combined, stable=True)
        sizes, counts = torch.unique_consecutive(combined[order], return_counts=True)
        sent = torch.stack([order, small[order], large[order]]).to(torch.int32)
        there = sent.to(self._device).to(torch.int64)
        parts = there.split(counts.tolist(), 1)
        for combination, (members, x, y) in zip(sizes.tolist(), parts, strict=True):
            yield combination // base, combination % base, members, x, y

    def _solve_class(
        self,
        n: int,
        m: int,
        small: Tensor,
        large: Tensor,
        labels_x: Tensor,
        labels_y: Tensor,
        label_cost: Tensor,
        reports: Reports,
    ) -> Tensor:
        """Distances of pairs of sizes (n, m), label_cost[labels_x, labels_y] between nodes."""
        settings = self.settings
        if settings.partial is not None:
            size = max(1, _HELD_ELEMENTS // (n * m))
            found = [
                self._coupled(n, m, x, y, labels_x, labels_y, label_cost, reports)[1]
                for x, y in zip(small.split(size), large.split(size), strict=True)
            ]
            return torch.cat(found).clamp_min(0.0)
        objective, gap, _, status = self._distances(
            *(n, m, small, large, labels_x, labels_y, label_cost),
            alpha=settings.alpha,
            num_starts=settings.num_starts,
        )
        reports.add(objective, gap, status)
        # Rounding may leave the objective of a perfect match a hair below zero.
        return objective.clamp_min(0.0)

    def _distances(
        self,
        n: int,
        m: int,
        small: Tensor,
        large: Tensor,
        labels_x: Tensor,
        labels_y: Tensor,
        label_cost: Tensor,
        *,
        alpha: float,
        num_starts: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Objective, gap, iterations and status of pairs; arguments as for `_solve_class`."""
        x, y, settings = self._classes[n], self._classes[m], self.settings
        return cell_distances(
            labels_x,
            x.features,
            x.struct,
            x.weights,
            labels_y,
            y.features,
            y.struct,
            y.weights,
            label_cost,
            (small - x.start).to(self._device),
            (large - y.start).to(self._device),
            alpha,
            LOSS_L1,
            PAIR_SETS[settings.pairs],
            int(settings.literal),
            num_starts,
            x.struct.new_empty((0, n, m)),
            settings.tol,
            settings.max_iter,
            backend=settings.backend,
        )

    def _coupled(
        self,
        n: int,
        m: int,
        small: Tensor,
        large: Tensor,
        labels_x: Tensor,
        labels_y: Tensor,
        label_cost: Tensor,
        reports: Reports,
    ) -> tuple[Tensor, Tensor]:
        """Couplings (P, n, m) and distances (P,) of pairs; arguments as for `_solve_class`."""
        x, y, settings = self._classes[n], self._classes[m], self.settings
        i, j = (small - x.start).to(self._device), (large - y.start).to(self._device)
        # In the order in which the fused solver adds: another rounding may find another optimum.
        location = x.features.new_zeros(len(i), n, m)
        for k in range(x.features.shape[-1]):
            location += (x.features[i, :, None, k] - y.features[j, None, :, k]).abs()
        cost = label_cost[labels_x[i][:, :, None], labels_y[j][:, None, :]] + location
        graphs = cost * self._linear_factor(n, m), x.struct[i], y.struct[j]
        alpha, nothing = cost.new_full((len(i),), settings.alpha), cost.new_empty(0)
        codes = LOSS_L1, PAIR_SETS[settings.pairs]
        if settings.partial is None:
            plan, objective, _, _, gap, _, status = fgw(
                *graphs,
                x.weights[i],
                y.weights[j],
                alpha,
                nothing,
                nothing,
                *codes,
                settings.num_starts,
                settings.tol,
                settings.max_iter,
                backend=settings.backend,
            )
        else:
            a, b = partial_masses(n, m, cost)
            plan, objective, *_, gap, _, status = partial_fgw(
                *graphs,
                a.expand(len(i), n),
                b.expand(len(i), m),
                alpha,
                torch.full_like(alpha, settings.partial),
                nothing,
                nothing,
                *codes,
                settings.num_starts,
                settings.tol,
                settings.max_iter,
                backend=settings.backend,
            )
        reports.add(objective, gap, status)
        return plan, objective

    def _slopes(
        self,
        n: int,
        m: int,
        small: Tensor,
        large: Tensor,
        costs: CostSlopes,
        reports: Reports,
    ) -> Tensor:
        """Return derivatives in the coefficients at the couplings found, shape (P, 2E + 3)."""
        x, y, settings = self._classes[n], self._classes[m], self.settings
        i, j = (small - x.start).to(self._device), (large - y.start).to(self._device)
        labels = x.labels, y.labels, self.label_cost
        plan, _ = self._coupled(n, m, small, large, *labels, reports)
        factor = self._linear_factor(n, m)
        moved = plan * factor
        exchanged = costs.of(moved, x.labels[i], y.labels[j])
        linear = (moved * _mean_difference(x.lengths[i], y.lengths[j])).sum((1, 2))
        edge_x, edge_y = fgw_backward(
            plan,
            x.struct[i],
            y.struct[j],
            plan.new_ones(len(i)),
            LOSS_L1,
            PAIR_SETS[settings.pairs],
            backend=settings.backend,
        )
        within = torch.zeros_like(exchanged)
        apart, unreached = torch.zeros_like(linear), torch.zeros_like(linear)
        for table, which, slope in ((x, i, edge_x), (y, j, edge_y)):
            reachable = table.reachable[which]
            reached = slope * reachable
            within += costs.of(reached, table.labels[which], table.labels[which])
            distance = _mean_difference(table.lengths, table.lengths)[which]
            apart += (reached * distance).sum((1, 2))
            rest = slope.masked_fill(reachable, 0.0)
            rest.diagonal(dim1=1, dim2=2).zero_()
            unreached += rest.sum((1, 2))
        parts = [exchanged, linear[:, None], within, apart[:, None], unreached[:, None]]
        return torch.cat(parts, dim=1)
