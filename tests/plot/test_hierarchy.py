import numpy as np
import pytest
import torch

from hotnas_torch.hierarchy import cluster, flat_tree, random_tree
from hotnas_torch.plot import plot_hierarchy
from tests.generators.pictures import grouped_distances, pixels, texts
from tests.generators.trees import random_shape


def learned(size):
    distances = torch.from_numpy(grouped_distances(size))
    return cluster(distances), distances


@pytest.mark.parametrize("by_level", [False, True])
@pytest.mark.parametrize("size", [2, 20, 61, 300])
def test_trees_of_every_size_are_drawn_beside_their_matrix(size, by_level):
    tree, distances = learned(size)
    values = torch.arange(size).double()
    figure = plot_hierarchy(tree, distances, values=values, by_level=by_level)
    assert pixels(figure).std() > 10
    (lines,) = figure.axes[0].collections
    assert len(lines.get_segments()) == tree.num_nodes - 1


def test_leaves_and_rows_stand_in_the_order_of_the_tree(rng):
    tree, distances = learned(12)
    names = [f"net {place}" for place in range(12)]
    figure = plot_hierarchy(tree, distances, labels=names)
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == [names[place] for place in tree.order.tolist()]
    image = next(axes.images[0] for axes in figure.axes if axes.images)
    order = tree.order.numpy()
    np.testing.assert_array_equal(image.get_array(), distances.numpy()[np.ix_(order, order)])
    # Every branch ends at its leaf's row, and a branch's top is at the height of its parent.
    segments = np.array(figure.axes[0].collections[0].get_segments())
    leaves = tree.architecture[1:].numpy() >= 0
    rows = np.empty(12)
    rows[order] = np.arange(12)
    np.testing.assert_allclose(segments[leaves, 0, 1], rows[tree.architecture[1:].numpy()[leaves]])
    np.testing.assert_allclose(segments[:, 2, 0], tree.height[tree.parent[1:]].numpy())


def test_colours_are_means_of_the_values_below(rng):
    tree = random_shape(15, rng)
    values = torch.rand(tree.num_architectures, generator=rng)
    figure = plot_hierarchy(tree, values=values, value_label="accuracy", title="A tree")
    drawn = figure.axes[0].collections[0].get_array()
    expected = [float(values[tree.below(node)].mean()) for node in range(1, tree.num_nodes)]
    np.testing.assert_allclose(drawn, expected, atol=1e-6)
    assert {"accuracy", "A tree"} <= set(texts(figure))


def test_equal_heights_and_values_are_drawn(rng):
    assert pixels(plot_hierarchy(flat_tree(5), torch.zeros(5, 5), values=torch.ones(5))).std() > 5
    assert pixels(plot_hierarchy(cluster(torch.zeros(4, 4)))).std() > 5


def test_what_does_not_fit_the_tree_is_refused(rng):
    tree = random_tree(4, generator=rng)
    for arguments, message in (
        ({"labels": ["a"]}, "labels must have one entry per architecture, 4; got 1"),
        ({"values": torch.zeros(5)}, "values must have one entry per architecture, 4; got 5"),
        ({"distances": torch.zeros(3, 3)}, r"the tree's 4 architectures; got shape \(3, 3\)"),
        ({"distances": torch.zeros(3, 4)}, "square"),
    ):
        with pytest.raises(ValueError, match=message):
            plot_hierarchy(tree, **arguments)
