"""Couplings behind a matrix of HOTNN distances, held while parameters change."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from hotnas_torch.distances._tables.envelope import HeldCells, HeldNetworks

if TYPE_CHECKING:
    from hotnas_torch.distances.hotnn import HOTNN

__all__ = ["HeldCouplings"]


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

    def distances(self, metric: "HOTNN") -> Tensor:
        """Return the distances for the parameters of a metric, differentiable in them.

        Args:
            metric: The metric that found the couplings, or one that differs from it in lam, eps,
                eta, zeta, `unreachable` and the lengths of the tree only.

        Returns:
            Shape (A, B). Exact at the parameters for which the couplings were found, and right to
            first order around them.
        """
        return self.evaluate(metric.ifgw.coefficients(), metric.shares())

    def evaluate(self, coefficients: Tensor, shares: Tensor) -> Tensor:
        """Return distances for `IFGW.coefficients` and `HOTNN.shares` of a metric, shape (A, B)."""
        inside = self.cells.distances(coefficients)
        return self.networks.distances(inside, shares)[self.rows, self.cols]
