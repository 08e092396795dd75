import itertools
import math

import networkx as nx
import numpy as np
import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.gp.relaxation import Decision, joint, relaxation_of
from hotnas_torch.gp.relaxed_cells import RelaxedCells, WiringTable

NB201 = spaces.NASBench201()
DARTS = spaces.DARTS(num_nodes=3, min_depth=4, max_depth=6)
FULL_DARTS = spaces.DARTS()


@pytest.mark.parametrize("space", [NB201, DARTS, FULL_DARTS], ids=repr)
def test_the_decisions_describe_every_architecture_once(space):
    relaxation = relaxation_of(space)
    assert math.prod(decision.num_values for decision in relaxation.decisions) == space.size()
    assert relaxation.dim == sum(decision.num_values for decision in relaxation.decisions)
    assert relaxation.bounds.tolist() == [[0.0] * relaxation.dim, [1.0] * relaxation.dim]


@pytest.mark.parametrize("space", [NB201, DARTS, FULL_DARTS], ids=repr)
def test_rows_of_networks_round_to_themselves(space, rng):
    relaxation = relaxation_of(space)
    nets = space.sample(20, generator=rng)
    rows = relaxation.encode(nets)
    assert rows.shape == (20, relaxation.dim)
    assert set(rows.unique().tolist()) == {0.0, 1.0}
    assert (rows.sum(1) == len(relaxation.decisions)).all()
    rounded = relaxation.round(0.6 * rows + 0.4 * torch.rand(rows.shape, generator=rng))
    assert [space.key(net) for net in rounded] == [space.key(net) for net in nets]
    drawn = relaxation.sample(rows[0], 3, generator=rng)
    assert {space.key(net) for net in drawn} == {space.key(nets[0])}


def test_drawing_follows_the_weights(rng):
    relaxation = relaxation_of(NB201)
    row = torch.zeros(30)
    row[3::5] = 3.0
    row[1::5] = 1.0
    rows = NB201.encode(relaxation.sample(row, 500, generator=rng))
    assert set(rows.unique().tolist()) == {1.0, 3.0}
    assert (rows == 3.0).double().mean() == pytest.approx(0.75, abs=0.03)


def test_weights_become_probabilities(rng):
    relaxation = relaxation_of(NB201)
    X = torch.rand(4, 3, 30, generator=rng, dtype=torch.float64) - 0.2
    X[..., 5:10] = 0.0
    probabilities = relaxation.probabilities(X)
    assert (probabilities >= 0.0).all()
    torch.testing.assert_close(
        probabilities.reshape(4, 3, 6, 5).sum(-1), torch.ones(4, 3, 6).double()
    )
    assert (probabilities[..., 5:10] == 0.2).all()
    with pytest.raises(ValueError, match=r"X must have 30 columns.*got shape \(2, 29\)"):
        relaxation.probabilities(torch.ones(2, 29))


def test_joint_probabilities_multiply_with_the_last_fastest():
    first, second = torch.tensor([[0.25, 0.75]]), torch.tensor([[0.5, 0.2, 0.3]])
    expected = [0.25 * 0.5, 0.25 * 0.2, 0.25 * 0.3, 0.75 * 0.5, 0.75 * 0.2, 0.75 * 0.3]
    torch.testing.assert_close(joint([first, second])[0], torch.tensor(expected))


# The graph of operations of NAS-Bench-201, written down once more.
EDGES = [(0, 1), (0, 2), (0, 4), (1, 3), (1, 5), (2, 6), (3, 6), (4, 7), (5, 7), (6, 7)]


def test_expectations_are_means_over_all_wirings():
    relaxation = relaxation_of(NB201)
    X = torch.rand(1, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parts = relaxation.split(X)
    table = WiringTable.of(
        relaxation.wirings(), 8, max_nodes=None, dtype=torch.float64, device=torch.device("cpu")
    )
    cells = RelaxedCells.expected(
        table,
        relaxation.wiring_probabilities(parts, 0),
        relaxation.label_probabilities(parts, 0),
    )
    absent = [float(part[0, 0]) for part in parts]
    mass, present = np.zeros(8), np.zeros(8)
    shortest, reached, both = np.zeros(8), np.zeros((8, 8)), np.zeros((8, 8))
    for there in itertools.product((False, True), repeat=6):
        share = math.prod(
            1 - a if is_there else a for a, is_there in zip(absent, there, strict=True)
        )
        graph = nx.DiGraph()
        graph.add_nodes_from((0, 7))
        nodes = {0, 7, *(place + 1 for place in range(6) if there[place])}
        graph.add_edges_from((i, j) for i, j in EDGES if i in nodes and j in nodes)
        kept = nx.ancestors(graph, 7) & nx.descendants(graph, 0)
        graph = graph.subgraph({0, 7, *kept})
        connected = nx.has_path(graph, 0, 7)
        longest = nx.dag_longest_path_length(graph) if connected else 1
        for i in graph:
            mass[i] += share / len(graph)
            present[i] += share
            hops = nx.shortest_path_length(graph, 0, i) if connected else longest * (i == 7)
            shortest[i] += share * hops / longest
            for k in graph:
                both[i, k] += share
                reached[i, k] += share * (i != k and nx.has_path(graph, i, k))
    np.testing.assert_allclose(cells.mass[0], mass, atol=1e-12)
    assert float(cells.mass.sum()) == pytest.approx(1.0)
    np.testing.assert_allclose(cells.lengths[0, :, 0], shortest / present, atol=1e-12)
    np.testing.assert_allclose(cells.reachable[0], reached / both, atol=1e-12)
    # Given that something is there, it is one of the other operations.
    expected = X[0, 1:5] / X[0, 1:5].sum()
    labels = [NB201.tree.index(name) for name in NB201.operations[1:]]
    torch.testing.assert_close(cells.labels[0, 1, labels], expected)


def test_expectations_are_differentiable():
    relaxation = relaxation_of(NB201)
    table = WiringTable.of(
        relaxation.wirings(), 8, max_nodes=8, dtype=torch.float64, device=torch.device("cpu")
    )

    def expected(X):
        parts = relaxation.split(X)
        cells = RelaxedCells.expected(
            table,
            relaxation.wiring_probabilities(parts, 0),
            relaxation.label_probabilities(parts, 0),
        )
        return cells.mass, cells.labels, cells.lengths, cells.reachable, cells.apart

    X = torch.rand(2, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(expected, (X.requires_grad_(),))


def test_spaces_without_a_relaxation_say_so():
    with pytest.raises(TypeError, match="has no relaxation; NASBench201 and DARTS have"):
        relaxation_of(spaces.NASBench101())
    for space in (spaces.NASBench201(contract_skip=True), spaces.DARTS(contract_skip=True)):
        with pytest.raises(ValueError, match="contract_skip=False"):
            relaxation_of(space)


def test_decisions_have_names():
    assert relaxation_of(NB201).decisions[1] == Decision("operation 0->2", 5)
    names = [decision.name for decision in relaxation_of(DARTS).decisions]
    assert names[:3] == [
        "normal node 0 first operation",
        "normal node 0 second operation",
        "normal node 0 inputs",
    ]
    assert names[-1] == "depth"
