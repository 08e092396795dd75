from itertools import product

import networkx as nx
import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.arch import Cell, Network
from hotnas_torch.distances import OTMANN, EditDistance
from hotnas_torch.errors import ArchitectureError

SPACE = spaces.NASBench101()
SMALL = spaces.NASBench201()
FAR = 1e3


def digraph(cell: Cell) -> nx.DiGraph:
    graph = nx.DiGraph(cell.edges)
    graph.add_nodes_from((node, {"op": op}) for node, op in enumerate(cell.ops))
    return graph


def by_networkx(first, second, tree, node_cost=1.0, edge_cost=1.0):
    costs = tree.distance_matrix(dtype=torch.float64)

    def change(a, b):
        x, y = a["op"], b["op"]
        if "input" in (x, y) or "output" in (x, y):
            return 0.0 if x == y else FAR
        return costs[tree.index(x), tree.index(y)].item()

    def node(a):
        return FAR if a["op"] in ("input", "output") else node_cost

    return nx.graph_edit_distance(
        digraph(first),
        digraph(second),
        node_subst_cost=change,
        node_del_cost=node,
        node_ins_cost=node,
        edge_subst_cost=lambda a, b: 0.0,  # noqa: ARG005
        edge_del_cost=lambda a: edge_cost,  # noqa: ARG005
        edge_ins_cost=lambda a: edge_cost,  # noqa: ARG005
    )


def small_cells(space, num, most, generator):
    found = []
    while len(found) < num:
        cell = space.sample_one(generator=generator).cells[0]
        if cell.num_nodes <= most:
            found.append(cell)
    return found


# --- by hand and against networkx -----------------------------------------------------------------


def test_an_example_worked_by_hand():
    # input -> conv3 -> conv1 -> output against input -> conv1 -> output with a shortcut.
    x = SPACE.from_string("4,100101,01").cells[0]
    y = SPACE.from_string("3,111,1").cells[0]
    # Keep conv1: delete conv3 and its two edges, add input -> conv1 and input -> output.
    # Or change conv3 into conv1 (0.1), delete conv1 and its two edges, add two: 0.1 more.
    assert EditDistance(SPACE).cell_distances([x], [y]).item() == pytest.approx(1.0 + 4.0)
    assert EditDistance(SPACE, edge_cost=0.25).cell_distances([x], [y]).item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("space", "costs"),
    [(SPACE, (1.05, 1.0)), (SMALL, (1.05, 0.3)), (SPACE, (1.5, 0.0))],
)
def test_it_is_the_distance_of_networkx(space, costs, rng):
    # Two nodes cost more than any change: where they cost the same, networkx misses the best edits.
    node_cost, edge_cost = costs
    distance = EditDistance(space, node_cost=node_cost, edge_cost=edge_cost)
    first, second = small_cells(space, 4, 5, rng), small_cells(space, 4, 5, rng)
    found = distance.cell_distances(first, second)
    for i, j in product(range(4), repeat=2):
        expected = by_networkx(first[i], second[j], space.tree, node_cost, edge_cost)
        assert found[i, j].item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
def test_large_cells_have_the_distance_of_networkx(rng):
    first, second = SPACE.sample(3, generator=rng), SPACE.sample(3, generator=rng)
    found = EditDistance(SPACE, node_cost=1.05)(first, second)
    for i, j in product(range(3), repeat=2):
        expected = by_networkx(first[i].cells[0], second[j].cells[0], SPACE.tree, 1.05)
        assert found[i, j].item() == pytest.approx(expected, abs=1e-9)


def test_it_is_zero_exactly_for_isomorphic_cells(rng):
    nets = SPACE.sample(12, generator=rng)
    nets += [SPACE.mutate(net, generator=rng) for net in nets[:4]]
    nets += [SPACE.from_string("4,110011,02"), SPACE.from_string("4,110011,20")]
    found = EditDistance(SPACE)(nets)
    graphs = [digraph(net.cells[0]) for net in nets]
    for i, j in product(range(len(nets)), repeat=2):
        same = nx.is_isomorphic(graphs[i], graphs[j], node_match=lambda a, b: a == b)
        assert (found[i, j].item() == 0.0) == same


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [SPACE, SMALL])
def test_the_bounds_hold(space, rng):
    nets = space.sample(30, generator=rng)
    lower, exact, upper = (
        EditDistance(space, method=method)(nets) for method in ("lower", "exact", "upper")
    )
    assert (lower <= exact + 1e-9).all()
    assert (exact <= upper + 1e-9).all()
    assert lower.sum() > 0.9 * exact.sum()
    assert upper.sum() < 1.2 * exact.sum()


def test_bounds_stand_in_where_cells_are_large():
    assert EditDistance(spaces.DARTS()).method == "lower"
    assert EditDistance(SMALL).method == "exact"


# --- networks -------------------------------------------------------------------------------------


def chain_distance(x, y, exchange, remove):
    """Edit distance of sequences, by its recursion."""
    if not x or not y:
        return sum(map(remove, x or y))
    return min(
        exchange(x[0], y[0]) + chain_distance(x[1:], y[1:], exchange, remove),
        remove(x[0]) + chain_distance(x[1:], y, exchange, remove),
        remove(y[0]) + chain_distance(x, y[1:], exchange, remove),
    )


