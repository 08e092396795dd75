"""The torch module of a network of any space that has one."""

from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import nn

from hotnas_torch.arch import Network
from hotnas_torch.arguments import kind, number
from hotnas_torch.nn.darts import DARTSModule, DARTSSkeleton
from hotnas_torch.nn.hierarchical201 import HierarchicalNASBench201Module
from hotnas_torch.nn.nasbench201 import NASBench201Module, Skeleton
from hotnas_torch.nn.supernets.mobile_supernets import MacroSupernet, MobileNetSupernet
from hotnas_torch.nn.supernets.pooling_supernet import PoolingSupernet
from hotnas_torch.nn.transnas import TransNASMacroModule
from hotnas_torch.spaces import DARTS, SearchSpace, Subset, TransNASMacro

__all__ = ["BUILDABLE", "ModuleBuilder"]

Shape: TypeAlias = Skeleton | DARTSSkeleton | float

_SUPERNETS = {
    "nasbench_macro": MacroSupernet,
    "mobilenet_v2": MobileNetSupernet,
    "pooling": PoolingSupernet,
}

_WITH_PATHS = ("darts", "transnas_macro")

_HIERARCHICAL = "hierarchical_nasbench201"
_HIERARCHICAL_CHANNELS = 16

BUILDABLE = ("nasbench201", "darts", "transnas_macro", _HIERARCHICAL, *_SUPERNETS)
"""Names of the spaces whose networks can be built."""


@dataclass(frozen=True, slots=True)
class ModuleBuilder:
    """Builds torch modules of the networks of a space, for images of one shape.

    Args:
        space: `NASBench201`, `DARTS`, `TransNASMacro`, `NASBenchMacro`, `MobileNetV2`, `Pooling` or
            `hierarchical_nasbench201()`, or a `Subset` of one.
        shape: What is not searched. A `Skeleton` for NAS-Bench-201, a `DARTSSkeleton` for DARTS
            (its `num_cells` None takes each network's depth), for the others a factor of all
            numbers of channels. None takes small ones: 8 channels in two stages of one cell, 4
            channels at each network's depth, an eighth of the width.
        input_channels: Channels of an image.
        num_classes: Outputs.
        auxiliary: Whether DARTS networks have an auxiliary tower.

    Raises:
        TypeError: A shape of another space.
        ValueError: A space whose networks cannot be built, a shape that does not fit the images, or
            a tower in another space than DARTS.

    Example:
        >>> from hotnas_torch.spaces import Pooling
        >>> builder = ModuleBuilder(Pooling(), 0.25, input_channels=1, num_classes=10)
        >>> generator = torch.Generator().manual_seed(0)
        >>> module = builder(builder.space.from_string("[7,1,2]"), generator=generator)
        >>> module(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    space: SearchSpace
    shape: Shape | None = None
    input_channels: int = 3
    num_classes: int = 10
    auxiliary: bool = False

    def __post_init__(self) -> None:
        kind("space", self.space, SearchSpace)
        space = self.space.space if isinstance(self.space, Subset) else self.space
        if space.name not in BUILDABLE:
            raise ValueError(
                f"space must be one whose networks can be built as torch modules,"
                f" {', '.join(BUILDABLE)}; got {space!r} (train others in a Function)"
            )
        if self.auxiliary and space.name != "darts":
            raise ValueError(f"auxiliary must be 0 in {space.name}: it has no auxiliary tower")
        object.__setattr__(self, "space", space)
        object.__setattr__(self, "shape", self._checked())

    @property
    def drops_paths(self) -> bool:
        """Whether its networks have operations that can be left out in training."""
        return self.space.name in _WITH_PATHS

    def _checked(self) -> Shape:
        sizes = {"input_channels": self.input_channels, "num_classes": self.num_classes}
        shape = self.shape
        if self.space.name == "nasbench201":
            small = Skeleton(channels=8, num_stages=2, cells_per_stage=1, **sizes)
            kind("skeleton", shape, Skeleton, optional=True)
            found: Skeleton | DARTSSkeleton = small if shape is None else cast(Skeleton, shape)
        elif self.space.name == "darts":
            deep = DARTSSkeleton(channels=4, num_cells=None, **sizes)
            kind("skeleton", shape, DARTSSkeleton, optional=True)
            found = deep if shape is None else cast(DARTSSkeleton, shape)
        else:
            if isinstance(shape, Skeleton | DARTSSkeleton):
                raise TypeError(
                    f"skeleton must be a factor of all widths in {self.space.name}; got"
                    f" {type(shape).__name__}"
                )
            return number("skeleton", 0.125 if shape is None else shape, above=0.0)
        for name, expected in sizes.items():
            if getattr(found, name) != expected:
                raise ValueError(
                    f"skeleton.{name} must be {expected}, as the data have; got"
                    f" {getattr(found, name)}"
                )
        return found

    def __call__(
        self, net: Network, *, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> nn.Module:
        """Build the module of a network, which maps images (N, C, H, W) to logits.

        Args:
            net: A network of the space.
            generator: Source of the initial parameters, on the CPU.
            device: Where the module lives.

        Raises:
            ArchitectureError: `net` is not of the space.
        """
        shape = self.shape
        if isinstance(shape, Skeleton):
            return NASBench201Module(net, shape, generator=generator, device=device)
        if isinstance(shape, DARTSSkeleton):
            return DARTSModule(
                net,
                shape,
                generator=generator,
                space=cast(DARTS, self.space),
                auxiliary=self.auxiliary,
                device=device,
            )
        assert shape is not None
        if self.space.name == "transnas_macro":
            return TransNASMacroModule(
                net,
                width=shape,
                input_channels=self.input_channels,
                num_classes=self.num_classes,
                generator=generator,
                space=cast(TransNASMacro, self.space),
                device=device,
            )
        if self.space.name == _HIERARCHICAL:
            return HierarchicalNASBench201Module(
                net,
                channels=max(1, round(shape * _HIERARCHICAL_CHANNELS)),
                input_channels=self.input_channels,
                num_classes=self.num_classes,
                generator=generator,
                device=device,
            )
        return _SUPERNETS[self.space.name](
            width=shape,
            input_channels=self.input_channels,
            num_classes=self.num_classes,
            only=net,
            generator=generator,
            device=device,
        )
