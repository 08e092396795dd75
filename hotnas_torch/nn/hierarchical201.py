"""Torch modules of networks of the hierarchical NAS-Bench-201."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hotnas_torch.arch import Cell, NestedCell, Network
from hotnas_torch.arguments import integer, kind, random_generator
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.nn.initialization import build
from hotnas_torch.nn.nasbench201 import ResidualBlock

__all__ = ["HierarchicalNASBench201Module"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "hardswish": nn.Hardswish,
    "mish": nn.Mish,
}
_CONVOLUTIONS = {"conv1x1": (1, False), "conv3x3": (3, False), "dconv3x3": (3, True)}
_NORMALISATIONS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    # One group is all channels and places of an image; weights are per channel.
    "layer": lambda channels: nn.GroupNorm(1, channels),
}


class HierarchicalNASBench201Module(nn.Module):
    """The torch module of a network of `spaces.hierarchical_nasbench201()`.

    A 3 x 3 convolution, the network, then normalisation, global average pooling and a linear layer.
    Where several tensors enter a node they are summed; a cell that leads nowhere passes zeros on.
    Layer normalisation has weights per channel, so that modules fit images of any size.

    Args:
        net: A network of the space, its convolutions labels.
        channels: Channels at the start, >= 1; a residual block doubles them.
        input_channels: Channels of an image, >= 1.
        num_classes: Outputs, >= 2.
        generator: Source of the initial parameters, on the CPU.
        device: Where the module lives.

    Raises:
        TypeError: `net` is not a Network, or `generator` not a generator.
        ValueError: A number out of range.
        ArchitectureError: `net` has an operation of another space; the message names it.

    Reference: Schrodi et al., Construction of Hierarchical Neural Architecture Search Spaces based
        on Context-free Grammars, NeurIPS 2023.

    Example:
        >>> from hotnas_torch.spaces import hierarchical_nasbench201
        >>> generator = torch.Generator().manual_seed(0)
        >>> net = hierarchical_nasbench201().sample_one(generator=generator)
        >>> module = HierarchicalNASBench201Module(
        ...     net, channels=2, input_channels=1, generator=generator
        ... )
        >>> module(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    stem: nn.Module
    body: nn.Module
    head: nn.Module

    def __init__(
        self,
        net: Network,
        *,
        channels: int = 16,
        input_channels: int = 3,
        num_classes: int = 10,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        kind("net", net, Network)
        random_generator(generator)
        sizes = {"channels": channels, "input_channels": input_channels}
        for name, value in sizes.items():
            integer(name, value, least=1)
        integer("num_classes", num_classes, least=2)
        parts = build(
            lambda: nn.ModuleList(_parts(net, channels, input_channels, num_classes)),
            generator=generator,
            device=device,
        )
        self.stem, self.body, self.head = parts

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, input_channels, H, W) to logits (N, num_classes)."""
        logits: Tensor = self.head(self.body(self.stem(images)))
        return logits

    def num_parameters(self) -> int:
        """Return the number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters())


def _parts(net: Network, channels: int, input_channels: int, num_classes: int) -> list[nn.Module]:
    stem = nn.Sequential(
        nn.Conv2d(input_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
    )
    body: list[nn.Module] = []
    for cell in net.cells:
        graph = _Graph(cell, channels)
        body.append(graph)
        channels = graph.channels
    head = nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, num_classes),
    )
    return [stem, nn.Sequential(*body), head]


class _Graph(nn.Module):
    """A cell on any level: every node reads the sum of its predecessors.

    Attributes:
        channels: Of its output.
    """

    channels: int

    def __init__(self, cell: Cell, channels: int) -> None:
        super().__init__()
        graphs = cell.graphs if isinstance(cell, NestedCell) else (None,) * cell.num_nodes
        self._predecessors = [cell.predecessors(node) for node in range(cell.num_nodes)]
        self.nodes = nn.ModuleList()
        widths = [channels]
        for node in range(1, cell.num_nodes - 1):
            width = widths[self._predecessors[node][0]]
            graph, label = graphs[node], cell.ops[node]
            made: nn.Module
            if graph is not None:
                made = _Graph(graph, width)
                width = made.channels
            elif label == "residual block":
                made = ResidualBlock(width, 2 * width)
                width *= 2
            else:
                made = _operation(label, width)
            self.nodes.append(made)
            widths.append(width)
        self.channels = widths[self._predecessors[-1][0]] if cell.edges else channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to what the output reads."""
        values = [x]
        for node, operation in enumerate(self.nodes, start=1):
            values.append(operation(self._sum(values, node)))
        return self._sum(values, -1)

    def _sum(self, values: list[Tensor], node: int) -> Tensor:
        sources = self._predecessors[node]
        if not sources:
            return torch.zeros_like(values[0])
        total = values[sources[0]]
        for source in sources[1:]:
            total = total + values[source]
        return total


def _operation(label: str, channels: int) -> nn.Module:
    if label == "id":
        return nn.Identity()
    if label == "avg_pool":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    try:
        act, convolution, norm = label.split("-")
        size, depthwise = _CONVOLUTIONS[convolution]
        return nn.Sequential(
            _ACTIVATIONS[act](),
            nn.Conv2d(
                channels,
                channels,
                size,
                padding=size // 2,
                groups=channels if depthwise else 1,
                bias=False,
            ),
            _NORMALISATIONS[norm](channels),
        )
    except (KeyError, ValueError):
        raise ArchitectureError(
            f"net must be of spaces.hierarchical_nasbench201(); it has the operation {label!r}"
        ) from None
