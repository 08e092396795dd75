# Over 400 lines: one distance, its bounds and its exact value.
"""Edit distance of labelled directed acyclic graphs, and of chains of them."""

import math
from collections.abc import Sequence
from functools import cache
from itertools import permutations
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.arguments import choice, items, takes
from hotnas_torch.distances._tables.labels import with_rows_for
from hotnas_torch.distances.network_distance import KernelTerm, NetworkDistance
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot._operators.operator import is_tracked
from hotnas_torch.ot._operators.tracing import interpreted
from hotnas_torch.ot.scalars import constant
from hotnas_torch.spaces import SearchSpace

__all__ = ["EditDistance"]

_MAX_EXACT = 6
"""Inner nodes up to which all assignments are tried by default: 720 of them."""

_MAX_ENUMERATED = 8
_WIRE = Cell(("input", "output"), ((0, 1),))

_GRID_BITS = 42
"""Costs are rounded to so many bits of the largest in the search: sums are then exact, whatever
their order, and in whichever unit.
"""


class _Cells(NamedTuple):
    """U cells with m places for inner nodes each; places without a node have the label L.

    Attributes:
        tree: Operation costs, with rows for the L labels that occur.
        labels: (U, m) int64, 0 <= label <= L.
        sizes: Inner nodes, (U,) int64.
        edges: Between inner nodes, (U, m, m) float64 of 0 and 1.
        sources: Edges from the input, (U, m).
        sinks: Edges to the output, (U, m).
        direct: Edge from the input to the output, (U,).
    """

    tree: OperationTree
    labels: Tensor
    sizes: Tensor
    edges: Tensor
    sources: Tensor
    sinks: Tensor
    direct: Tensor


class _Tables(NamedTuple):
    """Networks as sequences of cells.

    Attributes:
        cells: Distinct cells; the last one is the wire, what a removed cell leaves.
        sequences: Number of the cell at every position, (U, S) int64; padding the wire.
        lengths: (U,) int64.
    """

    cells: _Cells
    sequences: Tensor
    lengths: Tensor


