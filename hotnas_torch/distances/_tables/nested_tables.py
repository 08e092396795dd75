"""Nested cells as solver-ready tensors: nodes that are graphs cost the distance between these.

With D the operation tree's cost of exchanging two operations, exchanging two nodes costs

* D between two operations;
* the iFGW distance between two graphs;
* the iFGW distance between a graph and `input -> o -> output`, for a graph and an operation o;
* the mean of D(e, o) over the operations o of a graph, for a graph and the input or output e of a
  cell; where nodes of the graph are graphs, the mean over nodes of what they cost.

This takes the place of D everywhere in iFGW. The definition is recursive and ends, as the graphs
inside a cell have fewer levels than the cell.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.arch import ArchitectureBatch, Cell, NestedCell, OperationTree
from hotnas_torch.distances._tables.cell_tables import CellTables, SolverSettings, unique_cells
from hotnas_torch.distances._tables.envelope import HeldCells
from hotnas_torch.distances._tables.network_tables import CellCosts
from hotnas_torch.matrices.pairwise import distinct_pairs, straight_pairs
from hotnas_torch.matrices.solve_log import Reports, SolveLog

__all__ = ["NestedTables", "tables_of"]

_INPUT, _OUTPUT = "input", "output"

_PAIRS_AT_ONCE = 64
"""Pairs of nested cells whose nodes are compared as one block, where pairs come as a list."""


def tables_of(cells: Sequence[Cell], **options: Any) -> CellTables:
    """`NestedTables` if a cell is nested, else `CellTables`; arguments as for these."""
    if any(isinstance(cell, NestedCell) for cell in cells):
        return NestedTables(cells, **options)
    return CellTables(cells, **options)


class NestedTables(CellTables):
    """Unique cells, nested or not, with everything that a distance between two of them needs.

    Labels are numbered: operations as in the tree, then parts. Building the tables compares the
    graphs that stand inside one cell.

    Args:
        cells: As for `CellTables`, like all that follow.
        tree: Operation costs, of the operations on all levels.
        eps: Share of operations against places in the node cost.
        max_nodes: Size of the largest graph on any level; None measures path lengths relatively.
        unreachable: Pair cost where no information flows, the same on all levels.
        settings: Settings of the solver.
        dtype: Type of the distances.
        device: Where they are computed.
        log: What the solvers report.
        label_cost: As for `CellTables`; all levels share it.

    Attributes:
        parts: Tables of the distinct graphs that are nodes of the cells, and of `input -> o ->
            output` for every operation o that is a node of the cells.

    Complexity: a block costs a block of the parts of its rows and columns, which `holding` spares,
        and its own pairs.
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
        if label_cost is None:
            label_cost = eps * tree.distance_matrix(dtype=dtype, device=device)
        log = SolveLog(settings.max_iter) if log is None else log
        options: dict[str, Any] = {
            "tree": tree,
            "eps": eps,
            "max_nodes": max_nodes,
            "unreachable": unreachable,
            "settings": settings,
            "dtype": dtype,
            "device": device,
            "log": log,
            "label_cost": label_cost,
        }
        graphs: list[Cell] = []
        operations: set[str] = set()
        for cell in cells:
            for label, graph in zip(cell.ops[1:-1], _graphs(cell)[1:-1], strict=True):
                if graph is None:
                    operations.add(label)
                else:
                    graphs.append(graph)
        alone = sorted(operations)
        chains = [Cell((_INPUT, label, _OUTPUT), ((0, 1), (1, 2))) for label in alone]
        unique, places = unique_cells([*graphs, *chains])
        self.parts = tables_of(unique, **options)
        self._held_parts: CellCosts | None = None
        self._eps = eps
        self._num_operations = len(tree.labels)
        self._part_numbers = {
            part.key: self._num_operations + place for place, part in enumerate(unique)
        }
        # Which part stands for a label; the input and the output are none.
        self._part_of = torch.full((self._num_operations + len(unique),), -1)
        self._part_of[self._num_operations :] = torch.arange(len(unique))
        for label, place in zip(alone, places[len(graphs) :], strict=True):
            self._part_of[tree.index(label)] = place
        self._ends = tree.index(_INPUT), tree.index(_OUTPUT)
        self._end_costs = _end_costs(self.parts, self._ends)
        super().__init__(cells, **options)

    def to(self, device: torch.device) -> "NestedTables":
        """Return the same tables on another device, which report to the same log."""
        moved = super().to(device)
        assert isinstance(moved, NestedTables)
        moved.parts = self.parts.to(device)
        moved._end_costs = self._end_costs.to(device)
        if self._held_parts is not None:
            moved._held_parts = self._held_parts.to(device)
        return moved

    @property
    def bounded(self) -> bool:
        """No: what nodes cost is a distance of its own."""
        return False

    def parts_of(self, cells: Tensor) -> Tensor:
        """Sorted distinct numbers of the parts that the given cells use, int64."""
        parts: Tensor = torch.unique(self._part_of[self._labels_of(cells)])
        return parts[parts >= 0]

    def holding(self, parts: CellCosts) -> "NestedTables":
        """Return the same tables with distances between parts that no block then computes."""
        with_parts = copy.copy(self)
        with_parts._held_parts = parts
        return with_parts

    def operation_cost(self, row: int, col: int) -> Tensor:
        """Operation share of the node cost between two cells, shape (n, m)."""
        x, i = self._locate(row)
        y, j = self._locate(col)
        costs = self._label_costs(
            *(self._labels_of(torch.tensor([number])) for number in (row, col))
        )
        rows, cols = costs.row_of[x.labels[i].cpu()], costs.col_of[y.labels[j].cpu()]
        return costs.distances[rows[:, None].to(self._device), cols.to(self._device)]

    def block(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Return distances between sorted distinct cells, as `CellTables.block`."""
        small, large, expand = distinct_pairs(rows, cols, len(self.cells))
        straight = straight_pairs(rows, cols, small, large, len(self.cells))
        costs = self._label_costs(self._labels_of(rows), self._labels_of(cols))
        values = torch.empty(small.shape, dtype=self._dtype, device=self._device)
        values[straight] = self._solve(small[straight], large[straight], costs)
        turned = ~straight
        if bool(turned.any()):
            values[turned] = self._solve(small[turned], large[turned], costs.transposed())
        return expand(values)

    def solve(self, small: Tensor, large: Tensor) -> Tensor:
        """Solve pairs of cells, as `CellTables.solve`."""
        values = torch.empty(small.shape, dtype=self._dtype, device=self._device)
        if len(small) == 0:
            return values
        for members in torch.argsort(small, stable=True).split(_PAIRS_AT_ONCE):
            x, y = small[members], large[members]
            costs = self._label_costs(self._labels_of(x), self._labels_of(y))
            values[members] = self._solve(x, y, costs)
        return values

    def held(self, rows: Tensor, cols: Tensor) -> HeldCells:
        """Refuse: with its coupling held, a distance of nested cells is not linear.

        Raises:
            ValueError: Always.
        """
        del rows, cols
        raise ValueError(
            "distances between nested cells have no gradient in lam, eps, unreachable and the"
            " lengths of the tree (pass them as numbers, or detached)"
        )

    def _batch(self, cells: Sequence[Cell], max_nodes: int | None) -> ArchitectureBatch:
        bare = [
            Cell((_INPUT, *(_INPUT for _ in cell.ops[1:-1]), _OUTPUT), cell.edges) for cell in cells
        ]
        labels = [
            [
                self._tree.index(label) if graph is None else self._part_numbers[label]
                for label, graph in zip(cell.ops, _graphs(cell), strict=True)
            ]
            for cell in cells
        ]
        return replace(
            super()._batch(bare, max_nodes), labels=torch.tensor(labels, device=self._device)
        )

    def _costs_inside(self, labels: Tensor) -> Tensor:
        numbers = labels.cpu()
        part = self._part_of[numbers]
        low = torch.minimum(part[:, :, None], part[:, None, :])
        high = torch.maximum(part[:, :, None], part[:, None, :])
        graph = numbers >= self._num_operations
        apart = (low >= 0) & (low != high) & (graph[:, :, None] | graph[:, None, :])
        num_parts = len(self.parts.cells)
        codes, place = torch.unique((low * num_parts + high)[apart], return_inverse=True)
        solved = self.parts.solve(codes // num_parts, codes % num_parts)
        between = solved.new_zeros(low.shape)
        between[apart] = solved[place]
        return self._node_costs(labels[:, :, None], labels[:, None, :], between)

    def _labels_of(self, cells: Tensor) -> Tensor:
        """Sorted distinct numbers of the labels of the given cells, int64 on the CPU."""
        sizes = self._sizes[cells]
        found = []
        for size in torch.unique(sizes).tolist():
            table = self._classes[size]
            found.append(table.labels.cpu()[cells[sizes == size] - table.start].flatten())
        labels: Tensor = torch.unique(torch.cat(found))
        return labels

    def _label_costs(self, rows: Tensor, cols: Tensor) -> CellCosts:
        """Costs, times eps, of exchanging labels of the given numbers, (R,) and (C,)."""
        part_rows, part_cols = self._part_of[rows], self._part_of[cols]
        between = torch.zeros(len(rows), len(cols), dtype=self._dtype, device=self._device)
        in_rows, in_cols = part_rows >= 0, part_cols >= 0
        has_graph = max(int(rows[-1]), int(cols[-1])) >= self._num_operations
        if has_graph and bool(in_rows.any()) and bool(in_cols.any()):
            row_set, row_place = torch.unique(part_rows[in_rows], return_inverse=True)
            col_set, col_place = torch.unique(part_cols[in_cols], return_inverse=True)
            found = self._between_parts(row_set, col_set)
            i, j = torch.nonzero(in_rows).squeeze(1), torch.nonzero(in_cols).squeeze(1)
            between[i[:, None], j] = found[row_place[:, None], col_place]
        costs = self._node_costs(
            rows[:, None].to(self._device), cols[None].to(self._device), between
        )
        return CellCosts.between(costs, rows, cols, len(self._part_of))

    def _between_parts(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Distances between parts, (R, C), taken from what is held if all are there."""
        held = self._held_parts
        if held is not None and bool(
            (held.row_of[rows] >= 0).all() and (held.col_of[cols] >= 0).all()
        ):
            return held.restricted(rows, cols).distances
        return self.parts.block(rows, cols)

    def _node_costs(self, x: Tensor, y: Tensor, between: Tensor) -> Tensor:
        """Costs, times eps, of exchanging labels.

        Args:
            x: Numbers of labels, any shape that broadcasts.
            y: Numbers of labels.
            between: Distances between the parts that stand for them, of the shape of the result;
                0 where one of them has no part.
        """
        last = self._num_operations - 1
        operation_x, operation_y = x <= last, y <= last
        by_tree = self.label_cost[x.clamp_max(last), y.clamp_max(last)]
        costs = torch.where(operation_x & operation_y, by_tree, self._eps * between)
        for end, end_costs in zip(self._ends, self._end_costs, strict=True):
            for label, other in ((x, y), (y, x)):
                to_graph = end_costs[(other - self._num_operations).clamp_min(0)]
                costs = torch.where((label == end) & (other > last), to_graph, costs)
        return costs

    def _solve(self, small: Tensor, large: Tensor, costs: CellCosts) -> Tensor:
        """Distances of pairs, whose labels have rows and columns in `costs`."""
        values = torch.empty(small.shape, dtype=self._dtype, device=self._device)
        # The solver takes a square table; rows and columns are numbered each for themselves.
        num_rows, num_cols = costs.distances.shape
        side = max(num_rows, num_cols)
        table = torch.nn.functional.pad(
            costs.distances, (0, side - num_cols, 0, side - num_rows)
        ).contiguous()
        # Labels of other cells have none; they are not asked for either.
        row_of = costs.row_of.clamp_min(0).to(self._device)
        col_of = costs.col_of.clamp_min(0).to(self._device)
        reports = Reports()
        for n, m, members, x, y in self._size_combinations(small, large):
            values[members] = self._solve_class(
                *(n, m, x, y),
                row_of[self._classes[n].labels],
                col_of[self._classes[m].labels],
                table,
                reports,
            )
        self.log.take(reports)
        return values


def _graphs(cell: Cell) -> tuple[Cell | None, ...]:
    return cell.graphs if isinstance(cell, NestedCell) else (None,) * cell.num_nodes


def _end_costs(tables: CellTables, ends: tuple[int, int]) -> Tensor:
    """Costs, times eps, of exchanging an input or output for each cell, shape (2, U)."""
    by_label = tables.label_cost[list(ends)]
    if isinstance(tables, NestedTables):
        by_label = torch.cat([by_label, tables._end_costs], dim=1)
    return torch.cat(
        [
            # A cell that holds nothing but its ends is compared by these.
            by_label[:, labels[:, 1:-1] if labels.shape[1] > 2 else labels].mean(-1)
            for labels in tables.labels_by_size()
        ],
        dim=1,
    )
