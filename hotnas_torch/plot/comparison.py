"""Pictures of a comparison of searches: regret over evaluations, and mean ranks."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hotnas_torch.plot.figure import FAINT, INK, FloatArray, new_figure, plain

__all__ = ["plot_ranks", "plot_regrets"]

_COLOURS = (
    "#C8553D",
    "#5B7DB1",
    "#6A994E",
    "#B08B3E",
    "#7B5EA7",
    "#3B8EA5",
    "#A44A6C",
    "#7A7A7A",
    "#2F4858",
    "#D98E73",
    "#8FB8DE",
    "#A7C957",
)
_COLUMNS = 4
_MOST_BANDS = 6


def plot_regrets(
    regrets: Mapping[str, Mapping[str, npt.ArrayLike]],
    *,
    num_initial: int = 1,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Mean regret over evaluations, one panel per task, with bands of one standard error.

    The first method is drawn above the others. Where there are more than six, only it has a band.

    Args:
        regrets: By the title of the task and the name of the method: regret of the best so far,
            shape (seeds, evaluations).
        num_initial: Evaluations that are left out at the start, where methods do not differ yet.
        labels: What to call the methods.

    Returns:
        The figure; regret on a logarithmic scale, its lower end standing for zero.

    Raises:
        ValueError: There are no tasks, or a shape does not fit.
    """
    if not regrets:
        raise ValueError("regrets must hold at least one task; got none")
    methods = list(dict.fromkeys(method for one in regrets.values() for method in one))
    rows = math.ceil(len(regrets) / _COLUMNS)
    columns = min(len(regrets), _COLUMNS)
    shown = [(labels or {}).get(name, name) for name in methods]
    width = 3.1 * columns + 0.5
    legend_columns = _legend_columns(shown, width)
    legend_height = 0.12 + 0.2 * math.ceil(len(shown) / legend_columns)
    figure = new_figure(width, 2.7 * rows + 0.33 + legend_height)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, curves) in zip(grid.flat, regrets.items(), strict=False):
        _draw_curves(axes, title, curves, methods, num_initial)
    for axes in list(grid.flat)[len(regrets) :]:
        axes.set_visible(False)
    for row in grid:
        row[0].set_ylabel("mean regret", color=INK, fontsize=9)
    # A method may be missing from some panels.
    handles = dict(
        pair
        for axes in grid.flat
        for pair in zip(*reversed(axes.get_legend_handles_labels()), strict=True)
    )
    figure.tight_layout(rect=(0.0, 0.0, 1.0, 1.0 - legend_height / figure.get_size_inches()[1]))
    figure.legend(
        [handles[plain(name)] for name in methods],
        list(map(plain, shown)),
        loc="upper center",
        ncols=legend_columns,
        frameon=False,
        fontsize=9,
    )
    return figure


def _legend_columns(texts: Sequence[str], width: float) -> int:
    """Most columns of a legend that fit a width in inches; its first ones are the longer ones."""
    for columns in range(len(texts), 1, -1):
        rows, longer = divmod(len(texts), columns)
        left = iter(texts)
        longest = [
            max(len(next(left)) for _ in range(rows + (column < longer)))
            for column in range(columns)
        ]
        if sum(0.65 + 0.078 * length for length in longest) <= width:
            return columns
    return 1


