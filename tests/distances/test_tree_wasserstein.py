import math

import networkx as nx
import ot
import pytest
import scipy.stats
import torch

from hotnas_torch import spaces
from hotnas_torch.distances import GramTree, TreeWasserstein
from hotnas_torch.distances._tables.layer_graph import JOINTS, NetworkView, layer_graph
from hotnas_torch.distances.tree_wasserstein import NOTHING
from hotnas_torch.errors import ArchitectureError

SPACE = spaces.NASBench101()
ALL = ["nasbench101", "nasbench201", "transnas_macro", "nasbench_macro", "darts", "pooling"]
CONV3, CONV1, POOL = spaces.NASBench101.operations


def tree_metric(tree, lengths):
    """Distances between leaves: the edges that only one of two ways to the root has."""
    differ = (tree.incidence[:, None] - tree.incidence).abs()
    return (differ * lengths).sum(-1)


# --- by hand --------------------------------------------------------------------------------------


def test_an_example_worked_by_hand():
    # x: input -> conv3 -> conv1 -> pool -> output.   y: input -> conv3 -> pool -> output, and an
    # edge from the input to the pooling.
    x = SPACE.from_string("5,1000100101,012")
    y = SPACE.from_string("4,110101,02")
    assert x.cells[0].ops[1:-1] == (CONV3, CONV1, POOL)
    assert y.cells[0].ops[1:-1] == (CONV3, POOL)
    parts = TreeWasserstein(SPACE).part_distances([x], [y])[:, 0, 0].tolist()
    # Counts (1/3, 1/3, 1/3) and (1/2, 0, 1/2) on (conv3, conv1, pool); conv weighs 2/3 and 1/2.
    operations = 0.1 * (1 / 6 + 1 / 3) + 1.0 * (1 / 6) + 0.9 * (1 / 6)
    # In-degrees by layer: x (0, 1, 1, 1, 1) / 4 at 0, .2, .4, .6, .8.   y: layers input; conv3 and
    # pool; output: (0, 3, 1) / 4 at 0, 1/3, 2/3. Mass moves .2 -> 1/3, .4 -> 1/3, .6 -> 1/3,
    # .8 -> 2/3, a quarter each.
    indegrees = ((1 / 3 - 0.2) + (0.4 - 1 / 3) + (0.6 - 1 / 3) + (0.8 - 2 / 3)) / 4
    # Out-degrees: x (1, 1, 1, 1, 0) / 4; y (2, 2, 0) / 4: 0 -> 0, .2 -> 0, .4 -> 1/3, .6 -> 1/3.
    outdegrees = (0.2 + (0.4 - 1 / 3) + (0.6 - 1 / 3)) / 4
    assert parts == pytest.approx([operations, indegrees, outdegrees], abs=1e-12)
    mixed = TreeWasserstein(SPACE, weights=(0.5, 0.2))([x], [y]).item()
    assert mixed == pytest.approx(0.5 * operations + 0.2 * indegrees + 0.3 * outdegrees)


def test_pairs_of_an_example_worked_by_hand():
    # conv3 -> conv1 against conv3 -> pool: of three leaves each, conv3 is shared.
    x = SPACE.from_string("4,100101,01")
    y = SPACE.from_string("4,100101,02")
    operations = TreeWasserstein(SPACE, grams=2).part_distances([x], [y])[0, 0, 0].item()
    # A third moves from conv1 to pool (1 + 1), a third from one pair to another (1 + 1).
    assert operations == pytest.approx(4 / 3)


