"""What a sum of operation costs changes by with the lengths and weights of the tree."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hotnas_torch.arch import OperationTree
from hotnas_torch.arch.number_costs import number_difference

__all__ = ["CostSlopes"]


class CostSlopes:
    """Derivatives of sums of operation costs, which are linear in the tree's lengths and weights.

    Args:
        tree: Operation tree, whose labels are numbered by their rows.
        dtype: Type of the derivatives.
        device: Where they are computed.

    Attributes:
        num_coefficients: Number E of lengths and weights.

    Complexity: memory O(K^2 E) for K kinds, whatever the number of labels.
    """

    def __init__(self, tree: OperationTree, dtype: torch.dtype, device: torch.device) -> None:
        units = torch.eye(len(tree.edges), dtype=dtype)
        between = [tree.with_lengths(unit).distance_matrix(tree.kinds) for unit in units]
        # Which lengths add up to the cost between two kinds, (K^2, number of lengths).
        self._paths = torch.stack(between, dim=-1).flatten(0, 1).to(device)
        kinds, numbers = tree.kinds_and_numbers()
        self._kinds = one_hot(kinds, len(tree.kinds)).to(device, dtype)
        self._numbers = numbers.to(device)
        self.num_coefficients = self._paths.shape[1] + numbers.shape[1]

    def of(self, amount: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return derivatives of sum_ij amount_ij D(x_i, y_j).

        Args:
            amount: Shape (P, n, m).
            x: Numbers of labels, (P, n) int64.
            y: Numbers of labels, (P, m) int64.

        Returns:
            Shape (P, E): in the lengths, then in the weights.
        """
        exchanged = self._kinds[x].mT @ amount @ self._kinds[y]
        slopes = [exchanged.flatten(1) @ self._paths]
        for numbers in self._numbers.unbind(1):
            apart = number_difference(numbers[x][:, :, None], numbers[y][:, None])
            slopes.append((amount * apart.to(amount.dtype)).sum((1, 2))[:, None])
        return torch.cat(slopes, dim=1)
