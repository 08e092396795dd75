import itertools

import matplotlib
import networkx as nx
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.patches import FancyBboxPatch, PathPatch
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from hotnas_torch import spaces
from hotnas_torch.arch import Cell
from hotnas_torch.metrics import HOTNN, CellMatching
from hotnas_torch.plot import (
    _averaged,
    _branches,
    _cell_graph,
    _cluster,
    _controls,
    _crosses,
    _layout,
    _members,
    plot_cell_matching,
    plot_heat_map,
    plot_network_matching,
    plot_tree,
    save_figure,
    short_name,
)


def matrix(size, seed=0):
    """Distances between points in three well separated groups."""
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(size, 4)) + 8.0 * (np.arange(size) % 3)[:, None]
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [
        text.get_text() for text in figure.texts
    ]


def pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


@pytest.fixture(scope="module")
def matching():
    space = spaces.get("nasbench201")
    texts = [
        "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
        "|avg_pool_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
    ]
    metric = HOTNN(space=space)
    networks = [space.from_string(text) for text in texts]
    result = metric.matching(*networks)
    return result, metric.ifgw.matching(networks[0].cells[0], networks[1].cells[0])


@pytest.mark.parametrize("size", [2, 3, 40, 41, 500])
def test_pictures_of_every_size_are_drawn(size, tmp_path):
    distances = torch.from_numpy(matrix(size)).float()
    for name, plot in (("heat", plot_heat_map), ("tree", plot_tree)):
        figure = plot(distances)
        save_figure(figure, tmp_path / f"{name}.png", dpi=40)
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


def test_equal_distances_everywhere_are_drawn():
    for size in (2, 5, 1500):
        for distances in (np.zeros((size, size)), np.ones((size, size)) - np.eye(size)):
            # 1,500 equal distances make a chain that is 1,500 levels deep.
            assert pixels(plot_heat_map(distances)).std() > 10
            assert pixels(plot_tree(distances)).std() > 10


def test_the_heat_map_is_ordered_by_the_tree():
    distances = matrix(30)
    figure = plot_heat_map(distances)
    shown = figure.axes[0].images[0].get_array()
    links = hierarchy.linkage(squareform(distances), "average", optimal_ordering=True)
    order = hierarchy.leaves_list(links)
    np.testing.assert_allclose(shown, distances[np.ix_(order, order)])
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [f"#{index}" for index in order]
    # The three groups of points stand together.
    assert len(list(itertools.groupby(index % 3 for index in order))) == 3


def test_thousands_of_items_become_pixels_not_labels():
    distances = matrix(1500)
    figure = plot_heat_map(distances, [f"network {index}" for index in range(1500)])
    assert figure.axes[0].images[0].get_array().shape == (1200, 1200)
    assert not any("network " in label.get_text() for label in figure.axes[0].get_yticklabels())
    assert "1,500 networks" in figure.axes[0].get_xlabel()


def test_more_items_than_can_be_clustered_are_thinned_out_and_it_says_so():
    figure = plot_heat_map(matrix(200), max_items=50)
    assert figure.axes[0].images[0].get_array().shape == (50, 50)
    assert any("50 of 200 shown" in text for text in texts(figure))
    assert any("50 of 200 shown" in text for text in texts(plot_tree(matrix(200), max_items=50)))


def test_averages_of_blocks_keep_the_mean():
    values = np.random.default_rng(0).random((12, 12))
    np.testing.assert_allclose(_averaged(values, 4), values.reshape(4, 3, 4, 3).mean((1, 3)))
    assert _averaged(values, 12) is values
    assert _averaged(values, 5).shape == (5, 5)


def test_a_truncated_tree_counts_every_item_once():
    clustering = _cluster(matrix(100), 1000)
    branches = _branches(clustering, 12)
    assert len(branches.leaves) == 12
    members = [_members(clustering, node) for node in branches.leaves]
    assert sorted(itertools.chain(*members)) == list(range(100))
    figure = plot_tree(matrix(100), max_leaves=12)
    counts = [text.split("(")[1].rstrip(")") for text in texts(figure) if text.endswith(")")]
    singles = sum(text.startswith("  #") and not text.endswith(")") for text in texts(figure))
    assert sum(map(int, counts)) + singles == 100


def test_branches_join_at_the_heights_of_the_linkage():
    clustering = _cluster(matrix(20), 1000)
    branches = _branches(clustering, 20)
    tops = sorted({round(line[1][1], 9) for line in branches.segments})
    assert tops == sorted({round(height, 9) for height in clustering.links[:, 2]})
    assert [clustering.order.tolist().index(leaf) for leaf in branches.leaves] == list(range(20))
    figure = plot_tree(matrix(20))
    (lines,) = (c for c in figure.axes[0].collections if isinstance(c, LineCollection))
    assert len(lines.get_segments()) == 2 * 19


@pytest.mark.parametrize("plot", [plot_heat_map, plot_tree])
def test_a_matrix_that_cannot_be_drawn_is_refused(plot):
    with pytest.raises(ValueError, match=r"must be a square matrix; got shape \(2, 3\)"):
        plot(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="at least 2 items"):
        plot(np.zeros((1, 1)))
    with pytest.raises(ValueError, match="must be finite"):
        plot(np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="labels must name each of the 3 items; got 2 labels"):
        plot(np.zeros((3, 3)), ["a", "b"])


