"""The hierarchical NAS-Bench-201 of Schrodi et al. (2023): blocks within blocks, drawn anew."""

import math
from itertools import product

from hotnas_torch import Cell
from hotnas_torch.arch import NestedCell
from hotnas_torch.spaces import Block, Choice, Choices

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def operation(chosen):
    if "conv" not in chosen:
        return chosen["kind"]
    return "-".join(chosen[name] for name in ("act", "conv", "norm"))


def cell(chosen):
    labels = ["input", *chosen.values(), "output"]
    joined = [(0, e + 1) for e in range(6) if EDGES[e][0] == 0]
    joined += [(e + 1, f + 1) for e, f in product(range(6), repeat=2) if EDGES[e][1] == EDGES[f][0]]
    joined += [(e + 1, 7) for e in range(6) if EDGES[e][1] == 3]
    kept = [(i, j) for i, j in joined if "zero" not in (labels[i], labels[j])]
    return Cell.from_edges(labels, kept, prune=True)


def assembled(chosen):
    rule, *parts = chosen.values()
    end = len(parts) + 1
    chain = [(i, i + 1) for i in range(end)]
    if rule.startswith("Residual"):
        chain = [*chain[: end - 2], (end - 2, end), (0, end - 1), (end - 1, end)]
    return NestedCell.from_nodes(["input", *parts, "output"], chain)


def reduced(chosen):
    blocks = ["residual block"] * (2 if chosen["rule"] == "Residual2" else 1)
    return assembled({**chosen, **dict(enumerate(blocks))})


CONVOLUTION = {"kind": ["conv", "again"]}
OPS = Block(
    {
        "kind": ["id", "zero", "avg_pool", "conv", "again"],
        "act": Choice(["relu", "hardswish", "mish"], when=CONVOLUTION),
        "conv": Choice(["conv1x1", "conv3x3", "dconv3x3"], when=CONVOLUTION),
        "norm": Choice(["batch", "instance", "layer"], when=CONVOLUTION),
    },
    operation,
)
CELL = Block({f"{i}->{j}": OPS for i, j in EDGES}, cell)
RULES = ["Linear2", "Linear3", "Residual2"]
C = Block(
    {"rule": RULES, "a": CELL, "b": CELL, "c": Choice(CELL, when={"rule": RULES[1:]})}, assembled
)
DOWN = Block({"rule": RULES, "a": CELL, "b": Choice(CELL, when={"rule": "Linear3"})}, reduced)


def stage(end):
    side = Choice(end, when={"rule": "Residual3"})
    more = Choice(C, when={"rule": "Linear4"})
    rules = ["Linear3", "Linear4", "Residual3"]
    return Block({"rule": rules, "a": C, "b": C, "c": more, "end": end, "side": side}, assembled)


def hierarchical() -> Choices:
    downs, ends = stage(DOWN), stage(CELL)
    last = ["Linear3 D1 D1 D0", "Linear4 D1 D1 D0 D0"]
    choices = {
        "rule": [last[0], "Linear3 D0 D1 D1", last[1]],
        "first": Choice(ends, when={"rule": "Linear3 D0 D1 D1"}),
        "a": downs,
        "b": downs,
        "third": Choice(ends, when={"rule": last}),
        "fourth": Choice(ends, when={"rule": last[1]}),
    }
    return Choices(choices, assembled, name="hierarchical_nasbench201")


def test_its_size_is_the_published_one():
    """By hand, production by production; about 10^446 are published."""
    ops = 3 + 2 * 27  # the grammar lists the convolution block twice
    cells = ops**6
    chains = cells**2 + 2 * cells**3
    downs = cells + cells**2 + cells
    sides = {one: chains**2 * one * (1 + chains + one) for one in (downs, cells)}
    size = sides[downs] ** 2 * (2 * sides[cells] + sides[cells] ** 2)
    assert CELL.count() == cells
    assert hierarchical().size() == size
    assert round(math.log10(size)) == 446
