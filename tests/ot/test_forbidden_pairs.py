"""Costs of +inf: never in a plan, and said by the status where there is none without."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

import hotnas_torch.ot as ot
from hotnas_torch.errors import ConvergenceWarning
from tests.generators.problems import F64, graphs, masses, uniform

INFEASIBLE = ot.SolveStatus.INFEASIBLE
SIDES = (4, 5)


def forbidding(rng: torch.Generator, batch: int = 60, share: float = 0.4) -> tuple[Tensor, ...]:
    n, m = SIDES
    cost = uniform(rng, batch, n, m) - 0.3
    cost[uniform(rng, batch, n, m) < share] = torch.inf
    return cost, masses(rng, batch, n, absent=0.2), masses(rng, batch, m, absent=0.2)


def linear_program(cost: Tensor, a: Tensor, b: Tensor, mass: float | None = None) -> float:
    """The least cost, NaN where there is no coupling; of a part where `mass` says so."""
    n, m = cost.shape
    sides = np.vstack([np.kron(np.eye(n), np.ones((1, m))), np.kron(np.ones((1, n)), np.eye(m))])
    totals = torch.cat([a, b]).numpy()
    allowed = cost.isfinite().flatten().tolist()
    numbers = cost.nan_to_num(0, 0, 0).flatten().numpy()
    bounds = [(0, None if free else 0) for free in allowed]
    if mass is None:
        found = scipy.optimize.linprog(numbers, A_eq=sides, b_eq=totals, bounds=bounds)
    else:
        whole = np.ones((1, n * m))
        found = scipy.optimize.linprog(
            numbers, A_ub=sides, b_ub=totals, A_eq=whole, b_eq=[mass], bounds=bounds
        )
    return float(found.fun) if found.status == 0 else float("nan")


def check(result: ot.TransportResult, cost: Tensor, expected: Tensor, atol: float = 1e-7) -> None:
    barred = expected.isnan()
    assert 5 < barred.sum() < len(barred) - 5
    assert torch.equal(result.status == INFEASIBLE, barred)
    assert (result.plan[~barred][cost[~barred] == torch.inf] == 0).all()
    assert result.plan[barred].isnan().all()
    assert torch.allclose(result.objective, expected, atol=atol, equal_nan=True)


def test_transport_is_that_of_linear_programming(rng: torch.Generator, backend: str) -> None:
    cost, a, b = forbidding(rng, share=0.25)
    expected = [linear_program(*item) for item in zip(cost, a, b, strict=True)]
    result = ot.transport(cost, a, b, backend=backend, validate=False)
    check(result, cost, torch.tensor(expected, dtype=F64))
    solved = result.status == 0
    slack = (cost - result.f[:, :, None] - result.g[:, None, :])[solved]
    there = ((a > 0)[:, :, None] & (b > 0)[:, None, :])[solved]
    assert slack[there].min() >= -1e-13


def test_partial_transport_is_that_of_linear_programming(
    rng: torch.Generator, backend: str
) -> None:
    cost, a, b = forbidding(rng, share=0.55)
    result = ot.partial_transport(cost, a, b, mass=0.6, backend=backend, validate=False)
    expected = [linear_program(*item, mass=0.6) for item in zip(cost, a, b, strict=True)]
    check(result, cost, torch.tensor(expected, dtype=F64))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_sinkhorn_keeps_to_what_is_allowed(
    dtype: torch.dtype, rng: torch.Generator, backend: str
) -> None:
    cost, a, b = forbidding(rng, share=0.25)
    cost, a, b = cost.to(dtype), a.to(dtype), b.to(dtype)
    exact = ot.transport(cost, a, b, validate=False)
    result = ot.sinkhorn(cost, a, b, epsilon=0.05, backend=backend, validate=False)
    barred = exact.status == INFEASIBLE
    assert torch.equal(result.status == INFEASIBLE, barred)
    assert 5 < barred.sum() < len(barred) - 5
    solved = result.status == 0
    # Where a pair that is allowed carries no mass in any coupling, the limit is reached slowly.
    assert solved.sum() >= 0.9 * (~barred).sum()
    plan = result.plan[solved]
    assert (plan[cost[solved] == torch.inf] == 0).all()
    assert (plan.sum(2) - a[solved]).abs().max() <= 1e-5
    assert torch.allclose(plan.sum(1), b[solved], atol=1e-5)
    assert (result.cost_linear[solved] >= exact.objective[solved] - 1e-5).all()
    assert (result.cost_linear[solved] - exact.objective[solved]).mean() <= 0.1
    # It is exp((f + g - cost) / epsilon), with the costs that were given.
    f, g = result.f[solved], result.g[solved]
    again = ((f[:, :, None] + g[:, None, :] - cost[solved]) / 0.05).exp()
    tight = 1e-3 if dtype == torch.float32 else 1e-9
    assert torch.allclose(again, plan, rtol=tight, atol=tight)


@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_fgw_keeps_to_what_is_allowed_whatever_alpha_is(
    alpha: float, loss: str, rng: torch.Generator, backend: str
) -> None:
    cost, a, b = forbidding(rng, share=0.25)
    exact = ot.transport(cost, a, b, validate=False)
    x, y = uniform(rng, len(cost), 4, 4), uniform(rng, len(cost), 5, 5)
    options = {"alpha": alpha, "loss": loss, "backend": backend, "validate": False}
    result = ot.fgw(cost, x, y, a, b, num_starts=3, bound=True, **options)
    barred = exact.status == INFEASIBLE
    assert torch.equal(result.status, exact.status)
    assert (result.plan[~barred][cost[~barred] == torch.inf] == 0).all()
    assert (result.lower_bound <= result.objective + 1e-12)[~barred].all()
    if alpha == 0:
        assert torch.allclose(result.objective, exact.objective, atol=1e-12, equal_nan=True)
    part = ot.partial_fgw(cost, x, y, a, b, mass=0.4, num_starts=3, **options)
    solved = part.status == 0
    assert solved.sum() > 40
    assert (part.plan[solved][cost[solved] == torch.inf] == 0).all()
    # Parts of the objective add up, where 0 times inf would not.
    for found, good in ((result, ~barred), (part, solved)):
        parts = found.cost_linear + found.cost_quad
        assert torch.allclose(parts[good], found.objective[good], atol=1e-13)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_entropic_and_edge_fgw_keep_to_it_too(
    alpha: float, rng: torch.Generator, backend: str
) -> None:
    cost, a, b = forbidding(rng, share=0.25)
    barred = ot.transport(cost, a, b, validate=False).status == INFEASIBLE
    x, y = uniform(rng, len(cost), 4, 4), uniform(rng, len(cost), 5, 5)
    options = {"alpha": alpha, "backend": backend, "validate": False}
    edge = ot.edge_fgw(cost, x[..., None], y[..., None], a, b, num_starts=3, **options)
    entropic = ot.entropic_fgw(cost, x, y, a, b, epsilon=0.3, loss="l2", tol=1e-5, **options)
    assert entropic.iterations.max() < 100  # nothing is tried at length that has no solution
    for found in (edge, entropic):
        assert torch.equal(found.status == INFEASIBLE, barred)
        assert (found.plan[~barred][cost[~barred] == torch.inf] == 0).all()
        assert found.plan[barred].isnan().all()
        assert found.objective[barred].isnan().all()
        parts = found.cost_linear + found.cost_quad
        assert torch.allclose(parts[~barred], found.objective[~barred], atol=1e-13)
        assert torch.allclose(found.plan[~barred].sum(2), a[~barred], atol=1e-5)
    if alpha == 0:
        exact = ot.transport(cost, a, b, validate=False).objective
        assert torch.allclose(edge.objective, exact, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("penalty", ["kl", "tv"])
@pytest.mark.parametrize("reg_m", [(0.4, 0.7), (torch.inf, 0.3), (0.3, torch.inf)])
def test_unbalanced_plans_keep_to_it_too(
    penalty: str, reg_m: tuple[float, float], rng: torch.Generator, backend: str
) -> None:
    cost, a, b = forbidding(rng, share=0.5)
    options = {"reg_m": reg_m, "penalty": penalty, "backend": backend, "validate": False}
    held = a if reg_m[0] == torch.inf else b
    allowed = cost.isfinite() & (a > 0)[:, :, None] & (b > 0)[:, None, :]
    bare = ~allowed.any(2) if reg_m[0] == torch.inf else ~allowed.any(1)
    barred = (bare & (held > 0)).any(1) if torch.inf in reg_m else torch.zeros(60).bool()
    entropic = options | {"epsilon": 0.5}  # of less, "tv" needs thousands of steps
    found = ot.unbalanced_sinkhorn(cost, a, b, **entropic)
    results = [found]
    if penalty == "tv":
        results.append(ot.unbalanced_transport(cost, a, b, **options))
    for result in results:
        assert torch.equal(result.status == INFEASIBLE, barred)
        assert (result.plan[~barred][cost[~barred] == torch.inf] == 0).all()
        assert result.objective[~barred].isfinite().all()
        assert result.plan[barred].isnan().all()
    # What is forbidden is as good as very dear.
    dear = torch.where(cost == torch.inf, 1e3, cost)
    expected = ot.unbalanced_sinkhorn(dear, a, b, **entropic)
    good = (found.status == 0) & (expected.status == 0)
    assert good.sum() > 30 or barred.sum() > 20
    assert torch.allclose(found.objective[good], expected.objective[good], atol=1e-7)


def test_the_bar_holds_where_a_large_cost_would_not(rng: torch.Generator, backend: str) -> None:
    """By structure alone the forbidden matching is the best, and no cost counts there."""
    structure = uniform(rng, 1, 5, 5)
    cost = torch.zeros(1, 5, 5)
    cost[0].fill_diagonal_(torch.inf)
    cost = cost.to(F64)
    free = ot.fgw(0 * cost.nan_to_num(), structure, structure, alpha=1.0, backend=backend)
    barred = ot.fgw(cost, structure, structure, alpha=1.0, num_starts=2, backend=backend)
    assert free.objective.item() == 0
    assert barred.objective.item() > 0.01
    assert (barred.plan[0].diagonal() == 0).all()


def test_gradients_are_finite_and_those_of_the_pairs_that_are_left(
    rng: torch.Generator, backend: str
) -> None:
    problem = graphs(rng, 6, 4, 4, even=True)
    cost, x, y, a, b, _ = problem.tensors()
    cost[:, [0, 1, 2], [1, 2, 0]] = torch.inf
    a, b = masses(rng, 6, 4), masses(rng, 6, 4)
    a, b = 0.5 * a + 0.5 * b, b
    solvers = {
        "transport": lambda c: ot.transport(c, a, b, backend=backend, validate=False),
        "sinkhorn": lambda c: ot.sinkhorn(c, a, b, epsilon=0.2, backend=backend, validate=False),
        "partial": lambda c: ot.partial_transport(c, a, b, mass=0.5, backend=backend),
        "fgw": lambda c: ot.fgw(c, x, y, a, b, tol=1e-12, backend=backend, validate=False),
        "edge": lambda c: ot.edge_fgw(
            c, x[..., None], y[..., None], a, b, tol=1e-12, backend=backend, validate=False
        ),
        "entropic": lambda c: ot.entropic_fgw(
            c, x, y, a, b, epsilon=0.3, tol=1e-10, backend=backend, validate=False
        ),
        "unbalanced": lambda c: ot.unbalanced_sinkhorn(
            c, a, b, epsilon=0.3, reg_m=0.5, backend=backend, validate=False
        ),
    }
    for solve in solvers.values():
        leaf = cost.clone().requires_grad_()
        result = solve(leaf)
        good = result.status == 0
        assert good.sum() >= 4
        (gradient,) = torch.autograd.grad(result.objective[good].sum(), leaf)
        gradient = gradient[good]
        assert gradient.isfinite().all()
        assert (gradient[cost[good] == torch.inf] == 0).all()
        step = 1e-6 * uniform(rng, *cost.shape)
        ends = [solve(cost + sign * step).objective[good] for sign in (1, -1)]
        slope = (gradient * step[good]).sum((1, 2))
        assert torch.allclose((ends[0] - ends[1]) / 2, slope, rtol=1e-3, atol=1e-12)


def test_a_start_on_a_forbidden_pair_is_refused(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 2, 3, 3, even=True)
    cost, x, y = problem.tensors()[:3]
    cost[1, 0, 2] = torch.inf
    with pytest.raises(ValueError, match=r"no mass where cost is \+inf; item 1 has 0.11.* at \(0"):
        ot.fgw(cost, x, y, init="product", backend=backend)
    blind = ot.fgw(cost, x, y, init="product", backend=backend, validate=False)
    assert blind.status.tolist() == [0, INFEASIBLE]
    # The order-preserving start is passed over.
    cost[:, 0, 0] = torch.inf
    result = ot.fgw(cost, x, y, num_starts=3, backend=backend)
    assert (result.plan[:, 0, 0] == 0).all()


def test_a_warning_says_what_to_look_at() -> None:
    cost = torch.tensor([[1.0, torch.inf], [2.0, torch.inf]])
    for solve in (
        lambda: ot.transport(cost),
        lambda: ot.sinkhorn(cost, epsilon=1.0),
        lambda: ot.fgw(cost, torch.zeros(2, 2), torch.zeros(2, 2)),
    ):
        with pytest.warns(ConvergenceWarning, match=r"forbidden pairs leave no coupling"):
            result = solve()
        assert result.status.item() == INFEASIBLE
        assert result.objective.isnan()


@pytest.mark.parametrize("name", ["transport", "sinkhorn", "unbalanced", "fgw", "entropic_fgw"])
def test_a_forbidden_pair_of_one_item_changes_no_bit_of_another(
    name: str, dtype: torch.dtype, rng: torch.Generator, backend: str
) -> None:
    cost, a, b = forbidding(rng, share=0.05)
    cost, a, b = cost.to(dtype), a.to(dtype), b.to(dtype)
    x, y = (uniform(rng, len(cost), side, side).to(dtype) for side in SIDES)

    def solve(chosen: Tensor) -> ot.TransportResult:
        given = cost[chosen], a[chosen], b[chosen]
        options: dict[str, Any] = {"backend": backend, "validate": False}
        if name == "transport":
            return ot.transport(*given, **options)
        if name == "sinkhorn":
            return ot.sinkhorn(*given, epsilon=0.1, **options)
        if name == "unbalanced":
            return ot.unbalanced_sinkhorn(*given, epsilon=0.1, reg_m=1.0, **options)
        graph = given[0], x[chosen], y[chosen], *given[1:]
        if name == "fgw":
            return ot.fgw(*graph, **options)
        return ot.entropic_fgw(*graph, epsilon=0.1, **options)

    whole = torch.ones(len(cost), dtype=torch.bool)
    free = cost.isfinite().all(2).all(1)
    assert 5 < free.sum() < len(cost) - 5
    together, apart = solve(whole), solve(free)
    for part in ("plan", "objective", "status"):
        assert torch.equal(getattr(together, part)[free], getattr(apart, part)), part


def test_traced_and_mapped_calls_keep_to_it_too(rng: torch.Generator) -> None:
    cost, a, b = forbidding(rng, 8, share=0.25)
    together = ot.sinkhorn(cost, a, b, epsilon=0.2, validate=False)
    mapped = torch.func.vmap(lambda c, a, b: ot.sinkhorn(c, a, b, epsilon=0.2).plan)(cost, a, b)
    solved = together.status == 0
    assert solved.any()
    assert torch.allclose(mapped[solved], together.plan[solved], atol=1e-8)
    assert not (mapped[cost == torch.inf] > 0).any()


@pytest.mark.parametrize("pairs", ["all", pytest.param("directed", marks=pytest.mark.slow)])
def test_entropic_fgw_tells_of_what_has_no_coupling_under_vmap(pairs: str, backend: str) -> None:
    rng = torch.Generator().manual_seed(0)
    cost, x, y = (torch.rand(4, 4, generator=rng, dtype=torch.float64) for _ in range(3))
    barred = cost.clone()
    barred[:3, :2] = torch.inf  # the other two columns have no room for three rows
    one = cost.clone()
    one[0, 0] = torch.inf

    def solve(given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = ot.entropic_fgw(
            given, x, y, epsilon=1.0, pairs=pairs, validate=False, backend=backend
        )
        return found.status, found.objective, found.cost_quad, found.plan

    status, objective, quadratic, plan = torch.func.vmap(solve)(torch.stack([barred, one, cost]))
    assert status.tolist() == [INFEASIBLE, 0, 0]
    assert objective.isnan().tolist() == quadratic.isnan().tolist() == [True, False, False]
    for item, given in enumerate((barred, one, cost)):
        alone = solve(given)
        torch.testing.assert_close(plan[item], alone[3], equal_nan=True)
        assert alone[2].isnan() == (item == 0)


@pytest.mark.parametrize(
    ("name", "alpha"),
    [
        *((name, 0.0) for name in ("transport", "sinkhorn", "unbalanced")),
        *product(("fgw", "edge", "mirror"), (0.0, 0.4, 1.0)),
        *product(("proximal",), (0.0, 0.4)),
        pytest.param("proximal", 1.0, marks=pytest.mark.slow),
    ],
)
def test_the_first_mass_of_a_node_with_a_forbidden_pair_has_the_slope_of_a_small_one(
    name: str, alpha: float, rng: torch.Generator, backend: str
) -> None:
    cost, x, y = uniform(rng, 4, 4), uniform(rng, 4, 4), uniform(rng, 4, 4)
    cost[3, 1] = torch.inf  # of the node that is absent
    b = masses(rng, 1, 4)[0]

    def slope(mass: float) -> Tensor:
        a = torch.tensor([0.3, 0.2, 0.5 - mass, mass], dtype=F64, requires_grad=True)
        graph: dict[str, Any] = {"alpha": alpha, "backend": backend}
        if name == "transport":
            found: ot.TransportResult = ot.transport(cost, a, b, backend=backend)
        elif name == "sinkhorn":
            found = ot.sinkhorn(cost, a, b, epsilon=0.2, tol=1e-12, backend=backend)
        elif name == "unbalanced":
            found = ot.unbalanced_sinkhorn(
                cost, a, b, epsilon=0.2, reg_m=1.0, tol=1e-12, backend=backend
            )
        elif name == "fgw":
            found = ot.fgw(cost, x, y, a, b, **graph)
        elif name == "edge":
            found = ot.edge_fgw(cost, x[..., None], y[..., None], a, b, **graph)
        else:
            # Proximal points end in the same optimum, sooner with less entropy.
            graph |= {"epsilon": 0.1 if name == "mirror" else 0.05, "tol": 1e-10}
            found = ot.entropic_fgw(cost, x, y, a, b, method=name, **graph)
        assert found.converged
        (gradient,) = torch.autograd.grad(found.objective, a)
        return gradient - gradient[:3].mean()

    assert torch.allclose(slope(0.0), slope(1e-8), atol=1e-5)


def test_what_absent_nodes_cost_bars_no_other_item(
    dtype: torch.dtype, rng: torch.Generator, backend: str
) -> None:
    cost = uniform(rng, 2, 3, 3).to(dtype)
    cost[1, 0, 0] = torch.inf
    a = torch.tensor([0.5, 0.5, 0], dtype=dtype)
    expected = ot.sinkhorn(cost[:, :2], a[:2], epsilon=0.1, backend=backend)
    assert expected.converged.all()
    for junk in (torch.finfo(dtype).max, -torch.finfo(dtype).max, 1e30, torch.inf, torch.nan):
        cost[:, 2] = junk
        for tracked in (False, True):
            found = ot.sinkhorn(
                cost.clone().requires_grad_(tracked), a, epsilon=0.1, backend=backend
            )
            assert found.converged.all()
            assert torch.allclose(found.plan[:, :2], expected.plan, atol=1e-6)
        found = ot.unbalanced_sinkhorn(cost, a, epsilon=0.1, reg_m=1.0, backend=backend)
        assert found.converged.all()


def test_gradients_of_what_has_no_coupling_are_nan_and_no_others(
    rng: torch.Generator, backend: str
) -> None:
    cost = uniform(rng, 2, 3, 3)
    cost[1, 1:, :] = torch.inf
    for part in ("plan", "objective", "cost_linear", "f"):
        a = torch.full((2, 3), 1 / 3, dtype=F64, requires_grad=True)
        given = cost.clone().requires_grad_()
        found = ot.sinkhorn(given, a, epsilon=0.1, backend=backend, validate=False)
        assert found.status.tolist() == [0, INFEASIBLE]
        value = getattr(found, part)
        of_cost, of_a = torch.autograd.grad((value * uniform(rng, *value.shape)).sum(), (given, a))
        assert of_cost[0].isfinite().all()
        assert of_a[0].isfinite().all()
        assert of_a[1].isnan().all()
        assert of_cost[1, 0].isnan().all()
