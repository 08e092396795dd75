"""Unbalanced transport without entropy, of a batch: two exact problems and their derivatives."""

from math import inf
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.ot._operators.kl_transport import kl_transport
from hotnas_torch.ot._operators.operator import Backend, Operator, along, held, save, undefined
from hotnas_torch.ot._operators.transport import transport
from hotnas_torch.ot._operators.unbalanced_sinkhorn import paid_for
from hotnas_torch.ot._reference.transport import INFEASIBLE, MAX_ITER, NONFINITE
from hotnas_torch.ot._reference.unbalanced_sinkhorn import PENALTY_TV, Penalty

__all__ = ["unbalanced_transport"]


def unbalanced_transport(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    marginal_x: float,
    marginal_y: float,
    penalty: int,
    tol: float,
    max_iter: int,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Minimise <cost, T> + rho_x D(T 1 | a) + rho_y D(T' 1 | b).

    For the total variation it is one exact transport problem with a node more on each side; for KL
    see `kl_transport`.

    Args:
        cost: Costs, shape (B, n, m), float32 or float64.
        a: Row masses, shape (B, n). Nodes of zero weight are absent.
        b: Column masses, shape (B, m).
        marginal_x: Weight of the penalty of the rows, > 0, or infinite.
        marginal_y: Weight of that of the columns; not both are infinite.
        penalty: 0 for D = KL, 1 for the total variation.
        tol: Relative gap up to which an item has converged.
        max_iter: For KL, most arcs that enter.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        `plan` (B, n, m); `objective` (B,); feasible duals `f` (B, n), `g` (B, m); `gap` (B,);
        `iterations` (B,) int32; `status` (B,) int32. Items that failed are NaN.

    Differentiability:
        `objective` in `cost`, `a` and `b` by the envelope theorem. Second derivatives and any
        other output raise.

    Complexity:
        O(n m) per pivot for small problems.
    """
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _OPERATOR(
        cost, a, b, marginal_x, marginal_y, penalty, tol, max_iter, backend=backend
    )
    return result


def _solve(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    marginal_x: float,
    marginal_y: float,
    penalty: int,
    tol: float,
    max_iter: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    sides = Penalty(marginal_x, penalty), Penalty(marginal_y, penalty)
    if penalty == PENALTY_TV:
        return _with_dummies(cost, a, b, *sides, backend)
    return kl_transport(
        cost,
        a,
        b,
        marginal_x,
        marginal_y,
        tol,
        max_iter,
        backend=backend,  # type: ignore[arg-type]
    )


def _with_dummies(
    cost: Tensor, a: Tensor, b: Tensor, x: Penalty, y: Penalty, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Solve for the total variation.

    What a row does not send goes to the dummy column, what a column lacks comes from the dummy row,
    each for its weight, or for the cheapest way beyond the masses of the other side.
    """
    here, there = (a > 0)[:, :, None], (b > 0)[:, None, :]
    used = torch.where(here & there, cost, 0)
    masked = torch.where(here & there, cost, inf)
    beyond_y, at_y = (masked + y.weight).min(2)
    beyond_x, at_x = (masked + x.weight).min(1)
    left, lacking = beyond_y.clamp(max=x.weight), beyond_x.clamp(max=y.weight)
    left, lacking = torch.where(a > 0, left, 0), torch.where(b > 0, lacking, 0)
    corner = torch.zeros_like(left[:, :1, None])
    costs = torch.cat(
        [
            torch.cat([used, left[:, :, None]], 2),
            torch.cat([lacking[:, None, :], corner], 2),
        ],
        1,
    )
    total_a, total_b = a.sum(1, keepdim=True), b.sum(1, keepdim=True)
    full, objective, f, g, iterations, status = transport(
        costs,
        torch.cat([a, total_b], 1),
        torch.cat([b, total_a], 1),
        backend=backend,  # type: ignore[arg-type]
    )
    plan = full[:, :-1, :-1].clone()
    over_y = torch.where(beyond_y < x.weight, full[:, :-1, -1], 0)
    over_x = torch.where(beyond_x < y.weight, full[:, -1, :-1], 0)
    plan.scatter_add_(2, at_y[:, :, None], over_y[:, :, None])
    plan.scatter_add_(1, at_x[:, None, :], over_x[:, None, :])
    # More of both sides at once would pay without end.
    endless = (masked + (x.weight + y.weight) < 0).any(2).any(1)
    empty = (total_a[:, 0] <= 0) | (total_b[:, 0] <= 0)
    status = torch.where((status <= MAX_ITER) & (endless | empty), INFEASIBLE, status)
    f, g = f[:, :-1] + g[:, -1:], g[:, :-1] + f[:, -1:]
    gap = torch.zeros_like(objective)
    return _without_failed(plan, objective, f, g, gap, iterations, status.to(torch.int32))


def _without_failed(
    plan: Tensor,
    objective: Tensor,
    f: Tensor,
    g: Tensor,
    gap: Tensor,
    iterations: Tensor,
    status: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    beyond = (status <= MAX_ITER) & ~(objective.isfinite() & gap.isfinite())
    status = torch.where(beyond, NONFINITE, status).to(torch.int32)
    failed = status > MAX_ITER
    return (
        torch.where(failed[:, None, None], torch.nan, plan),
        torch.where(failed, torch.nan, objective),
        torch.where(failed[:, None], torch.nan, f),
        torch.where(failed[:, None], torch.nan, g),
        torch.where(failed, torch.nan, gap),
        iterations,
        status,
    )


def _fake(cost: Tensor, a: Tensor, b: Tensor, *_: Any) -> tuple[Tensor, ...]:
    batch = cost.shape[0]
    counts = cost.new_empty(batch, dtype=torch.int32)
    return (
        torch.empty_like(cost, memory_format=torch.contiguous_format),
        cost.new_empty(batch),
        torch.empty_like(a, memory_format=torch.contiguous_format),
        torch.empty_like(b, memory_format=torch.contiguous_format),
        cost.new_empty(batch),
        counts,
        torch.empty_like(counts),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cost, a, b, ctx.marginal_x, ctx.marginal_y, ctx.penalty, *_ = inputs
    plan, objective, f, g, *_ = output
    ctx.underived = ("plan", "f", "g", "gap")
    save(ctx, cost, a, b, plan, f, g, objective)


_MOVES = (
    "the second derivative of unbalanced_transport would have to move the plan; pass"
    " create_graph=False, or use unbalanced_sinkhorn"
)


def _slopes(ctx: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives of the objective in cost, a and b."""
    cost, a, b, plan, f, g, _ = ctx.saved_tensors
    numbers = torch.where(cost.isfinite(), cost, inf).detach()

    def slope(
        cost: Tensor, mass: Tensor, other: Tensor, f: Tensor, g: Tensor, side: Penalty
    ) -> Tensor:
        entering = torch.where((other > 0)[:, None, :], cost - g[:, None, :], inf).amin(2)
        bound = side.weight if ctx.penalty == PENALTY_TV else inf
        full = torch.where(mass > 0, f, entering.clamp(max=bound))
        return paid_for(side, torch.where(full == inf, 0, full))

    x, y = Penalty(ctx.marginal_x, ctx.penalty), Penalty(ctx.marginal_y, ctx.penalty)
    plan, f, g = plan.detach(), f.detach(), g.detach()
    of_a = slope(numbers, a.detach(), b.detach(), f, g, x)
    of_b = slope(numbers.mT, b.detach(), a.detach(), g, f, y)
    return tuple(held(value, _MOVES, cost, a, b) for value in (plan, of_a, of_b))  # type: ignore[return-value]


def _backward(
    ctx: Any, grad_plan: Tensor | None, grad_objective: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    del grad_plan
    if grad_objective is None:
        return None, None, None
    of_cost, of_a, of_b = _slopes(ctx)
    return (
        grad_objective[:, None, None] * of_cost,
        grad_objective[:, None] * of_a,
        grad_objective[:, None] * of_b,
    )


def _jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
    plan, f, g, objective = ctx.saved_tensors[3:]
    change = along(_slopes(ctx), tangents[:3])
    return undefined(plan), change, undefined(f), undefined(g), undefined(objective), None, None


_OPERATOR = Operator(
    "unbalanced_transport",
    _solve,
    fake=_fake,
    outputs=("plan", "objective", "f", "g", "gap", "iterations", "status"),
    setup_context=_setup_context,
    backward=_backward,
    jvp=_jvp,
    composed=True,
)
