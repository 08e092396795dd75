"""The supernet of NAS-Bench-201."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hotnas_torch.arch import Network
from hotnas_torch.nn.initialization import build
from hotnas_torch.nn.nasbench201 import EDGES, NUM_MAPS, Skeleton, skeleton_parts
from hotnas_torch.nn.supernets.mixed import MixedOperation
from hotnas_torch.spaces import NASBench201

__all__ = ["NASBench201Supernet"]

_NONE = "none"
_SEARCHED = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


class NASBench201Supernet(nn.Module):
    """All NAS-Bench-201 networks in one: each edge of a cell mixes all operations.

    Normalisations have no scale and shift of their own, as in DARTS: the weights of the operations
    are to tell how much each counts.

    Args:
        skeleton: Everything that is not searched.
        generator: Source of the initial parameters, on the CPU.
        operations: Which operations to mix; the default leaves `none` out, as GAEA does.
        device: Where the module lives.

    Raises:
        ValueError: An operation is unknown or named twice, or there is none but `none`.

    Reference: Dong and Yang, NAS-Bench-201, ICLR 2020; Li et al., GAEA, ICLR 2021.

    Example:
        >>> supernet = NASBench201Supernet(
        ...     Skeleton(channels=4, num_stages=2, cells_per_stage=1, input_channels=1),
        ...     generator=torch.Generator().manual_seed(0),
        ... )
        >>> weights = torch.full((1, 6, 4), 0.25)
        >>> supernet(torch.zeros(2, 1, 8, 8), weights).shape
        torch.Size([2, 10])
    """

    num_cells = 1
    num_edges = len(EDGES)
    stem: nn.Module
    stages: nn.Module
    head: nn.Module

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        generator: torch.Generator,
        operations: Sequence[str] = _SEARCHED,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.space = NASBench201()
        self.operations = tuple(operations)
        if len(set(operations)) != len(self.operations) or set(operations) <= {_NONE}:
            raise ValueError(
                f"operations must be distinct and not 'none' alone; got {self.operations}"
            )
        for name in self.operations:
            if name not in self.space.operations:
                raise ValueError(
                    f"operations must be among {', '.join(self.space.operations)}; got {name!r}"
                )
        parts = build(
            lambda: nn.ModuleList(
                skeleton_parts(skeleton, lambda channels: _MixedCell(self.operations, channels))
            ),
            generator=generator,
            device=device,
        )
        self.stem, self.stages, self.head = parts

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        """Map images (N, input_channels, H, W) and weights (1, 6, k) to logits."""
        x = self.stem(images)
        assert isinstance(self.stages, nn.Sequential)
        for stage in self.stages:
            x = stage(x, weights[0]) if isinstance(stage, _MixedCell) else stage(x)
        logits: Tensor = self.head(x)
        return logits

    def discretize(self, weights: Tensor) -> Network:
        """Return the network of each edge's operation with the largest weight."""
        row = [
            self.space.operations.index(self.operations[place])
            for place in weights[0].argmax(dim=-1).tolist()
        ]
        return self.space.decode(torch.tensor([row]))[0]

    def weights_of(self, net: Network) -> Tensor:
        """Return weights, (1, 6, k), that leave only a network: ones and zeros."""
        weights = torch.zeros(1, self.num_edges, len(self.operations))
        for edge, number in enumerate(self.space.encode([net])[0].long().tolist()):
            name = self.space.operations[number]
            if name in self.operations:
                weights[0, edge, self.operations.index(name)] = 1.0
        return weights


class _MixedCell(nn.Module):
    """Four feature maps, each the sum of mixed operations on all earlier ones."""

    def __init__(self, operations: tuple[str, ...], channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(
            [MixedOperation([_operation(name, channels) for name in operations]) for _ in EDGES]
        )

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        maps = [x]
        for target in range(1, NUM_MAPS):
            entering = [
                self.edges[place](maps[source], weights[place])
                for place, (source, end) in enumerate(EDGES)
                if end == target
            ]
            maps.append(torch.stack(entering).sum(dim=0))
        return maps[-1]


def _operation(name: str, channels: int) -> nn.Module | None:
    if name == _NONE:
        return None
    if name.startswith("nor_conv"):
        size = 3 if name.endswith("3x3") else 1
        return nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, size, padding=size // 2, bias=False),
            nn.BatchNorm2d(channels, affine=False),
        )
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Identity()
