import csv
import gzip
import itertools
from collections import Counter, defaultdict

import networkx as nx
import numpy as np
import pytest
import torch

from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import NASBench101

CONV3, CONV1, POOL = OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")


@pytest.fixture(scope="module")
def space():
    return NASBench101()


@pytest.fixture(scope="module")
def small_rows(data_dir):
    return read_rows(data_dir / "nas-bench-101" / "nb101_test_5v.csv.gz")


def read_rows(path):
    with gzip.open(path, "rt") as file:
        return [f"{row['v']},{row['adj']},{row['ops']}" for row in csv.DictReader(file)]


def as_networkx(cell):
    graph = nx.DiGraph(cell.edges)
    graph.add_nodes_from((node, {"op": label}) for node, label in enumerate(cell.ops))
    return graph


def isomorphic(first, second):
    return nx.is_isomorphic(
        as_networkx(first), as_networkx(second), node_match=lambda a, b: a["op"] == b["op"]
    )


def all_specifications(size):
    """Every upper triangular matrix and labelling that is a cell without pruning."""
    pairs = list(itertools.combinations(range(size), 2))
    for bits in itertools.product((0, 1), repeat=len(pairs)):
        graph = nx.DiGraph([pair for pair, bit in zip(pairs, bits, strict=True) if bit])
        graph.add_nodes_from(range(size))
        after = nx.descendants(graph, 0) | {0}
        before = nx.ancestors(graph, size - 1) | {size - 1}
        if len(after) == len(before) == size and sum(bits) <= 9:
            for inner in itertools.product("012", repeat=size - 2):
                yield f"{size},{''.join(map(str, bits))},{''.join(inner)}"


def test_keys_are_equal_exactly_for_isomorphic_cells(space):
    classes = defaultdict(list)
    for size in (2, 3, 4):
        for text in all_specifications(size):
            net = space.from_string(text)
            classes[space.key(net)].append(net.cells[0])
    assert Counter(len(members[0].ops) for members in classes.values()) == {2: 1, 3: 6, 4: 84}
    for members in classes.values():
        assert all(isomorphic(members[0], other) for other in members[1:])
    for first, second in itertools.combinations(classes.values(), 2):
        assert not isomorphic(first[0], second[0])


def test_enumeration_meets_every_class_once(space):
    # Smaller cells come first, so this is the whole space up to five vertices.
    found = [space.key(net) for net in itertools.islice(space, 2532)]
    brute_force = {
        space.key(space.from_string(text))
        for size in (2, 3, 4, 5)
        for text in all_specifications(size)
    }
    assert len(found) == len(set(found)) == len(brute_force)
    assert set(found) == brute_force


def test_the_size_is_counted_per_number_of_vertices(space):
    # The benchmark's own numbers (google-research/nasbench).
    assert space.size() == 1 + 6 + 84 + 2441 + 62010 + 359082 == 423624


def test_the_skeleton(space):
    net = space.from_string("3,101,2")
    assert net.cells == (net.cells[0],) * 9
    assert net.channels == (128,) * 3 + (256,) * 3 + (512,) * 3
    assert net.downsampling == (1,) * 3 + (2,) * 3 + (4,) * 3
    assert net.input_channels == 128


