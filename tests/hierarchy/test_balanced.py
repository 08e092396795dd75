import pytest
import torch

from hotnas_torch.hierarchy import accuracy_tree, flat_tree, random_tree
from hotnas_torch.hierarchy.balanced import halving_tree


@pytest.mark.parametrize("size", [1, 2, 3, 10, 33, 64])
def test_halves_differ_by_one_leaf_at_most(size, rng):
    order = torch.randperm(size, generator=rng)
    tree = halving_tree(order)
    assert torch.equal(tree.order, order)
    assert tree.num_nodes == 2 * size - 1
    for node in range(tree.num_nodes):
        children = tree.children(node)
        if children:
            left, right = (int(tree.num_leaves[child]) for child in children)
            assert 0 <= left - right <= 1


def test_the_better_half_is_separated_from_the_worse(rng):
    values = torch.rand(37, generator=rng)
    tree = accuracy_tree(values)
    for node in range(tree.num_nodes):
        if children := tree.children(node):
            better, worse = (values[tree.below(child)] for child in children)
            assert better.min() >= worse.max()
    assert int(tree.order[0]) == int(values.argmax())


def test_random_trees_follow_their_generator():
    trees = [random_tree(50, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(trees[0].order, trees[1].order)
    assert not torch.equal(trees[0].order, trees[2].order)


@pytest.mark.parametrize("size", [1, 2, 9])
def test_the_flat_tree_has_leaves_only(size):
    tree = flat_tree(size)
    assert len(tree.levels) == (1 if size == 1 else 2)
    assert tree.order.tolist() == list(range(size))


def test_wrong_arguments_are_refused():
    for build in (flat_tree, lambda n: random_tree(n, generator=torch.Generator())):
        with pytest.raises(ValueError, match="num_architectures must be at least 1; got 0"):
            build(0)
    with pytest.raises(ValueError, match=r"order must hold each of 0\.\.1 once"):
        halving_tree(torch.tensor([0, 2]))
    with pytest.raises(TypeError, match="order must be a tensor of integers"):
        halving_tree([0, 1])
    with pytest.raises(ValueError, match="values must be a vector of finite numbers"):
        accuracy_tree(torch.tensor([1.0, torch.nan]))
