import math

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection

from hotnas_torch.plot import plot_map, plot_trace

VALUES = [5.0, math.nan, 3.0, 4.0, 90.0, 2.5, 6.0, 5.5, 4.5, 3.5, math.nan]


def drawn(figure):
    figure.draw_without_rendering()
    return figure


def texts(figure):
    return " | ".join(text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text")))


def points(axes):
    found = [item for item in axes.collections if isinstance(item, PathCollection)]
    return np.concatenate([item.get_offsets() for item in found])


def test_the_trace_shows_every_value_and_the_best_so_far():
    figure = drawn(plot_trace(VALUES, num_initial=3, label="error"))
    (axes,) = figure.axes
    shown = points(axes)
    assert shown[:, 0].tolist() == [1, 3, 4, 5, 6, 7, 8, 9, 10]
    assert shown[:, 1].tolist() == [value for value in VALUES if not math.isnan(value)]
    steps = next(line for line in axes.lines if line.get_label() == "best so far")
    assert steps.get_ydata().tolist() == [5, 5, 3, 3, 3, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5]
    failed = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "x"]
    assert failed == [2, 11]
    written = texts(figure)
    assert "1 value above, up to 90" in written
    assert all(part in written for part in ("2.5", "initial", "failed", "error"))
    low, high = axes.get_ylim()
    assert low < 2.5
    assert 6.0 < high < 90.0


@pytest.mark.parametrize("values", [[1.0], [math.nan], [2.0, 2.0], [0.0, 0.0, math.nan]])
def test_short_and_constant_traces_are_drawn(values):
    drawn(plot_trace(values, num_initial=2))


def test_no_trace_of_nothing():
    with pytest.raises(ValueError, match="at least one evaluation"):
        plot_trace([])


def distances(size):
    places = torch.randn(size, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.cdist(places, places)


def test_the_map_shows_every_network():
    figure = drawn(plot_map(distances(11), VALUES, num_initial=4))
    axes = figure.axes[0]
    assert len(points(axes)) == 11
    written = texts(figure)
    assert all(f" {rank} " in written for rank in range(1, 6))
    assert "distance" in written
    ranks = {text.get_text(): text.xy for text in axes.texts}
    best = points(axes)
    assert any(np.allclose(ranks["1"], place) for place in best)
    assert "2.5" in written  # the scale goes down to the best value
    assert "90" in written


@pytest.mark.parametrize("values", [[1.0, 1.0], [math.nan, math.nan], [math.nan, 2.0]])
def test_small_maps_are_drawn(values):
    drawn(plot_map(distances(2), values))
    drawn(plot_map(torch.zeros(2, 2), values))


def test_a_map_needs_a_value_per_network():
    with pytest.raises(ValueError, match="one number per item, 11; got 3"):
        plot_map(distances(11), [1.0, 2.0, 3.0])


def test_the_best_is_the_largest_where_values_are_maximised():
    figure = plot_trace([1.0, 3.0, 2.0, math.nan], direction="maximize")
    (axes,) = figure.axes
    (line,) = [line for line in axes.lines if line.get_label() == "best so far"]
    assert line.get_ydata().tolist() == [1.0, 3.0, 3.0, 3.0]
    assert axes.get_ylabel() == "value (larger is better)"
    low, high = axes.get_ylim()
    assert low < 1.0 < 3.0 < high
    with pytest.raises(ValueError, match="direction must be one of 'minimize', 'maximize'"):
        plot_trace([1.0], direction="up")


def test_what_breaks_a_bound_is_never_the_best():
    figure = plot_trace([1.0, 3.0, 2.0], feasible=[False, True, True])
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "best so far"]
    assert line.get_ydata().tolist() == [3.0, 2.0]
    drawn(plot_trace([1.0, 2.0], feasible=[False, False]))
    with pytest.raises(ValueError, match="feasible must hold one entry per value, 2"):
        plot_trace([1.0, 2.0], feasible=[True])


def test_a_map_numbers_the_largest_where_values_are_maximised():
    figure = plot_map(distances(3), [1.0, 3.0, 2.0], direction="maximize")
    places = {
        text.get_text(): text.xy for text in figure.axes[0].texts if len(text.get_text()) == 1
    }
    smallest = plot_map(distances(3), [-1.0, -3.0, -2.0])
    expected = {
        text.get_text(): text.xy for text in smallest.axes[0].texts if len(text.get_text()) == 1
    }
    assert places.keys() == {"1", "2", "3"}
    assert all(tuple(places[name]) == tuple(expected[name]) for name in places)
