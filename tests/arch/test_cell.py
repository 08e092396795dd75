"""Cells: what is accepted, what is refused and how it is said, values, JSON."""

import copy
import json

import pytest
import torch

from hotnas_torch.arch import Cell
from hotnas_torch.errors import ArchitectureError

DIAMOND = Cell(("input", "conv3x3", "maxpool", "output"), ((0, 1), (0, 2), (0, 3), (1, 3), (2, 3)))


def test_reads_back_its_graph() -> None:
    assert DIAMOND.num_nodes == 4
    assert DIAMOND.predecessors(3) == (0, 1, 2)
    assert DIAMOND.successors(0) == (1, 2, 3)
    assert DIAMOND.successors(3) == ()
    adjacency = DIAMOND.adjacency()
    assert adjacency.dtype == torch.bool
    assert [tuple(pair) for pair in adjacency.nonzero().tolist()] == list(DIAMOND.edges)


def test_node_numbers_do_not_wrap_around() -> None:
    with pytest.raises(IndexError, match=r"node must be in 0\.\.3; got -1"):
        DIAMOND.predecessors(-1)
    with pytest.raises(IndexError, match="got 4"):
        DIAMOND.successors(4)


def test_equality_is_by_value_on_the_numbering() -> None:
    same = Cell(tuple(DIAMOND.ops), tuple(DIAMOND.edges))
    swapped = Cell(("input", "maxpool", "conv3x3", "output"), DIAMOND.edges)
    assert same == DIAMOND
    assert hash(same) == hash(DIAMOND)
    assert swapped != DIAMOND
    assert swapped.canonical() == DIAMOND.canonical()
    assert swapped.key == DIAMOND.key
    assert len({DIAMOND, same, swapped}) == 2


def test_is_immutable() -> None:
    with pytest.raises(AttributeError):
        DIAMOND.ops = ()  # type: ignore[misc]


def test_copies_equal_the_original_even_after_caches_are_filled() -> None:
    original = Cell(DIAMOND.ops, DIAMOND.edges)
    key, value = original.key, hash(original)
    for twin in (copy.copy(original), copy.deepcopy(original)):
        assert twin == original
        assert (twin.key, hash(twin)) == (key, value)


def test_key_does_not_change_between_releases_and_runs() -> None:
    # Written into users' files; a change needs a new file format.
    assert DIAMOND.key == "787d2aca7e1bb7d85cef1dd8c83ab133"


def test_the_cell_without_a_path_is_legal() -> None:
    empty = Cell(("input", "output"), ())
    assert empty.canonical() is empty
    assert empty != Cell(("input", "output"), ((0, 1),))
    assert empty.key != Cell(("input", "output"), ((0, 1),)).key
    assert not empty.adjacency().any()


@pytest.mark.parametrize(
    ("ops", "edges", "kind", "parts"),
    [
        (["input", "output"], ((0, 1),), TypeError, ["ops must be a tuple", "list", "from_edges"]),
        (("input", 3, "output"), (), TypeError, [r"ops\[1\] must be a str; got 3"]),
        (("input",), (), ArchitectureError, ["ops must hold at least", "1 labels"]),
        (("input", "", "output"), (), ArchitectureError, [r"ops\[1\]", "non-empty"]),
        (("conv", "output"), ((0, 1),), ArchitectureError, [r"ops\[0\] must be 'input'", "'conv'"]),
        (("input", "conv"), ((0, 1),), ArchitectureError, [r"ops\[1\] must be 'output'", "'conv'"]),
        (("input", "output"), [(0, 1)], TypeError, ["edges must be a tuple", "got list"]),
        (("input", "output"), ([0, 1],), TypeError, [r"edges\[0\]", r"\[0, 1\]"]),
        (("input", "output"), ((0, 1.0),), TypeError, [r"edges\[0\]", "two ints"]),
        (("input", "output"), ((False, True),), TypeError, [r"edges\[0\]", "two ints"]),
        (("input", "output"), ((0, 1, 1),), TypeError, [r"edges\[0\]", "two ints"]),
        (("input", "output"), (7,), TypeError, [r"edges\[0\]", "got 7"]),
        (("input", "output"), ((0, 2),), ArchitectureError, [r"edges\[0\]", r"0\.\.1", "2 nodes"]),
        (("input", "output"), ((-1, 1),), ArchitectureError, [r"edges\[0\]", r"0\.\.1"]),
        (
            ("input", "a", "b", "output"),
            ((0, 1), (1, 2), (2, 1), (2, 3)),
            ArchitectureError,
            [r"edges\[2\] = \(2, 1\)", "lower to a higher", "acyclic", "from_edges"],
        ),
        (("input", "a", "output"), ((0, 1), (1, 1), (1, 2)), ArchitectureError, [r"\(1, 1\)"]),
        (
            ("input", "a", "output"),
            ((1, 2), (0, 1)),
            ArchitectureError,
            [r"edges\[1\] = \(0, 1\) comes after \(1, 2\)", "sorted"],
        ),
        (
            ("input", "a", "output"),
            ((0, 1), (0, 1), (1, 2)),
            ArchitectureError,
            [r"edges\[1\] = \(0, 1\) is repeated", "distinct"],
        ),
        (
            ("input", "a", "b", "output"),
            ((0, 1), (0, 2), (1, 3)),
            ArchitectureError,
            [r"node 2 \(b\) leads nowhere", "prune=True"],
        ),
        (
            ("input", "a", "b", "output"),
            ((0, 1), (1, 3), (2, 3)),
            ArchitectureError,
            [r"node 2 \(b\) is not reachable from the input", "prune=True"],
        ),
        (("input", "a", "output"), (), ArchitectureError, ["not reachable from the input"]),
    ],
)
def test_refuses(ops: object, edges: object, kind: type[Exception], parts: list[str]) -> None:
    with pytest.raises(kind) as raised:
        Cell(ops, edges)  # type: ignore[arg-type]
    for part in parts:
        assert raised.match(part)


