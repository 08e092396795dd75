"""Edge lists of directed acyclic graphs with one source and one sink.

Cells and macro graphs are the same kind of object: nodes 0 .. n-1 numbered topologically, node 0
the source, node n-1 the sink, edges a sorted tuple of pairs. The rules they share live here.
"""

import heapq
from collections.abc import Iterable, Sequence

from hotnas_torch.errors import ArchitectureError

__all__ = [
    "check_edges",
    "longest_paths",
    "nodes_on_paths",
    "renumbered",
    "topological_order",
]

Edges = tuple[tuple[int, int], ...]


def check_edges(edges: object, names: Sequence[str], argument: str = "edges") -> None:
    """Check a sorted edge list in which every node lies on a source-to-sink path.

    Args:
        edges: Tuple of pairs (i, j) with 0 <= i < j < n, strictly increasing.
        names: How to call node i in a message, n entries.
        argument: Name of `edges` in messages.

    Raises:
        TypeError: Not a tuple of pairs of int.
        ArchitectureError: An edge out of range, backward, repeated or out of order, or a node that
            is on no path from node 0 to node n-1.

    Complexity: O(n + number of edges).
    """
    if not isinstance(edges, tuple):
        raise TypeError(
            f"{argument} must be a tuple of (int, int) pairs; got {type(edges).__name__} "
            f"(convert it: tuple(sorted((i, j) for i, j in {argument})))"
        )
    num_nodes = len(names)
    # Sources ascend, so when an edge is read every edge into its source has been read already.
    from_source = [False] * num_nodes
    from_source[0] = True
    previous = (-1, -1)
    for position, edge in enumerate(edges):
        try:
            i, j = edge
        except (TypeError, ValueError):
            i = j = None
        if type(edge) is not tuple or type(i) is not int or type(j) is not int:
            raise TypeError(
                f"{argument}[{position}] must be a tuple of two ints (i, j); got {edge!r}"
            )
        if not (0 <= i < num_nodes and 0 <= j < num_nodes):
            raise ArchitectureError(
                f"{argument}[{position}] = {edge} names a node outside 0..{num_nodes - 1}, "
                f"there are {num_nodes} nodes (fix the edge, or add the missing node)"
            )
        if i >= j:
            raise ArchitectureError(
                f"{argument}[{position}] = {edge} must go from a lower to a higher node: nodes are "
                "numbered topologically and the graph is acyclic (renumber the nodes; "
                "Cell.from_edges does that for any acyclic edge list)"
            )
        if edge <= previous:
            fault = "is repeated" if edge == previous else f"comes after {previous}"
            raise ArchitectureError(
                f"{argument}[{position}] = {edge} {fault}; edges must be sorted and distinct "
                f"(pass tuple(sorted(set({argument}))))"
            )
        previous = edge
        if from_source[i]:
            from_source[j] = True
    to_sink = [False] * num_nodes
    to_sink[-1] = True
    for i, j in reversed(edges):
        if to_sink[j]:
            to_sink[i] = True
    if not (all(from_source) and all(to_sink)):
        # Without any path the ends are off it as well; an inner node is what can be mended.
        node = next(v for v in (*range(1, num_nodes), 0) if not (from_source[v] and to_sink[v]))
        lacking = "is not reachable from the input" if not from_source[node] else "leads nowhere"
        raise ArchitectureError(
            f"{argument} must put every node on a path from input to output; node {node} "
            f"({names[node]}) {lacking} (connect it or drop it; Cell.from_edges(..., prune=True) "
            "drops such nodes)"
        )


def nodes_on_paths(num_nodes: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Return the nodes on at least one path from node 0 to node num_nodes-1, ascending.

    The edges may come in any order and may contain cycles. The list is empty when the sink is not
    reachable. Complexity: O(num_nodes + number of edges).
    """
    successors: list[list[int]] = [[] for _ in range(num_nodes)]
    predecessors: list[list[int]] = [[] for _ in range(num_nodes)]
    for i, j in edges:
        successors[i].append(j)
        predecessors[j].append(i)
    forward = _reached(0, successors)
    backward = _reached(num_nodes - 1, predecessors)
    return [v for v in range(num_nodes) if forward[v] and backward[v]]


def _reached(start: int, neighbours: Sequence[Sequence[int]]) -> list[bool]:
    seen = [False] * len(neighbours)
    seen[start] = True
    stack = [start]
    while stack:
        for node in neighbours[stack.pop()]:
            if not seen[node]:
                seen[node] = True
                stack.append(node)
    return seen


def topological_order(num_nodes: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Return the topological order that takes the lowest available node first (Kahn).

    The last node stays last when it has no outgoing edge: whatever waits then waits, directly or
    not, for an available node with a lower number.

    Raises:
        ArchitectureError: The edges contain a cycle; the message lists its nodes.

    Complexity: O((num_nodes + number of edges) log num_nodes).
    """
    successors: list[list[int]] = [[] for _ in range(num_nodes)]
    waiting = [0] * num_nodes
    for i, j in edges:
        successors[i].append(j)
        waiting[j] += 1
    available = [v for v in range(num_nodes) if waiting[v] == 0]
    order = []
    while available:
        node = heapq.heappop(available)
        order.append(node)
        for j in successors[node]:
            waiting[j] -= 1
            if waiting[j] == 0:
                heapq.heappush(available, j)
    if len(order) < num_nodes:
        cycle = _find_cycle(successors, waiting)
        raise ArchitectureError(
            f"edges must be acyclic; found the cycle {' -> '.join(map(str, cycle))} "
            "(remove or reverse one of its edges)"
        )
    return order


def _find_cycle(successors: Sequence[Sequence[int]], waiting: Sequence[int]) -> list[int]:
    # Every node that still waits has a predecessor that still waits, so walking backwards repeats.
    predecessors: dict[int, int] = {}
    for i, targets in enumerate(successors):
        if waiting[i]:
            for j in targets:
                predecessors[j] = i
    node = next(v for v in range(len(waiting)) if waiting[v])
    seen: dict[int, int] = {}
    walk: list[int] = []
    while node not in seen:
        seen[node] = len(walk)
        walk.append(node)
        node = predecessors[node]
    return [node, *reversed(walk[seen[node] :])]


def longest_paths(num_nodes: int, edges: Edges) -> list[int]:
    """Return the largest number of edges from node 0 to each node, for a sorted edge list."""
    depth = [0] * num_nodes
    for i, j in edges:
        if depth[i] >= depth[j]:
            depth[j] = depth[i] + 1
    return depth


def renumbered(
    labels: tuple[str, ...], edges: Iterable[tuple[int, int]], order: Sequence[int]
) -> tuple[tuple[str, ...], list[tuple[int, int]]]:
    """Return labels and sorted edges after `order[new] = old`; nodes left out are dropped."""
    new = {old: position for position, old in enumerate(order)}
    pairs = sorted((new[i], new[j]) for i, j in edges if i in new and j in new)
    return tuple(labels[old] for old in order), pairs
