"""Weisfeiler-Lehman similarity: how many neighbourhoods of layers two networks share."""

import hashlib
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Cell, NestedCell, Network
from hotnas_torch.arguments import boolean, choice, integer, items, shown, takes
from hotnas_torch.distances._tables.layer_graph import (
    IDENTITIES,
    NetworkView,
    is_among,
    kind_of,
    layer_graph,
)
from hotnas_torch.distances.network_distance import KernelTerm, NetworkDistance
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.matrices.progress import Progress, progress_bar
from hotnas_torch.ot._operators.tracing import interpreted
from hotnas_torch.segments import segment_sum
from hotnas_torch.spaces import SearchSpace

__all__ = ["Aggregation", "WeisfeilerLehman", "level_similarities"]

Aggregation = Literal["histogram", "assignment"]

_Graph = tuple[tuple[str, ...], tuple[tuple[int, int], ...]]

_ENDS = frozenset(("input", "output"))
_AGGREGATIONS: dict[str, Aggregation] = {"nasbench201": "histogram"}
"""By the name of a space, where NAS-BOWL does not use optimal assignment."""

# Odd constants of splitmix64, as signed 64-bit integers.
_STEP = -0x61C8864680B583EB
_FIRST_FACTOR = -0x40A7B892E31B1A47
_SECOND_FACTOR = -0x6B2FB644ECCEEE15


