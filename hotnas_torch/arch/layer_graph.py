"""A network as one graph of its layers: cells expanded where they stand in the macro graph."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from hotnas_torch.arch.cell import INPUT, OUTPUT, Cell
from hotnas_torch.arch.network import Network

__all__ = ["LayerGraph"]


@dataclass(frozen=True, slots=True)
class LayerGraph:
    """A labelled directed acyclic graph of layers, numbered topologically.

    Node 0 is the network's input and the last node its output. The inputs and outputs of cells are
    no layers: what a cell's output gathers goes straight to the layers that read the cell's input.

    Attributes:
        ops: Label of each of the n nodes; the first is ``"input"``, the last ``"output"``.
        places: Number of the cell that each node belongs to, 0..N-1; -1 for the network's input, N
            for its output.
        edges: Pairs (i, j) with i < j, sorted, without repeats.

    Example:
        >>> cell = Cell(("input", "conv", "skip", "output"), ((0, 1), (0, 2), (1, 3), (2, 3)))
        >>> net = Network.chain((cell, cell), channels=(16, 16), downsampling=(1, 1))
        >>> graph = LayerGraph.of_network(net, contract={"skip"})
        >>> graph.ops
        ('input', 'conv', 'conv', 'output')
        >>> graph.edges
        ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    """

    ops: tuple[str, ...]
    places: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]

    @classmethod
    def of_network(cls, net: Network, *, contract: Collection[str] = ()) -> LayerGraph:
        """Expands all cells of a network.

        Args:
            net: The network.
            contract: Labels of layers that are replaced by direct edges from what precedes them to
                what follows them, such as skip connections.

        Complexity: O(nodes + edges) of the result; each distinct cell is analysed once.
        """
        preceding: list[list[int]] = [[] for _ in range(net.num_cells + 2)]
        for i, j in net.edges:
            preceding[j].append(i)
        hidden = frozenset(contract)
        ops, places = [INPUT], [-1]
        edges: list[tuple[int, int]] = []
        exits: list[frozenset[int]] = [frozenset((0,))]
        for place, cell in enumerate(net.cells):
            entries = frozenset[int]().union(*(exits[before] for before in preceding[place + 1]))
            layers = _layers(cell, hidden)
            start = len(ops)

            def sources(
                feed: _Feed, start: int = start, entries: frozenset[int] = entries
            ) -> set[int]:
                inner = {start + layer for layer in feed.layers}
                return inner | entries if feed.entry else inner

            for number, feed in enumerate(layers.feeds):
                edges += [(source, start + number) for source in sources(feed)]
            exits.append(frozenset(sources(layers.exit)))
            ops += layers.ops
            places += [place] * len(layers.ops)
        gathered = frozenset[int]().union(*(exits[before] for before in preceding[-1]))
        edges += [(source, len(ops)) for source in gathered]
        return cls((*ops, OUTPUT), (*places, net.num_cells), tuple(sorted(edges)))

    @classmethod
    def of_cell(cls, cell: Cell, *, contract: Collection[str] = ()) -> LayerGraph:
        """Returns the layers of one cell as a network of its own; arguments as `of_network`."""
        return cls.of_network(Network((cell,), (1,), (1,)), contract=contract)


class _Feed(NamedTuple):
    """What a layer reads: layers of its cell by number, and perhaps the cell's input."""

    layers: frozenset[int]
    entry: bool


class _Layers(NamedTuple):
    ops: list[str]
    feeds: list[_Feed]
    exit: _Feed


@lru_cache(maxsize=2**14)
def _layers(cell: Cell, contract: frozenset[str]) -> _Layers:
    preceding: list[list[int]] = [[] for _ in cell.ops]
    for i, j in cell.edges:
        preceding[j].append(i)
    ops: list[str] = []
    feeds: list[_Feed] = []
    # What reading a node means.
    reading = [_Feed(frozenset(), entry=True)]
    for node in range(1, cell.num_nodes):
        read = [reading[before] for before in preceding[node]]
        feed = _Feed(
            frozenset[int]().union(*(one.layers for one in read)), any(one.entry for one in read)
        )
        if node == cell.num_nodes - 1 or cell.ops[node] in contract:
            reading.append(feed)
            continue
        reading.append(_Feed(frozenset((len(ops),)), entry=False))
        ops.append(cell.ops[node])
        feeds.append(feed)
    return _Layers(ops, feeds, reading[-1])
