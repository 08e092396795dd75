import math

import networkx as nx
import numpy as np
import pytest
import scipy.optimize
import torch

from hotnas_torch import spaces
from hotnas_torch.distances import OPERATION_KINDS, OTMANN, OperationKind
from hotnas_torch.distances._tables.layer_graph import LayerGraph, NetworkView, layer_graph

SPACE = spaces.NASBench101()
CONV3, CONV1, POOL = spaces.NASBench101.operations
NU = (0.1, 0.25, 0.61, 1.5)
# Nine cells of three widths.
CONV_MASS = 3.0 * (128**2 + 256**2 + 512**2)
POOL_MASS = 3.0 * (128 + 256 + 512)


def partial_matching(cost, m_x, m_y, penalty=1.0):
    """The linear program as it is written: sub-couplings, and a price for what is left."""
    n, m = cost.shape
    gain = (cost - 2.0 * penalty).ravel()
    rows = np.kron(np.eye(n), np.ones(m))
    cols = np.kron(np.ones(n), np.eye(m))
    # In units of the largest mass: the solver's tolerances are absolute.
    unit = max(m_x.max(), m_y.max())
    found = scipy.optimize.linprog(
        gain,
        A_ub=np.vstack([rows, cols]),
        b_ub=np.concatenate([m_x, m_y]) / unit,
        method="highs",
    )
    return found.fun * unit + penalty * (m_x.sum() + m_y.sum())


def lengths_of(graph: LayerGraph, groups, far):
    """Path lengths by enumeration of all paths; one row per node."""
    nodes = nx.DiGraph(graph.edges)
    nodes.add_nodes_from(range(len(graph.ops)))
    rows = []
    for node in range(len(graph.ops)):
        row = []
        for way, end in ((nodes.reverse(), 0), (nodes, len(graph.ops) - 1)):
            paths = [[node]] if node == end else list(nx.all_simple_paths(way, node, end))
            if not paths:
                row += [far] * 3 * len(groups)
                continue
            chances = [math.prod(1 / way.out_degree(v) for v in path[:-1]) for path in paths]
            for members in groups:
                counts = [sum(v in members for v in path[:-1]) for path in paths]
                walk = sum(c * p for c, p in zip(counts, chances, strict=True))
                row += [min(counts), max(counts), walk]
        rows.append(row)
    return np.array(rows)


def expected(net_x, net_y, space, nu):
    """OTMANN from its definition, with other tools."""
    sides = []
    for net in (net_x, net_y):
        graph = layer_graph(net, NetworkView.of_space(space))
        kinds = [OPERATION_KINDS.get(op) for op in graph.ops]
        groups = [
            set(range(len(kinds))),
            *(
                {v for v, kind in enumerate(kinds) if kind is not None and kind.group == group}
                for group in ("conv", "pool", "fc")
            ),
        ]
        masses = np.zeros(len(kinds))
        for v, widths in enumerate(graph.widths[1:-1], start=1):
            product = kinds[v].group == "conv"
            masses[v] = sum(a * b if product else a for a, b in widths)
        masses[[0, -1]] = max(0.1 * masses.sum(), 100)
        sides.append((graph.ops, kinds, masses, lengths_of(graph, groups, space.max_nodes - 1)))
    (ops_x, kinds_x, m_x, s_x), (ops_y, kinds_y, m_y, s_y) = sides
    cost = np.full((len(ops_x), len(ops_y)), 7.65432e5)
    for i, first in enumerate(kinds_x):
        for j, second in enumerate(kinds_y):
            if first is None or second is None:
                if ops_x[i] == ops_y[j]:
                    cost[i, j] = 0.0
            elif first.family == second.family:
                cost[i, j] = math.sqrt(2) / 10 * math.sqrt(abs(first.size - second.size))
            elif first.group == second.group == "pool":
                cost[i, j] = 0.5
            elif first.group == second.group == "conv":
                raw = math.sqrt(2) / 10 * math.sqrt(abs(first.size - second.size))
                cost[i, j] = 0.9 * raw + 0.1
            if cost[i, j] < 2:
                inward, outward = np.split(np.abs(s_x[i] - s_y[j]), 2)
                cost[i, j] += nu * 0.5 * (inward.mean() + outward.mean())
    distance = partial_matching(cost, m_x, m_y)
    return distance, distance / (m_x.sum() + m_y.sum())


