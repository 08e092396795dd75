import importlib

import ot as pot
import pytest
import torch
from torch import Tensor

import hotnas_torch.ot as ot
from hotnas_torch.errors import ConvergenceWarning
from tests.generators.oracles import fgw_objective
from tests.generators.problems import F64, Graphs, graphs, uniform

derivatives = importlib.import_module("hotnas_torch.ot._operators.entropic_fgw")
LOSSES = ("l1", "l2")
PAIRS = ("all", "directed", "ordered")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("pairs", PAIRS)
def test_the_parts_of_the_result_fit_together(
    loss: str, pairs: str, rng: torch.Generator, backend: str
) -> None:
    problem = graphs(rng, 3, 4, 5, absent=0.2)
    cost, struct_x, struct_y, a, b, alpha = problem.tensors()
    result = ot.entropic_fgw(
        cost, struct_x, struct_y, a, b, epsilon=0.2, loss=loss, pairs=pairs, backend=backend
    )
    assert result.raise_if_failed() is result
    codes = LOSSES.index(loss), PAIRS.index(pairs)
    expected = fgw_objective(result.plan, cost, struct_x, struct_y, alpha, *codes)
    assert torch.allclose(result.objective, expected, atol=1e-13)
    assert torch.allclose(result.cost_linear, 0.5 * (result.plan * cost).sum((1, 2)))
    assert torch.allclose(result.cost_linear + result.cost_quad, result.objective)
    assert torch.allclose(result.plan.sum(2), a, atol=1e-6)
    exact = ot.fgw(*problem.tensors()[:5], loss=loss, pairs=pairs, num_starts=3, backend=backend)
    assert result.objective.mean() > exact.objective.mean()


def test_proximal_steps_shed_the_bias(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 4, 4, 4, even=True)
    arguments = problem.tensors()[:3]
    options = {"epsilon": 0.1, "loss": "l2", "backend": backend}
    mirror = ot.entropic_fgw(*arguments, **options)
    proximal = ot.entropic_fgw(
        *arguments, **options, method="proximal", tol=1e-3, inner_max_iter=100
    )
    assert (proximal.objective < mirror.objective).all()


def test_leading_dimensions_are_kept(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 6, 3, 4)
    cost, struct_x, struct_y, *_ = problem.tensors()
    result = ot.entropic_fgw(
        cost.reshape(2, 3, 3, 4), struct_x.reshape(2, 3, 3, 3), struct_y[0], epsilon=0.3,
        backend=backend,
    )  # fmt: skip
    assert result.log_plan.shape == (2, 3, 3, 4)
    assert result.objective.shape == result.residual.shape == (2, 3)
    alone = ot.entropic_fgw(cost[4], struct_x[4], struct_y[0], epsilon=0.3, backend=backend)
    assert alone.plan.shape == (3, 4)
    assert torch.equal(alone.log_plan, result.log_plan[1, 1])


def balanced(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)


def solve(tensors: list[Tensor], **options: object) -> ot.EntropicFGWResult:
    cost, struct_x, struct_y, a, b, alpha = tensors
    defaults = {"epsilon": 0.2, "alpha": alpha, "tol": 1e-13}
    return ot.entropic_fgw(
        cost, struct_x, struct_y, balanced(a), balanced(b), **(defaults | options)
    )


def leaves(problem: Graphs) -> list[Tensor]:
    return [tensor.clone().requires_grad_() for tensor in problem.tensors()]


def weighted(result: ot.EntropicFGWResult, rng: torch.Generator) -> Tensor:
    """A number that depends on every differentiable output."""
    total = result.objective.sum()
    for part in (result.cost_linear, result.cost_quad, result.plan, result.f, result.g):
        total = total + (torch.rand(part.shape, generator=rng, dtype=F64) * part).sum()
    return total


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("pairs", PAIRS)
def test_implicit_and_unrolled_gradients_agree(loss: str, pairs: str, rng: torch.Generator) -> None:
    inputs = leaves(graphs(rng, 3, 3, 4))
    found = []
    for differentiate in ("implicit", "unroll"):
        result = solve(inputs, loss=loss, pairs=pairs, differentiate=differentiate)
        assert result.converged.all()
        weights = torch.Generator().manual_seed(1)
        found.append(torch.autograd.grad(weighted(result, weights), inputs))
    for implicit, unrolled in zip(*found, strict=True):
        assert torch.allclose(implicit, unrolled, atol=1e-10)
        assert implicit.count_nonzero() > 0


@pytest.mark.parametrize("differentiate", ["implicit", "unroll"])
def test_every_output_is_differentiable(differentiate: str, rng: torch.Generator) -> None:
    def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        result = solve(list(tensors), differentiate=differentiate)
        return result.plan, result.objective, result.cost_linear, result.f, result.g

    assert torch.autograd.gradcheck(outputs, leaves(graphs(rng, 1, 3, 2)))


