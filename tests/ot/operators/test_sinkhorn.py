import ot as pot
import pytest
import torch
from torch import Tensor

from hotnas_torch.ot._operators import (
    entropic_objective,
    entropic_plan,
    reduced_costs,
    sinkhorn,
    transport,
)
from tests.generators.checks import marginal_error
from tests.generators.problems import F64, masses, uniform


def problem(
    rng: torch.Generator, n: int = 5, m: int = 6, batch: int = 4, absent: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        uniform(rng, batch, n, m),
        masses(rng, batch, n, absent=absent),
        masses(rng, batch, m, absent=absent),
    )


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (7, 5)])
@pytest.mark.parametrize("epsilon", [0.02, 0.3])
def test_agrees_with_pot(
    n: int, m: int, epsilon: float, rng: torch.Generator, backend: str
) -> None:
    cost, a, b = problem(rng, n, m)
    f, g, residual, _, status = sinkhorn(cost, a, b, epsilon, 1e-10, 10_000, backend=backend)
    plan = entropic_plan(cost, f, g, epsilon)
    assert (status == 0).all()
    assert (residual <= 1e-10).all()
    for item in range(len(cost)):
        expected = pot.sinkhorn(
            a[item], b[item], cost[item], epsilon, method="sinkhorn_log", stopThr=1e-12,
            numItermax=20_000,
        )  # fmt: skip
        assert torch.allclose(plan[item], expected, atol=1e-9)


def test_after_few_iterations_the_residual_is_the_row_error_and_columns_are_met(
    rng: torch.Generator, backend: str
) -> None:
    cost, a, b = problem(rng)
    f, g, residual, iterations, status = sinkhorn(cost, a, b, 0.02, 1e-12, 3, backend=backend)
    plan = entropic_plan(cost, f, g, 0.02)
    assert (status == 1).all()
    assert (iterations == 3).all()
    assert torch.allclose((plan.sum(2) - a).abs().sum(1), residual, atol=1e-14)
    assert torch.allclose(plan.sum(1), b, atol=1e-14)


def test_each_item_stops_by_itself(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, batch=6)
    cost[::2] *= 10
    arguments = (0.1, 1e-8, 10_000)
    together = sinkhorn(cost, a, b, *arguments, backend=backend)
    assert (together[3][::2].double().mean() > 2 * together[3][1::2].double().mean()).item()
    for item in range(6):
        here = slice(item, item + 1)
        alone = sinkhorn(cost[here], a[here], b[here], *arguments, backend=backend)
        for mine, theirs in zip(alone, together, strict=True):
            assert torch.equal(mine[0], theirs[item])


def test_small_epsilon_in_single_precision_has_no_nan(rng: torch.Generator, backend: str) -> None:
    cost, a, b = (tensor.float() for tensor in problem(rng, absent=0.3))
    f, g, residual, _, status = sinkhorn(cost, a, b, 1e-3, 1e-4, 20_000, backend=backend)
    plan = entropic_plan(cost, f, g, 1e-3)
    assert (status == 0).all()
    assert (residual <= 1e-4).all()
    assert marginal_error(plan, a, b) <= 1e-4
    exact = transport(cost, a, b, backend=backend)[1]
    assert torch.allclose((plan * cost).sum((1, 2)), exact, atol=2e-3)


@pytest.mark.ext
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e2, 1e4])
@pytest.mark.parametrize(("n", "m"), [(1, 7), (3, 5), (9, 17), (16, 33)])
def test_sweeps_by_a_kernel_are_those_of_the_log_domain(
    n: int, m: int, scale: float, rng: torch.Generator
) -> None:
    """Costs of either sign and tiny masses, for which scalings leave the range of a kernel."""
    cost, a, b = problem(rng, n, m, batch=6)
    cost, a, b = (cost - 0.3) * scale, balanced(a**30), balanced(b**30)
    arguments = (0.5, 1e-9, 300)
    found = sinkhorn(cost, a, b, *arguments, backend="ext")
    expected = sinkhorn(cost, a, b, *arguments, backend="torch")
    assert torch.equal(found[4], expected[4])
    assert (found[3] - expected[3]).abs().max() <= 1
    plans = [entropic_plan(cost, f, g, 0.5) for f, g, *_ in (found, expected)]
    assert torch.allclose(plans[0], plans[1], rtol=0, atol=1e-9)
    assert torch.allclose(found[2], expected[2], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.01, 0.003, 0.001])
