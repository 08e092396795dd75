"""Cells whose operations stand on the edges between four feature maps, as graphs of operations."""

import itertools
from collections.abc import Sequence

from hotnas_torch.arch import Cell

__all__ = ["EDGES", "edge_cell"]

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Edges by the feature maps that they join, in the order of all official strings."""

_OUTPUT_NODE = len(EDGES) + 1  # nodes 1..6 of the cell graph are the edges
_LINE_GRAPH = tuple(
    sorted(
        [(0, place + 1) for place, (source, _) in enumerate(EDGES) if source == 0]
        + [
            (first + 1, second + 1)
            for first, second in itertools.permutations(range(len(EDGES)), 2)
            if EDGES[first][1] == EDGES[second][0]
        ]
        + [(place + 1, _OUTPUT_NODE) for place, (_, target) in enumerate(EDGES) if target == 3]
    )
)


def edge_cell(operations: Sequence[str], *, none: str, contracted: str | None = None) -> Cell:
    """Build the cell whose nodes are operations on edges: edge a -> b precedes edge b -> c.

    Args:
        operations: One per edge, in the order of `EDGES`.
        none: Label of no operation: it is removed, and with it whatever it leaves off every path
            from input to output. Without such a path the cell is `Cell(("input", "output"), ())`.
        contracted: Label of operations that direct edges replace, from what precedes them to what
            follows them.
    """
    labels = ["input", *operations, "output"]
    removed = [node for node, label in enumerate(labels) if label == none]
    edges = {(i, j) for i, j in _LINE_GRAPH if i not in removed and j not in removed}
    if contracted is not None:
        for node in (node for node, label in enumerate(labels) if label == contracted):
            before = [i for i, j in edges if j == node]
            after = [j for i, j in edges if i == node]
            edges = {edge for edge in edges if node not in edge}
            edges.update(itertools.product(before, after))
    return Cell.from_edges(labels, edges, prune=True)
