# Over 400 lines: one table and what is computed from it.
"""Unique networks as solver-ready tensors, and the distances of chosen pairs of them."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.distances._tables.envelope import HeldNetworks
from hotnas_torch.matrices.pairwise import distinct_pairs, straight_pairs
from hotnas_torch.ot._operators import Backend, network_distances, transport
from hotnas_torch.ot._operators.operator import plain
from hotnas_torch.segments import segment_sum

__all__ = ["CellCosts", "NetworkTables", "NetworkWeights", "network_state", "unique_networks"]

_HELD_ELEMENTS = 2**18
"""Entries of all couplings that exist at one time while they are summed up per pair of cells."""


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

    def restricted(self, rows: Tensor, cols: Tensor) -> "CellCosts":
        """Return the part for the cells of the given numbers, (R,) and (C,) int64."""
        device = self.distances.device
        part = self.distances[self.row_of[rows].to(device)[:, None], self.col_of[cols].to(device)]
        return CellCosts.between(part, rows, cols, len(self.row_of))

    def detached(self) -> "CellCosts":
        """Return the same costs as plain values."""
        return CellCosts(plain(self.distances), self.row_of, self.col_of)

    def to(self, device: torch.device) -> "CellCosts":
        """Return the same costs on another device."""
        return CellCosts(self.distances.to(device), self.row_of, self.col_of)

    def transposed(self) -> "CellCosts":
        """Return the same costs with rows and columns exchanged."""
        return CellCosts(self.distances.T.contiguous(), self.col_of, self.row_of)


def network_state(network: Network, scale: tuple[float, float]) -> list[tuple[float, float]]:
    """Return the state of a network at each cell: log2 relative width, log2 resolution divisor.

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
        backend: Backend,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.weights = weights
        self._backend, self._dtype, self._device = backend, dtype, device
        self._width = max(len(numbers) for numbers in cells)
        self.cells = torch.tensor(
            [[*numbers, *([numbers[0]] * (self._width - len(numbers)))] for numbers in cells]
        )
        skeletons: dict[tuple[object, ...], int] = {}
        masses: list[tuple[float, ...]] = []
        features: list[list[tuple[float, ...]]] = []
        patterns: dict[tuple[object, ...], int] = {}
        slot_mass: list[list[float]] = []
        slot_places: list[list[int]] = []
        slots: list[list[int]] = []
        skeleton_of: list[int] = []
        pattern_of: list[int] = []
        for network, numbers in zip(networks, cells, strict=True):
            skeleton = (
                network.channels,
                network.downsampling,
                network.edges,
                network.input_channels,
            )
            if skeleton not in skeletons:
                skeletons[skeleton] = len(skeletons)
                masses.append(network.masses(mass))
                features.append(_features(network, state_scale))
            skeleton_of.append(skeletons[skeleton])
            # Different cells in the order of their first place, and where each of them stands.
            slot_of = {number: slot for slot, number in enumerate(dict.fromkeys(numbers))}
            places = [slot_of[number] for number in numbers]
            pattern = (skeleton_of[-1], *places)
            if pattern not in patterns:
                patterns[pattern] = len(patterns)
                slot_places.append([*places, *([0] * (self._width - len(places)))])
                share = [0.0] * len(slot_of)
                for slot, cell_mass in zip(places, masses[skeleton_of[-1]], strict=True):
                    share[slot] += cell_mass
                slot_mass.append(share)
            pattern_of.append(patterns[pattern])
            slots.append(list(slot_of))
        skeleton_index = torch.tensor(skeleton_of)
        mass_table = self._padded([[(value,) for value in row] for row in masses]).squeeze(-1)
        self._mass = mass_table[skeleton_index]
        self._places = self._padded(features)[skeleton_index]
        share_of = [weights.position, weights.state, weights.state][: self._places.shape[-1]]
        self._features = self._places * self._places.new_tensor(share_of)
        self._pattern = torch.tensor(pattern_of)
        most = max(map(len, slots))
        self._slots = torch.tensor([row + [-1] * (most - len(row)) for row in slots])
        self._slot_mass = torch.tensor(
            [row + [0.0] * (most - len(row)) for row in slot_mass], dtype=self._dtype
        )
        self._slot_places = torch.tensor(slot_places)

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self._device

    def to(self, device: torch.device) -> "NetworkTables":
        """Return the same tables on another device."""
        moved = copy.copy(self)
        moved._device = device
        moved._mass = self._mass.to(device)
        moved._places = self._places.to(device)
        moved._features = self._features.to(device)
        return moved

    def _padded(self, rows: Sequence[Sequence[tuple[float, ...]]]) -> Tensor:
        size = len(rows[0][0])
        padding = [(0.0,) * size]
        padded = [[*row, *(padding * (self._width - len(row)))] for row in rows]
        return torch.tensor(padded, dtype=self._dtype, device=self._device)

    def cells_of(self, networks: Tensor) -> Tensor:
        """Sorted distinct numbers of the cells that the given networks use, int64."""
        distinct: Tensor = torch.unique(self.cells[networks])
        return distinct

    def block(self, rows: Tensor, cols: Tensor, costs: CellCosts) -> Tensor:
        """Distances between chosen networks.

        Args:
            rows: Positions of networks, shape (r,), int64 on the CPU.
            cols: Positions of networks, shape (c,), int64 on the CPU.
            costs: Cell distances that cover the cells of `rows` and `cols`.

        Returns:
            Distances, shape (r, c), on the device of the tables; 0 where both positions are equal.
        """
        small, large, expand = distinct_pairs(rows, cols, len(self.cells))
        straight = straight_pairs(rows, cols, small, large, len(self.cells))
        if bool(straight.all()):
            return expand(self._solve(small, large, costs))
        values = torch.empty(small.shape, dtype=self._dtype, device=self._device)
        turned = ~straight
        values[straight] = self._solve(small[straight], large[straight], costs)
        values[turned] = self._solve(small[turned], large[turned], costs.transposed())
        return expand(values)

    def chosen(self, rows: Tensor, cols: Tensor, costs: CellCosts) -> Tensor:
        """Distances of pairs of networks, shape (P,), from positions (P,) on the CPU.

        The costs of the cells have a row for those of `rows`, a column for those of `cols`; what
        they hold for other pairs does not matter. To the bit what `block` has.
        """
        values = torch.zeros(rows.shape, dtype=self._dtype, device=self._device)
        straight, turned = rows < cols, rows > cols
        values[straight] = self._solve(rows[straight], cols[straight], costs)
        values[turned] = self._solve(cols[turned], rows[turned], costs.transposed())
        return values

    def pairs_of_cells(self, rows: Tensor, cols: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs of cells, (Q,) each, that the distances of pairs of networks, (P,), depend on."""
        x, y = self._slots[rows][:, :, None], self._slots[cols][:, None]
        x, y = torch.broadcast_tensors(x, y)
        there = (x >= 0) & (y >= 0) & (x != y)
        num = int(self.cells.max()) + 1
        code = torch.unique(x[there] * num + y[there])
        return code // num, code % num

    def held(self, rows: Tensor, cols: Tensor, costs: CellCosts) -> HeldNetworks:
        """Couplings between chosen networks, found once and held; arguments as for `block`.

        Complexity: a pair costs one transport; (number of different cells)^2 numbers are kept.
        """
        small, large, expand = distinct_pairs(rows, cols, len(self.cells))
        straight = straight_pairs(rows, cols, small, large, len(self.cells))
        slots = self._slots.shape[1]
        mass = torch.zeros(len(small), slots, slots, dtype=self._dtype, device=self._device)
        index = torch.zeros(len(small), slots, slots, dtype=torch.int64)
        state, position = mass.new_zeros(len(small)), mass.new_zeros(len(small))
        num_cols = costs.distances.shape[1]
        size = max(1, _HELD_ELEMENTS // self._width**2)
        for members, turned in ((straight, False), (~straight, True)):
            oriented = costs.transposed() if turned else costs
            for chunk in torch.nonzero(members).squeeze(1).split(size):
                x, y = small[chunk], large[chunk]
                row = oriented.row_of[self._slots[x]][:, :, None]
                col = oriented.col_of[self._slots[y]][:, None, :]
                index[chunk] = (col * num_cols + row) if turned else (row * num_cols + col)
                mass[chunk], state[chunk], position[chunk] = self._coupling(x, y, oriented)
        # Where a network has fewer different cells than another, nothing is moved.
        return HeldNetworks(index.clamp_min(0).to(self._device), mass, state, position, expand)

    def _coupling(
        self, small: Tensor, large: Tensor, costs: CellCosts
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mass between different cells, (P, K, K), state and position over the coupling, (P,)."""
        slots = self._slots.shape[1]
        mass = torch.zeros(len(small), slots, slots, dtype=self._dtype, device=self._device)
        state, position = mass.new_zeros(len(small)), mass.new_zeros(len(small))
        alike, _, settled = self._settled(small, large, costs)
        stays = alike[settled.cpu()]
        mass[stays] = torch.diag_embed(self._slot_mass[self._pattern[small[stays]]]).to(mass)
        moves = torch.ones(len(small), dtype=torch.bool)
        moves[stays] = False
        rest = torch.nonzero(moves).squeeze(1)
        if not len(rest):
            return mass, state, position
        small, large = small[rest], large[rest]
        inside = costs.distances[
            costs.row_of[self.cells[small]].to(self._device)[:, :, None],
            costs.col_of[self.cells[large]].to(self._device)[:, None, :],
        ]
        x, y = self._places[small][:, :, None], self._places[large][:, None]
        # A coordinate at a time: these are the largest tensors here, and little is done with them.
        position_apart, *of_state = ((x[..., k] - y[..., k]).abs_() for k in range(x.shape[-1]))
        state_apart = torch.zeros_like(position_apart)
        for apart in of_state:
            state_apart += apart
        cost = (self.weights.cells * inside).add_(position_apart, alpha=self.weights.position)
        cost.add_(state_apart, alpha=self.weights.state)
        plan, *_ = transport(cost, self._mass[small], self._mass[large], backend=self._backend)
        of_small = self._slot_places[self._pattern[small]][:, :, None]
        of_large = self._slot_places[self._pattern[large]][:, None]
        pair_of = (of_small * slots + of_large).flatten(1).to(self._device)
        flat = plan.flatten(1)
        mass[rest] = segment_sum(flat, pair_of, slots**2, dim=1).reshape(-1, slots, slots)
        state[rest] = torch.linalg.vecdot(flat, state_apart.flatten(1))
        position[rest] = torch.linalg.vecdot(flat, position_apart.flatten(1))
        return mass, state, position

    def _solve(self, small: Tensor, large: Tensor, costs: CellCosts) -> Tensor:
        values = torch.empty(small.shape, dtype=self._dtype, device=self._device)
        alike, staying, certain = self._settled(small, large, costs)
        if not bool(certain.any()):
            return self._transport(small, large, costs)
        values[alike] = staying
        unsettled = torch.ones(small.shape, dtype=torch.bool)
        unsettled[alike[certain.cpu()]] = False
        rest = torch.nonzero(unsettled).squeeze(1)
        if len(rest):
            values[rest] = self._transport(small[rest], large[rest], costs)
        return values

    def _settled(
        self, small: Tensor, large: Tensor, costs: CellCosts
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pair that differ in one repeated cell on one skeleton, the bulk of some spaces.

        Returns:
            Which pairs these are, int64; the cost of leaving every cell in its place; and whether
            that is certain to be optimal.
        """
        alike = torch.nonzero(self._pattern[small] == self._pattern[large]).squeeze(1)
        differing = self._slots[small[alike]] != self._slots[large[alike]]
        alike = alike[differing.sum(1) == 1]
        return alike, *self._one_cell_differs(small[alike], large[alike], costs)

    def _transport(self, small: Tensor, large: Tensor, costs: CellCosts) -> Tensor:
        device = self._device
        # Of all networks, which can be very many, only those of these pairs.
        asked = torch.zeros(len(self.cells), dtype=torch.bool)
        asked[small] = asked[large] = True
        networks = asked.nonzero().squeeze(1)
        number = torch.empty(len(self.cells), dtype=torch.int64)
        number[networks] = torch.arange(len(networks))
        cells, there = self.cells[networks], networks.to(device)
        mass, features = self._mass[there], self._features[there]
        # One that gives no row, or no column, is not asked for as such.
        objective = network_distances(
            (self.weights.cells * costs.distances).to(device),
            costs.row_of[cells].clamp_min(0).to(device),
            mass,
            features,
            costs.col_of[cells].clamp_min(0).to(device),
            mass,
            features,
            number[small].to(device),
            number[large].to(device),
            backend=self._backend,
        )
        # Rounding may leave the objective of a perfect match a hair below zero.
        return objective.clamp_min_(0.0)

    def _one_cell_differs(
        self, small: Tensor, large: Tensor, costs: CellCosts
    ) -> tuple[Tensor, Tensor]:
        """Cost of leaving every cell in its place, and whether no other coupling is cheaper.

        The networks have one skeleton and equal cells but for one, x here and y there, repeated at
        the same places; staying costs d(x, y) times their mass. Along any cycle of another
        coupling, every x that does not go to a y goes to an equal cell e, and some y receives from
        an equal cell e'; positions and states only add to that. So staying is optimal if
        d(x, y) <= min_e d(x, e) + min_e' d(e', y), where a missing e counts as infinitely far.

        Args:
            small: Positions of networks, shape (P,).
            large: Positions of networks, shape (P,).
            costs: Cell distances, rows for `small` and columns for `large`.

        Returns:
            Costs, shape (P,), and whether they are certain, shape (P,), bool.
        """
        slots_x, slots_y = self._slots[small], self._slots[large]
        differs = slots_x != slots_y
        slot = differs.to(torch.int64).argmax(1, keepdim=True)
        rows = costs.row_of[slots_x.clamp_min(0)]
        cols = costs.col_of[slots_y.clamp_min(0)]
        distances = costs.distances.to(self._device)
        row, col = rows.gather(1, slot), cols.gather(1, slot)
        not_equal = (differs | (slots_x < 0)).to(self._device)
        to_equal = distances[row, cols].masked_fill(not_equal, torch.inf).amin(1)
        from_equal = distances[rows, col].masked_fill(not_equal, torch.inf).amin(1)
        across = distances[row, col].squeeze(1)
        mass = self._slot_mass[self._pattern[small]].gather(1, slot).squeeze(1)
        # Where both ways cost the same, rounding shall not decide.
        slack = 1.0 + 8.0 * torch.finfo(self._dtype).eps
        staying = self.weights.cells * mass.to(self._device) * across
        return staying, across <= (to_equal + from_equal) * slack


def _features(network: Network, state_scale: tuple[float, float] | None) -> list[tuple[float, ...]]:
    """Per cell its position and, adding up to its state, half of its width and resolution."""
    positions = network.positions()
    if state_scale is None:
        return [(position,) for position in positions]
    return [
        (position, width / 2, resolution / 2)
        for position, (width, resolution) in zip(
            positions, network_state(network, state_scale), strict=True
        )
    ]
