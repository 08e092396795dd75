# Over 400 lines: one table and what is computed from it.
"""Unique networks as solver-ready tensors, and the distances of chosen pairs of them."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.distances._tables.envelope import HeldNetworks
from hotnas_torch.matrices.pairwise import are_straight, distinct_pairs, straight_pairs
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
        places = torch.cat([self.row_of[rows], self.col_of[cols]]).to(self.distances.device)
        part = self.distances[places[: len(rows), None], places[len(rows) :]]
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


@dataclass(frozen=True, slots=True)
class _Chosen:
    """R of the networks, where pairs of them are solved: all that their distances are made of.

    Attributes:
        costs: Distances between cells.
        network: Positions of the networks, shape (R,), int64.
        number: Places of all networks in that list, shape (X,); only those in it have one.
        pattern: Their patterns, shape (R,).
        slots: Their different cells, shape (R, K), -1 for none.
        row: Rows that `costs` has for their cells, shape (R, N); any where it has none.
        col: Columns, likewise.
        slot_row: Rows for their different cells, shape (R, K).
        slot_col: Columns, likewise.
    """

    costs: Tensor
    network: Tensor
    number: Tensor
    pattern: Tensor
    slots: Tensor
    row: Tensor
    col: Tensor
    slot_row: Tensor
    slot_col: Tensor

    def transposed(self) -> "_Chosen":
        """Return the same with rows and columns of the costs exchanged."""
        return replace(
            self,
            costs=self.costs.T.contiguous(),
            row=self.col,
            col=self.row,
            slot_row=self.slot_col,
            slot_col=self.slot_row,
        )


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
            [row + [0.0] * (most - len(row)) for row in slot_mass],
            dtype=self._dtype,
            device=self._device,
        )
        self._slot_places = torch.tensor(slot_places, device=self._device)

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
        moved._slot_mass = self._slot_mass.to(device)
        moved._slot_places = self._slot_places.to(device)
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
        chosen, small, large, expand = self._pairs(rows, cols, costs)
        if are_straight(rows, cols):
            return expand(self._solve(small, large, chosen))
        straight = straight_pairs(
            rows, cols, chosen.network[small], chosen.network[large], len(self.cells)
        )
        values = torch.empty(small.shape, dtype=self._dtype, device=self._device)
        turned = ~straight
        values[straight] = self._solve(small[straight], large[straight], chosen)
        values[turned] = self._solve(small[turned], large[turned], chosen.transposed())
        return expand(values)

    def chosen(self, rows: Tensor, cols: Tensor, costs: CellCosts) -> Tensor:
        """Distances of pairs of networks, shape (P,), from positions (P,) on the CPU.

        The costs of the cells have a row for those of `rows`, a column for those of `cols`; what
        they hold for other pairs does not matter. To the bit what `block` has.
        """
        values = torch.zeros(rows.shape, dtype=self._dtype, device=self._device)
        chosen = self._choose(torch.unique(torch.cat([rows, cols])), costs)
        x, y = (chosen.number[side.to(self._device)] for side in (rows, cols))
        # Numbers of these lists are in the order of the networks.
        straight, turned = x < y, x > y
        values[straight] = self._solve(x[straight], y[straight], chosen)
        values[turned] = self._solve(y[turned], x[turned], chosen.transposed())
        return values

    def _pairs(
        self, rows: Tensor, cols: Tensor, costs: CellCosts
    ) -> tuple[_Chosen, Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """`distinct_pairs` of a block, as numbers in what is chosen for it."""
        chosen = self._choose(torch.cat([rows, cols]), costs)
        there = chosen.network[: len(rows)], chosen.network[len(rows) :]
        small, large, expand = distinct_pairs(rows, cols, len(self.cells), there)
        return chosen, chosen.number[small], chosen.number[large], expand

    def _choose(self, networks: Tensor, costs: CellCosts) -> _Chosen:
        """Bring what the distances of these networks are made of to the device, in one piece."""
        cells, slots = self.cells[networks], self._slots[networks]
        # One that gives no row, or no column, is not asked for as such.
        parts = {
            "network": networks[:, None],
            "pattern": self._pattern[networks][:, None],
            "slots": slots,
            "row": costs.row_of[cells].clamp_min(0),
            "col": costs.col_of[cells].clamp_min(0),
            "slot_row": costs.row_of[slots.clamp_min(0)].clamp_min(0),
            "slot_col": costs.col_of[slots.clamp_min(0)].clamp_min(0),
        }
        sent = torch.cat(list(parts.values()), 1).to(self._device)
        widths = [part.shape[1] for part in parts.values()]
        there = dict(zip(parts, sent.split(widths, 1), strict=True))
        network, pattern = (there.pop(name).squeeze(1) for name in ("network", "pattern"))
        number = torch.empty(len(self.cells), dtype=torch.int64, device=self._device)
        number[network] = torch.arange(len(network), device=self._device)
        distances = costs.distances.to(self._device)
        return _Chosen(distances, network, number, pattern, **there)

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
        chosen, small, large, expand = self._pairs(rows, cols, costs)
        straight = straight_pairs(
            rows, cols, chosen.network[small], chosen.network[large], len(self.cells)
        )
        slots = self._slots.shape[1]
        mass = torch.zeros(len(small), slots, slots, dtype=self._dtype, device=self._device)
        index = torch.zeros(len(small), slots, slots, dtype=torch.int64, device=self._device)
        state, position = mass.new_zeros(len(small)), mass.new_zeros(len(small))
        num_cols = costs.distances.shape[1]
        size = max(1, _HELD_ELEMENTS // self._width**2)
        for members, turned in ((straight, False), (~straight, True)):
            oriented = chosen.transposed() if turned else chosen
            for chunk in torch.nonzero(members).squeeze(1).split(size):
                x, y = small[chunk], large[chunk]
                row, col = oriented.slot_row[x][:, :, None], oriented.slot_col[y][:, None, :]
                index[chunk] = (col * num_cols + row) if turned else (row * num_cols + col)
                mass[chunk], state[chunk], position[chunk] = self._coupling(x, y, oriented)
        # Where a network has fewer different cells than another, nothing is moved.
        return HeldNetworks(index, mass, state, position, expand)

    def _coupling(
        self, small: Tensor, large: Tensor, chosen: _Chosen
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mass between different cells, (P, K, K), state and position over the coupling, (P,)."""
        slots = self._slots.shape[1]
        mass = torch.zeros(len(small), slots, slots, dtype=self._dtype, device=self._device)
        state, position = mass.new_zeros(len(small)), mass.new_zeros(len(small))
        alike, _, settled = self._settled(small, large, chosen)
        stays = alike[settled]
        mass[stays] = torch.diag_embed(self._slot_mass[chosen.pattern[small[stays]]])
        moves = torch.ones_like(small, dtype=torch.bool)
        moves[stays] = False
        rest = torch.nonzero(moves).squeeze(1)
        if not len(rest):
            return mass, state, position
        small, large = small[rest], large[rest]
        inside = chosen.costs[chosen.row[small][:, :, None], chosen.col[large][:, None, :]]
        of_x, of_y = chosen.network[small], chosen.network[large]
        x, y = self._places[of_x][:, :, None], self._places[of_y][:, None]
        # A coordinate at a time: these are the largest tensors here, and little is done with them.
        position_apart, *of_state = ((x[..., k] - y[..., k]).abs_() for k in range(x.shape[-1]))
        state_apart = torch.zeros_like(position_apart)
        for apart in of_state:
            state_apart += apart
        cost = (self.weights.cells * inside).add_(position_apart, alpha=self.weights.position)
        cost.add_(state_apart, alpha=self.weights.state)
        plan, *_ = transport(cost, self._mass[of_x], self._mass[of_y], backend=self._backend)
        of_small = self._slot_places[chosen.pattern[small]][:, :, None]
        of_large = self._slot_places[chosen.pattern[large]][:, None]
        pair_of = (of_small * slots + of_large).flatten(1)
        flat = plan.flatten(1)
        mass[rest] = segment_sum(flat, pair_of, slots**2, dim=1).reshape(-1, slots, slots)
        state[rest] = torch.linalg.vecdot(flat, state_apart.flatten(1))
        position[rest] = torch.linalg.vecdot(flat, position_apart.flatten(1))
        return mass, state, position

    def _solve(self, small: Tensor, large: Tensor, chosen: _Chosen) -> Tensor:
        """Distances of pairs, shape (P,), of numbers in what is chosen; the host waits twice."""
        values = torch.empty(small.shape, dtype=self._dtype, device=self._device)
        alike, staying, certain = self._settled(small, large, chosen)
        if not len(alike):
            return self._transport(small, large, chosen)
        values[alike] = staying
        unsettled = torch.ones_like(small, dtype=torch.bool)
        unsettled[alike] = ~certain
        rest = torch.nonzero(unsettled).squeeze(1)
        if len(rest):
            values[rest] = self._transport(small[rest], large[rest], chosen)
        return values

    def _settled(
        self, small: Tensor, large: Tensor, chosen: _Chosen
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pair that differ in one repeated cell on one skeleton, the bulk of some spaces.

        Returns:
            Which pairs these are, int64; the cost of leaving every cell in its place; and whether
            that is certain to be optimal.
        """
        same = chosen.pattern[small] == chosen.pattern[large]
        differing = (chosen.slots[small] != chosen.slots[large]).sum(1)
        alike = torch.nonzero(same & (differing == 1)).squeeze(1)
        return alike, *self._one_cell_differs(small[alike], large[alike], chosen)

    def _transport(self, small: Tensor, large: Tensor, chosen: _Chosen) -> Tensor:
        mass, features = self._mass[chosen.network], self._features[chosen.network]
        objective = network_distances(
            self.weights.cells * chosen.costs,
            chosen.row,
            mass,
            features,
            chosen.col,
            mass,
            features,
            small,
            large,
            backend=self._backend,
        )
        # Rounding may leave the objective of a perfect match a hair below zero.
        return objective.clamp_min_(0.0)

    def _one_cell_differs(
        self, small: Tensor, large: Tensor, chosen: _Chosen
    ) -> tuple[Tensor, Tensor]:
        """Cost of leaving every cell in its place, and whether no other coupling is cheaper.

        The networks have one skeleton and equal cells but for one, x here and y there, repeated at
        the same places; staying costs d(x, y) times their mass. Along any cycle of another
        coupling, every x that does not go to a y goes to an equal cell e, and some y receives from
        an equal cell e'; positions and states only add to that. So staying is optimal if
        d(x, y) <= min_e d(x, e) + min_e' d(e', y), where a missing e counts as infinitely far.

        Args:
            small: Numbers in what is chosen, shape (P,).
            large: Numbers, shape (P,).
            chosen: The networks, with rows of the costs for `small` and columns for `large`.

        Returns:
            Costs, shape (P,), and whether they are certain, shape (P,), bool.
        """
        slots_x, slots_y = chosen.slots[small], chosen.slots[large]
        differs = slots_x != slots_y
        slot = differs.to(torch.int64).argmax(1, keepdim=True)
        rows, cols = chosen.slot_row[small], chosen.slot_col[large]
        distances = chosen.costs
        row, col = rows.gather(1, slot), cols.gather(1, slot)
        not_equal = differs | (slots_x < 0)
        to_equal = distances[row, cols].masked_fill(not_equal, torch.inf).amin(1)
        from_equal = distances[rows, col].masked_fill(not_equal, torch.inf).amin(1)
        across = distances[row, col].squeeze(1)
        mass = self._slot_mass[chosen.pattern[small]].gather(1, slot).squeeze(1)
        # Where both ways cost the same, rounding shall not decide.
        slack = 1.0 + 8.0 * torch.finfo(self._dtype).eps
        staying = self.weights.cells * mass * across
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