def test_matrices_are_pruned(space):
    # Vertex 1 leads nowhere, vertex 3 comes from nowhere.
    adjacency = [
        [0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
    ]
    ops = ["input", CONV3, POOL, CONV1, "output"]
    for matrix in (adjacency, np.array(adjacency), torch.tensor(adjacency).bool()):
        net = space.from_matrix(matrix, ops)
        assert net == space.from_string("3,101,2")
    matrix, labels = space.to_matrix(net)
    assert matrix.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert labels == ("input", POOL, "output")


def test_matrices_round_trip(space, rng):
    for net in space.sample(100, generator=rng):
        assert space.from_matrix(*space.to_matrix(net)) == net


def test_edges_are_counted_after_pruning(space):
    full = torch.ones(5, 5).triu(1).int()
    ops = ["input", CONV3, CONV3, CONV3, "output"]
    with pytest.raises(ArchitectureError, match="has 10 edges after pruning, at most 9"):
        space.from_matrix(full, ops)
    full[1:, -1] = 0
    assert space.from_matrix(full, ops) == space.from_string("2,1,")


@pytest.mark.parametrize(
    ("adjacency", "ops", "expected"),
    [
        ([[0, 1], [1, 0]], ["input", "output"], r"adjacency\[1\]\[0\] must be 0 \(upper"),
        ([[0, 2], [0, 0]], ["input", "output"], r"adjacency\[0\]\[1\] must be 0 or 1; got 2"),
        ([[0, 0], [0, 0]], ["input", "output"], "has no path from input to output"),
        ([[0, 1, 0], [0, 0, 1]], ["input", POOL, "output"], r"got shape \(2, 3\) and 3 labels"),
        (np.eye(8, k=1), ["input", *[POOL] * 6, "output"], "2 <= v <= 7; got shape"),
        (np.eye(3, k=1), ["input", "pool", "output"], r"ops\[1\] must be 'conv3x3-bn-relu' or .*"),
        (np.eye(2, k=1), ["in", "output"], r"ops\[0\] must be 'input'; got 'in'"),
        (np.eye(3, k=1), ["input", POOL, CONV3], r"ops\[2\] must be 'output'; got"),
    ],
)
def test_bad_matrices_are_named(space, adjacency, ops, expected):
    with pytest.raises(ArchitectureError, match=expected):
        space.from_matrix(adjacency, ops)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8,1,", r"a number of vertices in 2..7 at position 0"),
        ("3;101;2", "'<vertices>,<adjacency>,<operations>'"),
        ("3,121,2", "3 times an adjacency entry 0 or 1 at position 3; got '21,2'"),
        ("3,1011,2", "3 times an adjacency entry 0 or 1 at position 5; got '1,2'"),
        ("3,101,3", "1 times an operation 0, 1 or 2 at position 6; got '3'"),
        ("3,101,", "1 times an operation 0, 1 or 2 at position 6; got the end"),
        ("3,110,2", "vertex 1 is on no path from input to output .from_matrix drops"),
        ("3,011,2", "vertex 1 is on no path"),
        ("5,1111111111,000", "has 10 edges, at most 9"),
    ],
)
def test_faults_have_a_position(space, text, expected):
    with pytest.raises(ArchitectureError, match=expected):
        space.from_string(text)


def change(row, edges=None, ops=None):
    row = row.clone()
    names = NASBench101().columns
    for name, value in {**(edges or {}), **(ops or {})}.items():
        row[0, names.index(name)] = value
    return row


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"operation of vertex 1": 3, "operation of vertex 2": 0}, "absent vertices come last"),
        ({"operation of vertex 1": 3}, "a vertex without an operation has an edge"),
        ({"edge 0->2": 1}, "a vertex without an operation has an edge"),
        ({"operation of vertex 2": 1}, "a vertex is on no path"),
        ({"edge 1->6": 0}, "a vertex is on no path"),
        ({"edge 0->1": 0, "edge 1->6": 0, "operation of vertex 1": 3}, "not connected"),
        ({"edge 0->1": 2}, r"edge 0->1 \(column 0\) must be in 0..1"),
    ],
)
def test_rows_outside_the_space(space, changes, expected):
    row = space.encode([space.from_string("3,101,2")])
    with pytest.raises(ArchitectureError, match=expected):
        space.decode(change(row, changes))


def test_rows_with_too_many_edges(space):
    row = space.encode([space.from_string("5,1110111111,000")])
    with pytest.raises(ArchitectureError, match="more than 9 edges"):
        space.decode(change(row, {"edge 0->6": 1}))


