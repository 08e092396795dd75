import itertools

import numpy as np
import ot as pot
import pytest
import torch

from hotnas_torch import ot, spaces
from hotnas_torch.arch import Cell, OperationTree
from hotnas_torch.distances import IFGW
from hotnas_torch.distances._tables.cell_tables import unique_cells


def objective(metric, cell_a, cell_b, plan):
    """The definition, written as loops over NumPy arrays, for the canonical numbering."""
    tables = metric.prepare([cell_a.canonical(), cell_b.canonical()])
    cost = (tables.operation_cost(0, 1) + tables.location_cost(0, 1)).double().numpy()
    x, y = tables.struct(0).double().numpy(), tables.struct(1).double().numpy()
    n, m = cost.shape
    if metric.linear_term == "literal":
        cost = cost * np.outer(np.arange(n - 1, -1, -1), np.arange(m - 1, -1, -1))
    pairs = 0.0
    for i, k in itertools.product(range(n), repeat=2):
        for j, l in itertools.product(range(m), repeat=2):
            chosen = (i < k and j < l) if metric.pairs == "ordered" else (i != k and j != l)
            if chosen:
                pairs += plan[i, j] * plan[k, l] * abs(x[i, k] - y[j, l])
    return float(metric.lam) * (cost * plan).sum() + (1 - float(metric.lam)) * pairs


@pytest.fixture(scope="module")
def distances(cells, tree):
    return IFGW(tree=tree)(cells)


def test_a_matrix_is_symmetric_to_the_bit_and_zero_on_the_diagonal(distances, cells):
    assert distances.shape == (len(cells), len(cells))
    assert torch.equal(distances, distances.T)
    assert (distances.diagonal() == 0.0).all()
    assert (distances[~torch.eye(len(cells), dtype=torch.bool)] > 0.0).all()


def test_a_rectangle_holds_the_same_bits(distances, cells, tree):
    metric = IFGW(tree=tree)
    assert torch.equal(metric(cells[:2], cells[1:]), distances[:2, 1:])
    assert torch.equal(metric(cells[4:], cells[:3]), distances[4:, :3])
    assert torch.equal(metric([cells[5]], [cells[2]]), distances[5:, 2:3])


def test_tiles_do_not_change_a_bit(distances, cells, tree):
    assert torch.equal(IFGW(tree=tree, memory_budget=1)(cells), distances)


def test_isomorphic_cells_are_exactly_0_apart(cells, tree, distances):
    renumbered = Cell.from_edges(
        ("input", "conv1", "pool", "output"), [(0, 1), (0, 2), (1, 3), (2, 3)]
    )
    metric = IFGW(tree=tree)
    row = metric([renumbered], cells)
    assert row[0, 4] == 0.0
    assert torch.equal(row[0], distances[4])


@pytest.mark.parametrize("normalize", [True, False])
def test_without_pairs_it_is_the_earth_movers_distance(cells, tree, normalize):
    metric = IFGW(tree=tree, lam=1.0, normalize=normalize, max_nodes=6, dtype=torch.float64)
    unique, positions = unique_cells(cells)
    tables = metric.prepare(unique)
    result = metric(cells)
    for p, q in itertools.combinations(range(len(cells)), 2):
        x, y = positions[p], positions[q]
        cost = (tables.operation_cost(x, y) + tables.location_cost(x, y)).numpy()
        assert float(result[p, q]) == pytest.approx(pot.emd2([], [], cost), abs=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lam": 0.2, "eps": 0.3},
        {"pairs": "ordered"},
        {"preset": "paper", "max_nodes": 5},
    ],
    ids=["default", "weights", "ordered", "paper"],
)
def test_a_matching_explains_its_distance(cells, tree, options):
    metric = IFGW(tree=tree, dtype=torch.float64, **options)
    for a, b in ((cells[3], cells[4]), (cells[5], cells[2])):
        matching = metric.matching(a, b)
        assert matching.cell_a == a.canonical()
        assert matching.cell_b == b.canonical()
        plan = matching.plan.numpy()
        np.testing.assert_allclose(plan.sum(1), 1 / a.num_nodes, atol=1e-12)
        np.testing.assert_allclose(plan.sum(0), 1 / b.num_nodes, atol=1e-12)
        assert matching.distance == pytest.approx(objective(metric, a, b, plan), abs=1e-9)
        assert matching.distance == pytest.approx(float(metric([a], [b])), abs=1e-9)
        assert sum(matching.parts.values()) == pytest.approx(matching.distance, abs=1e-12)
        assert matching.linear == matching.operation + matching.location
        turned = metric.matching(b, a)
        assert torch.equal(turned.plan, matching.plan.T)
        assert turned.distance == matching.distance