def test_chains_are_aligned(rng):
    space = spaces.TransNASMacro()
    distance = EditDistance(space)
    nets = [space.from_string(f"64-{text}-basic") for text in ("1234", "12341", "31412")]
    wire = Cell(("input", "output"), ((0, 1),))
    found = distance(nets)
    cells = [*dict.fromkeys(cell for net in nets for cell in net.cells), wire]
    between = distance.cell_distances(cells, cells)
    place = {cell: number for number, cell in enumerate(cells)}
    for i, j in product(range(3), repeat=2):
        expected = chain_distance(
            nets[i].cells,
            nets[j].cells,
            lambda a, b: between[place[a], place[b]].item(),
            lambda a: between[place[a], -1].item(),
        )
        assert found[i, j].item() == pytest.approx(expected)
    # One module of the first type more: six nodes and ten edges go, and a wire stays.
    assert found[0, 1].item() == pytest.approx(6 + 10 + 1)


def test_layers_of_the_macro_space_are_compared_in_place_where_that_is_cheapest():
    space = spaces.NASBenchMacro()
    nets = [space.from_string(text) for text in ("22222222", "22122222", "20222222")]
    found = EditDistance(space)(nets)
    assert found[0].tolist() == pytest.approx([0.0, 0.1, 2.0])


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "transnas_macro", "darts"])
def test_it_is_a_pseudometric(name, rng):
    space = spaces.get(name)
    nets = space.sample(10, generator=rng)
    found = EditDistance(space)(nets)
    assert torch.equal(found, found.T)
    assert found.diagonal().abs().max() == 0.0
    assert (found[:, None] <= found[:, :, None] + found[None] + 1e-9).all()
    assert torch.equal(EditDistance(space)(nets[3:5], nets[:4]), found[3:5, :4])


@pytest.mark.parametrize("method", ["exact", "lower", "upper"])
def test_gradients_are_those_of_finite_differences(method, rng):
    nets = SPACE.sample(4, generator=rng)
    lengths = SPACE.tree.lengths_tensor(dtype=torch.float64).detach()
    # Away from ties, at which other assignments become the best ones.
    lengths = 0.8 * lengths + 0.05 * torch.rand(len(lengths), generator=rng).double()

    def values(lengths):
        tree = SPACE.tree.with_lengths(lengths)
        return EditDistance(SPACE, tree=tree, method=method)(nets)

    assert torch.autograd.gradcheck(values, (lengths.requires_grad_(),))


# --- what is wrong --------------------------------------------------------------------------------


def test_wrong_options_are_named(rng):
    with pytest.raises(ValueError, match=r"node_cost must be at least half .*, 1, .* got 0.5"):
        EditDistance(SPACE, node_cost=0.5)
    with pytest.raises(ValueError, match="edge_cost must be finite and >= 0; got -1"):
        EditDistance(SPACE, edge_cost=-1.0)
    with pytest.raises(ValueError, match="method must be one of"):
        EditDistance(SPACE, method="fast")
    with pytest.raises(ValueError, match="up to 8 inner nodes; cells of DARTS"):
        EditDistance(spaces.DARTS(), method="exact")
    with pytest.raises(TypeError, match="tree must be an OperationTree; got str"):
        EditDistance(SPACE, tree="tree")
    distance = EditDistance(SPACE)
    large = spaces.TransNASMacro().sample_one(generator=rng).cells[0]
    odd = Cell(("input", "other", "output"), ((0, 1), (1, 2)))
    with pytest.raises(ValueError, match=r"up to 5 inner nodes, .* got one with 6"):
        distance.cell_distances([large], [large])
    with pytest.raises(ArchitectureError, match="'other' is not an operation"):
        distance.cell_distances([odd], [odd])
    with pytest.raises(TypeError, match="must be a list or tuple of Cell"):
        distance.cell_distances(SPACE.sample_one(generator=rng).cells[0], [])


def test_a_branching_macro_graph_is_refused(monkeypatch):
    space = spaces.NASBenchMacro()
    cell = Cell(("input", "mb3_k3", "output"), ((0, 1), (1, 2)))
    net = Network((cell, cell), (8, 8), (1, 1), edges=((0, 1), (0, 2), (1, 3), (2, 3)), spec="Y")
    monkeypatch.setattr(type(space), "contains", lambda self, net: True)  # noqa: ARG005
    with pytest.raises(ArchitectureError, match="must be chains of cells to be compared; 'Y'"):
        EditDistance(space)([net])


def test_constants_are_not_followed_by_gradients_of_any_mode() -> None:
    space = spaces.NASBench201()
    cost = torch.tensor(0.7, dtype=torch.float64)
    networks = space.sample(2, generator=torch.Generator().manual_seed(0))

    def distances(edge_cost: torch.Tensor) -> torch.Tensor:
        return EditDistance(space=space, edge_cost=edge_cost)(networks)

    assert torch.equal(distances(cost), EditDistance(space=space, edge_cost=0.7)(networks))
    with pytest.raises(ValueError, match="edge_cost is a constant, in which the distance is not"):
        torch.func.jvp(distances, (cost,), (cost,))
    with pytest.raises(ValueError, match="penalty is a constant, in which the distance is not"):
        OTMANN(space=space, penalty=cost.requires_grad_())
