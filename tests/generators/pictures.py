"""What pictures are drawn of, and what can be read off a picture."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from hotnas_torch.arch import Cell


def grouped_distances(size: int, seed: int = 0) -> NDArray[np.float64]:
    """Distances between points in three well separated groups."""
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(size, 4)) + 8.0 * (np.arange(size) % 3)[:, None]
    distances: NDArray[np.float64] = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return distances


def random_cell(seed: int, size: int = 9) -> Cell:
    """A random cell in which every node is on a path from input to output."""
    generator = np.random.default_rng(seed)
    edges = [(i, j) for j in range(1, size) for i in range(j) if generator.random() < 0.35]
    labels = ["input", *(f"op{k % 4}" for k in range(size - 2)), "output"]
    return Cell.from_edges(labels, edges, prune=True)


def texts(figure: Figure) -> list[str]:
    """Everything written in a figure, but for the labels of axes."""
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [
        text.get_text() for text in figure.texts
    ]


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """The drawn figure, shape (height, width, 4)."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def written(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text of a figure without ticks, and the pixels that it covers."""
    figure.canvas.draw()
    found = [*figure.texts, *(child for axes in figure.axes for child in axes.get_children())]
    return [
        (text.get_text(), text.get_window_extent())
        for text in found
        if isinstance(text, Text) and text.get_text()
    ]
