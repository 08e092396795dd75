"""The hierarchical NAS-Bench-201 of Schrodi et al. (2023): blocks within blocks, drawn anew."""

import math
from itertools import product
from pathlib import Path

import pytest
import torch

from hotnas_torch import Cell
from hotnas_torch.arch import NestedCell
from hotnas_torch.gp import HOTNNGP, HOTNNKernel
from hotnas_torch.search import HOTNAS, run
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


def convolutions(net):
    """How many a network has, level by level."""
    return net.spec.count("conv3x3")


def test_a_search_is_at_home_in_it_and_resumes(tmp_path: Path) -> None:
    space, file = hierarchical(), tmp_path / "search.sqlite"

    def searched(budget: int, storage: Path | None = None):
        strategy = HOTNAS(
            space, generator=torch.Generator().manual_seed(0), num_initial=3, pool_size=8
        )
        return run(
            strategy,
            convolutions,
            budget=budget,
            direction="maximize",
            progress=False,
            storage=storage,
        )

    searched(4, file)
    resumed, whole = searched(6, file), searched(6)
    assert [trial.network for trial in resumed.trials] == [t.network for t in whole.trials]
    assert len(whole.trials) == 6


def _kernel(model: HOTNNGP) -> HOTNNKernel:
    return next(part for part in model.covar_module.modules() if isinstance(part, HOTNNKernel))


@pytest.mark.parametrize("listed", [False, True])
def test_models_of_nested_cells_learn_nothing_of_the_distance(listed: bool) -> None:
    space = hierarchical()
    nets = space.sample(6, generator=torch.Generator().manual_seed(0))
    Y = torch.tensor([[float(convolutions(net))] for net in nets], dtype=torch.float64)
    model = (
        HOTNNGP(nets, Y, tree=space.tree) if listed else HOTNNGP(space.encode(nets), Y, space=space)
    )
    assert not _kernel(model).learned
    model.train()
    loss = -model.likelihood(model(*model.train_inputs)).log_prob(model.train_targets)
    loss.backward()
