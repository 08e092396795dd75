"""Pictures of a search: its values over time, and where in the space it has been."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hotnas_torch.plot.clustering import as_matrix
from hotnas_torch.plot.embedding import embed
from hotnas_torch.plot.figure import FAINT, INK, Direction, FloatArray, new_figure, plain, sign_of

__all__ = ["plot_map", "plot_trace"]

_LINE = "#C8553D"
_POINT = "#5B7DB1"
_FAILED = "#B0B0B0"
# The trace reaches this many times as far above the median as the best value lies below it.
_REACH = 3.0
_NUM_NUMBERED = 5


def plot_trace(
    values: Sequence[float],
    *,
    num_initial: int = 0,
    label: str | None = None,
    direction: Direction = "minimize",
    feasible: Sequence[bool] | None = None,
) -> Figure:
    """Values in the order of evaluation, and the best so far.

    Args:
        values: One per evaluation, at least one; NaN for a failed one.
        num_initial: Evaluations at the start that are set apart, for example random ones.
        label: Name of the vertical axis; None says which values are better.
        direction: `"minimize"` or `"maximize"`.
        feasible: Which evaluations keep all bounds; the others are drawn hollow and are never the
            best. None: all.

    Returns:
        The figure. Values far worse than the others are counted at the edge.

    Raises:
        ValueError: There are no values, an unknown direction, or `feasible` has another length.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers):
        raise ValueError("values must hold at least one evaluation; got none")
    sign = sign_of(direction)
    kept = np.ones(len(numbers), dtype=np.bool_)
    if feasible is not None:
        kept = np.asarray(feasible, dtype=np.bool_)
        if kept.shape != numbers.shape:
            raise ValueError(
                f"feasible must hold one entry per value, {len(numbers)}; got {kept.shape}"
            )
    figure = new_figure(8.0, 4.2)
    axes = figure.add_axes((0.09, 0.13, 0.89, 0.81))
    places = np.arange(1, len(numbers) + 1)
    finite = np.isfinite(numbers)
    if 0 < num_initial < len(numbers):
        axes.axvspan(0.5, num_initial + 0.5, color="#F2F2EE", linewidth=0)
        axes.text(
            num_initial + 0.35,
            0.985,
            "initial",
            transform=axes.get_xaxis_transform(),
            ha="right",
            va="top",
            fontsize=8.5,
            color=FAINT,
        )
    if finite.any():
        _draw_values(axes, places, numbers, finite, kept, sign)
    for place in places[~finite]:
        axes.plot(
            place, 0.02, "x", color=_FAILED, markersize=6, transform=axes.get_xaxis_transform()
        )
    axes.set_xlim(0.5, len(numbers) + 0.5)
    axes.set_xlabel("evaluations" + (" (x: failed)" if not finite.all() else ""), color=INK)
    axes.set_ylabel(plain(label or _label(direction)), color=INK)
    _tidy(axes)
    return figure


def _draw_values(
    axes: Axes,
    places: npt.NDArray[np.int64],
    numbers: FloatArray,
    finite: npt.NDArray[np.bool_],
    kept: npt.NDArray[np.bool_],
    sign: float,
) -> None:
    losses = sign * numbers
    best = np.minimum.accumulate(np.where(finite & kept, losses, np.inf))
    begun = np.isfinite(best)
    shown = losses[finite]
    low, median = float(shown.min()), float(np.median(shown))
    high = float(shown[shown <= median + _REACH * (median - low)].max())
    room = 0.06 * (high - low) or max(abs(low), 1.0) * 0.06
    for chosen, colour in ((finite & kept, _POINT), (finite & ~kept, "none")):
        axes.scatter(
            places[chosen],
            numbers[chosen],
            s=18,
            facecolors=colour,
            edgecolors=_POINT,
            alpha=0.75,
            linewidths=0 if colour == _POINT else 0.8,
            zorder=3,
        )
    if begun.any():
        axes.step(
            places[begun],
            sign * best[begun],
            where="post",
            color=_LINE,
            linewidth=1.8,
            label="best so far",
        )
        first = int(np.argmin(best))
        found = sign * float(best[first])
        axes.plot(places[first], found, "o", color=_LINE, markersize=7, zorder=4)
        late = places[first] > 0.92 * len(numbers)
        axes.annotate(
            f"{found:.4g}",
            (float(places[first]), found),
            xytext=(0, -9 * sign),
            textcoords="offset points",
            ha="right" if late else "center",
            va="top" if sign > 0 else "bottom",
            color=_LINE,
            fontsize=9,
        )
        axes.legend(
            loc="upper right" if sign > 0 else "lower right",
            framealpha=0.9,
            edgecolor="none",
            fontsize=9,
        )
    axes.set_ylim(*sorted((sign * (low - 2.2 * room), sign * (high + room))))
    beyond = int((shown > high + room).sum())
    if beyond:
        side = "above, up to" if sign > 0 else "below, down to"
        note = f"{beyond} value{'s' if beyond > 1 else ''} {side} {sign * shown.max():.4g}"
        axes.set_title(note, loc="right", fontsize=8.5, color=FAINT, pad=3)