@pytest.mark.parametrize("n", [3, 8, 40])
def test_converged_is_said_of_plans_whose_masses_are_right(
    n: int, epsilon: float, rng: torch.Generator, backend: str
) -> None:
    """In single precision, where the duals of a small epsilon are coarse."""
    cost, a, b = (tensor.float() for tensor in problem(rng, n, n + 1, batch=20))
    f, g, residual, _, status = sinkhorn(cost, a, b, epsilon, 1e-5, 1000, backend=backend)
    plan = entropic_plan(cost, f, g, epsilon).double()
    rows = (plan.sum(2) - a.double()).abs().sum(1)
    columns = (plan.sum(1) - b.double()).abs().sum(1)
    error = torch.maximum(rows, columns)
    assert (error[status == 0] <= 1e-5).all()
    assert (error[status == 1] > 9e-6).all()
    assert torch.allclose(residual.double(), error, rtol=1e-3, atol=1e-6)


def test_duals_too_coarse_for_the_tolerance_are_told_soon(
    rng: torch.Generator, backend: str
) -> None:
    cost, a, b = (tensor.float() for tensor in problem(rng, 1, 7, batch=40))
    *_, residual, iterations, status = sinkhorn(cost * 3e3, a, b, 0.5, 1e-5, 300, backend=backend)
    assert torch.equal(status == 0, residual <= 1e-5)
    assert (status == 1).any()
    assert (iterations < 80).all()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("epsilon", [0.05, 0.3, 0.7])
def test_a_power_of_two_scales_the_duals_and_changes_nothing_else(
    epsilon: float, dtype: torch.dtype, rng: torch.Generator, backend: str
) -> None:
    cost, a, b = (tensor.to(dtype) for tensor in problem(rng, absent=0.2))
    f, g, *others = sinkhorn(cost, a, b, epsilon, 1e-6, 500, backend=backend)
    plan = entropic_plan(cost, f, g, epsilon)
    for power in (-61, 7, 60) if dtype == torch.float32 else (-997, -61, 7, 997):
        unit = 2.0**power
        scaled = sinkhorn(cost * unit, a, b, epsilon * unit, 1e-6, 500, backend=backend)
        assert torch.equal(scaled[0], f * unit)
        assert torch.equal(scaled[1], g * unit)
        assert all(map(torch.equal, scaled[2:], others))
        assert torch.equal(entropic_plan(cost * unit, *scaled[:2], epsilon * unit), plan)


@pytest.mark.parametrize("garbage", [1e30, torch.nan, -torch.inf])
def test_absent_nodes_change_nothing(garbage: float, rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 3, 4)
    rows, columns = torch.tensor([1, 2, 4]), torch.tensor([0, 2, 3, 4])
    padded = torch.full((4, 5, 6), garbage, dtype=F64)
    padded[:, rows[:, None], columns] = cost
    padded_a, padded_b = torch.zeros(4, 5, dtype=F64), torch.zeros(4, 6, dtype=F64)
    padded_a[:, rows], padded_b[:, columns] = a, b
    f, g, *_ = sinkhorn(cost, a, b, 0.1, 1e-12, 5000, backend=backend)
    f_p, g_p, _, _, status = sinkhorn(padded, padded_a, padded_b, 0.1, 1e-12, 5000, backend=backend)
    assert (status == 0).all()
    assert torch.allclose(f_p[:, rows], f, atol=1e-12)
    assert torch.allclose(g_p[:, columns], g, atol=1e-12)
    assert (f_p[:, [0, 3]] == -torch.inf).all()
    assert (g_p[:, [1, 5]] == -torch.inf).all()
    plan = entropic_plan(padded, f_p, g_p, 0.1)
    assert plan.isfinite().all()
    assert plan[:, 0].count_nonzero() == 0


