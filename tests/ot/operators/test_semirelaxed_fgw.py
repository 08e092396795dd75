import ot as pot
import pytest
import torch
from torch import Tensor

from hotnas_torch.ot._operators import semirelaxed_fgw
from tests.generators.oracles import fgw_objective
from tests.generators.problems import F64, Graphs, graphs, none_like
from tests.generators.terms import TERM_NAMES, TERMS, of_derivatives

by_terms = pytest.mark.parametrize(("loss", "pairs"), TERMS, ids=TERM_NAMES)


def solve(
    problem: Graphs,
    loss: int = 0,
    pairs: int = 0,
    *,
    backend: str,
    init: Tensor | None = None,
    num_starts: int = 1,
    tol: float = 1e-9,
    max_iter: int = 1000,
) -> tuple[Tensor, ...]:
    none = none_like(problem.cost)
    return semirelaxed_fgw(
        *problem.tensors(),
        none if init is None else init,
        none,
        loss,
        pairs,
        num_starts,
        tol,
        max_iter,
        backend=backend,
    )


@by_terms
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("n", "m", "absent"), [(1, 1, 0.0), (1, 4, 0.0), (6, 6, 0.3), (5, 7, 0.3)])
def test_the_result_is_stationary_with_the_row_masses(
    loss: int,
    pairs: int,
    n: int,
    m: int,
    absent: float,
    symmetric: bool,
    rng: torch.Generator,
    backend: str,
) -> None:
    problem = graphs(rng, 5, n, m, absent=absent, symmetric=symmetric)
    plan, objective, f, gap, _, status = solve(problem, loss, pairs, backend=backend, num_starts=2)
    cost, struct_x, struct_y, a, b, alpha = problem.tensors()
    assert (status == 0).all()
    assert (plan >= 0).all()
    assert torch.allclose(plan.sum(2), a, atol=1e-15)
    assert (plan.sum(1)[b == 0] == 0).all()
    plan = plan.requires_grad_()
    value = fgw_objective(plan, cost, struct_x, struct_y, alpha, loss, pairs)
    assert torch.allclose(objective, value.detach(), atol=1e-12)
    (gradient,) = torch.autograd.grad(value.sum(), plan)
    least = torch.where((b > 0)[:, None, :], gradient, torch.inf).amin(2)
    assert torch.allclose(f, least, atol=1e-12)
    above = (plan * (gradient - least[:, :, None])).sum((1, 2))
    assert torch.allclose(gap, above.detach(), atol=1e-12)


@by_terms
@pytest.mark.ext
def test_backends_agree(loss: int, pairs: int, rng: torch.Generator) -> None:
    problem = graphs(rng, 60, 5, 6, absent=0.2)
    compiled, text = (
        solve(problem, loss, pairs, backend=backend, num_starts=2) for backend in ("ext", "torch")
    )
    *numbers, iterations, status = zip(compiled, text, strict=True)
    for found, wanted in numbers:
        assert torch.allclose(found, wanted, atol=1e-9)
    # a hundred steps and more, each rounded in its own way
    assert torch.allclose(*(count.to(F64) for count in iterations), rtol=0.05, atol=1.0)
    assert torch.equal(*status)


@pytest.mark.parametrize(("n", "m", "count"), [(8, 8, 120), (12, 7, 60)])
def test_never_above_pot(n: int, m: int, count: int, rng: torch.Generator) -> None:
    problem = graphs(rng, count, n, m, symmetric=True)
    problem.b.fill_(1 / m)
    # The exact step before leaves ties, from which rounding alone leads to one valley or another:
    # a second start makes up for it.
    _, objective, *_ = solve(problem, 1, 0, backend="auto", num_starts=2)
    cost, struct_x, struct_y, a, _, _ = (tensor.numpy() for tensor in problem.tensors())
    for item in range(count):
        theirs = pot.gromov.semirelaxed_fused_gromov_wasserstein2(
            cost[item], struct_x[item], struct_y[item], a[item], alpha=0.5
        )
        assert objective[item].item() <= theirs * (1 + 1e-6)


def test_a_part_is_found_in_the_whole(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 20, 4, 9, alpha=1.0)
    places = torch.rand(20, 9, generator=rng).argsort(1)[:, :4]
    rows = problem.struct_y.gather(1, places[:, :, None].expand(-1, -1, 9))
    part = rows.gather(2, places[:, None, :].expand(-1, 4, -1))
    start = torch.zeros_like(problem.cost).scatter_(2, places[:, :, None], problem.a[:, :, None])
    there = Graphs(
        torch.zeros_like(problem.cost), part, problem.struct_y, problem.a, problem.b, problem.alpha
    )
    plan, objective, *_ = solve(there, backend=backend, init=start)
    assert (objective == 0).all()
    assert torch.equal(plan, start)


