"""BO-TW's distance: tree-Wasserstein between operations, transport between degrees by layer."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from hotnas_torch.arch import Network, Operation
from hotnas_torch.arguments import integer, takes
from hotnas_torch.distances._tables.layer_graph import (
    JOINTS,
    LayerBatch,
    LayerGraph,
    NetworkView,
    kind_of,
    layer_graph,
)
from hotnas_torch.distances._tables.operation_kinds import OPERATION_KINDS
from hotnas_torch.distances.network_distance import KernelTerm, NetworkDistance
from hotnas_torch.ot._operators.tracing import interpreted
from hotnas_torch.ot.scalars import Scalar, fraction, readable, value_of
from hotnas_torch.segments import segment_sum
from hotnas_torch.spaces import SearchSpace

__all__ = ["GramTree", "TreeWasserstein"]

NOTHING = "no operation"
"""What a network without any operation consists of: the mass has to be somewhere."""

_MAX_LAYERS = 32
"""Most layers, counted in hops from the input, of a network that is compared as a whole."""


_OCTAVES = (-8, 24)
"""Powers of two between which numbers of operations differ."""


class GramTree:
    r"""A tree over operations, and over ordered pairs of consecutive operations.

    Operations of a group are alike: their leaves hang by edges of length alpha on their group's
    node, whose edge has length 1 - alpha. An operation alone in its group hangs on the root by an
    edge of length 1. A leaf for no operation at all has length 1, too.

    With pairs, both kinds of leaves have a subtree of their own below the root, by edges of length
    1. A pair of operations of one group is at depth (1 - alpha) + alpha (1 - alpha) + alpha^2 = 1
    below the top of its subtree: pairs of one group are divided into equal and different ones,
    pairs of two groups into the two orders. A pair of two different lone operations hangs by alpha
    on the node of that pair in either order, of length 1 - alpha; a lone operation twice by 1.

    Args:
        groups: Group of every operation.
        grams: 1 for operations, 2 for pairs as well.

    Attributes:
        groups: Group of every operation.
        leaves: Operations, `(first, second)` pairs, and `NOTHING`.
        edges: Name of every edge, by its lower node.
        incidence: (L, E) float64, 1 where an edge is on the way from the root to a leaf.

    Reference: Nguyen, Le, Yamada and Osborne, Optimal Transport Kernels for Sequential and Parallel
        Neural Architecture Search, ICML 2021, section 3 and the trees in its appendix.
    """

    def __init__(self, groups: Mapping[str, str], grams: Literal[1, 2] = 1) -> None:
        self.groups = dict(groups)
        self._members = Counter(groups.values())
        # Per edge, the powers of alpha and 1 - alpha that make its length.
        self._powers: dict[str, tuple[int, int]] = {}
        paths: dict[str | tuple[str, str], list[str]] = {}
        for label in (*groups, NOTHING):
            paths[label] = self._path_of(label)
        if grams == 2:
            for first, second in product(groups, repeat=2):
                paths[first, second] = ["2-gram", *self._path_of_pair(first, second)]
                self._powers["2-gram"] = (0, 0)
            for label in (*groups, NOTHING):
                paths[label].insert(0, "1-gram")
                self._powers["1-gram"] = (0, 0)
        self.leaves = tuple(paths)
        self.edges = tuple(self._powers)
        column = {edge: place for place, edge in enumerate(self.edges)}
        self.incidence = torch.zeros(len(self.leaves), len(self.edges), dtype=torch.float64)
        for row, path in enumerate(paths.values()):
            self.incidence[row, [column[edge] for edge in path]] = 1.0

    def lengths(self, alpha: Scalar) -> Tensor:
        """Lengths of the edges, (E,) float64, with the graph of `alpha`."""
        base = torch.as_tensor(alpha, dtype=torch.float64)
        ones = torch.ones_like(base)
        return torch.stack(
            [base**p * (1.0 - base) ** q if p or q else ones for p, q in self._powers.values()]
        )

    def _edge(self, name: str, alphas: int, rests: int) -> str:
        self._powers[name] = (alphas, rests)
        return name

    def _path_of(self, label: str) -> list[str]:
        group = self.groups.get(label)
        if group is None or self._members[group] == 1:
            return [self._edge(label, 0, 0)]
        return [self._edge(f"{group} operations", 0, 1), self._edge(label, 1, 0)]

    def _path_of_pair(self, first: str, second: str) -> list[str]:
        name = f"{first} -> {second}"
        of_first, of_second = self.groups[first], self.groups[second]
        both = f"{' and '.join(sorted({of_first, of_second}))} in pairs"
        if self._members[of_first] == self._members[of_second] == 1:
            if first == second:
                return [self._edge(name, 0, 0)]
            return [self._edge(both, 0, 1), self._edge(name, 1, 0)]
        if of_first == of_second:
            kind = f"{both}: {'equal' if first == second else 'different'}"
        else:
            kind = f"{of_first} before {of_second}"
        return [self._edge(both, 0, 1), self._edge(kind, 1, 1), self._edge(name, 2, 0)]


class _Vectors(NamedTuple):
    """Vectors whose L1 distances are one part of the distance.

    Attributes:
        distinct: (V, E) float64.
        place: Which of them belongs to each network, (U,) int64.
    """

    distinct: Tensor
    place: Tensor

    def distances(self, i: Tensor, j: Tensor) -> Tensor:
        """L1 distances of pairs of networks, (P,)."""
        codes = self.place[i] * len(self.distinct) + self.place[j]
        different, inverse = torch.unique(codes, return_inverse=True)
        first = self.distinct[different // len(self.distinct)]
        second = self.distinct[different % len(self.distinct)]
        return (first - second).abs().sum(1)[inverse]


@interpreted
class TreeWasserstein(NetworkDistance):
    r"""Tree-Wasserstein distance of BO-TW (`grams=1`) and BO-TW-2G (`grams=2`).

    .. math:: d = a_1 W_{op} + a_2 W_{in} + (1 - a_1 - a_2) W_{out}

    W_op is the Wasserstein distance, over an operation tree, between the normalised counts of
    operations (and of consecutive pairs): sum_e w_e |mass below e in x - mass below e in y|, no
    solver. W_in and W_out compare the in- and out-degrees, summed over the nodes at equal hop count
    from the input and normalised, as one-dimensional measures with layer i of n at i / n; uniform
    where all degrees are 0. All three are L1 distances of vectors.

    Cells are compared where networks repeat one cell; else whole networks (in DARTS the chain of
    the normal and the reduction cell), see `NetworkView`. `skip_connect` is an operation.
    A network without operations has its mass on a leaf of its own.

    Operations that carry numbers are compared by their kinds, and every number that the space's
    tree weighs with w_f adds a path to W_op, on which mass moves w_f / 4 per factor of 2, within
    2^-8 and 2^24; operations without that number stand w_f / 2 from where it is 1. Paths are cut at
    powers of two, between which only means are compared.

    Args:
        space: Space of the networks.
        grams: 1 for operations, 2 for operations and consecutive pairs of them.
        alpha: Length of the edge to an operation among alike ones, in [0, 1].
        weights: (a_1, a_2), both >= 0 with a sum of at most 1.
        groups: Group of every operation; None puts convolutions into one, poolings into one, and
            every other operation into its own (bottlenecks of all kinds being alike), also one that
            no space of the library has.
        lengths: Lengths of the tree's edges, (E,) float64, in the order of `GramTree.edges`, in
            place of those that `alpha` gives.
        max_layers: Most layers, in hops from the input, that a network has; None takes the largest
            number of nodes of a cell, or 32 where whole networks are compared.

    Raises:
        TypeError, ValueError: An argument of the wrong kind, shape or range.

    Differentiability: of the distance, in `alpha`, `lengths` and `weights`.

    Complexity: O(E + layers^2) per pair.

    Reference: Nguyen, Le, Yamada and Osborne, Optimal Transport Kernels for Sequential and Parallel
        Neural Architecture Search, ICML 2021, Eq. 4 to 6. Its public code counts some sums over the
        wrong leaves; this follows the definition.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> texts = [
        ...     "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|",
        ...     "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|nor_conv_1x1~1|none~2|",
        ... ]
        >>> distance = TreeWasserstein(space, weights=(1.0, 0.0))
        >>> # Half of the mass moves between the two convolutions, 2 alpha apart.
        >>> round(distance([space.from_string(text) for text in texts])[0, 1].item(), 12)
        0.1
    """

    name = "tree_wasserstein"
    parts = ("operations", "indegrees", "outdegrees")
    kernel_terms = (KernelTerm((0, 1, 2), 1, 1e-3, 1e1),)
    negative_definite = True

    @takes()
    def __init__(
        self,
        space: SearchSpace,
        *,
        grams: Literal[1, 2] = 1,
        alpha: Scalar = 0.1,
        weights: tuple[Scalar, Scalar] = (1 / 3, 1 / 3),
        groups: Mapping[str, str] | None = None,
        lengths: Tensor | None = None,
        max_layers: int | None = None,
    ) -> None:
        super().__init__(space)
        if isinstance(grams, bool) or grams not in (1, 2):
            raise ValueError(f"grams must be 1 or 2; got {grams!r}")
        self.grams = grams
        self.alpha = fraction("alpha", alpha)
        self.weights = tuple(fraction(f"weights[{k}]", weight) for k, weight in enumerate(weights))
        if len(self.weights) != 2 or sum(map(value_of, self.weights)) > 1.0 + 1e-12:
            raise ValueError(
                "weights must be two numbers that sum to at most 1, the rest being the share of"
                f" out-degrees; got {weights}"
            )
        operations = [label for label in space.tree.kinds if label not in JOINTS | {"none"}]
        if groups is None:
            groups = {label: _group(label) for label in operations}
        for label in operations:
            if label not in groups:
                raise ValueError(f"groups must give a group to every operation; {label!r} has none")
        self.tree = GramTree({label: groups[label] for label in operations}, grams)
        if isinstance(lengths, Tensor):
            readable("lengths", lengths, "one vector")
        if lengths is not None and (
            not isinstance(lengths, Tensor)
            or lengths.shape != (len(self.tree.edges),)
            or lengths.dtype != torch.float64
            or bool((lengths < 0).any())
        ):
            raise ValueError(
                f"lengths must be a float64 tensor of {len(self.tree.edges)} numbers >= 0, one per"
                f" edge of the tree ({', '.join(self.tree.edges)}); got {lengths!r}"
            )
        self._lengths = lengths
        self.view = NetworkView.of_space(space)
        whole = self.view.cells != "first"
        largest = _MAX_LAYERS if whole else space.max_nodes
        self.max_layers = (
            largest if max_layers is None else integer("max_layers", max_layers, least=1)
        )
        self._leaf = {leaf: place for place, leaf in enumerate(self.tree.leaves)}
        self._numbers = {name: value_of(weight) for name, weight in space.tree.weights.items()}

    def config(self) -> dict[str, Any]:
        """Return everything that the distances depend on, as JSON-ready values."""
        return {
            **super().config(),
            "grams": self.grams,
            "weights": [value_of(weight) for weight in self.weights],
            "groups": dict(self.tree.groups),
            "lengths": self.lengths.tolist(),
            **({"numbers": self._numbers} if self._numbers else {}),
            "max_layers": self.max_layers,
        }

    def _tracked(self) -> tuple[Tensor, ...]:
        given = (self.alpha, *self.weights, self._lengths)
        return tuple(value for value in given if isinstance(value, Tensor))

    @property
    def lengths(self) -> Tensor:
        """Lengths of the tree's edges, (E,) float64."""
        return self.tree.lengths(self.alpha) if self._lengths is None else self._lengths

    def histograms(self, graphs: Sequence[LayerGraph]) -> Tensor:
        """Normalised counts of operations and pairs, (U, L) float64, rows that sum to 1."""
        counts = torch.zeros(len(graphs), len(self._leaf), dtype=torch.float64)
        for row, graph in enumerate(graphs):
            kinds = [kind_of(label) for label in graph.ops]
            inner = Counter[str | tuple[str, str]](kinds[1:-1])
            if self.grams == 2:
                inner.update(
                    (kinds[i], kinds[j]) for i, j in graph.edges if i > 0 and j < len(graph.ops) - 1
                )
            for leaf, times in (inner or {NOTHING: 1}).items():
                counts[row, self._leaf[leaf]] = times
        return counts / counts.sum(1, keepdim=True)

    def _number_paths(self, graphs: Sequence[LayerGraph]) -> Tensor:
        """Share of the mass beyond each step of the numbers' paths, times its length, (U, S)."""
        octaves = torch.arange(*_OCTAVES, dtype=torch.float64)
        lengths = torch.tensor([2.0, *[1.0] * len(octaves)], dtype=torch.float64)
        rows = []
        for graph in graphs:
            labels = Counter(graph.ops[1:-1]) or {NOTHING: 1}
            times = torch.tensor([*labels.values()], dtype=torch.float64)
            read = [Operation.parse(label).numbers for label in labels]
            found = []
            for name, weight in self._numbers.items():
                steps = torch.tensor(
                    [[math.log2(of.get(name, 1.0)), float(name in of)] for of in read],
                    dtype=torch.float64,
                )
                beyond = (steps[:, :1] - octaves).clamp(0.0, 1.0)
                shares = times @ torch.cat([steps[:, 1:], beyond], dim=1) / times.sum()
                found.append(0.25 * weight * shares * lengths)
            rows.append(torch.cat(found))
        return torch.stack(rows)

    def _tables(self, nets: Sequence[Network]) -> tuple[_Vectors, ...]:
        graphs = [layer_graph(net, self.view, without=JOINTS) for net in nets]
        below, lengths = self.histograms(graphs) @ self.tree.incidence, self.lengths
        if self._numbers:
            paths = self._number_paths(graphs)
            below = torch.cat([below, paths], dim=1)
            lengths = torch.cat([lengths, lengths.new_ones(paths.shape[1])])
        below, place = torch.unique(below, dim=0, return_inverse=True)
        batch = LayerBatch.from_graphs(graphs)
        hops = batch.hops()
        deepest = int(hops.max()) + 1
        if deepest > self.max_layers:
            raise ValueError(
                f"max_layers must be at least {deepest}, the layers of the deepest network; got"
                f" {self.max_layers}"
            )
        degrees = (
            torch.unique(
                _cumulative(batch.adjacency.sum(dim), hops, self.max_layers),
                dim=0,
                return_inverse=True,
            )
            for dim in (1, 2)
        )
        return _Vectors(below * lengths, place), *(_Vectors(*found) for found in degrees)

    def _values(self, tables: tuple[_Vectors, ...], i: Tensor, j: Tensor) -> Tensor:
        return torch.stack([vectors.distances(i, j) for vectors in tables])

    def _pair_bytes(self, tables: tuple[_Vectors, ...]) -> int:
        return 3 * 8 * max(vectors.distinct.shape[1] for vectors in tables) + 64

    def _combine(self, parts: Tensor) -> Tensor:
        of_operations, of_indegrees = self.weights
        rest = 1.0 - of_operations - of_indegrees
        return of_operations * parts[0] + of_indegrees * parts[1] + rest * parts[2]


