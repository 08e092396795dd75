"""Random graphs as networkx samples them, from the caller's generator, as directed acyclic ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Protocol

import torch

from hotnas_torch.arguments import integer, number

__all__ = ["ErdosRenyi", "GraphModel", "RandomGraph", "WattsStrogatz"]

_WATTS_STROGATZ_TRIES = 200
_ERDOS_RENYI_TRIES = 30

Edges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class RandomGraph:
    """A connected graph; read as directed acyclic, every edge goes to its higher node.

    Attributes:
        num_nodes: N >= 1.
        edges: Pairs (i, j) with i < j, sorted, without repeats.
        tries: Graphs that were drawn until one was connected.
        joined: Edges that were added because none of them was.
    """

    num_nodes: int
    edges: Edges
    tries: int = 1
    joined: int = 0

    def sources(self) -> list[int]:
        """Return the nodes without a lower neighbour, ascending: they read the graph's input."""
        entered = {j for _, j in self.edges}
        return [node for node in range(self.num_nodes) if node not in entered]

    def sinks(self) -> list[int]:
        """Return the nodes without a higher neighbour, ascending: they make the output."""
        left = {i for i, _ in self.edges}
        return [node for node in range(self.num_nodes) if node not in left]

    def between_ends(self) -> Edges:
        """Return the edges with an input node 0 and an output node N + 1, nodes numbered from 1.

        The input leads to the sources, the sinks lead to the output.
        """
        return tuple(
            sorted(
                [
                    *((0, node + 1) for node in self.sources()),
                    *((i + 1, j + 1) for i, j in self.edges),
                    *((node + 1, self.num_nodes + 1) for node in self.sinks()),
                ]
            )
        )


class GraphModel(Protocol):
    """A distribution of graphs with a fixed number of nodes."""

    @property
    def num_nodes(self) -> int:
        """Number of nodes N of every graph."""
        ...

    def sample(self, *, generator: torch.Generator) -> RandomGraph:
        """Draw a connected graph."""
        ...


@dataclass(frozen=True, slots=True)
class WattsStrogatz:
    """Watts and Strogatz's small worlds, connected.

    A ring in which every node is joined to its nearest neighbours; then every edge, by distance
    along the ring and then by node, keeps its first end and, with probability P, gets another
    second end, drawn uniformly among the nodes that are not joined to the first one yet.

    Args:
        num_nodes: N >= 1.
        num_neighbors: K >= 1 nearest neighbours, clipped to N - 1. Half are on each side: of an
            odd number, K - 1 are joined, as in networkx.
        rewiring: P in [0, 1].

    Raises:
        TypeError: A count is not an int.
        ValueError: An argument out of range.

    Reference: Watts and Strogatz, Collective dynamics of small-world networks, Nature 1998.

    Example:
        >>> model = WattsStrogatz(6, 2, 0.0)
        >>> model.sample(generator=torch.Generator().manual_seed(0)).edges
        ((0, 1), (0, 5), (1, 2), (2, 3), (3, 4), (4, 5))
    """

    num_nodes: int
    num_neighbors: int
    rewiring: float

    def __post_init__(self) -> None:
        integer("num_nodes", self.num_nodes, least=1)
        integer("num_neighbors", self.num_neighbors, least=1)
        number("rewiring", self.rewiring, least=0.0, most=1.0)

    def sample(self, *, generator: torch.Generator) -> RandomGraph:
        """Draw a connected graph, by up to 200 draws.

        When none of them is connected, the last one's components, by their lowest nodes, are
        joined by an edge between the highest node of one and the lowest node of the next.

        Args:
            generator: Source of randomness, on the CPU.

        Complexity: O(N K) expected time per draw.
        """
        return _connected(lambda: self._draw(generator), _WATTS_STROGATZ_TRIES)

    def _draw(self, generator: torch.Generator) -> list[set[int]]:
        size = self.num_nodes
        reach = min(self.num_neighbors, size - 1) // 2
        neighbours: list[set[int]] = [set() for _ in range(size)]
        ring = [
            (node, (node + step) % size) for step in range(1, reach + 1) for node in range(size)
        ]
        for u, v in ring:
            neighbours[u].add(v)
            neighbours[v].add(u)
        draws = torch.rand(len(ring), 2, generator=generator, dtype=torch.float64).tolist()
        for (u, v), (coin, place) in zip(ring, draws, strict=True):
            if coin >= self.rewiring:
                continue
            free = [w for w in range(size) if w != u and w not in neighbours[u]]
            if not free:
                continue
            w = free[int(place * len(free))]
            neighbours[u].remove(v)
            neighbours[v].remove(u)
            neighbours[u].add(w)
            neighbours[w].add(u)
        return neighbours


@dataclass(frozen=True, slots=True)
class ErdosRenyi:
    """Erdos and Renyi's graphs, connected: every pair of nodes is joined with one probability.

    Args:
        num_nodes: N >= 1.
        edge_probability: P in [0, 1].

    Raises:
        TypeError: The count is not an int.
        ValueError: An argument out of range.

    Reference: Gilbert, Random graphs, Annals of Mathematical Statistics 1959, G(n, p).

    Example:
        >>> ErdosRenyi(1, 0.5).sample(generator=torch.Generator().manual_seed(0)).between_ends()
        ((0, 1), (1, 2))
    """

    num_nodes: int
    edge_probability: float

    def __post_init__(self) -> None:
        integer("num_nodes", self.num_nodes, least=1)
        number("edge_probability", self.edge_probability, least=0.0, most=1.0)

    def sample(self, *, generator: torch.Generator) -> RandomGraph:
        """Draw a connected graph, by up to 30 draws, joined as in `WattsStrogatz.sample`.

        Args:
            generator: Source of randomness, on the CPU.

        Complexity: O(N^2) time per draw.
        """
        return _connected(lambda: self._draw(generator), _ERDOS_RENYI_TRIES)

    def _draw(self, generator: torch.Generator) -> list[set[int]]:
        size = self.num_nodes
        neighbours: list[set[int]] = [set() for _ in range(size)]
        pairs = list(combinations(range(size), 2))
        coins = torch.rand(len(pairs), generator=generator, dtype=torch.float64).tolist()
        for (u, v), coin in zip(pairs, coins, strict=True):
            if coin < self.edge_probability:
                neighbours[u].add(v)
                neighbours[v].add(u)
        return neighbours


def _connected(draw: Callable[[], list[set[int]]], tries: int) -> RandomGraph:
    tried = 0
    components: list[list[int]] = []
    while len(components) != 1 and tried < tries:
        neighbours = draw()
        components = _components(neighbours)
        tried += 1
    edges = {(u, v) for u, adjacent in enumerate(neighbours) for v in adjacent if u < v}
    joints = [(max(first), min(second)) for first, second in pairwise(components)]
    edges.update((min(joint), max(joint)) for joint in joints)
    return RandomGraph(len(neighbours), tuple(sorted(edges)), tried, len(joints))


def _components(neighbours: Sequence[set[int]]) -> list[list[int]]:
    """Return the connected components by their lowest nodes, ascending."""
    seen = [False] * len(neighbours)
    components = []
    for start in range(len(neighbours)):
        if seen[start]:
            continue
        seen[start] = True
        component = [start]
        for node in component:  # grows while it is read
            for other in neighbours[node]:
                if not seen[other]:
                    seen[other] = True
                    component.append(other)
        components.append(component)
    return components
