"""Weighted sums of operations: what an edge of a supernet computes."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from hotnas_torch.arch import Network
from hotnas_torch.spaces import SearchSpace

__all__ = ["MixedOperation", "Supernet"]


class MixedOperation(nn.Module):
    r"""The expectation of an operation drawn by its probability, :math:`\sum_i p_i o_i(x)`.

    Args:
        operations: One module per operation, None for the one whose result is zero. All results
            have the same shape.

    Raises:
        ValueError: There is no operation but zero.
    """

    def __init__(self, operations: Sequence[nn.Module | None]) -> None:
        super().__init__()
        self._places = [place for place, one in enumerate(operations) if one is not None]
        if not self._places:
            raise ValueError("operations must hold at least one module")
        self.operations = nn.ModuleList([one for one in operations if one is not None])

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Map (N, C, H, W) and weights (k,) to the weighted sum."""
        terms = [
            weights[place] * operation(x)
            for place, operation in zip(self._places, self.operations, strict=True)
        ]
        return torch.stack(terms).sum(dim=0) if len(terms) > 1 else terms[0]


class Supernet(Protocol):
    """A network that holds all networks of a space, its edges mixing all operations.

    Attributes:
        space: The space.
        operations: Names of the k operations that are mixed.
        num_cells: Cells that are searched, each with weights of its own.
        num_edges: Edges of a cell.
    """

    space: SearchSpace
    operations: tuple[str, ...]
    num_cells: int
    num_edges: int

    def __call__(self, images: Tensor, weights: Tensor) -> Tensor:
        """Map images (N, C, H, W) and weights (num_cells, num_edges, k) to logits."""
        ...

    def parameters(self) -> object:
        """Return the weights of the operations."""
        ...

    def discretize(self, weights: Tensor) -> Network:
        """Return the network of the largest weights, (num_cells, num_edges, k)."""
        ...

    def weights_of(self, net: Network) -> Tensor:
        """Return weights, (num_cells, num_edges, k), that leave only a network: ones and zeros."""
        ...
