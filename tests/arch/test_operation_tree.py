"""Operation trees: distances, gradients, JSON, errors."""

import json
from typing import Any

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hotnas_torch.arch import OperationTree
from hotnas_torch.errors import ArchitectureError

PARENTS = {
    "op": None,
    "conv": "op",
    "conv1": "conv",
    "conv3": "conv",
    "pool": "op",
    "fc": "op",
}
LENGTHS = {"conv": 0.95, "conv1": 0.05, "conv3": 0.05, "pool": 1.0, "fc": 1.0}
# The matrix D printed on the HOTNAS poster.
POSTER = [
    [0.0, 0.1, 2.0, 2.0],
    [0.1, 0.0, 2.0, 2.0],
    [2.0, 2.0, 0.0, 2.0],
    [2.0, 2.0, 2.0, 0.0],
]
MATRIX = [[0.0, 1.0, 4.0], [1.0, 0.0, 2.5], [4.0, 2.5, 0.0]]


@pytest.fixture
def tree() -> OperationTree:
    return OperationTree(PARENTS, LENGTHS)


@pytest.fixture
def costs() -> OperationTree:
    return OperationTree.from_matrix(["a", "b", "c"], MATRIX)


def test_the_poster_matrix_to_the_last_bit(tree: OperationTree) -> None:
    assert tree.labels == ("conv1", "conv3", "pool", "fc")
    assert tree.distance_matrix(dtype=torch.float64).tolist() == POSTER


def test_dtype_defaults(tree: OperationTree) -> None:
    assert tree.distance_matrix().dtype == torch.get_default_dtype()
    assert tree.lengths_tensor().dtype == torch.get_default_dtype()
    doubled = tree.with_lengths(2 * tree.lengths_tensor(dtype=torch.float64))
    assert doubled.distance_matrix().dtype == torch.float64
    assert doubled.distance_matrix(dtype=torch.float32).dtype == torch.float32


@st.composite
def weighted_trees(draw: st.DrawFn) -> tuple[dict[str, str | None], dict[str, float]]:
    size = draw(st.integers(2, 12))
    above = [draw(st.integers(0, node - 1)) for node in range(1, size)]
    lengths = draw(st.lists(st.floats(0, 10), min_size=size - 1, max_size=size - 1))
    parents: dict[str, str | None] = {"n0": None}
    for node, parent in enumerate(above, start=1):
        parents[f"n{node}"] = f"n{parent}"
    return parents, {f"n{node}": length for node, length in enumerate(lengths, start=1)}


@given(weighted_trees())
def test_distances_are_path_lengths(
    case: tuple[dict[str, str | None], dict[str, float]],
) -> None:
    parents, lengths = case
    graph = nx.Graph()
    for node, parent in parents.items():
        if parent is not None:
            graph.add_edge(node, parent, weight=lengths[node])
    paths = dict(nx.all_pairs_dijkstra_path_length(graph))
    as_floats = OperationTree(parents, lengths)
    as_tensors = as_floats.with_lengths(as_floats.lengths_tensor(dtype=torch.float64))
    leaves = [node for node in parents if graph.degree(node) == 1 and parents[node] is not None]
    assert list(as_floats.labels) == leaves
    expected = torch.tensor([[paths[x][y] for y in leaves] for x in leaves], dtype=torch.float64)
    for tree in (as_floats, as_tensors):
        torch.testing.assert_close(tree.distance_matrix(dtype=torch.float64), expected)


def test_a_single_node_is_a_label() -> None:
    tree = OperationTree({"only": None}, {})
    assert tree.labels == ("only",)
    assert tree.distance_matrix().tolist() == [[0.0]]


def test_rows_and_columns_on_request(tree: OperationTree) -> None:
    names = ["fc", "conv3", "fc"]
    assert tree.distance_matrix(names).tolist() == [[0, 2, 0], [2, 0, 2], [0, 2, 0]]
    assert tree.distance_matrix([]).shape == (0, 0)


def test_gradients_count_the_paths_over_each_edge() -> None:
    lengths: dict[str, Any] = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in LENGTHS.items()
    }
    OperationTree(PARENTS, lengths).distance_matrix().sum().backward()
    # A leaf edge separates 1 leaf from 3, the conv edge 2 from 2, each counted in both directions.
    expected = {"conv": 8.0, "conv1": 6.0, "conv3": 6.0, "pool": 6.0, "fc": 6.0}
    assert {name: length.grad.item() for name, length in lengths.items()} == expected


