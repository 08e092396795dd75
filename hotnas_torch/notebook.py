"""What a notebook shows of an object: graphs as SVG, tables and matrices as HTML, text escaped."""

import math
from collections.abc import Sequence
from html import escape

__all__ = ["graph_svg", "matrix_html", "table_html"]

_MOST_NODES = 60
_MOST_LINES = 10
_COLOURS = ("#4C78A8", "#F58518", "#54A24B", "#B279A2", "#E45756", "#EECA3B", "#72B7B2", "#9D755D")
_LETTER, _HEIGHT, _ROW, _GAP = 6.6, 22, 34, 34


def graph_svg(labels: Sequence[str], edges: Sequence[tuple[int, int]], title: str) -> str:
    """Draw a graph from left to right, each node as far right as its longest path.

    Args:
        labels: What is written into each node, numbered topologically.
        edges: Pairs of nodes, from a smaller to a larger number.
        title: What it is, for those who cannot see it.

    Returns:
        An SVG element in the colours of the page; of more than 60 nodes, only what it would show.
    """
    if len(labels) > _MOST_NODES:
        return f"<p>{escape(title)}: {len(labels)} nodes, too many to draw</p>"
    layer = [0] * len(labels)
    for i, j in sorted(edges, key=lambda edge: edge[1]):
        layer[j] = max(layer[j], layer[i] + 1)
    members = [[k for k, at in enumerate(layer) if at == place] for place in range(max(layer) + 1)]
    tallest = max(map(len, members)) * _ROW
    boxes: dict[int, tuple[float, float, float]] = {}
    left = 4.0
    for nodes in members:
        width = max(len(labels[k]) for k in nodes) * _LETTER + 14
        top = (tallest - len(nodes) * _ROW) / 2 + _ROW / 2 + 4
        for place, k in enumerate(nodes):
            boxes[k] = (left, top + place * _ROW, width)
        left += width + _GAP
    kinds = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    lines = []
    for i, j in edges:
        (x, y, width), (right, below, _) = boxes[i], boxes[j]
        x, bend = x + width, (right - x - width) / 2
        # What passes over other nodes swings out of their way.
        swing = 0.62 * _ROW if layer[j] > layer[i] + 1 and y == below else 0.0
        lines.append(
            f"<path d='M{x:.1f} {y:.1f} C{x + bend:.1f} {y - swing:.1f} {right - bend:.1f}"
            f" {below - swing:.1f} {right:.1f} {below:.1f}' fill='none' stroke='currentColor'"
            " stroke-opacity='.55'/>"
        )
    for k, (x, y, width) in boxes.items():
        colour = _COLOURS[kinds[labels[k]] % len(_COLOURS)]
        lines.append(
            f"<rect x='{x:.1f}' y='{y - _HEIGHT / 2:.1f}' width='{width:.1f}' height='{_HEIGHT}'"
            f" rx='5' fill='{colour}' fill-opacity='.3' stroke='{colour}'/>"
            f"<text x='{x + width / 2:.1f}' y='{y + 4:.1f}' text-anchor='middle'"
            f" fill='currentColor'>{escape(labels[k])}</text>"
        )
    width, height = left - _GAP + 4, tallest + 8
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' role='img' width='{width:.0f}'"
        f" height='{height:.0f}' viewBox='0 0 {width:.0f} {height:.0f}' font-family='monospace'"
        f" font-size='11' style='max-width:100%'><title>{escape(title)}</title>"
        f"{''.join(lines)}</svg>"
    )


def table_html(header: Sequence[str], rows: Sequence[Sequence[object]], caption: str) -> str:
    """Write a table; numbers with five digits, what is no number as text."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_text(entry))}</td>" for entry in row) + "</tr>"
        for row in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def matrix_html(
    values: Sequence[Sequence[float]], names: Sequence[str], caption: str, *, size: int
) -> str:
    """Write the beginning of a square matrix, its larger numbers on a stronger ground.

    Args:
        values: Its first rows and columns, up to ten.
        names: Of the rows.
        caption: What it is.
        size: Rows of the whole matrix.
    """
    rows = [list(row[:_MOST_LINES]) for row in values[:_MOST_LINES]]
    largest = max((abs(x) for row in rows for x in row if math.isfinite(x)), default=0.0) or 1.0
    body = ""
    for name, row in zip(names, rows, strict=False):
        cells = "".join(
            f"<td style='background:rgba(76,120,168,"
            f"{0.6 * min(abs(x) / largest, 1.0) if math.isfinite(x) else 0.0:.2f})'>{_text(x)}</td>"
            for x in row
        )
        body += f"<tr><th>{escape(name)}</th>{cells}</tr>"
    more = f", the first {len(rows)} shown" if size > len(rows) else ""
    return f"<table><caption>{escape(caption)}{more}</caption><tbody>{body}</tbody></table>"


def _text(entry: object) -> str:
    return f"{entry:.5g}" if isinstance(entry, float) else str(entry)
