"""Pictures of matchings: two cells or two networks with the coupling between them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from hotnas_torch.arch import Cell
from hotnas_torch.distances import CellMatching, NetworkMatching
from hotnas_torch.plot.architectures import (
    cell_graph,
    letters_of,
    network_graph,
    operation_looks,
)
from hotnas_torch.plot.figure import FAINT, add_room_on_top, new_figure, plain
from hotnas_torch.plot.graphs import Graph, lay_out, room_for
from hotnas_torch.plot.pairs import draw_pair, draw_parts, pair_width
from hotnas_torch.plot.titles import text_width

__all__ = ["plot_cell_matching", "plot_network_matching"]


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
    looks = operation_looks(cells)
    height = 2.6 + 0.46 * room_for(cell_graph(cell, looks) for cell in cells) * rows
    figure = new_figure(pair_width(_slots_of(cells)), height)
    axes = figure.add_axes((0.02, 1.3 / height, 0.96, 1 - 1.4 / height))
    above = _draw_cells(axes, matching, titles, looks, rows)
    parts = figure.add_axes((0.06, 0.42 / height, 0.88, 0.5 / height))
    draw_parts(parts, "iFGW", matching.distance, matching.parts)
    _draw_key(figure, height)
    add_room_on_top(figure, above)
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
    letters = letters_of(networks)
    rows = max(len(network.cells) + 2 for network in networks)
    rows = max([rows, *(_cell_rows(item) for _, _, item in cell_matchings)])
    drawn = [cell for _, _, item in cell_matchings for cell in (item.cell_a, item.cell_b)]
    looks = operation_looks(drawn)
    height = 2.6 + 0.42 * room_for(cell_graph(cell, looks) for cell in drawn) * rows
    graphs = (
        network_graph(networks[0], letters),
        network_graph(networks[1], letters),
    )
    widths = [pair_width(_graph_slots(graphs))]
    widths += [pair_width(_slots_of((item.cell_a, item.cell_b))) for _, _, item in cell_matchings]
    figure = new_figure(sum(widths), height)
    same = np.array(
        [[x.key == y.key for y in networks[1].cells] for x in networks[0].cells], dtype=bool
    )
    bottom, top = 1.3 / height, 1 - 1.4 / height
    start = 0.0
    above = []
    for index, width in enumerate(widths):
        share = width / sum(widths)
        axes = figure.add_axes((start + 0.01, bottom, share - 0.02, top))
        parts = figure.add_axes(
            (start + 0.035 * share + 0.01, 0.42 / height, 0.9 * share, 0.5 / height)
        )
        if index == 0:
            plan = matching.plan.double().numpy()
            above.append(draw_pair(axes, graphs, titles, plan, same, rows=rows, first_matched=1))
            draw_parts(parts, "HOTNN", matching.distance, matching.parts)
        else:
            s, t, cells = cell_matchings[index - 1]
            names = (
                f"cell {letters[networks[0].cells[s].key]} (left, place {s + 1})",
                f"cell {letters[networks[1].cells[t].key]} (right, place {t + 1})",
            )
            above.append(_draw_cells(axes, cells, names, looks, rows))
            draw_parts(parts, "iFGW", cells.distance, cells.parts)
        start += share
    _draw_key(figure, height, "A · 64 · 1/2: cell A, 64 channels, half the resolution")
    add_room_on_top(figure, max(above))
    return figure


def _draw_cells(
    axes: Axes,
    matching: CellMatching,
    titles: tuple[str, str],
    looks: dict[str, tuple[str, str]],
    rows: int,
) -> float:
    cells = matching.cell_a, matching.cell_b
    same = np.array([[x == y for y in cells[1].ops] for x in cells[0].ops])
    return draw_pair(
        axes,
        (cell_graph(cells[0], looks), cell_graph(cells[1], looks)),
        titles,
        matching.plan.double().numpy(),
        same,
        rows=rows,
        first_matched=0,
    )


def _cell_rows(matching: CellMatching) -> int:
    return max(matching.cell_a.num_nodes, matching.cell_b.num_nodes)


def _graph_slots(graphs: Sequence[Graph]) -> int:
    return sum(lay_out(graph).slots for graph in graphs)


def _slots_of(cells: Sequence[Cell]) -> int:
    return _graph_slots([Graph(list(cell.ops), [], cell.edges) for cell in cells])


def _draw_key(figure: Figure, height: float, first: str = "") -> None:
    """One line under the picture; `first` stands on a line of its own where that is too long."""
    font = FontProperties(size=8.5)
    key = "line width: mass carried   ·   green: equal   ·   orange: different"
    if first:
        line = f"{first}   ·   {key}"
        fits = text_width(line, font) < figure.get_figwidth() - 0.2
        key = line if fits else f"{first}\n{key}"
    figure.text(
        0.5, 0.16 / height, plain(key), ha="center", va="center", fontproperties=font, color=FAINT
    )
