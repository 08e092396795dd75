"""MobileNetV2 blocks for ImageNet: 21 layers, each identity or one of twelve blocks."""

import math
from typing import Any

from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.spaces.base import Code
from hotnas_torch.spaces.choices import ChoiceSpace
from hotnas_torch.spaces.families import family_tree

__all__ = ["MobileNetV2"]

_KERNELS = (3, 5, 7)
_EXPANSIONS = (3, 6)
_BLOCKS = {
    kernel: [
        f"mb{expansion}_k{kernel}{squeeze}" for expansion in _EXPANSIONS for squeeze in ("", "_se")
    ]
    for kernel in _KERNELS
}
OPERATIONS = ("identity", *(name for names in _BLOCKS.values() for name in names))
_PROJECTION = "conv_1x1"
_SYMBOLS = "0123456789abc"

STAGES = ((4, 32, 2), (4, 40, 2), (4, 80, 2), (4, 96, 1), (4, 192, 2), (1, 320, 1))
"""Layers, channels, and stride of the first layer of each stage."""

_INPUT_CHANNELS = 16
_CHANNELS = tuple(channels for length, channels, _ in STAGES for _ in range(length))
_STRIDES = tuple(
    stride if place == 0 else 1 for length, _, stride in STAGES for place in range(length)
)
_DOWNSAMPLING = tuple(math.prod(_STRIDES[: layer + 1]) for layer in range(len(_STRIDES)))


class MobileNetV2(ChoiceSpace):
    """The space of MobileNetV2 blocks with squeeze and excitation, 13^21 architectures.

    21 layers in six stages of 4, 4, 4, 4, 4 and 1 with 32, 40, 80, 96, 192 and 320 channels; the
    first layer of the first, second, third and fifth stage halves the resolution. Before them come
    a 3x3 convolution with stride 2 and a block with 16 channels. A layer is a cell with one
    operation between input and output: `identity` (a 1x1 convolution, labelled `conv_1x1`,
    where it has to change shape), or an inverted bottleneck `mb<expansion>_k<kernel>` with
    expansion 3 or 6 and kernel 3, 5 or 7, `_se` with squeeze and excitation.

    The papers name layers and operations. The widths and strides are those of ProxylessNAS's
    mobile network, which has the same 21 layers. The identity that changes shape (after
    NAS-Bench-Macro) and the official string are our choice: one symbol per layer, `0` identity,
    `1` to `9` and `a` to `c` the blocks in the order of `operations`.

    Args:
        tree: Operation costs; default: blocks of one kernel size 0.1 apart, other blocks 0.4, all
            else 2.

    Reference: Su et al., Prioritized Architecture Sampling with Monto-Carlo Tree Search, CVPR 2021;
        You et al., GreedyNAS, CVPR 2020; Cai, Zhu and Han, ProxylessNAS, ICLR 2019.

    Example:
        >>> space = MobileNetV2()
        >>> net = space.from_string("0123456789abc01234567")
        >>> [cell.ops[1] for cell in net.cells[:5]]
        ['conv_1x1', 'mb3_k3', 'mb3_k3_se', 'mb6_k3', 'mb6_k3_se']
        >>> space.size() == 13**21
        True
    """

    name = "mobilenet_v2"
    operations = OPERATIONS
    max_nodes = 3
    state_scale = (
        math.log2(_CHANNELS[-1] / _INPUT_CHANNELS),
        math.log2(_DOWNSAMPLING[-1]),
    )
    mutation_period = len(_CHANNELS)

    def __init__(self, *, tree: OperationTree | None = None) -> None:
        default_tree = family_tree(
            {
                "input": None,
                "identity": None,
                _PROJECTION: None,
                "bottleneck": {
                    f"kernel {kernel}": dict.fromkeys(names) for kernel, names in _BLOCKS.items()
                },
                "output": None,
            }
        )
        super().__init__(
            [f"layer {layer}" for layer in range(1, len(_CHANNELS) + 1)],
            ("input", *OPERATIONS, _PROJECTION, "output"),
            tree=tree,
            default_tree=default_tree,
        )

    def parse_code(self, text: str) -> Code:
        for position, symbol in enumerate(text[: self.dim]):
            if symbol not in _SYMBOLS:
                raise self.malformed(text, position, f"one of {_SYMBOLS}")
        if len(text) != self.dim:
            raise self.malformed(
                text, min(len(text), self.dim), f"{self.dim} symbols in all, one per layer,"
            )
        return tuple(_SYMBOLS.index(symbol) for symbol in text)

    def format_code(self, code: Code) -> str:
        return "".join(_SYMBOLS[operation] for operation in code)

    def build_network(self, code: Code) -> Network:
        before = (_INPUT_CHANNELS, *_CHANNELS)
        cells = []
        for layer, operation in enumerate(code):
            same = _STRIDES[layer] == 1 and before[layer] == _CHANNELS[layer]
            projects = operation == 0 and not same
            cells.append(
                self.shared_cell(
                    _PROJECTION if projects else OPERATIONS[operation], self._make_cell
                )
            )
        return Network(
            tuple(cells),
            _CHANNELS,
            _DOWNSAMPLING,
            input_channels=_INPUT_CHANNELS,
            spec=self.format_code(code),
        )

    def _make_cell(self, key: Any) -> Cell:
        return Cell(("input", key, "output"), ((0, 1), (1, 2)))
