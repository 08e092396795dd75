"""The supernet of ResNet-20's pooling positions."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from hotnas_torch.arch import Network
from hotnas_torch.nn.supernets.single_path import (
    ChoiceLayer,
    Normalization,
    Normalize,
    SinglePathSupernet,
)
from hotnas_torch.nn.supernets.widths import check_sizes, scaled
from hotnas_torch.spaces import Pooling

__all__ = ["PoolingSupernet"]

_STAGE_CHANNELS = (16, 32, 64)
_BLOCKS_PER_STAGE = 3
_KEEP, _POOL = 0, 1


class PoolingSupernet(SinglePathSupernet):
    """ResNet-20 with two poolings anywhere: a convolution and nine residual blocks.

    Each block is the same with and without the 2x2 max-pooling before it, so that all 36 networks
    share all weights. Channels are fixed, 16, 32 and 64 times `width`.

    Args:
        width: Multiplies all numbers of channels, > 0.
        input_channels: Channels of an image, >= 1.
        num_classes: Outputs, >= 2.
        only: The only network that is wanted; None holds all.
        normalization: `"batch"` or `"running"`; None takes the former without `only` and the
            latter with it, see `SinglePathSupernet`.
        generator: Source of the initial parameters, on the CPU.
        device: Where the module lives.

    Raises:
        ValueError: A size out of range.
        ArchitectureError: `only` is not of `Pooling`.

    Reference: Roshtkhari, Toews and Pedersoli, Balanced Mixture of Supernets for Learning the CNN
        Pooling Architecture, AutoML 2023.

    Example:
        >>> supernet = PoolingSupernet(
        ...     width=0.25, input_channels=1, generator=torch.Generator().manual_seed(0)
        ... )
        >>> images = torch.zeros(2, 1, 8, 8)
        >>> supernet(images, supernet.space.from_string("[7,1,2]")).shape
        torch.Size([2, 10])
        >>> supernet.outputs(images, list(supernet.space)).shape
        torch.Size([36, 2, 10])
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        input_channels: int = 3,
        num_classes: int = 10,
        only: Network | None = None,
        normalization: Normalization | None = None,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        check_sizes(width, input_channels, num_classes)
        widths = [scaled(channels, width) for channels in _STAGE_CHANNELS]
        # The stem stands for the first of ten layers.
        channels = [widths[0], *(size for size in widths for _ in range(_BLOCKS_PER_STAGE))]

        def make(
            choices: Sequence[Sequence[int]], normalize: Normalize
        ) -> tuple[nn.Module, list[ChoiceLayer], nn.Module]:
            del choices  # all choices of a block share its weights
            stem = nn.Sequential(
                _convolution(input_channels, channels[0]), normalize(channels[0]), nn.ReLU()
            )
            blocks: list[ChoiceLayer] = [
                _PooledBlock(_ResidualBlock(before, after, normalize))
                for before, after in pairwise(channels)
            ]
            head = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes)
            )
            return stem, blocks, head

        super().__init__(
            Pooling(),
            [_PooledBlock.num_choices] * (len(channels) - 1),
            input_channels,
            num_classes,
            make,
            only=only,
            normalization=normalization,
            generator=generator,
            device=device,
        )

    def _paths_of(self, codes: Tensor) -> Tensor:
        blocks = torch.arange(1, sum(_BLOCKS_PER_STAGE for _ in _STAGE_CHANNELS) + 1)
        first, second = codes[:, 0], codes[:, 0] + codes[:, 1]
        pooled = (blocks == first[:, None]) | (blocks == second[:, None])
        return torch.where(pooled, _POOL, _KEEP)


class _PooledBlock(ChoiceLayer):
    """A residual block, at choice 1 behind a pooling."""

    num_choices = 2

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        # Rounded up, so that maps of one pixel pass, too.
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.block = block

    def parts(self, choice: int) -> Iterable[nn.Module]:
        return (self.pool, self.block) if choice == _POOL else (self.block,)


class _ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, projected where the width changes."""

    def __init__(self, before: int, after: int, normalize: Normalize) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(before, after),
            normalize(after),
            nn.ReLU(),
            _convolution(after, after),
            normalize(after),
        )
        self.shortcut: nn.Module = nn.Identity()
        if before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, bias=False), normalize(after))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _convolution(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, bias=False)
