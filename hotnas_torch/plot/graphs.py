"""A graph, drawn layer by layer."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path as Curve

from hotnas_torch.plot.figure import FloatArray, darker, plain

__all__ = ["BOX_WIDTH", "SLOT", "Graph", "Layout", "draw_graph", "lay_out", "room_for"]

BOX_WIDTH = 1.5
_BOX_HEIGHT = 0.56
SLOT = 1.75

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


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph ready to be drawn.

    Attributes:
        names: Text in every node; its further lines are written smaller.
        colours: Fill of every node.
        edges: Pairs of nodes, from the lower to the higher number.
    """

    names: list[str]
    colours: list[str]
    edges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of the nodes: x in slots from the inner side outwards, y one row per node."""

    x: list[float]
    row: list[float]
    layers: list[int]
    slots: int


def lay_out(graph: Graph) -> Layout:
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
    return Layout(x, row, [depth[node] for node in range(size)], slots)


def draw_graph(
    axes: Axes, graph: Graph, layout: Layout, centre: float
) -> list[tuple[float, float]]:
    """Draw a graph around x = `centre`; returns the middle of every node."""
    places = [(centre + SLOT * x, row) for x, row in zip(layout.x, layout.row, strict=True)]
    half = SLOT * layout.slots / 2
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
                (x - BOX_WIDTH / 2, y - _BOX_HEIGHT / 2),
                BOX_WIDTH,
                _BOX_HEIGHT,
                boxstyle="round,pad=0,rounding_size=0.16",
                facecolor=colour,
                edgecolor=darker(colour),
                linewidth=1.0,
                zorder=4,
            )
        )
        first, _, below = name.partition("\n")
        # Shares of the box from its middle, downwards.
        lines = [(first, 0.0, 8.5, 13)]
        if below:
            up, down = (0.25, 0.16) if "\n" in below else (0.17, 0.2)
            lines = [(first, -up * _BOX_HEIGHT, 8.5, 13), (below, down * _BOX_HEIGHT, 6.5, 20)]
        for text, offset, size, letters in lines:
            axes.text(
                x,
                y + offset,
                plain(text),
                ha="center",
                va="center",
                fontsize=_fitting_font(text, size, letters),
                linespacing=1.05,
                color="#1E1E1E",
                zorder=5,
            )
    return places


def room_for(graphs: Iterable[Graph]) -> float:
    """Return how much higher rows must be than those of graphs with one line in every node."""
    return 1.65 if any("\n" in name for graph in graphs for name in graph.names) else 1.0


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
    """Point along a cubic Bezier curve, shape (33, 2)."""
    t = np.linspace(0.0, 1.0, 33)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3])
    points: FloatArray = weights @ controls
    return points


def _crosses(controls: FloatArray, boxes: list[tuple[float, float]]) -> bool:
    """Whether a curve runs into one of the nodes."""
    if not boxes:
        return False
    offset = np.abs(_points(controls)[:, None, :] - np.array(boxes)[None])
    inside = (offset[..., 0] < BOX_WIDTH / 2 + 0.06) & (offset[..., 1] < _BOX_HEIGHT / 2 + 0.05)
    return bool(inside.any())


def _fitting_font(text: str, size: float, letters: int) -> float:
    """Size of a text in a box that `letters` of `size` fill."""
    return min(size, size * letters / max(1, *map(len, text.split("\n"))))
