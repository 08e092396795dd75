import pytest
import torch

import hotnas_torch.ot as ot
from hotnas_torch.errors import ConvergenceWarning
from tests.generators.oracles import fgw_objective
from tests.generators.problems import F64, graphs

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


def test_a_backward_pass_raises(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 2, 3, 3)
    problem.cost.requires_grad_()
    result = ot.entropic_fgw(*problem.tensors()[:3], epsilon=0.3, backend=backend)
    with pytest.raises(RuntimeError, match="is not differentiable"):
        result.objective.sum().backward()


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