def _label(direction: str) -> str:
    return f"value ({'smaller' if direction == 'minimize' else 'larger'} is better)"


def plot_map(
    distances: Tensor | npt.ArrayLike,
    values: Sequence[float],
    *,
    label: str | None = None,
    num_initial: int = 0,
    direction: Direction = "minimize",
) -> Figure:
    """Everything evaluated as points in the plane, near where networks are alike.

    Args:
        distances: Distances between the networks, shape (N, N), N >= 2.
        values: Their values in the order of evaluation, NaN for a failed one.
        label: Name of the colour scale; None says which values are better.
        num_initial: Evaluations at the start, drawn as squares.
        direction: `"minimize"` or `"maximize"`; the best are dark.

    Returns:
        The figure. Points are placed by multidimensional scaling; the best are numbered.

    Raises:
        ValueError: Shapes that do not fit.
    """
    matrix = as_matrix(distances)
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape != (len(matrix),):
        raise ValueError(f"values must hold one number per item, {len(matrix)}; got {len(numbers)}")
    sign = sign_of(direction)
    points = embed(matrix)
    figure = new_figure(8.0, 5.6)
    axes = figure.add_axes((0.02, 0.05, 0.82, 0.92))
    finite = np.isfinite(numbers)
    axes.scatter(points[~finite, 0], points[~finite, 1], marker="x", color=_FAILED, s=26)
    if finite.any():
        # Equal steps of colour for equal shares of the networks: values have long tails.
        order = np.argsort(np.argsort(sign * numbers[finite], kind="stable"), kind="stable")
        shade = np.full(len(numbers), np.nan)
        shade[finite] = order / max(finite.sum() - 1, 1)
        first = np.arange(len(numbers)) < num_initial
        for chosen, marker in ((finite & first, "s"), (finite & ~first, "o")):
            axes.scatter(
                points[chosen, 0],
                points[chosen, 1],
                c=shade[chosen],
                cmap="viridis",
                vmin=0.0,
                vmax=1.0,
                s=44,
                marker=marker,
                edgecolors="white",
                linewidths=0.6,
                zorder=3,
            )
        _number_the_best(axes, points, sign * numbers)
        _draw_scale(figure, sign * numbers[finite], label or _label(direction), sign)
    _draw_yardstick(axes, points)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.06)
    axes.set_axis_off()
    return figure


def _number_the_best(axes: Axes, points: FloatArray, numbers: FloatArray) -> None:
    ranked = np.argsort(numbers, kind="stable")
    for rank, place in enumerate(ranked[: min(_NUM_NUMBERED, int(np.isfinite(numbers).sum()))]):
        axes.annotate(
            str(rank + 1),
            points[place],
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=10 if rank else 12,
            weight="bold",
            color=_LINE,
            zorder=5,
        )


def _draw_scale(figure: Figure, losses: FloatArray, label: str, sign: float) -> None:
    axes = figure.add_axes((0.88, 0.12, 0.025, 0.76))
    axes.imshow(
        np.linspace(0.0, 1.0, 128)[:, None],
        aspect="auto",
        cmap="viridis",
        origin="lower",
        extent=(0.0, 1.0, 0.0, 1.0),
    )
    shares = np.linspace(0.0, 1.0, 5)
    axes.set_yticks(shares, [f"{value:.4g}" for value in sign * np.quantile(losses, shares)])
    axes.yaxis.tick_right()
    axes.tick_params(axis="y", length=0, labelsize=8.5, labelcolor=INK)
    axes.set_xticks([])
    axes.set_title(plain(label.split(" (")[0]), fontsize=9, color=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_yardstick(axes: Axes, points: FloatArray) -> None:
    """Return a bar as long as a distance, in the lower left corner."""
    extent = float(np.ptp(points[:, 0]))
    if extent <= 0.0:
        return
    length = float(f"{extent / 5:.1g}")
    x, y = points[:, 0].min(), points[:, 1].min() - 0.06 * extent
    axes.plot([x, x + length], [y, y], color=FAINT, linewidth=2.0, solid_capstyle="butt")
    axes.annotate(
        f"distance {length:g}",
        (x, y),
        xytext=(0, -4),
        textcoords="offset points",
        va="top",
        fontsize=8.5,
        color=FAINT,
    )


def _tidy(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=9, labelcolor=INK)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
