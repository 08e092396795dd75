import itertools

import numpy as np
import pytest
import torch
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from hotnas_torch.plot import plot_heat_map, plot_tree, save_figure
from hotnas_torch.plot.distances import averaged
from tests.generators.pictures import grouped_distances, pixels, texts


@pytest.mark.parametrize("size", [2, 3, 40, 41, 500])
def test_pictures_of_every_size_are_drawn(size, tmp_path):
    distances = torch.from_numpy(grouped_distances(size)).float()
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
    distances = grouped_distances(30)
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
    distances = grouped_distances(1500)
    figure = plot_heat_map(distances, [f"network {index}" for index in range(1500)])
    assert figure.axes[0].images[0].get_array().shape == (1200, 1200)
    assert not any("network " in label.get_text() for label in figure.axes[0].get_yticklabels())
    assert "1,500 networks" in figure.axes[0].get_xlabel()


def test_more_items_than_can_be_clustered_are_thinned_out_and_it_says_so():
    figure = plot_heat_map(grouped_distances(200), max_items=50)
    assert figure.axes[0].images[0].get_array().shape == (50, 50)
    assert any("50 of 200 shown" in text for text in texts(figure))
    assert any(
        "50 of 200 shown" in text for text in texts(plot_tree(grouped_distances(200), max_items=50))
    )


def test_the_colour_of_the_diagonal_is_that_of_no_distance():
    distances = np.full((4, 4), 0.3) - 0.3 * np.eye(4)
    distances[0, 1] = distances[1, 0] = 0.13
    image = plot_heat_map(distances, list("abcd")).axes[0].images[0]
    assert image.get_clim() == (0.0, pytest.approx(0.3))
    colours = image.to_rgba(image.get_array())
    assert np.abs(colours[0, 0] - colours[1, 0]).max() > 0.1


LONG = "a_long_name_of_a_model_that_somebody_has_trained_once"


@pytest.mark.parametrize("plot", [plot_heat_map, plot_tree])
def test_pictures_are_as_wide_as_names_and_headings_ask_for(plot):
    distances = grouped_distances(5)
    few, one_long = list("abcde"), [*"abcd", LONG]
    short, long = (plot(distances, names, title="t") for names in (few, one_long))
    headed = plot(distances, few, title="a heading of many words " * 6)
    assert short.get_figwidth() + 1.0 < long.get_figwidth()
    for figure in (short, long, headed):
        figure.draw_without_rendering()
        extent = figure.get_tightbbox()
        assert extent.x0 > 0.0
        assert extent.x1 < figure.get_figwidth()
        # Less than a sixth of the width is empty on either side.
        assert figure is headed or extent.x0 < figure.get_figwidth() / 6
        assert extent.x1 > figure.get_figwidth() * 5 / 6


def test_averages_of_blocks_keep_the_mean():
    values = np.random.default_rng(0).random((12, 12))
    np.testing.assert_allclose(averaged(values, 4), values.reshape(4, 3, 4, 3).mean((1, 3)))
    assert averaged(values, 12) is values
    assert averaged(values, 5).shape == (5, 5)


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
