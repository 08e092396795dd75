"""What all pictures share: figures that need no display, their colours, their files."""

import io
from os import PathLike
from pathlib import Path
from typing import Literal
from unicodedata import category

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from hotnas_torch.arguments import choice
from hotnas_torch.files import check_writable, write_bytes

__all__ = [
    "FAINT",
    "INK",
    "Direction",
    "FloatArray",
    "add_room_on_top",
    "check_picture",
    "darker",
    "new_figure",
    "plain",
    "printable",
    "save_figure",
    "sign_of",
]

FloatArray = npt.NDArray[np.float64]
Direction = Literal["minimize", "maximize"]

_FORMATS = (".png", ".pdf", ".svg")

INK = "#333333"
FAINT = "#8A8A8A"


class _Picture(Figure):
    """A figure that notebooks show; they show those of matplotlib once pyplot was imported."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", bbox_inches="tight")
        return content.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure, sizes in inches, that is drawn without a display."""
    figure = _Picture(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def sign_of(direction: str) -> float:
    """Return what turns a value into a loss, of which smaller is better.

    Raises:
        ValueError: The direction is unknown.
    """
    found = choice("direction", direction, ("minimize", "maximize"))
    return 1.0 if found == "minimize" else -1.0


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
    """Write a figure to a file, complete or not at all; the suffix chooses the format.

    Raises:
        ValueError: The suffix is none of .png, .pdf and .svg.
        OSError: The file cannot be written; an old one is then untouched.
    """
    path = Path(path)
    check_picture(path)
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower(), dpi=dpi, facecolor="white")
    write_bytes(path, content.getvalue())


def check_picture(path: Path) -> None:
    """Check, before the work that a picture shows, that it can be written; errors as there."""
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"{path} must end in {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}")
    check_writable(path)


def plain(text: str) -> str:
    """Return a text as it stands: matplotlib takes what lies between two "$" for a formula."""
    return printable(text).replace("$", r"\$")


def printable(text: str) -> str:
    """Return a text with a sign in place of what fonts and files have none for."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if category(sign) in ("Cc", "Cs") and sign != "\n" else sign
        for sign in text
    )


def darker(colour: str) -> tuple[float, float, float]:
    """Return a darker shade, for outlines and text."""
    red, green, blue = to_rgb(colour)
    return 0.62 * red, 0.62 * green, 0.62 * blue
