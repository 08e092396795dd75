# Over 400 lines: one distance, documented in one place.
"""HOTNN: the distance between networks."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Network, OperationTree
from hotnas_torch.arguments import choice, items
from hotnas_torch.distances._tables.cell_tables import unique_cells
from hotnas_torch.distances._tables.envelope import HeldCells, envelope, network_shares
from hotnas_torch.distances._tables.network_tables import (
    CellCosts,
    NetworkTables,
    NetworkWeights,
    unique_networks,
)
from hotnas_torch.distances.held_couplings import HeldCouplings
from hotnas_torch.distances.ifgw import IFGW
from hotnas_torch.distances.matching import NetworkMatching, match_networks
from hotnas_torch.distances.network_distance import KernelTerm, NetworkDistance
from hotnas_torch.distances.prepared_networks import PreparedNetworks
from hotnas_torch.distances.settings import (
    SOLVER_FIELDS,
    TERM_FIELDS,
    Solver,
    Terms,
    settings_from,
)
from hotnas_torch.matrices.comparison import Comparison
from hotnas_torch.matrices.neighbors import Rows
from hotnas_torch.matrices.pairwise import Executor, Tiling, fill
from hotnas_torch.matrices.progress import Progress
from hotnas_torch.ot._operators.operator import is_tracked
from hotnas_torch.ot._operators.tracing import interpreted
from hotnas_torch.ot.scalars import Scalar, fraction, value_of
from hotnas_torch.spaces import SearchSpace

__all__ = ["HOTNN"]

SPACE_DEFAULTS: dict[str, dict[str, Any]] = {
    "transnas_macro": {"eta": 0.3, "zeta": 0.6},
    "nasbench_macro": {"eta": 0.95, "zeta": 0.0, "mass": "uniform"},
}
"""Defaults by the name of a space, chosen by how well distances predict its published table."""


@interpreted
class HOTNN(NetworkDistance):
    """Hierarchical optimal transport distance between networks.

    The distance of two networks is the least cost of a coupling of their cells, which carry masses
    proportional to their output channels, under the cost::

        (1 - eta) * ((1 - zeta) * iFGW + zeta * |state difference|) + eta * |position difference|

    where the position of a cell is its longest path from the network's input over that to the
    output, and its state the mean of two coordinates: cumulative log2 channel width and log2
    resolution relative to the network's input, scaled to [0, 1] for the space. With zeta = 0 this
    is the distance of the paper. An object is configured once and called on lists of networks.

    Networks of nested cells (`arch.NestedCell`) are compared level by level: the cost of exchanging
    two nodes that are graphs is the distance between these, see `IFGW`.

    Args:
        space: Search space; supplies the operation tree, the scale of the state, the size that
            `unreachable` needs, and defaults of eta, zeta and mass where better ones are known.
        tree: Operation tree, instead of the space's. One of `space` and `tree` is required. Without
            a space the scale of the state is the tree's.
        lam: Weight of the node term inside a cell, see `IFGW`.
        eps: Share of operations against places inside a cell, see `IFGW`.
        eta: Share of the position, in [0, 1]; None takes the space's default, else 0.5.
        zeta: Share of the state against the inside of cells, in [0, 1]; None takes the space's
            default, else 0.5, and 0 where neither a space nor the tree has a scale of it.
        mass: `"channels"` (paper) or `"uniform"`; None takes the space's default.
        preset: `"paper"` sets what the paper prints where it prints it: that of `IFGW`, zeta = 0
            and channel masses. docs/definitions.md lists what it leaves open, and what is taken
            then. What is passed wins over the preset.
        terms: What the cost between cells is made of; None takes `Terms()`.
        solver: How and where it is minimised; None takes `Solver()`.
        **settings: Fields of `Terms` and `Solver` by their names; they win over those of the
            objects.

    Attributes:
        ifgw: The `IFGW` between the cells.

    Raises:
        TypeError: An argument of the wrong kind or an unknown setting; the message names it.
        ValueError: An argument out of range; the message names it.

    Complexity: one iFGW per pair of distinct cells, one transport per pair of networks; pairs of
        networks that each repeat one cell share a transport per pair of skeletons. Nested cells
        add one iFGW per pair of distinct graphs on each level.

    Reference: Yang, Liu, Xu, "HOTNAS: Hierarchical Optimal Transport for Neural Architecture
        Search", CVPR 2023, Eq. 10-13.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.TransNASMacro()
        >>> nets = space.sample(4, generator=torch.Generator().manual_seed(0))
        >>> distances = ht.HOTNN(space=space)(nets)
        >>> distances.shape, float(distances.diagonal().max())
        (torch.Size([4, 4]), 0.0)
    """

    name = "hotnn"
    kernel_terms = (KernelTerm((0,), 1, 1e-4, 1e2),)

    SETTINGS = (
        *("space", "tree", "lam", "eps", "eta", "zeta", "mass", "preset", "terms", "solver"),
        *(*TERM_FIELDS, *SOLVER_FIELDS),
    )
    """Names of all arguments, those of `**settings` among them."""

    def __init__(
        self,
        *,
        space: SearchSpace | None = None,
        tree: OperationTree | None = None,
        lam: Scalar = 0.5,
        eps: Scalar = 0.8,
        eta: Scalar | None = None,
        zeta: Scalar | None = None,
        mass: Literal["channels", "uniform"] | None = None,
        preset: Literal["default", "paper"] = "default",
        terms: Terms | None = None,
        solver: Solver | None = None,
        **settings: Any,
    ) -> None:
        terms, solver = settings_from("HOTNN", terms, solver, settings, self.SETTINGS)
        self.ifgw = IFGW(
            space=space,
            tree=tree,
            lam=lam,
            eps=eps,
            preset=preset,
            terms=terms if terms.state_scale is None else replace(terms, state_scale=None),
            solver=solver,
        )
        self.space = space  # type: ignore[assignment]  # None where a tree alone was passed
        self.state_scale = terms.state_scale
        if self.state_scale is None:
            known = self.ifgw.tree if space is None else space
            self.state_scale = known.state_scale
        self.dtype, self.device = self.ifgw.dtype, self.ifgw.device
        self.backend, self.memory_budget = solver.backend, solver.memory_budget
        defaults: dict[str, Any] = {"eta": 0.5, "zeta": 0.5, "mass": "channels"}
        if space is not None:
            defaults |= SPACE_DEFAULTS.get(space.name, {})
        if self.state_scale is None:
            defaults["zeta"] = 0.0
        if preset == "paper":
            defaults = {"eta": 0.5, "zeta": 0.0, "mass": "channels"}
        self.eta = fraction("eta", defaults["eta"] if eta is None else eta)
        self.zeta = fraction("zeta", defaults["zeta"] if zeta is None else zeta)
        self.mass: Literal["channels", "uniform"] = choice(
            "mass", defaults["mass"] if mass is None else mass, ("channels", "uniform")
        )
        if value_of(self.zeta) > 0.0 and self.state_scale is None:
            raise ValueError(
                "zeta > 0 needs the scale of the cell state: pass space= or state_scale=(divisor of"
                " log2 width, divisor of log2 resolution), or zeta=0"
            )

    @property
    def weights(self) -> NetworkWeights:
        """Shares of cells, state and position in the cost between two cells."""
        eta, zeta = value_of(self.eta), value_of(self.zeta)
        return NetworkWeights(cells=(1 - eta) * (1 - zeta), state=(1 - eta) * zeta, position=eta)

    def shares(self) -> Tensor:
        """Share of cells, state and position, shape (3,), differentiable in eta and zeta."""
        eta, zeta = (
            torch.as_tensor(value, dtype=self.dtype, device=self.device)
            for value in (self.eta, self.zeta)
        )
        return network_shares(eta, zeta)

    def config(self) -> dict[str, Any]:
        """Everything that the distances depend on, as JSON-ready values."""
        return {
            "space": None if self.space is None else self.space.name,
            "eta": value_of(self.eta),
            "zeta": value_of(self.zeta),
            "mass": self.mass,
            "state_scale": None if self.state_scale is None else list(self.state_scale),
            **self.ifgw.config(),
        }

    def __call__(
        self,
        nets_a: Sequence[Network],
        nets_b: Sequence[Network] | None = None,
        *,
        cells: Tensor | None = None,
        progress: Progress = False,
        executor: Executor | None = None,
    ) -> Tensor:
        """Distances between networks.

        Args:
            nets_a: Networks of the rows, at least one.
            nets_b: Networks of the columns; None compares `nets_a` with itself, at half the cost.
            cells: What `cell_distances` returned for the same networks, lam, eps, tree and
                `unreachable`: spares the solver while only eta and zeta change.
            progress: True shows a bar; a callable receives (stage, pairs done, pairs in all).
            executor: Who computes, for example a
                `hotnas_torch.integrations.ray.RayExecutor`; None is this process. The
                values are the same to the bit. A backward pass is always computed here.

        Returns:
            Distances >= 0, shape (len(nets_a), len(nets_b)), in `dtype` on `device`. Networks that
            are equal up to renumbering are exactly 0 apart; d(x, y) = d(y, x) to the bit.

        Raises:
            TypeError: A list or an item of the wrong type; the message names the index.
            ValueError: An empty list, or an operation that the tree does not know.
            SolverError: A pair of cells ended without a finite value.

        Differentiability: in lam, eps, eta, zeta, `unreachable` and the lengths of the tree, where
            these are tensors that require gradients, once; as for `IFGW`. With nested cells, in eta
            and zeta.
        """
        prepared = self._compare(*self._lists(nets_a, nets_b))
        return self._matrix(prepared, cells=cells, progress=progress, executor=executor)

    def part_distances(
        self,
        nets_a: Sequence[Network],
        nets_b: Sequence[Network] | None = None,
        *,
        progress: Progress = False,
    ) -> Tensor:
        """Return the distances as the one part there is, (1, A, B), float64 on the CPU."""
        found = self(nets_a, nets_b, progress=progress)
        return found.to("cpu", torch.float64)[None]

    def cell_distances(
        self,
        nets_a: Sequence[Network],
        nets_b: Sequence[Network] | None = None,
        *,
        progress: Progress = False,
    ) -> Tensor:
        """IFGW distances between the distinct cells of networks, the part that eta does not touch.

        Args:
            nets_a: Networks of the rows, at least one.
            nets_b: Networks of the columns; None compares `nets_a` with itself, at half the cost.
            progress: True shows a bar; a callable receives (stage, pairs done, pairs in all).

        Returns:
            Shape (distinct cells of `nets_a`, distinct cells of `nets_b`), ordered by size and key;
            made to be passed to `__call__`. Differentiable as `IFGW`.

        Raises:
            TypeError, ValueError, SolverError: As `__call__`.
        """
        prepared = self._compare(*self._lists(nets_a, nets_b))
        inside = self.ifgw.matrix(prepared.cell_tables, *prepared.cells(), progress=progress)
        prepared.cell_tables.log.warn()
        return inside

    def _rows_for_neighbors(
        self, comparison: Comparison, cols: Tensor, k: int, progress: Progress
    ) -> Rows:
        assert isinstance(comparison, PreparedNetworks)
        if not comparison.prunes:
            return super()._rows_for_neighbors(comparison, cols, k, progress)
        blocks = comparison.blocks_of(None)
        return lambda items: blocks.nearest(items, cols, k)

    def matching(self, net_a: Network, net_b: Network) -> NetworkMatching:
        """Return the coupling behind one distance, and the shares that make it up.

        Args:
            net_a: First network, N cells.
            net_b: Second network, M cells.

        Returns:
            Coupling of the cells, their iFGW distances, and the parts of the HOTNN distance.

        Raises:
            TypeError: An argument that is not a Network.
            ValueError: An operation that the tree does not know.
        """
        self._check("networks", [net_a, net_b])
        return match_networks(self, net_a, net_b)

    def _check(self, name: str, nets: Sequence[Network]) -> list[Network]:
        checked = items(name, nets, Network)
        known = set(self.ifgw.tree.labels)
        accepted: set[int] = set()
        for index, network in enumerate(checked):
            for place, cell in enumerate(network.cells):
                if id(cell) not in accepted:
                    self.ifgw.check(f"{name}[{index}].cells[{place}]", cell, known)
                    accepted.add(id(cell))
        return checked

    def _matrix(
        self,
        prepared: PreparedNetworks,
        *,
        progress: Progress,
        cells: Tensor | None = None,
        executor: Executor | None = None,
    ) -> Tensor:
        """Return the matrix with a graph in what requires gradients."""
        cell_tables, tables = prepared.cell_tables, prepared.tables
        inside = cells
        if inside is None:
            inside = prepared.cell_matrix(progress=progress, executor=executor)
        elif inside.shape != prepared.shape_of_cells():
            raise ValueError(
                f"cells must have shape {prepared.shape_of_cells()}, one entry per pair of distinct"
                f" cells of these networks; got {tuple(inside.shape)} (pass what cell_distances"
                " returned)"
            )
        edge = prepared.edge if inside is None else prepared.largest_edge
        tiling = Tiling(prepared.row_items, prepared.col_items, edge)

        def values() -> Tensor:
            return fill(
                tiling,
                prepared.blocks_of(inside),
                dtype=self.dtype,
                device=self.device,
                stage="networks",
                progress=progress,
                executor=executor,
            )

        def held(shares: Tensor, given: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
            def held_block(row: Tensor, col: Tensor) -> Tensor:
                used = tables.cells_of(row), tables.cells_of(col)
                if inside is None:
                    found = cell_tables.held(*used).distances(given)
                    costs = CellCosts.between(found, *used, len(cell_tables.cells))
                else:
                    costs = prepared.costs(given).restricted(*used)
                couplings = tables.held(row, col, costs.detached())
                return couplings.distances(costs.distances, shares)

            return held_block

        # Either the distances between the cells, with a graph of their own, or what they depend on.
        given = self.ifgw.coefficients() if inside is None else inside
        out = envelope(values, held, tiling, self.shares(), given)
        cell_tables.log.warn()
        return out

    def couplings(
        self,
        nets_a: Sequence[Network],
        nets_b: Sequence[Network] | None = None,
        *,
        cells: HeldCells | None = None,
    ) -> "HeldCouplings":
        """Return the optimal couplings behind a matrix, to be held while parameters change.

        Where the matrix is differentiated or evaluated for many nearby parameters, as in fitting a
        Gaussian process, this saves the solver: `HeldCouplings.distances` costs a matrix product.

        Args:
            nets_a: Networks of the rows, at least one.
            nets_b: Networks of the columns; None compares `nets_a` with itself, at half the cost.
            cells: Couplings of the nodes that an earlier call with the same networks, lam, eps,
                tree and `unreachable` found.

        Returns:
            Couplings of the nodes of all pairs of distinct cells, and of the cells.

        Raises:
            TypeError, ValueError, SolverError: As `__call__`.

        Complexity: memory of 2E + 3 numbers per pair of distinct cells and a few per pair of
            networks, all at the same time, E being the number of lengths of the tree.
        """
        rows, cols = self._lists(nets_a, nets_b)
        with torch.no_grad():
            prepared = self._compare(rows, cols)
            cell_rows, cell_cols = prepared.cells()
            cell_cols = cell_rows if cell_cols is None else cell_cols
            if cells is None:
                cells = prepared.cell_tables.held(cell_rows, cell_cols)
                prepared.cell_tables.log.warn()
            inside = cells.distances(self.ifgw.coefficients())
            costs = CellCosts.between(inside, cell_rows, cell_cols, len(prepared.cell_tables.cells))
            row_set, row_place = torch.unique(prepared.row_items, return_inverse=True)
            col_set, col_place = row_set, row_place
            if prepared.col_items is not None:
                col_set, col_place = torch.unique(prepared.col_items, return_inverse=True)
            networks = prepared.tables.held(row_set, col_set, costs)
        return HeldCouplings(cells, networks, row_place[:, None], col_place)

    def _compare(self, rows: list[Network], cols: list[Network] | None) -> PreparedNetworks:
        given = rows + (cols or [])
        flat = [cell for network in given for cell in network.cells]
        unique, flat_numbers = unique_cells(flat)
        numbers: list[list[int]] = []
        position = 0
        for network in given:
            numbers.append(flat_numbers[position : position + len(network.cells)])
            position += len(network.cells)
        representatives, places = unique_networks(given, numbers)
        learned = isinstance(self.zeta, Tensor) and (
            self.zeta.requires_grad or is_tracked(self.zeta)
        )
        tables = NetworkTables(
            [given[index] for index in representatives],
            [numbers[index] for index in representatives],
            mass=self.mass,
            state_scale=self.state_scale if learned or value_of(self.zeta) > 0.0 else None,
            weights=self.weights,
            backend=self.backend,
            dtype=self.dtype,
            device=self.device,
        )
        items = torch.tensor(places)
        return PreparedNetworks(
            ifgw=self.ifgw,
            cell_tables=self.ifgw.prepare(unique),
            tables=tables,
            row_items=items[: len(rows)],
            col_items=None if cols is None else items[len(rows) :],
        )
