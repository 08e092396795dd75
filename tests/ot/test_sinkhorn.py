import numpy as np
import ot as pot
import pytest
import torch

import hotnas_torch.ot as ot
from hotnas_torch.errors import ConvergenceWarning
from tests.generators.problems import F64, masses, uniform


def test_the_parts_of_the_result_fit_together(rng: torch.Generator, backend: str) -> None:
    cost, a, b = uniform(rng, 2, 3, 4, 5), masses(rng, 3, 4, absent=0.3), masses(rng, 1, 5)[0]
    result = ot.sinkhorn(cost, a, b, epsilon=0.1, tol=1e-12, backend=backend)
    assert result.plan.shape == (2, 3, 4, 5)
    assert result.residual.shape == (2, 3)
    assert torch.allclose(result.cost_linear, (result.plan * cost).sum((2, 3)))
    product = a[:, :, None] * b
    divergence = torch.where(result.plan > 0, result.plan * (result.plan / product).log(), 0).sum(
        (2, 3)
    )
    assert torch.allclose(result.objective, result.cost_linear + 0.1 * divergence)
    again = ((result.f[..., :, None] + result.g[..., None, :] - cost) / 0.1).exp()
    assert torch.allclose(again, result.plan)
    present = torch.where(a > 0, result.f, 0)
    assert torch.allclose((present * a).sum(2), (result.g * b).sum(2))


def test_small_epsilon_approaches_exact_transport(rng: torch.Generator, backend: str) -> None:
    cost = uniform(rng, 4, 5, 5)
    exact = ot.transport(cost, backend=backend).objective
    previous = torch.full_like(exact, torch.inf)
    for epsilon in (1.0, 0.1, 0.03):
        objective = ot.sinkhorn(cost, epsilon=epsilon, tol=1e-5, backend=backend).objective
        assert (objective >= exact - 1e-5).all()
        assert (objective < previous).all()
        previous = objective
    assert torch.allclose(previous, exact, atol=0.05)


