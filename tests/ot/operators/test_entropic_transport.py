"""Entropic transport in one pass, against its steps, POT, and what derivatives go through."""

import math

import ot as pot
import pytest
import torch
from torch import Tensor

import hotnas_torch as ht
from hotnas_torch.errors import ConvergenceWarning
from hotnas_torch.ot import SinkhornResult
from hotnas_torch.ot._operators import entropic_transport
from tests.generators.checks import marginal_error
from tests.generators.problems import F64, masses, uniform

NAMES = ("plan", "objective", "cost_linear", "f", "g", "residual")


def problem(
    rng: torch.Generator, n: int, m: int, absent: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        uniform(rng, 3, n, m),
        masses(rng, 3, n, absent=absent),
        masses(rng, 3, m, absent=absent),
    )


def assert_close(found: SinkhornResult, expected: SinkhornResult, atol: float) -> None:
    assert torch.equal(found.status, expected.status)
    for name in NAMES:
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name).detach(), rtol=0, atol=atol,
            equal_nan=True, msg=name,
        )  # fmt: skip


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (7, 5), (40, 33)])
@pytest.mark.parametrize("epsilon", [0.05, 0.3, 5.0, 1e4])
@pytest.mark.parametrize("absent", [0.0, 0.3])
def test_values_are_those_that_derivatives_go_through(
    n: int, m: int, epsilon: float, absent: float, rng: torch.Generator, backend: str
) -> None:
    cost, a, b = problem(rng, n, m, absent)
    given = {"epsilon": epsilon, "backend": backend}
    steps = ht.ot.sinkhorn(cost.clone().requires_grad_(), a, b, **given)
    assert steps.objective.requires_grad
    assert_close(ht.ot.sinkhorn(cost, a, b, **given), steps, 1e-9)


@pytest.mark.parametrize("epsilon", [0.1, 2.0])
def test_it_agrees_with_pot(epsilon: float, rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 6, 8)
    plan, objective, linear, *_ = entropic_transport(
        cost, a, b, epsilon, 1e-10, 10_000, backend=backend
    )
    for item in range(len(cost)):
        expected = pot.sinkhorn(
            a[item], b[item], cost[item], epsilon, method="sinkhorn_log", stopThr=1e-12,
            numItermax=20_000,
        )  # fmt: skip
        torch.testing.assert_close(plan[item], expected, rtol=0, atol=1e-9)
        paid = (expected * cost[item]).sum()
        entropy = (expected * (expected / (a[item][:, None] * b[item])).log()).sum()
        assert float(linear[item]) == pytest.approx(float(paid), abs=1e-8)
        assert float(objective[item]) == pytest.approx(float(paid + epsilon * entropy), abs=1e-8)


@pytest.mark.parametrize("garbage", [1e30, math.inf, math.nan])
def test_absent_nodes_change_nothing(garbage: float, rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 6, 5)
    wide = torch.full((3, 8, 9), garbage, dtype=F64)
    rows, columns = [0, 1, 3, 4, 6, 7], [0, 2, 3, 7, 8]
    wide[:, torch.tensor(rows)[:, None], torch.tensor(columns)] = cost
    wide_a, wide_b = torch.zeros(3, 8, dtype=F64), torch.zeros(3, 9, dtype=F64)
    wide_a[:, rows], wide_b[:, columns] = a, b
    alone = ht.ot.sinkhorn(cost, a, b, epsilon=0.2, backend=backend)
    padded = ht.ot.sinkhorn(wide, wide_a, wide_b, epsilon=0.2, backend=backend)
    torch.testing.assert_close(padded.objective, alone.objective, rtol=0, atol=1e-12)
    torch.testing.assert_close(padded.cost_linear, alone.cost_linear, rtol=0, atol=1e-12)
    torch.testing.assert_close(padded.f[:, rows], alone.f, rtol=0, atol=1e-12)
    torch.testing.assert_close(padded.g[:, columns], alone.g, rtol=0, atol=1e-12)
    assert (padded.f[:, [2, 5]] == -torch.inf).all()
    assert padded.plan[:, [2, 5]].eq(0).all()
    assert padded.plan[:, :, [1, 4, 5, 6]].eq(0).all()


def test_what_rows_and_columns_have_in_common_is_paid_and_decides_nothing(
    rng: torch.Generator, backend: str, dtype: torch.dtype
) -> None:
    cost, a, b = (tensor.to(dtype) for tensor in problem(rng, 6, 7))
    a, b = a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)
    rows, columns = 64 * uniform(rng, 3, 6).to(dtype).round(), torch.full((3, 7), 1024.0).to(dtype)
    found = ht.ot.sinkhorn(cost, a, b, epsilon=0.1, backend=backend)
    moved = ht.ot.sinkhorn(
        cost + rows[:, :, None] + columns[:, None], a, b, epsilon=0.1, backend=backend
    )
    tolerance = 1e-10 if dtype == F64 else 2e-3  # of costs of a thousand
    common = (rows * a).sum(1) + (columns * b).sum(1)
    torch.testing.assert_close(moved.plan, found.plan, rtol=0, atol=tolerance)
    torch.testing.assert_close(moved.objective - common, found.objective, rtol=0, atol=tolerance)
    torch.testing.assert_close(
        moved.cost_linear, (moved.plan * (cost + rows[:, :, None] + 1024)).sum((1, 2)),
        rtol=1e-6, atol=0,
    )  # fmt: skip


