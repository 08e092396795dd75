"""What computes the entries of a matrix, a block at a time, here or in another process."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hotnas_torch.distances._tables.cell_tables import CellTables
from hotnas_torch.distances._tables.network_tables import CellCosts, NetworkTables
from hotnas_torch.matrices.neighbors import nearest_by_bounds
from hotnas_torch.matrices.pairwise import distinct_pairs
from hotnas_torch.matrices.solve_log import SolveLog

__all__ = ["CellBlocks", "NetworkBlocks"]

_SLACK = 1e-4
"""Rounding of a bound in float32, and what the solver's own stop leaves open, and more."""


@dataclass(frozen=True, slots=True)
class CellBlocks:
    """Distances between unique cells.

    Attributes:
        tables: The cells.
    """

    tables: CellTables

    @property
    def device(self) -> torch.device:
        """Where they are solved."""
        return self.tables.device

    @property
    def log(self) -> SolveLog:
        """What the solvers reported."""
        return self.tables.log

    def __call__(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Distances, shape (r, c), between cells of the given positions, (r,) and (c,)."""
        return self.tables.block(rows, cols)

    def to(self, device: torch.device) -> "CellBlocks":
        """Return the same on another device."""
        return CellBlocks(self.tables.to(device))


@dataclass(frozen=True, slots=True)
class NetworkBlocks:
    """Distances between unique networks.

    Attributes:
        tables: The networks.
        cells: Distances between their cells; or the cells, whose distances each block then computes
            as far as it needs them.
    """

    tables: NetworkTables
    cells: CellCosts | CellTables

    @property
    def device(self) -> torch.device:
        """Where they are solved."""
        return self.tables.device

    @property
    def log(self) -> SolveLog:
        """What the solvers reported."""
        return self.cells.log if isinstance(self.cells, CellTables) else SolveLog(0)

    def __call__(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Distances, shape (r, c), between networks of the given positions, (r,) and (c,)."""
        used = self.tables.cells_of(rows), self.tables.cells_of(cols)
        if isinstance(self.cells, CellTables):
            inside = self.cells.block(*used)
            costs = CellCosts.between(inside, *used, len(self.cells.cells))
        else:
            costs = self.cells.restricted(*used)
        return self.tables.block(rows, cols, costs)

    def nearest(self, rows: Tensor, cols: Tensor, k: int) -> Tensor:
        """Distances, shape (r, c), to what can be among the k nearest, infinite elsewhere.

        Of the cells only those pairs are solved which bounds do not rule out; the cells must not
        have been compared yet.
        """
        cells = self.cells
        assert isinstance(cells, CellTables)
        used = self.tables.cells_of(rows), self.tables.cells_of(cols)
        num_cells = len(cells.cells)
        small, large, expand = distinct_pairs(*used, num_cells)
        bounds = CellCosts.between(expand(cells.bounds(small, large)), *used, num_cells)
        lower = self.tables.block(rows, cols, bounds)
        # 0 between equal cells; nothing is asked for that has not been solved.
        solved = CellCosts.between(torch.zeros_like(bounds.distances), *used, num_cells)

        def solve(chosen: Tensor) -> Tensor:
            i, j = chosen.cpu().nonzero(as_tuple=True)
            x, y = self.tables.pairs_of_cells(rows[i], cols[j])
            row, col = solved.row_of[x], solved.col_of[y]
            values = cells.solve(torch.minimum(x, y), torch.maximum(x, y))
            solved.distances[row.to(values.device), col.to(values.device)] = values
            found = torch.full_like(lower, torch.inf)
            found[chosen] = self.tables.chosen(rows[i], cols[j], solved)
            return found

        return nearest_by_bounds(lower, k, solve, _SLACK)

    def to(self, device: torch.device) -> "NetworkBlocks":
        """Return the same on another device."""
        return NetworkBlocks(self.tables.to(device), self.cells.to(device))
