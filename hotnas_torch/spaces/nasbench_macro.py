"""NAS-Bench-Macro: eight layers in three stages, each identity or one of two blocks."""

from typing import Any

from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.spaces.base import Code
from hotnas_torch.spaces.choices import ChoiceSpace
from hotnas_torch.spaces.families import family_tree

__all__ = ["NASBenchMacro"]

OPERATIONS = ("identity", "mb3_k3", "mb6_k5")
_PROJECTION = "conv_1x1"

STAGES = ((2, 64, 2), (3, 128, 2), (3, 256, 2))
"""Layers, channels, and stride of the first layer of each stage."""

_LENGTHS = tuple(length for length, _, _ in STAGES)
_NUM_LAYERS = sum(_LENGTHS)
_FIRST_OF_STAGE = tuple(sum(_LENGTHS[:stage]) for stage in range(len(STAGES)))
_STEM_CHANNELS = 32
_CHANNELS = (64, 64, 128, 128, 128, 256, 256, 256)
_DOWNSAMPLING = (2, 2, 4, 4, 4, 8, 8, 8)


class NASBenchMacro(ChoiceSpace):
    """NAS-Bench-Macro, 6,561 architectures that compute 3,969 different things.

    Eight layers in stages of 2, 3 and 3; the first layer of a stage halves the resolution and
    doubles the channels (64, 128, 256 after a 32-channel stem). A layer is a cell with one
    operation between input and output: `identity` (a 1x1 convolution, labelled `conv_1x1`,
    where it has to change the width), `mb3_k3` (inverted bottleneck, expansion 3, kernel 3) or
    `mb6_k5`.

    The official string has one digit per layer: 0, 1, 2 in this order.

    Args:
        tree: Operation costs; default: the two bottlenecks 0.1 apart, all else 2.

    Reference: Su et al., Prioritized Architecture Sampling with Monto-Carlo Tree Search, CVPR 2021.

    Example:
        >>> space = NASBenchMacro()
        >>> net = space.from_string("02102200")
        >>> [cell.ops[1] for cell in net.cells[:3]]
        ['conv_1x1', 'mb6_k5', 'mb3_k3']
        >>> space.functional_form(net).spec
        '02120200'
    """

    name = "nasbench_macro"
    operations = OPERATIONS
    max_nodes = 3
    state_scale = (3.0, 3.0)
    mutation_period = _NUM_LAYERS

    def __init__(self, *, tree: OperationTree | None = None) -> None:
        default_tree = family_tree(
            {
                "input": None,
                "identity": None,
                _PROJECTION: None,
                "bottleneck": {"mb3_k3": None, "mb6_k5": None},
                "output": None,
            }
        )
        super().__init__(
            [f"layer {layer}" for layer in range(1, _NUM_LAYERS + 1)],
            ("input", *OPERATIONS, _PROJECTION, "output"),
            tree=tree,
            default_tree=default_tree,
        )

    def functional_form(self, net: Network) -> Network:
        """Return the network that stands for all that compute the same function as `net`.

        Identities in the layers after a stage's first leave no trace, so only the other layers'
        order counts; here they come first and the identities last.

        Raises:
            ArchitectureError: `net` is not of this space.
        """
        code = self.code_of(net)
        form: list[int] = []
        for first, length in zip(_FIRST_OF_STAGE, _LENGTHS, strict=True):
            form.append(code[first])
            form += sorted(code[first + 1 : first + length], key=lambda operation: operation == 0)
        return self.network_of(tuple(form))

    def parse_code(self, text: str) -> Code:
        for position, digit in enumerate(text[:_NUM_LAYERS]):
            if digit not in "012":
                raise self.malformed(text, position, "a digit 0, 1 or 2")
        if len(text) != _NUM_LAYERS:
            raise self.malformed(
                text, min(len(text), _NUM_LAYERS), f"{_NUM_LAYERS} digits in all, one per layer,"
            )
        return tuple(int(digit) for digit in text)

    def format_code(self, code: Code) -> str:
        return "".join(map(str, code))

    def build_network(self, code: Code) -> Network:
        cells = []
        for layer, operation in enumerate(code):
            widens = operation == 0 and layer in _FIRST_OF_STAGE
            cells.append(
                self.shared_cell(_PROJECTION if widens else OPERATIONS[operation], self._make_cell)
            )
        return Network(
            tuple(cells),
            _CHANNELS,
            _DOWNSAMPLING,
            input_channels=_STEM_CHANNELS,
            spec=self.format_code(code),
        )

    def _make_cell(self, key: Any) -> Cell:
        return Cell(("input", key, "output"), ((0, 1), (1, 2)))
