import importlib

import ot as pot
import pytest
import torch
from torch import Tensor

from hotnas_torch.ot._operators import entropic_fgw, fgw, stationary_objective
from tests.generators.oracles import fgw_objective
from tests.generators.problems import F64, Graphs, graphs, none_like, uniform

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
    differentiate: str = "implicit",
) -> tuple[Tensor, ...]:
    return entropic_fgw(
        *problem.tensors(),
        none_like(problem.cost),
        epsilon,
        loss,
        pairs,
        proximal,
        tol,
        max_iter,
        tol / 10,
        inner_max_iter,
        backend=backend,
        differentiate=differentiate,
    )


def balanced(weights: Tensor) -> Tensor:
    return weights / weights.sum(1, keepdim=True)


def leaves(problem: Graphs) -> list[Tensor]:
    return [tensor.clone().requires_grad_() for tensor in problem.tensors()]


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


@pytest.mark.parametrize(("loss", "pairs"), TERMS)
@pytest.mark.parametrize("differentiate", ["implicit", "unroll"])
def test_gradients_of_plan_and_duals(
    differentiate: str, loss: int, pairs: int, rng: torch.Generator
) -> None:
    def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        cost, struct_x, struct_y, a, b, alpha = tensors
        problem = Graphs(cost, struct_x, struct_y, balanced(a), balanced(b), alpha)
        log_plan, f, g, *_ = solve(
            problem, 0.2, loss, pairs, backend="auto", tol=1e-14, max_iter=60, inner_max_iter=60,
            differentiate=differentiate,
        )  # fmt: skip
        # The duals are known up to a constant.
        return log_plan, f[:, :, None] + g[:, None, :]

    inputs = leaves(graphs(rng, 2, 2, 3))
    assert torch.autograd.gradcheck(outputs, inputs, fast_mode=differentiate == "unroll")


def test_implicit_gradients_are_differentiable(rng: torch.Generator, backend: str) -> None:
    def plan(*tensors: Tensor) -> Tensor:
        cost, struct_x, struct_y, a, b, alpha = tensors
        problem = Graphs(cost, struct_x, struct_y, balanced(a), balanced(b), alpha)
        return solve(problem, 0.3, 1, backend=backend, tol=1e-14, max_iter=60)[0].exp()

    inputs = leaves(graphs(rng, 1, 2, 3))
    with torch.random.fork_rng():  # gradgradcheck draws its weights from the global state
        assert torch.autograd.gradgradcheck(plan, inputs, atol=1e-4, fast_mode=True)


def test_gradients_with_absent_nodes(rng: torch.Generator, backend: str) -> None:
    """They are those of the smaller problem; absent nodes, whatever they hold, get none."""
    problem = graphs(rng, 3, 3, 4)
    rows, columns = torch.tensor([1, 2, 4]), torch.tensor([0, 2, 3, 4])
    padded = Graphs(
        torch.full((3, 5, 6), torch.nan, dtype=F64),
        torch.full((3, 5, 5), torch.inf, dtype=F64),
        torch.full((3, 6, 6), torch.nan, dtype=F64),
        torch.zeros(3, 5, dtype=F64),
        torch.zeros(3, 6, dtype=F64),
        problem.alpha,
    )
    padded.cost[:, rows[:, None], columns] = problem.cost
    padded.struct_x[:, rows[:, None], rows] = problem.struct_x
    padded.struct_y[:, columns[:, None], columns] = problem.struct_y
    padded.a[:, rows], padded.b[:, columns] = problem.a, problem.b
    target = uniform(rng, 3, 3, 4)

    def gradients(problem: Graphs, select: bool) -> tuple[Tensor, ...]:
        inputs = leaves(problem)
        log_plan, f, g, *_ = solve(Graphs(*inputs), 0.2, backend=backend, tol=1e-13)
        if select:
            log_plan = log_plan[:, rows[:, None], columns]
            f, g = f[:, rows], g[:, columns]
        loss = (log_plan * target).sum() + (f[:, :, None] + g[:, None, :]).square().sum()
        return torch.autograd.grad(loss, inputs)

    small, large = gradients(problem, select=False), gradients(padded, select=True)
    assert all(gradient.isfinite().all() for gradient in large)
    assert torch.allclose(large[0][:, rows[:, None], columns], small[0], atol=1e-10)
    assert torch.allclose(large[1][:, rows[:, None], rows], small[1], atol=1e-10)
    assert torch.allclose(large[2][:, columns[:, None], columns], small[2], atol=1e-10)
    assert torch.allclose(large[3][:, rows], small[3], atol=1e-10)
    assert torch.allclose(large[4][:, columns], small[4], atol=1e-10)
    assert torch.allclose(large[5], small[5], atol=1e-10)
    for mine, theirs in zip(small, large, strict=True):
        assert theirs.count_nonzero() == mine.count_nonzero()


