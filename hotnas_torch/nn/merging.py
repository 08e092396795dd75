"""How tensors that enter a node become one: weighted sum, attention sum, concatenation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["AttentionSum", "Concatenation", "WeightedSum", "pool_to"]

_EPSILON = 1e-5


class WeightedSum(nn.Module):
    r"""Sum of tensors of one shape with learnt weights, :math:`\sum_i \sigma(w_i) x_i`, w = 1.

    Args:
        num_inputs: Number of tensors, >= 1.
    """

    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(num_inputs))

    def reset_parameters(self) -> None:
        """Set all weights to 1."""
        nn.init.ones_(self.weights)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Map tensors (N, C, H, W) to one of that shape."""
        stacked = torch.stack(tuple(inputs))
        # One product of a vector and a matrix instead of two operations per tensor.
        total = self.weights.sigmoid() @ stacked.flatten(start_dim=1)
        return total.view(stacked.shape[1:])


class AttentionSum(nn.Module):
    """Sum of all tensors but the first, masked by the first.

    The mask is the first tensor, shifted and scaled to [0, 1] for each image.
    """

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Map two or more tensors (N, C, H, W) to one of that shape."""
        first, *rest = inputs
        low, high = (
            extreme(first, dim=(1, 2, 3), keepdim=True) for extreme in (torch.amin, torch.amax)
        )
        mask = (first - low) / (high - low + _EPSILON)
        total = rest[0]
        for tensor in rest[1:]:
            total = total + tensor
        return mask * total


class Concatenation(nn.Module):
    """Concatenates channels and maps them to `channels` by a 1 x 1 convolution.

    Args:
        in_channels: Channels of each tensor.
        channels: Channels of the result.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(sum(in_channels), channels, 1, bias=False)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Map tensors (N, C_i, H, W) to (N, channels, H, W)."""
        result: Tensor = self.projection(torch.cat(tuple(inputs), dim=1))
        return result


def pool_to(x: Tensor, size: tuple[int, int]) -> Tensor:
    r"""Average (N, C, H, W) down to (N, C, \*size); one of that size is returned as it is."""
    height, width = x.shape[2:]
    if (height, width) == size:
        return x
    if height % size[0] == 0 and width % size[1] == 0:
        # As adaptive pooling, whose gradient on a GPU depends on the order of additions.
        return functional.avg_pool2d(x, (height // size[0], width // size[1]))
    return functional.adaptive_avg_pool2d(x, size)
