"""ENAS macro: a chain of layers, each with a searched operation and searched skip connections."""

import re
from itertools import accumulate

from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.arguments import integer
from hotnas_torch.spaces.base import Code
from hotnas_torch.spaces.choices import ChoiceSpace
from hotnas_torch.spaces.families import family_tree

__all__ = ["ENASMacro"]

OPERATIONS = (
    "conv_3x3",
    "sep_conv_3x3",
    "conv_5x5",
    "sep_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
)

_STEM_CHANNELS = 36
# Two factorized reductions, each halving the resolution and doubling the channels.
_FINAL_CHANGE = 4
_MIN_LAYERS = 3
_MAX_LAYERS = 24
_TOKENS = re.compile(r", |\d+|.", re.DOTALL)


class ENASMacro(ChoiceSpace):
    """The macro space of ENAS: layers in a chain, with skip connections from all layers before.

    Each layer applies one of six operations to the layer before it, and may add the outputs of
    any earlier ones, of the stem among them; the layer before it is always read. With the 6 layers
    of the published values these are 6^6 * 2^15 networks, with the 12 of ENAS 6^12 * 2^66.

    The network is one cell, the graph of D-VAE: the stem is its input, node i is layer i, and the
    output reads the last layer. (ENAS adds skip connections to what the operation computes;
    as in D-VAE, they are edges into the layer's node.) Factorized reductions after a third and two
    thirds of the layers halve the resolution of all layers so far; trained by itself, a network
    doubles its channels there, from 36 to 144, and so it is written down here.

    The official string is a list per layer, `[[1], [4, 0], [5, 0, 1], ...]`: its operation,
    0 `conv_3x3`, 1 `sep_conv_3x3`, 2 `conv_5x5`, 3 `sep_conv_5x5`, 4 `avg_pool_3x3`,
    5 `max_pool_3x3`, and for the stem and each layer but the last before it whether it is read, 0
    or 1. An encoded row holds first the operations, then the skip connections.

    Args:
        num_layers: How many layers, 3 to 24; 6 as in the published values, 12 as in ENAS.
        tree: Operation costs; default: kernel sizes and poolings 0.1 apart, convolutions and
            separable ones 0.4, all else 2.

    Raises:
        TypeError, ValueError: `num_layers` is no integer or out of range.

    Reference: Pham et al., Efficient Neural Architecture Search via Parameter Sharing, ICML 2018,
        Section 2.3; Zhang et al., D-VAE, NeurIPS 2019, for 6 layers and the graph.

    Example:
        >>> net = ENASMacro(num_layers=3).from_string("[[0], [5, 1], [3, 0, 1]]")
        >>> net.cells[0].ops
        ('input', 'conv_3x3', 'max_pool_3x3', 'sep_conv_5x5', 'output')
        >>> net.cells[0].edges
        ((0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (3, 4))
    """

    name = "enas_macro"
    operations = OPERATIONS
    state_scale = (2.0, 2.0)
    repeats_one_cell = True

    def __init__(self, *, num_layers: int = 6, tree: OperationTree | None = None) -> None:
        self.num_layers = integer("num_layers", num_layers, least=_MIN_LAYERS, most=_MAX_LAYERS)
        default_tree = family_tree(
            {
                "input": None,
                "convolution": {
                    "conv": {"conv_3x3": None, "conv_5x5": None},
                    "sep_conv": {"sep_conv_3x3": None, "sep_conv_5x5": None},
                },
                "pool": {"avg_pool_3x3": None, "max_pool_3x3": None},
                "output": None,
            }
        )
        layers = range(1, self.num_layers + 1)
        skips = [(source, layer) for layer in layers for source in range(layer - 1)]
        super().__init__(
            [
                *(f"operation {layer}" for layer in layers),
                *(f"skip {source}->{layer}" for source, layer in skips),
            ],
            ("input", *OPERATIONS, "output"),
            tree=tree,
            default_tree=default_tree,
            numbers=[len(OPERATIONS)] * self.num_layers + [2] * len(skips),
        )
        self.max_nodes = self.num_layers + 2
        self.operation_columns = tuple(range(self.num_layers))
        self.mutation_period = self.dim
        self._skips = skips

    def parse_code(self, text: str) -> Code:
        # Walks the string along the one shape it can have, so that a fault has a position.
        tokens = _TOKENS.finditer(text)
        operations: list[int] = []
        skips: list[int] = []

        def expect(expected: str, *allowed: str) -> str:
            token = next(tokens, None)
            if token is None or token.group() not in allowed:
                position = len(text) if token is None else token.start()
                raise self.malformed(text, position, expected)
            return token.group()

        expect("'[' before the layers", "[")
        for layer in range(self.num_layers):
            if layer > 0:
                expect("', ' between two layers", ", ")
            expect(f"'[' before layer {layer + 1} of {self.num_layers}", "[")
            operations.append(int(expect("an operation 0..5", *"012345")))
            for source in range(layer):
                expect(f"', ' and whether layer {layer + 1} reads {source}", ", ")
                skips.append(int(expect("0 or 1", "0", "1")))
            expect(f"']' after {layer} skip connections of layer {layer + 1}", "]")
        expect(f"']' after layer {self.num_layers}", "]")
        if (rest := next(tokens, None)) is not None:
            raise self.malformed(text, rest.start(), "nothing after the layers")
        return (*operations, *skips)

    def format_code(self, code: Code) -> str:
        ends = list(accumulate(range(self.num_layers), initial=self.num_layers))
        layers = [
            f"[{', '.join(map(str, (code[layer], *code[ends[layer] : ends[layer + 1]])))}]"
            for layer in range(self.num_layers)
        ]
        return f"[{', '.join(layers)}]"

    def build_network(self, code: Code) -> Network:
        return Network(
            (self.shared_cell(code, self._make_cell),),
            (_STEM_CHANNELS * _FINAL_CHANGE,),
            (_FINAL_CHANGE,),
            input_channels=_STEM_CHANNELS,
            spec=self.format_code(code),
        )

    def _make_cell(self, code: Code) -> Cell:
        operations, flags = code[: self.num_layers], code[self.num_layers :]
        chain = ((layer, layer + 1) for layer in range(self.num_layers + 1))
        read = (skip for skip, flag in zip(self._skips, flags, strict=True) if flag)
        labels = ("input", *(OPERATIONS[operation] for operation in operations), "output")
        return Cell(labels, tuple(sorted((*chain, *read))))

    def __repr__(self) -> str:
        return f"ENASMacro(num_layers={self.num_layers})"