def test_items_without_a_solution_get_nan_and_harm_no_other(
    rng: torch.Generator, backend: str
) -> None:
    problem = graphs(rng, 3, 3, 4)
    problem.cost[0, 1, 1] = torch.nan
    problem.a[1] *= 0.5
    inputs = leaves(problem)
    alone = leaves(problem.items(slice(2, 3)))

    def gradients(tensors: list[Tensor]) -> tuple[Tensor, ...]:
        plan = solve(Graphs(*tensors), 0.2, backend=backend)[0].exp()
        return torch.autograd.grad(plan[-1, 0, 0], tensors)

    found, expected = gradients(inputs), gradients(alone)
    for gradient, own in zip(found, expected, strict=True):
        assert gradient[:2].isnan().all()
        assert torch.equal(gradient[2], own[0])


def test_chunks_of_a_backward_pass_do_not_show(
    rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = leaves(graphs(rng, 5, 3, 4))

    def gradients() -> tuple[Tensor, ...]:
        plan = solve(Graphs(*inputs), 0.2, backend="auto")[0].exp()
        return torch.autograd.grad(plan.square().sum(), inputs)

    whole = gradients()
    module = importlib.import_module("hotnas_torch.ot._operators.entropic_fgw")  # not the function
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 2 * 144)
    for mine, theirs in zip(gradients(), whole, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-14)


def test_nearly_singular_systems_give_finite_gradients(rng: torch.Generator, backend: str) -> None:
    """At small epsilon the plan is almost a permutation, and its marginals almost decoupled."""
    problem = graphs(rng, 3, 4, 4, even=True, alpha=0.2)
    problem.cost.sub_(2 * torch.eye(4, dtype=F64))
    inputs = leaves(problem)
    plan = solve(Graphs(*inputs), 0.03, backend=backend, tol=1e-8)[0].exp()
    for gradient in torch.autograd.grad((plan * problem.cost).sum(), inputs):
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 10


def test_the_plan_of_proximal_steps_is_not_differentiable(
    rng: torch.Generator, backend: str
) -> None:
    inputs = leaves(graphs(rng, 2, 3, 3))
    options = {"proximal": 1, "tol": 1e-3, "max_iter": 50, "inner_max_iter": 50}
    log_plan, f, *_ = solve(Graphs(*inputs), 0.1, backend=backend, **options)
    with pytest.raises(RuntimeError, match='plan of entropic_fgw with method="proximal"'):
        log_plan.exp().sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="depends on f of entropic_fgw"):
        f.sum().backward()
    unrolled, *_ = solve(Graphs(*inputs), 0.1, backend="auto", differentiate="unroll", **options)
    assert torch.autograd.grad(unrolled.exp()[:, 0, 0].sum(), inputs[0])[0].count_nonzero()


@pytest.mark.ext
@pytest.mark.parametrize(("loss", "pairs"), TERMS)
def test_envelope_gradients_of_a_stationary_objective(
    loss: int, pairs: int, rng: torch.Generator
) -> None:
    problem = graphs(rng, 2, 3, 4, alpha=0.3)

    def objective(*tensors: Tensor) -> Tensor:
        cost, struct_x, struct_y, a, b, alpha = tensors
        moved = Graphs(cost, struct_x, struct_y, balanced(a), balanced(b), alpha)
        log_plan, f, g, *_ = solve(
            moved, 0.05, loss, pairs, proximal=1, backend="ext", tol=1e-10, max_iter=2000
        )
        return stationary_objective(*moved.tensors(), log_plan, f, g, loss, pairs)

    inputs = leaves(problem)
    assert torch.autograd.gradcheck(objective, inputs, atol=1e-4, rtol=1e-3)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(objective(*inputs).sum(), inputs[0], create_graph=True)[
            0
        ].sum().backward()


def test_a_gradient_through_the_residual_raises(rng: torch.Generator, backend: str) -> None:
    inputs = leaves(graphs(rng, 2, 3, 3))
    residual = solve(Graphs(*inputs), 0.1, backend=backend)[3]
    with pytest.raises(RuntimeError, match="the loss depends on residual of entropic_fgw"):
        residual.sum().backward()


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
    arguments = (*problem.tensors(), none_like(problem.cost), 0.2, 0, 1, 0, 1e-4, 50, 1e-5, 100)
    op = torch.ops.hotnas.entropic_fgw.default
    torch.library.opcheck(op, arguments)
    for tensor in problem.tensors():
        tensor.requires_grad_()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(op, arguments, test_utils=checks)
