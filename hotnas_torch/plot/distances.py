"""Pictures of distance matrices: heat map and tree."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from torch import Tensor

from hotnas_torch.plot.clustering import (
    CLUSTER_COLOURS,
    Clustering,
    as_matrix,
    cluster,
    members_below,
    top_branches,
)
from hotnas_torch.plot.figure import FAINT, INK, FloatArray, darker, new_figure, plain
from hotnas_torch.plot.names import short_name
from hotnas_torch.plot.titles import text_width

__all__ = ["averaged", "plot_heat_map", "plot_tree"]

_MAX_CLUSTERED = 3000
"""Items that a picture clusters; beyond it a picture shows evenly spaced ones."""

_MAX_PIXELS = 1200
"""Side of the drawn heat map; larger ones are averaged down to it."""

_MAX_TICKS = 40

_TITLE, _TICKS, _LEAVES, _NOTE = (FontProperties(size=size) for size in (14.0, 7.5, 8.0, 9.0))

_MORE = 1.06
"""Room for a text over its width: coarse pixels make letters wider."""

_OF_SEVERAL = "(n): a branch of n networks, named after the one nearest to the others"


def plot_heat_map(
    distances: Tensor | npt.ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    title: str = "Distances, ordered by clustering",
    max_items: int = _MAX_CLUSTERED,
) -> Figure:
    """Heat map of a distance matrix, rows and columns ordered by average-linkage clustering.

    Args:
        distances: Symmetric matrix, shape (X, X), X >= 2, finite.
        labels: X names; shown for up to 40 items.
        title: Heading.
        max_items: Items that are clustered and shown, evenly spaced ones if there are more.

    Returns:
        The figure. Colours span 0 to the 99th percentile of the distances between different items,
        so that what has the colour of the diagonal is near; the strip beside the map and the tree
        above it show the same clusters.

    Raises:
        ValueError: Not a square finite matrix of at least two items, or a wrong number of labels.

    Complexity: O(K^2) time and memory for K = min(X, max_items).
    """
    matrix = as_matrix(distances)
    labels = _check_labels(labels, len(matrix))
    clustering = cluster(matrix, max_items)
    shown = clustering.items[clustering.order]
    size = len(shown)
    ordered: FloatArray = matrix[np.ix_(shown, shown)].astype(np.float64)
    off_diagonal = ordered[~np.eye(size, dtype=bool)]
    high = max(float(np.percentile(off_diagonal, 99)), 1e-12)
    named = size <= _MAX_TICKS
    names = [short_name(labels[item]) for item in shown] if named else []
    title = title + _subset_note(size, len(matrix))
    # Inches: what stands left of the map, the map, and the bar of colours with its numbers.
    before = 0.75 + _MORE * max((text_width(name, _TICKS) for name in names), default=0.0)
    figure_height, side = 10.4, 8.1
    figure_width = max(before + side + 1.6, before + _MORE * text_width(title, _TITLE) + 0.2)
    figure = new_figure(figure_width, figure_height)
    left, width = before / figure_width, side / figure_width
    bottom, extent = 0.06, side / figure_height
    axes = figure.add_axes((left, bottom, width, extent))
    image = axes.imshow(
        averaged(ordered, _MAX_PIXELS),
        extent=(-0.5, size - 0.5, size - 0.5, -0.5),
        cmap="viridis",
        vmin=0.0,
        vmax=high,
        interpolation="nearest" if size <= _MAX_PIXELS else "antialiased",
        aspect="auto",
    )
    if named:
        axes.set_yticks(
            range(size), [plain(name) for name in names], fontproperties=_TICKS, color=INK
        )
        axes.set_xticks([])
        axes.tick_params(length=0, pad=24)
    else:
        axes.set_xlabel(f"{size:,} networks in the order of the tree", color=INK)
        axes.set_xticks([])
        axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    strip = figure.add_axes((left - 0.25 / figure_width, bottom, 0.17 / figure_width, extent))
    _draw_strip(strip, clustering)
    tree = figure.add_axes((left, bottom + extent + 0.005, width, 0.09))
    _draw_small_tree(tree, clustering)
    bar_axes = figure.add_axes(
        (left + width + 0.28 / figure_width, bottom, 0.25 / figure_width, extent)
    )
    bar = figure.colorbar(image, cax=bar_axes, extend="max")
    bar.set_label("distance", color=INK)
    bar.outline.set_visible(False)
    figure.text(
        left,
        0.965,
        plain(title),
        fontproperties=_TITLE,
        color=INK,
        va="center",
    )
    return figure


def plot_tree(
    distances: Tensor | npt.ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    title: str = "Average-linkage tree of the networks",
    max_leaves: int = 48,
    max_items: int = _MAX_CLUSTERED,
) -> Figure:
    """Tree picture (dendrogram) of a distance matrix, truncated where there are many items.

    Args:
        distances: Symmetric matrix, shape (X, X), X >= 2, finite.
        labels: X names.
        title: Heading.
        max_leaves: Branches that are drawn; a branch that stands for several items carries their
            number and the name of the most central one.
        max_items: Items that are clustered, evenly spaced ones if there are more.

    Returns:
        The figure, root on the left, branch lengths proportional to distances.

    Raises:
        ValueError: Not a square finite matrix of at least two items, or a wrong number of labels.

    Complexity: O(K^2) time and memory for K = min(X, max_items).
    """
    matrix = as_matrix(distances)
    labels = _check_labels(labels, len(matrix))
    clustering = cluster(matrix, max_items)
    branches = top_branches(clustering, max_leaves)
    num_leaves = len(branches.leaves)
    height = 1.6 + 0.23 * max(num_leaves, 4)
    members = [members_below(clustering, node) for node in branches.leaves]
    names = [_branch_name(matrix, labels, clustering.items[below]) for below in members]
    title = title + _subset_note(len(clustering.items), len(matrix))
    few = num_leaves < len(clustering.items)
    longest = max(text_width(title, _TITLE), text_width(_OF_SEVERAL, _NOTE) if few else 0.0)
    beside = max(text_width(name, _LEAVES) for name in names)
    left, span = 0.44, 5.5  # inches
    figure_width = left + max(span + _MORE * beside, _MORE * longest) + 0.2
    figure = new_figure(figure_width, height)
    axes = figure.add_axes(
        (left / figure_width, 0.55 / height, span / figure_width, 1 - 1.35 / height)
    )
    axes.add_collection(
        LineCollection(
            [[(level, place) for place, level in line] for line in branches.segments],
            colors=branches.colours,
            linewidths=1.4,
            capstyle="round",
        )
    )
    top = float(clustering.links[-1, 2])
    axes.set_xlim(top * 1.02 if top > 0 else 1.0, 0.0)
    axes.set_ylim(num_leaves - 0.4, -0.6)
    axes.set_yticks([])
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("distance at which branches join", color=INK)
    axes.tick_params(colors=INK)
    for name in ("left", "right", "top"):
        axes.spines[name].set_visible(False)
    for place, (name, below) in enumerate(zip(names, members, strict=True)):
        groups = {int(clustering.groups[member]) for member in below}
        colour = CLUSTER_COLOURS[groups.pop()] if len(groups) == 1 else INK
        axes.text(
            0.0,
            place,
            plain(name),
            fontproperties=_LEAVES,
            va="center",
            color=darker(colour),
            clip_on=False,
        )
    figure.text(
        left / figure_width,
        1 - 0.35 / height,
        plain(title),
        fontproperties=_TITLE,
        color=INK,
        va="center",
    )
    if few:
        figure.text(
            left / figure_width,
            1 - 0.62 / height,
            _OF_SEVERAL,
            fontproperties=_NOTE,
            color=FAINT,
            va="center",
        )
    return figure


def _branch_name(matrix: FloatArray, labels: Sequence[str], items: npt.NDArray[np.int64]) -> str:
    """Name a branch after the item nearest to its others, with their number."""
    centre = items[np.argmin(matrix[np.ix_(items, items)].sum(1))]
    number = f"   ({len(items):,})" if len(items) > 1 else ""
    return f"  {short_name(labels[int(centre)])}{number}"


def averaged(matrix: FloatArray, side: int) -> FloatArray:
    """Block means of a matrix, at most `side` rows and columns."""
    size = len(matrix)
    if size <= side:
        return matrix
    starts = np.unique(np.linspace(0, size, side, endpoint=False).astype(np.int64))
    counts = np.diff(np.append(starts, size)).astype(np.float64)
    sums = np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)
    averaged: FloatArray = sums / counts[:, None] / counts
    return averaged


def _draw_strip(axes: Axes, clustering: Clustering) -> None:
    groups = clustering.groups[clustering.order]
    palette = np.array([to_rgb(colour) for colour in CLUSTER_COLOURS])
    axes.imshow(palette[groups][:, None, :], aspect="auto", interpolation="nearest")
    axes.set_axis_off()


def _draw_small_tree(axes: Axes, clustering: Clustering) -> None:
    size = len(clustering.items)
    branches = top_branches(clustering, size)
    axes.add_collection(
        LineCollection(
            branches.segments,
            colors=branches.colours,
            linewidths=float(np.clip(60 / size, 0.25, 1.2)),
        )
    )
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(0.0, float(clustering.links[-1, 2]) * 1.02 or 1.0)
    axes.set_axis_off()


def _check_labels(labels: Sequence[str] | None, size: int) -> Sequence[str]:
    if labels is None:
        return [f"#{index}" for index in range(size)]
    if len(labels) != size:
        raise ValueError(f"labels must name each of the {size} items; got {len(labels)} labels")
    return labels


def _subset_note(shown: int, size: int) -> str:
    return "" if shown == size else f" ({shown:,} of {size:,} shown, evenly spaced)"
