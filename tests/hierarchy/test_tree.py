import io
import tracemalloc
import zipfile

import networkx as nx
import numpy as np
import pytest
import torch

from hotnas_torch.hierarchy import ArchitectureTree
from tests.generators.trees import random_parents, random_shape


def graph_of(parent, architecture):
    """The same tree in networkx, its leaves named after their architectures."""
    graph = nx.DiGraph()
    names = [("leaf", a) if a >= 0 else ("node", v) for v, a in enumerate(architecture)]
    graph.add_nodes_from(names)
    graph.add_edges_from((names[p], names[v]) for v, p in enumerate(parent) if p >= 0)
    return graph, names[parent.index(-1)]


@pytest.mark.parametrize("num_leaves", [1, 2, 7, 40])
def test_any_numbering_gives_the_same_tree_as_networkx_sees(num_leaves, rng):
    parent, architecture = random_parents(num_leaves, rng)
    tree = ArchitectureTree.from_parents(parent, architecture)
    graph, root = graph_of(parent, architecture)
    assert nx.is_arborescence(graph) or num_leaves == 1
    assert tree.num_nodes == len(graph)
    depths = nx.single_source_shortest_path_length(graph, root)
    assert len(tree.levels) == 1 + max(depths.values())
    assert sorted(tree.depth.tolist()) == sorted(depths.values())
    for place in range(tree.num_architectures):
        path = tree.path(place)
        assert len(path) == 1 + depths["leaf", place]
        assert [len(tree.children(v)) for v in path] == [
            graph.out_degree(v) for v in nx.shortest_path(graph, root, ("leaf", place))
        ]
        assert tree.depth[tree.leaf[place]] == depths["leaf", place]
    below = {
        frozenset(a for kind, a in nx.descendants(graph, v) | {v} if kind == "leaf") for v in graph
    }
    assert {frozenset(tree.below(v).tolist()) for v in range(tree.num_nodes)} == below
    assert tree.num_leaves.tolist() == [len(tree.below(v)) for v in range(tree.num_nodes)]


def test_leaves_of_a_node_are_neighbours_in_the_order(rng):
    tree = random_shape(60, rng)
    position = torch.empty(tree.num_architectures, dtype=torch.int64)
    position[tree.order] = torch.arange(tree.num_architectures)
    for node in range(tree.num_nodes):
        places = position[tree.below(node)]
        assert torch.equal(places, torch.arange(int(places[0]), int(places[0]) + len(places)))


def test_sums_up_and_down_are_those_of_paths(rng):
    tree = random_shape(30, rng)
    values = torch.rand(tree.num_nodes, generator=rng, dtype=torch.float64)
    up, down = tree.sum_up(values), tree.sum_down(values)
    above = np.zeros((tree.num_nodes, tree.num_nodes), dtype=bool)
    for node in range(tree.num_nodes):
        current = node
        while current >= 0:
            above[node, current] = True
            current = int(tree.parent[current])
    above = torch.from_numpy(above).double()
    torch.testing.assert_close(down, above @ values)
    torch.testing.assert_close(up, above.T @ values)


def test_ancestors_are_the_paths_of_each(rng):
    tree = random_shape(25, rng)
    asked = torch.tensor([3, 0, 3, 24])
    nodes, owners = tree.ancestors(asked)
    for position, architecture in enumerate(asked.tolist()):
        assert nodes[owners == position].tolist() == tree.path(architecture)[::-1]
    assert [len(part) for part in tree.ancestors(asked[:0])] == [0, 0]


def test_children_keep_their_order_and_heights_their_nodes():
    tree = ArchitectureTree.from_parents(
        [2, 2, -1, 2, 3, 3],
        [1, 0, -1, -1, 3, 2],
        height=[0, 0, 7, 5, 0, 0],
        group=[4, 5, 6, 7, 8, 9],
    )
    assert tree.architecture.tolist() == [-1, 1, 0, -1, 3, 2]
    assert tree.height.tolist() == [7, 0, 0, 5, 0, 0]
    assert tree.group.tolist() == [6, 4, 5, 7, 8, 9]
    plain = ArchitectureTree.from_parents([2, 2, -1, 2, 3, 3], [1, 0, -1, -1, 3, 2])
    assert plain.height.tolist() == [2, 0, 0, 1, 0, 0]
    assert plain.group.tolist() == [-1] * 6


def test_a_chain_of_thousands_of_levels_is_a_tree():
    size = 3000
    parent = [-1] + [v - 2 if v % 2 == 0 else v - 1 for v in range(1, 2 * size + 1)]
    leaves = [v for v in range(len(parent)) if v % 2 == 1] + [2 * size]
    architecture = [-1] * len(parent)
    for place, leaf in enumerate(leaves):
        architecture[leaf] = place
    tree = ArchitectureTree.from_parents(parent, architecture)
    assert len(tree.levels) == size + 1
    assert int(tree.num_leaves[0]) == size + 1
    assert len(tree.path(size)) == size + 1


