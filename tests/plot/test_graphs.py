import networkx as nx
import pytest

from hotnas_torch.plot.graphs import Graph, _controls, _crosses, lay_out
from tests.generators.pictures import random_cell


@pytest.mark.parametrize("seed", range(6))
def test_layers_are_longest_paths_and_rows_are_topological(seed):
    cell = random_cell(seed)
    layout = lay_out(Graph(list(cell.ops), ["#FFFFFF"] * cell.num_nodes, cell.edges))
    graph = nx.DiGraph(cell.edges)
    for layer, nodes in enumerate(nx.topological_generations(graph)):
        assert {layout.layers[node] for node in nodes} == {layer}
    assert sorted(layout.row) == list(range(cell.num_nodes))
    assert all(layout.row[i] < layout.row[j] for i, j in cell.edges)
    places = set(zip(layout.x, layout.layers, strict=True))
    assert len(places) == cell.num_nodes


def test_edges_bend_around_nodes():
    straight = _controls((0.0, 0.3), (0.0, 4.7), 0.0, 0.5)
    assert _crosses(straight, [(0.0, 2.0)])
    assert not _crosses(straight, [(3.0, 2.0)])
    assert not _crosses(_controls((0.0, 0.3), (0.0, 4.7), 2.0, 0.5), [(0.0, 2.5)])
