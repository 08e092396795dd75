"""Random graphs against networkx: equal without randomness, equal in distribution with it."""

import itertools
from collections import Counter

import networkx as nx
import pytest
import torch
from scipy import stats

from hotnas_torch.nago import ErdosRenyi, RandomGraph, WattsStrogatz

# Each of some hundred comparisons fails with at most this probability if both samplers are one and
# the same, all of them with one in a hundred; draws are seeded, so that a pass stays a pass.
ERROR_PROBABILITY = 1e-4
DRAWS = 400


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def as_networkx(graph: RandomGraph) -> nx.Graph:
    built = nx.Graph(graph.edges)
    built.add_nodes_from(range(graph.num_nodes))
    return built


def theirs(model: WattsStrogatz | ErdosRenyi, seed: int) -> nx.Graph:
    """A connected graph by networkx."""
    if isinstance(model, WattsStrogatz):
        neighbors = min(model.num_neighbors, model.num_nodes - 1)
        return nx.connected_watts_strogatz_graph(
            model.num_nodes, neighbors, model.rewiring, tries=200, seed=seed
        )
    for attempt in itertools.count():
        graph = nx.gnp_random_graph(
            model.num_nodes, model.edge_probability, seed=100_000 * attempt + seed
        )
        if nx.is_connected(graph):
            return graph
    raise AssertionError


MODELS = [
    WattsStrogatz(10, 4, 0.25),
    WattsStrogatz(10, 5, 0.75),
    WattsStrogatz(8, 2, 0.5),
    WattsStrogatz(6, 5, 1.0),
    WattsStrogatz(32, 4, 0.75),
    ErdosRenyi(5, 0.6),
    ErdosRenyi(10, 0.4),
    ErdosRenyi(10, 0.9),
]


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_degrees_and_clustering_are_distributed_as_by_networkx(
    model: WattsStrogatz | ErdosRenyi,
) -> None:
    rng = generator()
    ours = [as_networkx(model.sample(generator=rng)) for _ in range(DRAWS)]
    others = [theirs(model, seed) for seed in range(DRAWS)]
    for statistic in (
        nx.average_clustering,
        nx.average_shortest_path_length,
        nx.number_of_edges,
        lambda graph: sum(degree**2 for _, degree in graph.degree),
        lambda graph: max(degree for _, degree in graph.degree),
        # Nodes are not alike: what is rewired is decided in their order.
        lambda graph: graph.degree[0],
        lambda graph: sum(1 for node in graph if all(other > node for other in graph[node])),
    ):
        first, second = ([statistic(graph) for graph in graphs] for graphs in (ours, others))
        assert stats.ks_2samp(first, second, method="asymp").pvalue > ERROR_PROBABILITY
        if len({*first, *second}) > 1:
            assert stats.ttest_ind(first, second).pvalue > ERROR_PROBABILITY


def test_every_small_world_is_as_frequent_as_by_networkx() -> None:
    model = WattsStrogatz(5, 2, 0.5)
    rng = generator()
    ours = Counter(model.sample(generator=rng).edges for _ in range(4000))
    others = Counter(
        tuple(sorted(tuple(sorted(edge)) for edge in theirs(model, seed).edges))
        for seed in range(4000)
    )
    frequent = sorted(edges for edges in {*ours, *others} if ours[edges] + others[edges] >= 20)
    assert len(frequent) > 20
    table = [[counts[edges] for edges in frequent] for counts in (ours, others)]
    assert stats.chi2_contingency(table).pvalue > ERROR_PROBABILITY


@pytest.mark.parametrize(("nodes", "neighbors"), [(3, 2), (7, 2), (7, 4), (8, 5), (9, 8), (4, 3)])
def test_without_rewiring_it_is_networkx_ring(nodes: int, neighbors: int) -> None:
    ours = WattsStrogatz(nodes, neighbors, 0.0).sample(generator=generator())
    assert nx.utils.graphs_equal(as_networkx(ours), nx.watts_strogatz_graph(nodes, neighbors, 0.0))
    assert ours.tries == 1
    assert ours.joined == 0


def test_more_neighbours_than_there_are_nodes_are_clipped() -> None:
    assert (
        WattsStrogatz(5, 9, 0.0).sample(generator=generator()).edges
        == WattsStrogatz(5, 4, 0.0).sample(generator=generator()).edges
        == tuple(itertools.combinations(range(5), 2))
    )


@pytest.mark.parametrize(
    "model", [WattsStrogatz(1, 2, 0.5), WattsStrogatz(2, 1, 0.5), ErdosRenyi(1, 0.1)], ids=str
)
def test_one_and_two_nodes(model: WattsStrogatz | ErdosRenyi) -> None:
    graph = model.sample(generator=generator())
    assert nx.is_connected(as_networkx(graph))
    assert graph.sources() == [0]
    assert graph.sinks() == [model.num_nodes - 1]


def test_what_never_connects_is_joined_and_says_so() -> None:
    graph = ErdosRenyi(6, 0.0).sample(generator=generator())
    assert (graph.tries, graph.joined) == (30, 5)
    assert graph.edges == ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5))
    rng = generator()
    graphs = [ErdosRenyi(8, 0.1).sample(generator=rng) for _ in range(50)]
    assert all(nx.is_connected(as_networkx(graph)) for graph in graphs)
    assert any(graph.joined for graph in graphs)
    assert all(bool(graph.joined) <= (graph.tries == 30) for graph in graphs)


def test_the_ends_lead_to_the_sources_and_come_from_the_sinks() -> None:
    rng = generator()
    for _ in range(20):
        graph = WattsStrogatz(9, 4, 0.5).sample(generator=rng)
        directed = nx.DiGraph(graph.between_ends())
        assert nx.is_directed_acyclic_graph(directed)
        inner = nx.DiGraph(graph.edges)
        assert set(directed.successors(0)) == {v + 1 for v, d in inner.in_degree if d == 0}
        assert set(directed.predecessors(10)) == {v + 1 for v, d in inner.out_degree if d == 0}
        assert list(graph.between_ends()) == sorted(graph.between_ends())


def test_a_seed_gives_one_graph() -> None:
    for model in MODELS:
        assert model.sample(generator=generator(3)) == model.sample(generator=generator(3))
    drawn = {WattsStrogatz(9, 4, 0.5).sample(generator=generator(s)).edges for s in range(9)}
    assert len(drawn) == 9


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: WattsStrogatz(0, 2, 0.5), ValueError, "num_nodes must be at least 1; got 0"),
        (
            lambda: WattsStrogatz(3.0, 2, 0.5),
            TypeError,
            "num_nodes must be an integer >= 1; got 3.0",
        ),
        (lambda: WattsStrogatz(3, 0, 0.5), ValueError, "num_neighbors must be at least 1"),
        (lambda: WattsStrogatz(3, 2, 1.5), ValueError, r"rewiring must be in .* 1\.5"),
        (lambda: ErdosRenyi(3, -0.1), ValueError, "edge_probability must be in"),
        (lambda: ErdosRenyi(3, float("nan")), ValueError, "edge_probability"),
    ],
)
def test_refuses(make, kind, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind, match=message):
        make()
