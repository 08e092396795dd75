import ot as pot
import pytest
import torch
from torch import Tensor

from hotnas_torch.ops import entropic_fgw, fgw
from tests.generators.oracles import fgw_objective
from tests.generators.problems import F64, Graphs, graphs

TERMS = [(loss, pairs) for loss in (0, 1) for pairs in (0, 1, 2)]


def solve(
    problem: Graphs,
    epsilon: float,
    loss: int = 0,
    pairs: int = 1,
    *,
    backend: str,
    proximal: int = 0,
    tol: float = 1e-9,
    max_iter: int = 2000,
    inner_max_iter: int = 5000,
) -> tuple[Tensor, ...]:
    return entropic_fgw(
        *problem.tensors(),
        epsilon,
        loss,
        pairs,
        proximal,
        tol,
        max_iter,
        tol / 10,
        inner_max_iter,
        backend=backend,
    )


@pytest.mark.parametrize(("loss", "pairs"), TERMS)
def test_mirror_descent_ends_where_the_regularised_gradient_is_constant(
    loss: int, pairs: int, rng: torch.Generator, backend: str
) -> None:
    problem = graphs(rng, 4, 4, 5)
    log_plan, f, g, residual, _, status = solve(problem, 0.2, loss, pairs, backend=backend)
    assert (status == 0).all()
    assert (residual <= 1e-9).all()
    cost, struct_x, struct_y, a, b, alpha = problem.tensors()
    plan = log_plan.exp().requires_grad_()
    assert torch.allclose(plan.sum(2), a, atol=1e-9)
    assert torch.allclose(plan.sum(1), b, atol=1e-9)
    value = fgw_objective(plan, cost, struct_x, struct_y, alpha, loss, pairs)
    (gradient,) = torch.autograd.grad(value.sum(), plan)
    stationary = gradient + 0.2 * log_plan - f[:, :, None] - g[:, None, :]
    assert stationary.abs().max() <= 1e-7


def test_agrees_with_pot(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 4, 5, 6, symmetric=True)
    log_plan, *_ = solve(problem, 0.1, 1, 0, backend=backend)
    for item, (cost, struct_x, struct_y, a, b, alpha) in enumerate(
        zip(*problem.tensors(), strict=True)
    ):
        expected = pot.gromov.entropic_fused_gromov_wasserstein(
            cost, struct_x, struct_y, a, b, "square_loss", epsilon=0.1, alpha=alpha.item(),
            solver="PGD", max_iter=2000, tol=1e-10,
        )  # fmt: skip
        assert torch.allclose(log_plan[item].exp(), expected, atol=1e-6)


def test_proximal_steps_reach_the_objective_without_entropy(
    rng: torch.Generator, backend: str
) -> None:
    problem = graphs(rng, 6, 4, 5)
    cost, struct_x, struct_y, _, _, alpha = problem.tensors()

    def objective(proximal: int) -> Tensor:
        log_plan, *_ = solve(
            problem, 0.1, 1, backend=backend, proximal=proximal, tol=1e-5, inner_max_iter=200
        )
        return fgw_objective(log_plan.exp(), cost, struct_x, struct_y, alpha, 1, 1)

    none = torch.empty(0, dtype=F64)
    exact = fgw(*problem.tensors(), none, none, 1, 1, 3, 1e-9, 1000, backend=backend)[1]
    assert (objective(1) <= 1.05 * exact).all()
    assert objective(0).mean() > 1.1 * exact.mean()


def test_items_do_not_know_their_neighbours(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 5, 4, 5, absent=0.3)
    together = solve(problem, 0.1, backend=backend, tol=1e-6)
    assert len(set(together[4].tolist())) > 1
    for item in range(5):
        alone = solve(problem.items(slice(item, item + 1)), 0.1, backend=backend, tol=1e-6)
        for mine, theirs in zip(alone, together, strict=True):
            assert torch.equal(mine[0], theirs[item])


def test_absent_nodes_change_nothing(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 3, 3, 4)
    rows, columns = torch.tensor([1, 2, 4]), torch.tensor([0, 2, 3, 4])
    padded = Graphs(
        *(
            torch.full((3, *shape), torch.nan, dtype=F64)
            for shape in [(5, 6), (5, 5), (6, 6), (5,), (6,)]
        ),
        problem.alpha,
    )
    padded.cost[:, rows[:, None], columns] = problem.cost
    padded.struct_x[:, rows[:, None], rows] = problem.struct_x
    padded.struct_y[:, columns[:, None], columns] = problem.struct_y
    padded.a[:], padded.b[:] = 0, 0
    padded.a[:, rows], padded.b[:, columns] = problem.a, problem.b
    small = solve(problem, 0.1, 0, 2, backend=backend)
    large = solve(padded, 0.1, 0, 2, backend=backend)
    assert torch.allclose(large[0][:, rows[:, None], columns], small[0], atol=1e-9)
    assert (large[0][:, 0] == -torch.inf).all()
    assert (large[1][:, [0, 3]] == -torch.inf).all()
    assert torch.equal(large[5], small[5])


def test_bad_items_are_reported_and_harm_no_other(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 5, 4, 4)
    expected = solve(problem, 0.1, backend=backend)[0]
    problem.cost[0, 1, 1] = torch.nan
    problem.struct_x[1, 0, 2] = torch.inf
    problem.a[2] *= 0.5
    problem.a[3], problem.b[3] = 0, 0
    log_plan, f, _, residual, _, status = solve(problem, 0.1, backend=backend)
    assert status.tolist() == [2, 2, 3, 0, 0]
    assert log_plan[:3].isnan().all()
    assert f[:3].isnan().all()
    assert residual[:3].isnan().all()
    assert torch.equal(log_plan[4], expected[4])


def test_stops_at_max_iter(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 4, 5, 5)
    _, _, _, residual, iterations, status = solve(problem, 0.05, backend=backend, max_iter=2)
    assert (status == 1).all()
    assert (iterations == 2).all()
    assert (residual > 1e-9).all()


def test_an_empty_batch(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 1, 3, 4).items(slice(0, 0))
    log_plan, *_, status = solve(problem, 0.1, backend=backend)
    assert log_plan.shape == (0, 3, 4)
    assert status.shape == (0,)


def test_a_backward_pass_raises(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 2, 3, 3)
    problem.cost.requires_grad_()
    log_plan, *_ = solve(problem, 0.1, backend=backend)
    with pytest.raises(RuntimeError, match="entropic_fgw is not differentiable; detach"):
        log_plan.sum().backward()


@pytest.mark.ext
@pytest.mark.parametrize("proximal", [0, 1])
def test_both_texts_agree(proximal: int, rng: torch.Generator) -> None:
    problem = graphs(rng, 4, 4, 5, absent=0.2)
    options = {"proximal": proximal, "tol": 1e-7, "max_iter": 50, "inner_max_iter": 50}
    found = solve(problem, 0.2, backend="ext", **options)
    expected = solve(problem, 0.2, backend="torch", **options)
    assert torch.equal(found[5], expected[5])
    assert torch.allclose(found[0].exp(), expected[0].exp(), atol=1e-8)
    assert (found[4] - expected[4]).abs().max() <= 1


@pytest.mark.ext
def test_opcheck(rng: torch.Generator, dtype: torch.dtype) -> None:
    problem = graphs(rng, 2, 3, 4).to(dtype)
    arguments = (*problem.tensors(), 0.2, 0, 1, 0, 1e-4, 50, 1e-5, 100)
    torch.library.opcheck(torch.ops.hotnas.entropic_fgw.default, arguments)