@interpreted
class WeisfeilerLehman(NetworkDistance):
    """Weisfeiler-Lehman kernel between networks, and the distance that belongs to it.

    A call returns the distance sqrt(2 - 2 k) between the normalised features, `similarity` k.

    A network is one labelled graph of layers. At level 0 a layer's label is its operation; at level
    h it is its label at level h - 1 together with the multiset of those of the layers that read it.
    Two networks are compared by how often each label occurs, c(l) and c'(l), over levels 0..H::

        histogram:   k = sum_l c(l) c'(l)          assignment:   k = sum_l min(c(l), c'(l))

    The second is the value of the best assignment of the layers of one network to those of the
    other. Both are inner products of explicit features, hence positive semi-definite; they are
    normalised to k(x, x) = 1.

    Where all networks of the space repeat one cell on one skeleton, the graph is that of the cell.
    Elsewhere it is that of all cells, connected as the macro graph says, and the operation of a
    layer is joined by width and resolution of its cell, so that the same operation in another stage
    is another label. Operations that carry numbers are the same where their numbers are, or, with
    `numbers=False`, where their kinds are.

    Args:
        space: Search space of the networks.
        level: Largest level H, >= 0.
        aggregation: See above; None takes what NAS-BOWL uses: `"histogram"` on NAS-Bench-201,
            `"assignment"` elsewhere.
        contract: Labels of layers that are replaced by direct edges; None takes skip connections
            and identities, as NAS-BOWL does.
        numbers: Whether operations of one kind differ where their numbers do.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: An argument out of range.

    Complexity: O((layers + edges) * H) per network, one matrix product over the labels that occur
        on both sides.

    Reference: Ru et al., "Interpretable Neural Architecture Search via Bayesian Optimisation with
        Weisfeiler-Lehman Kernels", ICLR 2021; Kriege et al., "On Valid Optimal Assignment Kernels",
        NeurIPS 2016.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> nets = space.sample(3, generator=torch.Generator().manual_seed(0))
        >>> metric = WeisfeilerLehman(space=space)
        >>> metric.similarity(nets).diagonal().tolist()
        [1.0, 1.0, 1.0]
        >>> metric(nets[:2], nets).shape
        torch.Size([2, 3])
    """

    name = "weisfeiler_lehman"
    kernel_terms = (KernelTerm((0,), 1, 1e-3, 1e1),)
    # The distance between vectors, whose square is conditionally negative definite.
    negative_definite = True

    @takes()
    def __init__(
        self,
        space: SearchSpace,
        *,
        level: int = 2,
        aggregation: Aggregation | None = None,
        contract: Collection[str] | None = None,
        numbers: bool = True,
    ) -> None:
        super().__init__(space)
        self.numbers = boolean("numbers", numbers)
        level = integer("level", level, least=0)
        if isinstance(contract, str) or not isinstance(contract, Collection | None):
            raise TypeError(
                "contract must be a collection of labels or None; got the"
                f" {type(contract).__name__} {contract!r}"
            )
        self.level = level
        default = _AGGREGATIONS.get(space.name, "assignment")
        self.aggregation: Aggregation = choice(
            "aggregation",
            default if aggregation is None else aggregation,
            ("histogram", "assignment"),
        )
        for label in contract or ():
            if not isinstance(label, str):
                raise TypeError(f"contract must hold labels; got {shown(label)}")
            try:
                space.tree.check(label)
            except ArchitectureError as error:
                raise ValueError(f"contract must hold labels of {space!r}: {error}") from None
        self.contract = IDENTITIES if contract is None else frozenset(contract)
        self._view = NetworkView("first" if space.repeats_one_cell else "all")

    def labels(self, nets: Sequence[Network]) -> list[Tensor]:
        """Label of all layers at all levels, equal numbers for equal labels.

        The numbers depend on nothing but the networks, so those of different calls compare.

        Args:
            nets: N networks.

        Returns:
            Per network (H + 1, n) int64, row h for level h, n its number of layers.

        Raises:
            TypeError: `nets` is a single network, or an entry no Network.
        """
        items("nets", nets, Network)
        view, contract, numbers = self._view, self.contract, self.numbers
        graphs = [_graph(net, view, contract, numbers) for net in nets]
        sizes = [len(names) for names, _ in graphs]
        labels = torch.tensor([_hash(name) for names, _ in graphs for name in names]).long()
        starts = torch.tensor([0, *sizes]).cumsum(0)[:-1]
        counts = torch.tensor([len(edges) for _, edges in graphs]).long()
        ends = torch.tensor([pair for _, edges in graphs for pair in edges]).long().reshape(-1, 2)
        source, target = (ends + starts.repeat_interleave(counts)[:, None]).unbind(1)
        levels = [labels]
        for _ in range(self.level):
            read = segment_sum(_mix(labels[target] + _STEP), source, len(labels))
            labels = _mix(_mix(labels) + read)
            levels.append(labels)
        return list(torch.stack(levels).split(sizes, dim=1))

    def similarity(
        self, nets_a: Sequence[Network], nets_b: Sequence[Network] | None = None
    ) -> Tensor:
        """Return the normalised kernel, (A, B) or (A, A), float64 in [0, 1]; errors as `labels`."""
        labels_a = self.labels(nets_a)
        labels_b = labels_a if nets_b is None else self.labels(nets_b)
        return level_similarities(labels_a, labels_b, self.aggregation)[-1]

    def config(self) -> dict[str, Any]:
        """Return everything that the distances depend on, as JSON-ready values."""
        return {
            **super().config(),
            "level": self.level,
            "aggregation": self.aggregation,
            "contract": sorted(self.contract),
            **({} if self.numbers else {"numbers": False}),
        }

    def _tables(self, nets: Sequence[Network]) -> list[Tensor]:
        return self.labels(nets)

    def _block(
        self, tables: list[Tensor], rows: Tensor, cols: Tensor, *, progress: Progress = False
    ) -> Tensor:
        # Sums of whole numbers, which are exact in any order and either orientation.
        with progress_bar(progress, "networks", len(rows) * len(cols)) as advance:
            of_rows, of_cols = ([tables[k] for k in side.tolist()] for side in (rows, cols))
            similarity = level_similarities(of_rows, of_cols, self.aggregation)[-1]
            advance(similarity.numel())
        return (2.0 - 2.0 * similarity).clamp_min(0.0).sqrt()[None]


@lru_cache(maxsize=2**12)
def _graph(net: Network, view: NetworkView, contract: frozenset[str], numbers: bool) -> _Graph:
    """Labels and edges of the layers that are compared; a search asks for the same ones often."""
    hidden = contract | _ENDS
    if view.cells == "all":
        states = zip(net.cells, net.channels, net.downsampling, strict=True)
        cells = tuple(_placed(cell, f"@{c}/{d}", hidden, numbers=numbers) for cell, c, d in states)
        net = Network(cells, net.channels, net.downsampling, net.edges)
    elif not numbers:
        cells = tuple(_placed(cell, "", hidden, numbers=False) for cell in net.cells)
        net = Network(cells, net.channels, net.downsampling, net.edges)
    graph = layer_graph(net, view, without=hidden)
    return graph.ops, graph.edges


