"""Unbalanced transport without entropy, of a batch: exact transport, or proximal Sinkhorn steps."""

from math import frexp, inf
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.ot._operators.operator import Backend, Operator, along, held, save, undefined
from hotnas_torch.ot._operators.transport import transport
from hotnas_torch.ot._operators.unbalanced_sinkhorn import (
    paid_for,
    unbalanced_plan,
    unbalanced_sinkhorn,
    unbalanced_value,
)
from hotnas_torch.ot._reference.scale import exponent_of, largest_of
from hotnas_torch.ot._reference.transport import CONVERGED, INFEASIBLE, MAX_ITER, NONFINITE
from hotnas_torch.ot._reference.unbalanced_sinkhorn import PENALTY_TV, Penalty

__all__ = ["unbalanced_transport"]

_STEP = 0.05
"""Entropy of the first proximal step, in units of the largest cost or the smaller weight."""
_SHRINK, _LEAST = 0.6, 2.0**-3
"""What each step multiplies the entropy by, and how small it becomes, of the first: fewer steps,
each of more sweeps, and in all fewer passes over the batch."""
_INNER_TOL = 1e-5
"""Errors of masses in a step, which the gap tells; not so of masses that are held."""
_HELD_TOL = {torch.float32: 3e-6, torch.float64: 1e-10}
_INNER_MAX_ITER = 10_000


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

    For the total variation it is one exact transport problem with a node more on each side. For KL
    each step is an entropic problem relative to the plan before: costs C_k + C - f - g where those
    before were C_k.

    Args:
        cost: Costs, shape (B, n, m), float32 or float64.
        a: Row masses, shape (B, n). Nodes of zero weight are absent.
        b: Column masses, shape (B, m).
        marginal_x: Weight of the penalty of the rows, > 0, or infinite.
        marginal_y: Weight of that of the columns; not both are infinite.
        penalty: 0 for D = KL, 1 for the total variation.
        tol: Relative gap to stop at.
        max_iter: Most proximal steps of an item.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        `plan` (B, n, m); `objective` (B,); feasible duals `f` (B, n), `g` (B, m); `gap` (B,);
        `iterations` (B,) int32; `status` (B,) int32. Items that failed are NaN.

    Differentiability:
        `objective` in `cost`, `a` and `b` by the envelope theorem. Second derivatives and any
        other output raise.

    Complexity:
        O(n m) per augmenting path or iteration of Sinkhorn.
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
    # Steps suit the costs of an item, in powers of two, as all of one call are the same.
    present = (a > 0)[:, :, None] & (b > 0)[:, None, :]
    largest = largest_of(torch.where(present & cost.isfinite(), cost, 0))
    steps = exponent_of(largest).clamp(max=frexp(min(marginal_x, marginal_y))[1])
    found: tuple[Tensor, ...] = ()
    for step in steps.unique().tolist() or [0]:
        items = (steps == step).nonzero().squeeze(1)
        epsilon = _STEP * 2.0**step
        part = _by_proximal_steps(
            cost[items], a[items], b[items], *sides, epsilon, tol, max_iter, backend
        )
        found = found or tuple(value.new_empty((len(a), *value.shape[1:])) for value in part)
        for whole, value in zip(found, part, strict=True):
            whole[items] = value
    return found  # type: ignore[return-value]


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


def _by_proximal_steps(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    x: Penalty,
    y: Penalty,
    epsilon: float,
    tol: float,
    max_iter: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Solve for KL."""
    inner_tol = _HELD_TOL[cost.dtype] if x.held or y.held else _INNER_TOL
    settings = x.weight, y.weight, x.kind, inner_tol, _INNER_MAX_ITER
    entropy = epsilon
    here, there = (a > 0)[:, :, None], (b > 0)[:, None, :]
    used = torch.where(here & there, cost, 0)
    plan, f, g = (torch.full_like(like, torch.nan) for like in (cost, a, b))
    objective, gap = torch.full_like(a[:, :1].sum(1), torch.nan), torch.full_like(a.sum(1), inf)
    iterations = torch.zeros(len(a), dtype=torch.int32, device=a.device)
    status = torch.full_like(iterations, MAX_ITER)
    items, costs = torch.arange(len(a), device=a.device), used
    rounding = 64 * torch.finfo(a.dtype).eps
    for step in range(1, max_iter + 1):
        if len(items) == 0:
            break
        part = used[items], a[items], b[items]
        given = costs, *part[1:], entropy, *settings
        u, v, _, _, ended = unbalanced_sinkhorn(*given, backend=backend)  # type: ignore[arg-type]
        now = unbalanced_plan(costs, *part[1:], u, v, entropy)
        value = unbalanced_value(now, *part, 0.0, x.weight, y.weight, x.kind)
        u, v = torch.where(u == -inf, 0, u), torch.where(v == -inf, 0, v)
        slack = torch.where(here[items] & there[items], part[0] - u[:, :, None], inf).amin(1)
        below = torch.where(part[2] > 0, torch.minimum(v, slack), 0)
        dual = (paid_for(x, u) * part[1]).sum(1) + (paid_for(y, below) * part[2]).sum(1)
        size = (part[0].abs() * now).sum((1, 2)) + value.abs()
        distance = (value - dual).clamp_min(0)
        better = (distance < gap[items]) & (ended <= MAX_ITER)
        chosen = items[better]
        plan[chosen], f[chosen], g[chosen] = now[better], u[better], below[better]
        objective[chosen], gap[chosen] = value[better], distance[better]
        iterations[items] = step
        solved = distance <= tol * value.abs() + rounding * size
        failed = ended > MAX_ITER
        status[items] = torch.where(failed, ended, torch.where(solved, CONVERGED, MAX_ITER)).to(
            torch.int32
        )
        # C - entropy log(plan / ab') of the next entropy
        smaller = max(_SHRINK * entropy, _LEAST * epsilon)
        before = torch.where(here[items] & there[items], costs - u[:, :, None] - v[:, None, :], 0)
        going = ~solved & ~failed
        costs = (part[0] + (smaller / entropy) * before)[going]
        items, entropy = items[going], smaller
    return _without_failed(plan, objective, f, g, gap, iterations, status)


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