def test_gradients_agree_with_pot(rng: torch.Generator, backend: str) -> None:
    """POT lets autograd record its iterations."""
    problem = graphs(rng, 2, 4, 5, symmetric=True, even=True)
    mine, theirs = leaves(problem), leaves(problem)
    result = solve(mine, loss="l2", backend=backend, differentiate="implicit")
    weights = torch.rand(result.plan.shape, generator=rng, dtype=F64)
    ours = torch.autograd.grad((result.plan * weights).sum() + result.objective.sum(), mine[:3])
    total = torch.zeros((), dtype=F64)
    for item in range(2):
        cost, struct_x, struct_y, a, b, alpha = (tensor[item] for tensor in theirs)
        value, log = pot.gromov.entropic_fused_gromov_wasserstein2(
            cost, struct_x, struct_y, a.detach(), b.detach(), epsilon=0.2, symmetric=True,
            alpha=alpha.item(), max_iter=200, tol=1e-12, log=True, numItermax=400, stopThr=1e-14,
        )  # fmt: skip
        total = total + value + (log["T"] * weights[item]).sum()
    expected = torch.autograd.grad(total, theirs[:3])
    assert torch.allclose(ours[0], expected[0], atol=1e-8)
    # Of symmetric structures, either side may count an entry for its mirror image.
    for found, wanted in zip(ours[1:], expected[1:], strict=True):
        assert torch.allclose(found + found.mT, wanted + wanted.mT, atol=1e-8)


def test_proximal_steps_have_the_gradient_of_the_exact_solver(
    rng: torch.Generator, backend: str
) -> None:
    """Where both end in the same coupling."""
    problem = graphs(rng, 6, 3, 4, alpha=0.3)
    mine, theirs = leaves(problem), leaves(problem)
    found = solve(mine, method="proximal", epsilon=0.05, tol=1e-10, max_iter=5000, backend=backend)
    cost, struct_x, struct_y, a, b, alpha = theirs
    exact = ot.fgw(
        cost, struct_x, struct_y, balanced(a), balanced(b), alpha=alpha, num_starts=3,
        tol=1e-10, backend=backend,
    )  # fmt: skip
    same = (found.plan - exact.plan).abs().amax((1, 2)) < 1e-6
    assert same.sum() >= 3
    ours = torch.autograd.grad(found.objective[same].sum(), mine)
    expected = torch.autograd.grad(exact.objective[same].sum(), theirs)
    for gradient, wanted in zip(ours, expected, strict=True):
        assert torch.allclose(gradient, wanted, atol=1e-5)
    with pytest.raises(RuntimeError, match='plan of entropic_fgw with method="proximal"'):
        found.cost_linear.sum().backward()


def test_unrolling_differentiates_what_was_computed(rng: torch.Generator) -> None:
    def after_two_steps(*tensors: Tensor) -> Tensor:
        return solve(
            list(tensors), max_iter=2, inner_max_iter=2, validate=False, differentiate="unroll"
        ).objective

    inputs = leaves(graphs(rng, 2, 3, 3))
    assert torch.autograd.gradcheck(after_two_steps, inputs)
    unrolled = torch.autograd.grad(after_two_steps(*inputs).sum(), inputs[0])[0]
    early = solve(inputs, max_iter=2, inner_max_iter=2, validate=False).objective
    implicit = torch.autograd.grad(early.sum(), inputs[0])[0]
    assert not torch.allclose(unrolled, implicit, atol=1e-4)


def test_gradients_of_the_masses_are_finite_with_absent_nodes(rng: torch.Generator) -> None:
    problem = graphs(rng, 3, 4, 5, absent=0.5)
    for method in ("mirror", "proximal"):
        inputs = leaves(problem)
        result = solve(inputs, method=method, tol=1e-4, inner_max_iter=50)
        for gradient in torch.autograd.grad(result.objective.sum(), inputs):
            assert gradient.isfinite().all()
            assert gradient.count_nonzero() > 0


def test_unrolled_gradients_beside_absent_nodes_are_those_without_them(
    rng: torch.Generator,
) -> None:
    full = graphs(rng, 1, 3, 4).tensors()
    kept = [tensor.clone().requires_grad_() for tensor in full[:3]]
    padded = [
        torch.nn.functional.pad(tensor, (0, 1, 0, 1), value=torch.nan).requires_grad_()
        for tensor in full[:3]
    ]
    masses = [torch.nn.functional.pad(tensor, (0, 1)) for tensor in full[3:5]]
    for method in ("mirror", "proximal"):
        options = {"method": method, "epsilon": 0.3, "differentiate": "unroll", "tol": 1e-4}
        alone = ot.entropic_fgw(*kept, *full[3:5], **options).objective
        beside = ot.entropic_fgw(*padded, *masses, **options).objective
        expected = torch.autograd.grad(alone.sum(), kept)
        for found, right in zip(torch.autograd.grad(beside.sum(), padded), expected, strict=True):
            assert torch.allclose(found[..., :-1, :-1], right, rtol=1e-10, atol=1e-14)


