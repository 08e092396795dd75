"""Cells: small labelled directed acyclic graphs, the inner level of an architecture."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from hotnas_torch.arch._json import check_keys, check_list, check_pairs, content_digest
from hotnas_torch.arch.canonical import canonical_order
from hotnas_torch.arch.dag import (
    check_edges,
    nodes_on_paths,
    renumbered,
    topological_order,
)
from hotnas_torch.arguments import integer
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.notebook import graph_svg

__all__ = ["Cell"]

INPUT = "input"
OUTPUT = "output"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Cell:
    """A directed acyclic graph whose nodes carry operation labels.

    Node 0 is the input, the last node the output, and every node lies on a path between them. The
    one exception is `Cell(("input", "output"), ())`, the cell that computes nothing. Labels are
    free strings; a node may thus stand for a graph of a lower level by carrying that graph's key.

    Cells are immutable and compare by value, on the numbering given; two cells are isomorphic
    exactly when `a.canonical() == b.canonical()`.

    Args:
        ops: Labels, `ops[0] == "input"` and `ops[-1] == "output"`, n >= 2 non-empty strings.
        edges: Pairs (i, j) with i < j, sorted, without repeats. `from_edges` takes any order.

    Raises:
        TypeError: `ops` is not a tuple of str, or `edges` not a tuple of pairs of int.
        ArchitectureError: The labels or edges break the rules above; the message names the item.

    Example:
        >>> cell = Cell(("input", "conv3x3", "output"), ((0, 1), (0, 2), (1, 2)))
        >>> cell.num_nodes, cell.predecessors(2)
        (3, (0, 1))
    """

    ops: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    _canonical: "Cell | None" = field(default=None, init=False, repr=False, compare=False)
    _key: str | None = field(default=None, init=False, repr=False, compare=False)
    _hash: int | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_ops(self.ops)
        if len(self.ops) == 2 and self.edges == ():
            return
        check_edges(self.edges, self.ops)

    @classmethod
    def from_edges(
        cls, ops: Iterable[str], edges: Iterable[Iterable[int]], *, prune: bool = False
    ) -> "Cell":
        """Build a cell from edges in any order, between nodes in any order.

        Repeated edges count once. If an edge goes from a higher to a lower node, the nodes are
        renumbered topologically, always taking the lowest available one; node 0 must be the input
        and the last node the output all the same.

        Args:
            ops: Labels of the n nodes.
            edges: Pairs of node numbers.
            prune: Drop every node that is on no path from input to output. If no path is left, the
                result is `Cell(("input", "output"), ())`.

        Raises:
            TypeError: A label is no string or an edge no pair of integers.
            ArchitectureError: A node number out of range, a cycle among the nodes that are kept, or
                with `prune=False` a node that is on no path from input to output.

        Example:
            >>> Cell.from_edges(["input", "conv", "pool", "output"], [(1, 3), (0, 1)], prune=True)
            Cell(ops=('input', 'conv', 'output'), edges=((0, 1), (1, 2)))
        """
        if isinstance(ops, str):
            raise TypeError(f"ops must be a sequence of labels; got the single string {ops!r}")
        labels = tuple(ops)
        _check_ops(labels)
        pairs = sorted(_check_pairs(edges, len(labels)))
        if prune:
            kept = nodes_on_paths(len(labels), pairs) or [0, len(labels) - 1]
            labels, pairs = renumbered(labels, pairs, kept)
        if any(i >= j for i, j in pairs):
            last = len(labels) - 1
            order = topological_order(len(labels), pairs)
            if order[0] != 0 or order[-1] != last:
                wrong = next((i, j) for i, j in pairs if j == 0 or i == last)
                raise ArchitectureError(
                    f"edges contain {wrong}, which enters the input (node 0) or leaves the output "
                    f"(node {last}) (remove it, or pass prune=True)"
                )
            labels, pairs = renumbered(labels, pairs, order)
        return cls(labels, tuple(pairs))

    @property
    def num_nodes(self) -> int:
        """Number of nodes, input and output included."""
        return len(self.ops)

    @property
    def num_operations(self) -> int:
        """Number of nodes that are neither input nor output."""
        return len(self.ops) - 2

    def predecessors(self, node: int) -> tuple[int, ...]:
        """Return the nodes with an edge into `node`, ascending."""
        self._check_node(node)
        return tuple(i for i, j in self.edges if j == node)

    def successors(self, node: int) -> tuple[int, ...]:
        """Return the nodes that `node` has an edge to, ascending."""
        self._check_node(node)
        return tuple(j for i, j in self.edges if i == node)

    def adjacency(self) -> torch.Tensor:
        """Return the adjacency matrix, (n, n) bool on the CPU; entry (i, j) is the edge i -> j."""
        matrix = torch.zeros(self.num_nodes, self.num_nodes, dtype=torch.bool)
        if self.edges:
            i, j = zip(*self.edges, strict=True)
            matrix[list(i), list(j)] = True
        return matrix

    def canonical(self) -> "Cell":
        """Return the representative of this cell's isomorphism class.

        Two cells have equal canonical forms exactly when a renumbering turns one into the other
        with its labels. The numbering is topological, by longest path from the input. Computed
        once per object; see `hotnas_torch.arch.canonical.canonical_order` for the cost.
        """
        form = self._canonical
        if form is None:
            form = self
            order = canonical_order(self.ops, self.edges)
            if order != list(range(len(order))):
                labels, pairs = renumbered(self.ops, self.edges, order)
                form = Cell(labels, tuple(pairs))
                object.__setattr__(form, "_canonical", form)
            object.__setattr__(self, "_canonical", form)
        return form

    @property
    def key(self) -> str:
        """Hex digest (32 digits) of the canonical form, the same on every machine and run."""
        digest = self._key
        if digest is None:
            form = self.canonical()
            digest = content_digest([form.ops, form.edges])
            object.__setattr__(self, "_key", digest)
        return digest

    def to_json(self) -> dict[str, Any]:
        """Return `{"ops": [...], "edges": [[i, j], ...]}`, ready for `json.dumps`."""
        return {"ops": list(self.ops), "edges": [list(edge) for edge in self.edges]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Cell":
        """Build the cell that `to_json` described, with the same numbering.

        Raises:
            TypeError: `data` is not a mapping.
            ArchitectureError: A key is missing or unknown, or a value is not what it should be.
        """
        check_keys(data, "a cell", required=("ops", "edges"))
        ops = check_list(data["ops"], str, "ops")
        return cls(tuple(ops), check_pairs(data["edges"], "edges"))

    def _repr_html_(self) -> str:
        return graph_svg(self.ops, self.edges, f"cell of {self.num_nodes} nodes")

    def __hash__(self) -> int:
        value = self._hash
        if value is None:
            value = hash((self.ops, self.edges))
            object.__setattr__(self, "_hash", value)
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        # String hashes differ between processes, so the cached values must not travel.
        return (Cell, (self.ops, self.edges))

    def _check_node(self, node: int) -> None:
        if not 0 <= node < len(self.ops):
            raise IndexError(f"node must be in 0..{len(self.ops) - 1}; got {node}")


def _check_ops(ops: object) -> None:
    if not isinstance(ops, tuple):
        raise TypeError(
            f"ops must be a tuple of str; got {type(ops).__name__} (pass tuple(ops), or build the "
            "cell with Cell.from_edges, which takes any sequence)"
        )
    if len(ops) < 2:
        raise ArchitectureError(
            f"ops must hold at least the input and the output; got {len(ops)} labels: {ops!r}"
        )
    for position, label in enumerate(ops):
        if not isinstance(label, str):
            raise TypeError(f"ops[{position}] must be a str; got {label!r}")
        if not label:
            raise ArchitectureError(f"ops[{position}] must be a non-empty label; got ''")
    if ops[0] != INPUT or ops[-1] != OUTPUT:
        position, expected = (0, INPUT) if ops[0] != INPUT else (len(ops) - 1, OUTPUT)
        raise ArchitectureError(
            f"ops[{position}] must be {expected!r}; got {ops[position]!r} (the input comes first, "
            "the output last)"
        )


def _check_pairs(edges: Iterable[Iterable[int]], num_nodes: int) -> set[tuple[int, int]]:
    pairs = set()
    for position, edge in enumerate(edges):
        try:
            i, j = edge
        except (TypeError, ValueError):
            raise TypeError(
                f"edges[{position}] must be a pair of node numbers; got {edge!r}"
            ) from None
        i = integer(f"edges[{position}][0]", i)
        j = integer(f"edges[{position}][1]", j)
        if not (0 <= i < num_nodes and 0 <= j < num_nodes):
            raise ArchitectureError(
                f"edges[{position}] = {(i, j)} names a node outside 0..{num_nodes - 1}, "
                f"ops has {num_nodes} labels"
            )
        pairs.add((i, j))
    return pairs
