"""What all pictures share: figures that need no display, their colours, their files."""

from os import PathLike

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

__all__ = ["FAINT", "INK", "FloatArray", "add_room_on_top", "darker", "new_figure", "save_figure"]

FloatArray = npt.NDArray[np.float64]

INK = "#333333"
FAINT = "#8A8A8A"


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure, sizes in inches, that is drawn without a display."""
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_room_on_top(figure: Figure, inches: float) -> None:
    """Make a figure higher; what it shows keeps its size and its distance from the bottom."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + inches)
    kept = height / (height + inches)
    for axes in figure.axes:
        left, bottom, share_x, share_y = axes.get_position().bounds
        axes.set_position((left, bottom * kept, share_x, share_y * kept))
    for text in figure.texts:
        x, y = text.get_position()
        text.set_position((x, y * kept))


def save_figure(figure: Figure, path: str | PathLike[str], *, dpi: int = 150) -> None:
    """Write a figure to a file; the suffix (png, pdf, svg) chooses the format."""
    figure.savefig(path, dpi=dpi, facecolor="white")


def darker(colour: str) -> tuple[float, float, float]:
    """Return a darker shade, for outlines and text."""
    red, green, blue = to_rgb(colour)
    return 0.62 * red, 0.62 * green, 0.62 * blue
