"""Cells and networks as graphs to draw, and the picture of one network."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from hotnas_torch.arch import Cell, Network
from hotnas_torch.plot.figure import FAINT, add_room_on_top, new_figure
from hotnas_torch.plot.graphs import BOX_WIDTH, SLOT, Graph, draw_graph, lay_out, room_for
from hotnas_torch.plot.names import operation_names
from hotnas_torch.plot.titles import draw_title

__all__ = ["cell_graph", "letters_of", "network_graph", "operation_looks", "plot_network"]

_COLOURS = (
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
_ROW = 0.46
_PANEL_MARGIN = 0.35


def operation_looks(cells: Sequence[Cell]) -> dict[str, tuple[str, str]]:
    """Return the text and the colour of every operation label of some cells; kinds have colours."""
    names = operation_names(label for cell in cells for label in cell.ops)
    kinds = {label: name.partition("\n")[0] for label, name in names.items()}
    inner = sorted(set(kinds.values()) - {"input", "output"})
    colours = {kind: _COLOURS[place % len(_COLOURS)] for place, kind in enumerate(inner)}
    return {label: (names[label], colours.get(kinds[label], _ENDS_COLOUR)) for label in names}


def cell_graph(cell: Cell, looks: dict[str, tuple[str, str]]) -> Graph:
    """Return the graph of a cell, with texts and colours from `operation_looks`."""
    texts, colours = zip(*(looks[label] for label in cell.ops), strict=True)
    return Graph(list(texts), list(colours), cell.edges)


def letters_of(networks: Sequence[Network]) -> dict[str, str]:
    """Return a letter (A, B, ..., Z, AA, ...) per distinct cell, by key."""
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


def network_graph(network: Network, letters: dict[str, str], *, fold: bool = False) -> Graph:
    """Return the macro graph of a network: letter, channels and resolution of every cell.

    Args:
        network: The network.
        letters: From `letters_of`.
        fold: Draw equal neighbours of a chain as one node that says how many they are.
    """
    palette = {
        letter: _COLOURS[place % len(_COLOURS)]
        for place, letter in enumerate(dict.fromkeys(letters.values()))
    }
    names = ["input"]
    colours = [_ENDS_COLOUR]
    counts = [1]
    for cell, width, divisor in zip(
        network.cells, network.channels, network.downsampling, strict=True
    ):
        letter = letters[cell.key]
        name = f"{letter} · {width} · 1/{divisor}" if divisor > 1 else f"{letter} · {width}"
        if fold and network.is_chain and names[-1] == name:
            counts[-1] += 1
            continue
        names.append(name)
        colours.append(palette[letter])
        counts.append(1)
    names = [f"{n} x {name}" if n > 1 else name for n, name in zip(counts, names, strict=True)]
    names.append("output")
    edges = network.edges
    if fold and network.is_chain:
        edges = tuple((node, node + 1) for node in range(len(names) - 1))
    return Graph(names, [*colours, _ENDS_COLOUR], edges)


def plot_network(network: Network, *, title: str = "") -> Figure:
    """Return a network: its macro graph, and each of its distinct cells.

    Args:
        network: The network.
        title: Written above the picture.

    Returns:
        The figure. Equal cells carry equal letters; equal neighbours in a chain are one node.
    """
    letters = letters_of([network])
    cells = {letters[cell.key]: cell for cell in network.cells}
    looks = operation_looks(list(cells.values()))
    graphs = {"network": network_graph(network, letters, fold=True)}
    graphs |= {f"cell {letter}": cell_graph(cell, looks) for letter, cell in cells.items()}
    layouts = [lay_out(graph) for graph in graphs.values()]
    widths = [SLOT * layout.slots + 2 * _PANEL_MARGIN for layout in layouts]
    rows = max(len(graph.names) for graph in graphs.values())
    heading = 0.5 if title else 0.0
    height = _ROW * room_for(graphs.values()) * (rows + 1.4) + 0.3
    figure = new_figure(max(sum(widths), 5.0), height)
    scale = figure.get_figwidth() / sum(widths)
    start = 0.0
    for (name, graph), layout, width in zip(graphs.items(), layouts, widths, strict=True):
        share = width * scale / figure.get_figwidth()
        axes = figure.add_axes((start, 0.3 / height, share, 1 - 0.3 / height))
        start += share
        draw_graph(axes, graph, layout, 0.0)
        drawn = axes.dataLim
        half = max(width / 2, -drawn.x0 + 0.2, drawn.x1 + 0.2, BOX_WIDTH / 2)
        axes.set_xlim(-half, half)
        axes.set_ylim(rows - 0.4, -1.4)
        axes.text(0.0, -0.95, name, ha="center", va="center", fontsize=10, color=FAINT)
        axes.set_axis_off()
    figure.text(
        0.5,
        0.15 / height,
        "A · 64 · 1/2: cell A, 64 channels, half the resolution",
        ha="center",
        va="center",
        fontsize=8.5,
        color=FAINT,
    )
    if title:
        add_room_on_top(figure, heading)
        full = heading / figure.get_figheight()
        axes = figure.add_axes((0.0, 1.0 - full, 1.0, full))
        axes.set_axis_off()
        axes.set_xlim(0.0, figure.get_figwidth())
        axes.set_ylim(0.0, 1.0)
        above = draw_title(
            axes,
            title,
            x=figure.get_figwidth() / 2,
            y=0.2,
            between=(0.0, figure.get_figwidth()),
        )
        add_room_on_top(figure, above)
    return figure