def test_a_file_gives_the_same_tree_back(tmp_path, rng):
    tree = random_shape(12, rng)
    tree.save(tmp_path / "tree.npz")
    again = ArchitectureTree.load(tmp_path / "tree.npz")
    assert all(torch.equal(again.state_dict()[k], v) for k, v in tree.state_dict().items())
    assert again.digest() == tree.digest() != random_shape(12, rng).digest()
    torch.save(tree.state_dict(), tmp_path / "tree.pt")
    state = torch.load(tmp_path / "tree.pt", weights_only=True)
    assert ArchitectureTree(**state).digest() == tree.digest()


def test_what_holds_no_tree_is_told(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.npz holds no tree"):
        ArchitectureTree.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", parent=np.zeros(1))
    with pytest.raises(ValueError, match=r"b\.npz holds no tree"):
        ArchitectureTree.load(tmp_path / "b.npz")
    with pytest.raises(OSError, match=r"c\.npz"):
        ArchitectureTree.load(tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        (np.array([-1.0, 0.0]), "parent must be"),
        (np.array([2**64 - 1, 0], dtype=np.uint64), "parent must be"),
        (np.array([-1, 2**62]), "parent.1. must be"),
        (np.array([-1, -7]), "parent.1. must be"),
        (np.array([None, 0]), "plain numbers"),
    ],
    ids=["float", "unsigned", "too large", "negative", "objects"],
)
def test_numbers_that_are_no_nodes_are_refused_with_the_file(tmp_path, parent, message):
    pair = np.array([-1, 0])
    np.savez_compressed(
        tmp_path / "d.npz", parent=parent, architecture=pair, height=pair * 1.0, group=pair
    )
    with pytest.raises(ValueError, match=rf"d\.npz holds no tree.*{message}"):
        ArchitectureTree.load(tmp_path / "d.npz")


@pytest.mark.parametrize(("says", "holds"), [(2**28, 2**28), (2**33, 2**10)])
def test_a_small_file_cannot_ask_for_much_memory(tmp_path, says, holds):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i8", "fortran_order": False, "shape": (says // 8,)}
    )
    with zipfile.ZipFile(tmp_path / "e.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("parent.npy", header.getvalue() + bytes(holds))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"e\.npz holds no tree.*parent (is larger|says shape)"):
        ArchitectureTree.load(tmp_path / "e.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24


@pytest.mark.parametrize(
    ("parent", "architecture", "message"),
    [
        ([], [], "hold -1 once"),
        ([0, 1], [0, 1], "hold -1 once, for the root; got it 0 times"),
        ([-1, -1], [0, 1], "got it 2 times"),
        ([-1, 5], [-1, 0], r"parent\[1\] must be one of 2 nodes; got 5"),
        ([-1, 2, 1], [0, 1, 2], "2 form a cycle"),
        ([-1, 0, 0], [-1, 0], "one entry per node, 3"),
        ([-1, 0, 0], [0, 1, 2], r"architecture\[0\] must be -1, as node 0 is an inner node"),
        ([-1, 0, 0], [-1, 1, -1], r"architecture\[2\] must be an architecture.* a leaf"),
        ([-1, 0, 0], [-1, 1, 1], "0 is missing or stands twice"),
        ([-1, 0, 0], [-1, 0, 2], "1 is missing or stands twice"),
    ],
)
def test_what_is_no_tree_is_refused(parent, architecture, message):
    with pytest.raises(ValueError, match=message):
        ArchitectureTree.from_parents(parent, architecture)


def test_the_class_itself_wants_breadth_first_numbers():
    arrays = {
        "parent": torch.tensor([-1, 0, 0, 1, 1]),
        "architecture": torch.tensor([-1, -1, 2, 0, 1]),
        "height": torch.zeros(5, dtype=torch.float64),
        "group": torch.full((5,), -1),
    }
    ArchitectureTree(**arrays)
    for changed, kind, message in (
        ({"parent": torch.tensor([-1, 0, 1, 0, 0])}, ValueError, r"parent\[3\].*breadth first"),
        ({"parent": torch.tensor([0, 0, 0, 1, 1])}, ValueError, r"parent\[0\] must be -1"),
        ({"parent": arrays["parent"].int()}, TypeError, "parent must be a tensor of torch.int64"),
        ({"height": [0.0] * 5}, TypeError, "height must be a tensor of torch.float64; got list"),
        ({"height": torch.full((5,), torch.nan).double()}, ValueError, "finite"),
        ({"group": torch.zeros(4, dtype=torch.int64)}, ValueError, "group must have one entry"),
    ):
        with pytest.raises(kind, match=message):
            ArchitectureTree(**(arrays | changed))
