"""A computation cut into cells along the tree of modules, and the network of these."""

import itertools
from collections.abc import Sequence

from hotnas_torch.arch import Cell, Network
from hotnas_torch.arch.operation import Operation
from hotnas_torch.arguments import integer, items
from hotnas_torch.importing.computation import Computation, Node

__all__ = ["network_of"]

_SMALL = 4
"""Modules with fewer operations are put together with their neighbours."""

Run = tuple[int, int]


def network_of(
    computation: Computation, *, granularity: int, numbers: Sequence[str] | None
) -> Network:
    """Return the network of cells; arguments and errors as of `Computation.network`.

    A cell is a stretch of the order in which operations are made, so that the macro graph has no
    cycle whatever the modules are.
    """
    most = integer("granularity", granularity, least=1)
    shown = (
        None
        if numbers is None
        else frozenset(items("numbers", list(numbers), str) if numbers else ())
    )
    nodes = computation.nodes
    if not nodes:
        nothing = Cell(("input", "output"), ((0, 1),))
        width = computation.input_width
        return Network((nothing,), (width,), (1,), input_channels=width)
    scopes = _scopes(nodes)
    runs = _cut(nodes, scopes, (0, len(nodes)), 0, most)
    owner = [place for place, (start, stop) in enumerate(runs) for _ in range(start, stop)]
    returned = set(computation.outputs)
    read_outside = [place in returned for place in range(len(nodes))]
    edges: set[tuple[int, int]] = {(0, len(runs) + 1)} if -1 in returned else set()
    for place, node in enumerate(nodes):
        for source in node.inputs:
            if source < 0:
                edges.add((0, owner[place] + 1))
            elif owner[source] != owner[place]:
                edges.add((owner[source] + 1, owner[place] + 1))
                read_outside[source] = True
    edges |= {(owner[place] + 1, len(runs) + 1) for place in returned if place >= 0}
    known: dict[str, Cell] = {}
    cells, channels, downsampling = [], [], []
    for start, stop in runs:
        cell = _cell(nodes, start, stop, read_outside, shown)
        cells.append(known.setdefault(cell.key, cell.canonical()))
        last = nodes[max(place for place in range(start, stop) if read_outside[place])]
        channels.append(last.width)
        ratio = computation.input_positions / last.positions
        downsampling.append(max(1, round(ratio ** (1 / computation.dimensions))))
    return Network(
        tuple(cells),
        tuple(channels),
        tuple(downsampling),
        tuple(sorted(edges)),
        input_channels=channels[0],
    )


def _cell(
    nodes: Sequence[Node],
    start: int,
    stop: int,
    read_outside: Sequence[bool],
    shown: frozenset[str] | None,
) -> Cell:
    labels = ["input", *(_label(nodes[place], shown) for place in range(start, stop)), "output"]
    edges: set[tuple[int, int]] = set()
    for place in range(start, stop):
        node = place - start + 1
        edges.update((max(0, source - start + 1), node) for source in nodes[place].inputs)
        if read_outside[place]:
            edges.add((node, len(labels) - 1))
    return Cell(tuple(labels), tuple(sorted(edges)))


def _label(node: Node, shown: frozenset[str] | None) -> str:
    operation = node.operation
    if shown is None:
        return str(operation)
    kept = {name: value for name, value in operation.numbers.items() if name in shown}
    return str(Operation(operation.kind, **kept))


def _scopes(nodes: Sequence[Node]) -> list[tuple[str, ...]]:
    """Return the modules of every operation.

    What stands between two operations of one module belongs to it: graphs that were traced from
    modules name those of leaves alone.
    """
    scopes = [node.scope for node in nodes]
    for place in range(1, len(scopes) - 1):
        shared = _shared(scopes[place - 1], nodes[place + 1].scope)
        if len(shared) > len(scopes[place]) and shared[: len(scopes[place])] == scopes[place]:
            scopes[place] = shared
    return scopes


def _shared(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    length = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        length += 1
    return first[:length]


def _cut(
    nodes: Sequence[Node], scopes: Sequence[tuple[str, ...]], run: Run, depth: int, most: int
) -> list[Run]:
    """Cut a module that is too large, or consists of blocks alone, where its parts begin."""
    start, stop = run
    parts = _parts(scopes, run, depth)
    if stop - start <= most:
        blocks = all(last - first >= _SMALL for first, last in parts)
        if not blocks or stop - start == 1 or len(scopes[start]) <= depth:
            return [run]
        if len(parts) == 1:
            return _cut(nodes, scopes, run, depth + 1, most)
        return [cell for part in parts for cell in _cut(nodes, scopes, part, depth + 1, most)]
    found: list[Run] = []
    loose: Run | None = None
    for first, last in parts:
        size = last - first
        if size < min(_SMALL, most + 1):
            loose = (first if loose is None else loose[0], last)
            continue
        if loose is not None:
            found += _cut_loose(nodes, loose, most)
            loose = None
        found += _cut(nodes, scopes, (first, last), depth + 1, most)
    if loose is not None:
        found += _cut_loose(nodes, loose, most)
    return found


def _parts(scopes: Sequence[tuple[str, ...]], run: Run, depth: int) -> list[Run]:
    """Return the calls of submodules within a call, and the operations beside them, in order."""
    start, stop = run
    parts: list[Run] = []
    while start < stop:
        scope = scopes[start][: depth + 1]
        end = start + 1
        if len(scope) > depth:
            while end < stop and scopes[end][: depth + 1] == scope:
                end += 1
        parts.append((start, end))
        start = end
    return parts


def _cut_loose(nodes: Sequence[Node], run: Run, most: int) -> list[Run]:
    """Cut a stretch without modules where the resolution changes, else into equal parts."""
    start, stop = run
    if stop - start <= most:
        return [run]
    stages: list[Run] = []
    for place in range(start, stop):
        if stages and nodes[place].positions == nodes[place - 1].positions:
            stages[-1] = (stages[-1][0], place + 1)
        else:
            stages.append((place, place + 1))
    found: list[Run] = []
    for first, last in stages:
        if found and last - found[-1][0] <= most:
            found[-1] = (found[-1][0], last)
            continue
        count = -(-(last - first) // most)
        ends = [first + (last - first) * piece // count for piece in range(count + 1)]
        found += list(itertools.pairwise(ends))
    return found
