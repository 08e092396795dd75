"""The look that all pictures of the benchmarks share."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

__all__ = ["COLOURS", "INK", "canvas", "label_ends", "log_log"]

# Okabe and Ito's colours, told apart by colour-blind readers too; black and yellow left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A68A6", "#8C6D46")
INK = "#333333"
_FAINT = "#D9D9D9"


def canvas(
    columns: int, rows: int = 1, *, width: float = 5.6, height: float = 4.2
) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels in reading order, without a display; sizes are of a panel."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = [figure.add_subplot(rows, columns, place + 1) for place in range(columns * rows)]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        axes.tick_params(colors=INK, labelsize=9)
        axes.grid(True, color=_FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.title.set_fontsize(11)
    return figure, panels


def log_log(axes: Axes, ticks: Sequence[int]) -> None:
    """Make axes logarithmic, with the measured sizes as the only ticks below."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticklabels([str(tick) for tick in ticks])


def label_ends(
    axes: Axes, labels: Sequence[tuple[str, float, float, str]], *, smallest_step: float = 0.055
) -> None:
    """Write names beside the right ends of curves, moved apart where they would overlap.

    Args:
        axes: Panel with its final scales and limits.
        labels: (text, x, y, colour) in data coordinates.
        smallest_step: Least distance of two texts, as a share of the panel's height.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    places = sorted(
        (float(to_axes.transform((x, y))[1]), float(to_axes.transform((x, y))[0]), text, colour)
        for text, x, y, colour in labels
    )
    height = -1.0
    for y, x, text, colour in places:
        height = max(y, height + smallest_step)
        axes.annotate(
            text,
            (x, y),
            xytext=(x + 0.02, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=colour,
            fontsize=9,
            va="center",
            annotation_clip=False,
        )
