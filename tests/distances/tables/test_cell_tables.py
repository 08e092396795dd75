import networkx as nx
import numpy as np
import pytest
import torch

from hotnas_torch.arch import Cell
from hotnas_torch.distances._tables.cell_tables import CellTables, SolverSettings, unique_cells

SETTINGS = SolverSettings(
    alpha=0.5,
    pairs="directed",
    literal=False,
    num_starts=1,
    tol=1e-6,
    max_iter=100,
    backend="auto",
)


def tables(cells, tree, **changes):
    arguments = {
        "tree": tree,
        "eps": 0.6,
        "max_nodes": None,
        "unreachable": 3.0,
        "settings": SETTINGS,
        "dtype": torch.float64,
        "device": torch.device("cpu"),
    }
    return CellTables(cells, **(arguments | changes))


def walk_length(graph, node, target):
    """Expected edges of a walk to `target` that takes every way on with equal chance."""
    if node == target:
        return 0.0
    return 1 + np.mean([walk_length(graph, after, target) for after in graph.successors(node)])


def lengths(cell, normalize):
    graph = nx.DiGraph(cell.edges)
    last = cell.num_nodes - 1
    rows = []
    for node in range(cell.num_nodes):
        row = []
        for g, target in ((graph.reverse(), 0), (graph, last)):
            paths = [len(p) - 1 for p in nx.all_simple_paths(g, node, target)] or [0]
            row += [min(paths), max(paths), walk_length(g, node, target)]
        rows.append(row)
    rows = np.array(rows, dtype=float)
    return rows / nx.dag_longest_path_length(graph) if normalize else rows


@pytest.mark.parametrize("normalize", [True, False])
def test_costs_follow_their_definition(cells, tree, normalize):
    unique, _ = unique_cells([cell for cell in cells if cell.edges])
    table = tables(unique, tree, max_nodes=None if normalize else 5)
    distance = tree.distance_matrix(dtype=torch.float64).numpy()
    operations = [[tree.index(label) for label in cell.ops] for cell in unique]
    structure = [lengths(cell, normalize) for cell in unique]
    for p, cell in enumerate(unique):
        graph = nx.DiGraph(cell.edges)
        struct = table.struct(p).numpy()
        for i in range(cell.num_nodes):
            for k in range(cell.num_nodes):
                if i == k:
                    expected = 0.0
                elif nx.has_path(graph, i, k):
                    apart = np.abs(structure[p][i] - structure[p][k]).mean()
                    expected = 0.6 * distance[operations[p][i], operations[p][k]] + 0.4 * apart
                else:
                    expected = 3.0
                assert struct[i, k] == pytest.approx(expected, abs=1e-12)
        for q in range(len(unique)):
            apart = np.abs(structure[p][:, None] - structure[q][None]).mean(-1)
            expected = 0.6 * distance[np.ix_(operations[p], operations[q])] + 0.4 * apart
            cost = table.operation_cost(p, q) + table.location_cost(p, q)
            np.testing.assert_allclose(cost, expected, atol=1e-12)


def test_costs_are_differentiable_in_eps_and_unreachable(cells, tree):
    unique, _ = unique_cells(cells[1:3])
    eps = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    unreachable = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)

    def costs(eps, unreachable):
        table = tables(unique, tree, eps=eps, unreachable=unreachable)
        return table.struct(0), table.operation_cost(0, 1), table.location_cost(0, 1)

    assert torch.autograd.gradcheck(costs, (eps, unreachable))


def test_a_disconnected_cell_lies_as_far_as_the_space_allows(cells, tree):
    table = tables([cells[0]], tree, max_nodes=8, eps=0.0)
    # Far sides are 7 hops away and near sides 0: |7 - 0| in all six numbers.
    np.testing.assert_allclose(table.location_cost(0, 0), [[0.0, 7.0], [7.0, 0.0]])
    assert table.struct(0).tolist() == [[0.0, 3.0], [3.0, 0.0]]


def test_the_literal_factor_counts_later_nodes(cells, tree):
    unique, _ = unique_cells(cells[1:4])
    literal = SolverSettings(
        **{f: getattr(SETTINGS, f) for f in SETTINGS.__slots__} | {"literal": True}
    )
    factor = tables(unique, tree, settings=literal).linear_factor(0, 2)
    assert factor.tolist() == [[6.0, 4.0, 2.0, 0.0], [3.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert (tables(unique, tree).linear_factor(0, 2) == 1.0).all()


def test_isomorphic_cells_count_once(cells):
    renumbered = Cell.from_edges(
        ("input", "conv1", "pool", "output"), [(0, 1), (0, 2), (1, 3), (2, 3)]
    )
    assert renumbered != cells[4]
    unique, positions = unique_cells([*cells, renumbered, cells[1]])
    assert len(unique) == len(cells)
    assert positions[-2] == positions[4]
    assert positions[-1] == positions[1]
    sizes = [cell.num_nodes for cell in unique]
    assert sizes == sorted(sizes)
    for cell, position in zip(cells, positions, strict=False):
        assert unique[position] == cell.canonical()


def test_the_order_of_two_cells_does_not_depend_on_the_list(cells):
    everything, _ = unique_cells(cells)
    few, _ = unique_cells([cells[5], cells[3], cells[4]])
    assert few == [cell for cell in everything if cell in few]
