"""Parameters and multiply-adds of networks, counted from the names of their operations."""

import re
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from hotnas_torch.arch import NestedCell, Network
from hotnas_torch.arguments import kind
from hotnas_torch.spaces.base import SearchSpace
from hotnas_torch.spaces.joint import check_architectures

__all__ = ["LayerCosts"]

_FREE = re.compile(r"input\d*|output|add|none|identity|skip_connect|(max|avg)_?pool_?\d+x\d+")
_CONVOLUTION = re.compile(r"(?:nor_)?conv_?(\d+)x\1(?:-bn-relu|_width|_stride|_both)?")
_SEPARABLE = re.compile(r"(?:sep|dil)_conv_?(\d+)x\1")
_INVERTED = re.compile(r"mb(\d+)_k(\d+)(_se)?")
# Squeeze and excitation goes through a quarter of the channels.
_SQUEEZED = 4


class LayerCosts:
    """Logarithms of the parameters and of the multiply-adds of networks.

    Convolutions are counted at the width and resolution of their cell: plain, depthwise separable
    (`sep_conv`, `dil_conv`: one of each) and inverted residuals (`mb3_k5`, `_se` with squeeze and
    excitation). Stem, head and projections between widths are not counted; one pointwise
    convolution of the widest cell stands for them. Multiply-adds are relative to one place of the
    network's input.

    Args:
        space: Space of the networks.

    Raises:
        TypeError: `space` is no search space.
        ValueError: It has operations whose costs their names do not say, or holds hyperparameters.

    Complexity: a sum over the operations of each network.

    Example:
        >>> from hotnas_torch.spaces import NASBenchMacro
        >>> space = NASBenchMacro()
        >>> nets = [space.from_string(text) for text in ("00000000", "22222222")]
        >>> costs = LayerCosts(space)(nets)
        >>> bool((costs[1] > costs[0]).all())
        True
    """

    def __init__(self, space: SearchSpace) -> None:
        kind("space", space, SearchSpace)
        check_architectures("LayerCosts", space)
        for label in space.tree.labels:
            if _counted(label, 1, 1) is None:
                raise ValueError(
                    f"space must have operations whose names say what they cost; {label!r} of"
                    f" {space!r} does not (pass a function of your own in place of LayerCosts)"
                )
        self.space = space

    def __call__(self, nets: Sequence[Network]) -> Tensor:
        """Encode networks of the space as (N, 2) float64: parameters, multiply-adds."""
        costs = [self._costs(net) for net in nets]
        return torch.tensor(costs, dtype=torch.float64).reshape(len(nets), 2).log()

    @staticmethod
    def _costs(net: Network) -> tuple[float, float]:
        parameters = multiply_adds = float(max(net.channels) ** 2)
        entering = (net.input_channels, *net.channels)
        for place, cell in enumerate(net.cells):
            width, divisor = net.channels[place], net.downsampling[place]
            flat = cell.flatten() if isinstance(cell, NestedCell) else cell
            before = entering[place] if net.is_chain else width
            found = sum(_counted(label, before, width) or 0.0 for label in flat.ops)
            parameters += found
            multiply_adds += found / divisor**2
        return parameters, multiply_adds


@lru_cache(maxsize=2**12)
def _counted(label: str, before: int, width: int) -> float | None:
    """Weights of an operation, None where its name does not say."""
    if _FREE.fullmatch(label):
        return 0.0
    if found := _CONVOLUTION.fullmatch(label):
        return float(int(found[1]) ** 2 * width * width)
    if found := _SEPARABLE.fullmatch(label):
        return float(int(found[1]) ** 2 * width + width * width)
    if found := _INVERTED.fullmatch(label):
        inside = int(found[1]) * before
        squeezed = 2 * inside * inside // _SQUEEZED if found[3] else 0
        return float(inside * (before + int(found[2]) ** 2 + width) + squeezed)
    return None
