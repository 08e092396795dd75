"""Canonical numbering of labelled directed acyclic graphs.

Equal results for isomorphic graphs and different ones otherwise, without exception: a numbering by
neighbour hashes alone (as benchmarks use) cannot tell some regular graphs apart.
"""

from collections.abc import Sequence

__all__ = ["canonical_order"]

# A colour is the number of nodes ordered before its class, so a colouring with n colours *is* the
# numbering, and a class of size s owns the s numbers from its colour on.
_Colours = list[int]
_Neighbours = dict[int, list[int]]


def canonical_order(labels: Sequence[str], edges: Sequence[tuple[int, int]]) -> list[int]:
    """Returns a numbering of the nodes that only the isomorphism class of the graph decides.

    Renumbering isomorphic labelled graphs by their canonical orders gives the same graph. Nodes are
    ordered by longest path from the source first, hence topologically; a source or sink that
    every path starts or ends in comes first or last.

    Colours that no renumbering can change are refined until every class looks alike to every other.
    Then joins between classes that are empty or complete are dropped, since the colours determine
    them, and each connected remainder is numbered on its own: twin nodes and parallel branches
    fall apart here and never branch. Only a remainder that stays connected is searched, by
    singling out the nodes of one class in turn, skipping nodes that an automorphism already found
    maps to one that was tried.

    Args:
        labels: Node labels.
        edges: Pairs (i, j) with i < j, sorted.

    Returns:
        The old number of each node in its new place: ``order[new] = old``.

    Complexity: O((n + e) log n) a refinement pass; a few passes for graphs that refinement and
        splitting resolve, which includes every tree of series and parallel compositions. A
        remainder without such structure costs a pass per orbit and level of the search, and
        strongly regular bipartite graphs can take exponentially many.

    Reference: the scheme of individualisation and refinement, B. McKay and A. Piperno, Practical
        graph isomorphism, II, J. Symbolic Computation 60, 2014.
    """
    num_nodes = len(labels)
    predecessors: _Neighbours = {v: [] for v in range(num_nodes)}
    successors: _Neighbours = {v: [] for v in range(num_nodes)}
    depth = [0] * num_nodes
    for i, j in edges:
        successors[i].append(j)
        predecessors[j].append(i)
        if depth[i] >= depth[j]:
            depth[j] = depth[i] + 1
    levels: list[list[int]] = [[] for _ in range(max(depth) + 1)]
    for node, level in enumerate(depth):
        levels[level].append(node)

    colours = [0] * num_nodes
    start = 0
    discrete = True
    for level_nodes in levels:
        if len(level_nodes) == 1:
            colours[level_nodes[0]] = start
        else:
            discrete &= _split(
                level_nodes,
                start,
                [(labels[v], sorted([colours[p] for p in predecessors[v]])) for v in level_nodes],
                colours,
            )
        start += len(level_nodes)
    if not discrete:
        # Successors are deeper, so their colours are final for this sweep when they are read.
        discrete = True
        for level_nodes in reversed(levels):
            start -= len(level_nodes)
            if len(level_nodes) > 1:
                discrete &= _split(
                    level_nodes,
                    start,
                    [
                        (colours[v], sorted([colours[s] for s in successors[v]]))
                        for v in level_nodes
                    ],
                    colours,
                )
    if not discrete:
        nodes = list(range(num_nodes))
        _refine(nodes, colours, predecessors, successors)
        return _order(nodes, colours, successors)
    order = [0] * num_nodes
    for node, colour in enumerate(colours):
        order[colour] = node
    return order


def _split(
    nodes: list[int], start: int, keys: Sequence[tuple[object, ...]], colours: _Colours
) -> bool:
    """Colours ``nodes`` by the rank of their keys from ``start``; true if all keys differ."""
    ranked = sorted(zip(keys, nodes, strict=True))
    discrete = True
    colour = start
    previous = None
    for position, (key, node) in enumerate(ranked, start):
        if key != previous:
            colour = position
            previous = key
        else:
            discrete = False
        colours[node] = colour
    return discrete


def _classes(nodes: list[int], colours: _Colours) -> dict[int, list[int]]:
    classes: dict[int, list[int]] = {}
    for node in nodes:
        classes.setdefault(colours[node], []).append(node)
    return classes


