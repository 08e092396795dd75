"""HOTNN: the distance between networks."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import torch
from torch import Tensor

from hotnas_torch import ot
from hotnas_torch._checks import Scalar, check_items, choice, fraction, number
from hotnas_torch.arch import Network, OperationTree
from hotnas_torch.distances._tables.blocks import NetworkBlocks
from hotnas_torch.distances._tables.cell_tables import CellTables, unique_cells
from hotnas_torch.distances._tables.envelope import (
    HeldCells,
    HeldNetworks,
    envelope,
    network_shares,
)
from hotnas_torch.distances._tables.network_tables import (
    CellCosts,
    NetworkTables,
    NetworkWeights,
    network_state,
    unique_networks,
)
from hotnas_torch.distances.ifgw import IFGW, cell_tile_edge
from hotnas_torch.distances.matching import NetworkMatching
from hotnas_torch.matrices.gram_file import finished_gram
from hotnas_torch.matrices.gram_store import GramStore
from hotnas_torch.matrices.gram_store_writer import GramStoreWriter
from hotnas_torch.matrices.gram_writer import GramWriter
from hotnas_torch.matrices.pairwise import (
    MEMORY_BUDGET,
    Executor,
    Stages,
    Tiling,
    fill,
    finished_tiles,
    tile_edge,
)
from hotnas_torch.matrices.progress import Progress
from hotnas_torch.ot._operators.operator import is_tracked, plain
from hotnas_torch.spaces import SearchSpace

__all__ = ["HOTNN", "HeldCouplings"]

SPACE_DEFAULTS: dict[str, dict[str, Any]] = {
    "transnas_macro": {"eta": 0.3, "zeta": 0.6},
    "nasbench_macro": {"eta": 0.95, "zeta": 0.0, "mass": "uniform"},
}
"""Defaults by the name of a space, chosen by how well distances predict its published table."""

_NETWORK_TILE = 512


class HOTNN:
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
        tree: Operation tree, instead of the space's. One of `space` and `tree` is required.
        lam: Weight of the node term inside a cell, see `IFGW`.
        eps: Share of operations against places inside a cell, see `IFGW`.
        eta: Share of the position, in [0, 1]; None takes the space's default, else 0.5.
        zeta: Share of the state against the inside of cells, in [0, 1]; None takes the space's
            default, else 0.5, and 0 without a space or a scale.
        mass: ``"channels"`` (paper) or ``"uniform"``; None takes the space's default.
        state_scale: Divisors of the two state coordinates; None takes the space's.
        pairs: See `IFGW`.
        linear_term: See `IFGW`.
        normalize: See `IFGW`.
        unreachable: See `IFGW`.
        max_nodes: See `IFGW`.
        num_starts: See `IFGW`.
        tol: See `IFGW`.
        max_iter: See `IFGW`.
        preset: ``"paper"`` sets everything as printed: ordered pairs, the literal linear term, raw
            path lengths, zeta = 0, channel masses. Arguments that are passed win over the preset.
        device: Where the tables live and the solvers run; results are on it too.
        dtype: float32 or float64; None takes torch's default.
        backend: ``"auto"`` (compiled where possible), ``"ext"`` or ``"torch"``.
        memory_budget: Bytes that may be held beside the result. The table of cell distances is
            kept if it fits; otherwise each tile of network pairs computes the part that it needs.

    Attributes:
        ifgw: The `IFGW` between the cells.

    Raises:
        TypeError: An argument of the wrong kind; the message names it.
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
        state_scale: tuple[float, float] | None = None,
        pairs: Literal["directed", "ordered"] | None = None,
        linear_term: Literal["separable", "literal"] | None = None,
        normalize: bool | None = None,
        unreachable: Scalar | None = None,
        max_nodes: int | None = None,
        num_starts: int = 3,
        tol: float = 1e-3,
        max_iter: int = 200,
        preset: Literal["default", "paper"] = "default",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        backend: Literal["auto", "ext", "torch"] = "auto",
        memory_budget: int = MEMORY_BUDGET,
    ) -> None:
        self.ifgw = IFGW(
            space=space,
            tree=tree,
            lam=lam,
            eps=eps,
            pairs=pairs,
            linear_term=linear_term,
            normalize=normalize,
            unreachable=unreachable,
            max_nodes=max_nodes,
            num_starts=num_starts,
            tol=tol,
            max_iter=max_iter,
            preset=preset,
            device=device,
            dtype=dtype,
            backend=backend,
            memory_budget=memory_budget,
        )
        self.space = space
        self.state_scale = _state_scale(state_scale, space)
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
        if number(self.zeta) > 0.0 and self.state_scale is None:
            raise ValueError(
                "zeta > 0 needs the scale of the cell state: pass space= or state_scale=(divisor of"
                " log2 width, divisor of log2 resolution), or zeta=0"
            )

    @property
    def dtype(self) -> torch.dtype:
        """Type of the distances."""
        return self.ifgw.dtype

    @property
    def device(self) -> torch.device:
        """Where the distances are computed and returned."""
        return self.ifgw.device

    @property
    def weights(self) -> NetworkWeights:
        """Shares of cells, state and position in the cost between two cells."""
        eta, zeta = number(self.eta), number(self.zeta)
        return NetworkWeights(cells=(1 - eta) * (1 - zeta), state=(1 - eta) * zeta, position=eta)

    def shares(self) -> Tensor:
        """Shares of cells, state and position, shape (3,), differentiable in eta and zeta."""
        eta, zeta = (
            torch.as_tensor(value, dtype=self.dtype, device=self.device)
            for value in (self.eta, self.zeta)
        )
        return network_shares(eta, zeta)

    def config(self) -> dict[str, Any]:
        """Everything that the distances depend on, as JSON-ready values."""
        return {
            "space": None if self.space is None else self.space.name,
            "eta": number(self.eta),
            "zeta": number(self.zeta),
            "mass": self.mass,
            "state_scale": None if self.state_scale is None else list(self.state_scale),
            **self.ifgw.config(),
        }

    def __repr__(self) -> str:
        shown = {name: value for name, value in self.config().items() if name != "tree"}
        arguments = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        return f"{type(self).__name__}({arguments})"

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
        rows = self._check_networks("nets_a", nets_a)
        cols = None if nets_b is None else self._check_networks("nets_b", nets_b)
        return self._matrix(rows, cols, cells=cells, progress=progress, executor=executor)

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
        rows = self._check_networks("nets_a", nets_a)
        cols = None if nets_b is None else self._check_networks("nets_b", nets_b)
        prepared = self._prepare(rows, cols)
        inside = self.ifgw.matrix(prepared.cell_tables, *prepared.cells(), progress=progress)
        prepared.cell_tables.log.warn()
        return inside

    def gram(
        self,
        nets: Sequence[Network],
        *,
        out: str | PathLike[str],
        progress: Progress = True,
        resume: bool = True,
        overwrite: bool = False,
        take_over: bool = False,
        executor: Executor | None = None,
    ) -> Tensor:
        """Distances between networks, kept in a file that survives an interruption.

        Finished tiles are appended to ``<out>.partial`` as they come; the finished file appears at
        `out` in one step and the partial one is removed. `load_gram` reads the result.

        Args:
            nets: Networks, at least one.
            out: File to write (a NumPy ``.npz`` archive, whatever its name).
            progress: True shows a bar; a callable receives (stage, pairs done, pairs in all).
            resume: Go on with an interrupted run of the same computation, and return the file that
                a finished one left. The result has the same bits as an uninterrupted run.
            overwrite: Discard what an earlier run left at `out`.
            take_over: Go on with what another process is computing there; that one stops. Without
                it, the second process is refused; what a dead one left stops nobody.
            executor: As in `__call__`.

        Returns:
            Distances, shape (len(nets), len(nets)), as `__call__` returns them.

        Raises:
            GramFileError: `out` cannot be written, or there is a file of another computation, a
                damaged one, or (without `resume`) any; raised before any work, nothing is lost.
            TypeError: A list or an item of the wrong type; the message names the index.
            ValueError: An empty list, or an operation that the tree does not know.
        """
        rows = self._check_networks("nets", nets)
        settings, names, keys = self._described(rows, executor)
        if not overwrite and resume:
            ready = finished_gram(out, settings, keys)
            if ready is not None:
                return ready.to(self.device)
        with GramWriter(
            out,
            settings=settings,
            keys=keys,
            names=names,
            resume=resume,
            overwrite=overwrite,
            take_over=take_over,
        ) as writer:
            with torch.no_grad():
                result = self._matrix(
                    rows, None, progress=progress, writer=writer, executor=executor
                )
            writer.finish(result)
        return result

    def gram_store(
        self,
        nets: Sequence[Network],
        folder: str | PathLike[str],
        *,
        progress: Progress = True,
        resume: bool = True,
        overwrite: bool = False,
        take_over: bool = False,
        executor: Executor | None = None,
    ) -> GramStore:
        """Distances between networks in a folder, never as a whole in memory.

        The folder is a Zarr group with one file per tile of the upper half of the matrix between
        distinct networks; a tile is written when it is finished, in one step.

        Args:
            nets: Networks, at least one.
            folder: Folder to write, by custom with the suffix ``.zarr``.
            progress: True shows a bar; a callable receives (stage, pairs done, pairs in all).
            resume: Go on with an interrupted run of the same computation. The result has the same
                bits as an uninterrupted run.
            overwrite: Discard what an earlier run left at `folder`.
            take_over: Go on with what another process is computing there; that one stops. Without
                it, the second process is refused; what a dead one left stops nobody.
            executor: As in `__call__`.

        Returns:
            The store, open for reading: rows, nearest neighbours and kernel rows on demand.

        Raises:
            GramFileError: `folder` cannot be written, or holds another computation or (without
                `resume`) any; raised before any work, nothing is lost.
            ImportError: zarr is not installed.
            TypeError: A list or an item of the wrong type; the message names the index.
            ValueError: An empty list, or an operation that the tree does not know.

        Complexity: memory of the tables, of the cell distances where they fit `memory_budget`, and
            of the tiles that are on their way.
        """
        rows = self._check_networks("nets", nets)
        settings, names, keys = self._described(rows, executor)
        prepared = self._prepare(rows, None)
        num_distinct = len(prepared.tables.cells)
        edge = self._network_edge(prepared, None)
        with (
            GramStoreWriter(
                folder,
                # It decides on the tiles, which are the chunks of the store.
                settings=settings | {"memory_budget": self.ifgw.memory_budget},
                keys=keys,
                names=names,
                items=prepared.row_items,
                edge=edge,
                dtype=self.dtype,
                resume=resume,
                overwrite=overwrite,
                take_over=take_over,
            ) as writer,
            torch.no_grad(),
        ):
            if not writer.complete:
                inside = self._cell_matrix(
                    prepared,
                    progress=progress,
                    stages=writer.stage,
                    executor=executor,
                )
                tiles = finished_tiles(
                    Tiling(torch.arange(num_distinct), None, edge),
                    prepared.blocks(inside),
                    stage="networks",
                    progress=progress,
                    store=writer.stage("networks", num_distinct, edge),
                    executor=executor,
                )
                for _ in tiles:
                    pass
                prepared.cell_tables.log.warn()
                writer.finish()
        return GramStore(folder)

    def matching(self, net_a: Network, net_b: Network) -> NetworkMatching:
        """The coupling behind one distance, and the shares that make it up.

        Args:
            net_a: First network, N cells.
            net_b: Second network, M cells.

        Returns:
            Coupling of the cells, their iFGW distances, and the parts of the HOTNN distance.

        Raises:
            TypeError: An argument that is not a Network.
            ValueError: An operation that the tree does not know.
        """
        self._check_networks("networks", [net_a, net_b])
        with torch.no_grad():
            cell_cost = self.ifgw(net_a.cells, net_b.cells)
        weights = self.weights

        def differences(x: list[tuple[float, ...]], y: list[tuple[float, ...]]) -> Tensor:
            left = torch.tensor(x, dtype=self.dtype, device=self.device)
            right = torch.tensor(y, dtype=self.dtype, device=self.device)
            return torch.cdist(left, right, p=1.0) / left.shape[-1]

        position = differences(
            [(value,) for value in net_a.positions()], [(value,) for value in net_b.positions()]
        )
        if self.state_scale is None:
            state = torch.zeros_like(cell_cost)
        else:
            state = differences(
                list(network_state(net_a, self.state_scale)),
                list(network_state(net_b, self.state_scale)),
            )
        cost = weights.cells * cell_cost + weights.state * state + weights.position * position
        result = ot.transport(
            cost,
            torch.tensor(net_a.masses(self.mass), dtype=self.dtype, device=self.device),
            torch.tensor(net_b.masses(self.mass), dtype=self.dtype, device=self.device),
            backend=self.ifgw.backend,
        )
        plan = result.plan
        parts = {
            "cells": float((plan * cell_cost).sum()) * weights.cells,
            "state": float((plan * state).sum()) * weights.state,
            "position": float((plan * position).sum()) * weights.position,
        }
        return NetworkMatching(
            network_a=net_a,
            network_b=net_b,
            plan=plan.cpu(),
            cell_distances=cell_cost.cpu(),
            distance=sum(parts.values()),
            **parts,
        )

    def _check_networks(self, name: str, networks: Sequence[Network]) -> list[Network]:
        checked = check_items(name, networks, Network)
        known = frozenset(self.ifgw.tree.labels)
        accepted: set[int] = set()
        for index, network in enumerate(checked):
            for place, cell in enumerate(network.cells):
                if id(cell) not in accepted:
                    self.ifgw.check(f"{name}[{index}].cells[{place}]", cell, known)
                    accepted.add(id(cell))
        return checked

    def _name(self, network: Network) -> str:
        if self.space is not None:
            return self.space.to_string(network)
        return json.dumps(network.to_json(), separators=(",", ":"))

    def _matrix(
        self,
        rows: list[Network],
        cols: list[Network] | None,
        *,
        progress: Progress,
        cells: Tensor | None = None,
        writer: GramWriter | None = None,
        executor: Executor | None = None,
    ) -> Tensor:
        prepared = self._prepare(rows, cols)
        cell_tables, tables = prepared.cell_tables, prepared.tables
        inside = cells
        if inside is None:
            inside = self._cell_matrix(
                prepared,
                progress=progress,
                stages=None if writer is None else lambda name, *_: writer.stage(name, self.dtype),
                executor=executor,
            )
        elif inside.shape != prepared.shape_of_cells():
            raise ValueError(
                f"cells must have shape {prepared.shape_of_cells()}, one entry per pair of distinct"
                f" cells of these networks; got {tuple(inside.shape)} (pass what cell_distances"
                " returned)"
            )
        tiling = Tiling(
            prepared.row_items, prepared.col_items, self._network_edge(prepared, inside)
        )

        def values() -> Tensor:
            return fill(
                tiling,
                prepared.blocks(inside),
                dtype=self.dtype,
                device=self.device,
                stage="networks",
                progress=progress,
                store=None if writer is None else writer.stage("networks", self.dtype),
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

    def _cell_matrix(
        self,
        prepared: "_Prepared",
        *,
        progress: Progress,
        stages: Stages | None,
        executor: Executor | None,
    ) -> Tensor | None:
        """Distances between all cells; None where they do not fit the memory budget."""
        if not self._cells_fit(prepared):
            return None
        return self.ifgw.matrix(
            prepared.cell_tables,
            *prepared.cells(),
            progress=progress,
            stages=stages,
            executor=executor,
        )

    def _cells_fit(self, prepared: "_Prepared") -> bool:
        rows, cols = prepared.shape_of_cells()
        itemsize = torch.empty((), dtype=self.dtype).element_size()
        return rows * cols * itemsize <= self.ifgw.memory_budget

    def _network_edge(self, prepared: "_Prepared", inside: Tensor | None) -> int:
        """Side of a tile of networks, smaller where it has cells to compare."""
        edge = _NETWORK_TILE
        if inside is None and not self._cells_fit(prepared):
            per_network = max(len(set(row)) for row in prepared.tables.cells.tolist())
            edge = max(16, cell_tile_edge(prepared.cell_tables.cells) // per_network)
        return tile_edge(self.ifgw.memory_budget, at_most=edge)

    def _described(
        self, nets: list[Network], executor: Executor | None
    ) -> tuple[dict[str, Any], list[str], list[str]]:
        """Settings, names and keys: what a file says about itself."""
        settings = self.config() | {"compiled": self.ifgw.compiled}
        if executor is not None and executor.device is not None:
            # Another device rounds differently.
            settings |= {"device": executor.device.type}
        return settings, [self._name(net) for net in nets], [net.key for net in nets]

    def couplings(
        self,
        nets_a: Sequence[Network],
        nets_b: Sequence[Network] | None = None,
        *,
        cells: HeldCells | None = None,
    ) -> "HeldCouplings":
        """The optimal couplings behind a matrix, to be held while parameters change.

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
        rows = self._check_networks("nets_a", nets_a)
        cols = None if nets_b is None else self._check_networks("nets_b", nets_b)
        with torch.no_grad():
            prepared = self._prepare(rows, cols)
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

    def _prepare(self, rows: list[Network], cols: list[Network] | None) -> "_Prepared":
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
            state_scale=self.state_scale if learned or number(self.zeta) > 0.0 else None,
            weights=self.weights,
            backend=self.ifgw.backend,
            dtype=self.dtype,
            device=self.device,
        )
        items = torch.tensor(places)
        return _Prepared(
            cell_tables=self.ifgw.prepare(unique),
            tables=tables,
            row_items=items[: len(rows)],
            col_items=None if cols is None else items[len(rows) :],
        )


