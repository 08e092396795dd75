import numpy as np
import pytest
import torch
from botorch.utils.multi_objective.pareto import is_non_dominated

from hotnas_torch.plot import plot_fronts, plot_progress, plot_spread, save_figure
from hotnas_torch.plot.pareto import _front

LABELS = ("error", "memory")


def points(seed: int, num: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1.0, 2.0, (num, 2))


def test_the_front_is_botorchs():
    given = np.round(points(0, 80), 1)
    theirs = given[is_non_dominated(-torch.as_tensor(given), deduplicate=True).numpy()]
    ours = _front(given)
    assert np.array_equal(ours, theirs[np.argsort(theirs[:, 1])])


def test_fronts_are_drawn_as_steps_over_all_points(tmp_path):
    given = {"HNAG": points(0), "RNAG": np.vstack([points(1), [np.nan, 1.0]])}
    figure = plot_fronts(given, labels=LABELS, log="x")
    (axes,) = figure.axes
    assert (axes.get_ylabel(), axes.get_xlabel()) == LABELS
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    for line, name in zip(axes.get_lines(), given, strict=True):
        front = _front(given[name][:30])
        assert np.array_equal(line.get_xdata(), front[:, 1])
        assert np.array_equal(line.get_ydata(), front[:, 0])
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown == [f"{name} ({len(_front(given[name][:30]))} of 30)" for name in given]
    save_figure(figure, tmp_path / "fronts.png")


def test_spread_is_mean_and_deviation():
    groups = {"HNAG": [points(0, 4), points(1, 3)], "RNAG": [points(2, 1)]}
    (axes,) = plot_spread(groups, labels=LABELS).axes
    first, second = axes.containers
    centre = first.lines[0]
    assert centre.get_xdata() == pytest.approx([g[:, 1].mean() for g in groups["HNAG"]])
    assert centre.get_ydata() == pytest.approx([g[:, 0].mean() for g in groups["HNAG"]])
    across = first.lines[2][0].get_segments()[0]
    assert np.ptp(across[:, 0]) == pytest.approx(2 * groups["HNAG"][0][:, 1].std(ddof=1))
    assert np.ptp(second.lines[2][0].get_segments()[0][:, 0]) == 0.0


def test_progress_is_compared_at_equal_cost():
    runs = {"panel": {"a": [([1, 4], [5.0, 3.0]), ([2, 3], [4.0, 1.0])], "b": [([1], [2.0])]}}
    (axes,) = plot_progress(runs, labels=("epochs", "error")).axes
    line = axes.get_lines()[0]
    assert line.get_xdata().tolist() == [2.0, 3.0, 4.0]
    assert line.get_ydata().tolist() == [4.5, 3.0, 2.0]
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(4.5 + np.std([5.0, 4.0], ddof=1) / 2**0.5)
    assert axes.get_title() == "panel"


def test_what_cannot_be_drawn_is_refused():
    for draw in (plot_fronts, plot_spread, plot_progress):
        with pytest.raises(ValueError, match="at least one"):
            draw({}, labels=LABELS)
    with pytest.raises(ValueError, match=r"values\['a'\] must have shape \(N, 2\)"):
        plot_fronts({"a": np.zeros((3, 3))}, labels=LABELS)
    with pytest.raises(ValueError, match=r"samples\['a'\]\[1\]"):
        plot_spread({"a": [np.zeros((3, 2)), np.zeros((0, 2))]}, labels=LABELS)
    with pytest.raises(ValueError, match="equal length"):
        plot_progress({"p": {"a": [([1, 2], [1.0])]}}, labels=LABELS)


def test_fronts_of_objectives_that_are_maximised():
    values = np.array([[1.0, 5.0], [2.0, 4.0], [3.0, 1.0], [0.5, 0.5]])
    figure = plot_fronts({"a": values}, labels=("x", "y"), directions=("maximize", "maximize"))
    assert "a (3 of 4)" in figure.axes[0].get_legend().get_texts()[0].get_text()
    mixed = plot_fronts({"a": values}, labels=("x", "y"), directions=("maximize", "minimize"))
    assert "a (2 of 4)" in mixed.axes[0].get_legend().get_texts()[0].get_text()
    with pytest.raises(ValueError, match="direction must be one of"):
        plot_fronts({"a": values}, labels=("x", "y"), directions=("up", "minimize"))
