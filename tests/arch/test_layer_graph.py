import itertools

import networkx as nx
import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.arch import Cell, Network
from hotnas_torch.arch.layer_graph import LayerGraph


def expanded(net, contract):
    """The same by networkx: all nodes of all cells, those that are no layers contracted away."""
    graph = nx.DiGraph()
    last = net.num_cells + 1
    for place, cell in enumerate(net.cells, start=1):
        graph.add_nodes_from(
            ((place, node), {"op": op, "place": place - 1}) for node, op in enumerate(cell.ops)
        )
        graph.add_edges_from(((place, i), (place, j)) for i, j in cell.edges)
    graph.add_node("input", op="input", place=-1)
    graph.add_node("output", op="output", place=net.num_cells)
    for i, j in net.edges:
        start = "input" if i == 0 else (i, net.cells[i - 1].num_nodes - 1)
        graph.add_edge(start, "output" if j == last else (j, 0))
    for node in [node for node in graph if node not in ("input", "output")]:
        place, number = node
        if number in (0, net.cells[place - 1].num_nodes - 1) or graph.nodes[node]["op"] in contract:
            pairs = itertools.product(graph.predecessors(node), graph.successors(node))
            graph.add_edges_from(list(pairs))
            graph.remove_node(node)
    return graph


def as_networkx(graph):
    made = nx.DiGraph()
    for node, (op, place) in enumerate(zip(graph.ops, graph.places, strict=True)):
        made.add_node(node, op=op, place=place)
    made.add_edges_from(graph.edges)
    return made


@pytest.mark.parametrize("contract", [(), ("skip_connect", "identity")])
@pytest.mark.parametrize(
    "name", ["nasbench101", "nasbench201", "transnas_macro", "nasbench_macro", "pooling"]
)
def test_the_graph_is_that_of_networkx(name: str, contract: tuple[str, ...], rng) -> None:
    for net in spaces.get(name).sample(5, generator=rng):
        graph = LayerGraph.of_network(net, contract=contract)
        assert all(i < j for i, j in graph.edges)
        assert list(graph.edges) == sorted(set(graph.edges))
        same = nx.is_isomorphic(
            as_networkx(graph), expanded(net, contract), node_match=lambda a, b: a == b
        )
        assert same


def test_branches_of_the_macro_graph_meet(rng: torch.Generator) -> None:
    first, second, third = (
        Cell(("input", *labels, "output"), edges)
        for labels, edges in (
            (("a", "b"), ((0, 1), (0, 2), (1, 3), (2, 3))),
            (("c",), ((0, 1), (0, 2), (1, 2))),
            (("d", "skip"), ((0, 1), (0, 2), (1, 3), (2, 3))),
        )
    )
    net = Network(
        (first, second, third),
        (1, 1, 1),
        (1, 1, 1),
        edges=((0, 1), (0, 2), (1, 3), (2, 3), (2, 4), (3, 4)),
    )
    for contract in ((), ("skip",)):
        graph = as_networkx(LayerGraph.of_network(net, contract=contract))
        assert nx.is_isomorphic(graph, expanded(net, contract), node_match=lambda a, b: a == b)


def test_a_network_that_computes_nothing_has_two_nodes() -> None:
    graph = LayerGraph.of_cell(Cell(("input", "output"), ()))
    assert graph == LayerGraph(("input", "output"), (-1, 1), ())