@dataclass(frozen=True, slots=True)
class HeldCouplings:
    """The couplings behind a matrix of HOTNN distances, held while parameters change.

    Attributes:
        cells: Couplings of the nodes between all pairs of distinct cells.
        networks: Couplings of the cells.
        rows: Distinct network of every row, int64 of shape (A, 1).
        cols: Distinct network of every column, int64 of shape (B,).
    """

    cells: HeldCells
    networks: HeldNetworks
    rows: Tensor
    cols: Tensor

    def distances(self, metric: HOTNN) -> Tensor:
        """Distances for the parameters of a metric, differentiable in them.

        Args:
            metric: The metric that found the couplings, or one that differs from it in lam, eps,
                eta, zeta, `unreachable` and the lengths of the tree only.

        Returns:
            Shape (A, B). Exact at the parameters for which the couplings were found, and right to
            first order around them.
        """
        return self.evaluate(metric.ifgw.coefficients(), metric.shares())

    def evaluate(self, coefficients: Tensor, shares: Tensor) -> Tensor:
        """Distances for `IFGW.coefficients` and `HOTNN.shares` of a metric, shape (A, B)."""
        inside = self.cells.distances(coefficients)
        return self.networks.distances(inside, shares)[self.rows, self.cols]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Two lists of networks as tables."""

    cell_tables: CellTables
    tables: NetworkTables
    row_items: Tensor
    col_items: Tensor | None

    def cells(self) -> tuple[Tensor, Tensor | None]:
        """Sorted distinct cells of the rows, and of the columns if they are not the same list."""
        rows = self.tables.cells_of(torch.unique(self.row_items))
        if self.col_items is None:
            return rows, None
        return rows, self.tables.cells_of(torch.unique(self.col_items))

    def shape_of_cells(self) -> tuple[int, int]:
        """Rows and columns of the matrix between the cells."""
        rows, cols = self.cells()
        return len(rows), len(rows if cols is None else cols)

    def costs(self, inside: Tensor) -> CellCosts:
        """Distances between the cells, as a matrix, by the numbers of the cells."""
        rows, cols = self.cells()
        num_cells = len(self.cell_tables.cells)
        return CellCosts.between(inside, rows, rows if cols is None else cols, num_cells)

    def blocks(self, inside: Tensor | None) -> NetworkBlocks:
        """What computes tiles of networks from the distances between cells, or from the cells."""
        cells = self.cell_tables if inside is None else self.costs(plain(inside))
        return NetworkBlocks(self.tables, cells)


def _state_scale(
    scale: tuple[float, float] | None, space: SearchSpace | None
) -> tuple[float, float] | None:
    if scale is None:
        return None if space is None else space.state_scale
    if len(scale) != 2 or not all(float(divisor) > 0.0 for divisor in scale):
        raise ValueError(f"state_scale must be two numbers > 0; got {scale!r}")
    return float(scale[0]), float(scale[1])
