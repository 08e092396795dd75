"""Cells whose wiring and operations are distributions: expectations over all wirings."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hotnas_torch.arch import ArchitectureBatch, Cell, OperationTree

__all__ = ["RelaxedCells", "WiringTable"]


@dataclass(frozen=True, slots=True)
class WiringTable:
    """All W wirings of a kind of cell with n places, whatever the operations are.

    Attributes:
        mass: Mass of every place, shape (W, n); 0 where nothing is.
        lengths: Path lengths, shape (W, n, 6); 0 where nothing is.
        reachable: Whether a path leads from one place to the other, 0 or 1, shape (W, n, n).
        apart: Mean absolute difference of path lengths where reachable, else 0, (W, n, n).
    """

    mass: Tensor
    lengths: Tensor
    reachable: Tensor
    apart: Tensor

    @classmethod
    def of(
        cls,
        cells: Sequence[Cell],
        num_places: int,
        *,
        max_nodes: int | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "WiringTable":
        """Table of cells whose inner labels are the numbers of their places.

        Args:
            cells: W cells.
            num_places: n; the input is place 0 and the output the last.
            max_nodes: As for `ArchitectureBatch`, for raw path lengths; None normalises them.
            dtype: float32 or float64.
            device: Where the table lives.
        """
        names = ["input", *map(str, range(1, num_places - 1)), "output"]
        places = OperationTree.from_matrix(names, torch.zeros(num_places, num_places))
        batch = ArchitectureBatch.from_cells(
            cells, places, max_nodes=max_nodes, device=device, dtype=dtype
        )
        # Padded nodes go to a place of their own, which is cut off.
        place = batch.labels.masked_fill(~batch.mask, num_places)
        row = torch.arange(len(cells), device=device)[:, None]
        lengths = batch.path_lengths(normalize=max_nodes is None)
        reachable = batch.reachability().to(dtype)
        apart = reachable * torch.cdist(lengths, lengths, p=1.0) / lengths.shape[-1]
        size = num_places + 1

        def spread(values: Tensor) -> Tensor:
            out = values.new_zeros(len(cells), size, *values.shape[2:])
            out[row, place] = values
            return out[:, :-1]

        def spread_pairs(values: Tensor) -> Tensor:
            out = values.new_zeros(len(cells), size, size)
            out[row[:, :, None], place[:, :, None], place[:, None, :]] = values
            return out[:, :-1, :-1]

        return cls(
            spread(batch.weights), spread(lengths), spread_pairs(reachable), spread_pairs(apart)
        )


@dataclass(frozen=True, slots=True)
class RelaxedCells:
    """A batch of B relaxed cells with n places, differentiable in their probabilities.

    Attributes:
        mass: Expected mass of every place, shape (B, n), rows sum to 1.
        labels: Probability of every operation label where something is, shape (B, n, L).
        lengths: Expected path lengths where something is, shape (B, n, 6).
        reachable: Probability that a path leads from i to k where both are, shape (B, n, n).
        apart: Expected difference of path lengths where k is reachable from i, else 0, (B, n, n).
    """

    mass: Tensor
    labels: Tensor
    lengths: Tensor
    reachable: Tensor
    apart: Tensor

    @classmethod
    def expected(cls, table: WiringTable, probability: Tensor, labels: Tensor) -> "RelaxedCells":
        """Return expectation over wirings.

        Args:
            table: The W wirings.
            probability: Of each wiring, shape (B, W).
            labels: See the class.
        """
        size = table.mass.shape[1]
        present = (table.mass > 0).to(probability)
        together = (present[:, :, None] * present[:, None, :]).flatten(1)
        tiny = torch.finfo(probability.dtype).tiny
        some = (probability @ present).clamp_min(tiny)
        both = (probability @ together).clamp_min(tiny)

        def of_pairs(values: Tensor) -> Tensor:
            return (probability @ values.flatten(1) / both).reshape(-1, size, size)

        lengths = (probability @ table.lengths.flatten(1)).reshape(-1, size, 6)
        return cls(
            mass=probability @ table.mass,
            labels=labels,
            lengths=lengths / some[:, :, None],
            reachable=of_pairs(table.reachable),
            apart=of_pairs(table.apart),
        )
