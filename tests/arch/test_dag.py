"""Rules of sorted edge lists, against networkx."""

from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotnas_torch.arch.dag import check_edges, longest_paths, nodes_on_paths, topological_order
from hotnas_torch.errors import ArchitectureError

Pairs = list[tuple[int, int]]


@st.composite
def digraphs(draw: st.DrawFn) -> tuple[int, Pairs]:
    """Any directed graph on 2 to 7 nodes, cycles included."""
    num_nodes = draw(st.integers(2, 7))
    node = st.integers(0, num_nodes - 1)
    return num_nodes, draw(st.lists(st.tuples(node, node), max_size=16, unique=True))


def as_networkx(num_nodes: int, edges: Pairs) -> nx.DiGraph:
    graph = nx.DiGraph(edges)
    graph.add_nodes_from(range(num_nodes))
    return graph


@given(digraphs())
def test_nodes_on_paths_are_descendants_and_ancestors(case: tuple[int, Pairs]) -> None:
    num_nodes, edges = case
    graph = as_networkx(num_nodes, edges)
    expected = (nx.descendants(graph, 0) | {0}) & (
        nx.ancestors(graph, num_nodes - 1) | {num_nodes - 1}
    )
    assert nodes_on_paths(num_nodes, edges) == sorted(expected)


@given(digraphs())
def test_topological_order_is_the_lowest_one_or_names_a_cycle(case: tuple[int, Pairs]) -> None:
    num_nodes, edges = case
    graph = as_networkx(num_nodes, edges)
    if nx.is_directed_acyclic_graph(graph):
        assert topological_order(num_nodes, edges) == list(
            nx.lexicographical_topological_sort(graph)
        )
        return
    with pytest.raises(ArchitectureError, match="found the cycle") as raised:
        topological_order(num_nodes, edges)
    text = str(raised.value).split("cycle ")[1].split(" (")[0]
    cycle = [int(node) for node in text.split(" -> ")]
    assert cycle[0] == cycle[-1]
    assert all(graph.has_edge(i, j) for i, j in pairwise(cycle))


@given(digraphs())
def test_check_edges_accepts_exactly_the_valid_lists(case: tuple[int, Pairs]) -> None:
    num_nodes, edges = case
    graph = as_networkx(num_nodes, edges)
    valid = (
        edges == sorted(edges)
        and all(i < j for i, j in edges)
        and nodes_on_paths(num_nodes, edges) == list(range(num_nodes))
    )
    names = [f"v{i}" for i in range(num_nodes)]
    if valid:
        check_edges(tuple(edges), names)
        depth = longest_paths(num_nodes, tuple(edges))
        for node in graph:
            paths = nx.all_simple_paths(graph, 0, node) if node else [[0]]
            assert depth[node] == max(len(path) - 1 for path in paths)
    else:
        with pytest.raises(ArchitectureError):
            check_edges(tuple(edges), names)
