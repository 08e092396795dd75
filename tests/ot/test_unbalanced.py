"""Semi-relaxed and unbalanced solvers as they are called."""

from math import inf

import numpy as np
import ot as pot
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

import hotnas_torch as ht
from hotnas_torch.errors import ConvergenceWarning
from hotnas_torch.ot._operators import unbalanced_value
from tests.generators.problems import F64, graphs, masses, uniform

WEIGHTS = [(0.3, 0.3), (1.0, 0.1), (inf, 0.3)]
by_weights = pytest.mark.parametrize("reg_m", WEIGHTS)


def problem(rng: torch.Generator, batch: int, n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    a, b = masses(rng, batch, n, absent=0.2), masses(rng, batch, m, absent=0.2)
    return uniform(rng, batch, n, m), a * (0.5 + uniform(rng, batch, 1)), b


@by_weights
@pytest.mark.parametrize("penalty", ["kl", "tv"])
def test_unbalanced_transport_is_proved_by_its_duals(
    penalty: str, reg_m: tuple[float, float], rng: torch.Generator, backend: str
) -> None:
    cost, a, b = problem(rng, 6, 4, 5)
    found = ht.ot.unbalanced_transport(
        cost, a, b, reg_m=reg_m, penalty=penalty, tol=1e-5, backend=backend
    ).raise_if_failed()
    code = {"kl": 0, "tv": 1}[penalty]
    value = unbalanced_value(found.plan, cost, a, b, 0.0, *reg_m, code)
    assert torch.allclose(found.objective, value, atol=1e-9)
    present = (a > 0)[:, :, None] & (b > 0)[:, None, :]
    slack = cost - found.f[:, :, None] - found.g[:, None, :]
    assert (slack[present] >= -1e-12).all()
    dual = torch.zeros_like(value)
    for mass, weight, price in ((a, reg_m[0], found.f), (b, reg_m[1], found.g)):
        paid = -weight * torch.expm1(-price / weight) if penalty == "kl" and weight < inf else price
        dual = dual + torch.where(mass > 0, paid * mass, 0).sum(1)
    assert (value - dual <= found.gap + 1e-9).all()
    assert (found.gap <= 1e-5 * value.abs() + 1e-12).all()
    if reg_m[0] == inf:
        assert torch.allclose(found.plan.sum(2), a, atol=1e-9)


def test_unbalanced_transport_is_never_above_pot(rng: torch.Generator) -> None:
    cost, a, b = uniform(rng, 30, 8, 6), masses(rng, 30, 8), 2 * masses(rng, 30, 6)
    found = ht.ot.unbalanced_transport(cost, a, b, reg_m=(0.5, 0.2), validate=False)
    plans = [
        torch.as_tensor(
            pot.unbalanced.mm_unbalanced(a[k].numpy(), b[k].numpy(), cost[k].numpy(), (0.5, 0.2))
        )
        for k in range(30)
    ]
    theirs = unbalanced_value(torch.stack(plans), cost, a, b, 0.0, 0.5, 0.2, 0)
    assert (found.objective <= theirs * (1 + 1e-6)).all()


def test_the_total_variation_is_a_linear_program(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 10, 3, 4)
    found = ht.ot.unbalanced_transport(cost, a, b, reg_m=(0.2, 0.6), penalty="tv", backend=backend)
    rows = np.kron(np.eye(3), np.ones((1, 4)))
    columns = np.kron(np.ones((1, 3)), np.eye(4))
    masses_of = np.hstack([np.vstack([rows, columns]), np.eye(7), -np.eye(7)])
    for item in range(10):
        prices = np.r_[np.full(3, 0.2), np.full(4, 0.6)]
        solved = linprog(
            np.r_[cost[item].flatten().numpy(), prices, prices],
            A_eq=masses_of,
            b_eq=torch.cat([a[item], b[item]]).numpy(),
        )
        assert found.objective[item].item() == pytest.approx(solved.fun, abs=1e-9)


@pytest.mark.parametrize("penalty", ["kl", "tv"])
def test_gradients_of_unbalanced_transport(
    penalty: str, rng: torch.Generator, backend: str
) -> None:
    cost, a, b = (tensor.requires_grad_() for tensor in problem(rng, 2, 3, 4))

    def objective(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        found = ht.ot.unbalanced_transport(
            cost, a, b, reg_m=(0.4, 0.7), penalty=penalty, tol=1e-9, backend=backend, validate=False
        )
        return found.objective

    a, b = (a + 0.1).detach().requires_grad_(), (b + 0.1).detach().requires_grad_()
    assert torch.autograd.gradcheck(
        objective, (cost, a, b), atol=1e-4, check_forward_ad=True, fast_mode=True
    )
    (slope,) = torch.autograd.grad(objective(cost, a, b).sum(), cost, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative of unbalanced_transport"):
        slope.square().sum().backward()


def test_a_node_that_is_too_far_is_left_alone() -> None:
    cost = torch.tensor([[0.0, 9.0], [9.0, 9.0]], dtype=F64)
    found = ht.ot.unbalanced_transport(cost, reg_m=1.0, penalty="tv")
    assert found.plan.tolist() == [[0.5, 0.0], [0.0, 0.0]]
    assert found.objective.item() == 1.0


def test_items_are_solved_alone_as_in_a_batch(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 4, 3, 4)
    cost[1] *= 1000
    options = {"reg_m": 0.5, "backend": backend}
    together = ht.ot.unbalanced_transport(cost, a, b, **options)
    for item in range(4):
        alone = ht.ot.unbalanced_transport(cost[item], a[item], b[item], **options)
        assert torch.allclose(alone.plan, together.plan[item], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"reg_m": -1.0}, "reg_m must be at least 0"),
        ({"reg_m": float("nan")}, "reg_m must be at least 0"),
        ({"reg_m": (1.0, 2.0, 3.0)}, "one each for rows and columns"),
        ({"penalty": "l2"}, 'penalty must be one of "kl", "tv"'),
        ({"epsilon": 0.0}, "epsilon must be finite and positive"),
        ({"a": torch.zeros(3, dtype=F64)}, "a must be non-negative and have a finite sum"),
        ({"a": torch.tensor([1.0, -1.0, 2.0], dtype=F64)}, "has -1.0 at 1"),
        ({"b": torch.ones(4, dtype=F64), "reg_m": inf}, "must have equal sums"),
    ],
)
def test_what_unbalanced_sinkhorn_refuses(change: dict[str, object], says: str) -> None:
    arguments = {"epsilon": 0.1, "reg_m": 1.0, **change}
    with pytest.raises(ValueError, match=says):
        ht.ot.unbalanced_sinkhorn(torch.zeros(3, 4, dtype=F64), **arguments)
    with pytest.raises(TypeError, match="reg_m must be a number"):
        ht.ot.unbalanced_sinkhorn(torch.zeros(3, 4), epsilon=0.1, reg_m="much")


