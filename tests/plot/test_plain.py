"""Texts in pictures stand as they are, whatever matplotlib would make of them."""

import io

import numpy as np
import pytest

from hotnas_torch import spaces
from hotnas_torch.arch import Cell, Network
from hotnas_torch.plot import (
    plot_heat_map,
    plot_map,
    plot_network,
    plot_progress,
    plot_ranks,
    plot_regrets,
    plot_trace,
    plot_tree,
    save_figure,
)

TEXTS = [r"cost in $ and \frac$", "$x^2$", "$", r"\$a$b$", "a\x00\ud800$\x07$"]
DISTANCES = 1.0 - np.eye(6)


def figures(text):
    yield plot_trace([1.0, 2.0], label=text)
    yield plot_map(DISTANCES, [1.0, 2, 3, 4, 5, 6], label=text)
    yield plot_heat_map(DISTANCES, [text] * 6, title=text)
    yield plot_tree(DISTANCES, [text] * 6, title=text)
    yield plot_ranks({text: 1.0, "b": 2.0}, critical_difference=0.5)
    yield plot_regrets({text: {text: np.ones((2, 5)), "b": np.ones((2, 5))}}, num_initial=2)
    yield plot_progress({text: {text: [(np.arange(3), np.ones(3))]}}, labels=(text, text))
    cell = Cell(("input", text, "output"), ((0, 1), (1, 2)))
    yield plot_network(Network((cell,), (4,), (1,), input_channels=3, spec="x"), title=text)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_name_is_no_formula(text):
    for figure in figures(text):
        for kind in ("png", "svg"):
            figure.savefig(io.BytesIO(), format=kind)


def test_a_name_is_drawn_as_it_is(tmp_path):
    figure = plot_trace([1.0, 2.0], label="$x$ in $")
    text = figure.axes[0].yaxis.label
    shown, formula = text._preprocess_math(text.get_text())
    assert (shown, bool(formula)) == ("$x$ in $", False)


def test_a_picture_is_complete_or_absent_and_of_a_known_kind(tmp_path, monkeypatch):
    figure = plot_network(next(iter(spaces.Pooling())))
    save_figure(figure, tmp_path / "a.PNG")
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"must end in .png, .pdf or .svg"):
        save_figure(figure, tmp_path / "a.doc")
    monkeypatch.setattr("os.replace", None)
    before = (tmp_path / "a.PNG").read_bytes()
    with pytest.raises(TypeError):
        save_figure(figure, tmp_path / "a.PNG")
    assert (tmp_path / "a.PNG").read_bytes() == before
