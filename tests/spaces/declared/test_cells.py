"""Spaces of cells: which there are, after networkx and the published count; what is refused."""

import itertools

import networkx as nx
import pytest
import torch

from hotnas_torch import Cell, Network
from hotnas_torch.errors import ArchitectureError, SizeError
from hotnas_torch.spaces import Block, Cells, Choices


def graph_of(cell):
    graph = nx.DiGraph(cell.edges)
    nx.set_node_attributes(graph, dict(enumerate(cell.ops)), "label")
    return graph


def all_cells(operations, max_nodes):
    """Every labelled graph in which all nodes are on a path, isomorphic ones included."""
    for size in range(2, max_nodes + 1):
        pairs = list(itertools.combinations(range(size), 2))
        for present in itertools.product((0, 1), repeat=len(pairs)):
            edges = tuple(itertools.compress(pairs, present))
            sources = {i for i, _ in edges}
            targets = {j for _, j in edges}
            if sources != set(range(size - 1)) or targets != set(range(1, size)):
                continue
            for labels in itertools.product(operations, repeat=size - 2):
                yield Cell(("input", *labels, "output"), edges)


LIMITS = [
    {},
    {"max_edges": 5},
    {"min_nodes": 4},
    {"max_in_degree": 1},
    {"max_out_degree": 2, "max_in_degree": 2, "max_edges": 6, "min_nodes": 3},
]


@pytest.mark.parametrize("limits", LIMITS)
def test_cells_are_those_within_the_limits_up_to_isomorphism(limits):
    space = Cells(["a", "b"], max_nodes=5, **limits)

    def allowed(cell):
        inner = range(1, cell.num_nodes - 1)
        return (
            cell.num_nodes >= limits.get("min_nodes", 2)
            and len(cell.edges) <= limits.get("max_edges", 10)
            and all(len(cell.predecessors(v)) <= limits.get("max_in_degree", 9) for v in inner)
            and all(len(cell.successors(v)) <= limits.get("max_out_degree", 9) for v in inner)
        )

    expected = {cell.key for cell in all_cells(["a", "b"], 5) if allowed(cell)}
    nets = list(space)
    assert {net.cells[0].key for net in nets} == expected
    assert space.size() == len(nets) == len(expected)
    drawn = space.sample(200, generator=torch.Generator().manual_seed(0))
    assert all(allowed(net.cells[0]) for net in drawn)


def test_isomorphic_cells_are_one_network():
    space = Cells(["a", "b"], max_nodes=5)
    match = nx.algorithms.isomorphism.categorical_node_match("label", None)
    cells = list(itertools.islice(all_cells(["a", "b"], 5), 0, 2400, 29))
    for first, second in itertools.combinations(cells, 2):
        same = nx.is_isomorphic(graph_of(first), graph_of(second), node_match=match)
        assert (space.from_cell(first) == space.from_cell(second)) == same


def test_the_size_is_that_of_nas_bench_101():
    assert Cells(["a", "b", "c"], max_nodes=7, max_edges=9).size() == 423_624


def test_rows_of_another_numbering_are_the_same_network():
    space = Cells(["a", "b"], max_nodes=4)
    net = space.from_string("4,110011,0.1")
    row = space.encode([net])
    other = row.clone()
    other[0, -2:] = other[0, -2:].flip(0)
    assert not torch.equal(row, other)
    assert space.decode(other) == [net]
    assert torch.equal(space.encode(space.decode(other)), row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: 0}, "a node is on no path"),
        ({-2: 2}, r"a node follows an absent one \(operation 2\)"),
        ({-1: 2}, "a node without an operation has an edge"),
        ({2: 1, 3: 1}, "the cell has 6 edges, not 1 to 5"),
    ],
)
def test_rows_that_are_no_cells_say_why(change, message):
    space = Cells(["a", "b"], max_nodes=4, max_edges=5)
    row = space.encode([space.from_string("4,110011,0.1")])
    for column, value in change.items():
        row[0, column] = value
    with pytest.raises(ArchitectureError, match=message):
        space.decode(row)


def test_a_skeleton_is_stages_or_a_function():
    cell = Cell(("input", "a", "output"), ((0, 1), (1, 2)))
    stages = Cells(["a", "b"], max_nodes=3, skeleton=[(2, 16), (1, 64)]).from_cell(cell)
    assert (stages.channels, stages.downsampling) == ((16, 16, 64), (1, 1, 2))
    assert stages.input_channels == 16
    assert stages.cells == (cell,) * 3
    alone = Cells(["a"], max_nodes=3)
    assert alone.from_cell(cell).num_cells == 1
    assert alone.repeats_one_cell
    own = Cells(["a"], max_nodes=3, skeleton=lambda cell: Network((cell, cell), (8, 8), (1, 1)))
    assert own.from_cell(cell).num_cells == 2
    assert not own.repeats_one_cell