def test_bad_items_are_reported_and_harm_no_other(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 4, 4, batch=5)
    expected = sinkhorn(cost, a, b, 0.1, 1e-9, 5000, backend=backend)[0]
    cost[0, 0, 0] = torch.nan
    a[1] *= 0.7
    b[2, 0] = -b[2, 0]
    a[3], b[3] = 0, 0
    f, g, residual, _, status = sinkhorn(cost, a, b, 0.1, 1e-9, 5000, backend=backend)
    assert status.tolist() == [2, 3, 3, 0, 0]
    assert f[:3].isnan().all()
    assert g[:3].isnan().all()
    assert residual[:3].isnan().all()
    assert (f[3] == -torch.inf).all()
    assert torch.equal(f[4], expected[4])


def test_an_empty_batch(backend: str) -> None:
    f, g, residual, iterations, status = sinkhorn(
        torch.zeros(0, 3, 4), torch.zeros(0, 3), torch.zeros(0, 4), 0.1, 1e-5, 10, backend=backend
    )
    assert f.shape == (0, 3)
    assert g.shape == (0, 4)
    assert residual.shape == iterations.shape == status.shape == (0,)


def balanced(weights: Tensor) -> Tensor:
    return weights / weights.sum(1, keepdim=True)


def test_the_objective_is_the_primal_value(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, absent=0.3)
    f, g, *_ = sinkhorn(cost, a, b, 0.1, 1e-13, 10_000, backend=backend)
    plan = entropic_plan(cost, f, g, 0.1)
    product = a[:, :, None] * b[:, None, :]
    divergence = torch.where(plan > 0, plan * (plan / product).log(), 0).sum((1, 2))
    expected = (plan * cost).sum((1, 2)) + 0.1 * divergence
    found = entropic_objective(cost, a, b, f, g, 0.1, plan.sum((1, 2)))
    assert torch.allclose(found, expected, atol=1e-12)


