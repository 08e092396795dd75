# Over 400 lines: network and supernet, of the same parts.
"""Torch modules of DARTS networks, and the supernet that holds them all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from hotnas_torch.arch import Network
from hotnas_torch.arguments import boolean, integer
from hotnas_torch.nn.initialization import build
from hotnas_torch.nn.regularizing import AuxiliaryHead, DropPath
from hotnas_torch.nn.supernets.mixed import MixedOperation
from hotnas_torch.spaces import DARTS

__all__ = ["DARTSModule", "DARTSSkeleton", "DARTSSupernet"]

_NONE = "none"
_STEM_FACTOR = 3

_MakeCell = Callable[[int, int, bool], tuple[list[list[int]], list[nn.Module]]]
"""Builds, from a cell's place, channels and whether it reduces, each node's sources and all
operations."""


@dataclass(frozen=True, slots=True)
class DARTSSkeleton:
    """The part of a DARTS network that is not searched.

    Args:
        channels: Channels C of an operation before the first reduction, >= 1.
        num_cells: Cells, >= 3; those at a third and at two thirds of them reduce. None takes the
            depth that each network has; a supernet needs a number.
        input_channels: Channels of an image, >= 1.
        num_classes: Outputs, >= 2.

    Raises:
        ValueError: An argument is too small.

    Reference: Liu, Simonyan and Yang, DARTS, ICLR 2019; the defaults are those of its search.
    """

    channels: int = 16
    num_cells: int | None = 8
    input_channels: int = 3
    num_classes: int = 10

    def __post_init__(self) -> None:
        for name, smallest in (
            ("channels", 1),
            ("num_cells", 3),
            ("input_channels", 1),
            ("num_classes", 2),
        ):
            if name != "num_cells" or self.num_cells is not None:
                integer(name, getattr(self, name), least=smallest)

    @property
    def reductions(self) -> tuple[int, int]:
        """Places of the reduction cells, from 0.

        Raises:
            ValueError: The number of cells is left to the network.
        """
        if self.num_cells is None:
            raise ValueError("num_cells must be a number where no network says its depth; got None")
        return self.num_cells // 3, 2 * self.num_cells // 3


class DARTSModule(nn.Module):
    """The torch module of a DARTS network.

    Args:
        net: A network of `space`; or one per cell, whose normal or reduction cell stands at its
            place, as ANASOD draws them.
        skeleton: Everything that is not searched; its number of cells counts, where it has one, not
            the depth of `net`.
        generator: Source of the initial parameters, on the CPU.
        space: The space of `net`; None takes `DARTS()`.
        auxiliary: Whether there is an auxiliary tower behind the second reduction, for training
            with `Regularization(auxiliary=...)`.
        device: Where the module lives.

    Raises:
        ArchitectureError: A network is not of the space.
        ValueError: Another number of networks than of cells.

    Example:
        >>> from hotnas_torch.spaces import DARTS
        >>> generator = torch.Generator().manual_seed(0)
        >>> skeleton = DARTSSkeleton(channels=4, num_cells=3, input_channels=1)
        >>> module = DARTSModule(
        ...     DARTS().sample_one(generator=generator), skeleton, generator=generator
        ... )
        >>> module(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        net: Network | Sequence[Network],
        skeleton: DARTSSkeleton,
        *,
        generator: torch.Generator,
        space: DARTS | None = None,
        auxiliary: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        boolean("auxiliary", auxiliary)
        nets = [net] if isinstance(net, Network) else list(net)
        genotypes = [(DARTS() if space is None else space).to_genotype(one) for one in nets]
        if skeleton.num_cells is None and genotypes:
            depth = genotypes[0].depth if isinstance(net, Network) else len(genotypes)
            skeleton = replace(skeleton, num_cells=depth)
        num_cells = skeleton.num_cells
        if isinstance(net, Network):
            genotypes *= num_cells or 0
        if len(genotypes) != num_cells:
            raise ValueError(
                f"net must be a network, or one per cell, {num_cells}; got {len(genotypes)}"
            )

        def make(
            place: int, channels: int, reduces: bool
        ) -> tuple[list[list[int]], list[nn.Module]]:
            genotype = genotypes[place]
            pairs = genotype.reduce if reduces else genotype.normal
            sources = [source for _, source in pairs]
            operations = [
                _operation(name, channels, _stride(source, reduces), affine=True)
                for name, source in pairs
            ]
            return [sources[i : i + 2] for i in range(0, len(sources), 2)], [
                operation for operation in operations if operation is not None
            ]

        self.body = build(
            lambda: _Body(skeleton, make, auxiliary=auxiliary), generator=generator, device=device
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, input_channels, H, W) to logits (N, num_classes)."""
        logits: Tensor = self.body(images, None)
        return logits

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits, and those of the auxiliary tower.

        Raises:
            ValueError: There is none.
        """
        if self.body.auxiliary is None:
            raise ValueError("the network has no auxiliary tower (build it with auxiliary=True)")
        logits, middle = self.body.both(images)
        return logits, self.body.auxiliary(middle)


class DARTSSupernet(nn.Module):
    """All DARTS networks in one: every edge from every earlier node mixes all operations.

    Args:
        skeleton: Everything that is not searched.
        generator: Source of the initial parameters, on the CPU.
        space: Inner nodes and operations; None takes `DARTS()`.
        none: Whether `none` is mixed in, too, as in DARTS; it is in no network.
        device: Where the module lives.

    Attributes:
        num_edges: 14 for four inner nodes.

    Reference: Liu, Simonyan and Yang, DARTS: Differentiable Architecture Search, ICLR 2019.

    Example:
        >>> skeleton = DARTSSkeleton(channels=2, num_cells=3, input_channels=1)
        >>> supernet = DARTSSupernet(skeleton, generator=torch.Generator().manual_seed(0))
        >>> supernet.num_edges, len(supernet.operations)
        (14, 8)
        >>> supernet(torch.zeros(2, 1, 8, 8), torch.full((2, 14, 8), 0.125)).shape
        torch.Size([2, 10])
    """

    num_cells = 2

    def __init__(
        self,
        skeleton: DARTSSkeleton,
        *,
        generator: torch.Generator,
        space: DARTS | None = None,
        none: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.space = DARTS() if space is None else space
        self.operations = (*((_NONE,) if none else ()), *self.space.operations)
        self._sources = [list(range(2 + node)) for node in range(self.space.num_nodes)]
        self.num_edges = sum(map(len, self._sources))

        def make(
            place: int, channels: int, reduces: bool
        ) -> tuple[list[list[int]], list[nn.Module]]:
            del place
            return self._sources, [
                MixedOperation(
                    [
                        _operation(name, channels, _stride(source, reduces), affine=False)
                        for name in self.operations
                    ]
                )
                for sources in self._sources
                for source in sources
            ]

        self.body = build(lambda: _Body(skeleton, make), generator=generator, device=device)

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        """Map images and weights (2, num_edges, k), normal cell first, to logits."""
        logits: Tensor = self.body(images, weights)
        return logits

    def discretize(self, weights: Tensor) -> Network:
        """Return the network that keeps, per node, its two edges with the largest weights.

        An edge counts by its largest weight of an operation other than `none`.
        """
        first = self.operations[0] == _NONE
        best, chosen = weights[..., int(first) :].max(dim=-1)
        cells: list[list[tuple[str, int]]] = []
        for cell in range(self.num_cells):
            pairs: list[tuple[str, int]] = []
            start = 0
            for sources in self._sources:
                stop = start + len(sources)
                kept = best[cell, start:stop].topk(2).indices.sort().values.tolist()
                pairs += [
                    (self.space.operations[int(chosen[cell, start + place])], sources[place])
                    for place in kept
                ]
                start = stop
            cells.append(pairs)
        return self.space.from_genotype(cells[0], cells[1])

    def weights_of(self, net: Network) -> Tensor:
        """Return weights, (2, num_edges, k), that leave only a network: ones and zeros."""
        genotype = self.space.to_genotype(net)
        weights = torch.zeros(self.num_cells, self.num_edges, len(self.operations))
        starts = list(accumulate(map(len, self._sources), initial=0))
        for cell, pairs in enumerate((genotype.normal, genotype.reduce)):
            for place, (name, source) in enumerate(pairs):
                edge = starts[place // 2] + source
                weights[cell, edge, self.operations.index(name)] = 1.0
        return weights


class _Body(nn.Module):
    """Stem, cells and head; cells read the two before them."""

    def __init__(
        self, skeleton: DARTSSkeleton, make: _MakeCell, *, auxiliary: bool = False
    ) -> None:
        super().__init__()
        reductions = skeleton.reductions
        self.middle = reductions[1]
        stem = _STEM_FACTOR * skeleton.channels
        self.stem = nn.Sequential(
            nn.Conv2d(skeleton.input_channels, stem, 3, padding=1, bias=False),
            nn.BatchNorm2d(stem),
        )
        cells: list[_Cell] = []
        before, last, channels, reduced = stem, stem, skeleton.channels, False
        middle = stem
        for place in range(skeleton.num_cells or 0):
            reduces = place in reductions
            channels *= 2 if reduces else 1
            sources, operations = make(place, channels, reduces)
            cells.append(_Cell(before, last, channels, reduces, reduced, sources, operations))
            before, last, reduced = last, len(sources) * channels, reduces
            middle = last if place == self.middle else middle
        self.auxiliary = AuxiliaryHead(middle, skeleton.num_classes) if auxiliary else None
        self.cells = nn.ModuleList(cells)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, skeleton.num_classes)
        )

    def forward(self, images: Tensor, weights: Tensor | None) -> Tensor:
        return self.both(images, weights)[0]

    def both(self, images: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the logits, and the map behind the second reduction."""
        before = last = middle = self.stem(images)
        for place, cell in enumerate(self.cells):
            assert isinstance(cell, _Cell)
            own = None if weights is None else weights[int(cell.reduces)]
            before, last = last, cell(before, last, own)
            middle = last if place == self.middle else middle
        return self.head(last), middle


class _Cell(nn.Module):
    """Nodes that add the results of operations on earlier ones, then concatenated."""

    def __init__(
        self,
        before: int,
        last: int,
        channels: int,
        reduces: bool,
        reduced: bool,
        sources: list[list[int]],
        operations: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        affine = not any(isinstance(one, MixedOperation) for one in operations)
        self.reduces = reduces
        self.sources = sources
        self.first = (
            _FactorizedReduction(before, channels, affine)
            if reduced
            else _convolution(before, channels, affine)
        )
        self.second = _convolution(last, channels, affine)
        self.operations = nn.ModuleList(operations)
        self.drop_path = DropPath()

    def forward(self, before: Tensor, last: Tensor, weights: Tensor | None) -> Tensor:
        nodes = [self.first(before), self.second(last)]
        edge = 0
        for sources in self.sources:
            entering = []
            for source in sources:
                operation = self.operations[edge]
                arguments = () if weights is None else (weights[edge],)
                result = operation(nodes[source], *arguments)
                # Identities stay, as in DARTS.
                kept = isinstance(operation, nn.Identity)
                entering.append(result if kept else self.drop_path(result))
                edge += 1
            nodes.append(torch.stack(entering).sum(dim=0))
        return torch.cat(nodes[2:], dim=1)


class _FactorizedReduction(nn.Module):
    """Halves the resolution by two 1 x 1 convolutions with stride 2, one of them shifted."""

    def __init__(self, in_channels: int, channels: int, affine: bool) -> None:
        super().__init__()
        half = channels // 2
        self.even = nn.Conv2d(in_channels, channels - half, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, half, 1, stride=2, bias=False) if half else None
        self.normalization = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        parts = [self.even(x)]
        if self.odd is not None:
            # Padded, so that maps of odd size keep the size of the other part.
            parts.append(self.odd(functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]))
        result: Tensor = self.normalization(torch.cat(parts, dim=1))
        return result


def _stride(source: int, reduces: bool) -> int:
    return 2 if reduces and source < 2 else 1


def _convolution(in_channels: int, channels: int, affine: bool) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def _depthwise(
    channels: int, size: int, stride: int, dilation: int, affine: bool
) -> list[nn.Module]:
    return [
        nn.ReLU(),
        nn.Conv2d(
            channels,
            channels,
            size,
            stride=stride,
            padding=dilation * (size // 2),
            dilation=dilation,
            groups=channels,
            bias=False,
        ),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


def _operation(name: str, channels: int, stride: int, *, affine: bool) -> nn.Module | None:
    if name == _NONE:
        return None
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else _FactorizedReduction(channels, channels, affine)
    if name.startswith(("max_pool", "avg_pool")):
        pooling = (
            nn.MaxPool2d(3, stride=stride, padding=1)
            if name.startswith("max")
            else nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False)
        )
        # In the supernet only, where results of different size would be added.
        return pooling if affine else nn.Sequential(pooling, nn.BatchNorm2d(channels, affine=False))
    size = 5 if name.endswith("5x5") else 3
    if name.startswith("dil_conv"):
        return nn.Sequential(*_depthwise(channels, size, stride, 2, affine))
    return nn.Sequential(
        *_depthwise(channels, size, stride, 1, affine), *_depthwise(channels, size, 1, 1, affine)
    )
