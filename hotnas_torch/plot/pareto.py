"""Pictures of two objectives: fronts, the spread of samples, and progress over cost."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hotnas_torch.plot.figure import (
    INK,
    Direction,
    FloatArray,
    darker,
    new_figure,
    plain,
    sign_of,
)

__all__ = ["plot_fronts", "plot_progress", "plot_spread"]

_COLOURS = ("#C8553D", "#5B7DB1", "#4C956C", "#B08BBF", "#D9A441", "#6B6B6B")
_MARKERS = ("o", "s", "^", "D", "v", "P")


def plot_fronts(
    values: Mapping[str, npt.ArrayLike],
    *,
    labels: tuple[str, str],
    log: str = "",
    directions: tuple[Direction, Direction] = ("minimize", "minimize"),
) -> Figure:
    """Everything that searches evaluated, and the front of each: filled points on a stepped line.

    Args:
        values: By the name of the search: the values of both objectives, shape (N, 2), N >= 1;
            rows with NaN are left out.
        labels: Names of the axes; the first objective goes upwards.
        log: Axes with a logarithmic scale: `""`, `"x"`, `"y"` or `"xy"`.
        directions: `"minimize"` or `"maximize"` for each objective.

    Returns:
        The figure; a stepped line bounds what is dominated: what is worse in both objectives.

    Raises:
        ValueError: There is no search, or a shape does not fit, or a direction is unknown.
    """
    if not values:
        raise ValueError("values must hold at least one search; got none")
    signs = np.array([sign_of(direction) for direction in directions])
    figure, axes = _panel(labels, log)
    for place, (name, given) in enumerate(values.items()):
        points = _pairs(f"values[{name!r}]", given)
        points = points[np.isfinite(points).all(axis=1)]
        colour, marker = _style(place)
        front = signs * _front(signs * points)
        axes.scatter(
            points[:, 1],
            points[:, 0],
            s=26,
            marker=marker,
            facecolors="none",
            edgecolors=colour,
            linewidths=0.8,
            alpha=0.7,
            zorder=2,
        )
        axes.step(front[:, 1], front[:, 0], where="post", color=colour, linewidth=1.6, zorder=3)
        axes.scatter(
            front[:, 1],
            front[:, 0],
            s=36,
            marker=marker,
            color=colour,
            edgecolors=darker(colour),
            linewidths=0.7,
            zorder=4,
            label=plain(f"{name} ({len(front)} of {len(points)})"),
        )
    axes.legend(frameon=False, fontsize=9, title="Pareto-optimal", title_fontsize=9)
    return figure


def plot_spread(
    samples: Mapping[str, Sequence[npt.ArrayLike]], *, labels: tuple[str, str], log: str = ""
) -> Figure:
    """Mean and standard deviation of both objectives over samples of each generator.

    Args:
        samples: By the name of a group: for each generator in it the values of its samples, shape
            (S, 2), S >= 1.
        labels: Names of the axes; the first objective goes upwards.
        log: Axes with a logarithmic scale, as for `plot_fronts`.

    Returns:
        The figure; bars reach one standard deviation to both sides, and are missing where a
        generator has a single sample.

    Raises:
        ValueError: There is no group, or a shape does not fit.
    """
    if not samples:
        raise ValueError("samples must hold at least one group; got none")
    figure, axes = _panel(labels, log)
    for place, (name, group) in enumerate(samples.items()):
        colour, marker = _style(place)
        found = [_pairs(f"samples[{name!r}][{number}]", one) for number, one in enumerate(group)]
        centre = np.array([one.mean(axis=0) for one in found]).reshape(-1, 2)
        spread = np.array(
            [one.std(axis=0, ddof=1) if len(one) > 1 else (0.0, 0.0) for one in found]
        ).reshape(-1, 2)
        axes.errorbar(
            centre[:, 1],
            centre[:, 0],
            xerr=spread[:, 1],
            yerr=spread[:, 0],
            fmt=marker,
            color=colour,
            markersize=4.5,
            elinewidth=0.9,
            alpha=0.8,
            label=plain(f"{name} ({len(found)})"),
        )
    axes.legend(frameon=False, fontsize=9)
    return figure


def plot_progress(
    runs: Mapping[str, Mapping[str, Sequence[tuple[npt.ArrayLike, npt.ArrayLike]]]],
    *,
    labels: tuple[str, str],
) -> Figure:
    """Return what searches had reached at a cost: means over runs, a band of one standard error.

    Args:
        runs: By the title of a panel and the name of the search: for each run the costs at which a
            value was reached, increasing, and the values, shapes (N,).
        labels: Names of the horizontal and of the vertical axis.

    Returns:
        The figure; a curve begins where all its runs have a value.

    Raises:
        ValueError: There is nothing to draw, or shapes do not fit.
    """
    if not runs:
        raise ValueError("runs must hold at least one panel; got none")
    figure = new_figure(4.0 * len(runs) + 0.4, 3.9)
    grid = figure.subplots(1, len(runs), squeeze=False)[0]
    names = list(dict.fromkeys(name for panel in runs.values() for name in panel))
    for axes, (title, panel) in zip(grid, runs.items(), strict=True):
        for name, found in panel.items():
            costs, values = _on_common_costs(f"runs[{title!r}][{name!r}]", found)
            colour, _ = _style(names.index(name))
            mean = values.mean(axis=0)
            error = values.std(axis=0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0 * mean
            axes.step(costs, mean, where="post", color=colour, linewidth=1.6, label=plain(name))
            axes.fill_between(
                costs, mean - error, mean + error, step="post", color=colour, alpha=0.18, lw=0
            )
        axes.set_title(plain(title), fontsize=10, color=INK)
        axes.set_xlabel(plain(labels[0]), color=INK)
        _tidy(axes)
    grid[0].set_ylabel(plain(labels[1]), color=INK)
    grid[0].legend(frameon=False, fontsize=9)
    figure.tight_layout()
    return figure


def _panel(labels: tuple[str, str], log: str) -> tuple[Figure, Axes]:
    figure = new_figure(6.4, 4.4)
    axes = figure.add_axes((0.11, 0.12, 0.86, 0.84))
    axes.set_ylabel(plain(labels[0]), color=INK)
    axes.set_xlabel(plain(labels[1]), color=INK)
    if "x" in log:
        axes.set_xscale("log")
    if "y" in log:
        axes.set_yscale("log")
    _tidy(axes)
    return figure, axes


def _tidy(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=9, labelcolor=INK)
    axes.grid(color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)


def _style(place: int) -> tuple[str, str]:
    return _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]


def _pairs(name: str, given: npt.ArrayLike) -> FloatArray:
    points = np.asarray(given, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"{name} must have shape (N, 2) with N >= 1; got {points.shape}")
    return points


def _front(points: FloatArray) -> FloatArray:
    """Return the points that no other one dominates, by the second objective."""
    ordered = points[np.lexsort((points[:, 0], points[:, 1]))]
    before = np.minimum.accumulate(np.concatenate([[np.inf], ordered[:-1, 0]]))
    return ordered[ordered[:, 0] < before]


def _on_common_costs(
    name: str, runs: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]]
) -> tuple[FloatArray, FloatArray]:
    """Costs at which a run has a new value, (C,), and the values of all runs there, (R, C)."""
    found = [
        (np.asarray(costs, dtype=np.float64), np.asarray(values, dtype=np.float64))
        for costs, values in runs
    ]
    if not found or any(
        costs.ndim != 1 or costs.shape != values.shape or not len(costs) for costs, values in found
    ):
        raise ValueError(f"{name} must hold runs of costs and values of equal length, at least one")
    first = max(float(costs[0]) for costs, _ in found)
    every = np.unique(np.concatenate([costs for costs, _ in found]))
    common = every[every >= first]
    values = [values[np.searchsorted(costs, common, side="right") - 1] for costs, values in found]
    return common, np.stack(values)