def test_numbers_next_to_tensors_are_constants() -> None:
    learned = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    tree = OperationTree(PARENTS, {**LENGTHS, "conv3": learned})
    assert tree.lengths_tensor().tolist() == [0.95, 0.05, 0.3, 1.0, 1.0]
    tree.distance_matrix()[0, 1].backward()
    assert learned.grad is not None
    assert learned.grad.item() == 1.0


@pytest.mark.parametrize("make", ["tree", "costs"])
def test_with_lengths_is_differentiable(make: str, request: pytest.FixtureRequest) -> None:
    tree: OperationTree = request.getfixturevalue(make)
    vector = tree.lengths_tensor(dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: tree.with_lengths(v).distance_matrix(), (vector,))
    scaled = tree.with_lengths(3 * vector)
    torch.testing.assert_close(
        scaled.distance_matrix(), 3 * tree.distance_matrix(dtype=torch.float64)
    )
    assert tree.lengths == dict(zip(tree.edges, vector.tolist(), strict=True)), "it was changed"


def test_lengths_by_name(tree: OperationTree) -> None:
    assert tree.lengths == LENGTHS
    assert tree.parents == PARENTS
    learned = tree.with_lengths(tree.lengths_tensor().requires_grad_())
    assert all(length.requires_grad for length in learned.lengths.values())


def test_matrix_has_the_interface_of_a_tree(costs: OperationTree) -> None:
    assert isinstance(costs, OperationTree)
    assert costs.labels == ("a", "b", "c")
    assert costs.index("c") == 2
    assert costs.distance_matrix(dtype=torch.float64).tolist() == MATRIX
    assert costs.distance_matrix(["c", "a"]).tolist() == [[0.0, 4.0], [4.0, 0.0]]
    assert costs.edges == ("a|b", "a|c", "b|c")
    assert costs.lengths_tensor().tolist() == [1.0, 4.0, 2.5]
    with pytest.raises(ArchitectureError, match="without a tree"):
        _ = costs.parents


def test_gradients_reach_a_matrix() -> None:
    matrix = torch.tensor(MATRIX, requires_grad=True)
    costs = OperationTree.from_matrix(["a", "b", "c"], matrix)
    costs.distance_matrix()[0, 2].backward()
    assert matrix.grad is not None
    assert matrix.grad.nonzero().tolist() == [[0, 2], [2, 0]]
    assert matrix.grad.sum().item() == 1.0


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("make", ["tree", "costs"])
def test_json_round_trip(make: str, learned: bool, request: pytest.FixtureRequest) -> None:
    tree: OperationTree = request.getfixturevalue(make)
    if learned:
        tree = tree.with_lengths(tree.lengths_tensor(dtype=torch.float64).requires_grad_())
    back = OperationTree.from_json(json.loads(json.dumps(tree.to_json())))
    assert type(back) is type(tree)
    assert back.labels == tree.labels
    assert (
        back.lengths_tensor(dtype=torch.float64).tolist()
        == tree.lengths_tensor(dtype=torch.float64).tolist()
    )
    assert torch.equal(
        back.distance_matrix(dtype=torch.float64), tree.distance_matrix(dtype=torch.float64)
    )


def test_unknown_label_is_named_with_the_known_ones(tree: OperationTree) -> None:
    expected = r"label 'conv5' is not .* known labels: 'conv1', 'conv3', 'pool', 'fc'"
    with pytest.raises(ArchitectureError, match=expected):
        tree.index("conv5")
    with pytest.raises(ArchitectureError, match=expected):
        tree.distance_matrix(["conv1", "conv5"])
    with pytest.raises(ArchitectureError, match="'conv' is not an operation"):
        tree.index("conv")  # an inner node


