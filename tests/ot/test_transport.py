import pytest
import torch
from scipy.optimize import linear_sum_assignment

import hotnas_torch.ot as ot
from hotnas_torch.errors import SolverError
from tests.generators.checks import check_coupling
from tests.generators.oracles import linprog_objective
from tests.generators.problems import F64, masses, uniform


def test_a_single_problem_comes_back_without_a_batch_dimension(
    rng: torch.Generator, backend: str
) -> None:
    cost = uniform(rng, 4, 5)
    a, b = masses(rng, 1, 4)[0], masses(rng, 1, 5)[0]
    result = ot.transport(cost, a, b, backend=backend)
    assert result.plan.shape == (4, 5)
    assert result.objective.shape == result.status.shape == result.iterations.shape == ()
    assert result.f.shape == (4,)
    assert result.g.shape == (5,)
    assert result.objective.item() == pytest.approx(linprog_objective(cost, a, b), abs=1e-9)
    check_coupling(result.plan, a, b)
    assert result.converged.item() is True
    assert result.raise_if_failed() is result


@pytest.mark.parametrize("given", [(), ("a",), ("b",), ("a", "b")], ids=str)
def test_a_single_problem_is_that_of_a_batch_to_the_bit(
    given: tuple[str, ...], rng: torch.Generator, dtype: torch.dtype
) -> None:
    cost = uniform(rng, 6, 5).to(dtype)
    both = {"a": masses(rng, 1, 6).to(dtype), "b": masses(rng, 1, 5).to(dtype)}
    masses_given = {name: both[name] for name in given}
    expected = ot.transport(cost[None], **masses_given)
    alone = {name: mass[0] for name, mass in masses_given.items()}
    for leaf in (cost, cost.clone().requires_grad_(), cost.T.contiguous().T):
        found = ot.transport(leaf, **alone)
        for name in ("plan", "objective", "f", "g", "iterations", "status"):
            assert torch.equal(getattr(found, name), getattr(expected, name)[0])
        assert found.objective.requires_grad == leaf.requires_grad


def test_an_unknown_backend_is_refused_for_one_problem_too(rng: torch.Generator) -> None:
    with pytest.raises(ValueError, match=r"backend must be .* got .gpu"):
        ot.transport(uniform(rng, 3, 3), backend="gpu")


def test_leading_dimensions_are_kept_and_broadcast(rng: torch.Generator, backend: str) -> None:
    cost = uniform(rng, 3, 1, 4, 5)
    a, b = masses(rng, 2, 4), masses(rng, 1, 5)[0]
    result = ot.transport(cost, a, b, backend=backend)
    assert result.plan.shape == (3, 2, 4, 5)
    assert result.objective.shape == (3, 2)
    for i in range(3):
        for j in range(2):
            alone = ot.transport(cost[i, 0], a[j], b, backend=backend)
            assert torch.equal(alone.plan, result.plan[i, j])
            assert torch.equal(alone.f, result.f[i, j])


def test_masses_are_uniform_by_default(rng: torch.Generator, backend: str) -> None:
    cost = uniform(rng, 2, 3, 6)
    result = ot.transport(cost, backend=backend)
    assert torch.allclose(result.plan.sum(2), torch.full((2, 3), 1 / 3, dtype=F64), atol=1e-15)
    assert torch.allclose(result.plan.sum(1), torch.full((2, 6), 1 / 6, dtype=F64), atol=1e-15)


def test_the_constant_of_the_duals_is_fixed(rng: torch.Generator, backend: str) -> None:
    cost, a, b = uniform(rng, 5, 4, 6), masses(rng, 5, 4), masses(rng, 5, 6)
    result = ot.transport(cost, a, b, backend=backend)
    half = 0.5 * result.objective
    assert torch.allclose((result.f * a).sum(1), half, atol=1e-13)
    assert torch.allclose((result.g * b).sum(1), half, atol=1e-13)


def test_gradients_reach_unbatched_and_broadcast_inputs(rng: torch.Generator, backend: str) -> None:
    cost = uniform(rng, 3, 4, 5).requires_grad_()
    logits = uniform(rng, 4).requires_grad_()

    def objective(cost: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return ot.transport(cost, torch.softmax(logits, 0), backend=backend).objective

    assert torch.autograd.gradcheck(objective, (cost, logits))


def test_an_empty_batch_gives_an_empty_result(backend: str) -> None:
    result = ot.transport(torch.zeros(0, 3, 4), backend=backend)
    assert result.plan.shape == (0, 3, 4)
    assert result.objective.shape == (0,)
    assert result.raise_if_failed() is result


def test_without_validation_bad_items_are_reported_by_their_status(
    rng: torch.Generator, backend: str
) -> None:
    cost = uniform(rng, 3, 2, 2)
    a = torch.full((3, 2), 0.5, dtype=F64)
    a[1] = 0.7
    result = ot.transport(cost, a, validate=False, backend=backend)
    assert result.status.tolist() == [0, ot.SolveStatus.INFEASIBLE, 0]
    assert result.converged.tolist() == [True, False, True]
    with pytest.raises(SolverError, match=r"transport: 1 of 3 items INFEASIBLE, item 1 first \("):
        result.raise_if_failed()


@pytest.mark.ext
@pytest.mark.parametrize("levels", [1, 3, 10])
@pytest.mark.parametrize("nodes", [17, 24, 120])
def test_costs_that_tie_search_no_plateaus(nodes: int, levels: int, rng: torch.Generator) -> None:
    cost = (levels * uniform(rng, 4, nodes, nodes)).floor()
    result = ot.transport(cost, backend="ext")
    for item, plan in zip(cost, result.plan, strict=True):
        rows, columns = linear_sum_assignment(item.numpy())
        assert (item * plan).sum().item() * nodes == pytest.approx(item[rows, columns].sum().item())
    assert ((cost - result.f[:, :, None] - result.g[:, None, :]) >= -1e-12).all()
    assert (result.iterations <= 8 + nodes // 10).all()
