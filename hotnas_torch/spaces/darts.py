# Over 400 lines: one space and its strings.
"""DARTS: a normal and a reduction cell, stacked to a searched depth."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.arguments import boolean, integer, shown
from hotnas_torch.spaces.base import (
    Code,
    SearchSpace,
    draw_index,
    draw_integers,
    first_row,
)
from hotnas_torch.spaces.families import family_tree

__all__ = ["DARTS", "Genotype"]

SKIP = "skip_connect"
NONE = "none"
OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    SKIP,
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
_INPUTS = ("input1", "input2")
_ADD = "add"

_MIN_DEPTH = 5
_MAX_DEPTH = 20
_DEPTH_MUTATION = 0.3
_DEPTH_STEPS = (-2, -1, 1, 2)
# Longer ones are beyond every number here, and beyond what int() reads.
_NUMBER = re.compile(r"[0-9]{1,9}")
_TOKENS = re.compile(r" +|,|:|\d+|\w+|\S")

Pairs = tuple[tuple[str, int], ...]


class Genotype(NamedTuple):
    """A DARTS architecture: 8 (operation, input) pairs per cell, two per inner node, and a depth.

    Inputs 0 and 1 are the outputs of the two previous cells, 2, 3, ... the inner nodes in order.
    """

    normal: Pairs
    reduce: Pairs
    depth: int


class DARTS(SearchSpace):
    """The DARTS space with the number of cells searched, too.

    A cell has two inputs (the two previous cells), inner nodes that each add the results of two
    operations on different earlier nodes or inputs, and an output that concatenates the inner
    nodes. As a `Cell`: one virtual `input` before `input1` and
    `input2`, a node per operation, an `add` node per inner node, `output`. A network of depth
    d has reduction cells at positions d // 3 and 2 * d // 3 (from 0), where the width doubles and
    the resolution halves, and normal cells elsewhere. The stem has 3 * `channels` channels,
    a cell before the first reduction has `num_nodes * channels`. The macro graph is the chain.

    The string is `<normal>,<reduce>,<depth>`, a cell being space-separated `op:input` pairs,
    two per inner node in either order; without `,<depth>` the depth is `max_depth`. Two
    genotypes that differ only in the order of a node's two pairs count as one.

    Args:
        min_depth: Fewest cells, >= 3.
        max_depth: Most cells.
        channels: Width C of one operation before the first reduction; 36 is the evaluation network
            of the paper, 16 its search network.
        contract_skip: Replace each `skip_connect` node by a direct edge, as NAS-BOWL does.
            Default: it is a node.
        num_nodes: Inner nodes per cell.
        operations: Operations to choose from.
        tree: Operation costs; default: separable convolutions 0.1 apart, dilated ones likewise,
            0.4 between the two kinds, poolings 0.1, all else 2.

    Raises:
        ValueError: An argument out of range; `operations` holds an unknown or repeated one.

    Reference: Liu, Simonyan and Yang, DARTS: Differentiable Architecture Search, ICLR 2019; the
        searched depth is from HOTNAS, Section 4.

    Example:
        >>> cell = "skip_connect:0 sep_conv_3x3:1 " * 3 + "avg_pool_3x3:2 dil_conv_3x3:0"
        >>> net = DARTS().from_string(f"{cell},{cell},6")
        >>> net.channels
        (144, 144, 288, 288, 576, 576)
    """

    name = "darts"

    def __init__(
        self,
        *,
        min_depth: int = _MIN_DEPTH,
        max_depth: int = _MAX_DEPTH,
        channels: int = 36,
        contract_skip: bool = False,
        num_nodes: int = 4,
        operations: Sequence[str] = OPERATIONS,
        tree: OperationTree | None = None,
    ) -> None:
        for argument, value, smallest in (
            ("min_depth", min_depth, 3),
            ("max_depth", max_depth, min_depth),
            ("channels", channels, 1),
            ("num_nodes", num_nodes, 1),
        ):
            integer(argument, value, least=smallest)
        if isinstance(operations, str) or not isinstance(operations, Sequence):
            raise TypeError(
                f"operations must be a list or tuple of labels; got {shown(operations)}"
            )
        if not operations or len(set(operations)) != len(operations):
            raise ValueError(f"operations must be distinct and not empty; got {operations!r}")
        for operation in operations:
            if operation not in OPERATIONS:
                raise ValueError(
                    f"operations must be among {', '.join(OPERATIONS)}; got {operation!r}"
                )
        self.min_depth = min_depth
        self.max_depth = max_depth
        self.channels = channels
        self.contract_skip = boolean("contract_skip", contract_skip)
        self.num_nodes = num_nodes
        self.operations = tuple(operations)
        self.max_nodes = 4 + 3 * num_nodes
        self.state_scale = (math.log2(num_nodes * 4 / 3), 2.0)
        self._index = {operation: place for place, operation in enumerate(self.operations)}
        columns = {
            f"{cell} node {node} {part} {side}": number
            for cell in ("normal", "reduce")
            for node in range(num_nodes)
            for side in (1, 2)
            for part, number in (("operation", len(self.operations)), ("input", node + 2))
        }
        super().__init__(
            columns | {"depth": range(min_depth, max_depth + 1)},
            ("input", *_INPUTS, *self.operations, _ADD, "output"),
            tree=tree,
            default_tree=_default_tree(),
        )
        self._cell_columns = 4 * num_nodes

    def size(self) -> int:
        """Return the number of genotypes.

        A cell is, for each inner node i = 0, 1, ..., an unordered pair of different inputs out of
        i + 2, with an operation each.
        """
        cells = math.prod(
            math.comb(node + 2, 2) * len(self.operations) ** 2 for node in range(self.num_nodes)
        )
        return cells**2 * (self.max_depth - self.min_depth + 1)

    def from_genotype(
        self,
        normal: str | Iterable[tuple[str, int]],
        reduce: str | Iterable[tuple[str, int]],
        *,
        depth: int | None = None,
    ) -> Network:
        """Build a network from the two cells of a DARTS genotype.

        Args:
            normal: `op:input` pairs as text, or as (operation, input) tuples, two per inner node.
            reduce: The same for the reduction cell.
            depth: Number of cells; default `max_depth`.

        Raises:
            ArchitectureError: As `from_string`.
        """
        texts = [
            cell if isinstance(cell, str) else " ".join(f"{name}:{source}" for name, source in cell)
            for cell in (normal, reduce)
        ]
        return self.from_string(
            f"{texts[0]},{texts[1]},{self.max_depth if depth is None else depth}"
        )

    def to_genotype(self, net: Network) -> Genotype:
        """Return the genotype of a network; the inverse of `from_genotype`.

        Raises:
            ArchitectureError: `net` is not of this space.
        """
        *pairs, depth = self.code_of(net)
        normal, reduce = (
            tuple(
                (self.operations[cell[place]], cell[place + 1]) for place in range(0, len(cell), 2)
            )
            for cell in (pairs[: self._cell_columns], pairs[self._cell_columns :])
        )
        return Genotype(normal, reduce, depth)

    def canonical_code(self, code: Code) -> Code:
        """Return the code with the two pairs of every inner node ordered by their input."""
        form: list[int] = []
        for place in range(0, len(code) - 1, 4):
            first, second = code[place : place + 2], code[place + 2 : place + 4]
            form += first + second if first[1] < second[1] else second + first
        return (*form, code[-1])

    def all_codes(self) -> Iterator[Code]:
        operations = range(len(self.operations))
        nodes = [
            [
                (first, source, second, other)
                for source, other in itertools.combinations(range(node + 2), 2)
                for first, second in itertools.product(operations, repeat=2)
            ]
            for node in range(self.num_nodes)
        ]
        depths = [(depth,) for depth in range(self.min_depth, self.max_depth + 1)]
        for parts in itertools.product(*nodes, *nodes, depths):
            yield tuple(itertools.chain.from_iterable(parts))

    def parse_code(self, text: str) -> Code:
        tokens = list(_TOKENS.finditer(text))
        place = 0
        code: list[int] = []

        def here() -> int:
            return tokens[place].start() if place < len(tokens) else len(text)

        def take() -> str:
            nonlocal place
            token = tokens[place].group() if place < len(tokens) else ""
            place += 1
            return token

        def expect(expected: str, *allowed: str) -> str:
            position = here()
            token = take()
            if token not in allowed:
                raise self.malformed(text, position, expected)
            return token

        def number(expected: str, low: int, high: int) -> int:
            position = here()
            token = take()
            if not _NUMBER.fullmatch(token) or not low <= int(token) <= high:
                raise self.malformed(text, position, f"{expected} in {low}..{high}")
            return int(token)

        for cell in ("normal", "reduce"):
            for pair in range(2 * self.num_nodes):
                node = pair // 2
                if pair > 0:
                    expect(
                        f"a space and pair {pair + 1} of {2 * self.num_nodes} of the {cell} cell",
                        " ",
                    )
                names = ", ".join(self.operations)
                code.append(self._index[expect(f"one of {names}", *self.operations)])
                expect("':' after an operation", ":")
                position = here()
                code.append(number(f"an input of inner node {node}", 0, node + 1))
                if pair % 2 == 1 and code[-1] == code[-3]:
                    raise self.malformed(text, position, "another input than the node's first")
            if cell == "normal":
                expect("',' between the normal and the reduction cell", ",")
        depth = self.max_depth
        if place < len(tokens):
            expect("',' before the depth", ",")
            depth = number("a depth", self.min_depth, self.max_depth)
        if place < len(tokens):
            raise self.malformed(text, here(), "nothing after the depth")
        return (*code, depth)

    def format_code(self, code: Code) -> str:
        pairs = [
            f"{self.operations[code[place]]}:{code[place + 1]}"
            for place in range(0, len(code) - 1, 2)
        ]
        half = len(pairs) // 2
        return f"{' '.join(pairs[:half])},{' '.join(pairs[half:])},{code[-1]}"

    def build_network(self, code: Code) -> Network:
        depth = code[-1]
        normal = self.shared_cell(code[: self._cell_columns], self._make_cell)
        reduction = self.shared_cell(code[self._cell_columns : -1], self._make_cell)
        reductions = (depth // 3, 2 * depth // 3)
        stages = [sum(place >= reduced for reduced in reductions) for place in range(depth)]
        return Network(
            tuple(reduction if place in reductions else normal for place in range(depth)),
            tuple(self.num_nodes * self.channels * 2**stage for stage in stages),
            tuple(2**stage for stage in stages),
            input_channels=3 * self.channels,
            spec=self.format_code(code),
        )

    def _make_cell(self, key: Any) -> Cell:
        ops = ["input", *_INPUTS]
        edges = [(0, 1), (0, 2)]
        sources = [1, 2]
        for place in range(0, len(key), 4):
            operands = []
            for operation, source in (key[place : place + 2], key[place + 2 : place + 4]):
                label = self.operations[operation]
                if label == SKIP and self.contract_skip:
                    operands.append(sources[source])
                    continue
                edges.append((sources[source], len(ops)))
                operands.append(len(ops))
                ops.append(label)
            edges += [(operand, len(ops)) for operand in operands]
            sources.append(len(ops))
            ops.append(_ADD)
        edges += [(add, len(ops)) for add in sources[2:]]
        ops.append("output")
        if {0, 1} <= set(key[1::2]):
            return Cell(tuple(ops), tuple(sorted(edges)))
        return Cell.from_edges(ops, edges, prune=True)  # an input that nothing reads

    def draw_codes(self, num: int, generator: torch.Generator) -> list[Code]:
        drawn = torch.empty(num, self.dim, dtype=torch.int64)
        for node in range(self.num_nodes):
            pairs = torch.combinations(torch.arange(node + 2))
            for cell in (0, self._cell_columns):
                start = cell + 4 * node
                chosen = draw_integers(len(pairs), (num,), generator)
                drawn[:, start + 1 : start + 4 : 2] = pairs[chosen]
                drawn[:, start : start + 4 : 2] = draw_integers(
                    len(self.operations), (num, 2), generator
                )
        depths = self.max_depth - self.min_depth + 1
        drawn[:, -1] = self.min_depth + draw_integers(depths, (num,), generator)
        return [tuple(code) for code in drawn.tolist()]

    def mutate_code(self, code: Code, generator: torch.Generator) -> Code:
        # Depth with probability 0.3, otherwise one operation or one input of either cell.
        groups = [self._depth_edits(code), self._edits_of(code, 1), self._edits_of(code, 0)]
        choice = torch.rand((), generator=generator, device=generator.device).item()
        rest = (1 - _DEPTH_MUTATION) / 2
        order = (0, 1, 2) if choice < _DEPTH_MUTATION else (1, 2, 0)
        if choice >= _DEPTH_MUTATION + rest:
            order = (2, 1, 0)
        edits = next((found for group in order if (found := list(groups[group]))), [code])
        return edits[draw_index(len(edits), generator)]

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        yield from self._edits_of(code, 0)
        yield from self._edits_of(code, 1)
        yield from self._depth_edits(code)

    def _edits_of(self, code: Code, part: int) -> Iterator[Code]:
        """Yield the codes with one operation (`part` 0) or one input (`part` 1) changed."""
        for column in range(part, len(code) - 1, 2):
            taken = {code[column]}
            if part == 1:
                taken.add(code[column + 2 if column % 4 == 1 else column - 2])
            for value in self.values[column]:
                if value not in taken:
                    yield (*code[:column], value, *code[column + 1 :])

    def _depth_edits(self, code: Code) -> Iterator[Code]:
        for step in _DEPTH_STEPS:
            if self.min_depth <= code[-1] + step <= self.max_depth:
                yield (*code[:-1], code[-1] + step)

    def find_fault(self, rows: Tensor) -> tuple[int, str] | None:
        if fault := super().find_fault(rows):
            return fault
        inputs = rows[:, 1:-1:2]
        return first_row(
            (inputs[:, ::2] == inputs[:, 1::2]).any(dim=1),
            "the two inputs of an inner node must differ",
        )

    def __repr__(self) -> str:
        options = f"min_depth={self.min_depth}, max_depth={self.max_depth}"
        if self.num_nodes != 4:
            options += f", num_nodes={self.num_nodes}"
        if self.operations != OPERATIONS:
            options += f", operations={self.operations}"
        return f"DARTS({options}, channels={self.channels}, contract_skip={self.contract_skip})"


def _default_tree() -> OperationTree:
    return family_tree(
        {
            "input": None,
            **dict.fromkeys(_INPUTS),
            "pool": {"max_pool_3x3": None, "avg_pool_3x3": None},
            SKIP: None,
            "conv": {
                "sep_conv": {"sep_conv_3x3": None, "sep_conv_5x5": None},
                "dil_conv": {"dil_conv_3x3": None, "dil_conv_5x5": None},
            },
            _ADD: None,
            NONE: None,
            "output": None,
        }
    )
