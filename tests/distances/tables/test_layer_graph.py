import networkx as nx
import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.arch import Cell, Network
from hotnas_torch.distances._tables.layer_graph import (
    JOINTS,
    LayerBatch,
    LayerGraph,
    NetworkView,
    layer_graph,
)

WHOLE = NetworkView("all")


def digraph(graph: LayerGraph) -> nx.DiGraph:
    found = nx.DiGraph(graph.edges)
    found.add_nodes_from((node, {"op": op}) for node, op in enumerate(graph.ops))
    return found


def test_a_chain_of_cells_becomes_one_graph_and_skips_become_edges():
    # Two cells: input -> conv -> output beside a skip; and a single pooling.
    first = Cell(("input", "conv", "skip_connect", "output"), ((0, 1), (0, 2), (1, 3), (2, 3)))
    second = Cell(("input", "pool", "output"), ((0, 1), (1, 2)))
    net = Network.chain((first, second), (8, 16), (1, 2), input_channels=4)
    graph = layer_graph(net, WHOLE)
    assert graph.ops == ("input", "conv", "pool", "output")
    assert graph.edges == ((0, 1), (0, 2), (1, 2), (2, 3))
    assert graph.widths == ((), ((4, 8),), ((8, 16),), ())
    kept = layer_graph(net, WHOLE, without=JOINTS)
    assert sorted(kept.ops) == ["conv", "input", "output", "pool", "skip_connect"]
    assert len(kept.edges) == 5


def test_a_network_through_which_nothing_flows_is_two_ends():
    empty = Cell(("input", "output"), ())
    conv = Cell(("input", "conv", "output"), ((0, 1), (1, 2)))
    net = Network.chain((conv, empty), (8, 8), (1, 1))
    assert layer_graph(net, WHOLE) == LayerGraph(("input", "output"), (), ((), ()))
    batch = LayerBatch.from_graphs([layer_graph(net, WHOLE)])  # without any edge
    assert not batch.adjacency.any()


def test_a_macro_graph_may_branch():
    conv = Cell(("input", "conv", "output"), ((0, 1), (1, 2)))
    pool = Cell(("input", "pool", "output"), ((0, 1), (1, 2)))
    edges = ((0, 1), (0, 2), (1, 3), (2, 3), (3, 4))
    net = Network((conv, pool, conv), (8, 4, 2), (1, 1, 1), edges=edges, input_channels=3)
    graph = layer_graph(net, WHOLE)
    assert graph.ops == ("input", "conv", "pool", "conv", "output")
    assert graph.edges == edges
    assert [width for (width,) in graph.widths[1:-1]] == [(3, 8), (3, 4), (12, 2)]


def test_views_of_the_spaces(rng):
    cell = layer_graph(
        net := spaces.NASBench201().sample_one(generator=rng),
        NetworkView.of_space(spaces.NASBench201()),
        without=JOINTS,
    )
    assert nx.is_isomorphic(
        digraph(cell),
        digraph(LayerGraph(net.cells[0].ops, net.cells[0].edges, ())),
        node_match=lambda a, b: a == b,
    )
    assert all(len(widths) == 15 for widths in cell.widths[1:-1])
    space = spaces.DARTS()
    one = "skip_connect:0 sep_conv_3x3:1 " * 3 + "avg_pool_3x3:2 dil_conv_3x3:0"
    net = space.from_string(f"{one},{one.replace('sep_conv_3x3', 'max_pool_3x3')},6")
    graph = layer_graph(net, NetworkView.of_space(space))
    assert sorted(graph.ops[1:-1]) == sorted(
        ["sep_conv_3x3"] * 3 + ["max_pool_3x3"] * 3 + ["avg_pool_3x3", "dil_conv_3x3"] * 2
    )
    # Four normal cells, two of them before the first reduction: 36 channels per operation there.
    assert graph.widths[graph.ops.index("sep_conv_3x3")] == (
        (36, 36), (36, 36), (72, 72), (144, 144),
    )  # fmt: skip
    subset = spaces.Subset(space, [net])
    assert NetworkView.of_space(subset) == NetworkView.of_space(space)


def test_transnas_layers_read_the_width_before_them():
    space = spaces.TransNASMacro()
    net = space.from_string("64-1214-basic")
    graph = layer_graph(net, NetworkView.of_space(space))
    widths = {op: graph.widths[node] for node, op in enumerate(graph.ops)}
    assert widths["conv3x3_width"] == ((64, 128),)
    assert widths["conv3x3_both"] == ((128, 256),)


@pytest.mark.parametrize("name", ["nasbench101", "transnas_macro", "darts"])
def test_path_lengths_are_those_of_networkx(name, rng):
    space = spaces.get(name)
    view = NetworkView.of_space(space)
    graphs = [layer_graph(net, view) for net in space.sample(6, generator=rng)]
    batch = LayerBatch.from_graphs(graphs)
    steps = torch.rand(*batch.adjacency.shape[:2], 2, generator=rng, dtype=torch.float64)
    lengths = batch.path_lengths(steps)
    hops = batch.hops()
    for row, graph in enumerate(graphs):
        size = len(graph.ops)
        assert hops[row, size:].eq(-1).all()
        forward = digraph(graph)
        expected = nx.single_source_shortest_path_length(forward, 0)
        assert hops[row, :size].tolist() == [expected[node] for node in range(size)]
        for group in range(2):
            weight = steps[row, :, group].tolist()
            for side, way, end in ((0, forward.reverse(), 0), (1, forward, size - 1)):
                # Each edge carries the cost of the node that it leaves.
                nx.set_edge_attributes(way, {(i, j): weight[i] for i, j in way.edges}, "weight")
                walk = {end: 0.0}
                for node in reversed(list(nx.topological_sort(way))):
                    if node != end:
                        after = [walk[other] for other in way.successors(node)]
                        walk[node] = weight[node] + sum(after) / len(after)
                for node in range(size):
                    found = lengths[row, node, side * 6 + group :: 2][:3].tolist()
                    between = nx.subgraph(way, nx.descendants(way, node) | {node})
                    assert found == pytest.approx(
                        [
                            nx.shortest_path_length(way, node, end, weight="weight"),
                            nx.dag_longest_path_length(
                                nx.subgraph(between, nx.ancestors(between, end) | {end})
                            ),
                            walk[node],
                        ]
                    )


def test_a_graph_has_the_same_numbers_in_every_batch(rng):
    space = spaces.DARTS()
    view = NetworkView.of_space(space)
    graphs = [layer_graph(net, view) for net in space.sample(8, generator=rng)]
    graphs.sort(key=lambda graph: len(graph.ops))
    together = LayerBatch.from_graphs(graphs)
    alone = LayerBatch.from_graphs(graphs[:1])
    steps = torch.ones(*together.adjacency.shape[:2], 1, dtype=torch.float64)
    size = len(graphs[0].ops)
    assert torch.equal(
        together.path_lengths(steps)[0, :size], alone.path_lengths(steps[:1, :size])[0]
    )
