import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.arch import Cell, Network
from hotnas_torch.plot import plot_network
from hotnas_torch.plot.architectures import letters_of, network_graph


def names(figure):
    figure.draw_without_rendering()
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_equal_neighbours_of_a_chain_are_one_node():
    net = spaces.NASBench201().sample_one(generator=torch.Generator().manual_seed(0))
    graph = network_graph(net, letters_of([net]), fold=True)
    assert graph.names == [
        "input",
        "5 x A · 16",
        "B · 32 · 1/2",
        "5 x A · 32 · 1/2",
        "B · 64 · 1/4",
        "5 x A · 64 · 1/4",
        "output",
    ]
    assert graph.edges == tuple((node, node + 1) for node in range(6))
    whole = network_graph(net, letters_of([net]))
    assert (len(whole.names), whole.edges) == (19, net.edges)


def test_another_macro_graph_is_not_folded():
    cell = Cell(("input", "conv", "output"), ((0, 1), (1, 2)))
    net = Network((cell, cell), (4, 4), (1, 1), edges=((0, 1), (0, 2), (1, 3), (2, 3)))
    graph = network_graph(net, letters_of([net]), fold=True)
    assert graph.names == ["input", "A · 4", "A · 4", "output"]
    assert graph.edges == net.edges


@pytest.mark.parametrize("name", ["nasbench101", "darts", "transnas_macro", "pooling"])
def test_the_picture_holds_every_distinct_cell(name):
    net = spaces.get(name).sample_one(generator=torch.Generator().manual_seed(1))
    shown = names(plot_network(net, title=net.spec))
    letters = letters_of([net])
    for cell in {cell.key: cell for cell in net.cells}.values():
        assert f"cell {letters[cell.key]}" in shown
        for operation in cell.ops:
            assert operation in shown
    assert any(net.spec[:8] in text for text in shown)
