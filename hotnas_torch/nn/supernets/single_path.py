"""Supernets of which every step uses one architecture: its path through shared layers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from hotnas_torch.arch import Network
from hotnas_torch.arguments import random_generator
from hotnas_torch.nn.initialization import build
from hotnas_torch.spaces import SearchSpace

__all__ = [
    "Alternatives",
    "ChoiceLayer",
    "MakeParts",
    "Normalization",
    "SinglePathSupernet",
    "normalization_of",
]

Normalization = Literal["batch", "running"]
"""`"batch"`: statistics of the batch at hand, in evaluation too, without scale and shift;
`"running"`: batch normalisation as usual."""

Normalize = Callable[[int], nn.Module]
"""Builds the normalisation of so many channels."""


def normalization_of(kind: Normalization) -> Normalize:
    """Return what builds a normalisation from its number of channels.

    Args:
        kind: "batch" for statistics of the batch at hand, "running" for running ones.

    Raises:
        ValueError: Another kind.
    """
    if kind == "batch":
        return lambda channels: nn.BatchNorm2d(channels, affine=False, track_running_stats=False)
    if kind == "running":
        return nn.BatchNorm2d
    raise ValueError(f"normalization must be 'batch' or 'running'; got {kind!r}")


class ChoiceLayer(nn.Module, ABC):
    """A layer that applies one of several operations, which may share weights.

    Attributes:
        num_choices: Operations of the complete layer.
    """

    num_choices: int

    @abstractmethod
    def parts(self, choice: int) -> Iterable[nn.Module]:
        """Return the modules that a choice applies, one after the other."""

    def forward(self, x: Tensor, choice: int) -> Tensor:
        """Apply a choice to (N, C, H, W)."""
        for part in self.parts(choice):
            x = part(x)
        return x


class Alternatives(ChoiceLayer):
    """A layer whose operations have weights of their own.

    Args:
        make: Builds the operation of a choice.
        num_choices: How many choices there are.
        offered: Those that are built.
    """

    def __init__(
        self, make: Callable[[int], nn.Module], num_choices: int, offered: Iterable[int]
    ) -> None:
        super().__init__()
        self.num_choices = num_choices
        self.operations = nn.ModuleDict({str(choice): make(choice) for choice in offered})

    def parts(self, choice: int) -> Iterable[nn.Module]:
        """Return the operation of a choice."""
        return (self.operations[str(choice)],)


MakeParts = Callable[
    [Sequence[Sequence[int]], Normalize], tuple[nn.Module, Sequence[ChoiceLayer], nn.Module]
]
"""Builds stem, layers and head from the choices that are wanted of each layer."""


class SinglePathSupernet(nn.Module, ABC):
    """A stem, layers that offer choices, and a head: all networks of a space with shared weights.

    A network is a path: the choice that it makes in each layer. A forward pass computes one path
    and leaves everything else alone, so that a step of an optimiser changes the weights of that
    path only.

    With `only`, the module is that one network by itself, to be trained alone; it is then called
    with images only, as any classifier.

    Statistics of normalisations are those of the batch at hand unless `only` is given: running
    ones would mix architectures. A prediction then depends on the whole batch, which should be
    large, and is the same in training and in evaluation.

    Args:
        space: The space.
        num_choices: Choices in each layer.
        input_channels: Channels of an image.
        num_classes: Outputs.
        make: Builds the parts.
        only: The only network that is wanted; None holds all.
        normalization: `"batch"` or `"running"` statistics; None takes the first, the second with
            `only`.
        generator: Source of the initial parameters, on the CPU.
        device: Where the module lives.

    Raises:
        ArchitectureError: `only` is not of the space.
        ValueError: Another normalisation.

    Reference: Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling,
        ECCV 2020.
    """

    stem: nn.Module
    layers: nn.ModuleList
    head: nn.Module

    def __init__(
        self,
        space: SearchSpace,
        num_choices: Sequence[int],
        input_channels: int,
        num_classes: int,
        make: MakeParts,
        *,
        only: Network | None,
        normalization: Normalization | None,
        generator: torch.Generator,
        device: torch.device | str,
    ) -> None:
        super().__init__()
        random_generator(generator)
        self.space = space
        self.input_channels = input_channels
        self.num_classes = num_classes
        self.only = only
        self._only_path = None if only is None else tuple(self.paths([only])[0].tolist())
        kind = normalization or ("batch" if only is None else "running")
        choices: Sequence[Sequence[int]] = (
            [range(num) for num in num_choices]
            if self._only_path is None
            else [[choice] for choice in self._only_path]
        )

        def parts() -> nn.ModuleList:
            stem, layers, head = make(choices, normalization_of(kind))
            return nn.ModuleList([stem, nn.ModuleList(layers), head])

        stem, layers, head = build(parts, generator=generator, device=device)
        assert isinstance(layers, nn.ModuleList)
        self.stem, self.layers, self.head = stem, layers, head

    # --- one path ---------------------------------------------------------------------------------

    def paths(self, nets: Sequence[Network]) -> Tensor:
        """Return the choices of networks.

        Args:
            nets: N networks of the space.

        Returns:
            (N, layers) int64 on the CPU.

        Raises:
            ArchitectureError: An entry is not of the space; the message gives its index.
        """
        return self._paths_of(self.space.encode(nets).long())

    def _paths_of(self, codes: Tensor) -> Tensor:
        """Turn codes of the space, (N, d), into choices, (N, layers)."""
        return codes

    def forward(self, images: Tensor, net: Network | None = None) -> Tensor:
        """Map images to the logits of one network.

        Args:
            images: (N, input_channels, H, W).
            net: A network of the space; None takes `only`.

        Returns:
            (N, num_classes).

        Raises:
            ArchitectureError: `net` is not of the space.
            ValueError: `net` is missing, or another than `only`.
        """
        if net is None:
            if self._only_path is None:
                raise ValueError("net must be given: the module holds every network of its space")
            return self.follow(images, self._only_path)
        path = tuple(self.paths([net])[0].tolist())
        if self._only_path is not None and path != self._only_path:
            assert self.only is not None
            raise ValueError(
                f"net must be {self.only.spec!r}, the only network that this module holds; got "
                f"{net.spec!r}"
            )
        return self.follow(images, path)

    def follow(self, images: Tensor, path: Sequence[int]) -> Tensor:
        """Map images to the logits of a path, as `paths` gives it; nothing is checked."""
        x = self.stem(images)
        for layer, choice in zip(self.layers, path, strict=True):
            x = layer(x, choice)
        logits: Tensor = self.head(x)
        return logits

    # --- many paths -------------------------------------------------------------------------------

    @torch.no_grad()
    def outputs(self, images: Tensor, nets: Sequence[Network]) -> Tensor:
        """Return the logits of many networks for the same images, without gradients.

        Networks that begin alike share the computation of what they have in common: the tree of
        all beginnings is walked once, depth first.

        Args:
            images: (B, input_channels, H, W).
            nets: N networks of the space; repeats cost nothing.

        Returns:
            (N, B, num_classes), each row what `forward` gives for that network.

        Raises:
            ArchitectureError: An entry is not of the space; the message gives its index.

        Complexity: one layer per distinct beginning, of which all 6,561 of NAS-Bench-Macro have
            9,840 and 52,488 layers; memory for one feature map per layer.
        """
        distinct, places = self.paths(nets).unique(dim=0, return_inverse=True)
        if not len(distinct):
            return images.new_zeros(0, len(images), self.num_classes)
        rows: list[Tensor] = [
            self.head(x) for x in self._walk(self.stem(images), distinct.tolist(), 0)
        ]
        return torch.stack(rows)[places.to(rows[0].device)]

    def _walk(self, x: Tensor, paths: Sequence[Sequence[int]], depth: int) -> Iterator[Tensor]:
        """Yield the last feature map of sorted paths that share their first choices."""
        if depth == len(self.layers):
            yield x
            return
        start = 0
        while start < len(paths):
            choice = paths[start][depth]
            end = start
            while end < len(paths) and paths[end][depth] == choice:
                end += 1
            yield from self._walk(self.layers[depth](x, choice), paths[start:end], depth + 1)
            start = end
