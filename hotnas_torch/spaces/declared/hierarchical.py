"""The hierarchical NAS-Bench-201: a grammar from the stages down to the convolution block."""

from itertools import product
from typing import Any, Literal

from hotnas_torch.arch import Cell, NestedCell, OperationTree
from hotnas_torch.arguments import choice
from hotnas_torch.spaces.declared.block import Block
from hotnas_torch.spaces.declared.choices import Choices
from hotnas_torch.spaces.declared.places import Choice

__all__ = ["hierarchical_nasbench201"]

_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_ACTIVATIONS = ("relu", "hardswish", "mish")
_CONVOLUTIONS = ("conv1x1", "conv3x3", "dconv3x3")
_NORMALISATIONS = ("batch", "instance", "layer")
_OTHERS = ("id", "avg_pool", "residual block")
_MOST_NODES = 8
"""Of a cell: its six operations and the two ends."""
_TAKEN = {"kind": ["conv", "again"]}


def hierarchical_nasbench201(*, convolutions: Literal["label", "graph"] = "label") -> Choices:
    """Return the hierarchical NAS-Bench-201, a space of about 10^446 networks.

    A network is a nested cell of four levels: three or four stages in a chain, two of which halve
    the resolution and double the channels by a residual block at their end; a stage is a chain of
    blocks, the last one perhaps beside the others; a block is a chain of cells likewise; a cell has
    six operations between four feature maps. An operation is `id`, `avg_pool`, absent, or a
    convolution block of an activation, a convolution and a normalisation. The published grammar
    lists the convolution block twice, hence its kinds `conv` and `again`.

    A cell may lead nowhere; the paper redraws such cells.

    Args:
        convolutions: A convolution block as one operation, `"relu-conv3x3-batch"`, or as a chain of
            three, a fifth level. Rows, strings and edits are the same in both.

    Raises:
        ValueError: `convolutions` is neither.

    Reference: Schrodi et al., Construction of Hierarchical Neural Architecture Search Spaces based
        on Context-free Grammars, NeurIPS 2023.

    Example:
        >>> import torch
        >>> space = hierarchical_nasbench201()
        >>> net = space.sample_one(generator=torch.Generator().manual_seed(0))
        >>> len(str(space.size())) - 1, net.cells[0].depth
        (446, 4)
    """
    choice("convolutions", convolutions, ("label", "graph"))
    operations = Block(
        {
            "kind": ["id", "zero", "avg_pool", "conv", "again"],
            "act": Choice(list(_ACTIVATIONS), when=_TAKEN),
            "conv": Choice(list(_CONVOLUTIONS), when=_TAKEN),
            "norm": Choice(list(_NORMALISATIONS), when=_TAKEN),
        },
        _operation if convolutions == "label" else _operation_graph,
    )
    cell = Block({f"{i}->{j}": operations for i, j in _EDGES}, _cell)
    rules = ["Linear2", "Linear3", "Residual2"]
    block = Block(
        {"rule": rules, "a": cell, "b": cell, "c": Choice(cell, when={"rule": rules[1:]})},
        _assembled,
    )
    reduction = Block(
        {"rule": rules, "a": cell, "b": Choice(cell, when={"rule": "Linear3"})}, _reduced
    )
    down, end = _stage(block, reduction), _stage(block, cell)
    last = ["Linear3 D1 D1 D0", "Linear4 D1 D1 D0 D0"]
    choices = {
        "rule": [last[0], "Linear3 D0 D1 D1", last[1]],
        "first": Choice(end, when={"rule": "Linear3 D0 D1 D1"}),
        "a": down,
        "b": down,
        "third": Choice(end, when={"rule": last}),
        "fourth": Choice(end, when={"rule": last[1]}),
    }
    tree = _label_tree() if convolutions == "label" else _part_tree()
    return Choices(
        choices,
        _assembled,
        name="hierarchical_nasbench201",
        operations=tuple(label for label in tree.labels if label not in ("input", "output")),
        tree=tree,
        max_nodes=_MOST_NODES,
        state_scale=(1.0, 1.0),
    )


