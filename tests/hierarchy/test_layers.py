import itertools
import math

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.hierarchy import layer_operations, layer_tree, layer_vectors


def test_pooling_networks_pool_twice_and_resolutions_are_counted():
    space = spaces.Pooling()
    nets = list(space)
    operations, vectors = layer_operations(space, nets), layer_vectors(space, nets)
    assert operations.shape == (36, 9)
    assert (operations.sum(1) == 2).all()
    pairs = {tuple(row.nonzero().flatten().tolist()) for row in operations}
    assert pairs == set(itertools.combinations(range(9), 2))
    for net, row in zip(nets, vectors.tolist(), strict=True):
        counts = [row.count(level) for level in range(3)]
        assert net.spec == "[" + ",".join(map(str, counts)) + "]"


def test_other_spaces_are_their_own_columns():
    space = spaces.NASBenchMacro()
    nets = [space.from_string(text) for text in ("02102200", "11111111")]
    for codes in (layer_operations(space, nets), layer_vectors(space, nets)):
        assert codes.tolist() == [[0, 2, 1, 0, 2, 2, 0, 0], [1] * 8]


@pytest.mark.parametrize("order", [None, (2, 0, 1)])
def test_each_level_decides_one_layer(order):
    codes = torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(4))
    tree = layer_tree(codes, order=order)
    assert len(tree.levels) == 4
    layers = list(order or range(3))
    for architecture, code in enumerate(codes.tolist()):
        path = tree.path(architecture)
        assert len(path) == 4
        for depth, node in enumerate(path[1:], start=1):
            decided = layers[:depth]
            members = codes[tree.below(node)]
            assert (members[:, decided] == torch.tensor(code)[decided]).all()
            left = [(3, 2, 4)[layer] for layer in layers[depth:]]
            assert len(members) == math.prod(left)
    # Nodes of a group make one choice in one layer, and all that make it are of the group.
    for group in range(int(tree.group.max()) + 1):
        nodes = (tree.group == group).nonzero().flatten()
        layer = layers[int(tree.depth[nodes[0]]) - 1]
        choices = {int(codes[a, layer]) for node in nodes for a in tree.below(int(node))}
        assert len(choices) == 1
    assert int(tree.group.max()) + 1 == 3 + 2 + 4


def test_layers_without_a_choice_make_no_node_and_equal_codes_share_one():
    codes = torch.tensor([[0, 5, 0], [0, 5, 1], [1, 5, 1], [1, 5, 1]])
    tree = layer_tree(codes)
    assert [len(tree.path(a)) for a in range(4)] == [3, 3, 3, 3]
    assert tree.num_nodes == 7
    assert tree.group[tree.leaf].tolist() == [3, 4, -1, -1]
    assert tree.path(2)[1] == tree.path(3)[1]


def test_the_pooling_tree_has_two_choices_at_most_on_any_path():
    space = spaces.Pooling()
    tree = layer_tree(layer_operations(space, list(space)))
    counts = {len(tree.children(node)) for node in range(tree.num_nodes)}
    assert counts == {0, 2}
    assert tree.num_nodes == 2 * 36 - 1


def test_wrong_orders_are_refused():
    with pytest.raises(
        ValueError, match=r"order must hold each of the 2 layers once; got \[0, 0\]"
    ):
        layer_tree(torch.zeros(1, 2, dtype=torch.int64), order=[0, 0])