def test_every_output_is_differentiable(rng: torch.Generator, backend: str) -> None:
    cost = uniform(rng, 2, 3, 4).requires_grad_()
    logits = uniform(rng, 3).requires_grad_()

    def outputs(cost: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = ot.sinkhorn(
            cost, torch.softmax(logits, 0), epsilon=0.2, tol=1e-14, backend=backend
        )
        return result.plan, result.objective, result.cost_linear, result.f, result.g

    assert torch.autograd.gradcheck(outputs, (cost, logits))


def test_implicit_and_unrolled_gradients_agree(rng: torch.Generator) -> None:
    cost = uniform(rng, 3, 3, 4).requires_grad_()
    logits = uniform(rng, 3, 4).requires_grad_()
    target = uniform(rng, 3, 3, 4)
    found = []
    for differentiate in ("implicit", "unroll"):
        result = ot.sinkhorn(
            cost, None, torch.softmax(logits, 1), epsilon=0.2, tol=1e-14, max_iter=200,
            differentiate=differentiate, validate=False,
        )  # fmt: skip
        loss = result.objective.sum() + (result.plan * target).sum() + result.f.square().sum()
        found.append(torch.autograd.grad(loss, (cost, logits)))
    for implicit, unrolled in zip(*found, strict=True):
        assert torch.allclose(implicit, unrolled, atol=1e-10)


def test_unrolling_differentiates_what_was_computed(rng: torch.Generator) -> None:
    cost = uniform(rng, 2, 3, 4).requires_grad_()
    logits = uniform(rng, 3).requires_grad_()

    def after_two_iterations(cost: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = ot.sinkhorn(
            cost, torch.softmax(logits, 0), epsilon=0.1, tol=0.0, max_iter=2, validate=False,
            differentiate="unroll",
        )  # fmt: skip
        return result.objective, result.plan, result.f

    assert torch.autograd.gradcheck(after_two_iterations, (cost, logits))


def test_gradients_of_the_masses_are_finite_with_absent_nodes(rng: torch.Generator) -> None:
    a = masses(rng, 3, 4, absent=0.5).requires_grad_()
    result = ot.sinkhorn(uniform(rng, 3, 4, 5), a, epsilon=0.2)
    present = torch.where(a > 0, result.f, 0)
    loss = result.objective.sum() + result.plan.square().sum() + present.sum()
    (gradient,) = torch.autograd.grad(loss, a)
    assert gradient.isfinite().all()
    assert (gradient[a > 0] != 0).any()


def test_stopping_early_warns_once(rng: torch.Generator, backend: str) -> None:
    cost = uniform(rng, 3, 4, 4)
    with pytest.warns(ConvergenceWarning, match="sinkhorn: 3 of 3 items MAX_ITER") as caught:
        result = ot.sinkhorn(cost, epsilon=0.01, max_iter=2, backend=backend)
    assert len(caught) == 1
    assert result.iterations.tolist() == [2, 2, 2]
    ot.sinkhorn(cost, epsilon=0.01, max_iter=2, backend=backend, validate=False)


def test_costs_that_overflow_are_reported(backend: str) -> None:
    cost = 3e38 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    with pytest.warns(ConvergenceWarning, match="sinkhorn: met NaN or infinity") as caught:
        result = ot.sinkhorn(cost, epsilon=1e-3, backend=backend)
    assert caught[0].filename == __file__
    assert result.status.item() == ot.SolveStatus.NONFINITE


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epsilon": 0}, ValueError, "epsilon must be finite and positive; got 0"),
        ({"epsilon": -1.0}, ValueError, "epsilon must be finite and positive; got -1.0"),
        ({"epsilon": float("nan")}, ValueError, "epsilon must be finite and positive; got nan"),
        ({"epsilon": "0.1"}, TypeError, "epsilon must be a number; got str"),
        ({"epsilon": 0.1, "tol": -1e-3}, ValueError, "tol must be finite and at least 0"),
        ({"epsilon": 0.1, "max_iter": 0}, ValueError, "max_iter must be at least 1; got 0"),
        ({"epsilon": 0.1, "max_iter": 1.5}, TypeError, "max_iter must be an integer; got float"),
        ({"epsilon": 0.1, "max_iter": True}, TypeError, "max_iter must be an integer; got bool"),
        ({"epsilon": 0.1, "backend": "gpu"}, ValueError, "backend must be"),
        ({"epsilon": 0.1, "differentiate": True}, ValueError, "differentiate must be"),
    ],
)
def test_options_out_of_range(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ot.sinkhorn(torch.zeros(2, 2, dtype=F64), **options)


@pytest.mark.parametrize("of", ["all", "rows", "columns"])
def test_what_costs_have_in_common_takes_no_digits(backend: str, of: str) -> None:
    rng = torch.Generator().manual_seed(0)
    shape = {"all": (1, 1, 1), "rows": (8, 6, 1), "columns": (8, 1, 5)}[of]
    offset = 1e3 + 1e3 * torch.rand(shape, generator=rng)
    costs = torch.rand(8, 6, 5, generator=rng) + offset
    a = torch.rand(8, 6, generator=rng)
    a[:, 0] = 0
    a /= a.sum(1, keepdim=True)
    slopes = []
    for dtype in (torch.float32, torch.float64):
        cost = costs.to(dtype, copy=True).requires_grad_()
        masses = (a.to(dtype) / a.to(dtype).sum(1, keepdim=True)).requires_grad_()
        found = ot.sinkhorn(cost, masses, epsilon=1.0, backend=backend)
        assert found.converged.all()
        found.objective.sum().backward()
        assert cost.grad is not None
        assert masses.grad is not None
        slopes.append((found.objective, found.plan, cost.grad, masses.grad, found.f[:, 1:]))
        graph = torch.zeros(6, 6, dtype=dtype), torch.zeros(5, 5, dtype=dtype)
        mirror = ot.entropic_fgw(cost, *graph, masses, epsilon=0.5, backend=backend)
        assert mirror.converged.all()
        assert torch.allclose(mirror.plan, found.plan, atol=1e-4)
        assert torch.allclose(mirror.f[:, 1:], 0.5 * found.f[:, 1:], rtol=1e-5)
    for single, double in zip(*slopes, strict=True):
        scale = 1 if single is slopes[0][1] or single is slopes[0][2] else 2e3
        assert (single - double).abs().max() <= 2e-6 * scale


@pytest.mark.parametrize("epsilon", [5.0, 0.1, 0.004])
@pytest.mark.parametrize("nodes", [12, 70])
def test_large_problems_agree_with_pot(
    nodes: int, epsilon: float, rng: torch.Generator, backend: str
) -> None:
    cost, a, b = uniform(rng, nodes, nodes + 3), masses(rng, 1, nodes)[0], masses(rng, 1, nodes + 3)
    result = ot.sinkhorn(1e3 + cost, a, b[0], epsilon=epsilon, tol=1e-10, backend=backend)
    expected = pot.sinkhorn(
        a.numpy(), b[0].numpy(), cost.numpy(), epsilon, "sinkhorn_log", 20_000, 1e-12
    )
    assert bool(result.converged)
    assert np.abs(result.plan.numpy() - expected).sum() < 1e-7