def test_no_assignment_is_better(cells, tree):
    metric = IFGW(tree=tree, dtype=torch.float64)
    a, b = cells[3], cells[4]
    found = float(metric([a], [b]))
    best = min(
        objective(metric, a, b, np.eye(4)[list(order)] / 4)
        for order in itertools.permutations(range(4))
    )
    assert found <= best * (1 + 1e-3)


def test_the_matching_of_a_cell_with_itself_is_the_identity(cells, tree):
    matching = IFGW(tree=tree).matching(cells[5], cells[5])
    assert torch.equal(matching.plan, torch.eye(5) / 5)
    assert matching.distance == 0.0


def test_the_preset_sets_what_the_paper_prints(tree):
    space = spaces.get("nasbench201")
    metric = IFGW(space=space, preset="paper")
    assert (metric.pairs, metric.linear_term, metric.normalize) == ("ordered", "literal", False)
    # 8 nodes in a row are 7 hops apart, and every two groups of operations 2.
    assert metric.unreachable == pytest.approx(0.8 * 2 + 0.2 * 7)
    assert metric.unreachable == pytest.approx(space.unreachable_cost(0.8, normalize=False))
    mixed = IFGW(space=space, preset="paper", pairs="directed", normalize=True)
    assert (mixed.pairs, mixed.linear_term, mixed.normalize) == ("directed", "literal", True)
    assert mixed.unreachable == pytest.approx(0.8 * 2 + 0.2)


def test_precision_is_what_was_asked_for(cells, tree, dtype):
    result = IFGW(tree=tree, dtype=dtype)(cells[:3])
    assert result.dtype == dtype
    torch.testing.assert_close(
        result.double(), IFGW(tree=tree, dtype=torch.float64)(cells[:3]), rtol=1e-4, atol=1e-5
    )


def test_parameters_may_be_tensors(cells, tree, distances):
    metric = IFGW(tree=tree, lam=torch.tensor(0.5), eps=torch.tensor(0.8, dtype=torch.float64))
    torch.testing.assert_close(metric(cells), distances)


def test_a_cost_matrix_serves_as_a_tree(cells, tree, distances):
    matrix = OperationTree.from_matrix(tree.labels, tree.distance_matrix(dtype=torch.float64))
    torch.testing.assert_close(IFGW(tree=matrix)(cells), distances)


def test_progress_is_reported(cells, tree):
    seen = []
    IFGW(tree=tree)(cells[:3], progress=lambda *call: seen.append(call))
    assert seen[0] == ("cells", 0, 3)
    assert seen[-1] == ("cells", 3, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "space or tree is required"),
        ({"space": "nasbench201"}, TypeError, "space must be a SearchSpace; got"),
        ({"tree": [[0.0]]}, TypeError, "tree must be an OperationTree; got list"),
        ({"lam": 1.5}, ValueError, r"lam must be in \[0, 1\]; got 1.5"),
        ({"eps": float("nan")}, ValueError, "eps must be in"),
        ({"lam": 0.0, "pairs": "ordered"}, ValueError, "lam must be > 0 with pairs='ordered'"),
        ({"pairs": "all"}, ValueError, "pairs must be one of"),
        ({"linear_term": "printed"}, ValueError, "linear_term must be one of"),
        ({"normalize": 1}, TypeError, "normalize must be a bool"),
        ({"normalize": False}, ValueError, "max_nodes is required with raw path lengths"),
        ({"unreachable": float("inf")}, ValueError, "unreachable must be finite"),
        ({"num_starts": 4}, ValueError, "num_starts must be between 1 and 3"),
        ({"tol": -1.0}, ValueError, "tol must be finite and >= 0"),
        ({"max_iter": 0}, ValueError, "max_iter must be between 1 and 2147483647"),
        ({"dtype": torch.int64}, TypeError, "dtype must be torch.float32 or torch.float64"),
        ({"preset": "printed"}, ValueError, "preset must be one of 'default', 'paper'"),
        ({"backend": "cuda"}, ValueError, "backend must be one of"),
    ],
)
def test_a_wrong_argument_is_named(tree, arguments, error, message):
    if not {"tree", "space"} & arguments.keys() and arguments:
        arguments = {"tree": tree, **arguments}
    with pytest.raises(error, match=message):
        IFGW(**arguments)


def test_a_wrong_list_is_named(cells, tree):
    metric = IFGW(tree=tree)
    with pytest.raises(ValueError, match="cells_a must hold at least one Cell; got an empty list"):
        metric([])
    with pytest.raises(TypeError, match=r"cells_b\[1\] must be a Cell; got 'cell'"):
        metric(cells, [cells[0], "cell"])
    with pytest.raises(TypeError, match=r"got Cell \(wrap it in a list\)"):
        metric(cells[0])
    strange = Cell(("input", "attention", "output"), ((0, 1), (1, 2)))
    with pytest.raises(ValueError, match=r"cells_a\[1\] has the operation 'attention' at node 1"):
        metric([cells[0], strange])
    with pytest.raises(ValueError, match=r"cells_a\[5\] has 5 nodes, more than max_nodes=4"):
        IFGW(tree=tree, normalize=False, max_nodes=4)(cells)


