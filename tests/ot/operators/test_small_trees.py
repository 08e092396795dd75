"""Transport between few nodes of equal masses, which the core solves in a way of its own."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

import hotnas_torch as ht

SIZES = [(1, 3), (2, 3), (3, 2), (3, 4), (4, 6), (5, 8), (6, 4), (7, 8), (8, 7), (8, 6), (13, 16)]


def assigned(cost: np.ndarray) -> float:
    """The least cost of a coupling of equal masses: each node as often as all parts are equal."""
    n, m = cost.shape
    parts = math.lcm(n, m)
    each = np.repeat(np.repeat(cost, parts // n, 0), parts // m, 1)
    try:
        rows, cols = linear_sum_assignment(each)
    except ValueError:  # no assignment without a forbidden pair
        return math.inf
    return float(each[rows, cols].sum()) / parts


@pytest.mark.ext
@pytest.mark.filterwarnings("ignore::hotnas_torch.errors.ConvergenceWarning")
@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("forbidden", [0.0, 0.3])
def test_ties_and_forbidden_pairs(n: int, m: int, forbidden: float) -> None:
    generator = torch.Generator().manual_seed(10 * n + m)
    cost = torch.randint(0, 6, (60, n, m), generator=generator).float()
    cost[torch.rand(cost.shape, generator=generator) < forbidden] = torch.inf
    found = ht.ot.transport(cost)
    expected = torch.tensor([assigned(each.numpy()) for each in cost])
    solvable = expected.isfinite()
    assert solvable.any()
    assert torch.equal(found.status == 0, solvable)
    torch.testing.assert_close(found.objective[solvable], expected[solvable])
    plan, allowed = found.plan[solvable], cost[solvable].isfinite()
    torch.testing.assert_close(plan.sum(2), torch.full_like(plan[:, :, 0], 1 / n))
    torch.testing.assert_close(plan.sum(1), torch.full_like(plan[:, 0], 1 / m))
    assert not plan[~allowed].any()
    duals = found.f[solvable, :, None] + found.g[solvable, None]
    assert ((cost[solvable] - duals)[allowed] > -1e-4).all()


@pytest.mark.ext
@pytest.mark.parametrize("loss", ["l1", "l2"])
@pytest.mark.parametrize("pairs", ["all", "directed", "ordered"])
@pytest.mark.parametrize(("n", "m"), [(8, 8), (7, 8), (3, 5), (4, 4), (2, 4)])
def test_pair_costs_of_small_problems(loss: str, pairs: str, n: int, m: int) -> None:
    """The objective that the solver adds up from what it keeps is that of its plan."""
    generator = torch.Generator().manual_seed(n)
    cost = torch.rand(40, n, m, generator=generator)
    x, y = (torch.rand(40, k, k, generator=generator) for k in (n, m))
    symmetric = torch.arange(40) % 2 == 0
    x, y = (torch.where(symmetric[:, None, None], s + s.mT, s) for s in (x, y))
    found = ht.ot.fgw(cost, x, y, loss=loss, pairs=pairs, num_starts=3)  # type: ignore[arg-type]
    gap = x[:, :, None, :, None] - y[:, None, :, None, :]
    apart = gap.abs() if loss == "l1" else gap.square()
    i, j = torch.arange(n), torch.arange(m)
    kept = torch.ones(n, m, n, m)
    if pairs == "directed":
        kept = (i[:, None] != i)[:, None, :, None] & (j[:, None] != j)[None, :, None, :]
    if pairs == "ordered":
        kept = (i[:, None] < i)[:, None, :, None] & (j[:, None] < j)[None, :, None, :]
    pair = torch.einsum("bijkl,bij,bkl->b", apart * kept, found.plan, found.plan)
    value = 0.5 * (cost * found.plan).sum((1, 2)) + 0.5 * pair
    torch.testing.assert_close(found.objective, value)