def test_what_unbalanced_transport_refuses() -> None:
    cost = torch.zeros(3, 4, dtype=F64)
    with pytest.raises(ValueError, match="reg_m must be positive"):
        ht.ot.unbalanced_transport(cost, reg_m=inf)
    with pytest.raises(ValueError, match=r"cost must be at least -\(reg_m"):
        ht.ot.unbalanced_transport(cost - 3, reg_m=1.0, penalty="tv")


def test_what_semirelaxed_fgw_refuses(rng: torch.Generator) -> None:
    p = graphs(rng, 2, 3, 4)
    given = p.cost, p.struct_x, p.struct_y, p.a, p.b
    start = p.a[:, :, None] * torch.tensor([1.0, 0, 0, 0], dtype=F64)
    assert ht.ot.semirelaxed_fgw(*given, init=start).converged.all()  # any column masses
    with pytest.raises(ValueError, match="init must have the row masses a"):
        ht.ot.semirelaxed_fgw(*given, init=2 * start)
    with pytest.raises(ValueError, match="needs a generator"):
        ht.ot.semirelaxed_fgw(*given, num_starts=4)
    p = graphs(rng, 20, 7, 8)
    with pytest.warns(ConvergenceWarning, match="semirelaxed_fgw"):
        ht.ot.semirelaxed_fgw(p.cost, p.struct_x, p.struct_y, p.a, num_starts=1, max_iter=1)


def test_padding_of_semirelaxed_fgw_changes_nothing(rng: torch.Generator, backend: str) -> None:
    p = graphs(rng, 3, 4, 5)
    pad = torch.nn.functional.pad
    found = ht.ot.semirelaxed_fgw(
        p.cost, p.struct_x, p.struct_y, p.a, p.b, num_starts=2, backend=backend
    )
    padded = ht.ot.semirelaxed_fgw(
        pad(p.cost, (0, 2, 0, 1), value=torch.nan),
        pad(p.struct_x, (0, 1, 0, 1), value=torch.nan),
        pad(p.struct_y, (0, 2, 0, 2), value=torch.inf),
        pad(p.a, (0, 1)),
        pad(p.b, (0, 2)),
        num_starts=2,
        backend=backend,
    )
    assert torch.allclose(padded.plan[:, :4, :5], found.plan, rtol=1e-14)
    assert torch.allclose(padded.objective, found.objective, rtol=1e-14)
    assert torch.equal(padded.column_masses[:, 5:], torch.zeros(3, 2, dtype=F64))


@pytest.mark.parametrize("solver", ["semirelaxed", "sinkhorn", "transport"])
def test_vmap_and_compositions(solver: str, rng: torch.Generator) -> None:
    p = graphs(rng, 3, 3, 4)

    def objective(cost: Tensor, x: Tensor, y: Tensor) -> Tensor:
        if solver == "semirelaxed":
            return ht.ot.semirelaxed_fgw(cost, x, y).objective
        if solver == "sinkhorn":
            return ht.ot.unbalanced_sinkhorn(cost, epsilon=0.3, reg_m=1.0).objective
        return ht.ot.unbalanced_transport(cost, reg_m=0.5, penalty="tv").objective

    given = p.cost, p.struct_x, p.struct_y
    mapped = torch.func.vmap(objective)(*given)
    assert torch.allclose(mapped, objective(*given))
    slope = torch.func.vmap(torch.func.grad(objective))(*given)
    cost = p.cost.clone().requires_grad_()
    objective(cost, *given[1:]).sum().backward()
    assert torch.allclose(slope, cost.grad)


@pytest.mark.parametrize("penalty", [0, 1])
def test_opcheck_of_unbalanced_transport(
    penalty: int, rng: torch.Generator, dtype: torch.dtype, backend: str
) -> None:
    given = (tensor.to(dtype) for tensor in problem(rng, 2, 3, 4))
    # It is composed: the backend of the operators inside is its last argument.
    arguments = (*given, 0.4, 0.7, penalty, 1e-3, 20, backend)
    torch.library.opcheck(torch.ops.hotnas_reference.unbalanced_transport.default, arguments)
