"""Cells as labelled graphs within limits: which there are up to isomorphism, and their edits."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from hotnas_torch.arch import Cell
from hotnas_torch.spaces.base import Code

__all__ = ["MOST_COUNTED_NODES", "CellGraphs", "Edge"]

INPUT = "input"
OUTPUT = "output"

MOST_COUNTED_NODES = 7
"""Graphs with more nodes are too many to list up to isomorphism."""

Edge = tuple[int, int]


@dataclass(frozen=True)
class CellGraphs:
    """Cells whose inner nodes carry operations, within limits.

    A code describes a cell in a frame of `max_nodes` nodes, k inner ones at 1..k and the output as
    the last. It holds the frame's upper triangle row by row, then an operation per inner node,
    `len(operations)` where there is none.

    Attributes:
        operations: Labels of inner nodes.
        max_nodes: Most nodes, input and output included.
        max_edges: Most edges.
        min_nodes: Fewest nodes.
        max_in_degree: Most edges into an inner node.
        max_out_degree: Most edges out of an inner node.
    """

    operations: tuple[str, ...]
    max_nodes: int
    max_edges: int
    min_nodes: int = 2
    max_in_degree: int | None = None
    max_out_degree: int | None = None

    @cached_property
    def pairs(self) -> tuple[Edge, ...]:
        """The pairs of nodes of the frame that can be joined, in the order of a code."""
        return tuple(itertools.combinations(range(self.max_nodes), 2))

    @property
    def last(self) -> int:
        """Number of the output in the frame."""
        return self.max_nodes - 1

    @property
    def absent(self) -> int:
        """What stands for no operation."""
        return len(self.operations)

    @property
    def columns(self) -> dict[str, int]:
        """What the columns of a code hold, and how many values each has."""
        edges = {f"edge {i}->{j}": 2 for i, j in self.pairs}
        return edges | {
            f"operation of node {node}": self.absent + 1 for node in range(1, self.last)
        }

    @property
    def operation_columns(self) -> tuple[int, ...]:
        """Which columns of a code hold an operation."""
        return tuple(range(len(self.pairs), len(self.columns)))

    # --- codes and cells --------------------------------------------------------------------------

    def code(self, edges: set[Edge], operations: Sequence[int]) -> Code:
        """Return the code of a graph in the frame."""
        absent = (self.absent,) * (self.last - 1 - len(operations))
        return (*(int(pair in edges) for pair in self.pairs), *operations, *absent)

    def code_of_cell(self, cell: Cell) -> Code:
        """Return the code of a cell, with its numbering."""
        last = cell.num_nodes - 1
        edges = {(i, self.last if j == last else j) for i, j in cell.edges}
        return self.code(edges, [self.operations.index(label) for label in cell.ops[1:-1]])

    def cell_of_code(self, code: Code) -> Cell:
        """Return the cell of a code."""
        present = [number for number in code[len(self.pairs) :] if number != self.absent]
        output = len(present) + 1
        return Cell(
            (INPUT, *(self.operations[number] for number in present), OUTPUT),
            tuple(
                (i, output if j == self.last else j)
                for (i, j), bit in zip(self.pairs, code[: len(self.pairs)], strict=True)
                if bit
            ),
        )

    def allows(self, cell: Cell) -> bool:
        """Return whether a cell with these operations is within the limits."""
        return self.fault_of(cell) is None

    def fault_of(self, cell: Cell) -> str | None:
        """Say which limit a cell breaks; None if it breaks none."""
        if not self.min_nodes <= cell.num_nodes <= self.max_nodes:
            return f"{cell.num_nodes} nodes, not {self.min_nodes} to {self.max_nodes}"
        if not 0 < len(cell.edges) <= self.max_edges:
            return f"{len(cell.edges)} edges, not 1 to {self.max_edges}"
        for end, limit, word in (
            (1, self.max_in_degree, "into"),
            (0, self.max_out_degree, "out of"),
        ):
            degrees = Counter(edge[end] for edge in cell.edges)
            for node in range(1, cell.num_nodes - 1):
                if limit is not None and degrees[node] > limit:
                    return f"{degrees[node]} edges {word} node {node}, more than {limit}"
        return None

    def edited(self, cell: Cell) -> list[tuple[list[str], set[Edge]]]:
        """Return the graphs one edit away, whatever the numbering and the limits.

        An edit removes an edge, adds one that closes no cycle, changes an operation, or inserts a
        node with one edge in and one out. What an edit cuts off is still there.
        """
        ops, edges, last = list(cell.ops), set(cell.edges), cell.num_nodes - 1
        reachable = {(node, node) for node in range(last + 1)}
        for i, j in reversed(cell.edges):
            reachable |= {(i, target) for source, target in reachable if source == j}
        addable = [
            (i, j)
            for i, j in itertools.product(range(last), range(1, last + 1))
            if (j, i) not in reachable
        ]
        found: list[tuple[list[str], set[Edge]]] = [(ops, edges - {edge}) for edge in cell.edges]
        found += [(ops, edges | {edge}) for edge in addable if edge not in edges]
        for node, operation in itertools.product(range(1, last), self.operations):
            if operation != ops[node]:
                found.append(([*ops[:node], operation, *ops[node + 1 :]], edges))
        if len(ops) < self.max_nodes:
            # The new node takes the output's number; the output moves up by one.
            moved = {(i, j + (j == last)) for i, j in edges}
            for (i, j), operation in itertools.product(addable, self.operations):
                inserted = {(i, last), (last, j + (j == last))}
                found.append(([*ops[:last], operation, OUTPUT], moved | inserted))
        return found

    def pruned(self, ops: Sequence[str], edges: set[Edge]) -> Cell | None:
        """Return the cell that is left of a graph, or None where it breaks a limit."""
        cell = Cell.from_edges(ops, edges, prune=True)
        return cell if cell.edges and self.allows(cell) else None

    # --- up to isomorphism ------------------------------------------------------------------------

    def count(self) -> int:
        """Return the number of cells up to isomorphism.

        Reference: Burnside's lemma over the automorphisms of each graph of inner nodes.
        """
        total = 0
        for graph in self._inner_graphs():
            choices = self._outer_choices(graph)
            fixed: Counter[int] = Counter()  # colourings that a symmetry fixes, by number of edges
            for symmetry in graph.automorphisms:
                counts = Counter({len(graph.edges) + direct: 1 for direct in graph.directs})
                for node, length in _cycles(symmetry):
                    # All nodes of a cycle carry the same operation and the same outer edges.
                    step: Counter[int] = Counter()
                    for outer in choices[node]:
                        step[length * sum(outer)] += len(self.operations)
                    product: Counter[int] = Counter()
                    for (edges, ways), (more, kinds) in itertools.product(
                        counts.items(), step.items()
                    ):
                        product[edges + more] += ways * kinds
                    counts = product
                fixed += counts
            orbits = sum(ways for edges, ways in fixed.items() if edges <= self.max_edges)
            total += orbits // len(graph.automorphisms)
        return total

    def all_codes(self) -> Iterator[Code]:
        """Yield one code per isomorphism class, fewer nodes first."""
        for graph in self._inner_graphs():
            size = graph.num_nodes
            edges = {(i + 1, j + 1) for i, j in graph.edges}
            symmetries = [other for other in graph.automorphisms if other != tuple(range(size))]
            choices = itertools.product(*self._outer_choices(graph))
            for direct, outer in itertools.product(graph.directs, choices):
                if len(edges) + direct + sum(map(sum, outer)) > self.max_edges:
                    continue
                chosen = edges | {(0, v + 1) for v in range(size) if outer[v][0]}
                chosen |= {(v + 1, self.last) for v in range(size) if outer[v][1]}
                if direct:
                    chosen.add((0, self.last))
                for operations in itertools.product(range(len(self.operations)), repeat=size):
                    colours = [(*outer[v], operations[v]) for v in range(size)]
                    # The smallest colouring of an orbit stands for it.
                    if all(colours <= [colours[v] for v in symmetry] for symmetry in symmetries):
                        yield self.code(chosen, operations)

    def _inner_graphs(self) -> Iterator["_InnerGraph"]:
        for graph in _inner_graphs(self.last - 1):
            if graph.num_nodes + 2 >= self.min_nodes:
                yield graph

    def _outer_choices(self, graph: "_InnerGraph") -> list[list[Edge]]:
        """Per inner node, whether the input leads to it and whether it leads to the output."""
        choices = []
        for node in range(graph.num_nodes):
            into = sum(j == node for _, j in graph.edges)
            out = sum(i == node for i, _ in graph.edges)
            choices.append(
                [
                    (from_input, to_output)
                    for from_input, to_output in itertools.product((0, 1), repeat=2)
                    if 1 <= into + from_input <= (self.max_in_degree or self.max_nodes)
                    and 1 <= out + to_output <= (self.max_out_degree or self.max_nodes)
                ]
            )
        return choices


@dataclass(frozen=True, slots=True)
class _InnerGraph:
    """An acyclic graph on the inner nodes of a cell, up to isomorphism.

    A cell is such a graph with, per node, an operation, whether the input leads to it and whether
    it leads to the output, and perhaps an edge from input to output. It is valid exactly when the
    input leads to every source and every sink leads to the output.
    """

    num_nodes: int
    edges: tuple[Edge, ...]
    automorphisms: tuple[tuple[int, ...], ...]

    @property
    def directs(self) -> tuple[int, ...]:
        """Whether an edge from input to output can be absent and present."""
        return (0, 1) if self.num_nodes else (1,)


@cache
def _inner_graphs(most: int) -> tuple[_InnerGraph, ...]:
    """List all acyclic graphs on at most so many nodes once, fewer nodes first."""
    graphs = []
    for size in range(most + 1):
        pairs = list(itertools.combinations(range(size), 2))
        permutations = list(itertools.permutations(range(size)))
        seen: set[frozenset[Edge]] = set()
        for present in itertools.product((False, True), repeat=len(pairs)):
            edges = frozenset(itertools.compress(pairs, present))
            if edges in seen:
                continue
            automorphisms = []
            for renumbering in permutations:
                image = frozenset((renumbering[i], renumbering[j]) for i, j in edges)
                seen.add(image)
                if image == edges:
                    automorphisms.append(renumbering)
            graphs.append(_InnerGraph(size, tuple(sorted(edges)), tuple(automorphisms)))
    return tuple(graphs)


def _cycles(permutation: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the smallest element and the length of each cycle."""
    left = set(range(len(permutation)))
    while left:
        start = node = min(left)
        length = 0
        while node in left:
            left.remove(node)
            node = permutation[node]
            length += 1
        yield start, length
