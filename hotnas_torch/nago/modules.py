# Over 400 lines: generated modules and how they are sized.
"""Torch modules of networks that HNAG and RNAG sample, of a chosen number of parameters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.nn import functional

from hotnas_torch.arch import Cell, NestedCell, Network
from hotnas_torch.arguments import integer, kind, number, random_generator
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.nago.layout import MERGE_LABELS
from hotnas_torch.nn.initialization import build
from hotnas_torch.nn.merging import AttentionSum, Concatenation, WeightedSum, pool_to

__all__ = [
    "GeneratedModule",
    "GeneratedSkeleton",
    "count_parameters",
    "fit_channels",
    "memory_per_sample",
]

_CONVOLUTIONS = {
    "conv_3x3": (3, 3),
    "conv_5x5": (5, 5),
    "conv_1x1": (1, 1),
    "conv_3x1": (3, 1),
    "conv_1x3": (1, 3),
}
_POOLS = {"avg_pool_3x3": 3, "avg_pool_5x5": 5}
_ATTENTION = MERGE_LABELS["attention"]
_CONCAT = MERGE_LABELS["concat"]
_MERGES = (_ATTENTION, _CONCAT)


@dataclass(frozen=True, slots=True)
class GeneratedSkeleton:
    """The part of a sampled network that is not sampled.

    A stem of two 3 x 3 convolutions, the second without a ReLU; then the sampled graph; then ReLU,
    a 1 x 1 convolution, ReLU, global average pooling, dropout and a linear layer. Convolutions
    have batch normalisation and no bias. The stem halves the resolution once per convolution as far
    as the network's first cell does.

    Args:
        input_channels: Channels of an image, >= 1.
        num_classes: Outputs, >= 2.
        head_channels: Channels of the 1 x 1 convolution, >= 1.
        dropout: Share of features that are dropped in training, in [0, 1).

    Raises:
        TypeError: A number is not an int.
        ValueError: An argument out of range.

    Reference: the public code of NAGO; the defaults are its settings.
    """

    input_channels: int = 3
    num_classes: int = 10
    head_channels: int = 1280
    dropout: float = 0.2

    def __post_init__(self) -> None:
        for name, smallest in (("input_channels", 1), ("num_classes", 2), ("head_channels", 1)):
            object.__setattr__(self, name, integer(name, getattr(self, name), least=smallest))
        number("dropout", self.dropout, least=0.0, below=1.0)


class GeneratedModule(nn.Module):
    """The torch module of a sampled network.

    A cell has the width and resolution that the network says. What enters it is pooled to its
    resolution and mapped to its width by a 1 x 1 convolution where they differ, and merged: summed
    with learnt weights or as a merge node says, one tensor alone as it is. Inside it everything has
    its width. An operation is ReLU, convolution, normalisation, or a pooling; the output of a graph
    is the mean of what leads to it. The network's outputs are pooled to the smallest of them,
    mapped to the width of the last, and averaged.

    Where an attention merges, its mask is the tensor of the lowest-numbered predecessor.

    Args:
        net: A network of `HNAG` or
            `RNAG`, or any with their operations; its channels are
            the widths (`fit_channels` solves them from a number of parameters).
        skeleton: Everything that is not sampled.
        generator: Source of the initial parameters and of dropout, on the CPU.
        device: Where the module lives.
        mixed_precision: Whether to compute in bfloat16 where that is safe; parameters stay float32.

    Raises:
        TypeError: `net` is not a Network, or `generator` not a generator.
        ArchitectureError: A node has an unknown operation; the message names it.

    Reference: Ru, Esperanca and Carlucci, NAGO, NeurIPS 2020, Section 2.1 and its public code.

    Example:
        >>> from hotnas_torch.nago import RNAG, FlatTheta, WattsStrogatz
        >>> generator = torch.Generator().manual_seed(0)
        >>> net = RNAG().sample(FlatTheta((WattsStrogatz(4, 2, 0.5),) * 3), generator=generator)
        >>> skeleton = GeneratedSkeleton(input_channels=1, head_channels=32)
        >>> small = fit_channels(net, 20_000, skeleton)
        >>> module = GeneratedModule(small, skeleton, generator=generator)
        >>> module.num_parameters() <= 20_000, module(torch.zeros(2, 1, 8, 8)).shape
        (True, torch.Size([2, 10]))
    """

    stem: nn.Module
    cells: nn.ModuleList
    projections: nn.ModuleList
    head: nn.Module

    def __init__(
        self,
        net: Network,
        skeleton: GeneratedSkeleton,
        *,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        mixed_precision: bool = False,
    ) -> None:
        super().__init__()
        kind("net", net, Network)
        random_generator(generator)
        for place, cell in enumerate(net.cells):
            try:
                _internals(cell)
            except ArchitectureError as error:
                raise ArchitectureError(f"cells[{place}]: {error}") from error
        self.mixed_precision = mixed_precision
        self._downsampling = net.downsampling
        self._entering, self._leaving = _macro_edges(net)
        seed = int(torch.randint(2**62, (), generator=generator))
        parts = build(
            lambda: nn.ModuleList(_parts(net, skeleton, seed)), generator=generator, device=device
        )
        self.stem = parts[0]
        self.cells = cast(nn.ModuleList, parts[1])
        self.projections = cast(nn.ModuleList, parts[2])
        self.head = parts[3]

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, input_channels, H, W) to logits (N, num_classes) float32."""
        height, width = images.shape[2:]
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed_precision):
            outputs: list[Tensor] = [self.stem(images)]
            sizes = [
                (math.ceil(height / divisor), math.ceil(width / divisor))
                for divisor in self._downsampling
            ]
            for cell, sources, size in zip(self.cells, self._entering, sizes, strict=True):
                outputs.append(cell([pool_to(outputs[source], size) for source in sources]))
            size = min((x.shape[2], x.shape[3]) for x in (outputs[s] for s in self._leaving))
            leaving = [
                projection(pool_to(outputs[source], size))
                for projection, source in zip(self.projections, self._leaving, strict=True)
            ]
            logits: Tensor = self.head(_mean(leaving))
        return logits.float()

    def num_parameters(self) -> int:
        """Return the number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters())


class _Convolution(nn.Module):
    """ReLU, convolution, batch normalisation."""

    def __init__(self, size: tuple[int, int], channels: int) -> None:
        super().__init__()
        height, width = size
        self.convolution = nn.Conv2d(
            channels, channels, size, padding=(height // 2, width // 2), bias=False
        )
        self.normalisation = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.normalisation(self.convolution(functional.relu(x)))
        return result


class _Merge(nn.Module):
    """Maps tensors of one resolution and any widths to one of `channels`."""

    def __init__(self, label: str | None, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.projections = nn.ModuleDict()
        if label != _CONCAT or len(in_channels) == 1:
            for place, width in enumerate(in_channels):
                if width != channels:
                    self.projections[str(place)] = _projection(width, channels)
        self.join = _join(label, in_channels, channels)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        maps = list(inputs)
        for place, projection in self.projections.items():
            maps[int(place)] = projection(maps[int(place)])
        result: Tensor = self.join(maps) if self.join is not None else maps[0]
        return result


class _Graph(nn.Module):
    """A cell on any level: merges what enters, computes its nodes in order, averages the ends."""

    def __init__(self, cell: Cell, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.entrance = _Merge(_entrance(cell), in_channels, channels)
        self.joins = nn.ModuleDict()
        self.nodes = nn.ModuleList()
        self._predecessors = _predecessors(cell)
        graphs = cell.graphs if isinstance(cell, NestedCell) else (None,) * cell.num_nodes
        for node in range(1, cell.num_nodes - 1):
            label, graph = cell.ops[node], graphs[node]
            widths = [channels] * len(self._predecessors[node])
            if graph is not None:
                self.nodes.append(_Graph(graph, widths, channels))
                continue
            join = _join(label if label in _MERGES else None, widths, channels)
            if join is not None:
                self.joins[str(node)] = join
            self.nodes.append(_operation(label, channels))

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Map tensors of the graph's resolution to one of its width."""
        values: list[Tensor] = [self.entrance(inputs)]
        for node, operation in enumerate(self.nodes, start=1):
            maps = [values[place] for place in self._predecessors[node]]
            if isinstance(operation, _Graph):
                values.append(operation(maps))
            else:
                values.append(operation(maps[0] if len(maps) == 1 else self.joins[str(node)](maps)))
        return _mean([values[place] for place in self._predecessors[-1]])