def _group(label: str) -> str:
    kind = OPERATION_KINDS.get(label)
    if kind is None:
        return label
    if kind.family == "res":
        return "bottleneck"
    return kind.group if kind.group in ("conv", "pool") else label


@cache
def _grid(max_layers: int) -> tuple[Tensor, Tensor]:
    """Fractions i / n with 0 <= i < n <= max_layers, ascending, and the gaps after them."""
    places = sorted({Fraction(i, n) for n in range(1, max_layers + 1) for i in range(n)})
    ends = [*places[1:], Fraction(1)]
    gaps = [float(end - place) for place, end in zip(places, ends, strict=True)]
    # Layer floor(n * place) is the last one at or before a place.
    layer = [[int(place * n) for place in places] for n in range(1, max_layers + 1)]
    return torch.tensor(layer), torch.tensor(gaps, dtype=torch.float64)


def _cumulative(degrees: Tensor, hops: Tensor, max_layers: int) -> Tensor:
    """Vectors whose L1 distance is the transport cost between degrees by layer.

    In one dimension that cost is the integral of the difference of the cumulative distributions,
    which are constant between fractions with a denominator of at most `max_layers`.

    Args:
        degrees: (U, n) int64.
        hops: Layer of every node, -1 for none, (U, n) int64.
        max_layers: Largest number of layers.

    Returns:
        (U, fractions) float64.
    """
    present_degrees = degrees.double().masked_fill(hops < 0, 0.0)
    mass = segment_sum(present_degrees, hops.clamp(min=0), max_layers, dim=1)
    layers = hops.amax(1) + 1
    present = (torch.arange(max_layers) < layers[:, None]).double()
    mass = torch.where(mass.sum(1, keepdim=True) > 0, mass, present)
    cumulative = (mass / mass.sum(1, keepdim=True)).cumsum(1)
    layer, gaps = _grid(max_layers)
    return cumulative.gather(1, layer[layers - 1]) * gaps
