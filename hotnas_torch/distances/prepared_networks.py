"""Two lists of networks, ready for HOTNN: the cells first, then the networks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hotnas_torch.distances._tables.blocks import NetworkBlocks
from hotnas_torch.distances._tables.cell_tables import CellTables
from hotnas_torch.distances._tables.network_tables import CellCosts, NetworkTables
from hotnas_torch.distances.ifgw import IFGW, cell_tile_edge
from hotnas_torch.matrices.pairwise import Executor, Stages, tile_edge
from hotnas_torch.matrices.progress import Progress
from hotnas_torch.matrices.solve_log import SolveLog
from hotnas_torch.ot._operators.operator import plain

__all__ = ["PreparedNetworks"]

_TILE = 512


@dataclass(frozen=True, slots=True)
class PreparedNetworks:
    """Two lists of networks as tables; a `hotnas_torch.matrices.comparison.Comparison`.

    Attributes:
        ifgw: Distance between the cells.
        cell_tables: All cells.
        tables: The U distinct networks.
        row_items: Distinct network of every row, shape (A,), int64.
        col_items: Distinct network of every column; None compares the rows with themselves.
    """

    ifgw: IFGW
    cell_tables: CellTables
    tables: NetworkTables
    row_items: Tensor
    col_items: Tensor | None

    @property
    def dtype(self) -> torch.dtype:
        """Type of the distances."""
        return self.ifgw.dtype

    @property
    def device(self) -> torch.device:
        """Where the matrix lives."""
        return self.ifgw.device

    @property
    def log(self) -> SolveLog:
        """What the solvers of cells reported."""
        return self.cell_tables.log

    def cells(self) -> tuple[Tensor, Tensor | None]:
        """Return sorted distinct cells of the rows, and of the columns if they are another list."""
        rows = self.tables.cells_of(torch.unique(self.row_items))
        if self.col_items is None:
            return rows, None
        return rows, self.tables.cells_of(torch.unique(self.col_items))

    def shape_of_cells(self) -> tuple[int, int]:
        """Return rows and columns of the matrix between the cells."""
        rows, cols = self.cells()
        return len(rows), len(rows if cols is None else cols)

    def cell_matrix(
        self,
        *,
        progress: Progress = False,
        stages: Stages | None = None,
        executor: Executor | None = None,
    ) -> Tensor | None:
        """Return the distances between all cells; None where they do not fit the memory budget."""
        if not self._cells_fit():
            return None
        return self.ifgw.matrix(
            self.cell_tables, *self.cells(), progress=progress, stages=stages, executor=executor
        )

    def _cells_fit(self) -> bool:
        rows, cols = self.shape_of_cells()
        itemsize = torch.empty((), dtype=self.dtype).element_size()
        return rows * cols * itemsize <= self.ifgw.solver.memory_budget

    def costs(self, inside: Tensor) -> CellCosts:
        """Return distances between the cells, as a matrix, by the numbers of the cells."""
        rows, cols = self.cells()
        num_cells = len(self.cell_tables.cells)
        return CellCosts.between(inside, rows, rows if cols is None else cols, num_cells)

    @property
    def largest_edge(self) -> int:
        """Side of a tile of networks whose cells have been compared."""
        return tile_edge(self.ifgw.solver.memory_budget, at_most=_TILE, device=self.device)

    @property
    def edge(self) -> int:
        """Side of a tile of networks, smaller where it has cells to compare."""
        if self._cells_fit():
            return self.largest_edge
        per_network = max(len(set(row)) for row in self.tables.cells.tolist())
        edge = max(16, cell_tile_edge(self.cell_tables.cells) // per_network)
        return tile_edge(self.ifgw.solver.memory_budget, at_most=edge, device=self.device)

    @property
    def prunes(self) -> bool:
        """Whether bounds between cells save more than they cost: most networks have their own."""
        cells, networks = self.cell_tables, self.tables.cells
        return cells.bounded and 2 * len(cells.cells) >= len(networks)

    def blocks(
        self, *, progress: Progress, stages: Stages | None, executor: Executor | None
    ) -> NetworkBlocks:
        """Return what computes tiles of networks, after the cells where these fit in memory."""
        return self.blocks_of(self.cell_matrix(progress=progress, stages=stages, executor=executor))

    def blocks_of(self, inside: Tensor | None) -> NetworkBlocks:
        """Return what computes tiles from the distances between cells; None: from the cells."""
        cells = self.cell_tables if inside is None else self.costs(plain(inside))
        return NetworkBlocks(self.tables, cells)
