"""Entropic transport with its coupling and values, and the steps to these from the duals."""

from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.ot._reference.sinkhorn import sinkhorn

__all__ = [
    "dual_value",
    "entropic_plan",
    "entropic_transport",
    "mean_free_duals",
    "reduced_costs",
    "taken_in_common",
    "within_bounds",
]


def entropic_transport(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run `sinkhorn` on what rows and columns of the costs do not have in common.

    Args:
        cost: Costs, shape (B, n, m), float32 or float64. Entries at zero-weight nodes are not used.
        a: Row masses, shape (B, n), non-negative, of sum 1.
        b: Column masses, shape (B, m), likewise.
        epsilon: Weight of the entropy, in units of the cost, > 0.
        tol: L1 error to stop at, as for `sinkhorn`.
        max_iter: Most iterations of an item.

    Returns:
        `plan` (B, n, m), 0 at absent nodes; `objective` (B,), the value of the dual problem of
        <cost, T> + epsilon KL(T | a b'); `linear` (B,), <cost, plan>; duals `f` (B, n) and `g` (B,
        m) with <f, a> = <g, b>, -inf at zero weights; `residual`, `iterations` and `status` (B,) as
        of `sinkhorn`. Items with status NONFINITE or INFEASIBLE are NaN.

    Complexity:
        O(n m) time per iteration, O(n m) memory per item.
    """
    rest, of_rows, of_columns = reduced_costs(cost, a, b)
    f, g, residual, iterations, status = sinkhorn(rest, a, b, epsilon, tol, max_iter)
    plan = entropic_plan(rest, f, g, epsilon)
    value = dual_value(a, b, f, g, epsilon, plan.sum((1, 2)))
    value = within_bounds(value, rest, a, b, epsilon, whole=False)
    present = (a > 0)[:, :, None] & (b > 0)[:, None, :]
    linear = (torch.where(present, cost, 0) * plan).sum((1, 2))
    f, g = mean_free_duals(f + of_rows, g + of_columns, a, b)
    objective = value + taken_in_common(a, b, of_rows, of_columns)
    return plan, objective, linear, f, g, residual, iterations, status


def mean_free_duals(
    f: Tensor, g: Tensor, a: Tensor, b: Tensor, *, whole: bool = False
) -> tuple[Tensor, Tensor]:
    """Choose the open constant of duals so that <f, a> = <g, b>; -inf and absent nodes stay.

    `whole` says that no node is absent.
    """
    # Chosen before the product: 0 times -inf would be NaN in the gradient of the masses.
    present_f = f if whole else torch.where(a > 0, f, 0)
    present_g = g if whole else torch.where(b > 0, g, 0)
    shift = 0.5 * ((present_g * b).sum(1, keepdim=True) - (present_f * a).sum(1, keepdim=True))
    return f + shift, g - shift


def reduced_costs(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    whole: bool = False,
    differentiate: Literal["implicit", "unroll"] = "implicit",
) -> tuple[Tensor, Tensor, Tensor]:
    """Take from the costs what whole rows and columns share, which leaves no choice.

    Duals are rounded to their own size over `epsilon`: that of what is left, not of an offset.

    Args:
        cost: Costs, shape (B, n, m).
        a: Row masses, shape (B, n).
        b: Column masses, shape (B, m).
        whole: Whether it is known that no mass is 0, which saves passes.
        differentiate: What is taken is constant, as optimal plans do not depend on it; with
            "unroll" it is not, as the first iterations do.

    Returns:
        Costs whose smallest is 0 in each row and column that is there, and what the rows (B, n) and
        the columns (B, m) had in common, 0 for absent ones.
    """
    if whole and differentiate != "unroll":
        of_rows = cost.detach().amin(2)
        rest = cost - of_rows[:, :, None]
        of_columns = rest.detach().amin(1)
        return rest.sub_(of_columns[:, None, :]), of_rows, of_columns
    x, y = a > 0, b > 0

    def least(values: Tensor, dim: int, of: Tensor, others: Tensor) -> Tensor:
        values = values if differentiate == "unroll" else values.detach()
        there = others.unsqueeze(3 - dim)
        found = values.masked_fill(~there, torch.inf).amin(dim)
        return torch.where(of & others.any(1)[:, None], found, 0)

    of_rows = least(cost, 2, x, y)
    rest = cost - of_rows[:, :, None]
    of_columns = least(rest, 1, y, x)
    return rest - of_columns[:, None, :], of_rows, of_columns


def entropic_plan(
    cost: Tensor, f: Tensor, g: Tensor, epsilon: float, *, whole: bool = False
) -> Tensor:
    """Compute exp((f_i + g_j - cost_ij) / epsilon), shape (B, n, m); 0 where a dual is -inf.

    `whole` says that none is, which saves passes.
    """
    if whole:
        return (f[:, :, None] + g[:, None, :]).sub_(cost).mul_(1 / epsilon).exp_()
    absent = (f == -torch.inf)[:, :, None] | (g == -torch.inf)[:, None, :]
    # In place, as memory is what takes time here; absent nodes before the exponential, so that what
    # stands there reaches no gradient.
    exponent = (f[:, :, None] + g[:, None, :]).sub_(cost).mul_(1 / epsilon)
    return exponent.masked_fill_(absent, -torch.inf).exp_()


def dual_value(
    a: Tensor,
    b: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: float,
    mass: Tensor,
    *,
    whole: bool = False,
) -> Tensor:
    """Compute the value of the dual problem, shape (B,), `mass` the sum of the plan, (B,)."""
    value = -epsilon * (mass - 1)
    for dual, masses in ((f, a), (g, b)):
        if whole:
            value = value + ((dual - epsilon * masses.log()) * masses).sum(1)
            continue
        # Chosen before the products: 0 times -inf would be NaN.
        slope = torch.where(dual == -torch.inf, 0, dual)
        logarithm = torch.where(masses > 0, masses, 1).log()
        value = value + ((slope - epsilon * logarithm) * masses).sum(1)
    return value


def taken_in_common(a: Tensor, b: Tensor, of_rows: Tensor, of_columns: Tensor) -> Tensor:
    """Return, shape (B,), what the costs of every coupling have in common."""
    return (of_rows * a).sum(1) + (of_columns * b).sum(1)


def within_bounds(
    value: Tensor, cost: Tensor, a: Tensor, b: Tensor, epsilon: float, *, whole: bool
) -> Tensor:
    """Keep the value between <cost, a b'> and, by Hoeffding's lemma, spread^2 / 8 epsilon less.

    Where `epsilon` is large against the costs, duals of its size leave nothing else of the value.
    """
    absent = None if whole else (a == 0)[:, :, None] | (b == 0)[:, None, :]

    def with_absent(number: float) -> Tensor:
        return cost if absent is None else cost.masked_fill(absent, number)

    spread = with_absent(-torch.inf).amax((1, 2)) - with_absent(torch.inf).amin((1, 2))
    close = spread < epsilon
    if whole and not close.any():
        return value
    product = ((with_absent(0) @ b[:, :, None]).squeeze(2) * a).sum(1)
    lowest = product - spread * (spread / (8 * epsilon))
    return torch.where(close, value.clamp(lowest, product), value)
