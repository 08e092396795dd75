"""Pictures of distances and matchings, as matplotlib figures that need no display."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path as Curve
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from torch import Tensor

from hotnas_torch.arch import Cell, Network
from hotnas_torch.metrics import CellMatching, NetworkMatching

__all__ = [
    "plot_cell_matching",
    "plot_heat_map",
    "plot_network_matching",
    "plot_tree",
    "save_figure",
    "short_name",
]

FloatArray = npt.NDArray[np.float64]

_MAX_CLUSTERED = 3000
"""Items that a picture clusters; beyond it a picture shows evenly spaced ones."""

_MAX_PIXELS = 1200
"""Side of the drawn heat map; larger ones are averaged down to it."""

_MAX_ORDERED = 300
"""Items up to which leaves are ordered optimally, at cubic cost."""

_MAX_TICKS = 40

# Okabe and Ito's colours, told apart by colour-blind readers too; black and yellow left out.
_CLUSTER_COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#7A68A6",
    "#8C6D46",
)
_OPERATION_COLOURS = (
    "#A6CEE3",
    "#FDBF6F",
    "#B2DF8A",
    "#CAB2D6",
    "#FB9A99",
    "#FFE599",
    "#9ED9CC",
    "#D9C3A5",
    "#C7C7E8",
    "#E8B4D0",
)
_ENDS_COLOUR = "#E4E4E4"
_INK = "#333333"
_FAINT = "#8A8A8A"
_SAME, _DIFFERENT = "#1B7F79", "#D9772B"
_PART_COLOURS = ("#9DBFE0", "#F7C98B", "#B4D6A4")


def save_figure(figure: Figure, path: str | PathLike[str], *, dpi: int = 150) -> None:
    """Write a figure to a file; the suffix (png, pdf, svg) chooses the format."""
    figure.savefig(path, dpi=dpi, facecolor="white")


def short_name(text: str, limit: int = 56) -> str:
    """Shorten an architecture string for a label.

    Args:
        text: Official string of an architecture.
        limit: Longest result.

    Returns:
        The string with the spelled-out operation names of NAS-Bench-201 contracted, and cut in the
        middle if it is still too long.

    Example:
        >>> short_name("|nor_conv_3x3~0|+|none~0|skip_connect~1|")
        'conv3 + none skip'
    """
    name = re.sub(r"nor_conv_(\d)x\d", r"conv\1", text)
    name = re.sub(r"(avg|max)_pool_(\d)x\d", r"\1pool\2", name)
    name = re.sub(r"(sep|dil)_conv_(\d)x\d", r"\1\2", name)
    name = re.sub(r"~\d+", "", name.replace("skip_connect", "skip"))
    name = name.replace("|+|", " + ").strip("|").replace("|", " ")
    if len(name) <= limit:
        return name
    head = (limit - 1) // 2
    return f"{name[:head]}…{name[len(name) - (limit - 1 - head) :]}"


# --- distances ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Clustering:
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


def _as_matrix(distances: Tensor | npt.ArrayLike) -> FloatArray:
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


def _check_labels(labels: Sequence[str] | None, size: int) -> Sequence[str]:
    if labels is None:
        return [f"#{index}" for index in range(size)]
    if len(labels) != size:
        raise ValueError(f"labels must name each of the {size} items; got {len(labels)} labels")
    return labels


def _cluster(matrix: FloatArray, max_items: int) -> _Clustering:
    size = len(matrix)
    if size > max_items:
        items = np.linspace(0, size - 1, max_items).round().astype(np.int64)
        matrix = matrix[np.ix_(items, items)]
    else:
        items = np.arange(size, dtype=np.int64)
    condensed = squareform(matrix.astype(np.float64), checks=False)
    links = hierarchy.linkage(condensed, "average", optimal_ordering=len(items) <= _MAX_ORDERED)
    order = hierarchy.leaves_list(links).astype(np.int64)
    num_groups = min(len(_CLUSTER_COLOURS), max(2, len(items) // 5))
    found = hierarchy.fcluster(links, num_groups, "maxclust")
    _, first = np.unique(found[order], return_index=True)
    rank = {cluster: place for place, cluster in enumerate(found[order][np.sort(first)])}
    groups = np.array([rank[cluster] for cluster in found], dtype=np.int64)
    return _Clustering(items, links, order, groups)


@dataclass(frozen=True, slots=True)
class _Branches:
    """A drawn tree: segments from leaf side to root side, with their colours."""

    segments: list[list[tuple[float, float]]]
    colours: list[str]
    leaves: list[int]


def _branches(clustering: _Clustering, max_leaves: int) -> _Branches:
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
            colour = _FAINT if group[child] < 0 else _CLUSTER_COLOURS[group[child]]
            middle = (place[left] + place[right]) / 2
            segments.append([(place[child], height[child]), (place[child], top), (middle, top)])
            colours.append(colour)
        place[size + merge] = (place[left] + place[right]) / 2
        height[size + merge] = top
    return _Branches(segments, colours, ends)


def _members(clustering: _Clustering, node: int) -> list[int]:
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


def _subset_note(shown: int, size: int) -> str:
    return "" if shown == size else f" ({shown:,} of {size:,} shown, evenly spaced)"


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
        The figure. Colours span the 1st to 99th percentile of the distances between different
        items; the strip beside the map and the tree above it show the same clusters.

    Raises:
        ValueError: Not a square finite matrix of at least two items, or a wrong number of labels.

    Complexity: O(K^2) time and memory for K = min(X, max_items).
    """
    matrix = _as_matrix(distances)
    labels = _check_labels(labels, len(matrix))
    clustering = _cluster(matrix, max_items)
    shown = clustering.items[clustering.order]
    size = len(shown)
    ordered: FloatArray = matrix[np.ix_(shown, shown)].astype(np.float64)
    off_diagonal = ordered[~np.eye(size, dtype=bool)]
    low, high = np.percentile(off_diagonal, (1, 99))
    if high <= low:
        low, high = 0.0, max(float(high), 1e-12)
    named = size <= _MAX_TICKS
    figure = _new_figure(14.0 if named else 10.6, 10.4)
    box = (0.36, 0.05, 0.53, 0.78) if named else (0.09, 0.07, 0.78, 0.78)
    left, bottom, width, extent = box
    axes = figure.add_axes((left, bottom, width, extent))
    image = axes.imshow(
        _averaged(ordered, _MAX_PIXELS),
        extent=(-0.5, size - 0.5, size - 0.5, -0.5),
        cmap="viridis",
        vmin=float(low),
        vmax=float(high),
        interpolation="nearest" if size <= _MAX_PIXELS else "antialiased",
        aspect="auto",
    )
    if named:
        names = [short_name(labels[item]) for item in shown]
        axes.set_yticks(range(size), names, fontsize=7.5, color=_INK)
        axes.set_xticks([])
        axes.tick_params(length=0, pad=24)
    else:
        axes.set_xlabel(f"{size:,} networks in the order of the tree", color=_INK)
        axes.set_xticks([])
        axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    strip = figure.add_axes((left - 0.018, bottom, 0.012, extent))
    _draw_strip(strip, clustering)
    tree = figure.add_axes((left, bottom + extent + 0.005, width, 0.09))
    _draw_small_tree(tree, clustering)
    bar_axes = figure.add_axes((left + width + 0.02, bottom, 0.018, extent))
    bar = figure.colorbar(image, cax=bar_axes, extend="both")
    bar.set_label("distance", color=_INK)
    bar.outline.set_visible(False)
    figure.text(
        left, 0.965, title + _subset_note(size, len(matrix)), fontsize=14, color=_INK, va="center"
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
    matrix = _as_matrix(distances)
    labels = _check_labels(labels, len(matrix))
    clustering = _cluster(matrix, max_items)
    branches = _branches(clustering, max_leaves)
    num_leaves = len(branches.leaves)
    height = 1.6 + 0.23 * max(num_leaves, 4)
    figure = _new_figure(11.0, height)
    axes = figure.add_axes((0.04, 0.55 / height, 0.5, 1 - 1.35 / height))
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
    axes.set_xlabel("distance at which branches join", color=_INK)
    axes.tick_params(colors=_INK)
    for name in ("left", "right", "top"):
        axes.spines[name].set_visible(False)
    for place, node in enumerate(branches.leaves):
        members = _members(clustering, node)
        items = clustering.items[members]
        centre = items[np.argmin(matrix[np.ix_(items, items)].sum(1))]
        text = short_name(labels[int(centre)])
        groups = {int(clustering.groups[member]) for member in members}
        colour = _CLUSTER_COLOURS[groups.pop()] if len(groups) == 1 else _INK
        axes.text(
            0.0,
            place,
            f"  {text}" if len(members) == 1 else f"  {text}   ({len(members):,})",
            fontsize=8,
            va="center",
            color=_darker(colour),
            clip_on=False,
        )
    figure.text(
        0.04,
        1 - 0.35 / height,
        title + _subset_note(len(clustering.items), len(matrix)),
        fontsize=14,
        color=_INK,
        va="center",
    )
    if num_leaves < len(clustering.items):
        figure.text(
            0.04,
            1 - 0.62 / height,
            "(n): a branch of n networks, named after the one nearest to the others",
            fontsize=9,
            color=_FAINT,
            va="center",
        )
    return figure


def _averaged(matrix: FloatArray, side: int) -> FloatArray:
    """Block means of a matrix, at most `side` rows and columns."""
    size = len(matrix)
    if size <= side:
        return matrix
    starts = np.unique(np.linspace(0, size, side, endpoint=False).astype(np.int64))
    counts = np.diff(np.append(starts, size)).astype(np.float64)
    sums = np.add.reduceat(np.add.reduceat(matrix, starts, axis=0), starts, axis=1)
    averaged: FloatArray = sums / counts[:, None] / counts
    return averaged


def _draw_strip(axes: Axes, clustering: _Clustering) -> None:
    groups = clustering.groups[clustering.order]
    palette = np.array([to_rgb(colour) for colour in _CLUSTER_COLOURS])
    axes.imshow(palette[groups][:, None, :], aspect="auto", interpolation="nearest")
    axes.set_axis_off()


def _draw_small_tree(axes: Axes, clustering: _Clustering) -> None:
    size = len(clustering.items)
    branches = _branches(clustering, size)
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


# --- matchings ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Graph:
    """A graph ready to be drawn.

    Attributes:
        names: Text in every node.
        colours: Fill of every node.
        edges: Pairs of nodes, from the lower to the higher number.
    """

    names: list[str]
    colours: list[str]
    edges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Places of the nodes: x in slots from the inner side outwards, y one row per node."""

    x: list[float]
    row: list[float]
    layers: list[int]
    slots: int


_BOX_WIDTH = 1.5
_BOX_HEIGHT = 0.56
_SLOT = 1.75
_GAP = 3.2

# Sideways bow and turn of an edge's curve, in the order of preference.
_CURVES = sorted(
    (
        (sign * bow, turn)
        for bow in (0.0, 0.5, 1.0, 1.5, 2.0, 2.6)
        for turn in (0.5, 0.75, 0.25, 1.0, 0.0)
        for sign in ((1.0,) if bow == 0.0 else (1.0, -1.0))
    ),
    key=lambda curve: abs(curve[0]) + 1.2 * abs(curve[1] - 0.5),
)


def _layout(graph: _Graph) -> _Layout:
    """Layer every node by its longest path from node 0 and give every node a row of its own.

    Rows of their own let the coupling leave every node sideways without crossing another one.
    """
    size = len(graph.names)
    depth = [0] * size
    sources: list[list[int]] = [[] for _ in range(size)]
    for i, j in graph.edges:
        depth[j] = max(depth[j], depth[i] + 1)
        sources[j].append(i)
    depth[-1] = max(max(depth), 1)
    layers: dict[int, list[int]] = {}
    for node in range(size):
        layers.setdefault(depth[node], []).append(node)
    slots = max(len(layer) for layer in layers.values())
    x = [0.0] * size
    row = [0.0] * size
    used = 0
    for level in sorted(layers):
        layer = layers[level]
        # Nodes stand below their predecessors where they can.
        layer.sort(key=lambda node: (np.mean([x[i] for i in sources[node]] or [0.0]), node))
        for place, node in enumerate(layer):
            x[node] = place - (len(layer) - 1) / 2
            row[node] = float(used)
            used += 1
    return _Layout(x, row, [depth[node] for node in range(size)], slots)


def _draw_graph(
    axes: Axes, graph: _Graph, layout: _Layout, centre: float
) -> list[tuple[float, float]]:
    places = [(centre + _SLOT * x, row) for x, row in zip(layout.x, layout.row, strict=True)]
    half = _SLOT * layout.slots / 2
    # A chain has one node per layer and needs no bands to show it.
    for layer in range(0, max(layout.layers) + 1, 2) if layout.slots > 1 else ():
        rows = [row for row, level in zip(layout.row, layout.layers, strict=True) if level == layer]
        if rows:
            axes.add_patch(
                Rectangle(
                    (centre - half, min(rows) - 0.5),
                    2 * half,
                    max(rows) - min(rows) + 1,
                    facecolor="#F5F5F2",
                    edgecolor="none",
                    zorder=0,
                )
            )
    for i, j in graph.edges:
        _draw_edge(axes, places, i, j)
    for (x, y), name, colour in zip(places, graph.names, graph.colours, strict=True):
        axes.add_patch(
            FancyBboxPatch(
                (x - _BOX_WIDTH / 2, y - _BOX_HEIGHT / 2),
                _BOX_WIDTH,
                _BOX_HEIGHT,
                boxstyle="round,pad=0,rounding_size=0.16",
                facecolor=colour,
                edgecolor=_darker(colour),
                linewidth=1.0,
                zorder=4,
            )
        )
        axes.text(
            x,
            y,
            name,
            ha="center",
            va="center",
            fontsize=_fitting_font(name),
            color="#1E1E1E",
            zorder=5,
        )
    return places


def _draw_edge(axes: Axes, places: list[tuple[float, float]], i: int, j: int) -> None:
    start = (places[i][0], places[i][1] + _BOX_HEIGHT / 2)
    stop = (places[j][0], places[j][1] - _BOX_HEIGHT / 2 - 0.03)
    others = [place for node, place in enumerate(places) if node not in (i, j)]
    # The gentlest curve that keeps clear of the other nodes; the widest if there is none.
    for bow, turn in _CURVES:
        controls = _controls(start, stop, bow, turn)
        if not _crosses(controls, others):
            break
    axes.add_patch(
        FancyArrowPatch(
            path=Curve(controls, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]),
            arrowstyle="-|>,head_length=4,head_width=2",
            color="#7C7C7C",
            linewidth=1.0,
            zorder=2,
        )
    )
    # Patches with arrow heads do not count towards the limits of the axes; their curve shall.
    axes.update_datalim(_points(controls))


def _controls(
    start: tuple[float, float], stop: tuple[float, float], bow: float, turn: float
) -> FloatArray:
    """Control points of a curve that leaves downwards, arrives downwards and bows to a side.

    A `turn` above 1/2 keeps to the start's column for longer, one below to the stop's.
    """
    drop = stop[1] - start[1]
    # Some of the drop stays vertical at both ends, lest arrow heads come in flat.
    leave = max(drop * turn * 2 / 3, min(0.5, drop / 3))
    arrive = max(drop * (1 - turn) * 2 / 3, min(0.8, drop / 2))
    return np.array(
        [start, (start[0] + bow, start[1] + leave), (stop[0] + bow, stop[1] - arrive), stop]
    )


def _points(controls: FloatArray) -> FloatArray:
    """Points along a cubic Bezier curve, shape (33, 2)."""
    t = np.linspace(0.0, 1.0, 33)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3])
    points: FloatArray = weights @ controls
    return points


def _crosses(controls: FloatArray, boxes: list[tuple[float, float]]) -> bool:
    """Whether a curve runs into one of the nodes."""
    if not boxes:
        return False
    offset = np.abs(_points(controls)[:, None, :] - np.array(boxes)[None])
    inside = (offset[..., 0] < _BOX_WIDTH / 2 + 0.06) & (offset[..., 1] < _BOX_HEIGHT / 2 + 0.05)
    return bool(inside.any())


def _draw_coupling(
    axes: Axes,
    left: list[tuple[float, float]],
    right: list[tuple[float, float]],
    ports: tuple[float, float],
    plan: FloatArray,
    same: npt.NDArray[np.bool_],
) -> None:
    """Ribbons from node to node: sideways to the port, across, sideways to the other node."""
    largest = plan.max()
    for i, j in zip(*np.nonzero(plan > 1e-6 * largest), strict=True):
        (x0, y0), (x1, y1) = left[i], right[j]
        x0, x1 = x0 + _BOX_WIDTH / 2, x1 - _BOX_WIDTH / 2
        bend = (ports[1] - ports[0]) / 2
        vertices = [
            (x0, y0),
            (ports[0], y0),
            (ports[0] + bend, y0),
            (ports[1] - bend, y1),
            (ports[1], y1),
            (x1, y1),
        ]
        codes = [Curve.MOVETO, Curve.LINETO, *([Curve.CURVE4] * 3), Curve.LINETO]
        axes.add_patch(
            PathPatch(
                Curve(vertices, codes),
                facecolor="none",
                edgecolor=_SAME if same[i, j] else _DIFFERENT,
                linewidth=0.6 + 4.4 * float(plan[i, j] / largest),
                alpha=0.62,
                capstyle="round",
                zorder=3,
            )
        )


def _draw_pair(
    axes: Axes,
    graphs: tuple[_Graph, _Graph],
    titles: tuple[str, str],
    plan: FloatArray,
    same: npt.NDArray[np.bool_],
    *,
    rows: int,
    first_matched: int,
) -> None:
    """Two graphs over `rows` rows and the coupling of their nodes from `first_matched` on."""
    layouts = tuple(_layout(graph) for graph in graphs)
    halves = [_SLOT * layout.slots / 2 for layout in layouts]
    centres = (-_GAP / 2 - halves[0], _GAP / 2 + halves[1])
    places = []
    for graph, layout, centre in zip(graphs, layouts, centres, strict=True):
        # Shorter graphs are stretched, so that ends stand opposite each other.
        stretch = (rows - 1) / max(len(graph.names) - 1, 1)
        stretched = _Layout(
            layout.x, [row * stretch for row in layout.row], layout.layers, layout.slots
        )
        places.append(_draw_graph(axes, graph, stretched, centre))
    count_x, count_y = plan.shape
    _draw_coupling(
        axes,
        places[0][first_matched : first_matched + count_x],
        places[1][first_matched : first_matched + count_y],
        (-_GAP / 2, _GAP / 2),
        plan,
        same,
    )
    for centre, title in zip(centres, titles, strict=True):
        axes.text(
            centre, -0.75, title, ha="center", va="bottom", fontsize=11, color=_INK, weight="bold"
        )
    drawn = axes.dataLim
    axes.set_xlim(
        min(centres[0] - halves[0], drawn.x0) - 0.3, max(centres[1] + halves[1], drawn.x1) + 0.3
    )
    axes.set_ylim(rows - 0.3, -1.35)
    axes.set_axis_off()


def _draw_parts(axes: Axes, name: str, distance: float, parts: dict[str, float]) -> None:
    """One stacked bar: what each part adds to the distance."""
    start = 0.0
    total = max(sum(parts.values()), 1e-12)
    for (part, value), colour in zip(parts.items(), _PART_COLOURS, strict=False):
        axes.barh(0.0, value, left=start, height=0.5, color=colour)
        if value > 0.12 * total:
            axes.text(
                start + value / 2,
                0.0,
                f"{part}\n{value:.4f}",
                ha="center",
                va="center",
                fontsize=8.5,
                color="#1E1E1E",
            )
        start += value
    small = [f"{part} {value:.4f}" for part, value in parts.items() if value <= 0.12 * total]
    note = f"   (and {', '.join(small)})" if small else ""
    axes.set_title(f"{name} = {distance:.4f}{note}", loc="left", fontsize=11, color=_INK)
    axes.set_xlim(0.0, total)
    axes.set_ylim(-0.35, 0.35)
    axes.set_axis_off()


def _operation_colours(cells: Sequence[Cell]) -> dict[str, str]:
    labels = sorted({label for cell in cells for label in cell.ops} - {"input", "output"})
    colours = {
        label: _OPERATION_COLOURS[place % len(_OPERATION_COLOURS)]
        for place, label in enumerate(labels)
    }
    return {"input": _ENDS_COLOUR, "output": _ENDS_COLOUR, **colours}


def _cell_graph(cell: Cell, colours: dict[str, str]) -> _Graph:
    return _Graph(list(cell.ops), [colours[label] for label in cell.ops], cell.edges)


def _draw_cells(
    axes: Axes,
    matching: CellMatching,
    titles: tuple[str, str],
    colours: dict[str, str],
    rows: int,
) -> None:
    cells = matching.cell_a, matching.cell_b
    same = np.array([[x == y for y in cells[1].ops] for x in cells[0].ops])
    _draw_pair(
        axes,
        (_cell_graph(cells[0], colours), _cell_graph(cells[1], colours)),
        titles,
        matching.plan.double().numpy(),
        same,
        rows=rows,
        first_matched=0,
    )


def plot_cell_matching(
    matching: CellMatching, *, titles: tuple[str, str] = ("cell a", "cell b")
) -> Figure:
    """Two cells layer by layer, the coupling between their nodes, and the parts of the distance.

    Args:
        matching: Result of `IFGW.matching`.
        titles: Names of the cells.

    Returns:
        The figure. The width of a line between the cells is the mass it carries; green lines join
        equal operations, orange ones different operations.
    """
    cells = (matching.cell_a, matching.cell_b)
    rows = max(cell.num_nodes for cell in cells)
    height = 2.6 + 0.46 * rows
    figure = _new_figure(_pair_width(_slots_of(cells)), height)
    axes = figure.add_axes((0.02, 1.3 / height, 0.96, 1 - 1.4 / height))
    _draw_cells(axes, matching, titles, _operation_colours(cells), rows)
    parts = figure.add_axes((0.06, 0.42 / height, 0.88, 0.5 / height))
    _draw_parts(parts, "iFGW", matching.distance, matching.parts)
    _draw_key(figure, height)
    return figure


def plot_network_matching(
    matching: NetworkMatching,
    cell_matchings: Sequence[tuple[int, int, CellMatching]] = (),
    *,
    titles: tuple[str, str] = ("network a", "network b"),
) -> Figure:
    """Two networks cell by cell, the coupling between the cells, and chosen cells in detail.

    Args:
        matching: Result of `HOTNN.matching`.
        cell_matchings: Pairs of cells to draw beside the networks: position in the first network,
            position in the second, and the result of `IFGW.matching` for them.
        titles: Names of the networks.

    Returns:
        The figure. Equal cells carry equal letters; the width of a line is the mass it carries;
        green lines join equal cells or operations, orange ones different ones.
    """
    networks = (matching.network_a, matching.network_b)
    letters = _letters(networks)
    palette = {
        letter: _OPERATION_COLOURS[place % len(_OPERATION_COLOURS)]
        for place, letter in enumerate(dict.fromkeys(letters.values()))
    }
    rows = max(len(network.cells) + 2 for network in networks)
    rows = max([rows, *(_cell_rows(item) for _, _, item in cell_matchings)])
    height = 2.6 + 0.42 * rows
    graphs = (
        _network_graph(networks[0], letters, palette),
        _network_graph(networks[1], letters, palette),
    )
    widths = [_pair_width(_graph_slots(graphs))]
    widths += [_pair_width(_slots_of((item.cell_a, item.cell_b))) for _, _, item in cell_matchings]
    figure = _new_figure(sum(widths), height)
    same = np.array(
        [[x.key == y.key for y in networks[1].cells] for x in networks[0].cells], dtype=bool
    )
    bottom, top = 1.3 / height, 1 - 1.4 / height
    start = 0.0
    for index, width in enumerate(widths):
        share = width / sum(widths)
        axes = figure.add_axes((start + 0.01, bottom, share - 0.02, top))
        parts = figure.add_axes(
            (start + 0.035 * share + 0.01, 0.42 / height, 0.9 * share, 0.5 / height)
        )
        if index == 0:
            plan = matching.plan.double().numpy()
            _draw_pair(axes, graphs, titles, plan, same, rows=rows, first_matched=1)
            _draw_parts(parts, "HOTNN", matching.distance, matching.parts)
        else:
            s, t, cells = cell_matchings[index - 1]
            names = (
                f"cell {letters[networks[0].cells[s].key]} (left, place {s + 1})",
                f"cell {letters[networks[1].cells[t].key]} (right, place {t + 1})",
            )
            colours = _operation_colours(
                [cell for _, _, item in cell_matchings for cell in (item.cell_a, item.cell_b)]
            )
            _draw_cells(axes, cells, names, colours, rows)
            _draw_parts(parts, "iFGW", cells.distance, cells.parts)
        start += share
    _draw_key(figure, height, "A · 64 · 1/2: cell A, 64 channels, half the resolution   ·   ")
    return figure


def _letters(networks: Sequence[Network]) -> dict[str, str]:
    """A letter (A, B, ..., Z, AA, ...) per distinct cell, by key."""
    keys = dict.fromkeys(cell.key for network in networks for cell in network.cells)
    letters = {}
    for place, key in enumerate(keys):
        name = ""
        rest = place + 1
        while rest:
            rest, digit = divmod(rest - 1, 26)
            name = chr(ord("A") + digit) + name
        letters[key] = name
    return letters


def _network_graph(network: Network, letters: dict[str, str], palette: dict[str, str]) -> _Graph:
    names = ["input"]
    colours = [_ENDS_COLOUR]
    for cell, width, divisor in zip(
        network.cells, network.channels, network.downsampling, strict=True
    ):
        letter = letters[cell.key]
        names.append(f"{letter} · {width} · 1/{divisor}" if divisor > 1 else f"{letter} · {width}")
        colours.append(palette[letter])
    return _Graph([*names, "output"], [*colours, _ENDS_COLOUR], network.edges)


def _cell_rows(matching: CellMatching) -> int:
    return max(matching.cell_a.num_nodes, matching.cell_b.num_nodes)


def _graph_slots(graphs: Sequence[_Graph]) -> int:
    return sum(_layout(graph).slots for graph in graphs)


def _slots_of(cells: Sequence[Cell]) -> int:
    return _graph_slots([_Graph(list(cell.ops), [], cell.edges) for cell in cells])


def _pair_width(slots: int) -> float:
    return 0.62 * (_SLOT * slots + _GAP) + 1.4


def _draw_key(figure: Figure, height: float, prefix: str = "") -> None:
    figure.text(
        0.5,
        0.16 / height,
        f"{prefix}line width: mass carried   ·   green: equal   ·   orange: different",
        ha="center",
        va="center",
        fontsize=8.5,
        color=_FAINT,
    )


def _fitting_font(text: str) -> float:
    return min(8.5, 8.5 * 13 / max(len(text), 1))


def _darker(colour: str) -> tuple[float, float, float]:
    red, green, blue = to_rgb(colour)
    return 0.62 * red, 0.62 * green, 0.62 * blue


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure
