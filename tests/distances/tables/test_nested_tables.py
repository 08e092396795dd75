import networkx as nx
import numpy as np
import ot as pot
import pytest
import torch

import hotnas_torch as ht
from hotnas_torch.arch import Cell, NestedCell, Network
from hotnas_torch.distances import HOTNN, IFGW
from hotnas_torch.distances._tables.cell_tables import CellTables, SolverSettings, unique_cells
from hotnas_torch.distances._tables.nested_tables import NestedTables
from hotnas_torch.matrices import load_gram

LAM, EPS = 0.5, 0.6
OPTIONS = {"eta": 0.3, "zeta": 0.4, "state_scale": (2.0, 2.0)}
PATH = ((0, 1), (1, 2))
DIAMOND = ((0, 1), (0, 2), (1, 3), (2, 3))


@pytest.fixture(scope="module")
def graphs(cells):
    """Nested cells of two and three levels, also beside operations, and a flat one."""
    _, chain, skip, longer, diamond, _ = cells
    within = NestedCell.from_nodes(["input", chain, "output"], PATH)
    return [
        within,
        NestedCell.from_nodes(["input", skip, chain, "output"], DIAMOND),
        NestedCell.from_nodes(["input", diamond, longer, "output"], ((0, 1), (1, 2), (2, 3))),
        NestedCell.from_nodes(
            ["input", "pool", longer, "output"], ((0, 1), (0, 2), (1, 2), (2, 3))
        ),
        NestedCell.from_nodes(
            ["input", within, diamond, "conv3", "output"], [(0, 1), (1, 2), (2, 3), (1, 3), (3, 4)]
        ),
        diamond,
    ]


@pytest.fixture(scope="module")
def nets(graphs):
    layouts = [((0, 1), DIAMOND), ((2, 3, 1), ()), ((4, 5), ()), ((4, 0), DIAMOND), ((3, 5, 0), ())]
    widths, divisors = (8, 16, 32), (1, 2, 4)
    return [
        Network(
            tuple(graphs[place] for place in layout),
            widths[: len(layout)],
            divisors[: len(layout)],
            edges,
            input_channels=8,
        )
        for layout, edges in layouts
    ]


def nodes(cell):
    return cell.nodes if isinstance(cell, NestedCell) else cell.ops


class Definition:
    """Distances as the definition says, one pair of nodes after the other."""

    def __init__(self, tree, solve):
        self.tree, self.solve = tree, solve
        self.far = EPS * float(tree.distance_matrix().max()) + 1 - EPS
        self.known = {}

    def exchange(self, x, y):
        if isinstance(x, str) and isinstance(y, str):
            return float(
                self.tree.distance_matrix(dtype=torch.float64)[
                    self.tree.index(x), self.tree.index(y)
                ]
            )
        if isinstance(x, str):
            x, y = y, x
        if y in ("input", "output"):
            return float(np.mean([self.exchange(node, y) for node in nodes(x)[1:-1]]))
        if isinstance(y, str):
            y = Cell(("input", y, "output"), PATH)
        return self.distance(x, y)

    def structure(self, cell):
        graph = nx.DiGraph(cell.edges)
        longest = nx.dag_longest_path_length(graph)

        def walk(graph, node, target):
            after = [walk(graph, next_node, target) for next_node in graph.successors(node)]
            return 0.0 if node == target else 1 + np.mean(after)

        rows = []
        for node in range(cell.num_nodes):
            row = []
            for way, target in ((graph.reverse(), 0), (graph, cell.num_nodes - 1)):
                paths = [len(path) - 1 for path in nx.all_simple_paths(way, node, target)] or [0]
                row += [min(paths), max(paths), walk(way, node, target)]
            rows.append(row)
        return np.array(rows) / longest

    def pair_costs(self, cell):
        graph, place = nx.DiGraph(cell.edges), self.structure(cell)
        costs = np.full((cell.num_nodes,) * 2, self.far)
        for i, x in enumerate(nodes(cell)):
            costs[i, i] = 0.0
            for k in nx.descendants(graph, i):
                apart = np.abs(place[i] - place[k]).mean()
                costs[i, k] = EPS * self.exchange(x, nodes(cell)[k]) + (1 - EPS) * apart
        return costs

    def node_costs(self, x, y):
        apart = np.abs(self.structure(x)[:, None] - self.structure(y)).mean(-1)
        kinds = [[self.exchange(i, j) for j in nodes(y)] for i in nodes(x)]
        return EPS * np.array(kinds) + (1 - EPS) * apart

    def distance(self, x, y):
        # The same orientation everywhere: local optima may depend on it.
        x, y = sorted((x.canonical(), y.canonical()), key=lambda cell: (cell.num_nodes, cell.key))
        if x == y:
            return 0.0
        if (x, y) not in self.known:
            tensors = map(
                torch.from_numpy, (self.node_costs(x, y), self.pair_costs(x), self.pair_costs(y))
            )
            self.known[x, y] = self.solve(*tensors)
        return self.known[x, y]