def test_powers_of_two_scale_values_and_duals_and_change_no_bit_else(
    rng: torch.Generator, backend: str
) -> None:
    cost, a, b = problem(rng, 6, 5)
    expected = entropic_transport(cost, a, b, 0.1, 1e-9, 1000, backend=backend)
    unit = 2.0**40
    found = entropic_transport(unit * cost, a, b, unit * 0.1, 1e-9, 1000, backend=backend)
    assert torch.equal(found[0], expected[0])
    for got, wanted in zip(found[1:5], expected[1:5], strict=True):
        assert torch.equal(got, unit * wanted)


def test_bad_items_are_told_and_harm_no_other(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 5, 6)
    alone = entropic_transport(cost, a, b, 0.2, 1e-9, 1000, backend=backend)
    cost[0, 1, 2], a = torch.nan, a.clone()
    a[1] *= -1
    found = entropic_transport(cost, a, b, 0.2, 1e-9, 1000, backend=backend)
    assert found[-1].tolist() == [2, 3, 0]
    for got, expected in zip(found[:6], alone[:6], strict=True):
        assert got[:2].isnan().all()
        torch.testing.assert_close(got[2], expected[2], rtol=0, atol=1e-14)


def test_pairs_that_are_forbidden_and_values_that_are_none_are_seen(backend: str) -> None:
    cost = torch.tensor([[1.0, 0.2], [torch.inf, 0.5]], dtype=F64)
    a, b = torch.tensor([0.7, 0.3], dtype=F64), torch.tensor([0.4, 0.6], dtype=F64)
    found = ht.ot.sinkhorn(cost, a, b, epsilon=0.1, backend=backend)
    assert found.plan[1, 0] == 0
    assert marginal_error(found.plan[None], a[None], b[None]) < 1e-8
    with pytest.raises(ValueError, match=r"cost must be finite; it has nan at \(0, 1\)"):
        ht.ot.sinkhorn(cost.nan_to_num(posinf=torch.nan).T, b, a, epsilon=0.1, backend=backend)
    with pytest.raises(ValueError, match="a must be non-negative and sum to 1"):
        ht.ot.sinkhorn(cost, 2 * a, b, epsilon=0.1, backend=backend)


def test_who_called_is_warned(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 6, 5)
    with pytest.warns(ConvergenceWarning, match="sinkhorn") as caught:
        ht.ot.sinkhorn(cost, a, b, epsilon=1e-3, max_iter=2, backend=backend)
    assert caught[0].filename == __file__


@pytest.mark.ext
def test_opcheck(rng: torch.Generator, dtype: torch.dtype) -> None:
    given = [tensor.to(dtype) for tensor in problem(rng, 5, 6)]
    torch.library.opcheck(torch.ops.hotnas.entropic_transport.default, (*given, 0.2, 1e-4, 100))


@pytest.mark.parametrize(("scale", "epsilon"), [(1e-8, 1e36), (1e-12, 1e30), (1e-18, 1e28)])
def test_costs_far_below_epsilon_keep_their_digits(
    scale: float, epsilon: float, backend: str
) -> None:
    cost = torch.tensor([[0.2, 1.3], [0.9, 0.4]]) * scale
    found = ht.ot.sinkhorn(cost, epsilon=epsilon, backend=backend)
    assert float(found.objective) == pytest.approx(0.7 * scale, rel=1e-6)
    assert float(found.cost_linear) == pytest.approx(0.7 * scale, rel=1e-6)


@pytest.mark.parametrize("offset", [1e5, 1e9, 1e12])
def test_a_column_of_next_to_no_mass_costs_next_to_nothing(offset: float, backend: str) -> None:
    cost = torch.tensor([[-offset, 1.0], [-offset, 2.0]])
    masses = torch.tensor([1e-3 / offset, 1.0])
    found = ht.ot.sinkhorn(cost, None, masses, epsilon=1.0, backend=backend)
    expected = (cost.double() * found.plan.double()).sum()
    assert float(found.cost_linear) == pytest.approx(float(expected), rel=1e-6)


def test_masses_alone_can_be_mapped(rng: torch.Generator, backend: str) -> None:
    cost, a, b = problem(rng, 4, 5)
    found = torch.func.vmap(
        lambda mass: ht.ot.sinkhorn(cost[0], mass, b[0], epsilon=0.3, backend=backend).plan
    )(a)
    for plan, mass in zip(found, a, strict=True):
        expected = ht.ot.sinkhorn(cost[0], mass, b[0], epsilon=0.3, backend=backend).plan
        torch.testing.assert_close(plan, expected, rtol=0, atol=1e-12)


def test_a_side_that_is_too_long_is_said_to_be_of_sinkhorn(backend: str) -> None:
    if backend == "torch":
        pytest.skip("the torch text has no such limit")
    with pytest.raises(RuntimeError, match="sinkhorn: at most 32768 nodes"):
        ht.ot.sinkhorn(torch.zeros(1, 32769), epsilon=1.0, backend=backend)
