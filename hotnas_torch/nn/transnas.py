"""Torch modules of TransNAS-Bench-101's macro networks."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from hotnas_torch.arch import Network
from hotnas_torch.nn.initialization import build
from hotnas_torch.nn.regularizing import DropPath
from hotnas_torch.nn.supernets.widths import check_sizes, scaled
from hotnas_torch.spaces import TransNASMacro

__all__ = ["TransNASMacroModule"]


class TransNASMacroModule(nn.Module):
    """A classifier of TransNAS-Bench-101's macro space: residual modules that widen and halve.

    Two 3 x 3 convolutions with stride 2, then a module of two basic blocks per digit of the string
    (ReLU, 3 x 3 convolution, normalisation, twice, beside a shortcut, which is a 1 x 1 convolution
    where the shape changes), global average pooling and a linear layer.

    Args:
        net: A network of `space`.
        width: Multiplies all numbers of channels, > 0.
        input_channels: Channels of an image, >= 1.
        num_classes: Outputs, >= 2.
        generator: Source of the initial parameters, on the CPU.
        space: The space of `net`; None takes `TransNASMacro()`.
        device: Where the module lives.

    Raises:
        ArchitectureError: `net` is not of the space.
        ValueError: A size out of range.

    Reference: Duan et al., TransNAS-Bench-101, CVPR 2021. The heads of its other tasks are not
        here.

    Example:
        >>> net = TransNASMacro().from_string("64-1234-basic")
        >>> module = TransNASMacroModule(
        ...     net, width=0.125, generator=torch.Generator().manual_seed(0)
        ... )
        >>> module(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        net: Network,
        *,
        width: float = 1.0,
        input_channels: int = 3,
        num_classes: int = 10,
        generator: torch.Generator,
        space: TransNASMacro | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        check_sizes(width, input_channels, num_classes)
        own = TransNASMacro() if space is None else space
        net = own.decode(own.encode([net]))[0]
        channels = [scaled(size, width) for size in (net.input_channels, *net.channels)]
        halvings = [after // before for before, after in pairwise((1, *net.downsampling))]

        def make() -> nn.Module:
            first = max(channels[0] // 2, 1)
            parts: list[nn.Module] = [
                _convolution(input_channels, first, 2),
                nn.ReLU(),
                _convolution(first, channels[0], 2),
            ]
            for (before, after), stride in zip(pairwise(channels), halvings, strict=True):
                parts += [_BasicBlock(before, after, stride), _BasicBlock(after, after, 1)]
            head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes)]
            return nn.Sequential(*parts, *head)

        self.body = build(make, generator=generator, device=device)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, input_channels, H, W) to logits (N, num_classes)."""
        logits: Tensor = self.body(images)
        return logits


class _BasicBlock(nn.Module):
    """Two convolutions beside a shortcut; all that changes, changes in the first."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReLU(), _convolution(before, after, stride), nn.ReLU(), _convolution(after, after, 1)
        )
        self.drop_path = DropPath()
        self.shortcut: nn.Module = nn.Identity()
        if before != after or stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.shortcut(x) + self.drop_path(self.body(x))
        return result


def _convolution(before: int, after: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(after)
    )