class _Dropout(nn.Module):
    """Dropout of random numbers of its own; torch's draws from global state."""

    def __init__(self, share: float, seed: int) -> None:
        super().__init__()
        self.share = share
        self._seed = seed
        self.generator: torch.Generator | None = None

    def take_generator(self) -> torch.Generator | None:
        """Return the source of random numbers, and leave the next draw to a fresh one."""
        source, self.generator = self.generator, None
        return source

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0.0:
            return x
        if self.generator is None or self.generator.device != x.device:
            self.generator = torch.Generator(x.device).manual_seed(self._seed)
        drawn = torch.rand(x.shape, generator=self.generator, device=x.device)
        return x * (drawn >= self.share) / (1.0 - self.share)


def _parts(net: Network, skeleton: GeneratedSkeleton, seed: int) -> list[nn.Module]:
    entering, leaving = _macro_edges(net)
    widths = (net.channels[0], *net.channels)
    first = net.downsampling[0]
    stem = nn.Sequential(
        *_normalised(skeleton.input_channels, widths[0], 3, stride=2 if first % 2 == 0 else 1),
        nn.ReLU(),
        *_normalised(widths[0], widths[0], 3, stride=2 if first % 4 == 0 else 1),
    )
    cells = nn.ModuleList(
        _Graph(cell, [widths[source] for source in sources], channels)
        for cell, sources, channels in zip(net.cells, entering, net.channels, strict=True)
    )
    last = widths[leaving[-1]]
    projections = nn.ModuleList(_projection(widths[source], last) for source in leaving)
    head = nn.Sequential(
        nn.ReLU(),
        *_normalised(last, skeleton.head_channels, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        _Dropout(skeleton.dropout, seed),
        nn.Linear(skeleton.head_channels, skeleton.num_classes),
    )
    return [stem, cells, projections, head]


def _normalised(in_channels: int, channels: int, size: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, channels, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(channels),
    ]


def _operation(label: str, channels: int) -> nn.Module:
    if label in _MERGES:
        return nn.Identity()
    if label in _POOLS:
        size = _POOLS[label]
        return nn.AvgPool2d(size, stride=1, padding=size // 2, count_include_pad=False)
    return _Convolution(_CONVOLUTIONS[label], channels)


def _join(label: str | None, in_channels: Sequence[int], channels: int) -> nn.Module | None:
    """Build what makes one of several tensors; None where there is one."""
    if len(in_channels) == 1:
        return None
    if label == _CONCAT:
        return Concatenation(in_channels, channels)
    return AttentionSum() if label == _ATTENTION else WeightedSum(len(in_channels))


def _projection(in_channels: int, channels: int) -> nn.Module:
    if in_channels == channels:
        return nn.Identity()
    return nn.Conv2d(in_channels, channels, 1, bias=False)


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(tuple(tensors)).mean(dim=0)


def _macro_edges(net: Network) -> tuple[list[list[int]], list[int]]:
    """Return what enters each cell and what leaves the network; 0 is the stem, s + 1 cell s."""
    entering: list[list[int]] = [[] for _ in range(net.num_cells + 2)]
    for i, j in net.edges:
        entering[j].append(i)
    return entering[1:-1], entering[-1]


def _predecessors(cell: Cell) -> list[list[int]]:
    predecessors: list[list[int]] = [[] for _ in cell.ops]
    for i, j in cell.edges:
        predecessors[j].append(i)
    return predecessors


def _entrance(cell: Cell) -> str | None:
    """Return the merge of what enters the cell: a node that alone follows the input, or None."""
    if cell.ops[1] in _MERGES and [j for i, j in cell.edges if i == 0] == [1]:
        return cell.ops[1]
    return None


class _Internals(NamedTuple):
    """Parameters behind a cell's entrance as a polynomial of its width."""

    quadratic: int
    linear: int
    constant: int

    def at(self, channels: int) -> int:
        return (self.quadratic * channels + self.linear) * channels + self.constant


def count_parameters(net: Network, skeleton: GeneratedSkeleton) -> int:
    """Return the number of trainable parameters of `GeneratedModule`, without building it.

    Args:
        net: A sampled network with the widths to count for.
        skeleton: Everything that is not sampled.

    Raises:
        ArchitectureError: A node has an unknown operation.

    Complexity: O(number of operations), and O(number of cells) for the same cells again.
    """
    entering, leaving = _macro_edges(net)
    widths = (net.channels[0], *net.channels)
    first, last = widths[0], widths[leaving[-1]]
    total = 9 * first * (skeleton.input_channels + first) + 4 * first
    for cell, sources, channels in zip(net.cells, entering, net.channels, strict=True):
        total += _merge_parameters(_entrance(cell), [widths[s] for s in sources], channels)
        total += _internals(cell).at(channels)
    total += sum(_projection_parameters(widths[source], last) for source in leaving)
    total += skeleton.head_channels * (last + 2 + skeleton.num_classes) + skeleton.num_classes
    return total


def fit_channels(
    net: Network, parameter_limit: int, skeleton: GeneratedSkeleton, *, exact: bool = True
) -> Network:
    r"""Solve the widths of a network from a number of parameters.

    The ratio of widths is that of `net`. The widest stage gets the largest integer width with
    which the module has at most `parameter_limit` parameters; others are rounded down, to at
    least 1. With `exact=False`, NAGO's formula: the width per unit of the ratio is

    .. math:: \Big\lfloor \sqrt{\mathrm{limit} / \sum_v k_v^2 c_v^2} \Big\rfloor

    over convolutions v with relative widths c, at least 1. It leaves out the stem, the merges and
    the head, so that the true number may be larger.

    Args:
        net: A sampled network; only the ratio of its channels counts.
        parameter_limit: Largest number of trainable parameters, >= 1.
        skeleton: Everything that is not sampled; its parameters count.
        exact: Whether the true number has to stay within the limit.

    Returns:
        The same network with channels, and its first cell's as `input_channels`.

    Raises:
        ArchitectureError: Too many parameters even at width 1, or an unknown operation.

    Complexity: O(log(width)) counts.
    """
    if not exact:
        units = [width // math.gcd(*net.channels) for width in net.channels]
        base = sum(_areas(cell) * unit * unit for cell, unit in zip(net.cells, units, strict=True))
        multiplier = max(1, math.isqrt(parameter_limit // max(1, base)))
        return _with_widths(net, [multiplier * unit for unit in units])
    widest = max(net.channels)

    def candidate(width: int) -> Network:
        return _with_widths(net, [max(1, channels * width // widest) for channels in net.channels])

    def fits(width: int) -> bool:
        return count_parameters(candidate(width), skeleton) <= parameter_limit

    if not fits(1):
        raise ArchitectureError(
            f"parameter_limit must be at least {count_parameters(candidate(1), skeleton):,}, which "
            f"this network has with one channel per cell; got {parameter_limit:,} (raise it, or "
            "use a smaller head_channels)"
        )
    above = 2
    while fits(above):
        above *= 2
    below = above // 2
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if fits(middle) else (below, middle)
    return candidate(below)


def memory_per_sample(module: GeneratedModule, input_shape: tuple[int, int, int]) -> int:
    """Return the bytes that training needs for one image: kept activations and parameters.

    What autograd keeps for the backward pass grows by some number of bytes with each image of a
    batch; that number, measured, plus the bytes of the parameters once. Optimiser states, gradients
    and working memory of kernels are left out.

    Args:
        module: Left as it is, statistics and random numbers included.
        input_shape: Channels, height and width of an image.

    Complexity: two forward passes.
    """
    kept = [_kept_bytes(module, (num, *input_shape)) for num in (2, 3)]
    parameters = sum(p.numel() * p.element_size() for p in module.parameters())
    return kept[1] - kept[0] + parameters


def _kept_bytes(module: GeneratedModule, shape: tuple[int, ...]) -> int:
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        # A tensor that an operation kept of itself would hold that operation, and so itself.
        return tensor.detach()

    was_training = module.training
    dropouts = [layer for layer in module.modules() if isinstance(layer, _Dropout)]
    sources = [layer.take_generator() for layer in dropouts]
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    own.update(buffer.untyped_storage().data_ptr() for buffer in buffers.values())
    images = torch.zeros(shape, device=next(module.parameters()).device)
    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        # Held until the count is done: a freed storage's address may be another's.
        logits = functional_call(module.train(), buffers, (images,))
    del logits
    module.train(was_training)
    for layer, source in zip(dropouts, sources, strict=True):
        layer.generator = source
    return sum(sizes.values())


@lru_cache(maxsize=2**16)
def _internals(cell: Cell) -> _Internals:
    quadratic = linear = constant = 0
    predecessors = _predecessors(cell)
    if not predecessors[-1]:
        raise ArchitectureError("there is no path from input to output, so nothing to compute")
    graphs = cell.graphs if isinstance(cell, NestedCell) else (None,) * cell.num_nodes
    for node in range(1, cell.num_nodes - 1):
        label, graph, num_inputs = cell.ops[node], graphs[node], len(predecessors[node])
        merge: str | None = None
        if graph is not None:
            inner = _internals(graph)
            quadratic += inner.quadratic
            linear += inner.linear
            constant += inner.constant
            merge = _entrance(graph)
        elif label in _MERGES:
            merge = label
        elif label in _CONVOLUTIONS:
            quadratic += math.prod(_CONVOLUTIONS[label])
            linear += 2
        elif label not in _POOLS:
            known = ", ".join(repr(known) for known in (*_CONVOLUTIONS, *_POOLS, *_MERGES))
            raise ArchitectureError(f"ops[{node}] must be one of {known}; got {label!r}")
        if num_inputs > 1:
            quadratic += num_inputs if merge == _CONCAT else 0
            constant += num_inputs if merge is None else 0
    return _Internals(quadratic, linear, constant)


@lru_cache(maxsize=2**16)
def _areas(cell: Cell) -> int:
    """Return the summed kernel areas of all convolutions of a cell."""
    graphs = cell.graphs if isinstance(cell, NestedCell) else (None,) * cell.num_nodes
    return sum(
        math.prod(_CONVOLUTIONS.get(label, (0,))) if graph is None else _areas(graph)
        for label, graph in zip(cell.ops, graphs, strict=True)
    )


def _merge_parameters(label: str | None, in_channels: Sequence[int], channels: int) -> int:
    if label == _CONCAT and len(in_channels) > 1:
        return sum(in_channels) * channels
    projections = sum(_projection_parameters(width, channels) for width in in_channels)
    return projections + (len(in_channels) if label is None and len(in_channels) > 1 else 0)


def _projection_parameters(in_channels: int, channels: int) -> int:
    return 0 if in_channels == channels else in_channels * channels


def _with_widths(net: Network, widths: Sequence[int]) -> Network:
    return replace(net, channels=tuple(widths), input_channels=widths[0])
