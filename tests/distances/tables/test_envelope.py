import weakref

import numpy as np
import ot as pot
import pytest
import torch
from torch.autograd import gradcheck

from hotnas_torch import spaces
from hotnas_torch.arch import OperationTree
from hotnas_torch.distances import HOTNN, IFGW
from hotnas_torch.distances._tables import cell_tables, network_tables
from hotnas_torch.distances._tables.envelope import cell_coefficients

# Away from ties: no two lengths of the tree, and no cost and `unreachable`, agree.
LENGTHS = torch.tensor([0.9, 1.13, 0.87, 0.07, 0.11, 1.21], dtype=torch.float64)
EXACT = {"tol": 1e-12, "max_iter": 500, "dtype": torch.float64}


def compiled(*parameters, marks=()):
    """Finite differences in every parameter take minutes with the torch text of the solvers."""
    return pytest.param(*parameters, marks=[pytest.mark.ext, *marks])


SLOW = [pytest.mark.slow]


def leaf(value):
    return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()


def parameters():
    return leaf(0.45), leaf(0.63), leaf(2.71), leaf(LENGTHS)


@pytest.mark.parametrize(
    "options",
    [
        compiled({}),
        compiled({"pairs": "ordered"}),
        compiled({"linear_term": "literal"}),
        compiled({"normalize": False, "max_nodes": 6}),
        compiled({"memory_budget": 1}),
        {"backend": "torch"},
    ],
    ids=str,
)
def test_ifgw_is_differentiable_in_its_parameters(cells, tree, options):
    cells = cells[1:5] if options.get("backend") == "torch" else cells

    def metric(lam, eps, unreachable, lengths):
        return IFGW(
            tree=tree.with_lengths(lengths),
            lam=lam,
            eps=eps,
            unreachable=unreachable,
            **EXACT,
            **options,
        )

    assert gradcheck(lambda *given: metric(*given)(cells), parameters(), check_forward_ad=True)
    assert gradcheck(lambda *given: metric(*given)(cells[:3], cells[2:]), parameters())


@pytest.mark.parametrize(
    ("memory_budget", "mass"),
    [
        compiled(1, "channels", marks=SLOW),
        compiled(4000, "uniform", marks=SLOW),
        compiled(2**28, "channels"),
    ],
)
def test_hotnn_is_differentiable_in_its_parameters(networks, tree, memory_budget, mass):
    def distances(rows, cols):
        def function(lam, eps, unreachable, lengths, eta, zeta):
            metric = HOTNN(
                tree=tree.with_lengths(lengths),
                lam=lam,
                eps=eps,
                unreachable=unreachable,
                eta=eta,
                zeta=zeta,
                state_scale=(2.0, 3.0),
                mass=mass,
                memory_budget=memory_budget,
                **EXACT,
            )
            return metric(rows, cols)

        return function

    given = (*parameters(), leaf(0.31), leaf(0.43))
    assert gradcheck(distances(networks, None), given, check_forward_ad=True)
    assert gradcheck(distances(networks[3:], networks[:5]), given, check_forward_ad=True)


@pytest.mark.ext
def test_repeated_cells_on_one_skeleton_have_gradients(rng):
    space = spaces.NASBench201()
    networks = space.sample(6, generator=rng)

    def distances(lam, eps, eta, zeta):
        return HOTNN(space=space, lam=lam, eps=eps, eta=eta, zeta=zeta, **EXACT)(networks)

    assert gradcheck(distances, (leaf(0.45), leaf(0.63), leaf(0.31), leaf(0.43)))


@pytest.mark.ext
def test_the_default_for_unreachable_follows_eps_and_the_tree(cells, tree):
    eps, lengths = leaf(0.63), leaf(LENGTHS)

    def distances(eps, lengths):
        return IFGW(tree=tree.with_lengths(lengths), eps=eps, **EXACT)(cells)

    assert gradcheck(distances, (eps, lengths))


@pytest.mark.ext
def test_a_cost_matrix_has_gradients(cells, tree, rng):
    size = len(tree.labels)
    row, col = torch.triu_indices(size, size, offset=1)

    def distances(costs):
        upper = costs.new_zeros(size, size).index_put((row, col), costs)
        costly = OperationTree.from_matrix(tree.labels, upper + upper.T)
        return IFGW(tree=costly, unreachable=2.71, **EXACT)(cells)

    costs = 0.5 + torch.rand(len(row), generator=rng, dtype=torch.float64)
    assert gradcheck(distances, (leaf(costs),))


def test_state_has_a_gradient_where_it_has_no_weight_yet(networks, tree):
    zeta = torch.tensor(0.0, requires_grad=True)
    HOTNN(tree=tree, zeta=zeta, state_scale=(2.0, 3.0))(networks).sum().backward()
    step = 1e-3
    sums = [
        float(HOTNN(tree=tree, zeta=z, state_scale=(2.0, 3.0), tol=1e-9)(networks).double().sum())
        for z in (0.0, step)
    ]
    assert float(zeta.grad) == pytest.approx((sums[1] - sums[0]) / step, rel=0.02)