@pytest.mark.parametrize(
    ("parents", "lengths", "kind", "message"),
    [
        ([("a", None)], {}, TypeError, "parents must be a mapping"),
        ({1: None}, {}, TypeError, "parents has the node 1"),
        ({"": None}, {}, TypeError, "parents has the node ''"),
        ({}, {}, ArchitectureError, r"exactly one root .* got \[\]"),
        ({"a": None, "b": None}, {}, ArchitectureError, r"exactly one root .* got \['a', 'b'\]"),
        ({"a": None, "b": "x"}, {}, ArchitectureError, r"parents\['b'\] = 'x' is not a node"),
        (
            {"a": None, "b": "c", "c": "d", "d": "c"},
            {},
            ArchitectureError,
            "found the cycle c -> d -> c",
        ),
        ({"a": None, "b": "a"}, {}, ArchitectureError, "'b' is missing"),
        ({"a": None}, {"a": 1.0}, ArchitectureError, "'a', which is the root"),
        ({"a": None}, {"z": 1.0}, ArchitectureError, "'z', which is not in parents"),
        ({"a": None, "b": "a"}, {"b": -1.0}, ArchitectureError, r"lengths\['b'\] .* got -1.0"),
        ({"a": None, "b": "a"}, {"b": float("nan")}, ArchitectureError, "finite and >= 0; got nan"),
        ({"a": None, "b": "a"}, {"b": float("inf")}, ArchitectureError, "finite and >= 0; got inf"),
        ({"a": None, "b": "a"}, {"b": "1"}, TypeError, r"lengths\['b'\] must be a number"),
        ({"a": None, "b": "a"}, {"b": True}, TypeError, r"lengths\['b'\] must be a number"),
        ({"a": None, "b": "a"}, {"b": torch.ones(2)}, TypeError, r"tensor of shape \(2,\)"),
        ({"a": None, "b": "a"}, {"b": torch.tensor(1)}, TypeError, "dtype torch.int64"),
        (
            {"a": None, "b": "a"},
            {"b": torch.tensor(-2.0)},
            ArchitectureError,
            r"lengths\['b'\] \(entry 0\) must be finite and >= 0; got -2",
        ),
        (
            {"a": None, "b": "a", "c": "a"},
            {"b": torch.tensor(1.0), "c": torch.tensor(1.0, dtype=torch.float64)},
            TypeError,
            r"lengths\['c'\] has torch.float64",
        ),
    ],
)
def test_refuses(parents: Any, lengths: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        OperationTree(parents, lengths)


@pytest.mark.parametrize(
    ("lengths", "kind", "message"),
    [
        ([1.0] * 5, TypeError, "lengths must be a floating tensor"),
        (torch.ones(5, dtype=torch.int64), TypeError, "dtype torch.int64"),
        (torch.ones(4), ArchitectureError, r"shape \(5,\), one entry per edge .* got \(4,\)"),
        (torch.tensor([1.0, 1, -1, 1, 1]), ArchitectureError, r"lengths\['conv3'\] \(entry 2\)"),
        (torch.full((5,), torch.nan), ArchitectureError, r"lengths\['conv'\] .* got nan"),
    ],
)
def test_with_lengths_refuses(
    tree: OperationTree, lengths: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        tree.with_lengths(lengths)


@pytest.mark.parametrize(
    ("labels", "matrix", "kind", "message"),
    [
        (["a", 1], [[0, 1], [1, 0]], TypeError, r"labels\[1\] must be a non-empty str; got 1"),
        (["a", "a"], [[0, 1], [1, 0]], ArchitectureError, r"labels\[1\] = 'a' is repeated"),
        (["a", "b"], [[0, 1]], ArchitectureError, r"shape \(2, 2\), .* got \(1, 2\)"),
        (["a", "b"], [[0, 1], [1]], TypeError, "square nest of numbers"),
        (["a", "b"], torch.zeros(2, 2, dtype=torch.int64), TypeError, "torch.int64"),
        (["a", "b"], [[0, -1], [-1, 0]], ArchitectureError, "finite and >= 0; .* 'a' and 'b'"),
        (["a", "b"], [[0, 1], [1, float("nan")]], ArchitectureError, "row 1, column 1"),
        (["a", "b"], [[0, 1], [1, 2]], ArchitectureError, "0 on the diagonal; .* 'b' and 'b'"),
        (["a", "b"], [[0, 1], [2, 0]], ArchitectureError, "symmetric; .* is 1, .* 2"),
    ],
)
def test_from_matrix_refuses(labels: Any, matrix: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        OperationTree.from_matrix(labels, matrix)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (None, TypeError, "mapping that describes an operation tree; got NoneType"),
        ({"parents": {}}, ArchitectureError, "'lengths' is missing"),
        ({"labels": [], "matrix": [], "x": 0}, ArchitectureError, "'x' is unknown"),
        ({"parents": [], "lengths": {}}, ArchitectureError, "parents must be an object"),
        ({"parents": {"a": 3}, "lengths": {}}, ArchitectureError, r"parents\['a'\] must be a str"),
        (
            {"parents": {"a": None, "b": "a"}, "lengths": {"b": "1"}},
            ArchitectureError,
            r"lengths\['b'\] must be a number; got '1'",
        ),
        (
            {"labels": ["a"], "matrix": [["0"]]},
            ArchitectureError,
            r"matrix\[0\]\[0\] must be a num",
        ),
    ],
)
def test_from_json_refuses(data: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        OperationTree.from_json(data)


def test_repr_shows_the_lengths(tree: OperationTree) -> None:
    assert "4 labels; conv=0.95, conv1=0.05" in repr(tree)