def one_flip_away(space, net):
    """Keys of what one edit of any numbering gives, by brute force over unpruned matrices.

    Below seven vertices the matrix has one more, hanging on one other vertex or on none.
    """
    cell = net.cells[0]
    graph = as_networkx(cell)
    size = cell.num_nodes
    spare = [None, *itertools.product(OPERATIONS, range(size), ("in", "out"))]
    found = set()
    for extra in spare if size < 7 else [None]:
        extended = graph.copy()
        if extra is not None:
            operation, other, direction = extra
            extended.add_node("new", op=operation)
            extended.add_edge(*((other, "new") if direction == "in" else ("new", other)))
        for i, j in itertools.permutations(extended, 2):
            flipped = extended.copy()
            if flipped.has_edge(i, j):
                flipped.remove_edge(i, j)
            else:
                flipped.add_edge(i, j)
            found.add(key_of(space, flipped, size - 1))
        for node, operation in itertools.product(extended, OPERATIONS):
            if node not in (0, size - 1):
                renamed = extended.copy()
                renamed.nodes[node]["op"] = operation
                found.add(key_of(space, renamed, size - 1))
    return found - {None, space.key(net)}


def key_of(space, graph, output):
    if graph.in_degree(0) or graph.out_degree(output) or not nx.is_directed_acyclic_graph(graph):
        return None
    middle = [node for node in nx.topological_sort(graph) if node not in (0, output)]
    order = [0, *middle, output]
    matrix = nx.to_numpy_array(graph, nodelist=order, dtype=int)
    try:
        net = space.from_matrix(matrix, [graph.nodes[node]["op"] for node in order])
    except ArchitectureError:
        return None
    return space.key(net)


@pytest.mark.parametrize(
    "text",
    ["2,1,", "3,101,0", "3,111,2", "4,110011,02", "5,1010101011,012", "6,110000110010011,0121"],
)
def test_neighbors_are_all_that_one_edit_gives(space, text):
    net = space.from_string(text)
    assert {space.key(other) for other in space.neighbors(net)} == one_flip_away(space, net)


def test_neighbors_of_full_cells(space, rng):
    nets = [net for net in space.sample(40, generator=rng) if net.cells[0].num_nodes == 7]
    for net in nets[:3]:
        keys = {space.key(other) for other in space.neighbors(net)}
        assert keys == one_flip_away(space, net)


def test_neighbors_do_not_depend_on_the_numbering(space, rng):
    for net in space.sample(10, generator=rng):
        keys = {space.key(other) for other in space.neighbors(net)}
        assert keys == {space.key(other) for other in space.neighbors(space.canonical(net))}


def test_mutation_shrinks_and_grows(space, rng):
    sizes = {
        start: Counter(
            space.mutate(space.from_string(start), generator=rng).cells[0].num_nodes
            for _ in range(60)
        )
        for start in ("3,101,2", "7,100000100001000100101,01201")
    }
    assert max(sizes["3,101,2"]) > 3
    assert min(sizes["7,100000100001000100101,01201"]) < 7


def test_rows_of_up_to_five_vertices(space, small_rows):
    nets = [space.from_string(text) for text in small_rows]
    assert [space.to_string(net) for net in nets] == small_rows
    assert space.decode(space.encode(nets)) == nets
    keys = {space.key(net) for net in nets}
    assert len(keys) == len(nets)
    assert keys == {space.key(net) for net in itertools.islice(space, len(nets))}


def test_a_sample_of_the_table(space, data_dir):
    rows = read_rows(data_dir / "nas-bench-101" / "nb101_test.csv.gz")[::85]
    assert len(rows) > 4900
    nets = [space.from_string(text) for text in rows]
    assert [space.to_string(net) for net in nets] == rows
    assert space.decode(space.encode(nets)) == nets
    assert all(map(space.contains, nets))


@pytest.mark.slow
def test_the_whole_table_is_the_whole_space(space, data_dir):
    rows = read_rows(data_dir / "nas-bench-101" / "nb101_test.csv.gz")
    keys = set()
    for start in range(0, len(rows), 20_000):
        texts = rows[start : start + 20_000]
        nets = [space.from_string(text) for text in texts]
        assert [space.to_string(net) for net in nets] == texts
        assert space.decode(space.encode(nets)) == nets
        keys.update(space.key(net) for net in nets)
    assert len(keys) == len(rows) == space.size()
    assert keys == {space.key(net) for net in space}
