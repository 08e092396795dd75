"""Graphs of graphs: cells whose nodes may be cells themselves, to any depth."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hotnas_torch.arch._json import check_keys, check_list, check_pairs
from hotnas_torch.arch.canonical import canonical_order
from hotnas_torch.arch.cell import Cell
from hotnas_torch.arch.dag import renumbered
from hotnas_torch.arguments import integer
from hotnas_torch.errors import ArchitectureError

__all__ = ["NestedCell", "cell_from_json"]


@dataclass(frozen=True, slots=True)
class NestedCell(Cell):
    """A cell in which some nodes are cells of the level below, nested or not.

    It is a `Cell` whose label, at a node that is a graph, is that graph's key. Canonical
    form, key and equality therefore know the contents of every level, and networks of nested cells
    are ordinary networks. `from_nodes` builds one without naming keys.

    Args:
        ops: Labels; `graphs[i].key` where node i is a graph.
        edges: As for `Cell`.
        graphs: The graph of each node, None where a node is an operation, n entries. At least one
            is a graph. Repeated graphs should be the same object.

    Raises:
        TypeError: An argument is of the wrong kind.
        ArchitectureError: What `Cell` refuses; no graph; a graph in place of the input or
            output; or a label that is not the key of its graph.

    Example:
        >>> inner = Cell(("input", "conv_3x3", "output"), ((0, 1), (1, 2)))
        >>> outer = NestedCell.from_nodes(
        ...     ["input", inner, inner, "output"], [(0, 1), (0, 2), (1, 3), (2, 3)]
        ... )
        >>> outer.depth, outer.num_operations
        (2, 2)
        >>> outer.flatten().ops
        ('input', 'conv_3x3', 'conv_3x3', 'output')
    """

    graphs: tuple[Cell | None, ...] = ()

    def __post_init__(self) -> None:
        # No super(): a class with slots is made twice, and super() would mean the first one.
        Cell.__post_init__(self)
        if not isinstance(self.graphs, tuple):
            raise TypeError(
                f"graphs must be a tuple of Cell or None; got {type(self.graphs).__name__} "
                "(pass tuple(graphs), or build it with NestedCell.from_nodes)"
            )
        if len(self.graphs) != len(self.ops):
            raise ArchitectureError(
                f"graphs must have one entry per node, {len(self.ops)}; got {len(self.graphs)}"
            )
        for node, graph in enumerate(self.graphs):
            if graph is None:
                continue
            if not isinstance(graph, Cell):
                raise TypeError(f"graphs[{node}] must be a Cell or None; got {graph!r}")
            if node in (0, len(self.ops) - 1):
                raise ArchitectureError(
                    f"graphs[{node}] must be None: node {node} is the {self.ops[node]}"
                )
            if self.ops[node] != graph.key:
                raise ArchitectureError(
                    f"ops[{node}] must be the key of graphs[{node}], {graph.key!r}; got "
                    f"{self.ops[node]!r} (NestedCell.from_nodes fills it in)"
                )
        if not any(self.graphs):
            raise ArchitectureError(
                "graphs must hold at least one graph; got None alone (a cell of operations only is "
                "a Cell)"
            )

    @classmethod
    def from_nodes(
        cls, nodes: Iterable[str | Cell], edges: Iterable[Iterable[int]]
    ) -> "NestedCell":
        """Build a nested cell from operations and graphs in topological order.

        Args:
            nodes: A label or a graph for each node, `"input"` first and `"output"` last.
            edges: Pairs (i, j) with i < j in any order.

        Raises:
            TypeError: A node is neither a str nor a Cell, or an edge no pair of integers.
            ArchitectureError: As for the class.
        """
        if isinstance(nodes, str):
            raise TypeError(f"nodes must be a sequence of nodes; got the single string {nodes!r}")
        listed = list(nodes)
        for position, node in enumerate(listed):
            if not isinstance(node, (str, Cell)):
                raise TypeError(
                    f"nodes[{position}] must be a label or a Cell; got {node!r} of type "
                    f"{type(node).__name__}"
                )
        return cls(
            tuple(node.key if isinstance(node, Cell) else node for node in listed),
            tuple(sorted({(int(i), int(j)) for i, j in edges})),
            tuple(node if isinstance(node, Cell) else None for node in listed),
        )

    @property
    def nodes(self) -> tuple[str | Cell, ...]:
        """The graph of each node that is one, the label of each other, n entries."""
        return tuple(
            label if graph is None else graph
            for label, graph in zip(self.ops, self.graphs, strict=True)
        )

    @property
    def depth(self) -> int:
        """Number of levels of graphs, >= 2."""
        return 1 + max(
            graph.depth if isinstance(graph, NestedCell) else 1
            for graph in self.graphs
            if graph is not None
        )

    @property
    def num_operations(self) -> int:
        """Number of operation nodes in all levels; inputs and outputs do not count."""
        return sum(1 if graph is None else graph.num_operations for graph in self.graphs[1:-1])

    def canonical(self) -> "NestedCell":
        """Return the representative of this cell's isomorphism class, at all levels.

        Two nested cells have equal canonical forms exactly when renumbering the nodes, on every
        level, turns one into the other with its labels.
        """
        form = self._canonical
        if form is None:
            order = canonical_order(self.ops, self.edges)
            ops, pairs = renumbered(self.ops, self.edges, order)
            graphs = tuple(self.graphs[old] for old in order)
            form = NestedCell(
                ops, tuple(pairs), tuple(graph and graph.canonical() for graph in graphs)
            )
            if form == self:
                form = self
            object.__setattr__(form, "_canonical", form)
            object.__setattr__(self, "_canonical", form)
        assert isinstance(form, NestedCell)
        return form

    def flatten(self) -> Cell:
        """Return the cell of operations alone, every graph in the place of its node.

        An edge into a graph leads to all nodes that its input leads to, an edge out of it comes
        from all nodes that lead to its output. What the library computes at a graph's ends (the
        merging of what enters, the mean of what leaves) has no node, so flat cells of different
        nested ones may be equal.

        Complexity: O(number of edges of the result) time and memory.
        """
        labels: list[str | None] = []
        pairs: list[tuple[int, int]] = []
        self._unfold(labels, pairs)
        return _without_joints(labels, pairs)

    def fold(self, depth: int, name: Callable[[Cell], str]) -> Cell:
        """Return the cell of which so many levels are graphs, what lies below being operations.

        Args:
            depth: Levels that stay, >= 1.
            name: The operation that stands for a graph.

        Raises:
            TypeError: `depth` is no integer.
            ValueError: It is below 1.

        Example:
            >>> inner = Cell(("input", "conv_3x3", "output"), ((0, 1), (1, 2)))
            >>> outer = NestedCell.from_nodes(["input", inner, "output"], [(0, 1), (1, 2)])
            >>> outer.fold(1, lambda graph: f"{graph.num_operations} operations").ops
            ('input', '1 operations', 'output')
        """
        depth = integer("depth", depth, least=1)
        if depth >= self.depth:
            return self

        def node(label: str, graph: Cell | None) -> str | Cell:
            if graph is None:
                return label
            if depth == 1:
                return name(graph)
            return graph.fold(depth - 1, name) if isinstance(graph, NestedCell) else graph

        nodes = list(map(node, self.ops, self.graphs))
        if any(isinstance(one, Cell) for one in nodes):
            return NestedCell.from_nodes(nodes, self.edges)
        return Cell(tuple(map(str, nodes)), self.edges)

    def to_json(self) -> dict[str, Any]:
        """Return a description ready for `json.dumps`; a repeated graph is written once.

        `{"graphs": [distinct graphs], "nodes": ["input", label or place in graphs, ...,
        "output"], "edges": [[i, j], ...]}`.
        """
        distinct = {
            graph: place
            for place, graph in enumerate(dict.fromkeys(g for g in self.graphs if g is not None))
        }
        return {
            "graphs": [graph.to_json() for graph in distinct],
            "nodes": [
                label if graph is None else distinct[graph]
                for label, graph in zip(self.ops, self.graphs, strict=True)
            ],
            "edges": [list(edge) for edge in self.edges],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "NestedCell":
        """Build the nested cell that `to_json` described, with the same numbering.

        Raises:
            TypeError: `data` is not a mapping.
            ArchitectureError: A key is missing or unknown, or a value is not what it should be; for
                a fault inside a graph the message starts with its place, as in `graphs[2]:`.
        """
        check_keys(data, "a nested cell", required=("graphs", "nodes", "edges"))
        distinct = []
        for place, entry in enumerate(check_list(data["graphs"], dict, "graphs")):
            try:
                distinct.append(cell_from_json(entry))
            except ArchitectureError as error:
                raise ArchitectureError(f"graphs[{place}]: {error}") from error
        nodes: list[str | Cell] = []
        given = data["nodes"]
        if not isinstance(given, list):
            raise ArchitectureError(
                f"nodes must be a list; got {given!r} of type {type(given).__name__}"
            )
        for position, node in enumerate(given):
            if isinstance(node, str):
                nodes.append(node)
            elif type(node) is int and 0 <= node < len(distinct):
                nodes.append(distinct[node])
            else:
                raise ArchitectureError(
                    f"nodes[{position}] must be a label or the place of a graph in 'graphs', "
                    f"0..{len(distinct) - 1}; got {node!r}"
                )
        return cls(
            tuple(node.key if isinstance(node, Cell) else node for node in nodes),
            check_pairs(data["edges"], "edges"),
            tuple(node if isinstance(node, Cell) else None for node in nodes),
        )

    def __hash__(self) -> int:
        return Cell.__hash__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return (NestedCell, (self.ops, self.edges, self.graphs))

    def _unfold(self, labels: list[str | None], pairs: list[tuple[int, int]]) -> tuple[int, int]:
        """Append all levels, with joints (None) for the ends of graphs; returns its own ends."""
        ends = []
        for label, graph in zip(self.ops, self.graphs, strict=True):
            if isinstance(graph, NestedCell):
                ends.append(graph._unfold(labels, pairs))
                continue
            start = len(labels)
            if graph is None:
                labels.append(label)
                ends.append((start, start))
            else:
                labels.extend([None, *graph.ops[1:-1], None])
                pairs.extend((start + i, start + j) for i, j in graph.edges)
                ends.append((start, len(labels) - 1))
        pairs.extend((ends[i][1], ends[j][0]) for i, j in self.edges)
        first, last = ends[0][0], ends[-1][0]
        labels[first] = labels[last] = None
        return first, last


def cell_from_json(data: Mapping[str, Any]) -> Cell:
    """Build the cell or nested cell that its `to_json` described.

    Raises:
        TypeError: `data` is not a mapping.
        ArchitectureError: It describes neither.
    """
    if isinstance(data, Mapping) and "graphs" in data:
        return NestedCell.from_json(data)
    return Cell.from_json(data)


def _without_joints(labels: Sequence[str | None], pairs: Sequence[tuple[int, int]]) -> Cell:
    """Join what leads to a joint with what it leads to; the first and last are the ends."""
    successors: list[list[int]] = [[] for _ in labels]
    for i, j in pairs:
        successors[i].append(j)
    last = len(labels) - 1

    def kept(node: int) -> bool:
        return labels[node] is not None or node in (0, last)

    # Numbers are topological, so what follows a joint is settled before the joint is read.
    reached: list[list[int]] = [[] for _ in labels]
    for node in reversed(range(len(labels))):
        onward: dict[int, None] = {}
        for successor in successors[node]:
            onward.update(dict.fromkeys([successor] if kept(successor) else reached[successor]))
        reached[node] = list(onward)
    places = {node: place for place, node in enumerate(filter(kept, range(len(labels))))}
    names = [labels[node] or ("output" if node else "input") for node in places]
    edges = [(places[i], places[j]) for i in places for j in reached[i]]
    # A graph that computes nothing leaves nodes without a path.
    return Cell.from_edges(names, edges, prune=True)
