"""Average-linkage trees of distance matrices, and where to draw their branches."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from torch import Tensor

from hotnas_torch.plot.figure import FAINT, FloatArray

__all__ = [
    "CLUSTER_COLOURS",
    "Branches",
    "Clustering",
    "as_matrix",
    "cluster",
    "members_below",
    "top_branches",
]

_MAX_ORDERED = 300
"""Items up to which leaves are ordered optimally, at cubic cost."""

# Okabe and Ito's colours, told apart by colour-blind readers too; black and yellow left out.
CLUSTER_COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#7A68A6",
    "#8C6D46",
)


@dataclass(frozen=True, slots=True)
class Clustering:
    """Average-linkage tree of the items that a picture shows.

    Attributes:
        items: Positions of the shown items in the matrix.
        links: scipy linkage of the shown items.
        order: Shown items from first to last leaf.
        groups: Cluster of every shown item, counted from 0 in leaf order.
    """

    items: npt.NDArray[np.int64]
    links: FloatArray
    order: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]


def as_matrix(distances: Tensor | npt.ArrayLike) -> FloatArray:
    """Check distances and take them to numpy, without changing their dtype."""
    if isinstance(distances, Tensor):
        distances = distances.detach().cpu().numpy()
    matrix = np.asarray(distances)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"distances must be a square matrix; got shape {matrix.shape}")
    if matrix.shape[0] < 2:
        raise ValueError("distances must relate at least 2 items; a picture of one says nothing")
    if not np.isfinite(matrix).all():
        raise ValueError("distances must be finite; the matrix holds NaN or infinity")
    return matrix


def cluster(matrix: FloatArray, max_items: int) -> Clustering:
    """Cluster the items of a matrix, evenly spaced ones if there are more than `max_items`."""
    size = len(matrix)
    if size > max_items:
        items = np.linspace(0, size - 1, max_items).round().astype(np.int64)
        matrix = matrix[np.ix_(items, items)]
    else:
        items = np.arange(size, dtype=np.int64)
    condensed = squareform(matrix.astype(np.float64), checks=False)
    links = hierarchy.linkage(condensed, "average", optimal_ordering=len(items) <= _MAX_ORDERED)
    order = hierarchy.leaves_list(links).astype(np.int64)
    num_groups = min(len(CLUSTER_COLOURS), max(2, len(items) // 5))
    found = hierarchy.fcluster(links, num_groups, "maxclust")
    _, first = np.unique(found[order], return_index=True)
    rank = {cluster: place for place, cluster in enumerate(found[order][np.sort(first)])}
    groups = np.array([rank[cluster] for cluster in found], dtype=np.int64)
    return Clustering(items, links, order, groups)


@dataclass(frozen=True, slots=True)
class Branches:
    """A drawn tree: segments from leaf side to root side, with their colours."""

    segments: list[list[tuple[float, float]]]
    colours: list[str]
    leaves: list[int]


def top_branches(clustering: Clustering, max_leaves: int) -> Branches:
    """Lay out the top of a tree down to `max_leaves` branches, in (place, height).

    Written without recursion: trees with many equal distances are chains, thousands of levels deep.
    """
    links, size = clustering.links, len(clustering.items)
    num_merges = size - 1
    first_shown = max(0, num_merges - (max_leaves - 1))
    position = np.empty(size)
    position[clustering.order] = np.arange(size)
    members_first = np.concatenate([position, np.empty(num_merges)])
    group = np.concatenate([clustering.groups, np.full(num_merges, -1)])
    for merge in range(num_merges):
        left, right = int(links[merge, 0]), int(links[merge, 1])
        members_first[size + merge] = min(members_first[left], members_first[right])
        if group[left] == group[right]:
            group[size + merge] = group[left]
    shown = range(first_shown, num_merges)
    ends = [
        int(child) for merge in shown for child in links[merge, :2] if child < size + first_shown
    ]
    ends.sort(key=lambda node: members_first[node])
    place = dict(zip(ends, map(float, range(len(ends))), strict=True))
    height = {
        node: float(links[node - size, 2]) if node >= size and node not in place else 0.0
        for node in ends
    }
    segments: list[list[tuple[float, float]]] = []
    colours: list[str] = []
    for merge in shown:
        left, right, top = int(links[merge, 0]), int(links[merge, 1]), float(links[merge, 2])
        for child in (left, right):
            colour = FAINT if group[child] < 0 else CLUSTER_COLOURS[group[child]]
            middle = (place[left] + place[right]) / 2
            segments.append([(place[child], height[child]), (place[child], top), (middle, top)])
            colours.append(colour)
        place[size + merge] = (place[left] + place[right]) / 2
        height[size + merge] = top
    return Branches(segments, colours, ends)


def members_below(clustering: Clustering, node: int) -> list[int]:
    """Shown items below a node of the tree."""
    size = len(clustering.items)
    found: list[int] = []
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current < size:
            found.append(current)
        else:
            waiting += [int(child) for child in clustering.links[current - size, :2]]
    return found
