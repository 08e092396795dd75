"""Parameters drawn from the caller's generator; torch's own layers draw from global state."""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from hotnas_torch.nn.merging import WeightedSum

__all__ = ["build", "initialize"]

Module = TypeVar("Module", bound=nn.Module)

_RESET = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm, WeightedSum)
"""Layers whose `reset_parameters` draws nothing."""


def build(
    make: Callable[[], Module],
    *,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> Module:
    """Build a module whose parameters come from `generator`.

    Args:
        make: Builds the module; it is called without storage for parameters, so that no random
            number is drawn.
        generator: Source of the initial parameters, on the CPU.
        device: Where the module lives. The parameters do not depend on it.

    Raises:
        TypeError: The module has a parameter or buffer that `initialize` does not know.
    """
    with torch.device("meta"):
        module = make()
    module.to_empty(device="cpu")
    initialize(module, generator=generator)
    return module.to(device)


def initialize(module: nn.Module, *, generator: torch.Generator) -> None:
    """Draw the parameters of convolutions, batch normalisations and linear layers anew.

    Convolutions: normal, variance 2 / fan-out. Normalisations: scale 1, shift 0, fresh statistics.
    Linear layers: uniform within 1 / sqrt(fan-in), bias 0. Weighted sums: weights 1.

    Args:
        module: A module on the CPU that consists of such layers.
        generator: Source of randomness.

    Raises:
        TypeError: Another kind of layer has parameters or buffers.

    Reference: He et al., Delving Deep into Rectifiers, ICCV 2015.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(
                layer.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            bound = 1.0 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, _RESET):
            layer.reset_parameters()
        elif next(layer.parameters(recurse=False), None) is not None or (
            next(layer.buffers(recurse=False), None) is not None
        ):
            raise TypeError(
                f"cannot initialise {name or 'the module'} of type {type(layer).__name__}: only "
                "Conv2d, Linear, WeightedSum and normalisation layers may hold parameters"
            )
