"""Weisfeiler-Lehman kernels beside networkx's hashes, and against what is known of kernels."""

import itertools
import warnings
from collections import Counter

import networkx as nx
import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.arch import Network
from hotnas_torch.distances import WeisfeilerLehman

SPACES = ("nasbench101", "nasbench201", "transnas_macro", "nasbench_macro", "darts", "pooling")
SKIPS = ("skip_connect", "identity")


class Forward(nx.DiGraph):
    """A graph whose hashes see successors only; networkx would take predecessors, too."""

    def predecessors(self, n):  # noqa: ARG002
        return iter(())


def layers(net, joined, contract=SKIPS):
    """All nodes of all cells, those that are no layers contracted away, by networkx."""
    graph = nx.DiGraph()
    graph.add_nodes_from([("input", {"name": "input"}), ("output", {"name": "output"})])
    for place, cell in enumerate(net.cells, start=1):
        state = (net.channels[place - 1], net.downsampling[place - 1]) if joined else ""
        for node, op in enumerate(cell.ops):
            graph.add_node((place, node), op=op, name=f"{op}{state}")
        graph.add_edges_from(((place, i), (place, j)) for i, j in cell.edges)
    for i, j in net.edges:
        start = "input" if i == 0 else (i, net.cells[i - 1].num_nodes - 1)
        graph.add_edge(start, "output" if j == net.num_cells + 1 else (j, 0))
    for node in [node for node in graph if node not in ("input", "output")]:
        if graph.nodes[node]["op"] in ("input", "output", *contract):
            pairs = itertools.product(graph.predecessors(node), graph.successors(node))
            graph.add_edges_from(list(pairs))
            graph.remove_node(node)
    return graph


def histograms(space, net, level):
    """Counts of networkx's hashes per level."""
    if space.repeats_one_cell:
        net = Network(net.cells[:1], (1,), (1,))
    graph = layers(net, joined=not space.repeats_one_cell)
    if level == 0:
        return [Counter(name for _, name in graph.nodes(data="name"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that its hashes of directed graphs changed
        hashes = nx.weisfeiler_lehman_subgraph_hashes(
            Forward(graph),
            node_attr="name",
            iterations=level,
            digest_size=16,
            include_initial_labels=True,
        )
    return [Counter(of[h] for of in hashes.values()) for h in range(level + 1)]


def kernel(a, b, aggregation):
    terms = (
        min(x[label], y[label]) if aggregation == "assignment" else x[label] * y[label]
        for x, y in zip(a, b, strict=True)
        for label in x
    )
    return float(sum(terms))


@pytest.mark.parametrize("aggregation", ["assignment", "histogram"])
@pytest.mark.parametrize("level", [0, 1, 3])
@pytest.mark.parametrize("name", SPACES)
def test_kernels_count_the_hashes_of_networkx(name, level, aggregation, rng):
    space = spaces.get(name)
    nets = space.sample(6, generator=rng)
    nets += [space.mutate(net, generator=rng) for net in nets]
    found = [histograms(space, net, level) for net in nets]
    products = torch.tensor(
        [[kernel(a, b, aggregation) for b in found] for a in found], dtype=torch.float64
    )
    norms = products.diagonal().sqrt()
    expected = products / norms[:, None] / norms
    metric = WeisfeilerLehman(space=space, level=level, aggregation=aggregation)
    assert torch.allclose(metric.similarity(nets), expected, atol=1e-12)
    assert torch.allclose(metric.similarity(nets[:5], nets[4:]), expected[:5, 4:], atol=1e-12)
    assert torch.allclose(metric(nets), (2 - 2 * expected).clamp_min(0).sqrt(), atol=1e-7)


def test_labels_are_equal_exactly_where_those_of_networkx_are(rng):
    space = spaces.NASBench101()
    nets = space.sample(30, generator=rng)
    ours = [of[2].tolist() for of in WeisfeilerLehman(space=space).labels(nets)]
    theirs = [histograms(space, net, 2)[2] for net in nets]
    assert [sorted(Counter(of).values()) for of in ours] == [sorted(of.values()) for of in theirs]
    assert len({label for of in ours for label in of}) == len(
        {label for of in theirs for label in of}
    )


def test_labels_do_not_depend_on_what_else_is_asked_for(rng):
    space = spaces.TransNASMacro()
    nets = space.sample(8, generator=rng)
    metric = WeisfeilerLehman(space=space)
    together = metric.labels(nets)
    alone = [WeisfeilerLehman(space=space).labels([net])[0] for net in nets]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("name", SPACES)
def test_isomorphic_networks_are_one_and_the_kernel_is_positive_semidefinite(name, rng):
    space = spaces.get(name)
    nets = space.sample(20, generator=rng)
    metric = WeisfeilerLehman(space=space)
    similarity = metric.similarity(nets)
    assert torch.equal(similarity, similarity.mT)
    assert torch.allclose(similarity.diagonal(), torch.ones(20, dtype=torch.float64))
    assert torch.linalg.eigvalsh(similarity).min() > -1e-12
    standing = [space.canonical(net) for net in nets]
    assert torch.allclose(metric.similarity(standing), similarity)


def test_the_same_operations_elsewhere_are_another_network():
    space = spaces.NASBenchMacro()
    nets = [space.from_string(text) for text in ("22111111", "11111122", "22111111")]
    similarity = WeisfeilerLehman(space=space, level=0).similarity(nets)
    assert similarity[0, 1] < 0.7
    assert similarity[0, 2] == pytest.approx(1.0)


def test_identities_leave_no_trace_unless_asked_for():
    space = spaces.NASBenchMacro()
    nets = [space.from_string(text) for text in ("22102111", "22120111")]
    assert WeisfeilerLehman(space=space).similarity(nets).min() == pytest.approx(1.0)
    assert WeisfeilerLehman(space=space, contract=()).similarity(nets).min() < 0.95


def test_the_paper_aggregates_differently_on_nasbench201():
    assert WeisfeilerLehman(space=spaces.NASBench201()).aggregation == "histogram"
    assert WeisfeilerLehman(space=spaces.NASBench101()).aggregation == "assignment"


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"space": "nasbench201"}, TypeError, "space must be a SearchSpace; got 'nasbench201'"),
        ({"level": -1}, ValueError, "level must be at least 0; got -1"),
        ({"level": 1.5}, TypeError, "level must be an integer >= 0; got 1.5"),
        ({"aggregation": "sum"}, ValueError, "aggregation must be one of 'histogram', 'assign"),
        ({"contract": "skip_connect"}, TypeError, "contract must be a collection of labels"),
        ({"contract": ["nope"]}, ValueError, "contract must hold labels of NASBench201.*'nope'"),
        ({"contract": [3]}, TypeError, "contract must hold labels; got 3"),
    ],
)
def test_bad_settings_are_refused(settings, kind, message):
    with pytest.raises(kind, match=message):
        WeisfeilerLehman(**({"space": spaces.NASBench201()} | settings))


def test_bad_networks_are_refused(rng):
    metric = WeisfeilerLehman(space=spaces.NASBench201())
    with pytest.raises(TypeError, match=r"nets_a\[1\] must be a Network; got 'net' of type str"):
        metric([*metric.space.sample(1, generator=rng), "net"])
    with pytest.raises(ValueError, match="at least one Network"):
        metric([])