def test_the_gradient_in_lam_is_what_pot_finds(tree, cells):
    # POT's plan of the pointwise problem: with lam = 1 the pairs do not count.
    lam = leaf(1.0)
    metric = IFGW(tree=tree, lam=lam, **EXACT)
    (distance,) = metric([cells[4]], [cells[5]])[0]
    distance.backward()
    tables = metric.prepare([cells[4].canonical(), cells[5].canonical()])
    cost = (tables.operation_cost(0, 1) + tables.location_cost(0, 1)).numpy()
    n, m = cost.shape
    plan = pot.emd(np.full(n, 1 / n), np.full(m, 1 / m), cost)
    x, y = tables.struct(0).numpy(), tables.struct(1).numpy()
    apart = np.abs(x[:, None, :, None] - y[None, :, None, :])
    apart *= (1 - np.eye(n))[:, None, :, None] * (1 - np.eye(m))[None, :, None, :]
    pairs = np.einsum("ij,kl,ijkl->", plan, plan, apart)
    assert float(lam.grad) == pytest.approx((cost * plan).sum() - pairs, abs=1e-9)


def test_a_backward_pass_forgets_couplings_as_it_goes(networks, tree, monkeypatch):
    alive, most = weakref.WeakSet(), 0

    def watched(solve):
        def found(*given, **options):
            nonlocal most
            result = solve(*given, **options)
            alive.add(result[0])
            most = max(most, sum(plan.shape[0] for plan in alive))
            return result

        return found

    lam = torch.tensor(0.5, requires_grad=True)
    total = HOTNN(tree=tree, lam=lam, memory_budget=4000)(networks).sum()
    monkeypatch.setattr(cell_tables, "fgw", watched(cell_tables.fgw))
    monkeypatch.setattr(network_tables, "transport", watched(network_tables.transport))
    total.backward()
    assert not alive
    assert 0 < most < len(networks) * (len(networks) - 1) / 2


def test_values_do_not_depend_on_whether_gradients_are_asked_for(networks, tree):
    plain = HOTNN(tree=tree, eta=0.25)(networks)
    attached = HOTNN(tree=tree, eta=torch.tensor(0.25, requires_grad=True))(networks)
    assert attached.requires_grad
    assert torch.equal(plain, attached)
    with torch.no_grad():
        assert not HOTNN(tree=tree, eta=torch.tensor(0.25, requires_grad=True))(
            networks
        ).requires_grad


def test_single_precision_agrees(networks, tree):
    slopes = []
    for dtype in (torch.float32, torch.float64):
        lam = torch.tensor(0.45, dtype=dtype, requires_grad=True)
        metric = HOTNN(tree=tree.with_lengths(LENGTHS), lam=lam, dtype=dtype, tol=1e-6)
        metric(networks).sum().backward()
        slopes.append(float(lam.grad))
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-4)


def test_a_second_derivative_raises(cells, tree):
    lam = leaf(0.5)
    distances = IFGW(tree=tree, lam=lam)(cells)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(distances.sum(), lam, create_graph=True)[0].backward()


@pytest.mark.parametrize("name", ["lam", "eps", "eta", "zeta"])
def test_transforms_agree_with_autograd(networks, tree, name):
    given = {"lam": 0.45, "eps": 0.63, "eta": 0.31, "zeta": 0.43}
    tree = tree.with_lengths(LENGTHS)

    def distances(value):
        options = given | {name: value}
        metric = HOTNN(tree=tree, state_scale=(2.0, 3.0), **options, **EXACT)
        return metric(networks[:4])

    at = leaf(given[name])
    expected = torch.autograd.functional.jacobian(distances, at)
    assert expected.count_nonzero() > 0
    values, tangent = torch.func.jvp(distances, (at.detach(),), (torch.ones_like(at),))
    assert torch.equal(values, distances(at.detach()))
    torch.testing.assert_close(tangent, expected)
    torch.testing.assert_close(torch.func.jacrev(distances)(at.detach()), expected)
    batched = torch.eye(3, dtype=torch.float64)
    values = distances(at)[0, 1:4]
    (rows,) = torch.autograd.grad(values, at, batched, is_grads_batched=True)
    torch.testing.assert_close(rows, expected[0, 1:4])
    for nested in (torch.func.jacfwd(torch.func.jacfwd(distances)), torch.func.hessian(distances)):
        with pytest.raises(RuntimeError, match="distances can be differentiated once"):
            nested(at.detach())
    with pytest.raises(ValueError, match=f"{name} must be one number; got what torch.vmap maps"):
        torch.func.vmap(distances)(torch.full((3,), 0.5, dtype=torch.float64))
    with pytest.raises(ValueError, match=rf"{name} must be .*; got what torch.func.linearize"):
        torch.func.linearize(distances, at.detach())


