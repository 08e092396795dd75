"""OTMANN: NASBOT's distance, partial optimal transport between the layers of networks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from hotnas_torch import ot
from hotnas_torch.arch import Network, Operation
from hotnas_torch.arguments import choice, takes
from hotnas_torch.distances._tables.layer_graph import (
    JOINTS,
    LayerBatch,
    LayerGraph,
    NetworkView,
    layer_graph,
)
from hotnas_torch.distances._tables.operation_kinds import OperationKind, kinds_of
from hotnas_torch.distances.network_distance import KernelTerm, NetworkDistance
from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot._operators.tracing import interpreted
from hotnas_torch.ot.scalars import constant, readable
from hotnas_torch.spaces import SearchSpace

__all__ = ["OTMANN"]

_ENDS = ("input", "output")
_NU = (0.1, 0.25, 0.61, 1.5)
_GROUPS = ("all", "conv", "pool", "fc")
_SIZE_COST = math.sqrt(2.0) / 10.0
_POOL_COST = 0.5
_RAW_SHARE = 0.9
_FC_SHARE = 0.1
_END_SHARE = 0.1
_SMALLEST_END = 100.0
# In units of the penalty. Leaving two layers unmatched costs 2, so that no larger cost is paid.
_FORBIDDEN = 4.0


class _Tables(NamedTuple):
    """Layer graphs padded to n nodes.

    Attributes:
        mismatch: Costs of matching the L labels that there are, (L, L) float64.
        labels: Rows of the mismatch matrix, (U, n) int64.
        lengths: Path lengths by side, kind and group, (U, n, 6 G) float64.
        masses: (U, n) float64, padding 0.
        totals: Sums of the masses, (U,) float64.
    """

    mismatch: Tensor
    labels: Tensor
    lengths: Tensor
    masses: Tensor
    totals: Tensor


@interpreted
class OTMANN(NetworkDistance):
    r"""Optimal Transport Metrics for Architectures of Neural Networks.

    .. math::
        d(x, y) = \min_{T \ge 0} \sum_{ij} T_{ij} (M_{ij} + \nu_{str} S_{ij})
            + \nu_{nas} \Big(\sum_i (m_i - \sum_j T_{ij}) + \sum_j (m_j - \sum_i T_{ij})\Big)

    subject to T 1 <= m of x and T' 1 <= m of y: layers are matched by their mass, what is left is
    paid for. One exact transport with a dummy layer on each side.

    - **Masses** m: channels in x channels out of a convolution, a tenth of that for a fully
      connected layer, channels in for a pooling; input and output each a tenth of the sum of all
      other masses, at least 100.
    - **Mismatch** M: 0 for equal layers, sqrt(2)/10 * sqrt|a - b| for filters of sides a and b in
      one family of convolutions; between families 0.9 of that plus 0.1, or that if it is above 1;
      0.5 between max and average pooling; else no match. All times nu_nas.
    - **Structure** S: mean absolute difference of shortest, longest and random-walk path lengths,
      to the input and to the output, counted in all layers, in convolutions, in poolings and in
      fully connected layers: an edge counts if the layer that it leaves, on the way there, is of
      the group.

    There is one distance per nu_str, and as many normalised ones, d / (mass of x + mass of y). The
    kernel is alpha exp(-sum beta d) + (1 - alpha) exp(-sum beta' normalised d^2), over all nu_str.

    Of operations that carry numbers (`arch.Operation`) the kind says what they are, and `kernel`
    the side of the filter.

    Sums, skip connections and identities are edges. Where networks repeat one cell on one skeleton,
    the cell is compared; whole networks otherwise (in DARTS the chain of the normal and the
    reduction cell), see `NetworkView`. A node that stands for several layers has the sum of their
    masses. Bottlenecks are residual layers, separable and dilated convolutions are families of
    their own. An input and an output that nothing joins are as far apart as the space's cells can
    have nodes, less one.

    Args:
        space: Space of the networks.
        nu: Weights nu_str of the structure, V >= 1 numbers >= 0, or a float64 tensor (V,).
        penalty: Price nu_nas of unmatched mass, > 0.
        output: What a call returns: the mean over nu_str of `"normalized"` or of `"distance"`.
        kinds: What further operations are, or what operations are to be taken for.
        backend: As for `hotnas_torch.ot.transport`.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range; an operation of the
            space whose kind is unknown.

    Differentiability: in `nu`, by the envelope theorem.

    Complexity: V exact transports of the numbers of layers plus one, per pair.

    Reference: Kandasamy, Neiswanger, Schneider, Poczos and Xing, Neural Architecture Search with
        Bayesian Optimisation and Optimal Transport, NeurIPS 2018, section 3; constants as in its
        public code, which has no convolution with a filter of side 1: the formula serves.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> texts = [
        ...     "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|",
        ...     "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|nor_conv_1x1~1|none~2|",
        ... ]
        >>> nets = [space.from_string(text) for text in texts]
        >>> # Of six parts (two layers of mass 5, two ends of 1), 5 / 24 pay 0.2 times both sides.
        >>> distances = ht.distances.OTMANN(space)(nets)
        >>> round(distances[0, 1].item(), 12), round(0.2 * 5 / 24, 12)
        (0.041666666667, 0.041666666667)
    """

    name = "otmann"

    @takes()
    def __init__(
        self,
        space: SearchSpace,
        *,
        nu: Sequence[float] | Tensor = _NU,
        penalty: float = 1.0,
        output: Literal["normalized", "distance"] = "normalized",
        kinds: Mapping[str, OperationKind] | None = None,
        backend: ops.Backend = "auto",
    ) -> None:
        super().__init__(space)
        if isinstance(nu, Tensor):
            if nu.dim() != 1 or nu.dtype != torch.float64:
                raise TypeError(
                    "nu must be numbers or a float64 tensor of shape (V,); got a tensor of shape"
                    f" {tuple(nu.shape)} and dtype {nu.dtype}"
                )
            self.nu = readable("nu", nu, "one vector")
        else:
            self.nu = torch.tensor(
                [constant(f"nu[{k}]", value) for k, value in enumerate(nu)],
                dtype=torch.float64,
            )
        if len(self.nu) == 0 or not bool((self.nu >= 0).all()):
            raise ValueError(f"nu must hold at least one number, all >= 0; got {nu!r}")
        self.penalty = constant("penalty", penalty)
        if self.penalty == 0.0:
            raise ValueError("penalty must be > 0, or everything would be at distance 0; got 0.0")
        self.output: Literal["normalized", "distance"] = choice(
            "output", output, ("normalized", "distance")
        )
        self.backend: ops.Backend = choice("backend", backend, ("auto", "ext", "torch"))
        self.view = NetworkView.of_space(space)
        self.kinds = kinds_of(space, kinds, joints=JOINTS)
        self._without = JOINTS | {label for label, k in self.kinds.items() if k.group == "other"}
        self._labels = self._rows(self.kinds)
        self.mismatch = self._mismatch(self._labels)
        count = len(self.nu)
        values = [f"{value:g}" for value in self.nu.tolist()]
        self.parts = (
            *(f"distance, nu = {value}" for value in values),
            *(f"normalized, nu = {value}" for value in values),
        )
        self.kernel_terms = (
            KernelTerm(tuple(range(count)), 1, 1e3, 1e9),
            KernelTerm(tuple(range(count, 2 * count)), 2, 1e-2, 1e1),
        )

    def config(self) -> dict[str, Any]:
        """Return everything that the distances depend on, as JSON-ready values."""
        return {
            **super().config(),
            "nu": self.nu.tolist(),
            "penalty": self.penalty,
            "output": self.output,
            "kinds": {label: asdict(kind) for label, kind in self.kinds.items()},
        }

    def _tracked(self) -> tuple[Tensor, ...]:
        return (self.nu,)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the rows and columns of `mismatch`."""
        return tuple(self._labels)

    def _rows(self, operations: Iterable[str]) -> dict[str, int]:
        return {label: row for row, label in enumerate((*_ENDS, *operations))}

    def _kind(self, label: str) -> OperationKind:
        """Return what a layer is, its filter as large as the label says."""
        if label in self.kinds:
            return self.kinds[label]
        operation = Operation.parse(label)
        kind = self.kinds[operation.kind]
        side = operation.numbers.get("kernel")
        return kind if side is None else replace(kind, size=side)

    def _mismatch(self, rows: Mapping[str, int]) -> Tensor:
        """Costs of matching layers with different labels, (L, L) float64."""
        matrix = torch.full((len(rows), len(rows)), _FORBIDDEN * self.penalty, dtype=torch.float64)
        matrix.fill_diagonal_(0.0)
        kinds = {row: self._kind(label) for label, row in rows.items() if label not in _ENDS}
        costs: dict[tuple[OperationKind, OperationKind], float] = {}
        for row, kind in kinds.items():
            for column, other in kinds.items():
                if (kind, other) not in costs:
                    costs[kind, other] = self._kind_mismatch(kind, other) * self.penalty
                matrix[row, column] = costs[kind, other]
        return matrix

    def _kind_mismatch(self, kind: OperationKind, other: OperationKind) -> float:
        if kind == other:
            return 0.0
        if kind.group == other.group == "pool":
            return 0.0 if kind.family == other.family else _POOL_COST
        if kind.group == other.group == "conv":
            raw = _SIZE_COST * math.sqrt(abs(kind.size - other.size))
            if kind.family == other.family or raw > self.penalty:
                return raw
            return _RAW_SHARE * raw + (1.0 - _RAW_SHARE) * self.penalty
        return _FORBIDDEN

    def masses(self, graph: LayerGraph) -> list[float]:
        """Masses of the nodes of a layer graph."""
        inner = [
            self._mass(self._kind(label), widths)
            for label, widths in zip(graph.ops[1:-1], graph.widths[1:-1], strict=True)
        ]
        end = max(_END_SHARE * sum(inner), _SMALLEST_END)
        return [end, *inner, end]

    def _mass(self, kind: OperationKind, widths: Sequence[tuple[int, int]]) -> float:
        if kind.group == "pool":
            return float(sum(width for width, _ in widths))
        product = float(sum(width * out for width, out in widths))
        return _FC_SHARE * product if kind.group == "fc" else product

    def _tables(self, nets: Sequence[Network]) -> _Tables:
        graphs = [layer_graph(net, self.view, without=self._without) for net in nets]
        batch = LayerBatch.from_graphs(graphs)
        mask = batch.mask
        labels = torch.zeros(mask.shape, dtype=torch.int64)
        rows, mismatch = self._labels, self.mismatch
        if self.space.tree.weights:
            rows = self._rows(sorted({op for graph in graphs for op in graph.ops} - {*_ENDS}))
            mismatch = self._mismatch(rows)
        labels[mask] = torch.tensor([rows[op] for graph in graphs for op in graph.ops])
        masses = torch.zeros(mask.shape, dtype=torch.float64)
        totals = [self.masses(graph) for graph in graphs]
        masses[mask] = torch.tensor(
            [mass for of_graph in totals for mass in of_graph], dtype=torch.float64
        )
        members = torch.tensor(
            [[float(group in ("all", self._group(label))) for group in _GROUPS] for label in rows],
            dtype=torch.float64,
        )
        lengths = batch.path_lengths(members[labels])
        lengths = lengths.masked_fill(torch.isinf(lengths), self.space.max_nodes - 1.0)
        sums = torch.tensor([math.fsum(of_graph) for of_graph in totals], dtype=torch.float64)
        return _Tables(mismatch, labels, lengths, masses, sums)

    def _group(self, label: str) -> str:
        return "all" if label in _ENDS else self._kind(label).group

    def _values(self, tables: _Tables, i: Tensor, j: Tensor) -> Tensor:
        mismatch = tables.mismatch[tables.labels[i][:, :, None], tables.labels[j][:, None]]
        structure = torch.cdist(tables.lengths[i], tables.lengths[j], p=1.0)
        structure = structure / tables.lengths.shape[2]
        cost = mismatch[:, None] + self.nu[:, None, None] * structure[:, None]
        # The dummy layers, which match each other for free.
        cost = torch.nn.functional.pad(cost, (0, 1, 0, 1), value=self.penalty)
        corner = cost.new_zeros(cost.shape[-2:])
        corner[-1, -1] = self.penalty
        cost = cost - corner
        together = tables.totals[i] + tables.totals[j]
        a = torch.cat([tables.masses[i], tables.totals[j, None]], dim=1) / together[:, None]
        b = torch.cat([tables.masses[j], tables.totals[i, None]], dim=1) / together[:, None]
        normalized = ot.transport(
            cost, a[:, None], b[:, None], backend=self.backend, validate=False
        ).objective.T
        return torch.cat([normalized * together, normalized])

    def _pair_bytes(self, tables: _Tables) -> int:
        nodes, features = tables.lengths.shape[1:]
        return 8 * (4 * len(self.nu) * (nodes + 1) ** 2 + 2 * nodes * features)

    def _combine(self, parts: Tensor) -> Tensor:
        distance, normalized = parts.chunk(2)
        return (normalized if self.output == "normalized" else distance).mean(0)
