"""Matchings: the optimal coupling behind one distance and what each part of the cost adds."""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from hotnas_torch import ot
from hotnas_torch.arch import Cell, Network
from hotnas_torch.distances._tables.cell_tables import CellTables, partial_masses
from hotnas_torch.distances._tables.network_tables import network_state

if TYPE_CHECKING:
    from hotnas_torch.distances.hotnn import HOTNN

__all__ = ["CellMatching", "NetworkMatching", "match_cells", "match_networks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellMatching:
    """How iFGW matches the nodes of two cells.

    Attributes:
        cell_a: Canonical form of the first cell; its numbering gives the rows of `plan`.
        cell_b: Canonical form of the second cell; its numbering gives the columns.
        plan: Coupling, shape (n, m), on the CPU; rows and columns sum to the node masses, or to at
            most these where a part is matched.
        distance: The iFGW distance, `linear + pairwise`.
        operation: Share of the distance due to the operations of matched nodes.
        location: Share due to the places (path lengths) of matched nodes.
        pairwise: Share due to the costs between pairs of nodes.
    """

    cell_a: Cell
    cell_b: Cell
    plan: Tensor
    distance: float
    operation: float
    location: float
    pairwise: float

    @property
    def linear(self) -> float:
        """Share of the distance due to matched nodes, `operation + location`."""
        return self.operation + self.location

    @property
    def parts(self) -> dict[str, float]:
        """The shares by name; they add up to the distance."""
        return {
            "operations": self.operation,
            "locations": self.location,
            "node pairs": self.pairwise,
        }

    def turned(self) -> Self:
        """Return the same matching seen from the second cell."""
        return replace(self, cell_a=self.cell_b, cell_b=self.cell_a, plan=self.plan.T)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkMatching:
    """How HOTNN matches the cells of two networks.

    Attributes:
        network_a: First network; its cells give the rows of `plan`.
        network_b: Second network; its cells give the columns.
        plan: Coupling, shape (N, M), on the CPU; rows and columns sum to the cell masses.
        cell_distances: iFGW distance of every pair of cells, shape (N, M), on the CPU.
        distance: The HOTNN distance, `cells + state + position`.
        cells: Share of the distance due to the insides of matched cells.
        state: Share due to channel width and resolution at matched cells.
        position: Share due to the positions of matched cells.
    """

    network_a: Network
    network_b: Network
    plan: Tensor
    cell_distances: Tensor
    distance: float
    cells: float
    state: float
    position: float

    @property
    def parts(self) -> dict[str, float]:
        """The shares by name; they add up to the distance."""
        return {"cells": self.cells, "state": self.state, "position": self.position}


@torch.no_grad()
def match_cells(tables: CellTables, row: int, col: int, *, lam: float) -> CellMatching:
    """Return how iFGW matches two cells of its tables.

    Args:
        tables: What `IFGW.prepare` returned.
        row: Place of the first cell.
        col: Place of the second cell, not before the first.
        lam: Weight of the node term.

    Raises:
        SolverError: The solver ended without a finite value.
    """
    first, second, solver = tables.cells[row], tables.cells[col], tables.settings
    factor = tables.linear_factor(row, col)
    operations = factor * tables.operation_cost(row, col)
    locations = factor * tables.location_cost(row, col)
    if row == col:
        plan = torch.eye(first.num_nodes, dtype=operations.dtype) / first.num_nodes
        objective = 0.0
    else:
        solve: Any = ot.fgw
        if solver.partial is not None:
            a, b = partial_masses(first.num_nodes, second.num_nodes, operations)
            solve = partial(ot.partial_fgw, a=a, b=b, mass=solver.partial)
        result = solve(
            operations + locations,
            tables.struct(row),
            tables.struct(col),
            alpha=solver.alpha,
            loss="l1",
            pairs=solver.pairs,
            num_starts=solver.num_starts,
            tol=solver.tol,
            max_iter=solver.max_iter,
            backend=solver.backend,
        )
        result.raise_if_failed()
        plan, objective = result.plan, float(result.objective)
    operation = lam * float((plan * operations).sum())
    location = lam * float((plan * locations).sum())
    # What is left belongs to the pairs; rounding must not make it negative.
    pairwise = max(0.0, objective - operation - location)
    return CellMatching(
        cell_a=first,
        cell_b=second,
        plan=plan.cpu(),
        distance=operation + location + pairwise,
        operation=operation,
        location=location,
        pairwise=pairwise,
    )


@torch.no_grad()
def match_networks(metric: "HOTNN", net_a: Network, net_b: Network) -> NetworkMatching:
    """Return how a metric matches the cells of two networks that it knows.

    Raises:
        SolverError: A solver ended without a finite value.
    """
    weights = metric.weights
    cell_cost = metric.ifgw(net_a.cells, net_b.cells)

    def differences(x: list[tuple[float, ...]], y: list[tuple[float, ...]]) -> Tensor:
        left, right = cell_cost.new_tensor(x), cell_cost.new_tensor(y)
        return torch.cdist(left, right, p=1.0) / left.shape[-1]

    position = differences(
        [(value,) for value in net_a.positions()], [(value,) for value in net_b.positions()]
    )
    state = torch.zeros_like(cell_cost)
    if metric.state_scale is not None:
        state = differences(
            list(network_state(net_a, metric.state_scale)),
            list(network_state(net_b, metric.state_scale)),
        )
    plan = ot.transport(
        weights.cells * cell_cost + weights.state * state + weights.position * position,
        cell_cost.new_tensor(net_a.masses(metric.mass)),
        cell_cost.new_tensor(net_b.masses(metric.mass)),
        backend=metric.backend,
    ).plan
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