def test_tied_columns_share_a_row(backend: str) -> None:
    # 0.1 + 0.2 is above 0.3 by a rounding
    cost = torch.tensor([[[0.3, 0.1 + 0.2, 1.0], [0.5, 1.0, 0.75]]], dtype=F64)
    a, b = torch.tensor([[0.75, 0.25]], dtype=F64), torch.full((1, 3), 1 / 3, dtype=F64)
    none = torch.zeros(1, 3, 3, dtype=F64)
    problem = Graphs(cost, none[:, :2, :2], none, a, b, torch.zeros(1, dtype=F64))
    plan, *_, status = solve(problem, 1, backend=backend)
    assert status.item() == 0
    assert torch.equal(plan, torch.tensor([[[0.375, 0.375, 0.0], [0.25, 0.0, 0.0]]], dtype=F64))


def test_too_few_steps_are_a_status(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 30, 7, 8)
    *_, iterations, status = solve(problem, 1, backend=backend, max_iter=1, tol=0.0)
    assert (iterations == 1).all()
    assert (status == 1).any()
    assert (status <= 1).all()


def test_what_is_no_problem_is_a_status(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 5, 3, 4)
    problem.cost[0, 1, 1] = torch.nan
    problem.a[1, 0] = -0.5
    problem.struct_x[2, 0, 1] = torch.inf
    init = problem.a[:, :, None] * problem.b[:, None, :]
    init[3, 0, 0] += 0.5
    plan, objective, *_, status = solve(problem, backend=backend, init=init)
    assert status.tolist() == [2, 3, 2, 3, 0]
    assert objective[:4].isnan().all()
    assert plan[:4].isnan().all()


def test_an_empty_batch_is_solved(rng: torch.Generator, backend: str) -> None:
    plan, objective, *_ = solve(graphs(rng, 0, 3, 4), backend=backend)
    assert plan.shape == (0, 3, 4)
    assert objective.shape == (0,)


@of_derivatives
def test_gradients(loss: int, pairs: int, rng: torch.Generator, backend: str) -> None:
    text = backend == "torch"  # a second for each batch: one item in one direction
    problem = graphs(rng, 1 if text else 3, 4, 5)
    inputs = [tensor.requires_grad_() for tensor in problem.tensors()]

    def objective(*tensors: Tensor) -> Tensor:
        return solve(Graphs(*tensors), loss, pairs, backend=backend, tol=1e-12)[1]

    assert torch.autograd.gradcheck(
        lambda cost, x, y, a, alpha: objective(
            cost, x, y, a / a.sum(1, keepdim=True), problem.b.detach(), alpha
        ),
        [inputs[k] for k in (0, 1, 2, 3, 5)],
        fast_mode=text,
        check_forward_ad=True,
    )


def test_the_mass_of_an_absent_row_has_a_derivative(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 6, 4, 5)
    problem.a[:, 1] = 0
    problem.a.div_(problem.a.sum(1, keepdim=True))

    def objective(a: Tensor) -> Tensor:
        return solve(
            Graphs(*problem.tensors()[:3], a, problem.b, problem.alpha), backend=backend, tol=1e-12
        )[1]

    a = problem.a.clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective(a).sum(), a)
    step = 1e-6
    moved = (1 - step) * problem.a
    moved[:, 1] += step
    found = (objective(moved) - objective(problem.a)) / step
    expected = slope[:, 1] - (slope * problem.a).sum(1)
    assert torch.allclose(found, expected, atol=1e-4)


def test_gradients_of_other_outputs_are_refused(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 2, 3, 4)
    problem.cost.requires_grad_()
    plan, *_ = solve(problem, backend=backend)
    with pytest.raises(RuntimeError, match="plan of semirelaxed_fgw"):
        plan.square().sum().backward()


@pytest.mark.ext
def test_the_op_is_well_behaved(rng: torch.Generator) -> None:
    problem = graphs(rng, 3, 3, 4)
    none = none_like(problem.cost)
    arguments = (*problem.tensors(), none, none, 0, 1, 2, 1e-6, 100)
    torch.library.opcheck(torch.ops.hotnas.semirelaxed_fgw, arguments)