def test_distances_follow_their_definition(graphs, tree):
    def solve(cost, struct_x, struct_y):
        return float(
            ht.ot.fgw(
                cost, struct_x, struct_y, alpha=1 - LAM, pairs="directed", num_starts=3, tol=1e-9
            ).objective
        )

    definition = Definition(tree, solve)
    metric = IFGW(tree=tree, lam=LAM, eps=EPS, dtype=torch.float64, tol=1e-9, max_iter=1000)
    expected = [[definition.distance(x, y) for y in graphs] for x in graphs]
    found = metric(graphs)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert float(found.max()) <= float(tree.distance_matrix().max())


def test_without_pairs_every_level_is_exact_transport(graphs, tree):
    def solve(cost, *_):
        n, m = cost.shape
        return pot.emd2(np.full(n, 1 / n), np.full(m, 1 / m), cost.numpy())

    definition = Definition(tree, solve)
    metric = IFGW(tree=tree, lam=1.0, eps=EPS, dtype=torch.float64)
    expected = [[definition.distance(x, y) for y in graphs] for x in graphs]
    np.testing.assert_allclose(metric(graphs), expected, atol=1e-12)


@pytest.mark.ext
def test_networks_of_nested_cells_follow_the_definition_of_hotnn(nets, tree):
    found = HOTNN(tree=tree, **OPTIONS)(nets)
    ifgw = IFGW(tree=tree)
    for p, a in enumerate(nets):
        for q, b in enumerate(nets):
            inside = ifgw(a.cells, b.cells).double().numpy()
            state = [np.log2([net.channels, net.downsampling]) - [[3.0], [0.0]] for net in (a, b)]
            apart = np.abs(state[0][:, :, None] - state[1][:, None]).mean(0) / 2.0
            depth = [
                [
                    nx.shortest_path_length(nx.DiGraph(net.edges), 0, s + 1)
                    for s in range(net.num_cells)
                ]
                for net in (a, b)
            ]
            total = [nx.dag_longest_path_length(nx.DiGraph(net.edges)) for net in (a, b)]
            place = np.abs(
                np.subtract.outer(np.array(depth[0]) / total[0], np.array(depth[1]) / total[1])
            )
            masses = [np.array(net.channels) / sum(net.channels) for net in (a, b)]
            cost = 0.7 * (0.6 * inside + 0.4 * apart) + 0.3 * place
            assert float(found[p, q]) == pytest.approx(pot.emd2(*masses, cost), abs=1e-6)


