"""What computes the entries of a matrix, a block at a time, here or in another process."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hotnas_torch.distances._tables.cell_tables import CellTables
from hotnas_torch.distances._tables.network_tables import CellCosts, NetworkTables
from hotnas_torch.matrices.solve_log import SolveLog

__all__ = ["CellBlocks", "NetworkBlocks"]


@dataclass(frozen=True, slots=True)
class CellBlocks:
    """Distances between unique cells.

    Attributes:
        tables: The cells.
    """

    tables: CellTables

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

    def to(self, device: torch.device) -> "NetworkBlocks":
        """Return the same on another device."""
        return NetworkBlocks(self.tables.to(device), self.cells.to(device))