def test_short_names_fit():
    assert short_name("64-1234-basic") == "64-1234-basic"
    cell = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"
    assert short_name(cell) == "conv3 + none avgpool3 + skip conv1 none"
    long = short_name("x" * 50 + "y" * 50, 21)
    assert len(long) == 21
    assert long == "x" * 10 + "…" + "y" * 10


def random_cell(seed, size=9):
    """A random cell in which every node is on a path from input to output."""
    generator = np.random.default_rng(seed)
    edges = [(i, j) for j in range(1, size) for i in range(j) if generator.random() < 0.35]
    labels = ["input", *(f"op{k % 4}" for k in range(size - 2)), "output"]
    return Cell.from_edges(labels, edges, prune=True)


@pytest.mark.parametrize("seed", range(6))
def test_layers_are_longest_paths_and_rows_are_topological(seed):
    cell = random_cell(seed)
    layout = _layout(_cell_graph(cell, dict.fromkeys(cell.ops, "#FFFFFF")))
    graph = nx.DiGraph(cell.edges)
    for layer, nodes in enumerate(nx.topological_generations(graph)):
        assert {layout.layers[node] for node in nodes} == {layer}
    assert sorted(layout.row) == list(range(cell.num_nodes))
    assert all(layout.row[i] < layout.row[j] for i, j in cell.edges)
    places = set(zip(layout.x, layout.layers, strict=True))
    assert len(places) == cell.num_nodes


def test_edges_bend_around_nodes():
    straight = _controls((0.0, 0.3), (0.0, 4.7), 0.0, 0.5)
    assert _crosses(straight, [(0.0, 2.0)])
    assert not _crosses(straight, [(3.0, 2.0)])
    assert not _crosses(_controls((0.0, 0.3), (0.0, 4.7), 2.0, 0.5), [(0.0, 2.5)])


def test_a_cell_matching_shows_nodes_masses_and_parts(matching):
    _, cells = matching
    figure = plot_cell_matching(cells, titles=("left", "right"))
    shown = texts(figure)
    for cell in (cells.cell_a, cells.cell_b):
        for label in set(cell.ops):
            assert shown.count(label) == (cells.cell_a.ops + cells.cell_b.ops).count(label)
    assert "left" in shown
    assert any(f"{cells.distance:.4f}" in axes.get_title(loc="left") for axes in figure.axes)
    patches = figure.axes[0].patches
    boxes = [patch for patch in patches if isinstance(patch, FancyBboxPatch)]
    assert len(boxes) == cells.cell_a.num_nodes + cells.cell_b.num_nodes
    ribbons = [patch for patch in patches if isinstance(patch, PathPatch)]
    carried = cells.plan[cells.plan > 1e-6 * cells.plan.max()]
    assert len(ribbons) == len(carried)
    widths = sorted(patch.get_linewidth() for patch in ribbons)
    expected = 0.6 + 4.4 * (carried / cells.plan.max()).sort().values
    np.testing.assert_allclose(widths, expected, rtol=1e-6)
    bars = [bar.get_width() for axes in figure.axes[1:] for bar in axes.patches]
    np.testing.assert_allclose(bars, list(cells.parts.values()), rtol=1e-6)


def test_a_network_matching_shows_both_networks_and_the_chosen_cells(matching):
    networks, cells = matching
    figure = plot_network_matching(networks, [(0, 0, cells)], titles=("left", "right"))
    shown = texts(figure)
    assert {"left", "right"} <= set(shown)
    assert shown.count("A · 16") == 5
    # Cells in both networks carry one letter.
    letters = {name.split(" · ")[0] for name in shown if name.count(" · ") in (1, 2)}
    assert {"A", "B", "C"} <= letters
    assert pixels(figure).std() > 10
    assert len(figure.axes) == 4
    alone = plot_network_matching(networks)
    assert len(alone.axes) == 2


def test_cells_without_anything_between_input_and_output_are_drawn():
    empty = Cell(("input", "output"), ())
    matching = CellMatching(
        cell_a=empty,
        cell_b=random_cell(1),
        plan=torch.full((2, random_cell(1).num_nodes), 1 / 2 / random_cell(1).num_nodes),
        distance=0.0,
        operation=0.0,
        location=0.0,
        pairwise=0.0,
    )
    assert pixels(plot_cell_matching(matching)).std() > 10


@pytest.mark.parametrize("name", ["nasbench101", "darts", "transnas_macro", "pooling"])
def test_networks_of_every_space_are_drawn(name, rng, tmp_path):
    space = spaces.get(name)
    networks = space.sample(2, generator=rng)
    metric = HOTNN(space=space, num_starts=1, tol=0.01)
    figure = plot_network_matching(metric.matching(*networks))
    save_figure(figure, tmp_path / "picture.svg")
    assert "</svg>" in (tmp_path / "picture.svg").read_text(encoding="utf-8")


def test_drawing_leaves_no_global_state(matching):
    plot_cell_matching(matching[1])
    plot_tree(matrix(5))
    pyplot = getattr(matplotlib, "pyplot", None)
    assert pyplot is None or not pyplot.get_fignums()