def test_flat_cells_have_the_bits_of_two_levels(cells, tree):
    unique, _ = unique_cells(cells)
    options = {
        "tree": tree,
        "eps": 0.8,
        "max_nodes": None,
        "unreachable": 1.8,
        "settings": SolverSettings(0.5, "directed", False, 3, 1e-3, 200, "auto"),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
    }
    everything = torch.arange(len(unique))
    flat = CellTables(unique, **options).block(everything, everything)
    assert torch.equal(NestedTables(unique, **options).block(everything, everything), flat)


@pytest.mark.ext
def test_networks_of_flat_cells_do_not_notice_nested_ones(networks, nets, tree):
    metric = HOTNN(tree=tree, **OPTIONS)
    together = metric([*networks, *nets])
    assert torch.equal(together[: len(networks), : len(networks)], metric(networks))
    assert torch.equal(together[len(networks) :, len(networks) :], metric(nets))


def test_a_matrix_is_symmetric_to_the_bit_and_zero_on_the_diagonal(nets, tree):
    found = HOTNN(tree=tree, **OPTIONS)(nets)
    assert torch.equal(found, found.T)
    assert (found.diagonal() == 0.0).all()
    assert (found[~torch.eye(len(nets), dtype=torch.bool)] > 0.0).all()


def test_renumbering_on_any_level_changes_nothing(cells, tree):
    chain, diamond = cells[1], cells[4]
    turned = Cell(("input", "conv1", "pool", "output"), DIAMOND)
    assert turned.ops != diamond.ops
    below = [
        NestedCell.from_nodes(["input", *two, "output"], DIAMOND)
        for two in ((chain, diamond), (turned, chain))
    ]
    above = [
        NestedCell.from_nodes(["input", *two, "output"], DIAMOND)
        for two in ((below[0], "pool"), ("pool", below[1]))
    ]
    other = NestedCell.from_nodes(["input", "pool", chain, "output"], DIAMOND)
    found = IFGW(tree=tree)([*above, other])
    assert found[0, 1] == 0.0
    assert found[0, 2] == found[1, 2] > 0.0


def test_an_operation_and_the_graph_of_it_alone_are_the_same(tree):
    alone = Cell(("input", "conv3", "output"), PATH)
    bare = Cell(("input", "conv3", "pool", "output"), DIAMOND)
    wrapped = NestedCell.from_nodes(["input", alone, "pool", "output"], DIAMOND)
    assert float(IFGW(tree=tree)([bare], [wrapped])) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.ext
def test_a_rectangle_holds_the_same_bits(nets, tree):
    metric = HOTNN(tree=tree, **OPTIONS)
    found = metric(nets)
    assert torch.equal(metric(nets[:3], nets[1:]), found[:3, 1:])
    assert torch.equal(metric(nets[3:], nets[:2]), found[3:, :2])
    assert torch.equal(metric([nets[4]], [nets[0]]), found[4:, :1])


@pytest.mark.parametrize("budget", [1, 100, 2000])
@pytest.mark.ext
def test_the_memory_budget_does_not_change_a_bit(nets, tree, budget):
    expected = HOTNN(tree=tree, **OPTIONS)(nets)
    metric = HOTNN(tree=tree, memory_budget=budget, **OPTIONS)
    assert torch.equal(metric(nets), expected)
    assert torch.equal(metric(nets[3:], nets[:4]), expected[3:, :4])


@pytest.mark.ext
def test_stages_of_work_are_shown_from_the_bottom_up(nets, tree):
    seen = []
    HOTNN(tree=tree, **OPTIONS)(
        nets, progress=lambda stage, done, total: seen.append((stage, done, total))
    )
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages == ["level 1", "level 2", "cells", "networks"]
    for stage in stages:
        last = [entry for entry in seen if entry[0] == stage][-1]
        assert last[1] == last[2] > 0


