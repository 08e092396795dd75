from math import inf

import ot as pot
import pytest
import torch
from torch import Tensor

from hotnas_torch.ot._operators import (
    sinkhorn,
    unbalanced_objective,
    unbalanced_plan,
    unbalanced_sinkhorn,
    unbalanced_value,
)
from tests.generators.problems import F64, masses, uniform

KL, TV = 0, 1
WEIGHTS = [(0.5, 0.5), (2.0, 0.3), (inf, 0.4), (0.4, inf), (0.0, 1.0)]


def problem(rng: torch.Generator, batch: int, n: int, m: int, absent: float = 0.0):
    a, b = masses(rng, batch, n, absent=absent), masses(rng, batch, m, absent=absent)
    return uniform(rng, batch, n, m), a * (0.5 + uniform(rng, batch, 1)), b


def solve(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    weights: tuple[float, float],
    kind: int,
    *,
    backend: str,
    epsilon: float = 0.1,
    tol: float = 1e-10,
    max_iter: int = 10_000,
) -> tuple[Tensor, ...]:
    return unbalanced_sinkhorn(cost, a, b, epsilon, *weights, kind, tol, max_iter, backend=backend)


@pytest.mark.parametrize("kind", [KL, TV], ids=["kl", "tv"])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("n", "m", "absent"), [(1, 1, 0.0), (1, 4, 0.0), (5, 7, 0.3)])
def test_plan_and_duals_have_the_same_value(
    kind: int,
    weights: tuple[float, float],
    n: int,
    m: int,
    absent: float,
    rng: torch.Generator,
    backend: str,
) -> None:
    cost, a, b = problem(rng, 5, n, m, absent)
    f, g, residual, _, status = solve(cost, a, b, weights, kind, backend=backend)
    assert (status == 0).all()
    assert (residual <= 1e-10).all()
    plan = unbalanced_plan(cost, a, b, f, g, 0.1)
    settings = (0.1, *weights, kind)
    primal = unbalanced_value(plan, cost, a, b, *settings)
    dual = unbalanced_objective(cost, a, b, f, g, *settings)
    assert torch.allclose(primal, dual, atol=1e-8)
    for weight, mass, wanted in ((weights[0], plan.sum(2), a), (weights[1], plan.sum(1), b)):
        if weight == inf:
            assert (mass - wanted).abs().sum() < 5e-9


@pytest.mark.parametrize("weights", [(1.0, 1.0), (10.0, 0.3), (1.0, inf)])
@pytest.mark.parametrize(("n", "m"), [(8, 8), (6, 9)])
def test_never_above_pot(
    n: int, m: int, weights: tuple[float, float], rng: torch.Generator
) -> None:
    count = 100
    cost, a, b = problem(rng, count, n, m)
    settings = (0.1, *weights, KL)
    f, g, *_ = solve(cost, a, b, weights, KL, backend="auto", tol=1e-12)
    ours = unbalanced_value(unbalanced_plan(cost, a, b, f, g, 0.1), cost, a, b, *settings)
    plans = [
        torch.as_tensor(
            pot.unbalanced.sinkhorn_unbalanced(
                *(t[k].numpy() for t in (a, b, cost)), 0.1, weights, numItermax=5000
            )
        )
        for k in range(count)
    ]
    theirs = unbalanced_value(torch.stack(plans), cost, a, b, *settings)
    assert (ours - theirs <= 1e-6 * theirs.abs()).all()


@pytest.mark.filterwarnings("ignore:scipy.optimize")
def test_the_total_variation_is_never_above_pot(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 10, 4, 5)
    f, g, *_ = solve(cost, a, b, (0.3, 0.3), TV, backend=backend, epsilon=0.2)
    ours = unbalanced_objective(cost, a, b, f, g, 0.2, 0.3, 0.3, TV)
    for item in range(10):
        row, column, matrix = (tensor[item].numpy() for tensor in (a, b, cost))
        plan = pot.unbalanced.lbfgsb_unbalanced(
            row, column, matrix, 0.2, 0.3, reg_div="kl", regm_div="tv", numItermax=5000
        )
        one = slice(item, item + 1)
        theirs = unbalanced_value(
            torch.as_tensor(plan)[None], cost[one], a[one], b[one], 0.2, 0.3, 0.3, TV
        )
        assert ours[item].item() <= theirs.item() + 1e-9


