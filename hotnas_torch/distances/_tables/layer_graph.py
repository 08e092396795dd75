"""Layer graphs: a network as one graph of layers, for distances that know no cells."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Cell, NestedCell, Network
from hotnas_torch.arch.dag import nodes_on_paths
from hotnas_torch.spaces import DARTS, SearchSpace, Subset

__all__ = [
    "IDENTITIES",
    "JOINTS",
    "LayerBatch",
    "LayerGraph",
    "NetworkView",
    "is_among",
    "kind_of",
    "layer_graph",
]

JOINTS = frozenset({"input", "output", "input1", "input2", "add"})
"""Labels of nodes that only join others: ends of cells, inputs of DARTS cells, sums."""

IDENTITIES = frozenset({"skip_connect", "identity"})
"""Labels of operations that hand on what they get."""


def kind_of(label: str) -> str:
    """Return the kind in a label, which is the label itself where it carries no numbers."""
    return label.partition("[")[0] or label


def is_among(label: str, labels: Collection[str]) -> bool:
    """Return whether a label, or its kind, is among others."""
    return label in labels or kind_of(label) in labels


@dataclass(frozen=True, slots=True)
class LayerGraph:
    """A directed acyclic graph of layers between an input and an output.

    Nodes are numbered topologically, node 0 is the input and the last node the output; every node
    is on a path between them, or these two are all there is and nothing joins them.

    Attributes:
        ops: Labels of the nodes, `"input"` and `"output"` at the ends.
        edges: Sorted pairs (i, j), i < j.
        widths: Per node, (channels in, channels out) of every layer of the network that the node
            stands for; empty at the ends.
    """

    ops: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    widths: tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True, slots=True)
class NetworkView:
    """Which part of a network a layer graph shows.

    Attributes:
        cells: `"first"`: the first cell, which stands for all equal ones (spaces that repeat one
            cell); `"distinct"`: every distinct cell once, in a chain, in the order of their first
            places; `"all"`: the whole network.
        share: Layers inside a cell have 1/share of the cell's channels.
        projected: Whether a cell brings its input to the width of its layers before they read it.
    """

    cells: Literal["first", "distinct", "all"]
    share: int = 1
    projected: bool = False

    @classmethod
    def of_space(cls, space: SearchSpace) -> "NetworkView":
        """Return the view that suits a space.

        The cell where networks repeat one cell on one skeleton, as the papers do; the normal and
        the reduction cell in DARTS, whose whole networks have hundreds of layers; else everything.
        """
        while isinstance(space, Subset):
            space = space.space
        if isinstance(space, DARTS):
            return cls("distinct", share=space.num_nodes, projected=True)
        if space.repeats_one_cell:
            return cls("first", projected=True)
        return cls("all")


def layer_graph(
    net: Network, view: NetworkView, *, without: Collection[str] = JOINTS | IDENTITIES
) -> LayerGraph:
    """Build the layer graph of a network.

    Cells are laid out flat in their canonical numbering and joined along the macro graph. Nodes
    with a label in `without` are then replaced by edges from all that precede to all that follow
    them.

    Args:
        net: The network.
        view: Which of its cells to show.
        without: Labels and kinds that are no layers.

    Returns:
        The graph; a network through which nothing flows is an input and an output.

    Complexity: O(nodes + edges), and the product of their degrees per replaced node.
    """
    places: list[list[int]] = [[place] for place in range(net.num_cells)]
    macro: Sequence[tuple[int, int]] = net.edges
    if view.cells != "all":
        by_cell: dict[str, list[int]] = {}
        for place, cell in enumerate(net.cells):
            by_cell.setdefault(cell.key, []).append(place)
        places = list(by_cell.values())[: 1 if view.cells == "first" else None]
        macro = [(number, number + 1) for number in range(len(places) + 1)]
    ops = ["input"]
    widths: list[tuple[tuple[int, int], ...]] = [()]
    before: list[set[int]] = [set()]
    first, last = [0], [0]
    for copies in places:
        cell = _flat(net.cells[copies[0]])
        offset = len(ops)
        first.append(offset)
        last.append(offset + cell.num_nodes - 1)
        ops += cell.ops
        before += [
            {offset + source for source in cell.predecessors(node)}
            for node in range(cell.num_nodes)
        ]
        widths += [
            tuple(_widths(net, view, place, offset in before[offset + node]) for place in copies)
            for node in range(cell.num_nodes)
        ]
    first.append(len(ops))
    last.append(len(ops))
    ops.append("output")
    widths.append(())
    before.append(set())
    for source, target in macro:
        before[first[target]].add(last[source])
    kept = [node for node in range(1, len(ops) - 1) if not is_among(ops[node], without)]
    edges = _contract(before, {0, *kept, len(ops) - 1})
    return _renumber(ops, edges, widths)


@lru_cache(maxsize=2**12)
def _flat(cell: Cell) -> Cell:
    form = cell.canonical()
    return form.flatten() if isinstance(form, NestedCell) else form


def _widths(net: Network, view: NetworkView, place: int, reads_input: bool) -> tuple[int, int]:
    out = net.channels[place] // view.share
    if view.projected or not reads_input:
        return out, out
    sources = [source for source, target in net.edges if target == place + 1]
    return sum(net.channels[s - 1] if s else net.input_channels for s in sources), out


def _contract(before: list[set[int]], kept: set[int]) -> list[tuple[int, int]]:
    """Edges between the kept nodes, through any number of others."""
    sources: list[set[int]] = []
    edges = []
    for node, direct in enumerate(before):
        reached: set[int] = set().union(*({s} if s in kept else sources[s] for s in direct))
        sources.append(reached)
        if node in kept:
            edges += [(source, node) for source in reached]
    return edges


def _renumber(
    ops: list[str], edges: list[tuple[int, int]], widths: list[tuple[tuple[int, int], ...]]
) -> LayerGraph:
    kept = nodes_on_paths(len(ops), edges) or [0, len(ops) - 1]
    new = {old: number for number, old in enumerate(kept)}
    pairs = tuple(sorted((new[i], new[j]) for i, j in edges if i in new and j in new))
    return LayerGraph(
        tuple(ops[node] for node in kept), pairs, tuple(widths[node] for node in kept)
    )


@dataclass(frozen=True, slots=True, eq=False)
class LayerBatch:
    """U layer graphs padded to n nodes. Nodes keep their numbering; padding follows.

    Attributes:
        graphs: The graphs.
        sizes: Number of nodes of each, (U,) int64.
        adjacency: (U, n, n) bool, entry (u, i, j) is the edge i -> j of graph u.
    """

    graphs: tuple[LayerGraph, ...]
    sizes: Tensor
    adjacency: Tensor

    @classmethod
    def from_graphs(cls, graphs: Sequence[LayerGraph]) -> "LayerBatch":
        """Build the batch on the CPU; at least one graph."""
        sizes = torch.tensor([len(graph.ops) for graph in graphs])
        width = int(sizes.max())
        adjacency = torch.zeros(len(graphs), width, width, dtype=torch.bool)
        edges = [edge for graph in graphs for edge in graph.edges]
        ends = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2)  # the dtype of no edges
        owner = torch.repeat_interleave(torch.tensor([len(graph.edges) for graph in graphs]))
        adjacency[owner, ends[:, 0], ends[:, 1]] = True
        return cls(tuple(graphs), sizes, adjacency)

    @property
    def mask(self) -> Tensor:
        """True for nodes, (U, n) bool."""
        return torch.arange(self.adjacency.shape[1]) < self.sizes[:, None]

    def path_lengths(self, steps: Tensor) -> Tensor:
        """Shortest, longest and random-walk path lengths of every node, both ways.

        Leaving node i costs `steps[..., i, g]`. On the way to the output, along edges, a walk
        chooses uniformly among successors; on the way to the input, against them, among
        predecessors.

        Args:
            steps: (U, n, G) float64; padding anything.

        Returns:
            (U, n, 6 G) float64, padding 0: to the input shortest, longest, walk, each for the G
            step costs, then to the output. Infinite between ends that nothing joins.

        Complexity: n steps of tensor operations on (2U, n, G).

        Reference: Kandasamy et al., Neural Architecture Search with Bayesian Optimisation and
            Optimal Transport, NeurIPS 2018, section 3 (path lengths by layer group).
        """
        width = self.adjacency.shape[1]
        place = torch.arange(width)
        mirror = (self.sizes[:, None] - 1 - place).clamp(min=0)
        graph = torch.arange(len(self.sizes))[:, None]
        mirrored = self.adjacency[graph[:, :, None], mirror[:, None, :], mirror[:, :, None]]
        lengths = _from_first(
            torch.cat([self.adjacency, mirrored]), torch.cat([steps, steps[graph, mirror]])
        )
        inward, outward = lengths.chunk(2)
        both = torch.cat([inward, outward[graph, mirror]], dim=2)
        return both.masked_fill(~self.mask[:, :, None], 0.0)

    def hops(self) -> Tensor:
        """Fewest edges from the input to every node, (U, n) int64; -1 where there is no way."""
        steps = torch.ones(*self.adjacency.shape[:2], 1, dtype=torch.float64)
        shortest = _from_first(self.adjacency, steps)[:, :, 0]
        shortest = shortest.masked_fill(~self.mask | torch.isinf(shortest), -1.0)
        return shortest.long()


def _from_first(adjacency: Tensor, steps: Tensor) -> Tensor:
    """Lengths of the ways from every node back to node 0, (B, n, 3G): shortest, longest, walk.

    A node hands its lengths on to its successors when all its predecessors have done so; sums thus
    run in node order whatever the padding, and round the same way.
    """
    batch, width, groups = steps.shape
    shortest = torch.full((batch, width, groups), torch.inf, dtype=steps.dtype)
    shortest[:, 0] = 0.0
    longest = torch.zeros_like(shortest)
    walk = torch.zeros_like(shortest)
    indegree = adjacency.sum(1).clamp(min=1).to(steps.dtype)
    for j in range(width):
        # What the predecessors left here lacks the step out of this node.
        own = steps[:, j] if j else torch.zeros_like(steps[:, 0])
        shortest[:, j] += own
        longest[:, j] += own
        walk[:, j] = walk[:, j] / indegree[:, j, None] + own
        edge = adjacency[:, j, j + 1 :, None]
        later = slice(j + 1, None)
        here = shortest[:, None, j]
        shortest[:, later] = torch.where(
            edge, torch.minimum(shortest[:, later], here), shortest[:, later]
        )
        longest[:, later] = torch.where(
            edge, torch.maximum(longest[:, later], longest[:, None, j]), longest[:, later]
        )
        walk[:, later] += torch.where(edge, walk[:, None, j], 0.0)
    lengths = torch.stack([shortest, longest, walk], dim=2)
    unreached = torch.isinf(shortest)[:, :, None]
    return lengths.masked_fill(unreached, torch.inf).flatten(2)
