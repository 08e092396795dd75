import numpy as np
import ot as pot
import pytest
import torch
from torch import Tensor

import hotnas_torch as ht
from tests.generators.problems import F64, masses, uniform


def squares(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.cdist(p, q).square() for p, q in ((x, y), (x, x), (y, y)))


def by_formula(cost: Tensor, a: Tensor, b: Tensor, epsilon: float) -> float:
    """Entropic transport in plain numpy: <C, T> + epsilon KL(T | ab')."""
    m, u, v = cost.numpy(), a.numpy(), b.numpy()
    f, g = np.zeros(len(u)), np.zeros(len(v))
    for _ in range(20_000):
        f = -epsilon * np.log((np.exp((g - m) / epsilon) * v).sum(1))
        g = -epsilon * np.log((np.exp((f[:, None] - m) / epsilon) * u[:, None]).sum(0))
    return float(f @ u + g @ v)


def test_it_is_the_formula(rng: torch.Generator, backend: str) -> None:
    x, y = uniform(rng, 3, 5, 2), uniform(rng, 3, 4, 2)
    a, b = masses(rng, 3, 5), masses(rng, 3, 4)
    costs = squares(x, y)
    found = ht.ot.sinkhorn_divergence(*costs, a, b, epsilon=0.1, backend=backend)
    for item in range(3):
        between, of_x, of_y = (
            by_formula(cost[item], p[item], q[item], 0.1)
            for cost, p, q in zip(costs, (a, a, b), (b, a, b), strict=True)
        )
        assert float(found.between[item]) == pytest.approx(between, abs=1e-9)
        assert float(found.objective[item]) == pytest.approx(
            between - of_x / 2 - of_y / 2, abs=1e-9
        )
    assert bool(found.converged.all())


def test_it_is_that_of_pot(rng: torch.Generator) -> None:
    x, y = uniform(rng, 6, 2), uniform(rng, 5, 2)
    found = ht.ot.sinkhorn_divergence(*squares(x, y), epsilon=0.2)
    theirs = pot.solve_sample(x.numpy(), y.numpy(), reg=0.2, debias=True, tol=1e-12).value
    assert float(found.objective) == pytest.approx(float(theirs), rel=1e-6)


def test_it_is_never_negative_and_zero_between_equals(rng: torch.Generator) -> None:
    x, y = uniform(rng, 50, 6, 2), uniform(rng, 50, 4, 2)
    a, b = masses(rng, 50, 6, absent=0.3), masses(rng, 50, 4, absent=0.3)
    for epsilon in (0.1, 0.5, 10.0):
        found = ht.ot.sinkhorn_divergence(*squares(x, y), a, b, epsilon=epsilon)
        assert bool((found.objective > 0).all())
        same = ht.ot.sinkhorn_divergence(*squares(x, x), a, a, epsilon=epsilon)
        assert torch.equal(same.objective, torch.zeros(50, dtype=F64))


def test_it_goes_from_transport_to_a_kernel_distance(rng: torch.Generator) -> None:
    x, y = uniform(rng, 5, 2), uniform(rng, 5, 2) + 0.5
    costs = squares(x, y)
    exact = ht.ot.transport(costs[0]).objective
    small = ht.ot.sinkhorn_divergence(*costs, epsilon=0.02, tol=1e-4, max_iter=100_000)
    assert float(small.objective) == pytest.approx(float(exact), rel=0.1)
    between, of_x, of_y = (cost.mean() for cost in costs)
    large = ht.ot.sinkhorn_divergence(*costs, epsilon=1e4)
    assert float(large.objective) == pytest.approx(float(between - of_x / 2 - of_y / 2), rel=1e-3)