@pytest.mark.ext
@pytest.mark.parametrize("name", ["nasbench201", "nasbench101"])
def test_default_settings_come_close_to_the_best_of_fifty_random_starts(name, rng):
    space = spaces.get(name)
    networks = space.sample(300, generator=rng, distinct=True)
    unique, _ = unique_cells([network.cells[0] for network in networks])
    metric = IFGW(space=space, dtype=torch.float64)
    tables = metric.prepare(unique)
    pairs = torch.randint(0, len(unique), (400, 2), generator=rng)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]][:300]
    small, large = pairs.amin(1), pairs.amax(1)
    found = tables.solve(small, large)
    best = torch.empty_like(found)
    for index, (p, q) in enumerate(zip(small.tolist(), large.tolist(), strict=True)):
        cost = tables.operation_cost(p, q) + tables.location_cost(p, q)
        starts = torch.rand(50, *cost.shape, generator=rng, dtype=torch.float64)
        init = ot.transport(starts).plan
        options = {"alpha": 0.5, "loss": "l1", "pairs": "directed", "num_starts": 1}
        result = ot.fgw(
            cost.expand_as(starts),
            tables.struct(p).expand(50, -1, -1),
            tables.struct(q).expand(50, -1, -1),
            init=init,
            tol=1e-6,
            max_iter=1000,
            **options,
        )
        best[index] = result.objective.min()
    assert float(found.mean()) <= 1.002 * float(best.mean())
    assert float((found > 1.02 * best).double().mean()) <= 0.01


@pytest.mark.parametrize("partial", [0.6, 1.0])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_a_part_of_the_smaller_cell_is_matched_at_the_cost_of_the_definition(
    partial, backend, cells, tree
):
    metric = IFGW(tree=tree, partial=partial, dtype=torch.float64, tol=1e-9, backend=backend)
    found = metric(cells)
    assert torch.equal(found, found.T)
    assert (found.diagonal() == 0).all()
    for i, j in itertools.combinations(range(len(cells)), 2):
        matching = metric.matching(cells[i], cells[j])
        n, m = matching.plan.shape
        assert matching.plan.sum().item() == pytest.approx(partial, abs=1e-12)
        assert matching.plan.sum(0).max() <= 1 / min(n, m) + 1e-12
        assert matching.plan.sum(1).max() <= 1 / min(n, m) + 1e-12
        expected = objective(metric, cells[i], cells[j], matching.plan.numpy())
        assert matching.distance == pytest.approx(expected, abs=1e-12)
        assert found[i, j].item() == pytest.approx(expected, abs=1e-9)


def test_cells_of_one_size_matched_whole_are_as_far_apart_as_ever(cells, tree):
    alike = [cell for cell in cells if cell.num_nodes == 4]
    assert len(alike) > 1
    whole = IFGW(tree=tree, dtype=torch.float64, tol=1e-9)(alike)
    part = IFGW(tree=tree, partial=1.0, dtype=torch.float64, tol=1e-9)(alike)
    assert torch.allclose(part, whole, atol=1e-12)
    assert (IFGW(tree=tree, partial=0.5)(alike) <= whole.float() + 1e-6).all()


def test_a_cell_lies_within_the_cell_that_repeats_it(tree):
    """A branch beside an equal one changes no path length that counts."""
    one = Cell(("input", "conv1", "output"), ((0, 1), (1, 2)))
    two = Cell(("input", "conv1", "conv1", "output"), ((0, 1), (0, 2), (1, 3), (2, 3)))
    assert IFGW(tree=tree, partial=1.0)([one], [two]).item() == 0.0
    assert IFGW(tree=tree)([one], [two]).item() > 0.05


def test_gradients_with_a_part_matched(cells, tree):
    def total(lam):
        return IFGW(tree=tree, partial=0.8, lam=lam, dtype=torch.float64, tol=1e-11)(cells).sum()

    lam = torch.tensor(0.37, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(total(lam), lam)
    step = (total(lam.detach() + 1e-6) - total(lam.detach() - 1e-6)) / 2e-6
    assert slope.item() == pytest.approx(step.item(), rel=1e-5)


def test_the_part_is_a_setting_that_configs_name_where_it_is_set(cells, tree):
    assert "partial" not in IFGW(tree=tree).config()
    assert IFGW(tree=tree, partial=1).config()["partial"] == 1.0
    for wrong in (0.0, -0.5, 1.5):
        with pytest.raises(ValueError, match="partial must be"):
            IFGW(tree=tree, partial=wrong)
    with pytest.raises(TypeError, match="partial must be"):
        IFGW(tree=tree, partial="all")
    with pytest.raises(ValueError, match="partial is a constant"):
        IFGW(tree=tree, partial=torch.tensor(0.5, requires_grad=True))
