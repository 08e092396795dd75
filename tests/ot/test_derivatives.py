"""Every way of torch to differentiate or transform the solvers: right, or refused in our words."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

import hotnas_torch.ot as ot
from tests.generators.problems import F64, masses, uniform

Solve = Callable[..., Tensor]


def balanced(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)


def transport(cost: Tensor, x: Tensor, y: Tensor, a: Tensor, b: Tensor, alpha: Tensor, **o: Any):
    del x, y, alpha
    return ot.transport(cost, balanced(a), balanced(b), **o)


def sinkhorn(cost: Tensor, x: Tensor, y: Tensor, a: Tensor, b: Tensor, alpha: Tensor, **o: Any):
    del x, y, alpha
    return ot.sinkhorn(cost, balanced(a), balanced(b), epsilon=0.3, tol=1e-13, **o)


def fgw(cost: Tensor, x: Tensor, y: Tensor, a: Tensor, b: Tensor, alpha: Tensor, **o: Any):
    return ot.fgw(cost, x, y, balanced(a), balanced(b), alpha=alpha, tol=1e-13, **o)


def partial_transport(
    cost: Tensor, x: Tensor, y: Tensor, a: Tensor, b: Tensor, alpha: Tensor, **o: Any
):
    del x, y
    return ot.partial_transport(cost, a, b, mass=0.6 + 0 * alpha, **o)


def partial_fgw(cost: Tensor, x: Tensor, y: Tensor, a: Tensor, b: Tensor, alpha: Tensor, **o: Any):
    return ot.partial_fgw(cost, x, y, a, b, mass=1.5 * alpha, alpha=alpha, tol=1e-13, **o)


def entropic(cost: Tensor, x: Tensor, y: Tensor, a: Tensor, b: Tensor, alpha: Tensor, **o: Any):
    # Proximal points end in the same optimum, five times sooner with less entropy.
    epsilon = 0.05 if o.get("method") == "proximal" else 0.3
    options = {"epsilon": epsilon, "alpha": alpha, "tol": 1e-12, "loss": "l2"}
    return ot.entropic_fgw(cost, x, y, balanced(a), balanced(b), **options, **o)


SOLVERS: dict[str, Callable[..., Any]] = {
    "transport": transport,
    "partial_transport": partial_transport,
    "sinkhorn": sinkhorn,
    "fgw": fgw,
    "partial_fgw": partial_fgw,
    "fgw l2": partial(fgw, loss="l2"),
    "entropic_fgw": entropic,
}
LINEAR = ("transport", "partial_transport", "sinkhorn")


def problem(batch: tuple[int, ...] = (2,), *, seed: int = 0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    count = 1
    for length in batch:
        count *= length
    tensors = [
        uniform(rng, count, 3, 4),
        uniform(rng, count, 3, 3),
        uniform(rng, count, 4, 4),
        masses(rng, count, 3),
        masses(rng, count, 4),
    ]
    return [tensor.reshape(*batch, *tensor.shape[1:]) for tensor in tensors] + [
        torch.full(batch, 0.4, dtype=F64)
    ]


def used(name: str) -> tuple[int, ...]:
    return (0, 3, 4) if name in LINEAR else (0, 1, 2, 3, 4, 5)


def objective_of(name: str, **options: object) -> Solve:
    return lambda *tensors: SOLVERS[name](*tensors, **options).objective


def test_a_tangent_of_ones_moves_transport_by_one(backend: str) -> None:
    cost = torch.tensor([[1.0, 2.0], [4.0, 3.0]])
    value, tangent = torch.func.jvp(
        lambda c: ot.transport(c, backend=backend).objective, (cost,), (torch.ones_like(cost),)
    )
    assert value.item() == 2
    assert tangent.item() == 1


@pytest.mark.parametrize("name", SOLVERS)
def test_both_modes_agree_with_finite_differences(name: str) -> None:
    given = problem()

    def objective(*some: Tensor) -> Tensor:
        tensors = list(given)
        for place, tensor in zip(used(name), some, strict=True):
            tensors[place] = tensor
        return objective_of(name)(*tensors)

    leaves = [given[place].clone().requires_grad_() for place in used(name)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert gradcheck(
            objective,
            leaves,
            check_forward_ad=True,
            check_batched_grad=True,
            atol=1e-4,
        )


@pytest.mark.parametrize("name", SOLVERS)
def test_transforms_agree_with_autograd(name: str, backend: str) -> None:
    given, objective = problem(), objective_of(name, backend=backend)
    for place in used(name):

        def function(value: Tensor, place: int = place) -> Tensor:
            return objective(*given[:place], value, *given[place + 1 :])

        expected = torch.autograd.functional.jacobian(function, given[place])
        assert torch.allclose(torch.func.jacrev(function)(given[place]), expected, atol=1e-10)
        assert torch.allclose(torch.func.jacfwd(function)(given[place]), expected, atol=1e-8)


def assert_same(name: str, found: Tensor, expected: Tensor) -> None:
    """Equal to the bit; but Sinkhorn is one operator where nothing tracks it, else its steps."""
    if name == "sinkhorn":
        torch.testing.assert_close(found, expected.detach(), rtol=1e-14, atol=1e-14)
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", SOLVERS)
def test_vmap_is_a_batch(name: str, backend: str) -> None:
    given, objective = problem((3, 2)), objective_of(name, backend=backend)
    expected = objective(*given)
    assert_same(name, torch.func.vmap(objective)(*given), expected)
    front = [tensor.movedim(0, 1) for tensor in given]
    assert_same(name, torch.func.vmap(objective, in_dims=1)(*front), expected)
    shared = torch.func.vmap(objective, in_dims=(0, None, None, None, None, None))
    found = shared(given[0], *(tensor[0] for tensor in given[1:]))[0]
    assert_same(name, found, objective(*(t[0] for t in given)))
    gradient = torch.func.grad(lambda *tensors: objective(*tensors).sum())
    assert torch.allclose(torch.func.vmap(gradient)(*given)[1], gradient(*(t[1] for t in given)))


@pytest.mark.parametrize("name", ["transport", "fgw", "fgw l2", "sinkhorn", "entropic_fgw"])
def test_hessians_agree_with_finite_differences(name: str) -> None:
    given, objective = problem(), objective_of(name)
    for place in used(name):
        if name.startswith("fgw") and place in (3, 4):
            continue

        def function(value: Tensor, place: int = place) -> Tensor:
            return objective(*given[:place], value, *given[place + 1 :]).sum()

        gradient = torch.func.grad(function)
        rng = torch.Generator().manual_seed(7)
        direction = torch.rand(given[place].shape, generator=rng, dtype=F64)
        step = 1e-5 * direction
        expected = (gradient(given[place] + step) - gradient(given[place] - step)) / 2e-5
        _, found = torch.func.jvp(gradient, (given[place],), (direction,))
        assert torch.allclose(found, expected, atol=1e-7)


def test_a_coupling_that_moves_refuses_second_derivatives(backend: str) -> None:
    # Convex in the coupling, with its optimum inside an edge of the polytope.
    graph = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=F64)
    cost = torch.tensor([[0.1, 0.0], [0.0, 0.0]], dtype=F64, requires_grad=True)

    def objective(cost: Tensor) -> Tensor:
        return ot.fgw(
            cost, graph, -graph, alpha=0.5, loss="l2", init="product", backend=backend
        ).objective

    plan = ot.fgw(cost.detach(), graph, -graph, alpha=0.5, loss="l2", init="product").plan
    (gradient,) = torch.autograd.grad(objective(cost), cost, create_graph=True)
    assert (plan > 0).all()
    with pytest.raises(RuntimeError, match="second derivative of fgw would have to move"):
        gradient.square().sum().backward()
    assert torch.func.hessian(objective)(cost.detach()).isnan().any()


def test_outputs_without_a_derivative_are_nan_in_forward_mode(backend: str) -> None:
    cost = problem()[0]
    ones = torch.ones_like(cost)
    _, plan = torch.func.jvp(lambda c: ot.transport(c, backend=backend).plan, (cost,), (ones,))
    assert (plan == 0).all()
    _, dual = torch.func.jvp(lambda c: ot.transport(c, backend=backend).f, (cost,), (ones,))
    assert dual.isnan().all()
    with pytest.raises(RuntimeError, match="fgw_lower_bound is not differentiable; detach"):
        torch.func.jvp(
            lambda c: ot.fgw_lower_bound(c, c @ c.mT, c.mT @ c, backend=backend), (cost,), (ones,)
        )


def test_the_entropic_tangents_are_those_of_finite_differences() -> None:
    cost = torch.tensor([[1.0, 2.0], [4.0, 3.0]], dtype=F64)
    graph = torch.tensor([[0.0, 1.0], [2.0, 0.0]], dtype=F64)
    masses = torch.tensor([0.3, 0.7], dtype=F64)
    turn = torch.tensor([[1.0, 0.0], [0.0, 0.5]], dtype=F64)

    def objective(cost: Tensor, a: Tensor) -> Tensor:
        return ot.entropic_fgw(cost, graph, graph.T, a, epsilon=0.5, tol=1e-13).objective

    for tangent in (
        (turn, torch.zeros_like(masses)),
        (torch.zeros_like(cost), torch.tensor([1.0, -1.0], dtype=F64)),
    ):
        _, found = torch.func.jvp(objective, (cost, masses), tangent)
        step = 1e-6
        ahead = objective(cost + step * tangent[0], masses + step * tangent[1])
        behind = objective(cost - step * tangent[0], masses - step * tangent[1])
        assert found.item() == pytest.approx((ahead - behind).item() / (2 * step), abs=1e-7)


@pytest.mark.parametrize(
    "solve",
    [
        sinkhorn,
        entropic,
        pytest.param(partial(entropic, method="proximal"), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("place", [3, 4], ids=["a", "b"])
def test_unrolled_steps_refuse_the_derivative_in_a_mass_of_zero(solve: Solve, place: int) -> None:
    given = problem(())
    given[place][1] = 0
    options = {"differentiate": "unroll", "validate": False}

    def function(masses: Tensor) -> Tensor:
        return solve(*given[:place], masses, *given[place + 1 :], **options).objective

    assert function(given[place]).isfinite()
    message = rf'{"ab"[place - 3]} is 0 at node 1 of item 0, and differentiate="unroll" has no'
    leaf = given[place].clone().requires_grad_()
    direction = (torch.ones_like(leaf),)
    for attempt in (
        lambda: function(leaf),
        lambda: torch.func.grad(function)(given[place]),
        lambda: torch.func.jvp(function, (given[place],), direction),
    ):
        with pytest.raises(ValueError, match=message):
            attempt()
    assert function(given[place] + 0.1).isfinite()


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which torch keeps to itself
def test_unrolled_steps_run_beside_compiled_code() -> None:
    cost, *_, masses, others, _ = problem(())
    a, b = balanced(masses), balanced(others)
    b[0], b[1] = 0, b[0] + b[1]

    def objective(a: Tensor) -> Tensor:
        return ot.sinkhorn(cost, a, b, epsilon=0.3, differentiate="unroll").objective

    leaf = a.clone().requires_grad_()
    expected = torch.autograd.grad(objective(leaf), leaf)
    compiled = torch.compile(objective, backend="aot_eager")
    assert torch.allclose(torch.autograd.grad(compiled(leaf), leaf)[0], expected[0])
    absent = a.clone()
    absent[0], absent[1] = 0, a[0] + a[1]
    with pytest.raises(ValueError, match="a is 0 at node 0 of item 0"):
        compiled(absent.requires_grad_())


def test_unrolled_steps_do_not_run_under_vmap() -> None:
    with pytest.raises(RuntimeError, match=r'differentiate="unroll" records steps whose number'):
        torch.func.vmap(lambda c: ot.sinkhorn(c, epsilon=0.3, differentiate="unroll").objective)(
            problem()[0]
        )


@pytest.mark.parametrize("name", SOLVERS)
def test_autocast_and_inference_mode_change_nothing(name: str, backend: str) -> None:
    given, objective = problem(), objective_of(name, backend=backend)

    def run() -> tuple[Tensor, Tensor]:
        cost = given[0].clone().requires_grad_()
        value = objective(cost, *given[1:])
        return value, torch.autograd.grad(value.sum(), cost)[0]

    expected = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run()
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)
    with torch.inference_mode():
        assert_same(name, objective(*given), expected[0])


def compiled_agrees(name: str, **options: object) -> None:
    given = [tensor.requires_grad_() for tensor in problem()]
    leaves = [given[place] for place in used(name)]
    expected = SOLVERS[name](*given)

    def solve(*given: Tensor) -> tuple[Tensor, ...]:
        result = SOLVERS[name](*given)
        return result.objective, result.status, result.converged

    torch._dynamo.reset()
    objective, status, converged = torch.compile(solve, backend="aot_eager", **options)(*given)
    assert torch.equal(objective, expected.objective)
    assert torch.equal(status, expected.status)
    assert torch.equal(converged, expected.converged)
    found = torch.autograd.grad(objective.sum(), leaves)
    wanted = torch.autograd.grad(expected.objective.sum(), leaves)
    for mine, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12)


@pytest.mark.compile
def test_a_compiled_transport_has_its_gradient_and_refuses_that_of_the_plan() -> None:
    compiled_agrees("transport")
    compiled_agrees("transport", dynamic=True, fullgraph=True)
    cost = problem()[0].requires_grad_()
    result = torch.compile(ot.transport, backend="aot_eager")(cost)
    with pytest.raises(RuntimeError, match="the loss depends on plan of transport"):
        result.plan.square().sum().backward()


@pytest.mark.compile
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which torch keeps to itself
@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("options", [{}, {"dynamic": True, "fullgraph": True}], ids=str)
def test_compiled_solvers_have_their_gradients(name: str, options: dict[str, object]) -> None:
    compiled_agrees(name, **options)


@pytest.mark.compile
@pytest.mark.slow
def test_transforms_run_inside_compiled_functions() -> None:
    cost = problem()[0]

    def tangent(cost: Tensor) -> Tensor:
        return torch.func.jvp(lambda c: ot.transport(c).objective, (cost,), (cost,))[1]

    torch._dynamo.reset()
    compiled = torch.compile(tangent, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(cost), ot.transport(cost).objective)


ENTERING: dict[str, Solve] = {
    "transport": lambda *some, **o: transport(*some, **o).objective,
    "sinkhorn": lambda *some, **o: sinkhorn(*some, **o).objective,
    "sinkhorn cost": lambda *some, **o: sinkhorn(*some, **o).cost_linear,
    "sinkhorn plan": lambda *some, **o: weighted(sinkhorn(*some, **o).plan),
    "fgw": lambda *some, **o: fgw(*some, **o).objective,
    "mirror": lambda *some, **o: entropic(*some, **o).objective,
    "mirror cost": lambda *some, **o: entropic(*some, **o).cost_linear,
    "mirror plan": lambda *some, **o: weighted(entropic(*some, **o).plan),
    "proximal": lambda *some, **o: entropic(*some, method="proximal", **o).objective,
}


def weighted(plan: Tensor) -> Tensor:
    return (plan * torch.arange(plan.shape[-2] * plan.shape[-1]).reshape(plan.shape[-2:])).sum()


@pytest.mark.parametrize("name", ENTERING)
@pytest.mark.parametrize("place", [3, 4], ids=["a", "b"])
def test_the_first_mass_of_an_absent_node_changes_what_its_limit_says(
    name: str, place: int, backend: str
) -> None:
    given = problem(())
    given[3][1], given[4][2] = 0, 0
    absent = given[place] == 0
    solve = partial(ENTERING[name], backend=backend)

    def function(masses: Tensor) -> Tensor:
        return solve(*given[:place], masses, *given[place + 1 :])

    step = 1e-7
    expected = (function(given[place] + step * absent) - function(given[place])).item() / step
    _, tangent = torch.func.jvp(function, (given[place],), (absent.to(F64),))
    leaf = given[place].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf), leaf)
    assert abs(expected) > 1e-3
    assert gradient[absent].sum().item() == pytest.approx(expected, abs=1e-4)
    assert tangent.item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", SOLVERS)
def test_forward_mode_inside_forward_mode_is_refused(name: str) -> None:
    cost, *rest = problem()
    for inner in (torch.func.jacfwd, torch.func.jacrev):
        nested = torch.func.jacfwd(inner(lambda c: objective_of(name)(c, *rest).sum()))
        if inner is torch.func.jacrev:
            assert nested(cost).shape == (*cost.shape, *cost.shape)
            continue
        with pytest.raises(RuntimeError, match="forward mode inside forward mode does not reach"):
            nested(cost)


@pytest.mark.parametrize("name", SOLVERS)
def test_transforms_that_no_rule_serves_are_refused(name: str) -> None:
    cost, *rest = problem()

    def objective(c: Tensor) -> Tensor:
        return objective_of(name, validate=False)(c, *rest)

    # It keeps what the first tangent left in place of what the second one needs.
    with pytest.raises(RuntimeError, match=r"torch\.func\.linearize cannot record .*; use torch"):
        torch.func.linearize(objective, cost)
    with pytest.raises(RuntimeError, match=r"torch\.func\.functionalize has no rule for "):
        torch.func.functionalize(objective)(cost)


@pytest.mark.parametrize("name", ["transport"])
def test_inference_tensors_are_refused_where_a_gradient_is_asked_for(name: str) -> None:
    given = problem()
    with torch.inference_mode():
        cost = given[0].clone()
    assert objective_of(name)(cost, *given[1:]).isfinite().all()
    given[3].requires_grad_()
    with pytest.raises(RuntimeError, match=r"an input was made under torch\.inference_mode"):
        objective_of(name)(cost, *given[1:])
