from math import inf

import ot as pot
import pytest
import torch
from torch import Tensor

from hotnas_torch.ot._operators import kl_transport, unbalanced_value
from hotnas_torch.ot._reference.transport import CONVERGED, INFEASIBLE, MAX_ITER, NONFINITE
from tests.generators.problems import F64, masses, uniform

WEIGHTS = [(0.5, 0.5), (2.0, 0.05), (inf, 0.4), (0.4, inf), (1e-5, 1e-5), (1e3, 1e3)]
by_weights = pytest.mark.parametrize("weights", WEIGHTS)


def problem(
    rng: torch.Generator, batch: int, n: int, m: int, absent: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    a, b = masses(rng, batch, n, absent=absent), masses(rng, batch, m, absent=absent)
    return uniform(rng, batch, n, m), a * (0.5 + uniform(rng, batch, 1)), b


def proved(found: tuple[Tensor, ...], given: tuple[Tensor, ...], weights: tuple[float, float]):
    """Value of the plan, and what the duals prove, without our own gap."""
    plan, _, f, g, *_ = (value.double() for value in found)
    cost, a, b = (value.double() for value in given)
    present = (a > 0)[:, :, None] & (b > 0)[:, None, :]
    over = torch.where(present, f[:, :, None] + g[:, None, :] - cost, -inf).amax((1, 2))
    value = unbalanced_value(plan, cost, a, b, 0.0, *weights, 0)
    dual = torch.zeros_like(value)
    for mass, weight, price in ((a, weights[0], f), (b, weights[1], g)):
        paid = -weight * torch.expm1(-price / weight) if weight < inf else price
        dual = dual + torch.where(mass > 0, paid * mass, 0).sum(1)
    return value, dual, over


@by_weights
@pytest.mark.parametrize(("n", "m", "absent"), [(1, 1, 0.0), (1, 4, 0.0), (5, 7, 0.3), (9, 8, 0.0)])
def test_plan_and_duals_prove_each_other(
    weights: tuple[float, float], n: int, m: int, absent: float, rng: torch.Generator, backend: str
) -> None:
    given = problem(rng, 6, n, m, absent)
    found = kl_transport(*given, *weights, 1e-9, 1000, backend=backend)
    value, dual, over = proved(found, given, weights)
    assert (found[6] == CONVERGED).all()
    assert (over <= 1e-14 * (1 + found[2].abs().amax(1))).all()
    assert torch.allclose(found[1], value, rtol=1e-12)
    assert ((value - dual).abs() <= 1e-11 * (value.abs() + min(weights))).all()
    for held, sums, mass in zip(weights, (2, 1), given[1:], strict=True):
        if held == inf:
            assert torch.allclose(found[0].sum(sums), mass, rtol=1e-13)


@pytest.mark.ext
@by_weights
def test_both_backends_find_the_same_plan(
    weights: tuple[float, float], rng: torch.Generator
) -> None:
    given = problem(rng, 20, 7, 9, 0.2)
    ours, torchs = (
        kl_transport(*given, *weights, 1e-9, 1000, backend=backend) for backend in ("ext", "torch")
    )
    plan = ours[0]
    assert torch.allclose(plan, torchs[0], rtol=1e-7, atol=1e-9)
    assert torch.allclose(ours[1], torchs[1], rtol=1e-12)
    # what is too dear to send anything is so with many duals
    for sums, one, other in ((2, ours[2], torchs[2]), (1, ours[3], torchs[3])):
        sends = plan.sum(sums) > 1e-9
        assert torch.allclose(one[sends], other[sends], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["ties", "points", "offset", "wide"])
@by_weights
def test_costs_of_any_kind_end_with_a_proof(
    kind: str, weights: tuple[float, float], rng: torch.Generator, backend: str
) -> None:
    cost, a, b = problem(rng, 8, 8, 8)
    if kind == "ties":
        cost, a, b = (3 * cost).floor(), torch.full_like(a, 0.125), torch.full_like(b, 0.125)
    elif kind == "points":
        cost = (cost[:, :1] - cost[:, 1:2].mT) ** 2
    elif kind == "offset":
        cost = cost + 100
    else:
        cost, a = 10 ** (11 * cost - 8), a * 10 ** (9 * uniform(rng, 8, 8) - 8)
    found = kl_transport(cost, a, b, *weights, 1e-6, 1000, backend=backend)
    assert (found[6] == CONVERGED).all()
    assert (found[5] <= 64).all()
    value, dual, _ = proved(found, (cost, a, b), weights)
    assert (value - dual <= 1e-6 * value.abs() + 1e-12 * min(weights)).all()


def test_one_precision_is_as_good_as_two(rng: torch.Generator, backend: str) -> None:
    given = problem(rng, 20, 8, 6)
    single = tuple(value.float() for value in given)
    for weights in WEIGHTS:
        found = kl_transport(*single, *weights, 1e-6, 1000, backend=backend)
        exact = kl_transport(*(v.double() for v in single), *weights, 1e-6, 1000, backend=backend)
        assert found[0].dtype == torch.float32
        assert torch.allclose(found[1].double(), exact[1], rtol=2e-7)
        assert torch.equal(found[5], exact[5])
        assert torch.equal(found[6], exact[6])


def test_it_is_not_above_pot(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 20, 6, 8)
    found = kl_transport(cost, a, b, 0.5, 0.2, 1e-9, 1000, backend=backend)
    plans = [
        torch.as_tensor(
            pot.unbalanced.mm_unbalanced(a[k].numpy(), b[k].numpy(), cost[k].numpy(), (0.5, 0.2))
        )
        for k in range(20)
    ]
    theirs = unbalanced_value(torch.stack(plans), cost, a, b, 0.0, 0.5, 0.2, 0)
    assert (found[1] <= theirs * (1 + 1e-12)).all()
    assert torch.allclose(found[1], theirs, rtol=1e-3)


def test_items_are_solved_alone_as_in_a_batch(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 5, 6, 9, 0.3)
    wide = torch.stack([cost, cost], -1)[..., 0]
    assert not wide.is_contiguous()
    together = kl_transport(wide, a, b, 0.5, inf, 1e-9, 1000, backend=backend)
    for k in range(5):
        one = slice(k, k + 1)
        alone = kl_transport(cost[one], a[one], b[one], 0.5, inf, 1e-9, 1000, backend=backend)
        for value, whole in zip(alone, together, strict=True):
            assert torch.equal(value, whole[one])


def test_units_change_no_bit(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 6, 5, 6)
    plan, value, f, _, gap, arcs, _ = kl_transport(
        cost, a, b, 0.5, 2.0, 1e-9, 1000, backend=backend
    )
    c, s = 2.0**70, 2.0**-90
    scaled = kl_transport(c * cost, s * a, s * b, c * 0.5, c * 2.0, 1e-9, 1000, backend=backend)
    assert torch.equal(scaled[0], s * plan)
    assert torch.equal(scaled[1], c * s * value)
    assert torch.equal(scaled[2], c * f)
    assert torch.equal(scaled[4], c * s * gap)
    assert torch.equal(scaled[5], arcs)


def test_too_few_arcs_are_a_status_and_a_gap_that_holds(rng: torch.Generator, backend: str) -> None:
    given = problem(rng, 10, 12, 12)
    found = kl_transport(*given, 0.5, 0.5, 1e-9, 2, backend=backend)
    assert (found[6] == MAX_ITER).any()
    assert (found[5] <= 2).all()
    best = kl_transport(*given, 0.5, 0.5, 1e-9, 1000, backend=backend)[1]
    assert (found[1] - best <= found[4] + 1e-14).all()
    assert torch.allclose(found[1], proved(found, given, (0.5, 0.5))[0])


def test_what_is_no_problem_is_a_status(backend: str) -> None:
    cost = torch.ones(5, 2, 2, dtype=F64)
    cost[1, 0, 0] = torch.nan
    cost[4, 1, 0] = inf
    a = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, -1.0], [1.0, 0.0]], dtype=F64)
    found = kl_transport(cost, a, torch.ones(5, 2, dtype=F64), 1.0, 1.0, 1e-9, 9, backend=backend)
    assert found[6].tolist() == [CONVERGED, NONFINITE, INFEASIBLE, INFEASIBLE, CONVERGED]
    assert found[0][1:4].isnan().all()
    assert found[4][1:4].isnan().all()
    # the best of all plans is larger than any number
    huge = kl_transport(-cost[:1], a[:1], a[:1], 1e-5, 1e-5, 1e-9, 9, backend=backend)
    assert huge[6].tolist() == [NONFINITE]


def test_an_empty_batch(backend: str) -> None:
    none = torch.empty(0, 3, dtype=F64)
    found = kl_transport(
        torch.empty(0, 3, 3, dtype=F64), none, none, 1.0, 1.0, 1e-9, 9, backend=backend
    )
    assert [len(value) for value in found] == [0] * 7


@pytest.mark.ext
def test_the_op_keeps_torchs_rules(rng: torch.Generator, dtype: torch.dtype) -> None:
    given = (value.to(dtype) for value in problem(rng, 3, 4, 5))
    torch.library.opcheck(torch.ops.hotnas.kl_transport, (*given, 0.5, inf, 1e-6, 100))


@pytest.mark.ext
def test_weights_that_are_none_are_refused(rng: torch.Generator) -> None:
    given = problem(rng, 1, 2, 2)
    for weights, says in (((0.0, 1.0), "positive"), ((inf, inf), "both be infinite")):
        with pytest.raises(RuntimeError, match=says):
            torch.ops.hotnas.kl_transport(*given, *weights, 1e-6, 10)
