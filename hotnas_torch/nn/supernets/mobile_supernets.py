"""Supernets of MobileNetV2 blocks: NAS-Bench-Macro, and the larger space for ImageNet."""

from collections.abc import Sequence

import torch
from torch import nn

from hotnas_torch.arch import Network
from hotnas_torch.nn.supernets.inverted_residual import InvertedResidual, projection
from hotnas_torch.nn.supernets.single_path import (
    Alternatives,
    ChoiceLayer,
    Normalization,
    Normalize,
    SinglePathSupernet,
)
from hotnas_torch.nn.supernets.widths import check_sizes, scaled
from hotnas_torch.spaces import MobileNetV2, NASBenchMacro
from hotnas_torch.spaces.mobilenet_v2 import STAGES as MOBILE_STAGES
from hotnas_torch.spaces.nasbench_macro import STAGES as MACRO_STAGES

__all__ = ["MacroSupernet", "MobileNetSupernet"]

_HEAD_CHANNELS = 1280
_MACRO_STEM = 32
_MOBILE_STEM = 32
_MOBILE_FIRST = 16

_Block = tuple[int, int, bool]
"""Kernel size, expansion, and whether there is squeeze and excitation."""


class MacroSupernet(SinglePathSupernet):
    """All networks of NAS-Bench-Macro: eight layers, each identity or one of two blocks.

    A 3x3 convolution with 32 channels, stages of 2, 3 and 3 layers with 64, 128 and 256, the first
    layer of each with stride 2, then a 1x1 convolution with 1,280, average pooling and a linear
    layer; all channels times `width`. Where the identity has to change shape it is a 1x1
    convolution with normalisation.

    Args:
        width: Multiplies all numbers of channels, > 0.
        input_channels: Channels of an image, >= 1.
        num_classes: Outputs, >= 2.
        only: The only network that is wanted; None holds all.
        normalization: `"batch"` or `"running"`; None takes the former without `only` and the
            latter, the benchmark's, with it.
        generator: Source of the initial parameters, on the CPU.
        device: Where the module lives.

    Raises:
        ValueError: A size out of range.
        ArchitectureError: `only` is not of `NASBenchMacro`.

    Reference: Su et al., Prioritized Architecture Sampling with Monto-Carlo Tree Search, CVPR 2021.

    Example:
        >>> space = NASBenchMacro()
        >>> network = MacroSupernet(
        ...     width=0.25,
        ...     only=space.from_string("02102200"),
        ...     generator=torch.Generator().manual_seed(0),
        ... )
        >>> network(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
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
        space = NASBenchMacro()
        stem_channels = scaled(_MACRO_STEM, width)
        shapes = _layer_shapes(stem_channels, MACRO_STAGES, width)

        def make(
            choices: Sequence[Sequence[int]], normalize: Normalize
        ) -> tuple[nn.Module, list[ChoiceLayer], nn.Module]:
            stem = _stem(input_channels, stem_channels, 1, normalize)
            layers = _layers(shapes, choices, _blocks(space.operations), normalize)
            head = _head(shapes[-1][1], scaled(_HEAD_CHANNELS, width), num_classes, normalize)
            return stem, layers, head

        super().__init__(
            space,
            [len(space.operations)] * len(shapes),
            input_channels,
            num_classes,
            make,
            only=only,
            normalization=normalization,
            generator=generator,
            device=device,
        )


class MobileNetSupernet(SinglePathSupernet):
    """All networks of `MobileNetV2`: 21 layers of 13 operations.

    A 3x3 convolution with 32 channels and stride 2, a block with 16 channels that is not expanded,
    six stages of searched layers, then a 1x1 convolution with 1,280, average pooling and a linear
    layer; all channels times `width`.

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
        ArchitectureError: `only` is not of `MobileNetV2`.

    Reference: the space's.

    Example:
        >>> supernet = MobileNetSupernet(width=0.125, generator=torch.Generator().manual_seed(0))
        >>> net = supernet.space.from_string("c" * 21)
        >>> supernet(torch.zeros(2, 3, 64, 64), net).shape
        torch.Size([2, 1000])
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        input_channels: int = 3,
        num_classes: int = 1000,
        only: Network | None = None,
        normalization: Normalization | None = None,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        check_sizes(width, input_channels, num_classes)
        space = MobileNetV2()
        stem_channels, first = scaled(_MOBILE_STEM, width), scaled(_MOBILE_FIRST, width)
        shapes = _layer_shapes(first, MOBILE_STAGES, width)

        def make(
            choices: Sequence[Sequence[int]], normalize: Normalize
        ) -> tuple[nn.Module, list[ChoiceLayer], nn.Module]:
            stem = nn.Sequential(
                _stem(input_channels, stem_channels, 2, normalize),
                InvertedResidual(
                    stem_channels,
                    first,
                    kernel_size=3,
                    expansion=1,
                    stride=1,
                    normalize=normalize,
                ),
            )
            layers = _layers(shapes, choices, _blocks(space.operations), normalize)
            head = _head(shapes[-1][1], scaled(_HEAD_CHANNELS, width), num_classes, normalize)
            return stem, layers, head

        super().__init__(
            space,
            [len(space.operations)] * len(shapes),
            input_channels,
            num_classes,
            make,
            only=only,
            normalization=normalization,
            generator=generator,
            device=device,
        )


def _blocks(operations: Sequence[str]) -> list[_Block | None]:
    """Read names such as `mb6_k5_se`; None is the identity."""
    blocks: list[_Block | None] = []
    for name in operations:
        if name == "identity":
            blocks.append(None)
            continue
        expansion, kernel, *rest = name.split("_")
        blocks.append((int(kernel[1:]), int(expansion[2:]), bool(rest)))
    return blocks


def _layer_shapes(
    before: int, stages: Sequence[tuple[int, int, int]], width: float
) -> list[tuple[int, int, int]]:
    """Return channels before and after each layer and its stride."""
    shapes = []
    for length, channels, stride in stages:
        for place in range(length):
            after = scaled(channels, width)
            shapes.append((before, after, stride if place == 0 else 1))
            before = after
    return shapes


def _stem(before: int, after: int, stride: int, normalize: Normalize) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
        normalize(after),
        nn.ReLU(),
    )


def _layers(
    shapes: Sequence[tuple[int, int, int]],
    choices: Sequence[Sequence[int]],
    blocks: Sequence[_Block | None],
    normalize: Normalize,
) -> list[ChoiceLayer]:
    def layer(before: int, after: int, stride: int, offered: Sequence[int]) -> ChoiceLayer:
        def operation(choice: int) -> nn.Module:
            block = blocks[choice]
            if block is None:
                return projection(before, after, stride, normalize)
            kernel_size, expansion, squeeze = block
            return InvertedResidual(
                before,
                after,
                kernel_size=kernel_size,
                expansion=expansion,
                stride=stride,
                squeeze=squeeze,
                normalize=normalize,
            )

        return Alternatives(operation, len(blocks), offered)

    return [layer(*shape, offered) for shape, offered in zip(shapes, choices, strict=True)]


def _head(before: int, channels: int, num_classes: int, normalize: Normalize) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, channels, 1, bias=False),
        normalize(channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, num_classes),
    )