def test_the_tree_of_the_paper():
    groups = {CONV3: "conv", CONV1: "conv", POOL: "pool"}
    alpha = 0.1
    single = GramTree(groups)
    assert single.leaves == (CONV3, CONV1, POOL, NOTHING)
    distances = tree_metric(single, single.lengths(alpha))
    assert distances[0, 1].item() == pytest.approx(2 * alpha)
    assert distances[0, 2].item() == pytest.approx(2.0)
    pairs = GramTree(groups, 2)
    expected = (
        [alpha, alpha, 1.0, *[alpha**2] * 8, 1.0, 1 - alpha, 1.0]
        + 2 * [alpha * (1 - alpha), alpha * (1 - alpha), 1 - alpha]
        + [1.0, 1.0]  # the subtree of pairs, and the leaf of nothing
    )
    assert sorted(pairs.lengths(alpha).tolist()) == pytest.approx(sorted(expected))
    assert torch.allclose(
        pairs.incidence @ pairs.lengths(alpha), torch.full((13,), 2.0, dtype=torch.float64)
    )


def test_the_tree_of_nasbench201_has_the_lengths_of_the_paper():
    alpha = 0.1
    rest = 1 - alpha
    both = alpha * rest
    leaves = [alpha, alpha, 1, 1, *[alpha**2] * 10, 1, alpha, alpha**2, alpha**2, alpha, 1]
    inner = [rest, 1, both, both, rest, both, both, rest, both, both, rest, rest, 1]
    nothing = [1]
    expected = [*leaves, *inner, *nothing]
    distance = TreeWasserstein(spaces.NASBench201(), grams=2)
    assert sorted(distance.lengths.tolist()) == pytest.approx(sorted(map(float, expected)))


# --- against other code ---------------------------------------------------------------------------


@pytest.mark.parametrize("grams", [1, 2])
@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "darts"])
def test_the_closed_form_is_optimal_transport(name, grams, rng):
    space = spaces.get(name)
    distance = TreeWasserstein(space, grams=grams)
    nets = space.sample(8, generator=rng)
    costs = tree_metric(distance.tree, distance.lengths).numpy()
    graphs = [layer_graph(net, NetworkView.of_space(space), without=JOINTS) for net in nets]
    counts = distance.histograms(graphs).numpy()
    found = distance.part_distances(nets)[0]
    for i, j in [(0, 1), (2, 3), (4, 5), (6, 7), (0, 7)]:
        assert found[i, j].item() == pytest.approx(ot.emd2(counts[i], counts[j], costs), abs=1e-9)


def by_layer(net, space, way):
    graph = layer_graph(net, NetworkView.of_space(space), without=JOINTS)
    nodes = nx.DiGraph(graph.edges)
    nodes.add_nodes_from(range(len(graph.ops)))
    hops = nx.single_source_shortest_path_length(nodes, 0)
    degree = nodes.in_degree if way == "in" else nodes.out_degree
    total = [0.0] * (max(hops.values()) + 1)
    for node, layer in hops.items():
        total[layer] += degree[node]
    return total if sum(total) else [1.0] * len(total)


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "transnas_macro", "darts"])
def test_degrees_are_compared_as_scipy_does(name, rng):
    space = spaces.get(name)
    nets = space.sample(7, generator=rng)
    if name == "nasbench201":
        nets.append(space.from_string("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"))
    parts = TreeWasserstein(space).part_distances(nets)
    for part, way in ((1, "in"), (2, "out")):
        layers = [by_layer(net, space, way) for net in nets]
        for i in range(len(nets)):
            x, y = layers[0], layers[i]
            expected = scipy.stats.wasserstein_distance(
                [place / len(x) for place in range(len(x))],
                [place / len(y) for place in range(len(y))],
                x,
                y,
            )
            assert parts[part, 0, i].item() == pytest.approx(expected, abs=1e-12)


# --- properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize("grams", [1, 2])
@pytest.mark.parametrize("name", ALL)
def test_it_is_a_negative_definite_pseudometric(name, grams, rng):
    space = spaces.get(name)
    nets = space.sample(24, generator=rng)
    distance = TreeWasserstein(space, grams=grams)
    parts = distance.part_distances(nets)
    assert torch.equal(parts, parts.mT)
    assert parts.diagonal(dim1=1, dim2=2).abs().max() == 0.0
    assert (parts[:, :, None] <= parts[:, :, :, None] + parts[:, None] + 1e-12).all()
    for scale in (0.05, 0.5, 5.0):
        assert torch.linalg.eigvalsh(torch.exp(-parts / scale)).min() > -1e-10
    assert torch.equal(distance(nets[:3], nets), distance(nets)[:3])


