import csv
import gzip
import itertools

import networkx as nx
import pytest
import torch

from hotnas_torch.arch import Cell
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import NASBench201, TransNASMicro


@pytest.fixture(scope="module")
def space():
    return TransNASMicro()


def test_the_skeleton(space):
    net = space.from_string("64-41414-1_23_102")
    assert net.input_channels == 64
    assert net.channels == (128, 128, 128, 128, 256, 256, 256, 256, 512, 512)
    assert net.downsampling == (2, 2, 2, 2, 4, 4, 4, 4, 8, 8)
    assert len(set(net.cells)) == 1


def _cell_of(text):
    """The graph of a string, from the benchmark's own reading of it."""
    digits = ["", *text.rpartition("-")[2].split("_")]
    names = {"1": "skip_connect", "2": "conv1x1", "3": "conv3x3"}
    graph = nx.DiGraph()
    edges = {
        (source, target): names[digit]
        for target, found in enumerate(digits)
        for source, digit in enumerate(found)
        if digit != "0"
    }
    for (source, target), name in edges.items():
        graph.add_node((source, target), label=name)
    graph.add_node("input", label="input")
    graph.add_node("output", label="output")
    for first in edges:
        if first[0] == 0:
            graph.add_edge("input", first)
        if first[1] == 3:
            graph.add_edge(first, "output")
        graph.add_edges_from((first, second) for second in edges if first[1] == second[0])
    kept = ({"input"} | nx.descendants(graph, "input")) & (
        {"output"} | nx.ancestors(graph, "output")
    )
    return graph.subgraph(kept | {"input", "output"})


def test_cells_are_the_benchmarks_graphs(space):
    generator = torch.Generator().manual_seed(0)
    for net in space.sample(100, generator=generator):
        cell = net.cells[0]
        found = nx.DiGraph(cell.edges)
        found.add_nodes_from((node, {"label": label}) for node, label in enumerate(cell.ops))
        assert nx.is_isomorphic(
            found, _cell_of(net.spec), node_match=lambda a, b: a["label"] == b["label"]
        )


def test_cells_are_those_of_nas_bench_201_in_other_words(space):
    other = NASBench201(reduction_cells=False)
    labels = {"nor_conv_1x1": "conv1x1", "nor_conv_3x3": "conv3x3"}
    rows = torch.randint(4, (50, 6), generator=torch.Generator().manual_seed(1))
    for mine, theirs in zip(space.decode(rows), other.decode(rows), strict=True):
        cell = theirs.cells[0]
        ops = tuple(labels.get(label, label) for label in cell.ops)
        assert mine.cells[0] == Cell(ops, cell.edges)


def test_operation_costs(space):
    costs = space.tree.distance_matrix(["conv1x1", "conv3x3", "skip_connect", "none"])
    assert costs[0, 1].item() == pytest.approx(0.1)
    assert costs[0, 2].item() == costs[1, 3].item() == costs[2, 3].item() == 2.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64-1234-basic", "'64-41414-' at position 0; got '64-1234-basic'"),
        ("64-41414-4_33_333", "an operation 0, 1, 2 or 3 at position 9; got '4_33_333'"),
        ("64-41414-333_333", "'_' between two feature maps at position 10; got '33_333'"),
        ("64-41414-3_33_33", "an operation 0, 1, 2 or 3 at position 16; got the end"),
        ("64-41414-3_33_3330", "nothing after the sixth operation at position 17; got '0'"),
    ],
)
def test_faults_have_a_position(space, text, expected):
    with pytest.raises(ArchitectureError, match=expected):
        space.from_string(text)


def test_the_published_names_are_the_space(space, data_dir):
    path = data_dir / "transnas-bench-101" / "micro_4096_final.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {net.spec for net in space} == {row["arch"] for row in rows}
    assert space.size() == len(rows) == 4096
    # Networks that compute nothing were measured alike: the order of the digits is right.
    empty = Cell(("input", "output"), ())
    found = {row["arch"]: row["jigsaw"] for row in rows}
    dead = [net.spec for net in space if net.cells[0] == empty]
    assert len(dead) > 100
    values = sorted(float(found[text]) for text in dead)
    best = sorted(map(float, found.values()))[-1]
    assert values[-1] < 0.2 < best
    assert len(dead) == sum(not _joins(code) for code in itertools.product(range(4), repeat=6))


def _joins(code):
    edges = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    graph = nx.DiGraph([edge for edge, digit in zip(edges, code, strict=True) if digit])
    graph.add_nodes_from((0, 3))
    return nx.has_path(graph, 0, 3)