@interpreted
class EditDistance(NetworkDistance):
    r"""Edit distance with operation costs: BO-edit's distance.

    Between cells: the cheapest sequence of edits that makes a cell isomorphic to another. Changing
    an operation costs D(o, o'), inserting or deleting a node `node_cost`, an edge `edge_cost`;
    input and output stay. As no change costs more than a deletion and an insertion, some cheapest
    sequence keeps all nodes of the smaller cell, so that with m nodes in the larger one

    .. math:: d = \min_{\sigma \in S_m} \sum_i D(o_i, o'_{\sigma i})
        + c_e \sum_{i, k} |A_{ik} - A'_{\sigma i \sigma k}|

    with places without a node in the smaller cell, and input and output in the second sum.

    - `method="exact"` tries all assignments, as one product of matrices: for up to 8 inner nodes.
    - `method="lower"` and `"upper"`: an exact transport assigns nodes at the cost of D, of the
      edges to input and output, and of half of the difference in the numbers of other edges, in and
      out. Its optimum never exceeds the distance and is a pseudo-metric; the edits that the
      assignment amounts to never cost less than the distance.
    - `method="auto"`: exact where the space's cells have at most 6 inner nodes, else `"lower"`.

    Between networks: the distance of the cells where networks repeat one cell on one skeleton.
    Otherwise macro graphs are chains, and it is the edit distance of sequences: exchanging two
    cells costs their distance, inserting or deleting one its distance to a wire.

    Args:
        space: Space of the networks.
        tree: Operation costs D; None takes the space's.
        node_cost: Price of a node, at least half of the largest D that the tree allows; None takes
            that, or 1 where it is less.
        edge_cost: Price of an edge, >= 0.
        method: See above.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range; `"exact"` for cells
            that are too large.
        ArchitectureError: A network that is compared as a sequence and is no chain.

    Differentiability: in the lengths and weights of `tree`, at the best assignment (envelope
        theorem).

    Complexity: O(m! m^2) per pair of cells, in matrix products; bounds O(m^3).

    Reference: Riesen and Bunke, Approximate graph edit distance computation by means of bipartite
        graph matching, Image and Vision Computing 27, 2009; Blumenthal and Gamper, Improved lower
        bounds for graph edit distance, IEEE TKDE 30, 2018 (the bound BRANCH). HOTNAS (CVPR 2023)
        compares with Bayesian optimisation on edit distances and states no settings.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> texts = [
        ...     "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|",
        ...     "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|nor_conv_1x1~1|none~2|",
        ... ]
        >>> distance = EditDistance(space)
        >>> round(distance([space.from_string(text) for text in texts])[0, 1].item(), 9)
        0.1
    """

    name = "edit"
    parts = ("edits",)
    kernel_terms = (KernelTerm((0,), 1, 1e-2, 1e3),)

    @takes()
    def __init__(
        self,
        space: SearchSpace,
        *,
        tree: OperationTree | None = None,
        node_cost: float | None = None,
        edge_cost: float = 1.0,
        method: Literal["auto", "exact", "lower", "upper"] = "auto",
    ) -> None:
        super().__init__(space)
        self.tree = space.tree if tree is None else tree
        if not isinstance(self.tree, OperationTree):
            raise TypeError(f"tree must be an OperationTree; got {type(tree).__name__}")
        self._largest = largest = float(self.tree.largest_cost().detach())
        self.node_cost = (
            max(1.0, largest / 2.0) if node_cost is None else constant("node_cost", node_cost)
        )
        self.edge_cost = constant("edge_cost", edge_cost)
        if 2.0 * self.node_cost < largest * (1.0 - 1e-12):
            raise ValueError(
                f"node_cost must be at least half of the largest operation cost, {largest / 2:g},"
                f" so that changing an operation never costs more than two nodes; got {node_cost}"
            )
        self.num_inner = space.max_nodes - 2
        choice("method", method, ("auto", "exact", "lower", "upper"))
        if method == "auto":
            method = "exact" if self.num_inner <= _MAX_EXACT else "lower"
        if method == "exact" and self.num_inner > _MAX_ENUMERATED:
            raise ValueError(
                f"method='exact' tries all assignments, which is for up to {_MAX_ENUMERATED} inner"
                f" nodes; cells of {space!r} have up to {self.num_inner} (pass 'lower' or 'upper')"
            )
        self.method: Literal["exact", "lower", "upper"] = method

    def config(self) -> dict[str, Any]:
        """Return everything that the distances depend on, as JSON-ready values."""
        return {
            **super().config(),
            "node_cost": self.node_cost,
            "edge_cost": self.edge_cost,
            "method": self.method,
            "tree": self.tree.to_json(),
        }

    def _tracked(self) -> tuple[Tensor, ...]:
        return (self.tree.lengths_tensor(), self.tree.weights_tensor())

    def _costs(self, tree: OperationTree) -> Tensor:
        """Costs of changes, (L + 1, L + 1), with a last row and column for no node."""
        costs = tree.distance_matrix(dtype=torch.float64)
        padded = torch.nn.functional.pad(costs, (0, 1, 0, 1), value=self.node_cost)
        corner = torch.zeros_like(padded)
        corner[-1, -1] = self.node_cost
        return padded - corner

    # --- cells ------------------------------------------------------------------------------------

    def cell_distances(self, cells_a: Sequence[Cell], cells_b: Sequence[Cell]) -> Tensor:
        """Distances between cells, or the bounds that `method` asks for.

        Args:
            cells_a: A >= 1 cells.
            cells_b: B >= 1 cells.

        Returns:
            Shape (A, B), float64.

        Raises:
            TypeError: Not a list of cells.
            ValueError: An empty list, or a cell with more inner nodes than the space's have.
            ArchitectureError: An operation that the tree does not know.
        """
        first = items("cells_a", cells_a, Cell)
        second = items("cells_b", cells_b, Cell)
        cells = self._cells([cell.canonical() for cell in (*first, *second)])
        i = torch.arange(len(first)).repeat_interleave(len(second))
        j = len(first) + torch.arange(len(second)).repeat(len(first))
        return self._cell_values(cells, i, j).reshape(len(first), len(second))

    def _cells(self, cells: Sequence[Cell]) -> _Cells:
        shape = (len(cells), self.num_inner)
        tree = with_rows_for(self.tree, cells)
        labels = torch.full(shape, len(tree.labels))
        sizes = torch.tensor([cell.num_nodes - 2 for cell in cells])
        edges = torch.zeros(*shape, self.num_inner, dtype=torch.float64)
        sources, sinks = torch.zeros(shape).double(), torch.zeros(shape).double()
        direct = torch.zeros(len(cells), dtype=torch.float64)
        for place, cell in enumerate(cells):
            size = cell.num_nodes - 2
            if size > self.num_inner:
                raise ValueError(
                    f"cells may have up to {self.num_inner} inner nodes, as those of"
                    f" {self.space!r}; got one with {size}"
                )
            labels[place, :size] = torch.tensor([tree.index(op) for op in cell.ops[1:-1]])
            whole = cell.adjacency().double()
            edges[place, :size, :size] = whole[1:-1, 1:-1]
            sources[place, :size] = whole[0, 1:-1]
            sinks[place, :size] = whole[1:-1, -1]
            direct[place] = whole[0, -1]
        return _Cells(tree, labels, sizes, edges, sources, sinks, direct)

    def _cell_values(self, cells: _Cells, i: Tensor, j: Tensor) -> Tensor:
        """Values of pairs of cells, (P,)."""
        if len(i) == 0 or self.num_inner == 0:
            return self.edge_cost * (cells.direct[i] - cells.direct[j]).abs()
        costs = self._costs(cells.tree)
        if self.method == "exact":
            value, assignment = self._enumerate(costs.detach(), cells, i, j)
            return self._price(costs, cells, i, j, assignment) if is_tracked(costs) else value
        value, assignment = self._assign(costs, cells, i, j)
        return value if self.method == "lower" else self._price(costs, cells, i, j, assignment)

    def _price(
        self, costs: Tensor, cells: _Cells, i: Tensor, j: Tensor, assignment: Tensor
    ) -> Tensor:
        """Return what the edits of an assignment, (P, m) places in the second cell, cost."""
        row = torch.arange(len(i))[:, None]
        changes = costs[cells.labels[i], cells.labels[j][row, assignment]].sum(1)
        others = cells.edges[j][row[:, :, None], assignment[:, :, None], assignment[:, None]]
        edges = (
            (cells.edges[i] - others).abs().sum((1, 2))
            + (cells.sources[i] - cells.sources[j][row, assignment]).abs().sum(1)
            + (cells.sinks[i] - cells.sinks[j][row, assignment]).abs().sum(1)
            + (cells.direct[i] - cells.direct[j]).abs()
        )
        return changes + self.edge_cost * edges

    def _assign(self, costs: Tensor, cells: _Cells, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lower bound of pairs, (P,), and the assignment that attains it, (P, m)."""

        def differences(values: Tensor) -> Tensor:
            return (values[i][:, :, None] - values[j][:, None]).abs()

        ends = differences(cells.sources) + differences(cells.sinks)
        inside = differences(cells.edges.sum(1)) + differences(cells.edges.sum(2))
        changes = costs[cells.labels[i][:, :, None], cells.labels[j][:, None]]
        ones = torch.ones(len(i), self.num_inner, dtype=torch.float64)
        plan, objective, *_ = ops.transport(
            changes + self.edge_cost * (ends + 0.5 * inside), ones, ones
        )
        direct = self.edge_cost * (cells.direct[i] - cells.direct[j]).abs()
        return objective + direct, plan.argmax(2)

    def _enumerate(
        self, costs: Tensor, cells: _Cells, i: Tensor, j: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the distances of pairs, (P,), and assignments that attain them, (P, m).

        With A in {0, 1}, |A - A'| = A (1 - 2 A') + A': the price of an assignment is an inner
        product of what the one cell is and what the other one becomes.
        """
        # The side with fewer cells is the one that is permuted.
        swap = len(torch.unique(i)) < len(torch.unique(j))
        still, moved = (j, i) if swap else (i, j)
        # Of what the tree allows, whichever labels occur.
        _, exponent = math.frexp(max(self._largest, self.node_cost, self.edge_cost))
        grid = math.ldexp(1.0, _GRID_BITS - exponent)
        costs = (costs * grid).round() / grid
        edge_cost = round(self.edge_cost * grid) / grid
        upper = torch.triu_indices(self.num_inner, self.num_inner, offset=1)
        labels = torch.nn.functional.one_hot(cells.labels, len(costs)).double()
        fixed = torch.cat(
            [
                cells.edges[:, upper[0], upper[1]],
                cells.sources,
                cells.sinks,
                labels.flatten(1),
                torch.ones(len(labels), 1, dtype=torch.float64),
            ],
            dim=1,
        )
        values = torch.empty(len(i), dtype=torch.float64)
        assignments = torch.empty(len(i), self.num_inner, dtype=torch.int64)
        order = torch.argsort(moved, stable=True)
        groups, counts = torch.unique_consecutive(moved[order], return_counts=True)
        for cell, pairs in zip(groups.tolist(), order.split(counts.tolist()), strict=True):
            places = _placements(self.num_inner, int(cells.sizes[cell]))
            edges = cells.edges[cell][places[:, :, None], places[:, None]]
            sources, sinks = cells.sources[cell][places], cells.sinks[cell][places]
            total = edges.sum((1, 2)) + sources.sum(1) + sinks.sum(1)
            becomes = torch.cat(
                [
                    edge_cost * (1.0 - 2.0 * edges[:, upper[0], upper[1]]),
                    edge_cost * (1.0 - 2.0 * sources),
                    edge_cost * (1.0 - 2.0 * sinks),
                    costs[cells.labels[cell][places]].flatten(1),
                    edge_cost * total[:, None],
                ],
                dim=1,
            )
            found, best = (becomes @ fixed[still[pairs]].T).min(0)
            values[pairs] = found
            assignments[pairs] = places[best]
        direct = edge_cost * (cells.direct[i] - cells.direct[j]).abs()
        # A place of the second cell for every one of the first.
        return values + direct, assignments.argsort(1) if swap else assignments

    # --- networks ---------------------------------------------------------------------------------

    def _tables(self, nets: Sequence[Network]) -> _Tables:
        if self.space.repeats_one_cell:
            sequences = [net.cells[:1] for net in nets]
        else:
            for net in nets:
                if not net.is_chain:
                    raise ArchitectureError(
                        f"networks must be chains of cells to be compared; {net.spec!r} is none"
                    )
            sequences = [net.cells for net in nets]
        # In the order of their keys: a pair of cells is then always compared the same way round.
        found = {cell.key: cell for sequence in sequences for cell in sequence}
        distinct = {key: found[key] for key in sorted(found)}
        number_of = {key: place for place, key in enumerate(distinct)}
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        numbers = torch.full((len(nets), int(lengths.max())), len(distinct))
        for row, sequence in enumerate(sequences):
            numbers[row, : len(sequence)] = torch.tensor([number_of[c.key] for c in sequence])
        cells = self._cells([*(cell.canonical() for cell in distinct.values()), _WIRE])
        return _Tables(cells, numbers, lengths)

    def _values(self, tables: _Tables, i: Tensor, j: Tensor) -> Tensor:
        if self.space.repeats_one_cell:
            cell = tables.sequences[:, 0]
            return self._cell_values(tables.cells, cell[i], cell[j])[None]
        return self._align(tables, i, j)[None]

    def _pair_bytes(self, tables: _Tables) -> int:
        return 64 if self.space.repeats_one_cell else 32 * (tables.sequences.shape[1] + 1)

    def _cell_table(self, tables: _Tables, i: Tensor, j: Tensor) -> Tensor:
        """Distances between all cells that meet in pairs of networks, (C, C) by number."""
        num_cells = len(tables.cells.sizes)
        holds = torch.zeros(len(tables.sequences), num_cells, dtype=torch.float64)
        holds.scatter_(1, tables.sequences, 1.0)
        holds[:, -1] = 1.0
        meets = torch.zeros(len(holds), len(holds), dtype=torch.float64)
        meets[i, j] = 1.0
        needed = holds.T @ meets @ holds
        first, second = ((needed + needed.T) > 0).triu(1).nonzero(as_tuple=True)
        values = self._cell_values(tables.cells, first, second)
        table = torch.zeros(num_cells, num_cells, dtype=torch.float64)
        places = (torch.cat([first, second]), torch.cat([second, first]))
        return table.index_put(places, torch.cat([values, values]))

    def _align(self, tables: _Tables, i: Tensor, j: Tensor) -> Tensor:
        """Edit distances of sequences, by the recursion of Wagner and Fischer."""
        table = self._cell_table(tables, i, j)
        rows, cols = tables.sequences[i], tables.sequences[j]
        wire = table[-1]
        longest = rows.shape[1]
        removed, added = wire[rows], wire[cols]
        zero = torch.zeros(len(i), dtype=torch.float64)
        previous = [zero]
        for t in range(longest):
            previous.append(previous[-1] + added[:, t])
        for s in range(longest):
            current = [previous[0] + removed[:, s]]
            for t in range(longest):
                exchanged = previous[t] + table[rows[:, s], cols[:, t]]
                either = torch.minimum(previous[t + 1] + removed[:, s], current[t] + added[:, t])
                current.append(torch.minimum(exchanged, either))
            previous = current
        # Padding is wires, which cost nothing to add or remove: the last entry is the distance.
        return previous[longest]


@cache
def _placements(num_places: int, size: int) -> Tensor:
    """All ways to put `size` nodes into places, (num_places! / (num_places - size)!, num_places).

    An entry is the node in a place; those from `size` on are none, in ascending order.
    """
    rows = []
    for taken in permutations(range(num_places), size):
        row = [-1] * num_places
        for node, place in enumerate(taken):
            row[place] = node
        rest = iter(range(size, num_places))
        rows.append([next(rest) if node < 0 else node for node in row])
    return torch.tensor(rows)
