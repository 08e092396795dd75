"""Exact solvers do not depend on what the caller measures in, nor on how large the numbers are."""

import math

import ot
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

import hotnas_torch as ht
from hotnas_torch.ot import _operators as ops
from tests.generators.problems import F64, Graphs, graphs

F32 = torch.float32
BACKENDS = ["torch", pytest.param("ext", marks=pytest.mark.ext)]
POWERS = {F32: (-60, -20, 7, 90), F64: (-900, -31, 64, 880)}


def masses(rng: torch.Generator, *shape: int) -> Tensor:
    drawn = torch.rand(*shape, generator=rng, dtype=F64) + 0.05
    return drawn / drawn.sum(-1, keepdim=True)


def solve(problem: Graphs, loss: int, pairs: int, backend: str, starts: int = 3) -> list[Tensor]:
    none = problem.cost.new_empty(0)
    return list(
        ops.fgw(*problem.tensors(), none, none, loss, pairs, starts, 1e-6, 300, backend=backend)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_powers_of_two_scale_a_transport_and_change_no_bit(
    backend: str, rng: torch.Generator, dtype: torch.dtype
) -> None:
    cost = torch.randn(20, 5, 7, generator=rng, dtype=F64).to(dtype)
    a, b = masses(rng, 20, 5).to(dtype), masses(rng, 20, 7).to(dtype)
    plan, objective, f, g, paths, status = ops.transport(cost, a, b, backend=backend)
    for power in POWERS[dtype]:
        scale = 2.0**power
        found = ops.transport(cost * scale, a, b, backend=backend)
        expected = (plan, objective * scale, f * scale, g * scale, paths, status)
        for mine, wanted in zip(found, expected, strict=True):
            assert torch.equal(mine, wanted), power


@pytest.mark.parametrize("pairs", [0, 1, 2])
@pytest.mark.parametrize("loss", [0, 1])
@pytest.mark.parametrize("backend", BACKENDS)
def test_powers_of_two_scale_a_fused_problem_and_change_no_bit(
    backend: str, loss: int, pairs: int, rng: torch.Generator, dtype: torch.dtype
) -> None:
    problem = graphs(rng, 6, 4, 5).to(dtype)
    plan, objective, f, g, gap, iterations, status = solve(problem, loss, pairs, backend)
    bound = ops.fgw_lower_bound(*problem.tensors(), loss, pairs, backend=backend)
    for power in POWERS[dtype]:
        power = power // 2 * 2 if loss else power
        scale, of_structures = 2.0**power, 2.0 ** (power // 2 if loss else power)
        scaled = Graphs(
            problem.cost * scale,
            problem.struct_x * of_structures,
            problem.struct_y * of_structures,
            problem.a,
            problem.b,
            problem.alpha,
        )
        found = solve(scaled, loss, pairs, backend)
        expected = (plan, objective * scale, f * scale, g * scale, gap * scale, iterations, status)
        for mine, wanted in zip(found, expected, strict=True):
            assert torch.equal(mine, wanted), power
        of_scaled = ops.fgw_lower_bound(*scaled.tensors(), loss, pairs, backend=backend)
        assert torch.equal(of_scaled, bound * scale)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_unit_of_small_structures_changes_no_optimum(backend: str) -> None:
    x = torch.tensor([[0.0, 3.0], [3.0, 0.0]])
    y = torch.tensor([[0.0, 1.0, 7.0], [1.0, 0.0, 4.0], [7.0, 4.0, 0.0]])
    for unit in (1.0, 1e-5, 1e-8, 1e-12, 1e15):
        found = ht.ot.fgw(
            torch.zeros(2, 3), x * unit, y * unit, alpha=1.0, loss="l2", backend=backend
        )
        assert found.objective.item() / unit**2 == pytest.approx(6.5, rel=1e-5)
        assert found.converged


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cost_of_no_weight_changes_no_optimum(backend: str) -> None:
    cost = torch.tensor([[6.0, 8, 8, 1], [1, 1, 6, 8], [8, 6, 8, 7]])
    x = torch.tensor([[0.0, 4, 2], [4, 0, 8], [2, 8, 0]])
    y = torch.tensor([[0.0, 4, 5, 7], [4, 0, 3, 3], [5, 3, 0, 4], [7, 3, 4, 0]])
    for unit in (1.0, 1e8, 1e30, 1e-30):
        found = ht.ot.fgw(cost * unit, x, y, alpha=1.0, num_starts=2, backend=backend)
        assert found.objective.item() == pytest.approx(1.4444, abs=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("dtype", "exponents"),
    [
        (F32, (-44, -38, -30, 1, 23, 24, 31, 37)),
        (F64, (-320, -300, -200, 1, 185, 201, 300)),
    ],
)
def test_transport_of_any_magnitude_is_what_linprog_finds_at_1(
    dtype: torch.dtype, exponents: tuple[int, ...], backend: str, rng: torch.Generator
) -> None:
    for n, m in ((6, 3), (3, 3), (4, 9)):
        cost = torch.rand(n, m, generator=rng, dtype=F64)
        a, b = masses(rng, n), masses(rng, m)
        rows = torch.kron(torch.eye(n, dtype=F64), torch.ones(1, m, dtype=F64))
        columns = torch.kron(torch.ones(1, n, dtype=F64), torch.eye(m, dtype=F64))
        for exponent in exponents:
            small = exponent < math.log10(torch.finfo(dtype).tiny)
            # a power of two, so that nothing but what underflows is rounded
            scale = 2.0 ** round(exponent * math.log2(10))
            scaled = (cost.to(dtype).double() * scale).to(dtype)
            used = scaled.double() / scale
            equal = torch.cat([rows, columns]).numpy(), torch.cat([a, b]).numpy()
            expected = linprog(used.flatten().numpy(), A_eq=equal[0], b_eq=equal[1]).fun
            found = ht.ot.transport(
                scaled, a.to(dtype), b.to(dtype), backend=backend, validate=False
            )
            assert found.status == 0
            value = found.objective.double().item() / scale
            assert value == pytest.approx(expected, rel=0.5 if small else 1e-5)


@pytest.mark.ext
@pytest.mark.parametrize("exponent", [-17, -8, 0, 8, 17])
def test_gromov_wasserstein_of_any_magnitude_is_what_pot_finds_at_1(
    exponent: int, rng: torch.Generator
) -> None:
    scale = 10.0**exponent
    for _ in range(5):
        x, y = (torch.rand(4, 4, generator=rng, dtype=F64) for _ in range(2))
        x, y = x + x.T, y + y.T
        a, b = masses(rng, 4), masses(rng, 4)
        found = ht.ot.fgw(
            torch.zeros(4, 4),
            (x * scale).float(),
            (y * scale).float(),
            a.float(),
            b.float(),
            alpha=1.0,
            loss="l2",
            init="product",
            num_starts=1,
        )
        assert found.converged
        plan = ot.gromov.gromov_wasserstein(
            x.numpy(), y.numpy(), a.numpy(), b.numpy(), "square_loss", symmetric=True
        )
        difference = x[:, None, :, None] - y[None, :, None, :]
        weight = torch.as_tensor(plan)
        theirs = torch.einsum("ij,kl,ijkl->", weight, weight, difference**2).item()
        assert found.objective.item() / scale**2 <= theirs * (1 + 1e-3)


def true_gap(problem: Graphs, plan: Tensor, loss: int) -> tuple[Tensor, Tensor]:
    """Objective and duality gap of a plan in float64, relative to the objective."""
    cost, x, y, alpha = (
        v.double() for v in (problem.cost, problem.struct_x, problem.struct_y, problem.alpha)
    )
    plan = plan.double()
    terms = x[:, :, None, :, None] - y[:, None, :, None, :]
    terms = terms**2 if loss else terms.abs()
    from_pairs = torch.einsum("bijkl,bkl->bij", terms, plan)
    from_pairs += torch.einsum("bklij,bkl->bij", terms, plan)
    linear, pair = (1 - alpha)[:, None, None], alpha[:, None, None]
    slope = linear * cost + pair * from_pairs
    objective = ((linear * cost + 0.5 * pair * from_pairs) * plan).sum((1, 2))
    rows, columns = plan.sum(2), plan.sum(1)
    total = rows.sum(1, keepdim=True)
    lowest = [
        float(ot.emd2(r.numpy(), c.numpy(), s.numpy(), numItermax=10**6))
        for r, c, s in zip(rows / total, columns / columns.sum(1, keepdim=True), slope, strict=True)
    ]
    gap = (slope * plan).sum((1, 2)) - torch.tensor(lowest, dtype=F64) * total[:, 0]
    return objective, gap / objective


@pytest.mark.ext
@pytest.mark.parametrize("loss", [0, 1])
@pytest.mark.parametrize(("dtype", "decades"), [(F32, 9), (F64, 20)])
def test_what_is_called_converged_is_so_across_many_decades(
    dtype: torch.dtype, decades: int, loss: int, rng: torch.Generator
) -> None:
    def spread(*shape: int) -> Tensor:
        return (10 ** (decades * torch.rand(*shape, generator=rng, dtype=F64))).to(dtype)

    count, n, m = 400, 5, 6
    problem = Graphs(
        spread(count, n, m),
        spread(count, n, n),
        spread(count, m, m),
        masses(rng, count, n).to(dtype),
        masses(rng, count, m).to(dtype),
        torch.full((count,), 0.5, dtype=dtype),
    )
    plan, objective, _, _, gap, _, status = solve(problem, loss, 0, "ext", starts=2)
    good = status == 0
    assert good.double().mean() > 0.98
    rounding = 64 * torch.finfo(dtype).eps
    assert (plan.sum(2) - problem.a).abs()[good].max() < rounding
    assert (plan.sum(1) - problem.b).abs()[good].max() < rounding
    assert (gap >= 0).all()
    expected, relative = true_gap(problem, plan, loss)
    assert relative[good].max() < 1e-6 + rounding
    assert torch.allclose(objective.double(), expected, rtol=rounding, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("unit", [1e-5, 1e-8, 1e-10])
def test_small_structures_are_solved_as_well_as_large_ones(
    unit: float, backend: str, rng: torch.Generator
) -> None:
    problem = graphs(rng, 20, 5, 5).to(F32)
    scaled = Graphs(
        problem.cost * unit**2,
        problem.struct_x * unit,
        problem.struct_y * unit,
        problem.a,
        problem.b,
        problem.alpha,
    )
    plan, _, _, _, _, _, status = solve(scaled, 1, 0, backend, starts=1)
    assert (status == 0).all()
    assert true_gap(scaled, plan, 1)[1].max() < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_neighbours_and_absent_nodes_choose_no_unit(
    backend: str, rng: torch.Generator, dtype: torch.dtype
) -> None:
    problem = graphs(rng, 3, 4, 4).to(dtype)
    problem.a[:, 1] = problem.b[:, 2] = 0
    problem.a.div_(problem.a.sum(1, keepdim=True))
    problem.b.div_(problem.b.sum(1, keepdim=True))
    alone = solve(problem, 1, 1, backend)
    for junk in (0.0, 1e30, torch.inf, torch.nan):
        for tensor, axes in (
            (problem.cost, (1, 2)),
            (problem.struct_x, (1, 1)),
            (problem.struct_y, (2, 2)),
        ):
            tensor[:, axes[0], :] = junk
            tensor[:, :, axes[1]] = junk
        together = Graphs(*(torch.cat([t, t[:1]]) for t in problem.tensors()))
        together.cost[-1] *= 1e20
        found = solve(together, 1, 1, backend)
        for k in (0, 1, 4, 5, 6):
            assert torch.equal(found[k][:3], alone[k])


@pytest.mark.parametrize("backend", BACKENDS)
def test_transport_duals_are_feasible_also_between_absent_nodes(
    backend: str, rng: torch.Generator, dtype: torch.dtype
) -> None:
    cost = torch.tensor([[1.0, 9.0], [9.0, 0.0]], dtype=dtype)
    mass = torch.tensor([1.0, 0.0], dtype=dtype)
    found = ht.ot.transport(cost, mass, mass, backend=backend)
    assert (found.f[:, None] + found.g <= cost + 1e-5).all()
    for _ in range(20):
        cost = torch.randn(6, 7, generator=rng, dtype=F64).to(dtype)
        a, b = masses(rng, 6), masses(rng, 7)
        a[torch.randperm(6, generator=rng)[:3]] = 0
        b[torch.randperm(7, generator=rng)[:3]] = 0
        a, b = (a / a.sum()).to(dtype), (b / b.sum()).to(dtype)
        found = ht.ot.transport(cost, a, b, backend=backend)
        assert (found.f[:, None] + found.g - cost).max() < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_derivatives_in_a_mass_do_not_jump_where_it_is_zero(
    loss: str, backend: str, rng: torch.Generator
) -> None:
    problem = graphs(rng, 1, 4, 4)
    a, b = problem.a[0].clone(), problem.b[0]
    results = []
    for little in (0.0, 1e-9):
        a[2] = little
        a = (a / a.sum()).detach().requires_grad_()
        found = ht.ot.fgw(
            problem.cost[0], problem.struct_x[0], problem.struct_y[0], a, b, loss=loss,
            init=a[:, None] * b, tol=1e-10, backend=backend,
        )  # fmt: skip
        (slope,) = torch.autograd.grad(found.objective, a)
        assert (found.f[:, None] + found.g).isfinite().all()
        results.append(slope - slope[0])
        a = a.detach().clone()
    assert torch.allclose(results[0], results[1], atol=1e-5)
