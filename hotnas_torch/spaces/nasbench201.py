"""NAS-Bench-201: one cell of six searched edges, repeated in a fixed ResNet-like skeleton."""

import re
from typing import Any

from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.arguments import boolean
from hotnas_torch.spaces.base import Code
from hotnas_torch.spaces.choices import ChoiceSpace
from hotnas_torch.spaces.edge_cells import EDGES, edge_cell
from hotnas_torch.spaces.families import family_tree

__all__ = ["NASBench201"]

NONE = "none"
SKIP = "skip_connect"
OPERATIONS = (NONE, SKIP, "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")

_TOKENS = re.compile(r"\||\+|~(\d+)|[^|+~]+")

_STEM_CHANNELS = 16
_NUM_STAGES = 3
_CELLS_PER_STAGE = 5
_REDUCTION = "reduction"


class NASBench201(ChoiceSpace):
    """The topology space of NAS-Bench-201 and NATS-Bench, 15,625 architectures.

    A cell joins four feature maps by six edges, each with one of five operations. As a
    `Cell` its nodes are the operations: edge a -> b precedes edge b -> c.
    Edges with `none` are removed, and with them whatever they leave off every path from input to
    output; a cell without such a path is `Cell(("input", "output"), ())`.

    The network is a 16-channel stem and three stages of five cells with 16, 32 and 64 channels; a
    residual block with stride 2 stands between two stages. Resolution counts from the stem's
    output.

    The official string `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|` names, for each feature map 1..3,
    the operations that lead to it and the feature maps they come from.

    Args:
        contract_skip: Replace each `skip_connect` node by direct edges from what precedes it to
            what follows it, as NAS-BOWL does. Default: it is a node.
        reduction_cells: Include the two residual blocks, which no architecture changes, as cells:
            17 cells instead of 15.
        tree: Operation costs; default: convolutions 0.1 apart, all else 2.

    Reference: Dong and Yang, NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture
        Search, ICLR 2020. The graph of operations follows Ru et al., NAS-BOWL, ICLR 2021.

    Example:
        >>> space = NASBench201()
        >>> net = space.from_string(
        ...     "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
        ... )
        >>> net.cells[0]
        Cell(ops=('input', 'skip_connect', 'output'), edges=((0, 1), (1, 2)))
    """

    name = "nasbench201"
    operations = OPERATIONS
    max_nodes = len(EDGES) + 2
    state_scale = (2.0, 2.0)
    mutation_period = 5  # as NAS-BOWL
    repeats_one_cell = True

    def __init__(
        self,
        *,
        contract_skip: bool = False,
        reduction_cells: bool = True,
        tree: OperationTree | None = None,
    ) -> None:
        default_tree = family_tree(
            {
                "input": None,
                "conv": {"nor_conv_1x1": None, "nor_conv_3x3": None},
                "avg_pool_3x3": None,
                SKIP: None,
                NONE: None,
                "output": None,
            }
        )
        super().__init__(
            [f"operation {source}->{target}" for source, target in EDGES],
            ("input", *OPERATIONS[1:], "output"),
            tree=tree,
            default_tree=default_tree,
        )
        self.contract_skip = boolean("contract_skip", contract_skip)
        self.reduction_cells = boolean("reduction_cells", reduction_cells)
        self._skeleton, self._channels, self._downsampling = _skeleton(reduction_cells)

    def parse_code(self, text: str) -> Code:
        # Walks the string along the one shape it can have, so that a fault has a position.
        tokens = _TOKENS.finditer(text)
        code = []

        def expect(expected: str, *allowed: str) -> str:
            token = next(tokens, None)
            if token is None or token.group() not in allowed:
                position = len(text) if token is None else token.start()
                raise self.malformed(text, position, expected)
            return token.group()

        for target in (1, 2, 3):
            if target > 1:
                expect("'+' between two feature maps", "+")
            expect("'|' before an operation", "|")
            for source in range(target):
                operation = expect(f"one of {', '.join(OPERATIONS)}", *OPERATIONS)
                code.append(OPERATIONS.index(operation))
                expect(f"'~{source}', the feature map the operation reads", f"~{source}")
                expect("'|' after an operation", "|")
        if (rest := next(tokens, None)) is not None:
            raise self.malformed(text, rest.start(), "nothing after the third feature map")
        return tuple(code)

    def format_code(self, code: Code) -> str:
        a, b, c, d, e, f = (OPERATIONS[operation] for operation in code)
        return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"

    def build_network(self, code: Code) -> Network:
        searched = self.shared_cell(code, self._make_cell)
        cells = tuple(
            searched if role is None else self.shared_cell(role, self._make_cell)
            for role in self._skeleton
        )
        return Network(
            cells,
            self._channels,
            self._downsampling,
            input_channels=_STEM_CHANNELS,
            spec=self.format_code(code),
        )

    def _make_cell(self, key: Any) -> Cell:
        if key == _REDUCTION:
            # Two convolutions beside an average pooling and a 1x1 convolution. The block is the
            # same in every network, so its 2x2 pooling and its stride need no own labels.
            ops = (
                "input",
                "nor_conv_3x3",
                "nor_conv_3x3",
                "avg_pool_3x3",
                "nor_conv_1x1",
                "output",
            )
            return Cell(ops, ((0, 1), (0, 3), (1, 2), (2, 5), (3, 4), (4, 5)))
        return edge_cell(
            [OPERATIONS[operation] for operation in key],
            none=NONE,
            contracted=SKIP if self.contract_skip else None,
        )

    def __repr__(self) -> str:
        return (
            f"NASBench201(contract_skip={self.contract_skip}, "
            f"reduction_cells={self.reduction_cells})"
        )


def _skeleton(
    reduction_cells: bool,
) -> tuple[tuple[str | None, ...], tuple[int, ...], tuple[int, ...]]:
    """Return per cell its role (None: the searched cell), output channels and downsampling."""
    roles: list[str | None] = []
    stages: list[int] = []
    for stage in range(_NUM_STAGES):
        if stage > 0 and reduction_cells:
            roles.append(_REDUCTION)
            stages.append(stage)
        roles += [None] * _CELLS_PER_STAGE
        stages += [stage] * _CELLS_PER_STAGE
    return (
        tuple(roles),
        tuple(_STEM_CHANNELS * 2**stage for stage in stages),
        tuple(2**stage for stage in stages),
    )