def test_stopping_early_warns(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 3, 4, 4)
    with pytest.warns(ConvergenceWarning, match="entropic_fgw: 3 of 3 items MAX_ITER"):
        ot.entropic_fgw(*problem.tensors()[:3], epsilon=0.05, max_iter=1, backend=backend)


def test_options_out_of_range() -> None:
    inputs = (torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2, 2))
    cases = [
        ({"epsilon": 0.0}, ValueError, "epsilon must be finite and positive"),
        ({"epsilon": 0.1, "method": "newton"}, ValueError, 'method must be "mirror" or "proximal"'),
        ({"epsilon": 0.1, "inner_tol": -1.0}, ValueError, "inner_tol must be finite"),
        ({"epsilon": 0.1, "inner_max_iter": 0}, ValueError, "inner_max_iter must be at least 1"),
        ({"epsilon": 0.1, "tol": torch.tensor(1.0)}, TypeError, "tol must be a number"),
        ({"epsilon": 0.1, "differentiate": "no"}, ValueError, 'must be "implicit" or "unroll"'),
    ]
    for options, error, message in cases:
        with pytest.raises(error, match=message):
            ot.entropic_fgw(*inputs, **options)


def test_single_precision_converges_by_default(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 5, 5, 5).to(torch.float32)
    result = ot.entropic_fgw(*problem.tensors()[:3], epsilon=0.2, backend=backend)
    assert result.converged.all()
    assert result.plan.dtype == torch.float32
    assert result.objective.dtype != F64


@pytest.mark.parametrize("symmetric", [True, False])
def test_large_problems_agree_with_pot(symmetric: bool, rng: torch.Generator, backend: str) -> None:
    cost, x, y = uniform(rng, 18, 21), uniform(rng, 18, 18), uniform(rng, 21, 21)
    if symmetric:
        x, y = x + x.mT, y + y.mT
    result = ot.entropic_fgw(
        cost, x + 1e3, y + 1e3, epsilon=0.1, loss="l2", pairs="all", tol=1e-9, backend=backend
    )
    expected = pot.gromov.entropic_fused_gromov_wasserstein(
        cost.numpy(), x.numpy(), y.numpy(), epsilon=0.1, tol=1e-11, symmetric=symmetric
    )
    assert bool(result.converged)
    assert (result.plan - torch.from_numpy(expected)).abs().sum() < 1e-6


@pytest.mark.parametrize("loss", LOSSES)
def test_both_ways_to_solve_for_the_gradient_agree(
    loss: str, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = graphs(rng, 3, 5, 6)
    tensors = [tensor.requires_grad_() for tensor in problem.tensors()[:3]]

    def gradients() -> tuple[Tensor, ...]:
        result = ot.entropic_fgw(*tensors, epsilon=0.2, loss=loss, tol=1e-12)
        return torch.autograd.grad(result.objective.sum() + result.plan.square().sum(), tensors)

    by_products = gradients()
    monkeypatch.setattr(derivatives, "_MOST_PRODUCTS", 0)
    for one, other in zip(by_products, gradients(), strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("big", [1e20, 1e38])
def test_what_absent_nodes_hold_changes_no_gradient_of_others(
    loss: str, big: float, rng: torch.Generator
) -> None:
    given = [uniform(rng, *shape).float() for shape in ((3, 3), (3, 3), (3, 3))]

    def gradients(held: float) -> list[Tensor]:
        cost, x, y = (value.clone() for value in given)
        x[2] = x[:, 2] = held
        a, b = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.3, 0.7, 0.0])
        leaves = [value.requires_grad_() for value in (cost, x, y, a, b)]
        ot.entropic_fgw(*leaves, epsilon=0.5, loss=loss).objective.backward()
        return [leaf.grad for leaf in leaves]

    expected, found = gradients(0.0), gradients(big)
    for one, other in zip(found, expected, strict=True):
        assert bool(one.isfinite().all())
        there = torch.ones_like(one, dtype=torch.bool)
        if one.dim() == 1:
            there[2] = False  # its own mass meets what it holds
        assert torch.equal(one[there], other[there])


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_no_items_have_no_gradients(loss: str) -> None:
    cost = torch.rand(0, 3, 3, requires_grad=True)
    nothing = torch.rand(0, 3, 3)
    ot.entropic_fgw(cost, nothing, nothing, epsilon=0.5, loss=loss).objective.sum().backward()
    assert cost.grad.shape == (0, 3, 3)