def _draw_curves(
    axes: Axes,
    title: str,
    curves: Mapping[str, npt.ArrayLike],
    methods: Sequence[str],
    num_initial: int,
) -> None:
    arrays: dict[str, FloatArray] = {}
    for method, values in curves.items():
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] <= num_initial or not array.shape[0]:
            raise ValueError(
                f"regrets[{title!r}][{method!r}] must have shape (seeds, evaluations) with more "
                f"than {num_initial} evaluations; got {array.shape}"
            )
        arrays[method] = array[:, num_initial - 1 :]
    means = np.concatenate([array.mean(0) for array in arrays.values()])
    positive = means[means > 0.0]
    floor = 0.6 * float(positive.min()) if len(positive) else 1e-3
    many = len(methods) > _MOST_BANDS
    for method, array in arrays.items():
        place = methods.index(method)
        again, colour = divmod(place, len(_COLOURS))
        places = np.arange(num_initial, num_initial + array.shape[1])
        mean = array.mean(0)
        error = array.std(0, ddof=1) / math.sqrt(len(array)) if len(array) > 1 else 0.0 * mean
        low, high = np.maximum(mean - error, floor), np.maximum(mean + error, floor)
        if place == 0 or not many:
            axes.fill_between(
                places, low, high, color=_COLOURS[colour], alpha=0.15, linewidth=0, step="post"
            )
        axes.step(
            places,
            np.maximum(mean, floor),
            where="post",
            color=_COLOURS[colour],
            linestyle="--" if again else "-",
            linewidth=2.0 if place == 0 else 1.1 if many else 1.6,
            label=plain(method),
            zorder=4.0 if place == 0 else 2.0,
        )
    axes.set_yscale("log")
    axes.set_ylim(bottom=floor)
    axes.set_title(plain(title), fontsize=10, color=INK)
    axes.set_xlabel("evaluations", fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=FAINT, which="both")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def plot_ranks(
    mean_ranks: Mapping[str, float],
    *,
    critical_difference: float = math.nan,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Mean ranks on a line; a bar joins methods that the tasks do not tell apart.

    Args:
        mean_ranks: By method, 1 is the best.
        critical_difference: Ranks that differ by less are joined; NaN joins none.
        labels: What to call the methods.

    Returns:
        The figure.

    Raises:
        ValueError: There are no methods.

    Reference: Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006.
    """
    if not mean_ranks:
        raise ValueError("mean_ranks must hold at least one method; got none")
    names = sorted(mean_ranks, key=lambda name: mean_ranks[name])
    ranks = [mean_ranks[name] for name in names]
    groups = _groups(ranks, critical_difference)
    half = math.ceil(len(names) / 2)
    height = 0.95 + 0.12 * len(groups) + 0.26 * half
    shown = [(labels or {}).get(name, name) for name in names]
    # Inches: the scale, and what the longest text needs on either side of it.
    scale = 4.2
    room = 0.85 + 0.085 * max(len(text) for text in shown)
    figure = new_figure(scale + 2.0 * room, height)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    low, high = 1.0, float(max(len(names), 2))
    room *= (high - low) / scale
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(-height, 0.0)
    line = -0.5
    axes.plot([low, high], [line, line], color=INK, linewidth=1.2)
    for tick in range(1, int(high) + 1):
        axes.plot([tick, tick], [line, line + 0.07], color=INK, linewidth=1.0)
        axes.text(tick, line + 0.1, str(tick), ha="center", va="bottom", fontsize=9, color=INK)
    if math.isfinite(critical_difference):
        end = min(high, low + critical_difference)
        axes.plot([low, end], [-0.12, -0.12], color=FAINT, linewidth=2.0)
        text = f"critical difference {critical_difference:.2f}"
        axes.text(end, -0.12, "  " + text, va="center", fontsize=8.5, color=FAINT)
    for place, (first, last) in enumerate(groups):
        level = line - 0.1 - 0.12 * place
        ends = [ranks[first] - 0.01 * (high - low), ranks[last] + 0.01 * (high - low)]
        axes.plot(ends, [level, level], color="#C8553D", linewidth=3.0, solid_capstyle="round")
    below = line - 0.25 - 0.12 * len(groups)
    for place, (text, rank) in enumerate(zip(shown, ranks, strict=True)):
        left = place < half
        level = below - 0.26 * (place if left else len(names) - 1 - place)
        end = low - 0.04 * (high - low) if left else high + 0.04 * (high - low)
        axes.plot([rank, rank, end], [line, level, level], color=FAINT, linewidth=0.9)
        label = f"{text}  {rank:.2f} " if left else f" {rank:.2f}  {text}"
        side = "right" if left else "left"
        axes.text(end, level, plain(label), ha=side, va="center", fontsize=9.5, color=INK)
    return figure


def _groups(ranks: Sequence[float], critical_difference: float) -> list[tuple[int, int]]:
    """Return the largest runs of sorted ranks that the difference does not tell apart."""
    found: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = first
        while last + 1 < len(ranks) and ranks[last + 1] - ranks[first] < critical_difference:
            last += 1
        if last > first and not (found and found[-1][1] >= last):
            found.append((first, last))
    return found