def test_many_nodes_are_drawn_and_not_counted():
    space = Cells(["a", "b"], max_nodes=12, max_edges=16, max_in_degree=2)
    with pytest.raises(SizeError, match="more than 7 nodes"):
        space.size()
    with pytest.raises(SizeError, match="cannot be listed"):
        next(iter(space))
    nets = space.sample(50, generator=torch.Generator().manual_seed(0), distinct=True)
    assert max(net.cells[0].num_nodes for net in nets) == 12


def test_the_same_cell_at_a_place_of_another_space():
    cells = Cells(["a", "b"], max_nodes=4)
    space = Choices(
        {"stage": Block({"cell": cells, "repeats": [1, 2]})},
        lambda chosen: Network(
            (chosen["stage"]["cell"],) * chosen["stage"]["repeats"],
            (8,) * chosen["stage"]["repeats"],
            (1,) * chosen["stage"]["repeats"],
        ),
    )
    assert space.size() == 2 * cells.size() == len({net.key for net in space})
    text = "stage=(cell=(4,110011,0.1),repeats=2)"
    assert space.from_string(text).cells[0] == cells.from_string("4,110011,0.1").cells[0]


@pytest.mark.parametrize(
    ("operations", "options", "error", "message"),
    [
        ([], {}, ValueError, "operations must hold at least one"),
        ("ab", {}, TypeError, "operations must be a list or tuple of labels"),
        (["a", "a"], {}, ValueError, r"operations\[1\] must be named once"),
        (["a", ""], {}, ValueError, r"operations\[1\] must be an operation"),
        (["input"], {}, ValueError, r"operations\[0\] must be an operation; got 'input'"),
        ([3], {}, TypeError, r"operations\[0\] must be a str"),
        (["a"], {"max_nodes": 1}, ValueError, "max_nodes must be between 2 and 128"),
        (["a"], {"max_nodes": 4.0}, TypeError, "max_nodes must be an integer"),
        (["a"], {"max_nodes": 10**6}, ValueError, "max_nodes must be between 2 and 128"),
        (["a"], {"skeleton": [(10**7, 16)]}, ValueError, "at most 10,000 cells; got 10,000,000"),
        (
            ["a"],
            {"skeleton": lambda _: torch.nn.ReLU()},
            TypeError,
            r"skeleton must return a Network; got ReLU.*from_module\(model, example_inputs\)",
        ),
        (["a"], {"name": "a\n"}, ValueError, "name must be printable"),
        (["a"], {"min_nodes": 8}, ValueError, "min_nodes must be between 2 and 7"),
        (["a"], {"min_nodes": 5, "max_edges": 3}, ValueError, "max_edges must be at least 4"),
        (["a"], {"max_in_degree": 0}, ValueError, "max_in_degree must be at least 1"),
        (["a"], {"max_out_degree": True}, TypeError, "max_out_degree must be an integer"),
        (["a"], {"skeleton": []}, ValueError, "skeleton must be .*; got an empty one"),
        (["a"], {"skeleton": [(1, 2, 3)]}, TypeError, r"skeleton\[0\] is tuple"),
        (["a"], {"skeleton": [(0, 16)]}, ValueError, r"skeleton\[0\] must be at least 1"),
        (["a"], {"skeleton": 3}, TypeError, "skeleton must be a function"),
        (["a"], {"skeleton": lambda _: None}, TypeError, "skeleton must return a Network"),
        (
            ["a"],
            {"skeleton": lambda cell: cell.x},
            ArchitectureError,
            "skeleton raised Attr.*, for ",
        ),
        (["a"], {"name": "nasbench101"}, ValueError, "name must be not the name of a space"),
    ],
)
def test_what_cannot_be_declared_is_refused(operations, options, error, message):
    with pytest.raises(error, match=message):
        Cells(operations, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4,110011", "three parts between commas"),
        ("9,110011,0.1", r"a number of nodes in 2..5"),
        ("4,11001,0.1", "6 digits 0 or 1 at position 2"),
        ("4,110011,0.2", "numbers of operations, 0 to 1, between dots at position 9"),
        ("4,110011,0", "2 numbers of operations"),
        ("4,100011,0.1", "a node is on no path"),
    ],
)
def test_strings_that_are_none_say_why(text, message):
    with pytest.raises(ArchitectureError, match=message):
        Cells(["a", "b"], max_nodes=5).from_string(text)


def test_cells_of_other_operations_are_refused():
    space = Cells(["a", "b"], max_nodes=4)
    with pytest.raises(ArchitectureError, match=r"cell.ops\[1\] must be one of 'a', 'b'; got 'c'"):
        space.from_cell(Cell(("input", "c", "output"), ((0, 1), (1, 2))))
    chain = Cell(("input", "a", "a", "a", "output"), tuple((i, i + 1) for i in range(4)))
    with pytest.raises(ArchitectureError, match="it has 5 nodes, not 2 to 4"):
        space.from_cell(chain)
    with pytest.raises(TypeError, match="cell must be a Cell"):
        space.from_cell("4,110011,0.1")
