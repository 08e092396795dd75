"""The hierarchical NAS-Bench-201 of Schrodi et al. (2023): blocks within blocks, drawn anew."""

import math
from pathlib import Path

import pytest
import torch

from hotnas_torch.gp import HOTNNGP, HOTNNKernel
from hotnas_torch.search import HOTNAS, run
from hotnas_torch.spaces import get, hierarchical_nasbench201, register


def test_its_size_is_the_published_one():
    """By hand, production by production; about 10^446 are published."""
    ops = 3 + 2 * 27  # the grammar lists the convolution block twice
    cells = ops**6
    chains = cells**2 + 2 * cells**3
    downs = cells + cells**2 + cells
    sides = {one: chains**2 * one * (1 + chains + one) for one in (downs, cells)}
    size = sides[downs] ** 2 * (2 * sides[cells] + sides[cells] ** 2)
    assert hierarchical_nasbench201().size() == size
    assert round(math.log10(size)) == 446


def test_convolution_blocks_are_labels_or_graphs(rng):
    labels, graphs = (
        hierarchical_nasbench201(),
        get("hierarchical_nasbench201", convolutions="graph"),
    )
    nets = labels.sample(3, generator=rng)
    same = graphs.decode(labels.encode(nets))
    assert [net.spec for net in same] == [net.spec for net in nets]
    for net, other in zip(nets, same, strict=True):
        flat, parts = net.cells[0].flatten(), other.cells[0].flatten()
        blocks = [label.split("-") for label in flat.ops if "-" in label]
        assert other.cells[0].depth == net.cells[0].depth + 1 == 5
        assert parts.num_operations == flat.num_operations + 2 * len(blocks)
        for place in range(3):
            expected = sorted(block[place] for block in blocks)
            assert sorted(one for one in parts.ops if one in expected) == expected
    with pytest.raises(ValueError, match="convolutions must be one of 'label', 'graph'"):
        hierarchical_nasbench201(convolutions="both")
    with pytest.raises(ValueError, match="name must be new"):
        register("hierarchical_nasbench201", hierarchical_nasbench201)


def test_operations_cost_what_their_labels_have_in_common():
    tree = hierarchical_nasbench201().tree
    labels = ["relu-conv3x3-batch", "mish-conv3x3-layer", "relu-conv1x1-batch", "avg_pool", "id"]
    costs = tree.distance_matrix(labels)
    assert costs[0].tolist() == pytest.approx([0.0, 0.1, 0.2, 2.0, 2.0])


def convolutions(net):
    """How many a network has, level by level."""
    return net.spec.count("conv3x3")


@pytest.mark.slow
def test_a_search_is_at_home_in_it_and_resumes(tmp_path: Path) -> None:
    space, file = hierarchical_nasbench201(), tmp_path / "search.sqlite"

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
    space = hierarchical_nasbench201()
    nets = space.sample(6, generator=torch.Generator().manual_seed(0))
    Y = torch.tensor([[float(convolutions(net))] for net in nets], dtype=torch.float64)
    model = (
        HOTNNGP(nets, Y, tree=space.tree) if listed else HOTNNGP(space.encode(nets), Y, space=space)
    )
    assert not _kernel(model).learned
    model.train()
    loss = -model.likelihood(model(*model.train_inputs)).log_prob(model.train_targets)
    loss.backward()
