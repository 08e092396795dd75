"""Fused Gromov-Wasserstein whose masses may be missed, for a price of the total variation.

What a row does not send goes to a dummy column and what a column lacks comes from a dummy row, each
for its price: `fgw` of a bordered problem, with its exactness, its proof and its derivatives.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from hotnas_torch.ot._operators.fgw import envelope_gradients, fgw, linearised
from hotnas_torch.ot._operators.operator import (
    Backend,
    along,
    attached,
    held,
    save,
    undefined,
)

__all__ = ["total_variation_fgw"]


def total_variation_fgw(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    init: Tensor,
    price: float,
    loss: int,
    pairs: int,
    tol: float,
    max_iter: int,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Find a stationary T of F(T) + price (|T 1 - a| + |T' 1 - b|), F as of `fgw`.

    With one price for both sides and no cost below 0, more than `a` or `b` never pays.

    Args:
        cost: Costs between nodes, shape (B, n, m), at least 0; +infinity forbids a pair.
        struct_x: Structure of the first graph, shape (B, n, n).
        struct_y: Structure of the second graph, shape (B, m, m).
        a: Masses of the first graph, shape (B, n), of any sum. Nodes of zero weight are absent.
        b: Masses of the second graph, shape (B, m).
        alpha: Weight of the quadratic term per item, shape (B,), in [0, 1].
        init: Plan to start from, shape (B, n, m), at most `a` and `b`.
        price: Of a unit of mass that is missed, > 0.
        loss: 0 for l1, 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.
        tol: Relative duality gap to stop at.
        max_iter: Most transport problems.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        `plan` (B, n, m); `objective` (B,), differentiable once, by the envelope theorem; `gap`
        (B,); `iterations` (B,) int32; `status` (B,) int32.
    """
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _FGW(
        cost, struct_x, struct_y, a, b, alpha, init, price, loss, pairs, tol, max_iter, backend
    )[:5]
    return result


def _solve(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    init: Tensor,
    price: float,
    loss: int,
    pairs: int,
    tol: float,
    max_iter: int,
    backend: Backend,
) -> tuple[Tensor, ...]:
    # Half of it all, so that the linear term, which has the prices, keeps a weight at alpha = 1.
    share = (1 - alpha) / (2 - alpha)
    barred = cost == torch.inf
    linear = torch.where(barred, cost, share[:, None, None] * torch.where(barred, 0, cost))
    left = (price / (2 - alpha))[:, None]
    rows = torch.cat([linear, left[:, :, None].expand(-1, cost.shape[1], 1)], 2)
    below = torch.cat([left.expand(-1, cost.shape[2]), torch.zeros_like(left)], 1)
    plan, objective, f, g, gap, iterations, status = fgw(
        torch.cat([rows, below[:, None, :]], 1),
        pad(struct_x, (0, 1, 0, 1)),
        pad(struct_y, (0, 1, 0, 1)),
        torch.cat([a, b.sum(1, keepdim=True)], 1),
        torch.cat([b, a.sum(1, keepdim=True)], 1),
        0.5 * alpha,
        _bordered(init, a, b),
        init.new_empty(0),
        loss,
        pairs,
        1,
        tol,
        max_iter,
        1,
        backend=backend,
    )
    f, g = 2 * (f[:, :-1] + g[:, -1:]), 2 * (g[:, :-1] + f[:, -1:])
    return plan[:, :-1, :-1].contiguous(), 2 * objective, 2 * gap, iterations, status, f, g


def _bordered(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return a plan (B, n, m) with what it leaves and lacks, (B, n + 1, m + 1)."""
    left, lacking = (a - plan.sum(2)).clamp_min(0), (b - plan.sum(1)).clamp_min(0)
    rows = torch.cat([plan, left[:, :, None]], 2)
    below = torch.cat([lacking, plan.sum((1, 2))[:, None]], 1)
    return torch.cat([rows, below[:, None, :]], 1)


# --- the gradient ---------------------------------------------------------------------------------


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _, ctx.price, ctx.loss, ctx.pairs, _, _, ctx.backend = inputs
    plan, _, gap, _, _, f, g = output
    ctx.underived = ("plan", "gap", "f", "g")
    save(ctx, *tensors, plan, gap, f, g)


_MOVES = (
    'the objective of unbalanced_fgw with penalty="tv" is differentiable once; pass'
    " create_graph=False"
)


def _slopes(ctx: Any, grad: Tensor, needed: Sequence[bool]) -> tuple[Tensor | None, ...]:
    *inputs, plan, _, f, g = ctx.saved_tensors
    cost, struct_x, struct_y, a, b, alpha = inputs
    plan, f, g = (value.detach() for value in (plan, f, g))
    if needed[3] or needed[4]:
        slope = linearised(cost, struct_x, struct_y, alpha, plan, loss=ctx.loss, pairs=ctx.pairs)
        slope = slope.detach().nan_to_num(torch.inf, torch.inf, torch.inf)
        f, g = (
            torch.where(mass > 0, dual, _entering(around, other, masses, ctx.price))
            for mass, dual, around, other, masses in (
                (a, f, slope, g, b),
                (b, g, slope.mT, f, a),
            )
        )
    plan, f, g = (held(value, _MOVES, *inputs) for value in (plan, f, g))
    of_cost, of_x, of_y, _, _, of_alpha = envelope_gradients(
        grad,
        cost,
        struct_x,
        struct_y,
        a,
        b,
        alpha,
        plan,
        f,
        g,
        loss=ctx.loss,
        pairs=ctx.pairs,
        needed=needed,
        backend=ctx.backend,
    )
    return of_cost, of_x, of_y, grad[:, None] * f, grad[:, None] * g, of_alpha


def _entering(slope: Tensor, other: Tensor, masses: Tensor, price: float) -> Tensor:
    """Return what a first mass of absent rows pays: it is missed, or takes part for less."""
    there = (masses > 0)[:, None, :]
    return torch.where(there, slope - other[:, None, :], torch.inf).amin(2).clamp_max(price)


def _backward(
    ctx: Any, grad_plan: Tensor | None, grad_objective: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    del grad_plan
    if grad_objective is None:
        return (None,) * 6
    return _slopes(ctx, grad_objective, ctx.needs_input_grad)


def _jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
    plan, gap, f, g = ctx.saved_tensors[6:]
    needed = [tangent is not None for tangent in tangents[:6]]
    change = along(_slopes(ctx, torch.ones_like(gap), needed), tangents[:6])
    return undefined(plan), change, undefined(gap), None, None, undefined(f), undefined(g)


_FGW = attached(
    "unbalanced_fgw",
    _solve,
    outputs=("plan", "objective", "gap", "iterations", "status", "f", "g"),
    setup_context=_setup,
    backward=_backward,
    jvp=_jvp,
)
