"""Unique networks as solver-ready tensors, and the distances of chosen pairs of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.metrics.pairwise import distinct_pairs
from hotnas_torch.ops import network_distances

__all__ = ["CellCosts", "NetworkTables", "NetworkWeights", "network_state", "unique_networks"]


@dataclass(frozen=True, slots=True)
class NetworkWeights:
    """How much each share of the cell cost counts; the three add up to 1.

    Attributes:
        cells: (1 - eta)(1 - zeta), the insides of the cells.
        state: (1 - eta) zeta, width and resolution.
        position: eta, the place in the macro graph.
    """

    cells: float
    state: float
    position: float


@dataclass(frozen=True, slots=True)
class CellCosts:
    """iFGW distances between two sets of cells.

    Attributes:
        distances: Shape (R, C), float32/float64.
        row_of: Row of every unique cell, shape (U,), int64, -1 where it has none.
        col_of: Column of every unique cell, shape (U,), int64, -1 where it has none.
    """

    distances: Tensor
    row_of: Tensor
    col_of: Tensor

    @classmethod
    def between(cls, distances: Tensor, rows: Tensor, cols: Tensor, num_cells: int) -> "CellCosts":
        """Costs whose rows and columns are the cells of the given numbers, (R,) and (C,) int64."""
        row_of = torch.full((num_cells,), -1)
        row_of[rows] = torch.arange(len(rows))
        col_of = torch.full((num_cells,), -1)
        col_of[cols] = torch.arange(len(cols))
        return cls(distances, row_of, col_of)

    def transposed(self) -> "CellCosts":
        """The same costs with rows and columns exchanged."""
        return CellCosts(self.distances.T.contiguous(), self.col_of, self.row_of)


def network_state(network: Network, scale: tuple[float, float]) -> list[tuple[float, float]]:
    """What a network has become at each cell: log2 relative width and log2 resolution divisor.

    Args:
        network: Network of N cells.
        scale: Divisors that bring both numbers into [0, 1] for the search space.

    Returns:
        N pairs, relative to the network's input.
    """
    return [
        (math.log2(width / network.input_channels) / scale[0], math.log2(divisor) / scale[1])
        for width, divisor in zip(network.channels, network.downsampling, strict=True)
    ]


def unique_networks(
    networks: Sequence[Network], cells: Sequence[Sequence[int]]
) -> tuple[list[int], list[int]]:
    """Distinct networks in the order that fixes which one of a pair gives the rows.

    Args:
        networks: Any networks; those equal up to renumbering count once.
        cells: Number of every cell of every network among the unique cells.

    Returns:
        Positions of representatives in `networks`, sorted by number of cells, cells and key; and
        the place in that list of every given network. Two networks are ordered alike in every
        list that holds both.
    """
    first: dict[str, int] = {}
    for index, network in enumerate(networks):
        first.setdefault(network.key, index)
    order = sorted(first, key=lambda key: (len(cells[first[key]]), sorted(cells[first[key]]), key))
    place = {key: position for position, key in enumerate(order)}
    return [first[key] for key in order], [place[network.key] for network in networks]


class NetworkTables:
    """Unique networks with everything that a distance between two of them needs.

    Networks of fewer cells are padded with cells of mass 0.

    Args:
        networks: Distinct networks, X of them, in the order of `unique_networks`.
        cells: Number of every cell of every network among the U unique cells.
        mass: "channels" or "uniform".
        state_scale: Divisors of the cell state, or None if the state has no weight.
        weights: Shares of the cell cost.
        backend: "auto", "ext" or "torch".
        dtype: float32 or float64.
        device: Where the tensors live.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        cells: Sequence[Sequence[int]],
        *,
        mass: Literal["channels", "uniform"],
        state_scale: tuple[float, float] | None,
        weights: NetworkWeights,
        backend: str,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.weights = weights
        self._backend, self._dtype, self._device = backend, dtype, device
        self._width = max(len(numbers) for numbers in cells)
        self.cells = torch.tensor(
            [[*numbers, *([numbers[0]] * (self._width - len(numbers)))] for numbers in cells]
        )
        # A network with one kind of cell costs the distance of the two cells, whatever the
        # coupling, plus what the two skeletons cost: such pairs share one transport per skeleton.
        self._one_cell = (self.cells == self.cells[:, :1]).all(1)
        skeletons: dict[tuple[object, ...], int] = {}
        mass_rows: list[tuple[float, ...]] = []
        feature_rows: list[list[tuple[float, ...]]] = []
        numbers_of: list[int] = []
        for network in networks:
            skeleton = (
                network.channels,
                network.downsampling,
                network.edges,
                network.input_channels,
            )
            if skeleton not in skeletons:
                skeletons[skeleton] = len(skeletons)
                mass_rows.append(network.masses(mass))
                feature_rows.append(_features(network, weights, state_scale))
            numbers_of.append(skeletons[skeleton])
        self._skeleton = torch.tensor(numbers_of)
        self._skeleton_mass = self._padded([[(m,) for m in row] for row in mass_rows]).squeeze(-1)
        self._skeleton_features = self._padded(feature_rows)
        self._mass = self._skeleton_mass[self._skeleton]
        self._features = self._skeleton_features[self._skeleton]

    def _padded(self, rows: Sequence[Sequence[tuple[float, ...]]]) -> Tensor:
        size = len(rows[0][0])
        padding = [(0.0,) * size]
        padded = [[*row, *(padding * (self._width - len(row)))] for row in rows]
        return torch.tensor(padded, dtype=self._dtype, device=self._device)

    def cells_of(self, networks: Tensor) -> Tensor:
        """Sorted distinct numbers of the cells that the given networks use, int64."""
        return torch.unique(self.cells[networks])

    def block(self, rows: Tensor, cols: Tensor, costs: CellCosts) -> Tensor:
        """Distances between chosen networks.

        Args:
            rows: Positions of networks, shape (r,), int64 on the CPU.
            cols: Positions of networks, shape (c,), int64 on the CPU.
            costs: Cell distances that cover the cells of `rows` and `cols`.

        Returns:
            Distances, shape (r, c), on the CPU; 0 where both positions are equal.
        """
        small, large, expand = distinct_pairs(rows, cols, len(self.cells))
        in_rows = torch.zeros(len(self.cells), dtype=torch.bool)
        in_rows[rows] = True
        in_cols = torch.zeros(len(self.cells), dtype=torch.bool)
        in_cols[cols] = True
        straight = in_rows[small] & in_cols[large]
        values = torch.empty(small.shape, dtype=self._dtype)
        values[straight] = self._solve(small[straight], large[straight], costs)
        if not bool(straight.all()):
            turned = ~straight
            values[turned] = self._solve(small[turned], large[turned], costs.transposed())
        return expand(values)

    def _solve(self, small: Tensor, large: Tensor, costs: CellCosts) -> Tensor:
        values = torch.empty(small.shape, dtype=self._dtype)
        same_everywhere = self._one_cell[small] & self._one_cell[large]
        one = torch.nonzero(same_everywhere).squeeze(1)
        if len(one):
            x, y = small[one], large[one]
            cell_x = costs.row_of[self.cells[x, 0]].to(costs.distances.device)
            cell_y = costs.col_of[self.cells[y, 0]].to(costs.distances.device)
            inside = (self.weights.cells * costs.distances[cell_x, cell_y]).cpu()
            values[one] = inside + self._skeleton_distances(self._skeleton[x], self._skeleton[y])
        rest = torch.nonzero(~same_everywhere).squeeze(1)
        if len(rest):
            values[rest] = self._transport(
                (self.weights.cells * costs.distances).to(self._device),
                (costs.row_of[self.cells], self._mass, self._features),
                (costs.col_of[self.cells], self._mass, self._features),
                small[rest],
                large[rest],
            )
        return values

    def _skeleton_distances(self, x: Tensor, y: Tensor) -> Tensor:
        """Least cost of positions and states between skeletons, item by item, shape (P,)."""
        num = len(self._skeleton_mass)
        codes, inverse = torch.unique(
            torch.minimum(x, y) * num + torch.maximum(x, y), return_inverse=True
        )
        small, large = codes // num, codes % num
        values = torch.zeros(codes.shape, dtype=self._dtype)
        different = torch.nonzero(small != large).squeeze(1)
        if len(different):
            cells = torch.zeros((num, self._width), dtype=torch.int64)
            side = (cells, self._skeleton_mass, self._skeleton_features)
            nothing = torch.zeros((1, 1), dtype=self._dtype, device=self._device)
            values[different] = self._transport(
                nothing, side, side, small[different], large[different]
            )
        return values[inverse]

    def _transport(
        self,
        cell_cost: Tensor,
        side_x: tuple[Tensor, Tensor, Tensor],
        side_y: tuple[Tensor, Tensor, Tensor],
        x: Tensor,
        y: Tensor,
    ) -> Tensor:
        return (
            network_distances(
                cell_cost,
                side_x[0].to(self._device),
                *side_x[1:],
                side_y[0].to(self._device),
                *side_y[1:],
                x.to(self._device),
                y.to(self._device),
                backend=self._backend,
            )
            .clamp_min(0.0)
            .cpu()
        )


def _features(
    network: Network, weights: NetworkWeights, state_scale: tuple[float, float] | None
) -> list[tuple[float, ...]]:
    """Per cell, coordinates whose summed absolute differences are the non-cell part of the cost."""
    positions = [weights.position * position for position in network.positions()]
    if state_scale is None:
        return [(position,) for position in positions]
    share = weights.state / 2
    return [
        (position, share * width, share * resolution)
        for position, (width, resolution) in zip(
            positions, network_state(network, state_scale), strict=True
        )
    ]
