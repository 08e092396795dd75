"""TransNAS-Bench-101 micro: one cell of six searched edges, repeated in five modules."""

from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.spaces.base import Code
from hotnas_torch.spaces.choices import ChoiceSpace
from hotnas_torch.spaces.edge_cells import EDGES, edge_cell
from hotnas_torch.spaces.families import family_tree

__all__ = ["TransNASMicro"]

NONE = "none"
SKIP = "skip_connect"
OPERATIONS = (NONE, SKIP, "conv1x1", "conv3x3")

_BASE_CHANNELS = 64
_PREFIX = f"{_BASE_CHANNELS}-41414-"
# Of each module, relative to the stem: type 4 doubles the width and halves the resolution.
_CHANGES = (2, 2, 4, 4, 8)
_CELLS_PER_MODULE = 2
_STATES = tuple(change for change in _CHANGES for _ in range(_CELLS_PER_MODULE))

# Characters of the part that is searched: an edge's digit, or what separates feature maps.
_SHAPE = "._.._..."


class TransNASMicro(ChoiceSpace):
    """The cell space of TransNAS-Bench-101, 4,096 networks.

    A cell joins four feature maps by six edges, each with one of four operations. As a `Cell` its
    nodes are the operations: edge a -> b precedes edge b -> c. Edges with `none` are removed, and
    with them whatever they leave off every path from input to output; a cell without such a path
    is `Cell(("input", "output"), ())`.

    The network is a 64-channel stem, which divides the resolution by 4, and five modules of two
    cells with 128, 128, 256, 256 and 512 channels. Modules 1, 3 and 5 halve the resolution in the
    first of their cells, where operations that read the cell's input have stride 2, and
    `skip_connect` is a strided 1x1 convolution (a factorized reduction) under the same label.
    Resolution counts from the stem's output.

    The official string `64-41414-a_bc_def` has a digit per edge, by the feature maps 1, 2, 3 that
    they lead to and the feature maps 0, 1, 2 that they come from: 0 `none`, 1 `skip_connect`,
    2 `conv1x1`, 3 `conv3x3`.

    Args:
        tree: Operation costs; default: convolutions 0.1 apart, all else 2.

    Reference: Duan et al., TransNAS-Bench-101, CVPR 2021.

    Example:
        >>> net = TransNASMicro().from_string("64-41414-3_00_102")
        >>> net.cells[0]
        Cell(ops=('input', 'skip_connect', 'output'), edges=((0, 1), (1, 2)))
        >>> net.channels[::2], net.downsampling[::2]
        ((128, 128, 256, 256, 512), (2, 2, 4, 4, 8))
    """

    name = "transnas_micro"
    operations = OPERATIONS
    max_nodes = len(EDGES) + 2
    state_scale = (3.0, 3.0)
    mutation_period = len(EDGES)
    repeats_one_cell = True

    def __init__(self, *, tree: OperationTree | None = None) -> None:
        default_tree = family_tree(
            {
                "input": None,
                "conv": {"conv1x1": None, "conv3x3": None},
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

    def parse_code(self, text: str) -> Code:
        if not text.startswith(_PREFIX):
            raise self.malformed(text, 0, repr(_PREFIX))
        for position, wanted in enumerate(_SHAPE, len(_PREFIX)):
            found = text[position : position + 1]
            if wanted == "_" and found != "_":
                raise self.malformed(text, position, "'_' between two feature maps")
            if wanted == "." and (not found or found not in "0123"):
                raise self.malformed(text, position, "an operation 0, 1, 2 or 3")
        end = len(_PREFIX) + len(_SHAPE)
        if len(text) > end:
            raise self.malformed(text, end, "nothing after the sixth operation")
        return tuple(int(digit) for digit in text[len(_PREFIX) :] if digit != "_")

    def format_code(self, code: Code) -> str:
        a, b, c, d, e, f = code
        return f"{_PREFIX}{a}_{b}{c}_{d}{e}{f}"

    def build_network(self, code: Code) -> Network:
        return Network(
            (self.shared_cell(code, _cell),) * len(_STATES),
            tuple(_BASE_CHANNELS * change for change in _STATES),
            _STATES,
            input_channels=_BASE_CHANNELS,
            spec=self.format_code(code),
        )


def _cell(code: Code) -> Cell:
    return edge_cell([OPERATIONS[operation] for operation in code], none=NONE)
