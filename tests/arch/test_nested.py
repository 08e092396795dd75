"""Graphs of graphs: identity across levels, flat form, JSON, what is refused."""

import copy
import json

import networkx as nx
import pytest

from hotnas_torch.arch import Cell, NestedCell, Network
from hotnas_torch.errors import ArchitectureError

CHAIN = Cell(("input", "a", "b", "output"), ((0, 1), (1, 2), (2, 3)))
FORK = Cell(("input", "a", "b", "output"), ((0, 1), (0, 2), (1, 3), (2, 3)))
FORK_SWAPPED = Cell(("input", "b", "a", "output"), FORK.edges)
MIDDLE = NestedCell.from_nodes(
    ["input", CHAIN, FORK, "c", "output"], [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)]
)
TOP = NestedCell.from_nodes(
    ["input", MIDDLE, FORK, MIDDLE, "output"], [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)]
)


def test_reads_back_its_graphs() -> None:
    assert MIDDLE.nodes == ("input", CHAIN, FORK, "c", "output")
    assert MIDDLE.ops[1] == CHAIN.key
    assert (MIDDLE.depth, MIDDLE.num_operations) == (2, 5)
    assert (TOP.depth, TOP.num_operations) == (3, 12)


def test_key_ignores_the_numbering_of_every_level_and_nothing_else() -> None:
    renumbered = NestedCell.from_nodes(["input", FORK_SWAPPED, CHAIN, "c", "output"], MIDDLE.edges)
    assert renumbered != MIDDLE
    assert renumbered.key == MIDDLE.key
    assert renumbered.canonical() == MIDDLE.canonical()
    assert MIDDLE.canonical().canonical() is MIDDLE.canonical()
    other = NestedCell.from_nodes(["input", CHAIN, CHAIN, "c", "output"], MIDDLE.edges)
    assert other.key != MIDDLE.key


def test_equality_and_hash_are_by_value() -> None:
    same = NestedCell.from_nodes(MIDDLE.nodes, MIDDLE.edges[::-1])
    assert same == MIDDLE
    assert hash(same) == hash(MIDDLE)
    assert len({same, MIDDLE}) == 1
    # A cell of operations whose labels happen to be those keys is something else.
    assert Cell(MIDDLE.ops, MIDDLE.edges) != MIDDLE


def test_copies_equal_the_original() -> None:
    for twin in (copy.copy(TOP), copy.deepcopy(TOP)):
        assert twin == TOP
        assert (twin.key, hash(twin)) == (TOP.key, hash(TOP))


def test_is_immutable() -> None:
    with pytest.raises(AttributeError):
        MIDDLE.graphs = ()  # type: ignore[misc]


def test_json_writes_a_repeated_graph_once_and_reads_back() -> None:
    text = json.loads(json.dumps(TOP.to_json()))
    assert text["nodes"] == ["input", 0, 1, 0, "output"]
    assert NestedCell.from_json(text) == TOP
    net = Network.chain((TOP, CHAIN), (4, 8), (1, 2))
    assert Network.from_json(json.loads(json.dumps(net.to_json()))) == net
    assert net.key != Network.chain((MIDDLE, CHAIN), (4, 8), (1, 2)).key


def test_flat_form_has_the_paths_of_all_levels() -> None:
    flat = TOP.flatten()
    assert flat.num_nodes - 2 == TOP.num_operations

    def paths(cell: Cell) -> list[tuple[str, ...]]:
        """Labels along every path from input to output, by networkx."""
        graph = nx.DiGraph(cell.edges)
        return sorted(
            tuple(cell.ops[node] for node in path[1:-1])
            for path in nx.all_simple_paths(graph, 0, cell.num_nodes - 1)
        )

    def nested_paths(cell: Cell) -> list[tuple[str, ...]]:
        if not isinstance(cell, NestedCell):
            return paths(cell)
        found = []
        graph = nx.DiGraph(cell.edges)
        for path in nx.all_simple_paths(graph, 0, cell.num_nodes - 1):
            spelled: list[tuple[str, ...]] = [()]
            for node in path[1:-1]:
                inner = cell.graphs[node]
                parts = [(cell.ops[node],)] if inner is None else nested_paths(inner)
                spelled = [start + part for start in spelled for part in parts]
            found += spelled
        return sorted(found)

    assert paths(flat) == nested_paths(TOP)
    assert paths(MIDDLE.flatten()) == [("a", "b", "c"), ("a", "c"), ("b", "c")]


def test_a_graph_of_one_node_is_flat_as_that_node() -> None:
    for inner in (CHAIN, FORK, MIDDLE):
        wrapped = NestedCell.from_nodes(["input", inner, "output"], [(0, 1), (1, 2)])
        flat = inner.flatten() if isinstance(inner, NestedCell) else inner
        assert wrapped.flatten() == flat


def test_a_graph_that_passes_its_input_on_leaves_an_edge() -> None:
    skip = Cell(("input", "a", "output"), ((0, 1), (0, 2), (1, 2)))
    nothing = Cell(("input", "output"), ())
    assert NestedCell.from_nodes(
        ["input", "b", skip, "output"], [(0, 1), (1, 2), (2, 3)]
    ).flatten() == Cell(("input", "b", "a", "output"), ((0, 1), (1, 2), (1, 3), (2, 3)))
    assert NestedCell.from_nodes(
        ["input", "b", nothing, "c", "output"], [(0, 1), (1, 2), (2, 4), (0, 3), (3, 4)]
    ).flatten() == Cell(("input", "c", "output"), ((0, 1), (1, 2)))


@pytest.mark.parametrize(
    ("ops", "graphs", "kind", "parts"),
    [
        (("input", "a", "output"), (None, None, None), ArchitectureError, "at least one graph"),
        (("input", "a", "output"), (None, CHAIN), ArchitectureError, "one entry per node, 3"),
        (("input", "a", "output"), (None, CHAIN, None), ArchitectureError, "must be the key"),
        (("input", "a", "output"), [None, CHAIN, None], TypeError, "got list"),
        (("input", "a", "output"), (None, "a", None), TypeError, r"graphs\[1\] must be a Cell"),
        (("input", "a", "output"), (CHAIN, None, None), ArchitectureError, "node 0 is the input"),
    ],
)
def test_refuses(ops, graphs, kind, parts) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind, match=parts):
        NestedCell(ops, ((0, 1), (1, 2)), graphs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes": ["input", 5, "output"]}, r"nodes\[1\] must be a label or the place .* 0\.\.0"),
        ({"nodes": "input"}, "nodes must be a list"),
        ({"graphs": [{"ops": [], "edges": []}]}, r"graphs\[0\]: ops must hold at least"),
        ({"graphs": [3]}, r"graphs\[0\] must be an object"),
    ],
)
def test_a_damaged_description_is_refused_by_place(change, message) -> None:  # type: ignore[no-untyped-def]
    data = NestedCell.from_nodes(["input", CHAIN, "output"], [(0, 1), (1, 2)]).to_json()
    with pytest.raises(ArchitectureError, match=message):
        NestedCell.from_json({**data, **change})


def test_from_nodes_refuses_what_is_no_node() -> None:
    with pytest.raises(TypeError, match=r"nodes\[1\] must be a label or a Cell; got 3"):
        NestedCell.from_nodes(["input", 3, "output"], [(0, 1), (1, 2)])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="single string"):
        NestedCell.from_nodes("input", [(0, 1)])