def test_from_edges_sorts_and_drops_repeats() -> None:
    cell = Cell.from_edges(["input", "a", "output"], [[1, 2], (0, 1), (0, 1)])
    assert cell == Cell(("input", "a", "output"), ((0, 1), (1, 2)))


def test_from_edges_takes_tensor_and_array_entries() -> None:
    adjacency = DIAMOND.adjacency()
    assert Cell.from_edges(DIAMOND.ops, adjacency.nonzero()) == DIAMOND
    assert Cell.from_edges(DIAMOND.ops, adjacency.nonzero().numpy()) == DIAMOND


def test_from_edges_renumbers_topologically() -> None:
    cell = Cell.from_edges(["input", "second", "first", "output"], [(0, 2), (2, 1), (1, 3)])
    assert cell == Cell(("input", "first", "second", "output"), ((0, 1), (1, 2), (2, 3)))


def test_from_edges_keeps_a_numbering_that_is_topological() -> None:
    ops = ("input", "b", "a", "output")
    assert Cell.from_edges(ops, [(0, 1), (0, 2), (1, 3), (2, 3)]).ops == ops


def test_prune_drops_nodes_off_every_path_and_cycles_there() -> None:
    cell = Cell.from_edges(
        ["input", "kept", "dead end", "unreached", "loop", "output"],
        [(0, 1), (1, 5), (0, 2), (3, 5), (3, 4), (4, 3), (4, 0), (5, 2)],
        prune=True,
    )
    assert cell == Cell(("input", "kept", "output"), ((0, 1), (1, 2)))


def test_prune_without_any_path_gives_the_cell_without_a_path() -> None:
    cell = Cell.from_edges(["input", "a", "b", "output"], [(0, 1), (2, 3)], prune=True)
    assert cell == Cell(("input", "output"), ())


@pytest.mark.parametrize(
    ("ops", "edges", "kind", "message"),
    [
        ("input", [], TypeError, "single string 'input'"),
        (
            ["input", "output"],
            [(0, "1")],
            TypeError,
            r"edges\[0\]\[1\] must be an integer; got",
        ),
        (["input", "output"], [(0, True)], TypeError, r"edges\[0\]\[1\] must be an int"),
        (["input", "output"], [(0, 1), 5], TypeError, r"edges\[1\] must be a pair"),
        (["input", "output"], [(0, 1), (0, 2)], ArchitectureError, r"edges\[1\] = \(0, 2\)"),
        (
            ["input", "a", "b", "output"],
            [(0, 1), (1, 2), (2, 1), (2, 3)],
            ArchitectureError,
            r"cycle (1 -> 2 -> 1|2 -> 1 -> 2)",
        ),
        (["input", "a", "output"], [(0, 1), (1, 1), (1, 2)], ArchitectureError, "cycle 1 -> 1"),
        (
            ["input", "a", "output"],
            [(1, 0), (0, 2)],
            ArchitectureError,
            r"\(1, 0\), which enters the input",
        ),
        (
            ["input", "a", "output"],
            [(0, 2), (2, 1)],
            ArchitectureError,
            r"\(2, 1\), which enters the input \(node 0\) or leaves the output",
        ),
        (["input", "a", "output"], [(0, 2)], ArchitectureError, r"node 1 \(a\) is not reachable"),
    ],
)
def test_from_edges_refuses(
    ops: object, edges: object, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        Cell.from_edges(ops, edges)  # type: ignore[arg-type]


def test_json_round_trip_keeps_the_numbering() -> None:
    for cell in (
        DIAMOND,
        Cell(("input", "output"), ()),
        Cell.from_edges(["input", "é\n", "output"], [(0, 1), (1, 2)]),
    ):
        assert Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        ("{}", TypeError, "data must be a mapping that describes a cell; got str"),
        ({"ops": []}, ArchitectureError, "'edges' is missing"),
        ({}, ArchitectureError, "'ops' is missing; got none"),
        (
            {"ops": ["input", "output"], "edges": [], "x": 1},
            ArchitectureError,
            "'x' is unknown",
        ),
        ({"ops": "input", "edges": []}, ArchitectureError, "ops must be a list; got 'input'"),
        (
            {"ops": ["input", None, "output"], "edges": []},
            ArchitectureError,
            r"ops\[1\] must be a string; got None",
        ),
        (
            {"ops": ["input", "output"], "edges": [[0, 1, 2]]},
            ArchitectureError,
            r"edges\[0\] must be a pair \[i, j\]; got 3 numbers",
        ),
        (
            {"ops": ["input", "output"], "edges": [[0, 1.0]]},
            ArchitectureError,
            r"edges\[0\]\[1\] must be an integer; got 1.0",
        ),
        (
            {"ops": ["input", "output"], "edges": [[0, True]]},
            ArchitectureError,
            r"edges\[0\]\[1\] must be an integer; got True",
        ),
        ({"ops": ["input", "output"], "edges": [[1, 0]]}, ArchitectureError, r"\(1, 0\)"),
    ],
)
def test_from_json_refuses(data: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Cell.from_json(data)  # type: ignore[arg-type]