def test_one_pair_has_a_closed_form(backend: str) -> None:
    # rho log(p / a) + rho log(p / b) + c + epsilon log(p / (a b)) = 0
    cost, a, b = (torch.tensor(x, dtype=F64) for x in ([[[0.7]]], [[2.0]], [[3.0]]))
    epsilon, rho = 0.1, 0.5
    f, g, *_ = solve(cost, a, b, (rho, rho), KL, backend=backend, tol=1e-14)
    log_mass = ((rho + epsilon) * (a * b).log().sum() - cost.sum()) / (2 * rho + epsilon)
    assert torch.allclose(unbalanced_plan(cost, a, b, f, g, epsilon).sum(), log_mass.exp())


def test_held_masses_are_those_of_sinkhorn(rng: torch.Generator, backend: str) -> None:
    cost, _, b = problem(rng, 5, 4, 6)
    a = masses(rng, 5, 4)
    f, g, *_ = solve(cost, a, b, (inf, inf), KL, backend=backend)
    u, v, *_ = sinkhorn(cost, a, b, 0.1, 1e-11, 10_000, backend=backend)
    plan = ((u[:, :, None] + v[:, None, :] - cost) / 0.1).exp()
    assert torch.allclose(unbalanced_plan(cost, a, b, f, g, 0.1), plan, atol=1e-9)


@pytest.mark.parametrize("kind", [KL, TV], ids=["kl", "tv"])
def test_large_weights_take_no_longer(kind: int, rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 20, 5, 6)
    *_, few, status = solve(cost, a, b, (1e3, 1e3), kind, backend=backend, tol=1e-7)
    assert (status == 0).all()
    assert few.float().mean() < 1000


@pytest.mark.ext
@pytest.mark.parametrize("kind", [KL, TV], ids=["kl", "tv"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_backends_agree(kind: int, weights: tuple[float, float], rng: torch.Generator) -> None:
    cost, a, b = problem(rng, 20, 5, 6, absent=0.2)
    plans = []
    for backend in ("ext", "torch"):
        f, g, *_ = solve(cost, a, b, weights, kind, backend=backend)
        plans.append(unbalanced_plan(cost, a, b, f, g, 0.1))
    assert torch.allclose(*plans, atol=1e-8)


def test_small_epsilon_overflows_nowhere(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 4, 4, 5)
    f, g, _, _, status = solve(
        1e3 * cost, a, b, (1.0, 2.0), KL, backend=backend, epsilon=1.0, max_iter=2000
    )
    assert (status <= 1).all()
    assert f.isfinite().all()
    assert g.isfinite().all()


def test_what_is_no_problem_is_a_status(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 5, 3, 4)
    cost[0, 1, 1] = torch.nan
    a[1, 0] = -0.5
    b[2] = 0
    a[3, 0] = torch.inf
    f, *_, status = solve(cost, a, b, (1.0, 1.0), KL, backend=backend)
    assert status.tolist() == [2, 3, 3, 2, 0]
    assert f[:4].isnan().all()
    *_, status = solve(cost[4:], a[4:], 2 * b[4:], (inf, inf), KL, backend=backend)
    assert status.tolist() == [3]


@pytest.mark.parametrize("kind", [KL, TV], ids=["kl", "tv"])
@pytest.mark.parametrize("weights", [(0.7, 0.7), (0.3, 1.5), (inf, 0.5), (0.0, 0.5)])
def test_gradients(
    kind: int, weights: tuple[float, float], rng: torch.Generator, backend: str
) -> None:
    inputs = [tensor.requires_grad_() for tensor in problem(rng, 2, 3, 4)]
    settings = (0.3, *weights, kind)

    def outputs(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        f, g, *_ = solve(cost, a, b, weights, kind, backend=backend, epsilon=0.3, tol=1e-11)
        value = unbalanced_objective(cost, a, b, f, g, *settings)
        return value, unbalanced_plan(cost, a, b, f, g, 0.3), f, g

    assert torch.autograd.gradcheck(
        outputs, inputs, atol=1e-4, rtol=1e-3, check_forward_ad=True, fast_mode=True
    )


@pytest.mark.ext
def test_the_op_is_well_behaved(rng: torch.Generator) -> None:
    cost, a, b = problem(rng, 3, 3, 4)
    arguments = (cost, a, b, 0.1, 1.0, inf, 1, 1e-6, 100)
    torch.library.opcheck(torch.ops.hotnas.unbalanced_sinkhorn, arguments)
