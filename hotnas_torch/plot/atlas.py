"""A map of clusters: networks as points in the plane, around the networks in their middle."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from hotnas_torch.plot.clustering import CLUSTER_COLOURS, as_matrix
from hotnas_torch.plot.embedding import embed
from hotnas_torch.plot.figure import INK, FloatArray, darker, new_figure, plain
from hotnas_torch.plot.names import short_name

__all__ = ["plot_atlas"]

_MARKERS = "osD^vP"
"""Clusters beyond the number of colours differ by their markers."""


def plot_atlas(
    distances: Tensor | npt.ArrayLike,
    assigned: Tensor | npt.ArrayLike,
    names: Sequence[str] | None = None,
    *,
    title: str = "Networks around the centres of their clusters",
) -> Figure:
    """Draw clusters in the plane, near where networks are alike, with their centres named.

    Args:
        distances: Distances between N networks and the K centres after them, symmetric, shape
            (N + K, N + K), N >= 1, K >= 1: `metric([*nets, *clusters.networks])`.
        assigned: Cluster of each network, N whole numbers from 0 to K - 1.
        names: K names of the centres; None numbers them.
        title: Heading.

    Returns:
        The figure. Points are placed by multidimensional scaling; lines lead to the centres, which
        are stars with the number of networks around them.

    Raises:
        ValueError: Shapes that do not fit, or a number that is no cluster.

    Complexity: O((N + K)^2) time and memory per step of the scaling.

    Example:
        >>> import torch
        >>> places = torch.tensor([0.0, 1.0, 8.0, 9.0, 0.5, 8.5])
        >>> figure = plot_atlas((places[:, None] - places).abs(), torch.tensor([0, 0, 1, 1]))
        >>> len(figure.axes)
        1
    """
    matrix = as_matrix(distances)
    places = _checked(assigned, len(matrix))
    size = len(places)
    count = len(matrix) - size
    if names is not None and len(names) != count:
        raise ValueError(f"names must name each of the {count} centres; got {len(names)}")
    points = embed(matrix.astype(np.float64))
    figure = new_figure(9.0, 6.6)
    axes = figure.add_axes((0.03, 0.04, 0.94, 0.86))
    for cluster in range(count):
        shown = None if names is None else names[cluster]
        _draw_cluster(
            axes, points[:size][places == cluster], points[size + cluster], cluster, shown
        )
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.12)
    axes.set_axis_off()
    figure.text(0.04, 0.95, plain(title), fontsize=14, color=INK, va="center")
    return figure


def _checked(assigned: Tensor | npt.ArrayLike, size: int) -> npt.NDArray[np.int64]:
    if isinstance(assigned, Tensor):
        assigned = assigned.detach().cpu().numpy()
    found = np.asarray(assigned)
    if found.ndim != 1 or not 1 <= len(found) < size or found.dtype.kind not in "iu":
        raise ValueError(
            f"assigned must hold one whole number per network, fewer than the {size} items of"
            f" distances, as centres come after the networks; got {found.dtype} of shape"
            f" {found.shape}"
        )
    count = size - len(found)
    wrong = (found < 0) | (found >= count)
    if wrong.any():
        place = int(wrong.argmax())
        raise ValueError(
            f"assigned[{place}] must be one of {count} clusters, 0 to {count - 1}; got"
            f" {found[place]}"
        )
    return found.astype(np.int64)


def _draw_cluster(
    axes: Axes, points: FloatArray, centre: FloatArray, cluster: int, name: str | None
) -> None:
    colour = CLUSTER_COLOURS[cluster % len(CLUSTER_COLOURS)]
    marker = _MARKERS[cluster // len(CLUSTER_COLOURS) % len(_MARKERS)]
    for point in points:
        axes.plot(*zip(point, centre, strict=True), color=colour, linewidth=0.5, alpha=0.35)
    axes.scatter(
        points[:, 0], points[:, 1], s=30, marker=marker, color=colour, edgecolors="white",
        linewidths=0.5, zorder=3,
    )  # fmt: skip
    axes.scatter(
        centre[0], centre[1], s=210, marker="*", color=colour, edgecolors=[darker(colour)],
        linewidths=0.9, zorder=4,
    )  # fmt: skip
    text = f"{cluster}" if name is None else plain(short_name(name))
    axes.annotate(
        f"{text} ({len(points):,})",
        (float(centre[0]), float(centre[1])),
        xytext=(0, 9),
        textcoords="offset points",
        ha="center",
        fontsize=8.5,
        color=darker(colour),
        zorder=5,
    )
