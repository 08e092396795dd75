"""Two lists of networks as numbers of the distinct ones, with what a distance knows of these."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hotnas_torch.matrices.pairwise import Executor, Stages, tile_edge
from hotnas_torch.matrices.progress import Progress
from hotnas_torch.matrices.solve_log import SolveLog

if TYPE_CHECKING:
    from hotnas_torch.distances.network_distance import NetworkDistance

__all__ = ["DistanceBlocks", "NumberedNetworks"]

_TILE = 512


@dataclass(frozen=True, slots=True)
class NumberedNetworks:
    """Two lists of networks as tables; a `hotnas_torch.matrices.comparison.Comparison`.

    Attributes:
        distance: The distance.
        tables: What it knows of the U distinct networks.
        row_items: Distinct network of every row, shape (A,), int64.
        col_items: Distinct network of every column; None compares the rows with themselves.
        log: Stays empty.
    """

    distance: "NetworkDistance"
    tables: Any
    row_items: Tensor
    col_items: Tensor | None
    log: SolveLog = field(default_factory=lambda: SolveLog(0))

    @property
    def edge(self) -> int:
        """Largest side of a tile."""
        return tile_edge(self.distance.memory_budget, at_most=_TILE, device=self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the distances."""
        return self.distance.dtype

    @property
    def device(self) -> torch.device:
        """Where the matrix lives."""
        return self.distance.device

    def blocks(
        self, *, progress: Progress, stages: Stages | None, executor: Executor | None
    ) -> "DistanceBlocks":
        """Return what computes tiles; nothing has to be computed first."""
        del progress, stages, executor
        return DistanceBlocks(self.distance, self.tables, self.log)


@dataclass(frozen=True, slots=True)
class DistanceBlocks:
    """Tiles of a distance from its tables; can be sent to another process.

    Attributes:
        distance: The distance.
        tables: What it knows of the networks.
        log: Stays empty.
    """

    distance: "NetworkDistance"
    tables: Any
    log: SolveLog

    @property
    def device(self) -> torch.device:
        """Where they are solved."""
        return self.distance.device

    def __call__(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Return distances, shape (r, c), between sorted distinct networks (r,) and (c,)."""
        return self.distance._combine(self.distance._block(self.tables, rows, cols))

    def to(self, device: torch.device) -> "DistanceBlocks":
        """Return this, on the one device that the distance can be computed on.

        Raises:
            ValueError: Another kind of device.
        """
        if device.type != self.distance.device.type:
            raise ValueError(
                f"the executor solves on {device.type!r}, and {type(self.distance).__name__} is"
                f" computed on {self.distance.device.type!r} alone (leave the device out)"
            )
        return self
