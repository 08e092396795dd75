"""Pictures of hierarchies: the tree beside the distances that it orders."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from hotnas_torch.hierarchy import ArchitectureTree
from hotnas_torch.plot.clustering import as_matrix
from hotnas_torch.plot.distances import averaged
from hotnas_torch.plot.figure import FAINT, INK, FloatArray, new_figure, plain
from hotnas_torch.plot.names import short_name

__all__ = ["plot_hierarchy"]

_MAX_NAMED = 60
_MAX_PIXELS = 1200
_VALUES = "cividis"
_DISTANCES = "viridis"


def plot_hierarchy(
    tree: ArchitectureTree,
    distances: Tensor | npt.ArrayLike | None = None,
    *,
    values: Tensor | None = None,
    labels: Sequence[str] | None = None,
    title: str = "Hierarchy of architectures",
    value_label: str = "mean value below",
    by_level: bool = False,
) -> Figure:
    """Draw a tree of architectures and, beside its leaves, their distances in the same order.

    Args:
        tree: The tree; nodes are drawn at their `height`.
        distances: (N, N) symmetric and finite; None draws the tree alone.
        values: (N,) numbers, for example accuracies: a branch has the colour of the mean below it.
        labels: N names, shown for up to 60 architectures; default their numbers.
        title: Heading.
        value_label: What the colours of branches mean.
        by_level: Draw all branches of a level equally long instead, where heights of a large tree
            leave no room for its lower levels. The more architectures, the thicker a branch.

    Returns:
        The figure, root on the left. The colours of the matrix span the 1st to 99th percentile of
        the distances between different architectures, as in the paper's Fig. 4 and 5.

    Raises:
        ValueError: An argument does not fit the tree's N architectures.

    Complexity: O(M) line segments for M nodes, O(N^2) for the matrix.
    """
    num = tree.num_architectures
    for name, given in (("labels", labels), ("values", values)):
        if given is not None and len(given) != num:
            raise ValueError(
                f"{name} must have one entry per architecture, {num}; got {len(given)}"
            )
    matrix = None if distances is None else as_matrix(distances)
    if matrix is not None and len(matrix) != num:
        raise ValueError(
            f"distances must relate the tree's {num} architectures; got shape {matrix.shape}"
        )
    named = num <= _MAX_NAMED
    height = max(4.6, 1.5 + 0.17 * num) if named else 8.4
    figure = new_figure(6.4 if matrix is None else 11.4, height)
    bottom, extent = 0.75 / height, 1.0 - 1.5 / height
    left, width = (0.05, 0.72) if matrix is None else (0.03, 0.36)
    axes = figure.add_axes((left, bottom, width, extent))
    colours = _draw_tree(axes, tree, values, by_level=by_level)
    order = tree.order.tolist()
    if named:
        names = [str(place) if labels is None else short_name(labels[place]) for place in order]
        axes.set_yticks(range(num), list(map(plain, names)), fontsize=7.5, color=INK)
        axes.yaxis.tick_right()
        axes.tick_params(axis="y", length=0, pad=2)
    else:
        axes.set_yticks([])
    if matrix is not None:
        _draw_matrix(figure, matrix[np.ix_(order, order)], (bottom, extent), named=named)
    if colours is not None:
        bar = figure.colorbar(
            colours,
            cax=figure.add_axes((left, 0.32 / height, width * 0.6, 0.1 / height)),
            orientation="horizontal",
        )
        bar.ax.tick_params(labelsize=7, colors=INK, pad=1, length=2)
        bar.outline.set_visible(False)
        figure.text(
            left + width * 0.63,
            0.32 / height,
            plain(value_label),
            fontsize=8,
            color=FAINT,
            va="bottom",
        )
    figure.text(left, 1 - 0.32 / height, plain(title), fontsize=13, color=INK, va="center")
    return figure


def _draw_tree(
    axes: Axes, tree: ArchitectureTree, values: Tensor | None, *, by_level: bool
) -> LineCollection | None:
    num = tree.num_architectures
    height = tree.height
    if by_level:
        height = (len(tree.levels) - 1 - tree.depth).double()
        height[tree.leaf] = 0.0
    place = torch.zeros(tree.num_nodes, dtype=torch.float64)
    place[tree.leaf[tree.order]] = torch.arange(num, dtype=torch.float64)
    first, last = tree.first_child[:-1], tree.first_child[1:] - 1
    for level in reversed(tree.levels):
        inner = torch.arange(level.start, level.stop)
        inner = inner[tree.architecture[inner] < 0]
        place[inner] = (place[first[inner]] + place[last[inner]]) / 2
    above = tree.parent[1:]
    points = [
        torch.stack([height[1:], place[1:]], dim=1),
        torch.stack([height[above], place[1:]], dim=1),
        torch.stack([height[above], place[above]], dim=1),
    ]
    segments = torch.stack(points, dim=1).numpy()
    sizes = tree.num_leaves[1:].double().log2().numpy()
    thickness = 1.6 if num <= _MAX_NAMED else 0.2 + 0.2 * sizes
    lines = LineCollection(list(segments), linewidths=thickness, capstyle="round")
    if values is None:
        lines.set_color(INK)
    else:
        own = torch.zeros(tree.num_nodes, dtype=torch.float64)
        own[tree.leaf] = values.detach().cpu().double()
        means = (tree.sum_up(own) / tree.num_leaves).numpy()
        low, high = np.percentile(means, (5, 100))
        lines.set_array(means[1:])
        lines.set_cmap(colormaps[_VALUES])
        lines.set_norm(Normalize(low, high if high > low else low + 1e-12))
    axes.add_collection(lines)
    top = float(height.max()) or 1.0
    axes.set_xlim(top * 1.02, -0.01 * top)
    axes.set_ylim(num - 0.5, -0.5)
    axes.tick_params(axis="x", colors=INK, labelsize=8)
    axes.xaxis.tick_top()
    for spine in axes.spines.values():
        spine.set_visible(False)
    return None if values is None else lines


def _draw_matrix(
    figure: Figure, ordered: FloatArray, place: tuple[float, float], *, named: bool
) -> None:
    size = len(ordered)
    ordered = ordered.astype(np.float64)
    between = ordered[~np.eye(size, dtype=bool)]
    low, high = np.percentile(between, (1, 99))
    if high <= low:
        low, high = 0.0, max(float(high), 1e-12)
    bottom, extent = place
    start = 0.47 if named else 0.41
    axes = figure.add_axes((start, bottom, 0.91 - start, extent))
    image = axes.imshow(
        averaged(ordered, _MAX_PIXELS),
        extent=(-0.5, size - 0.5, size - 0.5, -0.5),
        cmap=_DISTANCES,
        vmin=float(low),
        vmax=float(high),
        interpolation="nearest" if size <= _MAX_PIXELS else "antialiased",
        aspect="auto",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, cax=figure.add_axes((0.925, bottom, 0.016, extent)), extend="both")
    bar.set_label("distance", color=INK)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)
