"""Spaces of one's own in which a cell is searched: any labelled graph within limits."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import torch

from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.arguments import integer, shown
from hotnas_torch.errors import ArchitectureError, SizeError
from hotnas_torch.spaces.base import Code, SearchSpace, draw_index
from hotnas_torch.spaces.cell_graphs import MOST_COUNTED_NODES, CellGraphs, Edge
from hotnas_torch.spaces.declared.building import as_network, called, is_module
from hotnas_torch.spaces.declared.probe import Probe, checked_labels, labels_of, own_name

__all__ = ["Cells"]

Skeleton = Callable[[Cell], Any]

_PROBED = 32
# A row holds every pair of nodes; a network every cell.
_MOST_NODES = 128
_MOST_CELLS = 10_000
# Random graphs that break a limit before a chain is taken, which breaks none.
_DRAWS = 64
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


class Cells(SearchSpace):
    """A search space that is declared: all cells of one's own operations within limits.

    A cell is a directed acyclic graph from an input to an output, every inner node of which carries
    an operation and is on a path between the two. Isomorphic cells are one: every network of the
    space has its cell in canonical numbering, and networks are equal exactly when their cells are
    isomorphic. A neighbour has one edge less or more, one other operation, or one node more; what
    is cut off goes. A mutation is a random neighbour. Random cells are not uniform.

    The string is `<nodes>,<adjacency>,<operations>`: the number of nodes, the upper triangle of the
    adjacency matrix row by row, and the numbers of the inner nodes' operations between dots.

    Args:
        operations: Labels of inner nodes.
        max_nodes: Most nodes of a cell, input and output included; at most 128.
        min_nodes: Fewest nodes; 2 has the cell that joins input and output.
        max_edges: Most edges; None is as many as there can be.
        max_in_degree: Most edges into an inner node; None is no limit.
        max_out_degree: Most edges out of an inner node.
        skeleton: The network of a cell: a list of stages, (how many cells, channels) each, the
            resolution halved from stage to stage, of at most 10,000 cells; or a function from the
            cell to a `Network`.
            None is the cell alone.
        tree: Operation costs; None puts all operations 2 apart.
        name: Of the space, for records and reports.

    Raises:
        TypeError: An argument of the wrong kind, or the skeleton returned something else.
        ValueError: Operations that repeat, or limits that no cell is within.
        ArchitectureError: The skeleton raised; the message names the cell.

    Complexity: `size` and iteration look at all graphs without labels, once per space, for at most
        7 nodes; with more nodes both raise a SizeError.

    Example:
        >>> stages = [(2, 16), (2, 32)]
        >>> space = Cells(["conv", "pool"], max_nodes=4, max_in_degree=2, skeleton=stages)
        >>> space.size()
        43
        >>> net = space.from_string("4,110011,0.1")
        >>> net == space.from_string("4,110011,1.0"), net.channels
        (True, (16, 16, 32, 32))
    """

    def __init__(
        self,
        operations: Sequence[str],
        *,
        max_nodes: int = MOST_COUNTED_NODES,
        min_nodes: int = 2,
        max_edges: int | None = None,
        max_in_degree: int | None = None,
        max_out_degree: int | None = None,
        skeleton: Sequence[tuple[int, int]] | Skeleton | None = None,
        tree: OperationTree | None = None,
        name: str = "cells",
    ) -> None:
        labels = checked_labels(operations)
        max_nodes = integer("max_nodes", max_nodes, least=2, most=_MOST_NODES)
        min_nodes = integer("min_nodes", min_nodes, least=2, most=max_nodes)
        most = max_nodes * (max_nodes - 1) // 2
        self._graphs = CellGraphs(
            labels,
            max_nodes,
            most if max_edges is None else integer("max_edges", max_edges, least=min_nodes - 1),
            min_nodes,
            _degree("max_in_degree", max_in_degree),
            _degree("max_out_degree", max_out_degree),
        )
        self.name = own_name(name)
        self._stages = None if callable(skeleton) else _checked_stages(skeleton)
        self._skeleton = skeleton if callable(skeleton) else None
        self.repeats_one_cell = self._skeleton is None
        generator = torch.Generator().manual_seed(0)
        cells = [self._draw(generator) for _ in range(_PROBED if self._skeleton else 1)]
        networks = [self._network(cell.canonical()) for cell in cells]
        self._probe = Probe(
            networks,
            operations=tuple(dict.fromkeys((*labels, *labels_of(networks)))),
            tree=tree,
            max_nodes=max(max_nodes, *(len(cell.ops) for net in networks for cell in net.cells)),
            state_scale=None,
        )
        self.operations = labels
        self.operation_columns = self._graphs.operation_columns
        self.max_nodes = self._probe.max_nodes
        self.state_scale = self._probe.state_scale
        super().__init__(self._graphs.columns, self._probe.operations, tree=self._probe.tree)

    # --- networks ---------------------------------------------------------------------------------

    def from_cell(self, cell: Cell) -> Network:
        """Return the network of a cell, in any numbering.

        Raises:
            TypeError: It is no Cell.
            ArchitectureError: It has another operation, or breaks a limit.
        """
        if not isinstance(cell, Cell):
            raise TypeError(f"cell must be a Cell; got {shown(cell)}")
        for node, label in enumerate(cell.ops[1:-1], 1):
            if label not in self._graphs.operations:
                known = ", ".join(map(repr, self._graphs.operations))
                raise ArchitectureError(f"cell.ops[{node}] must be one of {known}; got {label!r}")
        if reason := self._graphs.fault_of(cell):
            raise ArchitectureError(f"cell is outside of {self!r}: it has {reason}")
        return self.network_of(self._graphs.code_of_cell(cell))

    def network_of(self, code: Code) -> Network:
        # One numbering per cell: equal networks are isomorphic ones.
        return super().network_of(self.canonical_code(code))

    def canonical_code(self, code: Code) -> Code:
        return self._graphs.code_of_cell(self._cell(code))

    def block_of(self, code: Code) -> Cell:
        """Return the cell, with which a space that has this one at a place builds."""
        return self._cell(code)

    def build_network(self, code: Code) -> Network:
        net = dataclasses.replace(self._network(self._cell(code)), spec=self.format_code(code))
        if self._skeleton is not None:
            self._probe.check(net, net.spec)
        return net

    def _cell(self, code: Code) -> Cell:
        return self.shared_cell(code, lambda code: self._graphs.cell_of_code(code).canonical())

    def _network(self, cell: Cell) -> Network:
        if self._skeleton is not None:
            text = self.format_code(self._graphs.code_of_cell(cell))
            built = called("skeleton", self._skeleton, cell, text)
            if is_module(built):
                raise TypeError(
                    f"skeleton must return a Network; got {shown(built)}, for {text} (import it: "
                    "return from_module(model, example_inputs))"
                )
            return as_network("skeleton", built, None, text)
        stages = self._stages or ((1, 1),)
        places = [place for place, (repeats, _) in enumerate(stages) for _ in range(repeats)]
        return Network(
            (cell,) * len(places),
            tuple(stages[place][1] for place in places),
            tuple(2**place for place in places),
            input_channels=stages[0][1],
        )

    # --- codes ------------------------------------------------------------------------------------

    def size(self) -> int:
        """Return the number of cells up to isomorphism.

        Raises:
            SizeError: There are more than 7 nodes.
        """
        if self._counted is None:
            self._check_listed()
            self._counted = self._graphs.count()
        return self._counted

    def all_codes(self) -> Iterator[Code]:
        self._check_listed()
        return map(self.canonical_code, self._graphs.all_codes())

    def _check_listed(self) -> None:
        if self._graphs.max_nodes > MOST_COUNTED_NODES:
            raise SizeError(
                f"the cells of {self!r} cannot be listed up to isomorphism: they have more than "
                f"{MOST_COUNTED_NODES} nodes (size_bound() returns a larger number)"
            )

    def _code_bound(self) -> int:
        graphs = self._graphs
        return sum(
            len(graphs.operations) ** (size - 2) * 2 ** (size * (size - 1) // 2)
            for size in range(graphs.min_nodes, graphs.max_nodes + 1)
        )

    def fault_of(self, code: Code) -> str | None:
        graphs = self._graphs
        edges = {
            pair for pair, bit in zip(graphs.pairs, code[: len(graphs.pairs)], strict=True) if bit
        }
        present = [number != graphs.absent for number in code[len(graphs.pairs) :]]
        size = sum(present)
        if not all(present[:size]):
            return f"a node follows an absent one (operation {graphs.absent}); absent ones are last"
        nodes = {0, graphs.last, *range(1, size + 1)}
        if any(node not in nodes for edge in edges for node in edge):
            return "a node without an operation has an edge"
        if {0, *(j for _, j in edges)} != nodes or {graphs.last, *(i for i, _ in edges)} != nodes:
            return "a node is on no path from input to output"
        reason = graphs.fault_of(graphs.cell_of_code(code))
        return None if reason is None else f"the cell has {reason}"

    def draw_codes(self, num: int, generator: torch.Generator) -> list[Code]:
        cells = [self._draw(generator).canonical() for _ in range(num)]
        return [self._graphs.code_of_cell(cell) for cell in cells]

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        for ops, edges in self._graphs.edited(self._cell(code)):
            if (cell := self._graphs.pruned(ops, edges)) is not None:
                yield self._graphs.code_of_cell(cell.canonical())

    def mutate_code(self, code: Code, generator: torch.Generator) -> Code:
        edited = self._graphs.edited(self._cell(code))
        while edited:
            ops, edges = edited.pop(draw_index(len(edited), generator))
            if (cell := self._graphs.pruned(ops, edges)) is not None:
                return self._graphs.code_of_cell(cell.canonical())
        return code

    def _draw(self, generator: torch.Generator) -> Cell:
        """Draw a cell: a number of nodes, then for each which ones before it lead to it."""
        graphs = self._graphs
        most = min(graphs.max_nodes, graphs.max_edges + 1)
        size = graphs.min_nodes + draw_index(most - graphs.min_nodes + 1, generator)
        labels = [
            graphs.operations[draw_index(len(graphs.operations), generator)]
            for _ in range(size - 2)
        ]
        ops = ("input", *labels, "output")
        for _ in range(_DRAWS):
            cell = Cell(ops, tuple(sorted(self._draw_edges(size, generator))))
            if graphs.allows(cell):
                return cell
        return Cell(ops, tuple((node, node + 1) for node in range(size - 1)))

    def _draw_edges(self, size: int, generator: torch.Generator) -> set[Edge]:
        """Draw edges so that every inner node has one in and one out."""
        most_in = self._graphs.max_in_degree or size
        most_out = self._graphs.max_out_degree or size
        last = size - 1
        out = [0] * size
        edges: set[Edge] = set()
        for node in range(1, size):
            free = [other for other in range(node) if other == 0 or out[other] < most_out]
            limit = len(free) if node == last else min(most_in, len(free))
            # Sparse graphs are as likely as dense ones.
            for _ in range(1 + draw_index(limit, generator)):
                source = free.pop(draw_index(len(free), generator))
                edges.add((source, node))
                out[source] += 1
        edges |= {(node, last) for node in range(1, last) if out[node] == 0}
        return edges

    # --- strings ----------------------------------------------------------------------------------

    def format_code(self, code: Code) -> str:
        cell = self._graphs.cell_of_code(code)
        edges = set(cell.edges)
        bits = "".join(str(int(pair in edges)) for pair in combinations(range(cell.num_nodes), 2))
        numbers = ".".join(str(self._graphs.operations.index(label)) for label in cell.ops[1:-1])
        return f"{cell.num_nodes},{bits},{numbers}"

    def parse_code(self, text: str) -> Code:
        parts = text.split(",")
        if len(parts) != 3:
            raise self.malformed(text, 0, "three parts between commas")
        nodes, bits, numbers = parts
        graphs = self._graphs
        known = {str(size) for size in range(graphs.min_nodes, graphs.max_nodes + 1)}
        if nodes not in known:
            expected = f"a number of nodes in {graphs.min_nodes}..{graphs.max_nodes}"
            raise self.malformed(text, 0, expected)
        size = int(nodes)
        start = len(nodes) + 1
        if len(bits) != size * (size - 1) // 2 or set(bits) - {"0", "1"}:
            raise self.malformed(text, start, f"{size * (size - 1) // 2} digits 0 or 1")
        start += len(bits) + 1
        given = numbers.split(".") if numbers else []
        labels = {str(number): number for number in range(len(graphs.operations))}
        if len(given) != size - 2 or not set(given) <= set(labels):
            expected = f"{size - 2} numbers of operations, 0 to {len(labels) - 1}, between dots"
            raise self.malformed(text, start, expected)
        pairs = zip(combinations(range(size), 2), bits, strict=True)
        edges = {(i, graphs.last if j == size - 1 else j) for (i, j), bit in pairs if bit == "1"}
        code = graphs.code(edges, [labels[number] for number in given])
        if reason := self.fault_of(code):
            raise ArchitectureError(f"{text!r} is no {self.name} string: {reason}")
        return self.canonical_code(code)

    def description(self) -> dict[str, str]:
        """Return name, `repr`, operations, and what the skeleton makes of one cell."""
        described = super().description() | {"operations": repr(self._graphs.operations)}
        first = self._graphs.operations[0]
        size = self._graphs.min_nodes
        chain = Cell(
            ("input", *(first,) * (size - 2), "output"),
            tuple((node, node + 1) for node in range(size - 1)),
        )
        return described | {"skeleton": self._network(chain).key}

    def __repr__(self) -> str:
        graphs = self._graphs
        limits = f"{graphs.min_nodes} to {graphs.max_nodes} nodes, {graphs.max_edges} edges"
        for degree, word in ((graphs.max_in_degree, "in"), (graphs.max_out_degree, "out")):
            limits += "" if degree is None else f", {degree} {word}"
        return f"Cells({self.name!r}, {len(graphs.operations)} operations, {limits})"


def _degree(name: str, value: int | None) -> int | None:
    return None if value is None else integer(name, value, least=1)


def _checked_stages(stages: object) -> tuple[tuple[int, int], ...] | None:
    expected = "skeleton must be a function of a cell, or a list of (how many cells, channels)"
    if stages is None:
        return None
    if not isinstance(stages, list | tuple):
        raise TypeError(f"{expected}; got {shown(stages)}")
    if not stages:
        raise ValueError(f"{expected}; got an empty one")
    found = []
    for place, stage in enumerate(stages):
        if not isinstance(stage, list | tuple) or len(stage) != 2:
            raise TypeError(f"{expected}; skeleton[{place}] is {shown(stage)}")
        repeats, channels = (integer(f"skeleton[{place}]", one, least=1) for one in stage)
        found.append((repeats, channels))
    if (num := sum(repeats for repeats, _ in found)) > _MOST_CELLS:
        raise ValueError(f"skeleton must have at most {_MOST_CELLS:,} cells; got {num:,}")
    return tuple(found)
