import pytest
import torch

import hotnas_torch as ht
from benchmarks.measuring.problems import (
    DARTS_NODES,
    NASBENCH201_NODES,
    cell_problems,
    dag_cells,
    draw_pairs,
    random_problems,
    real_problems,
    sized_cells,
)


@pytest.mark.parametrize("pairs", ["directed", "ordered"])
def test_cell_problems_are_those_behind_ifgw(pairs: str, rng: torch.Generator) -> None:
    space = ht.spaces.NASBench201()
    cells = sized_cells(space, None, 12, rng)[:12]
    small, large = draw_pairs([cell.num_nodes for cell in cells], 20, rng)
    problems = cell_problems(
        [cells[i] for i in small.tolist()],
        [cells[i] for i in large.tolist()],
        tree=space.tree,
        pairs=pairs,
    )
    result = ht.ot.fgw(
        problems.cost,
        problems.struct_x,
        problems.struct_y,
        problems.a,
        problems.b,
        alpha=problems.alpha,
        pairs=pairs,
        num_starts=3,
        tol=1e-9,
    )
    metric = ht.IFGW(space=space, pairs=pairs, tol=1e-9, dtype=torch.float64)
    expected = metric(cells)[small, large]
    # Two starts that tie may be left for different couplings, as padding changes the order of sums.
    assert (result.objective - expected).abs().median() < 1e-12
    assert (result.objective / expected - 1).abs().max() < 0.01


def test_random_problems_have_the_structure_of_their_pair_set(rng: torch.Generator) -> None:
    ordered = random_problems(6, 2, loss="l1", pairs="ordered", generator=rng).struct_x
    directed = random_problems(6, 2, loss="l1", pairs="directed", generator=rng).struct_x
    symmetric = random_problems(6, 2, loss="l2", pairs="all", generator=rng).struct_x
    assert torch.equal(ordered, ordered.triu(1))
    assert directed.max() <= 1
    assert (directed.tril(-1).sum(2)[:, 5] == 5).all()
    assert torch.equal(symmetric, symmetric.mT)


@pytest.mark.parametrize("nodes", [NASBENCH201_NODES, 11, DARTS_NODES])
def test_real_problems_have_one_size_and_no_padding(nodes: int, rng: torch.Generator) -> None:
    _, problems = real_problems(nodes, 5, pairs="directed", generator=rng)
    assert problems.cost.shape == (5, nodes, nodes)
    assert torch.allclose(problems.a, torch.tensor(1 / nodes, dtype=torch.float64))


def test_dag_cells_are_cells_of_the_size_asked_for(rng: torch.Generator) -> None:
    tree = ht.spaces.DARTS().tree
    cells = dag_cells(tree, 9, 30, rng)
    assert len(cells) == 30
    assert {cell.num_nodes for cell in cells} == {9}
    assert {op for cell in cells for op in cell.ops[1:-1]} <= set(tree.labels)


def test_pairs_are_of_different_items_in_order(rng: torch.Generator) -> None:
    sizes = [3, 3, 4, 5, 5]
    small, large = draw_pairs(sizes, 50, rng)
    assert len(small) == 50
    assert (small < large).all()
    small, large = draw_pairs(sizes, 50, rng, unequal=True)
    assert all(sizes[i] != sizes[j] for i, j in zip(small, large, strict=True))
    with pytest.raises(ValueError, match="no pair of different items"):
        draw_pairs([4, 4], 1, rng, unequal=True)