def test_envelope_gradients_of_the_objective(rng: torch.Generator, backend: str) -> None:
    inputs = [tensor.requires_grad_() for tensor in problem(rng, 3, 4, batch=2)]

    def objective(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        a, b = balanced(a), balanced(b)
        f, g, *_ = sinkhorn(cost, a, b, 0.1, 1e-14, 10_000, backend=backend)
        mass = entropic_plan(cost, f, g, 0.1).sum((1, 2))
        return entropic_objective(cost, a, b, f, g, 0.1, mass)

    assert torch.autograd.gradcheck(objective, inputs)
    with torch.random.fork_rng():  # gradgradcheck draws its weights from the global state
        assert torch.autograd.gradgradcheck(objective, inputs, atol=1e-4, fast_mode=True)


def test_implicit_gradients_of_the_plan(rng: torch.Generator, backend: str) -> None:
    inputs = [tensor.requires_grad_() for tensor in problem(rng, 3, 4, batch=2)]

    def plan(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        f, g, *_ = sinkhorn(cost, balanced(a), balanced(b), 0.1, 1e-14, 10_000, backend=backend)
        return entropic_plan(cost, f, g, 0.1)

    assert torch.autograd.gradcheck(plan, inputs)
    with torch.random.fork_rng():
        assert torch.autograd.gradgradcheck(plan, inputs, atol=1e-4, fast_mode=True)


def test_implicit_gradients_with_absent_nodes(rng: torch.Generator, backend: str) -> None:
    """They agree with those of the smaller problem, and absent nodes get none."""
    cost, a, b = problem(rng, 3, 4)
    target = uniform(rng, 4, 3, 4)
    rows, columns = torch.tensor([1, 2, 4]), torch.tensor([0, 2, 3, 4])
    padded = torch.full((4, 5, 6), torch.nan, dtype=F64)
    padded[:, rows[:, None], columns] = cost
    padded_a, padded_b = torch.zeros(4, 5, dtype=F64), torch.zeros(4, 6, dtype=F64)
    padded_a[:, rows], padded_b[:, columns] = a, b

    def gradients(inputs: list[Tensor], select: bool) -> tuple[Tensor, ...]:
        cost, a, b = (tensor.requires_grad_() for tensor in inputs)
        f, g, *_ = sinkhorn(cost, a, b, 0.1, 1e-13, 10_000, backend=backend)
        plan = entropic_plan(cost, f, g, 0.1)
        plan = plan[:, rows[:, None], columns] if select else plan
        return torch.autograd.grad((plan * target).sum(), (cost, a, b))

    small = gradients([cost, a, b], select=False)
    large = gradients([padded, padded_a, padded_b], select=True)
    assert all(gradient.isfinite().all() for gradient in large)
    assert torch.allclose(large[0][:, rows[:, None], columns], small[0], atol=1e-10)
    assert large[0].count_nonzero() == small[0].count_nonzero()
    # Up to the direction (1, ..., 1) in which balanced masses cannot move.
    difference = large[1][:, rows] - small[1]
    assert torch.allclose(difference, difference.mean(1, keepdim=True).expand(4, 3), atol=1e-8)


def test_nearly_singular_systems_give_finite_gradients(rng: torch.Generator, backend: str) -> None:
    """At small epsilon the plan is almost a permutation, and the linear system almost singular."""
    cost = (uniform(rng, 3, 4, 4) - torch.eye(4, dtype=F64)).requires_grad_()
    even = torch.full((3, 4), 0.25, dtype=F64)
    f, g, *_ = sinkhorn(cost, even, even, 2e-3, 1e-6, 100_000, backend=backend)
    plan = entropic_plan(cost, f, g, 2e-3)
    (gradient,) = torch.autograd.grad((plan * cost.detach()).sum(), cost)
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e3


def test_items_without_a_solution_get_nan_and_harm_no_other(
    rng: torch.Generator, backend: str
) -> None:
    cost, a, b = problem(rng, 3, 4, batch=3)
    cost[0, 0, 0] = torch.nan
    a[1] *= 0.7
    cost.requires_grad_()
    f, g, *_ = sinkhorn(cost, a, b, 0.1, 1e-12, 5000, backend=backend)
    (found,) = torch.autograd.grad(f[:, 0].sum() + g[:, 0].sum(), cost)
    alone = cost.detach()[2:].requires_grad_()
    f, g, *_ = sinkhorn(alone, a[2:], b[2:], 0.1, 1e-12, 5000, backend=backend)
    (expected,) = torch.autograd.grad(f[:, 0].sum() + g[:, 0].sum(), alone)
    assert found[:2].isnan().all()
    assert torch.allclose(found[2], expected[0], atol=1e-12)


def test_a_gradient_through_the_residual_raises(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng)
    residual = sinkhorn(cost.requires_grad_(), a, b, 0.1, 1e-9, 100, backend=backend)[2]
    with pytest.raises(RuntimeError, match="the loss depends on residual of sinkhorn"):
        residual.sum().backward()


@pytest.mark.ext
def test_both_texts_agree(rng: torch.Generator, dtype: torch.dtype) -> None:
    cost, a, b = (tensor.to(dtype) for tensor in problem(rng, 6, 7, absent=0.3))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    found = sinkhorn(cost, a, b, 0.1, 10 * tolerance, 5000, backend="ext")
    expected = sinkhorn(cost, a, b, 0.1, 10 * tolerance, 5000, backend="torch")
    assert torch.equal(found[4], expected[4])
    plans = [entropic_plan(cost, f, g, 0.1) for f, g, *_ in (found, expected)]
    assert torch.allclose(*plans, atol=10 * tolerance)
    # Another order of summation may need an iteration more or less.
    assert (found[3] - expected[3]).abs().max() <= 1


@pytest.mark.ext
def test_opcheck(rng: torch.Generator, dtype: torch.dtype) -> None:
    inputs = tuple(tensor.to(dtype) for tensor in problem(rng, 3, 4))
    op = torch.ops.hotnas.sinkhorn.default
    torch.library.opcheck(op, (*inputs, 0.2, 1e-4, 100))
    for tensor in inputs:
        tensor.requires_grad_()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(op, (*inputs, 0.2, 1e-4, 100), test_utils=checks)


@pytest.mark.parametrize("epsilon", [0.3, 1.0])
def test_mass_gradients_at_absent_nodes_are_the_limit_of_those_at_small_masses(
    epsilon: float, backend: str
) -> None:
    cost = torch.tensor([[[0.0, 1.0, 7.0], [1.0, 0.0, 0.5], [0.2, 0.9, 0.3]]], dtype=F64)

    def gradients(mass: float) -> tuple[Tensor, Tensor]:
        a = torch.tensor([[0.5, 0.5 - mass, mass]], dtype=F64, requires_grad=True)
        b = torch.tensor([[0.5 - mass, 0.5, mass]], dtype=F64, requires_grad=True)
        f, g, *_ = sinkhorn(cost, a, b, epsilon, 1e-13, 10_000, backend=backend)
        total = entropic_plan(cost, f, g, epsilon).sum((1, 2))
        value = entropic_objective(cost, a, b, f, g, epsilon, total)
        of_a, of_b = torch.autograd.grad(value.sum(), (a, b))
        return of_a - of_a[:, :1], of_b - of_b[:, :1]

    for mine, limit in zip(gradients(0.0), gradients(1e-9), strict=True):
        assert (mine[:, 2] != 0).all()
        assert torch.allclose(mine, limit, atol=1e-5)


def test_an_absent_node_whose_costs_are_no_numbers_has_no_mass_gradient(backend: str) -> None:
    cost = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [torch.nan, torch.inf]]], dtype=F64)
    a = torch.tensor([[0.5, 0.5, 0.0]], dtype=F64, requires_grad=True)
    b = torch.tensor([[0.5, 0.5]], dtype=F64)
    f, g, *_ = sinkhorn(cost, a, b, 0.1, 1e-12, 1000, backend=backend)
    total = entropic_plan(cost, f, g, 0.1).sum((1, 2))
    entropic_objective(cost, a, b, f, g, 0.1, total).sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    assert a.grad[0, 2] == 0


