from itertools import pairwise

import pytest
import torch

import hotnas_torch.ot as ot
from tests.generators.problems import F64, graphs, uniform


def test_each_step_is_that_of_the_solver_and_the_last_is_its_result(
    rng: torch.Generator, backend: str
) -> None:
    problem = graphs(rng, 4, 5, 6)
    arguments = problem.tensors()[:5]
    steps = list(ot.trace(ot.fgw, *arguments, loss="l1", backend=backend))
    whole = ot.fgw(*arguments, loss="l1", backend=backend)
    assert torch.equal(steps[-1].objective, whole.objective)
    assert torch.equal(steps[-1].plan, whole.plan)
    assert len(steps) > 2
    for before, after in pairwise(steps):
        # Fully corrective steps never go up.
        assert (after.objective <= before.objective + 1e-14).all()
        assert not before.converged.all()
    part = list(ot.trace(ot.partial_fgw, *arguments, mass=0.6, backend=backend))
    assert part[-1].converged.all()


def test_sinkhorn_comes_nearer_with_each_iteration(rng: torch.Generator, backend: str) -> None:
    cost = uniform(rng, 2, 4, 5)
    steps = list(ot.trace(ot.sinkhorn, cost, epsilon=0.5, max_iter=8, tol=0.0, backend=backend))
    assert len(steps) == 8
    residuals = torch.stack([step.residual for step in steps])
    assert (residuals.diff(dim=0) <= 0).all()


def test_values_are_checked_and_nothing_warns() -> None:
    cost = torch.tensor([[0.0, 1.0], [torch.nan, 0.0]])
    with pytest.raises(ValueError, match="cost must be finite"):
        next(ot.trace(ot.sinkhorn, cost, epsilon=0.1))
    with pytest.raises(ValueError, match="max_iter must be at least 1"):
        ot.trace(ot.sinkhorn, cost, epsilon=0.1, max_iter=0)
    assert len(list(ot.trace(ot.sinkhorn, cost, epsilon=0.1, validate=False))) == 1


def test_sinkhorn_goes_on_from_duals(rng: torch.Generator, backend: str) -> None:
    cost, b = uniform(rng, 3, 5, 6), torch.tensor([0.4, 0.0, 0.1, 0.2, 0.1, 0.2], dtype=F64)
    cold = ot.sinkhorn(cost, b=b, epsilon=0.05, backend=backend)
    again = ot.sinkhorn(cost, b=b, epsilon=0.05, init=(cold.f, cold.g), backend=backend)
    assert (again.iterations < 3).all()
    assert torch.allclose(again.plan, cold.plan, atol=1e-9)
    assert torch.allclose(again.objective, cold.objective, atol=1e-12)
    assert torch.equal(again.f == -torch.inf, cold.f == -torch.inf)
    # Wrong duals cost iterations, and nothing else.
    for f, g in ((7 * cold.f.detach(), cold.g), (cold.f[0], 0 * cold.g[1].nan_to_num(0, 0, 0))):
        other = ot.sinkhorn(cost, b=b, epsilon=0.05, init=(f, g), backend=backend)
        assert torch.allclose(other.plan, cold.plan, atol=1e-8)
    halves = ot.sinkhorn(cost, b=b, epsilon=0.1, backend=backend)
    annealed = ot.sinkhorn(cost, b=b, epsilon=0.05, init=(halves.f, halves.g), backend=backend)
    assert torch.allclose(annealed.plan, cold.plan, atol=1e-8)


def test_duals_to_start_from_change_no_gradient(rng: torch.Generator) -> None:
    cost = uniform(rng, 2, 4, 4).requires_grad_()
    cold = ot.sinkhorn(cost, epsilon=0.2, tol=1e-13)
    warm = ot.sinkhorn(cost, epsilon=0.2, tol=1e-13, init=(cold.f, cold.g))
    found = [
        torch.autograd.grad(result.objective.sum() + result.plan.square().sum(), cost)[0]
        for result in (cold, warm)
    ]
    assert torch.allclose(*found, atol=1e-11)


@pytest.mark.parametrize(
    ("init", "error", "message"),
    [
        (torch.zeros(2), TypeError, "init must be a pair"),
        ((torch.zeros(2, dtype=F64), None), TypeError, r"init\[1\] must be a torch.Tensor"),
        ((torch.zeros(2), torch.zeros(3)), TypeError, r"init\[0\] must have the dtype of cost"),
        (
            (torch.zeros(3, dtype=F64), torch.zeros(3, dtype=F64)),
            ValueError,
            r"init\[0\] must have shape \(\*batch, 2\)",
        ),
        (
            (torch.zeros(2, dtype=F64), torch.full((3,), torch.nan, dtype=F64)),
            ValueError,
            r"init\[1\] must be finite, .* has nan at 0",
        ),
        (
            (torch.zeros(5, 2, dtype=F64), torch.zeros(3, dtype=F64)),
            ValueError,
            r"init\[0\] must have the batch dimensions of the problem, \(\)",
        ),
    ],
)
def test_duals_that_are_none_are_refused(
    init: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ot.sinkhorn(torch.zeros(2, 3, dtype=F64), epsilon=0.1, init=init)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.bfloat16, torch.bool])
def test_integers_and_halves_are_refused_with_the_remedy(dtype: torch.dtype) -> None:
    cost = torch.ones(2, 2).to(dtype)
    structure = torch.zeros(2, 2)
    for solve in (
        ot.transport,
        lambda cost: ot.partial_transport(cost, mass=0.5),
        lambda cost: ot.sinkhorn(cost, epsilon=1.0),
        lambda cost: ot.fgw(cost, structure, structure),
        lambda cost: ot.partial_fgw(cost, structure, structure, mass=0.5),
        lambda cost: ot.entropic_fgw(cost, structure, structure, epsilon=1.0),
    ):
        with pytest.raises(TypeError, match=r"cost must be float32 or float64; .*cost.double\(\)"):
            solve(cost)


def test_a_solver_without_iterations_is_refused() -> None:
    with pytest.raises(TypeError, match="solver must take max_iter, and transport does not"):
        ot.trace(ot.transport, torch.zeros(2, 2))
