"""Parts of networks that are there while they are trained: dropped paths, auxiliary towers."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["AuxiliaryHead", "DropPath", "drop_paths"]

_HIDDEN = 128
_LAST = 768
_SIDE = 2
_POOLED, _STRIDE = 5, 3


class DropPath(nn.Module):
    """Leaves an operation out, image by image, while a network is trained.

    What stays is divided by its probability. Whoever trains sets `rate` and `generator`; without
    them nothing is dropped.

    Attributes:
        rate: Probability that an image's result is left out, in [0, 1).
        generator: Source of randomness, on the CPU.

    Reference: Larsson, Maire and Shakhnarovich, FractalNet, ICLR 2017.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rate = 0.0
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        if not self.training or self.rate == 0.0 or self.generator is None:
            return x
        kept = torch.rand(len(x), generator=self.generator) >= self.rate
        return x * (kept.to(x) / (1.0 - self.rate))[:, None, None, None]


def drop_paths(model: nn.Module) -> list[DropPath]:
    """Return the parts of a network that can leave an operation out."""
    return [part for part in model.modules() if isinstance(part, DropPath)]


class AuxiliaryHead(nn.Module):
    """A small classifier on a feature map in the middle, which is there for its gradient.

    Args:
        channels: Channels of the map.
        num_classes: Outputs.

    Reference: Liu, Simonyan and Yang, DARTS, ICLR 2019. Theirs takes maps of 8 x 8; of larger or
        smaller ones, what the pooling leaves is pooled to 2 x 2.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, _HIDDEN, 1, bias=False),
            nn.BatchNorm2d(_HIDDEN),
            nn.ReLU(),
            nn.Conv2d(_HIDDEN, _LAST, _SIDE, bias=False),
            nn.BatchNorm2d(_LAST),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(_LAST, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to logits (N, num_classes)."""
        x = x.relu()
        if min(x.shape[2:]) >= _POOLED + _STRIDE:
            x = functional.avg_pool2d(x, _POOLED, _STRIDE, count_include_pad=False)
        logits: Tensor = self.body(functional.adaptive_avg_pool2d(x, _SIDE))
        return logits