# --- by hand --------------------------------------------------------------------------------------


def test_an_example_worked_by_hand():
    # input -> conv3 -> pool -> output against input -> conv1 -> output.
    x, y = SPACE.from_string("4,100101,02"), SPACE.from_string("3,101,1")
    end_x, end_y = 0.1 * (CONV_MASS + POOL_MASS), 0.1 * CONV_MASS
    # Lengths to the input (all, conv, pool, fc), the three kinds being equal on a chain, and to the
    # output, of x: input (0 0 0 0 | 3 1 1 0), conv3 (1 1 0 0 | 2 1 1 0), pool (2 1 1 0 | 1 0 1 0),
    # output (3 1 1 0 | 0 0 0 0); of y: input (0 0 0 0 | 2 1 0 0), conv1 (1 1 0 0 | 1 1 0 0), output
    # (2 1 0 0 | 0 0 0 0).
    ends, convolutions = (1 + 1) / 8, (1 + 1) / 8
    for nu in NU:
        # The ends match as far as the smaller one goes, the convolutions fully; the rest is paid.
        price = (
            2 * end_y * nu * ends
            + CONV_MASS * (0.2 + nu * convolutions)
            + POOL_MASS
            + 2 * (end_x - end_y)
        )
        total = CONV_MASS * 2 + POOL_MASS + 2 * end_x + 2 * end_y
        parts = OTMANN(SPACE, nu=[nu]).part_distances([x], [y]).flatten().tolist()
        assert parts == pytest.approx([price, price / total], rel=1e-9)