def _operation(chosen: dict[str, Any]) -> str:
    if "conv" not in chosen:
        return str(chosen["kind"])
    return "-".join(chosen[name] for name in ("act", "conv", "norm"))


def _operation_graph(chosen: dict[str, Any]) -> str | Cell:
    if "conv" not in chosen:
        return str(chosen["kind"])
    parts = (chosen[name] for name in ("act", "conv", "norm"))
    return Cell(("input", *parts, "output"), ((0, 1), (1, 2), (2, 3), (3, 4)))


def _cell(chosen: dict[str, Any]) -> Cell:
    """Operations on the edges between four maps, as nodes that read what leads to their map."""
    nodes: list[Any] = ["input", *chosen.values(), "output"]
    pairs = [(0, e + 1) for e in range(6) if _EDGES[e][0] == 0]
    pairs += [
        (e + 1, f + 1) for e, f in product(range(6), repeat=2) if _EDGES[e][1] == _EDGES[f][0]
    ]
    pairs += [(e + 1, 7) for e in range(6) if _EDGES[e][1] == 3]
    wired = [(i, j) for i, j in pairs if "zero" not in (nodes[i], nodes[j])]
    places = ["input", *map(str, range(1, 7)), "output"]
    wiring = Cell.from_edges(places, wired, prune=True)
    kept = ["input", *(nodes[int(place)] for place in wiring.ops[1:-1]), "output"]
    if any(isinstance(node, Cell) for node in kept):
        return NestedCell.from_nodes(kept, wiring.edges)
    return Cell(tuple(kept), wiring.edges)


def _assembled(chosen: dict[str, Any]) -> NestedCell:
    """LinearN is a chain; of ResidualN, the last part is beside the others."""
    rule, *parts = chosen.values()
    end = len(parts) + 1
    chain = [(i, i + 1) for i in range(end)]
    if rule.startswith("Residual"):
        chain = [*chain[: end - 2], (end - 2, end), (0, end - 1), (end - 1, end)]
    return NestedCell.from_nodes(["input", *parts, "output"], chain)


def _reduced(chosen: dict[str, Any]) -> NestedCell:
    blocks = ("first", "second")[: 2 if chosen["rule"] == "Residual2" else 1]
    return _assembled(chosen | dict.fromkeys(blocks, "residual block"))


def _stage(block: Block, end: Block) -> Block:
    rules = ["Linear3", "Linear4", "Residual3"]
    return Block(
        {
            "rule": rules,
            "a": block,
            "b": block,
            "c": Choice(block, when={"rule": "Linear4"}),
            "end": end,
            "side": Choice(end, when={"rule": "Residual3"}),
        },
        _assembled,
    )


def _label_tree() -> OperationTree:
    """Convolution blocks of one convolution are 0.1 apart, of two 0.2, and all else 2."""
    parents: dict[str, str | None] = {"op": None}
    lengths: dict[str, float] = {}

    def put(node: str, parent: str, length: float) -> None:
        parents[node], lengths[node] = parent, length

    for label in ("input", "output", *_OTHERS):
        put(label, "op", 1.0)
    put("convolution", "op", 0.9)
    for kind in _CONVOLUTIONS:
        put(kind, "convolution", 0.05)
        for act, norm in product(_ACTIVATIONS, _NORMALISATIONS):
            put(f"{act}-{kind}-{norm}", kind, 0.05)
    return OperationTree(parents, lengths)


def _part_tree() -> OperationTree:
    """Parts of one family are 0.1 apart, and all else 2."""
    parents: dict[str, str | None] = {"op": None}
    lengths: dict[str, float] = {}
    families = {
        "activation": _ACTIVATIONS,
        "convolution": _CONVOLUTIONS,
        "normalisation": _NORMALISATIONS,
    }
    for label in ("input", "output", *_OTHERS):
        parents[label], lengths[label] = "op", 1.0
    for family, kinds in families.items():
        parents[family], lengths[family] = "op", 0.95
        for kind in kinds:
            parents[kind], lengths[kind] = family, 0.05
    return OperationTree(parents, lengths)
