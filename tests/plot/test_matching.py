import numpy as np
import pytest
import torch
from matplotlib.patches import FancyBboxPatch, PathPatch

from hotnas_torch import spaces
from hotnas_torch.arch import Cell, Network
from hotnas_torch.distances import HOTNN, CellMatching
from hotnas_torch.importing import operation_tree
from hotnas_torch.plot import plot_cell_matching, plot_network, plot_network_matching, save_figure
from tests.generators.pictures import pixels, random_cell, texts


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


def test_operations_with_numbers_are_written_within_their_boxes():
    labels = ("conv[dilation=1,groups=1,kernel={},positions=1024,width={}]", "relu[width={}]")
    cells = [
        Cell(
            ("input", labels[0].format(k, w), labels[1].format(w), "output"),
            ((0, 1), (1, 2), (2, 3)),
        )
        for k, w in ((3, 16), (5, 512))
    ]
    nets = [Network.chain([cell] * 2, (8, 16), (1, 2)) for cell in cells]
    metric = HOTNN(tree=operation_tree())
    cell_matching = metric.ifgw.matching(*cells)
    pictures = [
        plot_cell_matching(cell_matching),
        plot_network_matching(metric.matching(*nets), [(0, 0, cell_matching)]),
        plot_network(nets[0]),
    ]
    for figure in pictures:
        shown = texts(figure)
        assert {"conv", "relu", "kernel 3, width 16"} <= set(shown)
        assert not any("[" in text for text in shown)
        figure.draw_without_rendering()
        for axes in figure.axes:
            boxes = [p.get_window_extent() for p in axes.patches if isinstance(p, FancyBboxPatch)]
            for text in axes.texts:
                extent, (x, y) = (
                    text.get_window_extent(),
                    text.get_transform().transform(text.get_position()),
                )
                for box in boxes:
                    if box.contains(x, y):
                        assert text.get_fontsize() > 5.0
                        assert box.x0 < extent.x0 < extent.x1 < box.x1
                        assert box.y0 < extent.y0 < extent.y1 < box.y1


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