def test_isomorphic_cells_are_the_same(rng):
    first, second = SPACE.from_string("4,110011,02"), SPACE.from_string("4,110011,20")
    assert first != second
    assert TreeWasserstein(SPACE, grams=2)([first], [second]).item() == 0.0


def test_a_cell_without_operations_is_far_from_every_other():
    space = spaces.NASBench201()
    nothing = space.from_string("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    conv = space.from_string("|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    assert TreeWasserstein(space).part_distances([nothing], [conv])[0].item() == pytest.approx(2.0)


def test_gradients_are_those_of_finite_differences(rng):
    nets = SPACE.sample(4, generator=rng)
    size = len(TreeWasserstein(SPACE, grams=2).tree.edges)
    lengths = torch.rand(size, generator=rng, dtype=torch.float64) + 0.1
    share = torch.tensor(0.3, dtype=torch.float64)
    alpha = torch.tensor(0.2, dtype=torch.float64)

    def of_lengths(lengths, share):
        return TreeWasserstein(SPACE, grams=2, lengths=lengths, weights=(share, 0.5))(nets)

    def of_alpha(alpha):
        return TreeWasserstein(SPACE, grams=2, alpha=alpha)(nets)

    assert torch.autograd.gradcheck(of_lengths, (lengths.requires_grad_(), share.requires_grad_()))
    assert torch.autograd.gradcheck(of_alpha, (alpha.requires_grad_(),))


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grams": 3}, "grams must be 1 or 2"),
        ({"grams": True}, "grams must be 1 or 2"),
        ({"max_layers": 0}, "max_layers must be at least 1"),
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\]"),
        ({"weights": (0.7, 0.7)}, "sum to at most 1"),
        ({"weights": (0.7,)}, "two numbers"),
        ({"groups": {CONV3: "conv"}}, "'conv1x1-bn-relu' has none"),
        ({"lengths": torch.ones(3)}, "float64 tensor of 5 numbers"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TreeWasserstein(SPACE, **options)


def test_wrong_networks_are_named(rng):
    distance = TreeWasserstein(SPACE)
    net = SPACE.sample_one(generator=rng)
    foreign = spaces.NASBenchMacro().sample_one(generator=rng)
    with pytest.raises(ArchitectureError, match=r"nets_b\[1\] .* is not a network of"):
        distance([net], [net, foreign])
    with pytest.raises(TypeError, match="wrap it in a list"):
        distance(net)
    with pytest.raises(ValueError, match="at least one"):
        distance([])
    with pytest.raises(TypeError, match="must be a SearchSpace"):
        TreeWasserstein("nasbench101")
    deep = spaces.NASBenchMacro()
    with pytest.raises(ValueError, match="max_layers must be at least 10"):
        TreeWasserstein(deep, max_layers=4)(deep.sample(2, generator=rng))


def test_an_operation_of_no_space_of_the_library_is_its_own_group(rng):
    tree = SPACE.tree
    known = dict(tree.lengths)
    parents = dict(tree.parents) | {"other": next(iter(tree.parents))}
    odd = spaces.NASBench101(tree=type(tree)(parents, known | {"other": 1.0}))
    groups = {CONV3: "conv", CONV1: "conv", POOL: "pool", "other": "other"}
    nets = odd.sample(4, generator=rng)
    assert torch.equal(TreeWasserstein(odd)(nets), TreeWasserstein(odd, groups=groups)(nets))
    assert math.isfinite(
        TreeWasserstein(odd, groups={CONV3: "a", CONV1: "b", POOL: "c", "other": "d"})(
            odd.sample(2, generator=rng)
        ).sum()
    )
