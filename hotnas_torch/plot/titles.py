"""Titles over a part of a picture, on as many lines as that part's width asks for."""

import re

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from hotnas_torch.plot.figure import INK, plain, printable

__all__ = ["draw_title", "text_width", "wrapped"]

_FONT = FontProperties(weight="bold", size=11.0)

_LINE = 1.25 * 11.0 / 72
"""Height of a line in inches."""

_MARGIN = 0.08
"""Inches that a title keeps from both ends of its part."""

# Where a line may break, the best places first; the last one is anywhere.
_BREAKS = (r"(?= \+ )", r"(?= )", r"(?<=[,:;…])", r"(?<=.)")


def text_width(text: str, font: FontProperties = _FONT) -> float:
    """Width of one line in inches, whatever the resolution; by default in the font of titles."""
    shown = printable(text)
    width, _, _ = text_to_path.get_text_width_height_descent(shown, font, ismath=False)
    return float(width) / 72


def wrapped(text: str, width: float) -> list[str]:
    """Break a title into lines.

    Args:
        text: The title; its own line breaks are kept.
        width: Inches that a line may take.

    Returns:
        The lines, filled one after the other. They break before a " + ", within parts that are
        wider than a line at spaces, and where there are none at punctuation or anywhere.
    """
    lines = printable(text).split("\n")
    for place in _BREAKS:
        lines = [part for line in lines for part in _broken(line, place, width)]
    return lines


def draw_title(axes: Axes, text: str, *, x: float, y: float, between: tuple[float, float]) -> float:
    """Write a title upwards from `y`, around `x` or as near to it as its part leaves room.

    Args:
        axes: Axes with their final place, limits and figure width.
        text: The title.
        x: Wanted middle.
        y: Lower end.
        between: Left and right end of the part, in the coordinates of the axes.

    Returns:
        Inches that the title is higher than one of a single line.
    """
    low, high = between
    left, right = axes.get_xlim()
    inch = (right - left) / (axes.bbox.width / axes.figure.dpi)
    lines = wrapped(text, (high - low) / inch - 2 * _MARGIN)
    reach = (max(map(text_width, lines)) / 2 + _MARGIN) * inch
    axes.text(
        max(low + reach, min(x, high - reach)),
        y,
        plain("\n".join(lines)),
        ha="center",
        va="bottom",
        fontproperties=_FONT,
        color=INK,
    )
    return (len(lines) - 1) * _LINE


def _broken(line: str, place: str, width: float) -> list[str]:
    if text_width(line) <= width:
        return [line]
    filled: list[str] = []
    for piece in re.split(place, line):
        if filled and text_width(filled[-1] + piece) <= width:
            filled[-1] += piece
        elif piece:
            filled.append(piece.lstrip())
    return filled
