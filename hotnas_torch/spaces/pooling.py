"""Where a ResNet-20 pools: two poolings among ten layers."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.spaces.base import Code, SearchSpace, draw_index, draw_integers, first_row
from hotnas_torch.spaces.families import family_tree

__all__ = ["Pooling"]

_NUM_LAYERS = 10
_NUM_BLOCKS = 3
_LAYERS = range(1, _NUM_LAYERS - _NUM_BLOCKS + 2)
_CHANNELS = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
_STEM_CHANNELS = _CHANNELS[0]

_CONV = "conv_3x3"
_PROJECTION = "conv_1x1"
_SKIP = "skip_connect"
_POOL = "max_pool_2x2"
_STEM = "stem"

_TOKENS = re.compile(r"\s*(\d+|\[|\]|,|\S|$)")


class Pooling(SearchSpace):
    """The pooling space of ResNet-20 on CIFAR-10, 36 networks.

    Ten layers of fixed width (a stem convolution, then nine residual blocks with 16, 32 and 64
    channels) and two 2x2 max-poolings, each before another of the layers 2..10. The official string
    `[a,b,c]` counts the layers at full, half and quarter resolution. Every layer is a cell; one
    that starts with a pooling has it as its first node. A mutation or a neighbour moves one pooling
    by one layer.

    Args:
        tree: Operation costs; default: convolutions 0.1 apart, all else 2.

    Reference: Roshtkhari, Toews and Pedersoli, Balanced Mixture of Supernets for Learning the CNN
        Pooling Architecture, AutoML 2023.

    Example:
        >>> net = Pooling().from_string("[7,1,2]")
        >>> net.downsampling
        (1, 1, 1, 1, 1, 1, 1, 2, 4, 4)
    """

    name = "pooling"
    operations = (_POOL,)
    max_nodes = 6
    state_scale = (2.0, 2.0)

    def __init__(self, *, tree: OperationTree | None = None) -> None:
        default_tree = family_tree(
            {
                "input": None,
                "conv": {_PROJECTION: None, _CONV: None},
                _SKIP: None,
                _POOL: None,
                "output": None,
            }
        )
        super().__init__(
            {f"layers at 1/{2**block} resolution": _LAYERS for block in range(_NUM_BLOCKS)},
            ("input", _CONV, _PROJECTION, _SKIP, _POOL, "output"),
            tree=tree,
            default_tree=default_tree,
        )

    def all_codes(self) -> Iterator[Code]:
        for full in range(1, _NUM_LAYERS - 1):
            for half in range(1, _NUM_LAYERS - full):
                yield full, half, _NUM_LAYERS - full - half

    def parse_code(self, text: str) -> Code:
        position = 0

        def expect(pattern: str, expected: str) -> str:
            nonlocal position
            token = _TOKENS.match(text, position)
            if token is None or not re.fullmatch(pattern, token.group(1)):
                start = position if token is None else token.start(1)
                raise self.malformed(text, start, expected)
            position = token.end()
            return token.group(1)

        code = []
        for block in range(_NUM_BLOCKS):
            expect(r"," if block else r"\[", "','" if block else "'['")
            start = position
            # Longer ones are beyond every number of layers, and beyond what int() reads.
            code.append(int(expect(r"[1-9][0-9]{0,8}", "a number of layers, at least 1,")))
        expect(r"\]", "']' after three numbers")
        expect("", "nothing after ']'")
        if sum(code) != _NUM_LAYERS:
            raise self.malformed(
                text, start, f"numbers that sum to {_NUM_LAYERS} (they sum to {sum(code)})"
            )
        return tuple(code)

    def format_code(self, code: Code) -> str:
        return "[" + ",".join(map(str, code)) + "]"

    def build_network(self, code: Code) -> Network:
        full, half, _ = code
        cells = []
        downsampling = []
        for layer, channels in enumerate(_CHANNELS):
            if layer == 0:
                cells.append(self.shared_cell(_STEM, self._make_cell))
            else:
                widens = channels != _CHANNELS[layer - 1]
                pools = layer in (full, full + half)
                cells.append(self.shared_cell((widens, pools), self._make_cell))
            downsampling.append(2 ** ((layer >= full) + (layer >= full + half)))
        return Network(
            tuple(cells),
            _CHANNELS,
            tuple(downsampling),
            input_channels=_STEM_CHANNELS,
            spec=self.format_code(code),
        )

    def _make_cell(self, key: Any) -> Cell:
        if key == _STEM:
            return Cell(("input", _CONV, "output"), ((0, 1), (1, 2)))
        widens, pools = key
        shortcut = _PROJECTION if widens else _SKIP
        block = (_CONV, _CONV, shortcut)
        if not pools:
            return Cell(("input", *block, "output"), ((0, 1), (0, 3), (1, 2), (2, 4), (3, 4)))
        return Cell(
            ("input", _POOL, *block, "output"), ((0, 1), (1, 2), (1, 4), (2, 3), (3, 5), (4, 5))
        )

    def draw_codes(self, num: int, generator: torch.Generator) -> list[Code]:
        everything = list(self.all_codes())
        return [everything[i] for i in draw_integers(len(everything), (num,), generator).tolist()]

    def mutate_code(self, code: Code, generator: torch.Generator) -> Code:
        edits = list(self.neighbor_codes(code))
        return edits[draw_index(len(edits), generator)]

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        a, b, c = code
        for edited in ((a + 1, b - 1, c), (a - 1, b + 1, c), (a, b + 1, c - 1), (a, b - 1, c + 1)):
            if min(edited) >= 1:
                yield edited

    def find_fault(self, rows: Tensor) -> tuple[int, str] | None:
        return first_row((rows < 1).any(dim=1), "each resolution needs at least one layer") or (
            first_row(rows.sum(dim=1) != _NUM_LAYERS, f"the layers must sum to {_NUM_LAYERS}")
        )
