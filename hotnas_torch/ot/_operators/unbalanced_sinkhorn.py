"""Unbalanced entropic optimal transport of a batch of small problems."""

from typing import Any

import torch
from torch import Tensor

from hotnas_torch.ot._operators.operator import (
    Backend,
    Operator,
    along,
    attached,
    is_tracked,
    save,
    undefined,
)
from hotnas_torch.ot._operators.sinkhorn import appearing, can_enter
from hotnas_torch.ot._operators.tracing import one_call
from hotnas_torch.ot._reference.unbalanced_sinkhorn import Penalty
from hotnas_torch.ot._reference.unbalanced_sinkhorn import unbalanced_sinkhorn as reference

__all__ = [
    "Penalty",
    "following_unbalanced",
    "paid_for",
    "unbalanced_objective",
    "unbalanced_plan",
    "unbalanced_sinkhorn",
    "unbalanced_value",
]


def unbalanced_sinkhorn(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: float,
    marginal_x: float,
    marginal_y: float,
    penalty: int,
    tol: float,
    max_iter: int,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Minimise <cost, T> + epsilon KL(T | a b') + rho_x D(T 1 | a) + rho_y D(T' 1 | b).

    Args:
        cost: Costs, shape (B, n, m), float32 or float64.
        a: Row masses, shape (B, n). Nodes of zero weight are absent.
        b: Column masses, shape (B, m).
        epsilon: Weight of the entropy, in units of the cost, > 0.
        marginal_x: Weight of the penalty of the rows, >= 0, or infinite.
        marginal_y: Weight of that of the columns.
        penalty: 0 for D = KL, 1 for the total variation.
        tol: Relative L1 distance of masses to stop at.
        max_iter: Most iterations of an item.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        Duals `f` (B, n), `g` (B, m), -inf at zero weights; `residual` (B,); `iterations` (B,)
        int32; `status` (B,) int32. See the reference.

    Differentiability:
        `f` and `g` in `cost`, `a` and `b`, by implicit differentiation of the equations that hold
        at convergence: the masses of the plan are those that the duals ask for. A dual at its bound
        stays. Items without a solution get NaN. The mass of an absent node moves the others as it
        does in the limit.

    Complexity:
        O(n m) per iteration; implicit backward O((n + m)^3).
    """
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _OPERATOR(
        cost, a, b, epsilon, marginal_x, marginal_y, penalty, tol, max_iter, backend=backend
    )
    return result


def unbalanced_plan(
    cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: float
) -> Tensor:
    """Compute a_i b_j exp((f_i + g_j - cost_ij) / epsilon), shape (B, n, m); 0 without mass."""
    absent = (f == -torch.inf)[:, :, None] | (g == -torch.inf)[:, None, :]
    f, g = (torch.where(dual == -torch.inf, 0, dual) for dual in (f, g))
    exponent = (f[:, :, None] + g[:, None, :] - torch.where(absent, 0, cost)) / epsilon
    # With the masses in the exponent: the exponential alone can leave the range of the dtype.
    log_a, log_b = (torch.where(mass > 0, mass, 1).log() for mass in (a, b))
    exponent = exponent + (log_a[:, :, None] + log_b[:, None, :])
    return torch.where(absent, 0, exponent.exp())


@one_call
def following_unbalanced(
    plan: Tensor,
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: float,
    marginal_x: float,
    marginal_y: float,
    penalty: int,
) -> Tensor:
    """Return `plan` with the derivative that it has in the masses of absent nodes.

    Args:
        plan: `unbalanced_plan` of the duals, shape (B, n, m).
        cost: Costs, shape (B, n, m).
        a: Row masses, shape (B, n).
        b: Column masses, shape (B, m).
        f: Optimal row duals, shape (B, n).
        g: Optimal column duals, shape (B, m).
        epsilon: Weight of the entropy.
        marginal_x: Weight of the penalty of the rows.
        marginal_y: Weight of that of the columns.
        penalty: 0 for KL, 1 for the total variation.
    """
    if not is_tracked(a, b):
        return plan
    rows, columns = mass_shares(cost, a, b, f, g, epsilon, marginal_x, marginal_y, penalty)
    rows = torch.where((f == -torch.inf)[:, :, None], rows, 0)
    columns = torch.where((g == -torch.inf)[:, None, :], columns, 0)
    return plan + rows * (a - a.detach())[:, :, None] + columns * (b - b.detach())[:, None, :]


def unbalanced_objective(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: float,
    marginal_x: float,
    marginal_y: float,
    penalty: int,
) -> Tensor:
    """Compute the value of the dual problem, (B,): a lower bound that is met at convergence.

    Args:
        cost: Costs, shape (B, n, m).
        a: Row masses, shape (B, n).
        b: Column masses, shape (B, m).
        f: Optimal row duals from `unbalanced_sinkhorn`, shape (B, n).
        g: Optimal column duals, shape (B, m).
        epsilon: As it was given to `unbalanced_sinkhorn`, and so the others.
        marginal_x: Weight of the penalty of the rows.
        marginal_y: Weight of that of the columns.
        penalty: 0 for KL, 1 for the total variation.

    Differentiability:
        In `cost`, `a` and `b` by the envelope theorem, also in the mass of an absent node: by the
        dual with which it would enter, 0 where one of its costs is no number.
    """
    value: Tensor = _OBJECTIVE(cost, a, b, f, g, epsilon, marginal_x, marginal_y, penalty)
    return value


def unbalanced_value(
    plan: Tensor,
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: float,
    marginal_x: float,
    marginal_y: float,
    penalty: int,
) -> Tensor:
    """Compute what a plan (B, n, m) costs, entropy and penalties included, (B,).

    Penalties of masses that are held are left out.
    """
    present = (a > 0)[:, :, None] & (b > 0)[:, None, :]
    shares = torch.where(present, a[:, :, None] * b[:, None, :], 1)
    value = torch.where(present, cost * plan, 0).sum((1, 2))
    entropy = torch.special.xlogy(plan, plan / shares).sum((1, 2)) - plan.sum((1, 2))
    value = value + epsilon * (entropy + a.sum(1) * b.sum(1))
    for weight, mass, found in ((marginal_x, a, plan.sum(2)), (marginal_y, b, plan.sum(1))):
        side = Penalty(weight, penalty)
        if side.held or weight == 0:
            continue
        if side.inverse:
            ratio = torch.where(mass > 0, found / torch.where(mass > 0, mass, 1), 1)
            off = torch.special.xlogy(found, ratio) - found + mass
        else:
            off = (found - mass).abs()
        value = value + weight * off.sum(1)
    total: Tensor = value
    return total


def paid_for(side: Penalty, dual: Tensor) -> Tensor:
    """Return what a unit of mass that is asked for brings to the dual problem."""
    if side.inverse:
        return -side.weight * torch.expm1(-dual * side.inverse)
    return dual


def _objective(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: float,
    marginal_x: float,
    marginal_y: float,
    penalty: int,
) -> Tensor:
    plan = unbalanced_plan(cost, a, b, f, g, epsilon)
    value = -epsilon * (plan.sum((1, 2)) - a.sum(1) * b.sum(1))
    for dual, mass, weight in ((f, a, marginal_x), (g, b, marginal_y)):
        paid = paid_for(Penalty(weight, penalty), torch.where(dual == -torch.inf, 0, dual))
        value = value + (paid * mass).sum(1)
    return value


def _setup_objective(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    cost, a, b, f, g, ctx.epsilon, ctx.marginal_x, ctx.marginal_y, ctx.penalty = inputs
    save(ctx, cost, a, b, f, g)


def _mass_slopes(
    cost: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: float, side: Penalty
) -> Tensor:
    """Return the derivative of the dual problem in the row masses, (B, n)."""
    f, known = entering_duals(cost, b, f, g, epsilon, side)
    usable = cost.isfinite()
    there = (g != -torch.inf)[:, None, :] & usable
    duals = torch.where(there, g[:, None, :], 0)
    exponent = (f[:, :, None] + duals - torch.where(usable, cost, 0)) / epsilon
    logarithm = torch.where(b > 0, b, 1).log()[:, None, :]
    shares = torch.where(there, (exponent + logarithm).exp(), 0).sum(2)
    slope = paid_for(side, f) - epsilon * (shares - b.sum(1, keepdim=True))
    return torch.where(known | f.isnan(), slope, 0)


def entering_duals(
    cost: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: float, side: Penalty
) -> tuple[Tensor, Tensor]:
    """Return row duals, of absent rows as they would enter, and which are known, both (B, n)."""
    here, there = f != -torch.inf, (g != -torch.inf)[:, None, :]
    usable = cost.isfinite()
    known = here | can_enter(cost, there)
    exponent = (torch.where(there, g[:, None, :], 0) - torch.where(usable, cost, 0)) / epsilon
    logarithm = torch.where(b > 0, b, 1).log()[:, None, :]
    sums = torch.where(there & usable, exponent + logarithm, -torch.inf).logsumexp(2)
    entering = side.draw(-epsilon * torch.where(known, sums, 0), epsilon)
    return torch.where(here, f, entering), known


def _objective_backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return ()
    cost, a, b, f, g = ctx.saved_tensors
    side_x, side_y = Penalty(ctx.marginal_x, ctx.penalty), Penalty(ctx.marginal_y, ctx.penalty)
    of_a = _mass_slopes(cost, b, f, g, ctx.epsilon, side_x)
    of_b = _mass_slopes(cost.mT, a, g, f, ctx.epsilon, side_y)
    plan = unbalanced_plan(cost, a, b, f, g, ctx.epsilon)
    return grad[:, None, None] * plan, grad[:, None] * of_a, grad[:, None] * of_b


def _objective_jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
    cost = ctx.saved_tensors[0]
    return along(_objective_backward(ctx, cost.new_ones(len(cost))), tangents[:3])


def _fake(cost: Tensor, a: Tensor, b: Tensor, *_: Any) -> tuple[Tensor, ...]:
    counts = cost.new_empty(cost.shape[0], dtype=torch.int32)
    return (
        torch.empty_like(a, memory_format=torch.contiguous_format),
        torch.empty_like(b, memory_format=torch.contiguous_format),
        cost.new_empty(cost.shape[0]),
        counts,
        torch.empty_like(counts),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cost, a, b, ctx.epsilon, ctx.marginal_x, ctx.marginal_y, ctx.penalty, *_ = inputs
    f, g, residual, _, _ = output
    ctx.underived = ("residual",)
    save(ctx, cost, a, b, f, g, residual)


def _inverse(ctx: Any) -> tuple[Tensor, Tensor]:
    """Return the inverse of the derivative of the equations in the duals, and the plan.

    Row i asks for sum_j b_j exp((f_i + g_j - C_ij) / epsilon) = exp(-f_i / rho), which is 1 where
    its mass is held. Times epsilon a_i, the derivatives are H = (diag(p), T; T', diag(q)), p_i =
    (T 1)_i (1 + epsilon / rho), with nothing at duals that stay, at a bound or without mass.
    """
    cost, a, b, f, g, _ = ctx.saved_tensors
    plan = unbalanced_plan(cost, a, b, f, g, ctx.epsilon)
    failed = plan.isnan().any(2).any(1)[:, None, None]
    plan = torch.where(failed, 0, plan)
    diagonal, moving = [], []
    for weight, dual, mass in ((ctx.marginal_x, f, plan.sum(2)), (ctx.marginal_y, g, plan.sum(1))):
        side = Penalty(weight, ctx.penalty)
        diagonal.append(torch.diag_embed(mass * (1 + ctx.epsilon * side.inverse)))
        moving.append((dual.abs() < side.bound) & (mass > 0))
    system = torch.cat([torch.cat([diagonal[0], plan], 2), torch.cat([plan.mT, diagonal[1]], 2)], 1)
    free = torch.cat(moving, 1)
    both = free[:, :, None] & free[:, None, :]
    inverse = torch.linalg.pinv(torch.where(both, system, 0), hermitian=True)
    return torch.where(failed, torch.nan, torch.where(both, inverse, 0)), plan


def mass_shares(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: float,
    marginal_x: float,
    marginal_y: float,
    penalty: int,
) -> tuple[Tensor, Tensor]:
    """Return T_ij / a_i and T_ij / b_j, (B, n, m), for absent nodes their limits, or 0 if unknown.

    The arguments are those of `unbalanced_objective`.
    """

    def shares(cost: Tensor, b: Tensor, f: Tensor, g: Tensor, weight: float) -> Tensor:
        full, known = entering_duals(cost, b, f, g, epsilon, Penalty(weight, penalty))
        there = (g != -torch.inf)[:, None, :] & known[:, :, None] & cost.isfinite()
        others = torch.where(g == -torch.inf, 0, g)[:, None, :]
        exponent = (full[:, :, None] + others - torch.where(there, cost, 0)) / epsilon
        logarithm = torch.where(b > 0, b, 1).log()[:, None, :]
        return torch.where(there, (exponent + logarithm).exp(), 0)

    return shares(cost, b, f, g, marginal_x), shares(cost.mT, a, g, f, marginal_y).mT


def _mass_shares(ctx: Any) -> tuple[Tensor, Tensor]:
    cost, a, b, f, g, _ = ctx.saved_tensors
    settings = ctx.epsilon, ctx.marginal_x, ctx.marginal_y, ctx.penalty
    return mass_shares(cost, a, b, f, g, *settings)


def _backward(
    ctx: Any, grad_f: Tensor | None, grad_g: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    if grad_f is None and grad_g is None:
        return ()
    f, g = ctx.saved_tensors[3:5]
    grad_f = torch.zeros_like(f) if grad_f is None else grad_f
    grad_g = torch.zeros_like(g) if grad_g is None else grad_g
    inverse, plan = _inverse(ctx)
    adjoint = (inverse @ torch.cat([grad_f, grad_g], 1)[:, :, None]).squeeze(2)
    x, y = adjoint.split([f.shape[1], g.shape[1]], 1)
    of_rows, of_columns = _mass_shares(ctx)
    of_a = -ctx.epsilon * (of_rows * y[:, None, :]).sum(2)
    of_b = -ctx.epsilon * (of_columns * x[:, :, None]).sum(1)
    return plan * (x[:, :, None] + y[:, None, :]), of_a, of_b


def _jvp(
    ctx: Any,
    change_cost: Tensor | None,
    change_a: Tensor | None,
    change_b: Tensor | None,
    *_: Tensor | None,
) -> tuple[Tensor | None, ...]:
    f, g, residual = ctx.saved_tensors[3:]
    inverse, plan = _inverse(ctx)
    of_f, of_g = torch.zeros_like(f), torch.zeros_like(g)
    if change_cost is not None:
        moved = plan * torch.where(plan == 0, 0, change_cost)
        of_f, of_g = moved.sum(2), moved.sum(1)
    if change_a is not None or change_b is not None:
        of_rows, of_columns = _mass_shares(ctx)
        if change_b is not None:
            of_f = of_f - ctx.epsilon * (of_columns * change_b[:, None, :]).sum(2)
        if change_a is not None:
            of_g = of_g - ctx.epsilon * (of_rows * change_a[:, :, None]).sum(1)
    change = (inverse @ torch.cat([of_f, of_g], 1)[:, :, None]).squeeze(2)
    x, y = change.split([f.shape[1], g.shape[1]], 1)
    x, y = appearing(x, f, change_a), appearing(y, g, change_b)
    return x, y, undefined(residual), None, None


_OPERATOR = Operator(
    "unbalanced_sinkhorn",
    reference,
    fake=_fake,
    outputs=("f", "g", "residual", "iterations", "status"),
    setup_context=_setup_context,
    backward=_backward,
    jvp=_jvp,
)
_OBJECTIVE = attached(
    "unbalanced_objective",
    _objective,
    setup_context=_setup_objective,
    backward=_objective_backward,
    jvp=_objective_jvp,
)