def test_it_has_the_gradient_of_finite_differences(rng: torch.Generator) -> None:
    def divergence(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        costs = ((x[:, None] - y).square().sum(-1), *(
            (p[:, None] - p).square().sum(-1) for p in (x, y)
        ))  # fmt: skip
        return ht.ot.sinkhorn_divergence(
            *costs, a.softmax(0), b.softmax(0), epsilon=0.3, tol=1e-13, validate=False
        ).objective

    inputs = [uniform(rng, *shape).requires_grad_() for shape in ((4, 2), (3, 2), (4,), (3,))]
    assert torch.autograd.gradcheck(divergence, inputs)
    with torch.random.fork_rng():  # from which it draws what it weighs the gradients with
        assert torch.autograd.gradgradcheck(divergence, inputs, atol=1e-4)


def test_the_potentials_are_the_derivative_in_the_masses(rng: torch.Generator) -> None:
    costs = squares(uniform(rng, 4, 2), uniform(rng, 3, 2))
    a = masses(rng, 1, 4)[0].requires_grad_()
    found = ht.ot.sinkhorn_divergence(*costs, a, epsilon=0.1)
    (slope,) = torch.autograd.grad(found.objective, a)
    potential = found.f.detach()
    assert torch.allclose(slope - slope.mean(), potential - potential.mean(), atol=1e-7)


def test_absent_nodes_and_batches_change_nothing(rng: torch.Generator) -> None:
    x, y = uniform(rng, 2, 3, 5, 2), uniform(rng, 3, 4, 2)
    a = masses(rng, 6, 5).reshape(2, 3, 5)
    a = torch.where(torch.arange(5) == 4, 0, a)
    a = a / a.sum(-1, keepdim=True)
    between, of_x, of_y = torch.cdist(x, y).square(), torch.cdist(x, x).square(), torch.cdist(y, y)
    of_x = of_x.index_fill(-1, torch.tensor([4]), torch.nan)
    found = ht.ot.sinkhorn_divergence(between, of_x, of_y.square(), a, epsilon=0.2)
    assert found.objective.shape == (2, 3)
    alone = ht.ot.sinkhorn_divergence(
        between[1, 2, :4], of_x[1, 2, :4, :4], of_y[2].square(), a[1, 2, :4], epsilon=0.2
    )
    assert float(alone.objective) == pytest.approx(float(found.objective[1, 2]), abs=1e-12)
    assert float(found.f[1, 2, 4]) == -torch.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cost_x": torch.zeros(4, 3, dtype=F64)}, r"cost_x must have shape \(\*batch, 4, 4\)"),
        ({"cost_y": torch.zeros(3, 3)}, "cost_y must have the dtype of cost"),
        ({"cost_x": np.zeros((4, 4))}, "cost_x must be a torch.Tensor"),
        ({"cost_x": torch.full((4, 4), torch.nan, dtype=F64)}, "cost_x must be finite"),
        ({"cost": torch.full((4, 3), torch.inf, dtype=F64)}, "cost must be finite"),
        ({"epsilon": 0.0}, "epsilon must be finite and positive"),
        ({"a": torch.ones(4, dtype=F64)}, "a must be non-negative and sum to 1"),
        ({"cost_y": torch.zeros(2, 3, 3, dtype=F64), "cost": torch.zeros(5, 4, 3, dtype=F64)},
         "the batch dimensions must agree"),
    ],
)  # fmt: skip
def test_wrong_calls_say_what_is_wrong(change: dict[str, object], message: str) -> None:
    call = {
        "cost": torch.zeros(4, 3, dtype=F64),
        "cost_x": torch.zeros(4, 4, dtype=F64),
        "cost_y": torch.zeros(3, 3, dtype=F64),
        "epsilon": 0.1,
    } | change
    with pytest.raises((TypeError, ValueError), match=message):
        ht.ot.sinkhorn_divergence(**call)


def test_few_iterations_are_said(rng: torch.Generator) -> None:
    costs = squares(uniform(rng, 5, 2), uniform(rng, 5, 2))
    with pytest.warns(ht.errors.ConvergenceWarning, match="sinkhorn_divergence"):
        ht.ot.sinkhorn_divergence(*costs, epsilon=0.01, max_iter=1)
