import csv
import gzip

import networkx as nx
import pytest

from hotnas_torch.arch import Cell
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import NASBench201

NET = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"


@pytest.fixture(scope="module")
def space():
    return NASBench201()


def node_graph(text, contract_skip):
    """The graph of operations by networkx's line graph: edge operations become nodes."""
    groups = [group.strip("|").split("|") for group in text.split("+")]
    maps = nx.DiGraph([("in", 0), (3, "out")])
    labels = {("in", 0): "input", (3, "out"): "output"}
    for target, group in enumerate(groups, start=1):
        for entry in group:
            operation, source = entry.split("~")
            maps.add_edge(int(source), target)
            labels[int(source), target] = operation
    graph = nx.line_graph(maps)
    nx.set_node_attributes(graph, labels, "op")
    graph.remove_nodes_from([node for node, label in labels.items() if label == "none"])
    if contract_skip:
        for node in [node for node in graph if labels[node] == "skip_connect"]:
            graph.add_edges_from(
                (i, j) for i in graph.predecessors(node) for j in graph.successors(node)
            )
            graph.remove_node(node)
    ends = ("in", 0), (3, "out")
    kept = {ends[0], *nx.descendants(graph, ends[0])} & {ends[1], *nx.ancestors(graph, ends[1])}
    return graph.subgraph(kept | set(ends) if kept else set(ends))


def as_networkx(cell):
    graph = nx.DiGraph(cell.edges)
    graph.add_nodes_from((node, {"op": label}) for node, label in enumerate(cell.ops))
    return graph


@pytest.mark.parametrize("contract_skip", [False, True])
def test_cells_are_the_pruned_line_graphs(contract_skip, rng):
    space = NASBench201(contract_skip=contract_skip)
    disconnected = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    texts = [net.spec for net in space.sample(400, generator=rng)]
    for text in [NET, disconnected, *texts]:
        cell = space.from_string(text).cells[0]
        assert nx.is_isomorphic(
            as_networkx(cell),
            node_graph(text, contract_skip),
            node_match=lambda a, b: a["op"] == b["op"],
        )


def test_contracting_skips(space):
    text = "|skip_connect~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"
    assert space.from_string(text).cells[0].ops == (
        "input",
        "skip_connect",
        "skip_connect",
        "output",
    )
    contracted = NASBench201(contract_skip=True)
    assert contracted.from_string(text).cells[0] == Cell(("input", "output"), ((0, 1),))
    assert not contracted.contains(space.from_string(text))


def test_unconnected_cells_keep_their_strings(space):
    first = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    second = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    one, two = space.from_string(first), space.from_string(second)
    assert one.cells[0] == two.cells[0] == Cell(("input", "output"), ())
    assert one != two
    assert space.to_string(two) == second
    assert one.key == two.key


def test_the_skeleton(space):
    net = space.from_string(NET)
    searched, reduction = net.cells[0], net.cells[5]
    expected = [searched] * 5 + [reduction] + [searched] * 5 + [reduction] + [searched] * 5
    assert list(net.cells) == expected
    assert net.channels == (16,) * 5 + (32,) * 6 + (64,) * 6
    assert net.downsampling == (1,) * 5 + (2,) * 6 + (4,) * 6
    assert net.input_channels == 16
    assert reduction.ops.count("nor_conv_3x3") == 2
    plain = NASBench201(reduction_cells=False).from_string(NET)
    assert plain.cells == (searched,) * 15
    assert plain.channels == (16,) * 5 + (32,) * 5 + (64,) * 5


def test_enumeration_counts_15625(space):
    specs = {net.spec for net in space}
    assert len(specs) == space.size() == 15625


def test_convolutions_are_similar(space):
    costs = space.tree.distance_matrix(["nor_conv_1x1", "nor_conv_3x3", "skip_connect", "none"])
    assert costs[0, 1].item() == pytest.approx(0.1)
    assert costs[2].tolist() == [2, 2, 0, 2]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("nor_conv_3x3~0", "nor_conv_5x5~0", "position 1; got 'nor_conv_5x5"),
        ("avg_pool_3x3~0", "avg_pool_3x3~1", "'~0', the feature map .* got '~1"),
        ("+|none~0|", "+none~0|", r"'\|' before an operation at position 17"),
        ("|+|avg", "||avg", r"'\+' between two feature maps"),
        ("~2|", "~2|x", "nothing after the third feature map at position 79"),
    ],
)
def test_faults_have_a_position(space, old, new, expected):
    assert old in NET
    with pytest.raises(ArchitectureError, match=expected):
        space.from_string(NET.replace(old, new, 1))


def test_every_row_of_the_table(space, data_dir):
    with gzip.open(data_dir / "nas-bench-201" / "nb201.csv.gz", "rt") as file:
        texts = [row["arch"] for row in csv.DictReader(file)]
    nets = [space.from_string(text) for text in texts]
    assert [space.to_string(net) for net in nets] == texts
    assert space.decode(space.encode(nets)) == nets
    assert set(texts) == {net.spec for net in space}


@pytest.mark.parametrize("name", ["contract_skip", "reduction_cells"])
def test_a_flag_is_true_or_false(name):
    with pytest.raises(TypeError, match=f"{name} must be True or False"):
        NASBench201(**{name: "no"})