def test_parts_are_solved_once_where_they_fit(graphs, tree, monkeypatch):
    solved = []
    original = CellTables._solve_class

    def recorded(self, n, m, small, large, *rest):
        if type(self) is CellTables:
            solved.extend(zip(small.tolist(), large.tolist(), strict=True))
        return original(self, n, m, small, large, *rest)

    nested = [graph for graph in graphs[:4] if isinstance(graph, NestedCell)]
    metric = IFGW(tree=tree)
    unique, _ = unique_cells(nested)
    tables = metric.prepare(unique)
    monkeypatch.setattr(CellTables, "_solve_class", recorded)
    metric.matrix(tables, torch.arange(len(unique)), None)
    assert len(solved) == len(set(solved))
    num = len(tables.parts.cells)
    assert len(solved) == num * (num - 1) // 2


class _Interrupted(Exception):
    pass


@pytest.mark.ext
def test_a_file_goes_on_inside_a_level(nets, tree, tmp_path):
    metric = HOTNN(tree=tree, **OPTIONS)
    expected = metric(nets)
    seen = []

    def stop(stage, done, total):
        seen.append(stage)
        if stage == "level 2" and done == total:
            raise _Interrupted

    with pytest.raises(_Interrupted):
        metric.gram(nets, out=tmp_path / "gram.npz", progress=stop)
    resumed = []
    found = metric.gram(
        nets,
        out=tmp_path / "gram.npz",
        progress=lambda stage, done, total: resumed.append((stage, done, total)),
    )
    assert torch.equal(found, expected)
    assert torch.equal(load_gram(tmp_path / "gram.npz").distances, expected)
    # Level 2 was finished: what is below it is not looked at again.
    assert "level 1" in seen
    assert "level 1" not in {stage for stage, _, _ in resumed}


@pytest.mark.ext
def test_a_store_holds_the_same_bits(nets, tree, tmp_path):
    pytest.importorskip("zarr")
    metric = HOTNN(tree=tree, **OPTIONS)
    store = metric.gram_store(nets, tmp_path / "gram.zarr", progress=False)
    assert torch.equal(store.rows(range(len(nets))), metric(nets))


@pytest.mark.ext
def test_shares_of_position_and_state_have_gradients(nets, tree):
    eta = torch.tensor(0.3, requires_grad=True)
    found = HOTNN(tree=tree, eta=eta, zeta=0.4, state_scale=(2.0, 2.0))(nets)
    found.sum().backward()
    step = 1e-2
    ahead, behind = (
        HOTNN(tree=tree, eta=0.3 + shift, zeta=0.4, state_scale=(2.0, 2.0))(nets).sum()
        for shift in (step, -step)
    )
    assert float(eta.grad) == pytest.approx(float(ahead - behind) / (2 * step), rel=2e-2)


@pytest.mark.ext
def test_gradients_inside_nested_cells_are_refused_at_once(graphs, nets, tree):
    lam = torch.tensor(0.5, requires_grad=True)
    with pytest.raises(ValueError, match="must not require gradients where cells are nested"):
        IFGW(tree=tree, lam=lam)(graphs)
    with pytest.raises(ValueError, match="no gradient in lam"):
        HOTNN(tree=tree, **OPTIONS).couplings(nets)
    with torch.no_grad():
        assert torch.equal(IFGW(tree=tree, lam=lam)(graphs), IFGW(tree=tree)(graphs))


def test_an_unknown_operation_is_named_with_its_place(tree):
    strange = Cell(("input", "conv9", "output"), PATH)
    cell = NestedCell.from_nodes(["input", strange, "output"], PATH)
    with pytest.raises(
        ValueError, match=r"cells_a\[0\].graphs\[1\] has the operation 'conv9' at node 1"
    ):
        IFGW(tree=tree)([cell])


def test_a_matching_has_the_distance_and_its_parts(graphs, tree):
    metric = IFGW(tree=tree)
    found = metric.matching(graphs[2], graphs[4])
    assert found.distance == pytest.approx(float(metric([graphs[2]], [graphs[4]])), abs=1e-6)
    assert found.operation + found.location + found.pairwise == pytest.approx(found.distance)
