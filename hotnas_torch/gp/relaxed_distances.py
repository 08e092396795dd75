"""HOTNN between relaxed architectures and networks, differentiable in the former."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hotnas_torch import ot
from hotnas_torch.arch import ArchitectureBatch, Network
from hotnas_torch.distances import HOTNN
from hotnas_torch.distances._tables.cell_tables import pair_costs, unique_cells
from hotnas_torch.distances._tables.network_tables import network_state
from hotnas_torch.gp.relaxation import Relaxation, relaxation_of
from hotnas_torch.gp.relaxed_cells import RelaxedCells, WiringTable

__all__ = ["RelaxedDistances", "relaxed_distances"]

_CHUNK_ELEMENTS = 2**22
"""Costs between cells that exist at one time."""


@dataclass(frozen=True, slots=True)
class _Landmarks:
    """R networks of up to M cells, of which U of up to m nodes are distinct; padded."""

    labels: Tensor  # (U, m)
    lengths: Tensor  # (U, m, 6)
    struct: Tensor  # (U, m, m)
    weights: Tensor  # (U, m)
    cells: Tensor  # (R, M)
    mass: Tensor  # (R, M)
    places: Tensor  # (R, M, 3)


class RelaxedDistances:
    """HOTNN distances between relaxed architectures and networks.

    Args:
        metric: HOTNN with directed pairs and the separable linear term, which do not depend on how
            nodes are numbered. Its parameters are held: gradients go to the architectures.
        networks: R networks of the relaxation's space.
        relaxation: What the rows hold; None takes that of the metric's space.

    Raises:
        ValueError: A metric that depends on the numbering of nodes, that matches a part of them, or
            that has no space.
        TypeError: A space without a relaxation.
    """

    def __init__(
        self,
        metric: HOTNN,
        networks: Sequence[Network],
        relaxation: Relaxation | None = None,
    ) -> None:
        ifgw = metric.ifgw
        if ifgw.pairs != "directed" or ifgw.linear_term != "separable":
            raise ValueError(
                "relaxed distances need pairs='directed' and linear_term='separable', as the nodes"
                f" of a relaxed cell have no order; got pairs={ifgw.pairs!r} and"
                f" linear_term={ifgw.linear_term!r}"
            )
        if ifgw.partial is not None:
            raise ValueError(
                "relaxed distances need partial=None, as the nodes of a relaxed cell have expected"
                f" masses, not a number; got partial={ifgw.partial}"
            )
        if relaxation is None:
            if metric.space is None:
                raise ValueError("the metric must know its space (pass space= to HOTNN)")
            relaxation = relaxation_of(metric.space)
        self.relaxation = relaxation
        self._metric = metric
        self._like = torch.empty((), dtype=metric.dtype, device=metric.device)
        with torch.no_grad():
            # [shares of cells, state, position], eps and lam as plain numbers.
            self._shares = metric.shares()
            self._eps, self._lam = self._plain(ifgw.eps), self._plain(ifgw.lam)
            self._unreachable = self._plain(ifgw.unreachable)
            self._label_cost = self._eps * ifgw.tree.distance_matrix(
                dtype=metric.dtype, device=metric.device
            )
            self._max_nodes = None if ifgw.normalize else ifgw.max_nodes
            wirings = relaxation.wirings()
            self._table = WiringTable.of(
                wirings,
                relaxation.space.max_nodes,
                max_nodes=self._max_nodes,
                dtype=metric.dtype,
                device=metric.device,
            )
            self._landmarks, distinct = self._tables(networks)
            self._skeletons = relaxation.skeletons()
            fixed = [
                skeleton.network.cells[place]
                for skeleton in self._skeletons
                for place, kind in enumerate(skeleton.kinds)
                if kind is None
            ]
            kept, numbers = unique_cells(fixed) if fixed else ([], [])
            nothing = self._like.new_empty(0, len(distinct))
            self._fixed = metric.ifgw(kept, distinct) if kept else nothing
            self._kinds: list[Tensor] = []
            for skeleton in self._skeletons:
                places = [
                    relaxation.num_kinds + numbers.pop(0) if kind is None else kind
                    for kind in skeleton.kinds
                ]
                self._kinds.append(torch.tensor(places, device=metric.device))

    def _plain(self, value: float | Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=self._like.dtype, device=self._like.device).detach()

    def _places(self, network: Network) -> Tensor:
        """Position and half of the two state coordinates per cell, shape (N, 3)."""
        scale = self._metric.state_scale
        state = [(0.0, 0.0)] * network.num_cells
        if scale is not None:
            state = list(network_state(network, scale))
        rows = [
            (position, width / 2, resolution / 2)
            for position, (width, resolution) in zip(network.positions(), state, strict=True)
        ]
        return self._like.new_tensor(rows)

    def _masses(self, network: Network) -> Tensor:
        return self._like.new_tensor(network.masses(self._metric.mass))

    def _tables(self, networks: Sequence[Network]) -> tuple[_Landmarks, list[Any]]:
        distinct, numbers = unique_cells([cell for net in networks for cell in net.cells])
        batch = ArchitectureBatch.from_cells(
            distinct,
            self._metric.ifgw.tree,
            max_nodes=self._max_nodes,
            device=self._like.device,
            dtype=self._like.dtype,
        )
        lengths = batch.path_lengths(normalize=self._max_nodes is None)
        struct = pair_costs(
            batch.labels,
            lengths,
            batch.reachability(),
            self._label_cost,
            self._eps,
            self._unreachable,
        )
        width = max(net.num_cells for net in networks)
        cells = torch.zeros(len(networks), width, dtype=torch.int64, device=self._like.device)
        mass = self._like.new_zeros(len(networks), width)
        places = self._like.new_zeros(len(networks), width, 3)
        start = 0
        for row, net in enumerate(networks):
            size = net.num_cells
            cells[row, :size] = torch.tensor(numbers[start : start + size])
            mass[row, :size] = self._masses(net)
            places[row, :size] = self._places(net)
            start += size
        table = _Landmarks(batch.labels, lengths, struct, batch.weights, cells, mass, places)
        return table, distinct

    def __call__(self, X: Tensor) -> Tensor:
        """Distances, differentiable in the rows.

        Args:
            X: Rows of weights, shape (B, dim of the relaxation).

        Returns:
            Shape (B, R). For rows of zeros and ones, the distances between the networks (up to the
            choice among local optima of the solver).

        Differentiability: by the envelope theorem, as `hotnas_torch.ot.fgw`. A node of expected
            mass 0 gets no gradient: start inside.
        """
        parts = self.relaxation.split(X.to(self._like))
        kinds = [
            self._cell_distances(
                RelaxedCells.expected(
                    self._table,
                    self.relaxation.wiring_probabilities(parts, kind),
                    self.relaxation.label_probabilities(parts, kind),
                )
            )
            for kind in range(self.relaxation.num_kinds)
        ]
        batch = len(X)
        fixed = self._fixed[None].expand(batch, -1, -1)
        cells = torch.cat([torch.stack(kinds, dim=1), fixed], dim=1)
        weights = self.relaxation.skeleton_probabilities(parts)
        total = cells.new_zeros(batch, len(self._landmarks.cells))
        for place, (skeleton, kind) in enumerate(zip(self._skeletons, self._kinds, strict=True)):
            weight = weights[:, place, None]
            if not weight.requires_grad and not bool(weight.any()):
                continue
            total = total + weight * self._network_distances(cells, skeleton.network, kind)
        return total

    def _cell_distances(self, cells: RelaxedCells) -> Tensor:
        """IFGW between B relaxed cells and the U distinct cells, shape (B, U)."""
        marks = self._landmarks
        by_label = (cells.labels @ self._label_cost)[:, :, marks.labels].transpose(1, 2)
        apart = (cells.lengths[:, None, :, None] - marks.lengths[:, None]).abs().mean(-1)
        cost = by_label + (1 - self._eps) * apart
        within = cells.labels @ self._label_cost @ cells.labels.mT
        struct = cells.reachable * within + (1 - self._eps) * cells.apart
        struct = struct + (1 - cells.reachable) * self._unreachable
        struct = struct - torch.diag_embed(struct.diagonal(dim1=1, dim2=2))
        ifgw = self._metric.ifgw
        result = ot.fgw(
            cost,
            struct[:, None],
            marks.struct,
            cells.mass[:, None],
            marks.weights,
            alpha=float(1 - self._lam),
            loss="l1",
            pairs="directed",
            num_starts=ifgw.solver.num_starts,
            tol=ifgw.solver.tol,
            max_iter=ifgw.solver.max_iter,
            backend=ifgw.solver.backend,
            validate=False,
        )
        return result.objective.clamp_min(0.0)

    def _network_distances(self, cells: Tensor, network: Network, kinds: Tensor) -> Tensor:
        """HOTNN between B relaxed networks on one skeleton and the R networks, shape (B, R)."""
        marks = self._landmarks
        cell_share, state_share, position_share = self._shares
        apart = (self._places(network)[:, None] - marks.places[:, None]).abs()
        outside = position_share * apart[..., 0] + state_share * apart[..., 1:].sum(-1)
        size = max(1, _CHUNK_ELEMENTS // outside.numel())
        masses = self._masses(network)
        parts = []
        for chunk in cells.split(size):
            inside = chunk[:, kinds[:, None], marks.cells[:, None]]
            cost = cell_share * inside + outside
            result = ot.transport(
                cost, masses, marks.mass, backend=self._metric.backend, validate=False
            )
            parts.append(result.objective)
        return torch.cat(parts)


def relaxed_distances(metric: HOTNN, X: Tensor, networks: Sequence[Network]) -> Tensor:
    """HOTNN distances between relaxed architectures and networks, differentiable in the former.

    Args:
        metric: HOTNN of a space with a relaxation; directed pairs, separable linear term.
        X: Rows of weights, shape (B, dim), see `hotnas_torch.gp.relaxation.Relaxation`.
        networks: R networks of the space.

    Returns:
        Shape (B, R).

    Raises:
        TypeError, ValueError: As `RelaxedDistances`.

    Example:
        >>> import hotnas_torch as ht
        >>> from hotnas_torch.gp.relaxation import relaxation_of
        >>> space = ht.spaces.NASBench201()
        >>> nets = space.sample(2, generator=torch.Generator().manual_seed(0))
        >>> X = relaxation_of(space).encode(nets[:1])
        >>> metric = ht.HOTNN(space=space, dtype=torch.float64)
        >>> torch.allclose(relaxed_distances(metric, X, nets), metric(nets[:1], nets), atol=1e-6)
        True
    """
    return RelaxedDistances(metric, networks)(X)