@pytest.mark.parametrize("epsilon", [1e2, 1e4, 1e8, 1e20])
def test_an_epsilon_far_above_the_costs_leaves_the_objective_right(
    epsilon: float, dtype: torch.dtype, rng: torch.Generator, backend: str
) -> None:
    cost, a, b = (tensor.to(dtype) for tensor in problem(rng, absent=0.2))
    f, g, *_ = sinkhorn(cost, a, b, epsilon, 1e-5, 100, backend=backend)
    total = entropic_plan(cost, f, g, epsilon).sum((1, 2))
    value = entropic_objective(cost, a, b, f, g, epsilon, total)
    product = torch.einsum("kij,ki,kj->k", cost, a, b)
    assert torch.allclose(value, product, rtol=1e-5 + 1 / epsilon, atol=0)


def test_passes_that_are_saved_where_all_nodes_are_there_change_no_bit(
    rng: torch.Generator, dtype: torch.dtype
) -> None:
    cost, a, b = (part.to(dtype) for part in problem(rng, batch=6))
    tiny = 1e-2 * torch.finfo(dtype).eps  # the value is then at its bounds
    cost = cost * torch.tensor([tiny, tiny, 0.1, 1.0, 10.0, 1e2], dtype=dtype)[:, None, None]

    def passes(whole: bool) -> tuple[Tensor, ...]:
        reduced, *taken = reduced_costs(cost, a, b, whole=whole)
        f, g, *_ = sinkhorn(reduced, a, b, 0.1, 1e-4, 100)
        plan = entropic_plan(reduced, f, g, 0.1, whole=whole)
        mass = plan.sum((1, 2))
        values = [
            entropic_objective(*parts[:5], 0.1, *parts[5:], whole=whole)
            for parts in (
                (reduced, a, b, f, g, mass, *taken),
                [part[4:] for part in (reduced, a, b, f, g, mass, *taken)],  # none at its bounds
            )
        ]
        return reduced, *taken, plan, *values

    for found, expected in zip(passes(True), passes(False), strict=True):
        assert torch.equal(found, expected)
