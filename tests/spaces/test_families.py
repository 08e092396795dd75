import pytest
import torch

from hotnas_torch.spaces.families import family_tree


def test_costs_follow_the_families():
    tree = family_tree(
        {
            "input": None,
            "conv": {"sep": {"sep3": None, "sep5": None}, "dil": {"dil3": None}},
            "pool": {"max": None, "avg": None},
        }
    )
    assert tree.labels == ("input", "sep3", "sep5", "dil3", "max", "avg")
    costs = tree.distance_matrix(dtype=torch.float64)

    def cost(a, b):
        return costs[tree.index(a), tree.index(b)].item()

    assert cost("sep3", "sep5") == pytest.approx(0.1)
    assert cost("max", "avg") == pytest.approx(0.1)
    assert cost("sep5", "dil3") == pytest.approx(0.4)
    assert cost("sep3", "max") == pytest.approx(2)
    assert cost("input", "avg") == pytest.approx(2)


def test_every_leaf_is_at_depth_one():
    tree = family_tree({"a": None, "b": {"c": None, "d": {"e": None}}})
    parents, lengths = tree.parents, tree.lengths
    for leaf in tree.labels:
        depth, node = 0.0, leaf
        while parents[node] is not None:
            depth += lengths[node]
            node = parents[node]
        assert depth == pytest.approx(1.0)
