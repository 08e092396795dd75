"""Torch modules of NAS-Bench-201 architectures in a skeleton of any size."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, kind, random_generator
from hotnas_torch.nn.initialization import build
from hotnas_torch.spaces import NASBench201

__all__ = ["CellModule", "NASBench201Module", "ResidualBlock", "Skeleton", "skeleton_parts"]

NUM_MAPS = 4
# The six searched edges, in the order of the official string.
EDGES = tuple((source, target) for target in range(1, NUM_MAPS) for source in range(target))
_NONE = "none"
_SKIP = "skip_connect"


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The part of a NAS-Bench-201 network that is not searched.

    A 3 x 3 convolution, stages of repeated cells, a residual block with stride 2 that doubles the
    channels between two stages, then normalisation, global average pooling and a linear layer.

    Args:
        channels: Channels of the first stage, >= 1; they double from stage to stage.
        num_stages: Stages, >= 1.
        cells_per_stage: Cells in each stage, >= 1.
        input_channels: Channels of an image, >= 1.
        num_classes: Outputs, >= 2.

    Raises:
        TypeError: An argument is not an int.
        ValueError: An argument is too small.

    Reference: Dong and Yang, NAS-Bench-201, ICLR 2020, Fig. 1; the defaults are the published ones.
    """

    channels: int = 16
    num_stages: int = 3
    cells_per_stage: int = 5
    input_channels: int = 3
    num_classes: int = 10

    def __post_init__(self) -> None:
        for name, smallest in (
            ("channels", 1),
            ("num_stages", 1),
            ("cells_per_stage", 1),
            ("input_channels", 1),
            ("num_classes", 2),
        ):
            object.__setattr__(self, name, integer(name, getattr(self, name), least=smallest))


class _Convolution(nn.Sequential):
    """ReLU, convolution, batch normalisation: the order of the benchmark."""

    def __init__(self, in_channels: int, channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(
                in_channels,
                channels,
                kernel_size,
                stride=stride,
                padding=kernel_size // 2,
                bias=False,
            ),
            nn.BatchNorm2d(channels),
        )


def _operation(name: str, channels: int) -> nn.Module:
    if name == "nor_conv_1x1":
        return _Convolution(channels, channels, 1)
    if name == "nor_conv_3x3":
        return _Convolution(channels, channels, 3)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Identity()


class CellModule(nn.Module):
    """A cell: four feature maps, each the sum of its predecessors' after an operation.

    A map that no operation enters is zero, and is still the input of others, as in the benchmark.
    What leads to no output is not computed.

    Args:
        operations: Six operation names in the order of the official string.
        channels: Channels of all maps.
    """

    def __init__(self, operations: tuple[str, ...], channels: int) -> None:
        super().__init__()
        self.operations = nn.ModuleList([_operation(name, channels) for name in operations])
        used = {NUM_MAPS - 1}
        for (source, target), name in reversed(list(zip(EDGES, operations, strict=True))):
            if target in used and name != _NONE:
                used.add(source)
        self._entering: list[list[tuple[int, int]]] = [
            [
                (place, source)
                for place, (source, end) in enumerate(EDGES)
                if end == target and operations[place] != _NONE and target in used
            ]
            for target in range(NUM_MAPS)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape."""
        maps = [x]
        for target in range(1, NUM_MAPS):
            entering = self._entering[target]
            if not entering:
                maps.append(torch.zeros_like(x))
                continue
            place, source = entering[0]
            total = self.operations[place](maps[source])
            for place, source in entering[1:]:
                total = total + self.operations[place](maps[source])
            maps.append(total)
        return maps[-1]


class ResidualBlock(nn.Module):
    """Two convolutions, the first of stride 2, beside a pooling and a 1 x 1 convolution.

    Args:
        in_channels: Channels of what enters.
        channels: Channels of what leaves.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _Convolution(in_channels, channels, 3, stride=2), _Convolution(channels, channels, 3)
        )
        self.shortcut = nn.Sequential(
            # Rounded up, so that maps of one pixel pass, too.
            nn.AvgPool2d(2, stride=2, ceil_mode=True),
            nn.Conv2d(in_channels, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H / 2, W / 2), rounded up."""
        result: Tensor = self.shortcut(x) + self.body(x)
        return result


class NASBench201Module(nn.Module):
    """The torch module of a NAS-Bench-201 architecture.

    Args:
        net: A network of `NASBench201`; only its official string
            counts, the skeleton comes from `skeleton`.
        skeleton: Everything that is not searched.
        generator: Source of the initial parameters, on the CPU. Two modules of the same network
            from equally seeded generators are equal on every device.
        device: Where the module lives.

    Raises:
        TypeError: `net` is not a Network, or `generator` not a generator.
        ArchitectureError: `net` has no NAS-Bench-201 string.

    Example:
        >>> import hotnas_torch as ht
        >>> net = ht.spaces.NASBench201().from_string(
        ...     "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
        ... )
        >>> module = NASBench201Module(
        ...     net,
        ...     Skeleton(channels=4, num_stages=2, cells_per_stage=1, input_channels=1),
        ...     generator=torch.Generator().manual_seed(0),
        ... )
        >>> module(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    stem: nn.Module
    stages: nn.Module
    head: nn.Module

    def __init__(
        self,
        net: Network,
        skeleton: Skeleton,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        random_generator(generator)
        operations = cell_operations(net)
        parts = build(
            lambda: nn.ModuleList(
                skeleton_parts(skeleton, lambda channels: CellModule(operations, channels))
            ),
            generator=generator,
            device=device,
        )
        self.stem, self.stages, self.head = parts

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, input_channels, H, W) to logits (N, num_classes)."""
        logits: Tensor = self.head(self.stages(self.stem(images)))
        return logits

    def num_parameters(self) -> int:
        """Return the number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters())


def skeleton_parts(skeleton: Skeleton, make_cell: Callable[[int], nn.Module]) -> list[nn.Module]:
    """Build stem, stages and head.

    Args:
        skeleton: Their sizes.
        make_cell: Builds a cell from its number of channels.
    """
    channels = skeleton.channels
    stem = nn.Sequential(
        nn.Conv2d(skeleton.input_channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )
    stages: list[nn.Module] = []
    for stage in range(skeleton.num_stages):
        if stage > 0:
            stages.append(ResidualBlock(channels, 2 * channels))
            channels *= 2
        stages += [make_cell(channels) for _ in range(skeleton.cells_per_stage)]
    head = nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, skeleton.num_classes),
    )
    return [stem, nn.Sequential(*stages), head]


# The strings of the space are what counts; its options change the graph, not what is computed.
_SPACE = NASBench201()


def cell_operations(net: Network) -> tuple[str, ...]:
    """Return the six operations of a NAS-Bench-201 network, in the order of its string.

    Raises:
        TypeError: `net` is not a Network.
        ArchitectureError: It has no NAS-Bench-201 string.
    """
    kind("net", net, Network)
    row = _SPACE.encode([_SPACE.from_string(net.spec)])[0]
    return tuple(_SPACE.operations[int(place)] for place in row.tolist())
