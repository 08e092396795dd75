import numpy as np
import pytest

from hotnas_torch.plot import plot_ranks, plot_regrets
from hotnas_torch.plot.comparison import _groups


def curves(seeds=3, length=20):
    return np.linspace(1.0, 0.0, length) * np.linspace(1, 2, seeds)[:, None]


def test_a_panel_per_task_and_a_line_per_method():
    titles = [f"task {place}" for place in range(5)]
    figure = plot_regrets(
        {title: {"a": curves(), "b": 2 * curves()} for title in titles},
        num_initial=5,
        labels={"a": "first"},
    )
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == titles
    line = shown[0].get_lines()[1]
    assert line.get_xdata().tolist() == list(range(5, 21))
    assert line.get_ydata()[0] == pytest.approx(2 * curves()[:, 4].mean())
    # A regret of zero is drawn at the lower end.
    assert line.get_ydata()[-1] == shown[0].get_ylim()[0] > 0.0
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["first", "b"]


def test_the_legend_fits_the_figure():
    names = [f"a method with a long name, number {place}" for place in range(7)]
    figure = plot_regrets({"task": {name: curves() for name in names}})
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0.0
    assert box.x1 <= figure.bbox.x1
    axes = figure.axes[0].get_tightbbox()
    assert axes is not None
    assert box.y0 >= axes.y1


def test_a_method_that_not_every_task_has_is_in_the_legend():
    figure = plot_regrets({"one": {"a": curves()}, "two": {"a": curves(), "b": curves()}})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_runs_that_are_not_told_apart():
    assert _groups([1.0, 2.0, 2.4, 4.0], 1.5) == [(0, 2)]
    assert _groups([1.0, 2.0, 3.0], 1.5) == [(0, 1), (1, 2)]
    assert _groups([1.0, 3.0], 1.5) == []
    assert _groups([1.0, 3.0], float("nan")) == []


def test_ranks_name_every_method():
    figure = plot_ranks({"a": 1.0, "b": 2.0, "c": 3.0}, critical_difference=1.2)
    texts = " ".join(text.get_text() for text in figure.axes[0].texts)
    for expected in ("a  1.00", "2.00", "3.00  c", "critical difference 1.20"):
        assert expected in texts
    plain = plot_ranks({"a": 1.0})
    assert "critical" not in " ".join(text.get_text() for text in plain.axes[0].texts)


def test_bad_input():
    with pytest.raises(ValueError, match="at least one task"):
        plot_regrets({})
    with pytest.raises(ValueError, match=r"regrets\['t'\]\['a'\] must have shape"):
        plot_regrets({"t": {"a": [1.0, 2.0]}})
    with pytest.raises(ValueError, match="at least one method"):
        plot_ranks({})