def _refine(
    nodes: list[int], colours: _Colours, predecessors: _Neighbours, successors: _Neighbours
) -> None:
    """Splits classes until nodes of one class have the same neighbours per class, in place."""
    pending = [(c, members) for c, members in _classes(nodes, colours).items() if len(members) > 1]
    changed = True
    while changed and pending:
        changed = False
        following = []
        # Classes are visited in ascending colour, so the outcome depends on the colours alone.
        for colour, members in sorted(pending):
            keys = [
                (
                    sorted([colours[p] for p in predecessors[v]]),
                    sorted([colours[s] for s in successors[v]]),
                )
                for v in members
            ]
            first = keys[0]
            if all(key == first for key in keys):
                following.append((colour, members))
                continue
            changed = True
            _split(members, colour, keys, colours)
            following += [
                (c, part) for c, part in _classes(members, colours).items() if len(part) > 1
            ]
        pending = following


def _order(nodes: list[int], colours: _Colours, successors: _Neighbours) -> list[int]:
    """Orders ``nodes`` canonically, by colour first, for a refined colouring."""
    classes = _classes(nodes, colours)
    if len(classes) == len(nodes):
        return sorted(nodes, key=colours.__getitem__)
    linked = _drop_trivial_joins(colours, classes, successors)
    parts = _components(nodes, linked)
    if len(parts) == len(nodes):
        return sorted(nodes, key=colours.__getitem__)
    if len(parts) == 1:
        return _search(nodes, colours, classes, linked)
    ranked = []
    for part in parts:
        order = _order(part, colours, linked)
        ranked.append((_certificate(order, colours, linked), order))
    # Parts with equal certificates are interchangeable, so their order among themselves is free.
    ranked.sort()
    merged = [node for _, order in ranked for node in order]
    merged.sort(key=colours.__getitem__)  # stable: within a class, by part
    return merged


def _drop_trivial_joins(
    colours: _Colours, classes: dict[int, list[int]], successors: _Neighbours
) -> _Neighbours:
    """Returns the successors without the edges between completely joined classes."""
    linked: _Neighbours = {}
    for members in classes.values():
        # In a refined colouring one member tells how many successors each has in each class.
        counts: dict[int, int] = {}
        for target in successors[members[0]]:
            counts[colours[target]] = counts.get(colours[target], 0) + 1
        partial = {c for c, count in counts.items() if count < len(classes[c])}
        for v in members:
            linked[v] = [s for s in successors[v] if colours[s] in partial] if partial else []
    return linked


def _components(nodes: list[int], successors: _Neighbours) -> list[list[int]]:
    adjacent: _Neighbours = {v: [] for v in nodes}
    for v in nodes:
        for s in successors[v]:
            adjacent[v].append(s)
            adjacent[s].append(v)
    seen: set[int] = set()
    parts = []
    for start in nodes:
        if start in seen:
            continue
        seen.add(start)
        part = [start]
        for v in part:  # grows while it is read
            for w in adjacent[v]:
                if w not in seen:
                    seen.add(w)
                    part.append(w)
        parts.append(part)
    return parts


def _certificate(
    order: list[int], colours: _Colours, successors: _Neighbours
) -> tuple[list[int], list[tuple[int, int]]]:
    """Describes the coloured graph on ``order`` in that order's numbering, completely."""
    new = {v: position for position, v in enumerate(order)}
    edges = sorted((new[v], new[s]) for v in order for s in successors[v])
    return [colours[v] for v in order], edges


def _search(
    nodes: list[int], colours: _Colours, classes: dict[int, list[int]], successors: _Neighbours
) -> list[int]:
    """Orders a connected graph by singling out each node of one class; the least result wins."""
    _, colour = min((len(members), c) for c, members in classes.items() if len(members) > 1)
    candidates = classes[colour]
    orbit = {v: v for v in candidates}
    predecessors: _Neighbours = {v: [] for v in nodes}
    for v in nodes:
        for s in successors[v]:
            predecessors[s].append(v)

    def root(v: int) -> int:
        while orbit[v] != v:
            v = orbit[v]
        return v

    found: dict[tuple[tuple[int, int], ...], list[int]] = {}
    tried: set[int] = set()
    for candidate in candidates:
        if any(root(candidate) == root(v) for v in tried):
            continue
        tried.add(candidate)
        trial = colours.copy()
        for v in candidates:
            trial[v] = colour + 1
        trial[candidate] = colour
        _refine(nodes, trial, predecessors, successors)
        order = _order(nodes, trial, successors)
        edges = tuple(_certificate(order, colours, successors)[1])
        if edges in found:
            # Equal descriptions: mapping one order to the other is an automorphism.
            for v, image in zip(found[edges], order, strict=True):
                if v in orbit:
                    orbit[root(v)] = root(image)
        else:
            found[edges] = order
    return found[min(found)]