def level_similarities(
    labels_a: Sequence[Tensor], labels_b: Sequence[Tensor], aggregation: Aggregation
) -> Tensor:
    """Normalised kernels of networks for every largest level.

    Args:
        labels_a: Labels of A networks, (H + 1, n) each.
        labels_b: Labels of B networks, of as many levels.
        aggregation: `"histogram"` or `"assignment"`, how labels are counted.

    Returns:
        (H + 1, A, B) float64; entry h counts levels 0..h.
    """
    products = torch.stack(
        [
            _products([of[level] for of in labels_a], [of[level] for of in labels_b], aggregation)
            for level in range(len(labels_a[0]))
        ]
    ).cumsum(0)
    norms_a, norms_b = (_norms(labels, aggregation) for labels in (labels_a, labels_b))
    return products / (norms_a[:, :, None] * norms_b[:, None, :]).sqrt()


def _products(a: list[Tensor], b: list[Tensor], aggregation: Aggregation) -> Tensor:
    """Inner products of the features at one level, (A, B)."""
    features, owner = _features([*a, *b], aggregation)
    num_a, num_b = len(a), len(b)
    # Most labels of deep levels occur on one side only, where they count for nothing.
    num_features = int(features.max()) + 1
    present = torch.zeros(2, num_features, dtype=torch.bool)
    present[(owner >= num_a).long(), features] = True
    shared = present.all(0)
    column = shared.cumsum(0) - 1
    kept = shared[features]
    counts = torch.zeros(num_a + num_b, int(shared.sum()), dtype=torch.float64)
    counts.index_put_(
        (owner[kept], column[features[kept]]), torch.ones(1, dtype=torch.float64), accumulate=True
    )
    return counts[:num_a] @ counts[num_a:].mT


def _features(labels: list[Tensor], aggregation: Aggregation) -> tuple[Tensor, Tensor]:
    """Numbers a feature of each layer, and says whose it is.

    With optimal assignment, the first, second, ... occurrence of a label in a network are features
    of their own: min(c, c') is the number of those that two networks share.
    """
    owner = torch.arange(len(labels)).repeat_interleave(
        torch.tensor([len(of) for of in labels], dtype=torch.int64)
    )
    _, features = torch.unique(torch.cat(labels), return_inverse=True)
    if aggregation == "histogram":
        return features, owner
    runs, order = (owner * (int(features.max()) + 1) + features).sort(stable=True)
    place = torch.arange(len(runs))
    begins = torch.ones(len(runs), dtype=torch.bool)
    begins[1:] = runs[1:] != runs[:-1]
    occurrence = place - torch.where(begins, place, 0).cummax(0).values
    pairs = features[order] * (int(occurrence.max()) + 1) + occurrence
    _, features = torch.unique(pairs, return_inverse=True)
    return features, owner[order]


def _norms(labels: Sequence[Tensor], aggregation: Aggregation) -> Tensor:
    """k(x, x) before normalisation for every largest level, (H + 1, N)."""
    num_levels = len(labels[0])
    if aggregation == "assignment":
        sizes = torch.tensor([of.shape[1] for of in labels], dtype=torch.float64)
        return sizes * torch.arange(1, num_levels + 1, dtype=torch.float64)[:, None]
    levels = []
    for level in range(num_levels):
        features, owner = _features([of[level] for of in labels], aggregation)
        num_features = int(features.max()) + 1
        pairs, counts = torch.unique(owner * num_features + features, return_counts=True)
        levels.append(segment_sum(counts.double().square(), pairs // num_features, len(labels)))
    return torch.stack(levels).cumsum(0)


@lru_cache(maxsize=2**12)
def _placed(cell: Cell, state: str, hidden: frozenset[str], *, numbers: bool) -> Cell:
    """Return the flat cell with its state joined to the label of every layer."""
    if isinstance(cell, NestedCell):
        cell = cell.canonical().flatten()
    names = cell.ops if numbers else tuple(map(kind_of, cell.ops))
    return Cell(tuple(op if is_among(op, hidden) else op + state for op in names), cell.edges)


@lru_cache(maxsize=2**16)
def _hash(name: str) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _mix(x: Tensor) -> Tensor:
    """Return the bijection of splitmix64 on 64-bit integers, elementwise."""
    x = (x ^ _shift(x, 30)) * _FIRST_FACTOR
    x = (x ^ _shift(x, 27)) * _SECOND_FACTOR
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
