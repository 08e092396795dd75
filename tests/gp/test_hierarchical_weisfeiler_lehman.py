"""Kernels of folded networks beside networkx's hashes; the model beside scipy."""

import itertools
import warnings
from collections import Counter

import networkx as nx
import numpy as np
import pytest
import torch
from botorch.fit import fit_gpytorch_mll
from gpytorch.mlls import ExactMarginalLogLikelihood
from scipy.stats import multivariate_normal

from hotnas_torch import spaces
from hotnas_torch.arch import Cell, NestedCell
from hotnas_torch.gp import HierarchicalWeisfeilerLehmanGP, HierarchicalWeisfeilerLehmanKernel
from hotnas_torch.gp.hierarchical_weisfeiler_lehman import wiring
from hotnas_torch.nago import HNAG, ThetaSpace


@pytest.fixture(scope="module")
def space():
    return spaces.hierarchical_nasbench201()


class Forward(nx.DiGraph):
    """A graph whose hashes see successors only; networkx would take predecessors, too."""

    def predecessors(self, n):  # noqa: ARG002
        return iter(())


def unfolded(cell, depth):
    """A graph of operations and of graphs below a depth, without the ends of graphs within."""
    graph, ends = nx.DiGraph(), []
    numbers = itertools.count()

    def put(cell, left):
        graphs = cell.graphs if isinstance(cell, NestedCell) else (None,) * cell.num_nodes
        places = []
        for label, inner in zip(cell.ops, graphs, strict=True):
            if inner is not None and left > 1:
                places.append(put(inner, left - 1))
                continue
            number = next(numbers)
            named = shape(inner) if inner is not None else label
            graph.add_node(number, name=named)
            if inner is None and label in ("input", "output"):
                ends.append(number)
            places.append((number, number))
        graph.add_edges_from((places[i][1], places[j][0]) for i, j in cell.edges)
        return places[0][0], places[-1][1]

    first, last = put(cell, depth)
    for node in ends:
        if node not in (first, last):
            pairs = itertools.product(graph.predecessors(node), graph.successors(node))
            graph.add_edges_from(list(pairs))
            graph.remove_node(node)
    # What leads nowhere does not count.
    kept = nx.descendants(graph, first) & nx.ancestors(graph, last) | {first, last}
    return graph.subgraph(kept).copy()


def shape(cell):
    """A name of how a graph is wired, by networkx."""
    bare = nx.DiGraph(list(cell.edges))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nx.weisfeiler_lehman_graph_hash(bare, iterations=cell.num_nodes)


