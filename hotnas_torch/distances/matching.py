"""Matchings: the optimal coupling behind one distance and what each part of the cost adds."""

from dataclasses import dataclass

from torch import Tensor

from hotnas_torch.arch import Cell, Network

__all__ = ["CellMatching", "NetworkMatching"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellMatching:
    """How iFGW matches the nodes of two cells.

    Attributes:
        cell_a: Canonical form of the first cell; its numbering gives the rows of `plan`.
        cell_b: Canonical form of the second cell; its numbering gives the columns.
        plan: Coupling, shape (n, m), on the CPU; rows and columns sum to the node masses.
        distance: The iFGW distance, ``linear + pairwise``.
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
        """Share of the distance due to matched nodes, ``operation + location``."""
        return self.operation + self.location

    @property
    def parts(self) -> dict[str, float]:
        """The shares by name; they add up to the distance."""
        return {
            "operations": self.operation,
            "locations": self.location,
            "node pairs": self.pairwise,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkMatching:
    """How HOTNN matches the cells of two networks.

    Attributes:
        network_a: First network; its cells give the rows of `plan`.
        network_b: Second network; its cells give the columns.
        plan: Coupling, shape (N, M), on the CPU; rows and columns sum to the cell masses.
        cell_distances: iFGW distance of every pair of cells, shape (N, M), on the CPU.
        distance: The HOTNN distance, ``cells + state + position``.
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
