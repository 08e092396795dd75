"""Blocks of MobileNetV2, with squeeze and excitation where it is asked for."""

import torch
from torch import Tensor, nn

from hotnas_torch.nn.supernets.single_path import Normalize

__all__ = ["InvertedResidual", "projection"]

_SQUEEZE = 4


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and linear projection, beside a shortcut where shapes match.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        kernel_size: Of the depthwise convolution, odd.
        expansion: Channels of the depthwise convolution per channel of the input; 1 leaves the
            first convolution out.
        stride: Of the depthwise convolution.
        squeeze: Whether channels are weighed by squeeze and excitation after the depthwise
            convolution; the bottleneck has a quarter of the input's channels, as in MnasNet.
        normalize: Builds normalisations.

    Reference: Sandler et al., MobileNetV2, CVPR 2018; Hu et al., Squeeze-and-Excitation Networks,
        CVPR 2018; Tan et al., MnasNet, CVPR 2019.
    """

    def __init__(
        self,
        before: int,
        after: int,
        *,
        kernel_size: int,
        expansion: int,
        stride: int,
        normalize: Normalize,
        squeeze: bool = False,
    ) -> None:
        super().__init__()
        hidden = before * expansion
        parts: list[nn.Module] = []
        if expansion > 1:
            parts += [nn.Conv2d(before, hidden, 1, bias=False), normalize(hidden), nn.ReLU()]
        parts += [
            nn.Conv2d(
                hidden,
                hidden,
                kernel_size,
                stride=stride,
                padding=kernel_size // 2,
                groups=hidden,
                bias=False,
            ),
            normalize(hidden),
            nn.ReLU(),
        ]
        if squeeze:
            parts.append(_SqueezeExcitation(hidden, max(1, before // _SQUEEZE)))
        parts += [nn.Conv2d(hidden, after, 1, bias=False), normalize(after)]
        self.body = nn.Sequential(*parts)
        self._matches = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, before, H, W) to (N, after, H / stride, W / stride), rounded up."""
        result: Tensor = self.body(x)
        return x + result if self._matches else result


class _SqueezeExcitation(nn.Module):
    """Multiplies channels by a gate that sees the mean of each."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.gate(x)
        return torch.mul(x, gate)


def projection(before: int, after: int, stride: int, normalize: Normalize) -> nn.Module:
    """Build the identity, or where it has to change shape, a 1 x 1 convolution.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        stride: Of the convolution.
        normalize: Builds normalisations.
    """
    if stride == 1 and before == after:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), normalize(after))