def counts(graph, level):
    """How often networkx's hashes of levels up to one occur."""
    if level == 0:
        return Counter(name for _, name in graph.nodes(data="name"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that its hashes of directed graphs changed
        hashes = nx.weisfeiler_lehman_subgraph_hashes(
            Forward(graph),
            node_attr="name",
            iterations=level,
            digest_size=16,
            include_initial_labels=True,
        )
    return Counter((h, of[h]) for of in hashes.values() for h in range(level + 1))


def normalised(features):
    products = np.array([[sum(a[key] * b[key] for key in a) for b in features] for a in features])
    norms = np.sqrt(products.diagonal())
    return products / norms[:, None] / norms


def expected(nets, folds, level):
    """The kernels of whole networks and of their folds."""
    cells = [net.cells[0] for net in nets]
    levels = [1] + [2] * len(folds)
    whole = [counts(unfolded(cell, 100), level) for cell in cells]
    folded = [
        [counts(unfolded(cell, depth), h) for cell in cells]
        for depth, h in zip(folds, levels, strict=False)
    ]
    return [normalised(features) for features in (whole, *folded)]


@pytest.mark.parametrize("convolutions", ["label", "graph"])
def test_kernels_count_the_hashes_of_networkx(convolutions, rng):
    space = spaces.hierarchical_nasbench201(convolutions=convolutions)
    nets = space.sample(4, generator=rng)
    nets += [space.mutate(net, generator=rng) for net in nets]
    folds = (1, 2, 3)
    kernel = HierarchicalWeisfeilerLehmanKernel(space, folds, level=1, max_level=2)
    with torch.no_grad():
        kernel.raw_weights.copy_(torch.tensor([0.3, -0.2, 0.5, 0.1]))
    weights = kernel.weights.detach().numpy()
    assert weights.sum() == pytest.approx(1.0)
    parts = expected(nets, folds, level=1)
    total = sum(w * part for w, part in zip(weights, parts, strict=True))
    found = kernel(space.encode(nets)).to_dense().detach().numpy()
    np.testing.assert_allclose(found, total, atol=1e-12)
    cross = kernel(space.encode(nets[:3]), space.encode(nets[2:])).to_dense().detach().numpy()
    np.testing.assert_allclose(cross, total[:3, 2:], atol=1e-12)


def test_folds_end_where_a_network_has_no_more_levels(space, rng):
    cell = space.sample_one(generator=rng).cells[0]
    assert [cell.fold(depth, wiring).__class__ for depth in (1, 2)] == [Cell, NestedCell]
    assert cell.fold(4, wiring) is cell.fold(9, wiring) is cell
    with pytest.raises(ValueError, match="depth must be at least 1; got 0"):
        cell.fold(0, wiring)


def test_wirings_are_equal_where_graphs_are_isomorphic():
    ends = "input", "output"
    one = Cell.from_edges([ends[0], "a", "b", ends[1]], [(0, 1), (0, 2), (1, 2), (2, 3)])
    renamed = Cell.from_edges([ends[0], "c", "d", ends[1]], [(0, 2), (0, 1), (2, 1), (1, 3)])
    other = Cell.from_edges([ends[0], "a", "b", ends[1]], [(0, 1), (0, 2), (1, 3), (2, 3)])
    assert wiring(one) == wiring(renamed) != wiring(other)


def fitted(space, rng, num=20, **settings):
    nets = space.sample(num, generator=rng)
    X = space.encode(nets)
    Y = torch.tensor([[float(net.spec.count("conv3x3"))] for net in nets], dtype=torch.float64)
    model = HierarchicalWeisfeilerLehmanGP(X, Y, space=space, **settings)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model, nets


@pytest.mark.slow
def test_level_weights_and_noise_have_the_largest_evidence(space, rng):
    model, nets = fitted(space, rng, levels=(0, 1))
    kernel, y = model.covar_module, model.train_targets.numpy()
    assert kernel.folds == (1, 2, 3)

    def evidence(level, weights, noise):
        parts = expected(nets, kernel.folds, level)
        covariance = sum(w * part for w, part in zip(weights, parts, strict=True))
        return multivariate_normal(np.zeros(len(y)), covariance + noise * np.eye(len(y))).logpdf(y)

    weights, noise = kernel.weights.detach().numpy(), model.likelihood.noise.item()
    best = evidence(kernel.level, weights, noise)
    mll = ExactMarginalLogLikelihood(model.likelihood, model).train()
    value = mll(model(*model.train_inputs), model.train_targets).item() * len(y)
    assert value == pytest.approx(best, abs=1e-6)
    draws = np.random.default_rng(0)
    others = [
        evidence(level, draws.dirichlet(np.ones(4)), 10.0 ** draws.uniform(-5, -0.31))
        for level in (0, 1)
        for _ in range(15)
    ]
    nearby = [evidence(kernel.level, weights, noise * factor) for factor in (0.9, 1.1)]
    assert best >= max(*others, *nearby) - 1e-3
    assert max(others) - min(others) > 0.5


def test_networks_of_several_cells_have_a_fold_of_their_own(rng):
    family, box = HNAG(), ThetaSpace(nodes=(3, 4), mid_nodes=(1, 2))
    thetas = box.decode(box.sample(5, generator=rng))
    nets = [family.sample(theta, generator=rng) for theta in thetas]
    space = spaces.Finite({str(place): net for place, net in enumerate(nets)})
    nets = list(space)
    Y = torch.arange(5.0, dtype=torch.float64)[:, None]
    model = HierarchicalWeisfeilerLehmanGP(space.encode(nets), Y, space=space)
    assert model.covar_module.folds[:2] == (0, 1)
    # Unfolded to nothing, only the macro graph and widths are left.
    assert bool((model.covar_module(space.encode(nets)).to_dense() <= 1.0 + 1e-12).all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": (2, 1)}, r"folds\[1\] must be at least 3; got 1"),
        ({"folds": (-1,)}, r"folds\[0\] must be at least 0; got -1"),
        ({"levels": ()}, "levels must hold at least one level"),
        ({"noise_bounds": (1.0, 0.1)}, "noise_bounds must"),
    ],
)
def test_settings_are_checked(space, rng, settings, message):
    X = space.encode(space.sample(3, generator=rng))
    with pytest.raises(ValueError, match=message):
        HierarchicalWeisfeilerLehmanGP(
            X, X[:, :1] + torch.arange(3.0)[:, None], space=space, **settings
        )