def test_masses_worked_by_hand():
    space = spaces.TransNASMacro()
    net = space.from_string("64-1241-basic")
    graph = layer_graph(net, NetworkView.of_space(space))
    found = dict(zip(graph.ops, OTMANN(space).masses(graph), strict=True))
    assert found["conv3x3_width"] == 64 * 128
    assert found["conv3x3_both"] == 128 * 256
    conv = (4 * 64**2) + (64 * 128 * 2 + 3 * 128**2) + (128 * 256 * 2 + 3 * 256**2) + 4 * 256**2
    assert found["output"] == pytest.approx(0.1 * conv)
    empty = spaces.NASBench201().from_string("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    lone = layer_graph(empty, NetworkView.of_space(spaces.NASBench201()))
    assert OTMANN(spaces.NASBench201()).masses(lone) == [100.0, 100.0]
    assert OTMANN(spaces.NASBench201())([empty, empty]).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_the_mismatch_of_the_public_code():
    kinds = {
        "conv5": OperationKind("conv", 5, "conv"),
        "conv7": OperationKind("conv", 7, "conv"),
        "res3": OperationKind("res", 3, "conv"),
        "res5": OperationKind("res", 5, "conv"),
        "avg": OperationKind("avg_pool", 3, "pool"),
        "fc": OperationKind("fc", 1, "fc"),
    }
    distance = OTMANN(SPACE, kinds=kinds)
    # Operations that the space does not have are not in its matrix; ask the rule itself.
    rule = distance._kind_mismatch
    kinds |= {"conv3": OPERATION_KINDS[CONV3], "max": OPERATION_KINDS[POOL]}
    for first, second, cost in [
        ("conv3", "conv3", 0.0),
        ("conv3", "conv5", 0.2),
        ("conv5", "conv7", 0.2),
        ("conv3", "conv7", math.sqrt(2) / 10 * 2),
        ("res3", "res5", 0.2),
        ("conv3", "res3", 0.1),
        ("conv3", "res5", 0.9 * 0.2 + 0.1),
        ("max", "avg", 0.5),
    ]:
        assert rule(kinds[first], kinds[second]) == pytest.approx(cost)
        assert rule(kinds[second], kinds[first]) == pytest.approx(cost)
    for first, second in [("conv3", "max"), ("fc", "conv3"), ("fc", "max")]:
        assert rule(kinds[first], kinds[second]) > 2.0
    matrix = distance.mismatch
    place = {label: row for row, label in enumerate(distance.labels)}
    assert matrix[place[CONV3], place[CONV1]].item() == pytest.approx(0.2)
    assert matrix[place["input"], place["output"]] > 2.0
    assert torch.equal(OTMANN(SPACE, penalty=3.0).mismatch[2:4, 2:4], 3.0 * matrix[2:4, 2:4])


# --- against other code ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "nasbench_macro", "transnas_macro"])
def test_it_is_the_linear_program(name, rng):
    space = spaces.get(name)
    nets = space.sample(6, generator=rng)
    if name == "transnas_macro":  # all paths are listed below
        nets = [space.from_string(f"64-{modules}-basic") for modules in ("1234", "4412", "2311")]
    parts = OTMANN(space).part_distances(nets)
    for i, j in [(0, 1), (1, 2), (len(nets) - 2, len(nets) - 1)]:
        for k, nu in enumerate(NU):
            distance, normalized = expected(nets[i], nets[j], space, nu)
            assert parts[k, i, j].item() == pytest.approx(distance, rel=1e-6)
            assert parts[len(NU) + k, i, j].item() == pytest.approx(normalized, rel=1e-6)


# --- properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "nasbench_macro", "darts"])
def test_it_is_a_pseudometric(name, rng):
    space = spaces.get(name)
    nets = space.sample(10, generator=rng)
    parts = OTMANN(space).part_distances(nets)
    assert torch.equal(parts, parts.mT)
    assert parts.diagonal(dim1=1, dim2=2).abs().max() == 0.0
    assert (parts >= 0).all()
    distances, normalized = parts.chunk(2)
    assert (normalized <= 1 + 1e-12).all()
    gap = distances[:, :, :, None] + distances[:, None] - distances[:, :, None]
    assert gap.min() >= -1e-9 * distances.max()


def pairs_of_two_matrices(rng):
    space = spaces.TransNASMacro()
    nets = space.sample(6, generator=rng)
    distance = OTMANN(space)
    whole = distance.part_distances(nets)
    yield distance.part_distances(nets[:2], nets[1:4]), whole[:, :2, 1:4]
    yield distance.part_distances(nets[4:], nets[:1]), whole[:, 4:, :1]


@pytest.mark.ext
def test_a_pair_has_one_value_to_the_bit(rng):
    for part, whole in pairs_of_two_matrices(rng):
        assert torch.equal(part, whole)


def test_a_pair_has_one_value_up_to_the_order_of_sums(rng):
    for part, whole in pairs_of_two_matrices(rng):
        torch.testing.assert_close(part, whole, rtol=1e-13, atol=0.0)


def test_isomorphic_cells_and_skips_are_the_same():
    first, second = SPACE.from_string("4,110011,02"), SPACE.from_string("4,110011,20")
    assert OTMANN(SPACE)([first], [second]).item() == 0.0
    space = spaces.NASBench201()
    texts = (
        "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|",
        "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|",
    )
    assert OTMANN(space)([space.from_string(text) for text in texts])[0, 1].item() == 0.0


def test_both_outputs(rng):
    nets = SPACE.sample(4, generator=rng)
    parts = OTMANN(SPACE).part_distances(nets)
    assert torch.equal(OTMANN(SPACE)(nets), parts[4:].mean(0))
    assert torch.equal(OTMANN(SPACE, output="distance")(nets), parts[:4].mean(0))


def test_the_gradient_is_that_of_finite_differences(rng):
    nets = SPACE.sample(4, generator=rng)
    nu = torch.tensor([0.13, 0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda nu: OTMANN(SPACE, nu=nu)(nets), (nu,))


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"nu": []}, ValueError, "at least one number"),
        ({"nu": [0.1, -1.0]}, ValueError, r"nu\[1\] must be finite and >= 0"),
        ({"nu": torch.ones(2)}, TypeError, "float64 tensor of shape"),
        ({"penalty": 0.0}, ValueError, "penalty must be > 0"),
        ({"backend": "cuda"}, ValueError, "backend must be one of 'auto', 'ext', 'torch'"),
        ({"output": "both"}, ValueError, "output must be one of 'normalized', 'distance'"),
        ({"kinds": {"conv5": "conv"}}, TypeError, r"kinds\['conv5'\] must be an OperationKind"),
    ],
)
def test_wrong_options_are_named(options, kind, message):
    with pytest.raises(kind, match=message):
        OTMANN(SPACE, **options)