def test_autocast_and_inference_mode_change_no_distance(networks, tree):
    def run():
        lam = leaf(0.45)
        distances = HOTNN(tree=tree, lam=lam, **EXACT)(networks)
        if distances.requires_grad:
            distances.sum().backward()
        return distances.detach(), lam.grad

    expected, slope = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, found_slope = run()
    assert torch.equal(found, expected)
    assert torch.equal(found_slope, slope)
    with torch.inference_mode():
        assert torch.equal(run()[0], expected)


def test_a_tie_takes_one_finite_slope(cells, tree):
    # Equal lengths everywhere: many couplings are optimal, and many differences are 0.
    lengths = leaf(torch.ones(6))
    distances = IFGW(tree=tree.with_lengths(lengths), unreachable=2.0, **EXACT)(cells)
    distances.sum().backward()
    assert torch.isfinite(lengths.grad).all()
    ahead = IFGW(tree=tree.with_lengths(lengths.detach() + 1e-6), unreachable=2.0, **EXACT)(
        cells
    ).sum()
    # A distance is concave along the tree's scale where the signs hold: the slope bounds the step.
    assert float((ahead - distances.sum()).detach()) <= 1e-6 * float(lengths.grad.sum()) + 1e-9


def test_held_couplings_are_exact_where_they_were_found(networks, tree):
    given = (*parameters(), leaf(0.31), leaf(0.43))

    def metric(lam, eps, unreachable, lengths, eta, zeta):
        return HOTNN(
            tree=tree.with_lengths(lengths),
            lam=lam,
            eps=eps,
            unreachable=unreachable,
            eta=eta,
            zeta=zeta,
            state_scale=(2.0, 3.0),
            **EXACT,
        )

    for rows, cols in ((networks, None), (networks[3:], networks[:5])):
        here = metric(*given)
        held = here.couplings(rows, cols)
        torch.testing.assert_close(held.distances(here), here(rows, cols), atol=1e-9, rtol=0)
        weights = torch.rand(held.distances(here).shape, generator=torch.Generator().manual_seed(0))
        direct = torch.autograd.grad((weights * here(rows, cols)).sum(), given)
        through = torch.autograd.grad((weights * held.distances(here)).sum(), given)
        for one, other in zip(direct, through, strict=True):
            torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-8)


def test_held_couplings_bound_distances_nearby(networks, tree):
    here = HOTNN(tree=tree, lam=0.5, eta=0.4, **EXACT)
    held = here.couplings(networks)
    there = HOTNN(tree=tree, lam=0.52, eta=0.41, **EXACT)
    # Signs of differences do not depend on lam and eta, so no coupling but the best costs less.
    gap = held.distances(there) - there(networks)
    assert float(gap.min()) >= -1e-9
    assert float(gap.max()) < 1e-2


def test_node_couplings_serve_other_shares(networks, tree, monkeypatch):
    first = HOTNN(tree=tree, eta=0.4, **EXACT).couplings(networks)
    other = HOTNN(tree=tree, eta=0.1, **EXACT)
    expected = other(networks)

    def no_solver(*arguments, **options):
        raise AssertionError("the node couplings were found again")

    monkeypatch.setattr(cell_tables, "fgw", no_solver)
    again = other.couplings(networks, cells=first.cells)
    torch.testing.assert_close(again.distances(other), expected, atol=1e-9, rtol=0)


def test_coefficients_are_in_the_documented_order():
    lam, eps, unreachable = (torch.tensor(v) for v in (0.25, 0.5, 3.0))
    coefficients = cell_coefficients(lam, eps, torch.tensor([1.0, 2.0]), unreachable)
    assert coefficients.tolist() == [0.125, 0.25, 0.125, 0.375, 0.75, 0.375, 2.25]


def test_known_cell_distances_spare_the_solver(networks, tree, monkeypatch):
    first = HOTNN(tree=tree, eta=0.4, **EXACT)
    other = HOTNN(tree=tree, eta=0.1, **EXACT)
    for rows, cols in ((networks, None), (networks[3:], networks[:5])):
        inside = first.cell_distances(rows, cols)
        expected = other(rows, cols)

        def no_solver(*arguments, **options):
            raise AssertionError("cell distances were computed again")

        with monkeypatch.context() as patch:
            patch.setattr(cell_tables, "cell_distances", no_solver)
            assert torch.equal(other(rows, cols, cells=inside), expected)
    with pytest.raises(ValueError, match=r"cells must have shape \(6, 6\)"):
        other(networks, cells=inside)
