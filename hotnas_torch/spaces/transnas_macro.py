"""TransNAS-Bench-101 macro: four to six residual modules, each may widen and may downsample."""

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.arguments import choice
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces.base import (
    Code,
    SearchSpace,
    draw_index,
    draw_integers,
    first_row,
)
from hotnas_torch.spaces.families import family_tree

__all__ = ["TransNASMacro"]

_BASE_CHANNELS = 64
_LENGTHS = (4, 5, 6)
_MAX_LENGTH = max(_LENGTHS)
_MIN_CHANGES = 1
_MAX_DOWNSAMPLING = 4
_MAX_WIDENING = 3

# Module types 1..4 as (doubles the width, halves the resolution).
_CHANGES = ((0, 0), (1, 0), (0, 1), (1, 1))
_FIRST_CONV = ("conv3x3", "conv3x3_width", "conv3x3_stride", "conv3x3_both")
_CONV = _FIRST_CONV[0]
_SKIP = "skip_connect"
_PROJECTION = "conv1x1"
# Block: two convolutions beside a shortcut; the second block reads the sum of the first.
_EDGES = (
    (0, 1), (0, 3), (1, 2), (2, 4), (2, 6), (3, 4), (3, 6), (4, 5), (5, 7), (6, 7),
)  # fmt: skip

_PREFIX = f"{_BASE_CHANNELS}-"
_SUFFIX = "-basic"


class TransNASMacro(SearchSpace):
    """The macro space of TransNAS-Bench-101, 3,256 networks.

    A network has 4 to 6 modules after a 64-channel stem. A module is two ResNet basic blocks, as a
    cell: input -> [conv, conv beside a shortcut] twice -> output. What a module changes happens in
    its first block: type 1 keeps width and resolution, 2 doubles the width, 3 halves the
    resolution, 4 does both. The label of the first convolution says which; the first shortcut is
    `skip_connect` for type 1 and the projection `conv1x1` otherwise. One to three modules
    double the width, one to four halve the resolution. Resolution counts from the stem's output
    (the stem itself divides the image by 4).

    The official string `64-<digits>-basic` has one digit per module. Mutations and neighbours
    replace, insert or delete one module.

    Args:
        variant_cost: Cost between the variants of the first convolution. `"hamming"` (default):
            the number of differences in (width, resolution), so 1 or 2. No tree has these path
            lengths (they are those of a 4-cycle), hence `tree` is a cost matrix. `"paper"`:
            0.1 between any two convolutions, after the poster of HOTNAS, which hardly tells
            networks apart. `preset="paper"` of distances and searches has these costs in any case.
        tree: Operation costs instead of either, under every preset.

    Raises:
        ValueError: Unknown `variant_cost`.

    Reference: Duan et al., TransNAS-Bench-101, CVPR 2021.

    Example:
        >>> net = TransNASMacro().from_string("64-1234-basic")
        >>> net.channels, net.downsampling
        ((64, 128, 128, 256), (1, 1, 2, 4))
    """

    name = "transnas_macro"
    operations = _FIRST_CONV
    max_nodes = 8
    state_scale = (float(_MAX_WIDENING), float(_MAX_DOWNSAMPLING))

    def __init__(
        self,
        *,
        variant_cost: Literal["hamming", "paper"] = "hamming",
        tree: OperationTree | None = None,
    ) -> None:
        choice("variant_cost", variant_cost, ("hamming", "paper"))
        labels = ("input", *_FIRST_CONV, _PROJECTION, _SKIP, "output")
        super().__init__(
            {f"module {place}": len(_CHANGES) + 1 for place in range(1, _MAX_LENGTH + 1)},
            labels,
            tree=tree,
            default_tree=_hamming_costs(labels) if variant_cost == "hamming" else _paper_tree(),
            published_tree=_paper_tree() if tree is None else None,
        )
        self.variant_cost = variant_cost

    def size(self) -> int:
        """Return the number of networks, by enumeration of all module sequences."""
        return len(_all_codes())

    def all_codes(self) -> Iterator[Code]:
        return iter(_all_codes())

    def parse_code(self, text: str) -> Code:
        if not text.startswith(_PREFIX):
            raise self.malformed(text, 0, repr(_PREFIX))
        start = len(_PREFIX)
        end = start
        while end < len(text) and text[end] in "1234":
            end += 1
        if text[end:] != _SUFFIX:
            raise self.malformed(text, end, f"a module 1, 2, 3 or 4, or {_SUFFIX!r} at the end")
        modules = tuple(int(digit) for digit in text[start:end])
        if (fault := _fault(modules)) is not None:
            raise ArchitectureError(f"{text!r} is no {self.name} string: {fault}")
        return _pad(modules)

    def format_code(self, code: Code) -> str:
        return _PREFIX + "".join(str(module) for module in code if module) + _SUFFIX

    def build_network(self, code: Code) -> Network:
        modules = _modules(code)
        widenings = itertools.accumulate(_CHANGES[module - 1][0] for module in modules)
        halvings = itertools.accumulate(_CHANGES[module - 1][1] for module in modules)
        return Network(
            tuple(self.shared_cell(module, self._make_cell) for module in modules),
            tuple(_BASE_CHANNELS * 2**count for count in widenings),
            tuple(2**count for count in halvings),
            input_channels=_BASE_CHANNELS,
            spec=self.format_code(code),
        )

    def _make_cell(self, key: Any) -> Cell:
        first = _FIRST_CONV[key - 1]
        shortcut = _SKIP if key == 1 else _PROJECTION
        return Cell(("input", first, _CONV, shortcut, _CONV, _CONV, _SKIP, "output"), _EDGES)

    def draw_codes(self, num: int, generator: torch.Generator) -> list[Code]:
        everything = _all_codes()
        return [everything[i] for i in draw_integers(len(everything), (num,), generator).tolist()]

    def mutate_code(self, code: Code, generator: torch.Generator) -> Code:
        edits = _all_edits(code)
        return edits[draw_index(len(edits), generator)]

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        return iter(_all_edits(code))

    def find_fault(self, rows: Tensor) -> tuple[int, str] | None:
        present = rows != 0
        lengths = present.sum(dim=1)
        changes = torch.tensor(((0, 0), *_CHANGES))[rows.clamp(0, 4)].sum(dim=1)
        widening, downsampling = changes.unbind(dim=1)
        return (
            super().find_fault(rows)
            or first_row(
                (present[:, 1:] > present[:, :-1]).any(dim=1),
                "a module follows an absent one (0); absent modules come last",
            )
            or first_row(lengths < min(_LENGTHS), _LENGTH_RULE)
            or first_row(
                (downsampling < _MIN_CHANGES) | (downsampling > _MAX_DOWNSAMPLING),
                _DOWNSAMPLING_RULE,
            )
            or first_row((widening < _MIN_CHANGES) | (widening > _MAX_WIDENING), _WIDENING_RULE)
        )

    def __repr__(self) -> str:
        return f"TransNASMacro(variant_cost={self.variant_cost!r})"


