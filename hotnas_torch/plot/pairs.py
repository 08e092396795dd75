"""Two graphs side by side with the coupling between their nodes, and the parts of a distance."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve

from hotnas_torch.plot.figure import INK, FloatArray, plain
from hotnas_torch.plot.graphs import BOX_WIDTH, SLOT, Graph, Layout, draw_graph, lay_out
from hotnas_torch.plot.titles import draw_title

__all__ = ["draw_pair", "draw_parts", "pair_width"]

_GAP = 3.2

_SAME, _DIFFERENT = "#1B7F79", "#D9772B"
_PART_COLOURS = ("#9DBFE0", "#F7C98B", "#B4D6A4")


def draw_pair(
    axes: Axes,
    graphs: tuple[Graph, Graph],
    titles: tuple[str, str],
    plan: FloatArray,
    same: npt.NDArray[np.bool_],
    *,
    rows: int,
    first_matched: int,
) -> float:
    """Draw two graphs over `rows` rows and the coupling of their nodes from `first_matched` on.

    Titles of one line end at the top of the axes. Returns the inches that they need above it.
    """
    layouts = tuple(lay_out(graph) for graph in graphs)
    halves = [SLOT * layout.slots / 2 for layout in layouts]
    centres = (-_GAP / 2 - halves[0], _GAP / 2 + halves[1])
    places = []
    for graph, layout, centre in zip(graphs, layouts, centres, strict=True):
        # Shorter graphs are stretched, so that ends stand opposite each other.
        stretch = (rows - 1) / max(len(graph.names) - 1, 1)
        stretched = Layout(
            layout.x, [row * stretch for row in layout.row], layout.layers, layout.slots
        )
        places.append(draw_graph(axes, graph, stretched, centre))
    count_x, count_y = plan.shape
    _draw_coupling(
        axes,
        places[0][first_matched : first_matched + count_x],
        places[1][first_matched : first_matched + count_y],
        (-_GAP / 2, _GAP / 2),
        plan,
        same,
    )
    drawn = axes.dataLim
    axes.set_xlim(
        min(centres[0] - halves[0], drawn.x0) - 0.3, max(centres[1] + halves[1], drawn.x1) + 0.3
    )
    axes.set_ylim(rows - 0.3, -1.35)
    axes.set_axis_off()
    left, right = axes.get_xlim()
    return max(
        draw_title(axes, title, x=centre, y=-0.75, between=half)
        for title, centre, half in zip(titles, centres, ((left, 0.0), (0.0, right)), strict=True)
    )


def draw_parts(axes: Axes, name: str, distance: float, parts: dict[str, float]) -> None:
    """One stacked bar: what each part adds to the distance."""
    start = 0.0
    total = max(sum(parts.values()), 1e-12)
    for (part, value), colour in zip(parts.items(), _PART_COLOURS, strict=False):
        axes.barh(0.0, value, left=start, height=0.5, color=colour)
        if value > 0.12 * total:
            axes.text(
                start + value / 2,
                0.0,
                plain(f"{part}\n{value:.4f}"),
                ha="center",
                va="center",
                fontsize=8.5,
                color="#1E1E1E",
            )
        start += value
    small = [f"{part} {value:.4f}" for part, value in parts.items() if value <= 0.12 * total]
    note = f"   (and {', '.join(small)})" if small else ""
    axes.set_title(plain(f"{name} = {distance:.4f}{note}"), loc="left", fontsize=11, color=INK)
    axes.set_xlim(0.0, total)
    axes.set_ylim(-0.35, 0.35)
    axes.set_axis_off()


def pair_width(slots: int) -> float:
    """Width in inches of a panel for two graphs of so many slots together."""
    return 0.62 * (SLOT * slots + _GAP) + 1.4


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
        x0, x1 = x0 + BOX_WIDTH / 2, x1 - BOX_WIDTH / 2
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