_LENGTH_RULE = f"it must have {min(_LENGTHS)} to {_MAX_LENGTH} modules"
_DOWNSAMPLING_RULE = (
    f"{_MIN_CHANGES} to {_MAX_DOWNSAMPLING} modules must halve the resolution (types 3 and 4)"
)
_WIDENING_RULE = f"{_MIN_CHANGES} to {_MAX_WIDENING} modules must double the width (types 2 and 4)"


def _fault(modules: Code) -> str | None:
    if len(modules) not in _LENGTHS:
        return f"{_LENGTH_RULE}; got {len(modules)}"
    widening, downsampling = map(sum, zip(*(_CHANGES[m - 1] for m in modules), strict=True))
    if not _MIN_CHANGES <= downsampling <= _MAX_DOWNSAMPLING:
        return f"{_DOWNSAMPLING_RULE}; got {downsampling}"
    if not _MIN_CHANGES <= widening <= _MAX_WIDENING:
        return f"{_WIDENING_RULE}; got {widening}"
    return None


def _pad(modules: Code) -> Code:
    return (*modules, *(0,) * (_MAX_LENGTH - len(modules)))


def _modules(code: Code) -> Code:
    return tuple(module for module in code if module)


@cache
def _all_codes() -> tuple[Code, ...]:
    sequences = itertools.chain.from_iterable(
        itertools.product((1, 2, 3, 4), repeat=length) for length in _LENGTHS
    )
    return tuple(_pad(modules) for modules in sequences if _fault(modules) is None)


@cache
def _all_edits(code: Code) -> tuple[Code, ...]:
    modules = _modules(code)
    edited = []
    for place in range(len(modules)):
        before, after = modules[:place], modules[place + 1 :]
        edited += [(*before, other, *after) for other in (1, 2, 3, 4) if other != modules[place]]
    for place in range(len(modules) + 1):
        before, after = modules[:place], modules[place:]
        edited += [(*before, other, *after) for other in (1, 2, 3, 4)]
    edited += [modules[:place] + modules[place + 1 :] for place in range(len(modules))]
    # Inserting a module beside an equal one gives the same network on either side.
    return tuple(_pad(found) for found in dict.fromkeys(edited) if _fault(found) is None)


def _hamming_costs(labels: tuple[str, ...]) -> OperationTree:
    costs = [[0.0 if row == column else 2.0 for column in labels] for row in labels]
    for first, change in zip(_FIRST_CONV, _CHANGES, strict=True):
        for second, other in zip(_FIRST_CONV, _CHANGES, strict=True):
            differences = sum(a != b for a, b in zip(change, other, strict=True))
            costs[labels.index(first)][labels.index(second)] = float(differences)
    return OperationTree.from_matrix(labels, costs)


def _paper_tree() -> OperationTree:
    convolutions = dict.fromkeys((*_FIRST_CONV, _PROJECTION))
    return family_tree({"input": None, "conv": convolutions, _SKIP: None, "output": None})
