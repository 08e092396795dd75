"""Partial couplings: transport and fused Gromov-Wasserstein of a part of the mass.

A coupling that moves `mass` of both sides is a coupling of all of it once each side has one more
node, a dummy that takes at no cost what the other side leaves; the pair of the two dummies is
forbidden. So these are the balanced operators on a bordered problem, and have their exactness,
their starts and their proof of optimality. What is here is the border, and the derivatives, which
have no constant to leave open.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from hotnas_torch.ot._operators.fgw import check_starts, envelope_gradients, fgw, linearised
from hotnas_torch.ot._operators.operator import (
    Backend,
    along,
    attached,
    has_values,
    held,
    is_tracked,
    save,
    undefined,
)
from hotnas_torch.ot._operators.transport import transport

__all__ = ["partial_fgw", "partial_transport"]


def partial_transport(
    cost: Tensor, a: Tensor, b: Tensor, mass: Tensor, *, backend: Backend = "auto"
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Minimise <cost, T> over T >= 0 that move `mass` in all, at most `a` and `b`, exactly.

    Args:
        cost: Costs, shape (B, n, m), float32 or float64; +infinity forbids a pair.
        a: Row masses, shape (B, n). Nodes of zero weight are absent.
        b: Column masses, shape (B, m).
        mass: What is moved, shape (B,), at most the sum of `a` and that of `b`.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        `plan` (B, n, m); `objective` (B,); duals `f` (B, n) <= 0, `g` (B, m) <= 0 and `price`
        (B,), with f_i + g_j + price <= cost_ij and <f, a> + <g, b> + price mass = objective;
        `iterations` (B,) int32; `status` (B,) int32.

    Differentiability:
        `objective` in `cost` (the plan), `a`, `b` (f and g) and `mass` (price), by the envelope
        theorem; else as `transport`.
    """
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _TRANSPORT(
        cost, a, b, mass, backend
    )
    return result


def partial_fgw(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    mass: Tensor,
    init: Tensor,
    start_costs: Tensor,
    loss: int,
    pairs: int,
    num_starts: int,
    tol: float,
    max_iter: int,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Find a stationary T >= 0 of the objective of `fgw` that moves `mass`, at most `a` and `b`.

    Args:
        cost: Costs between nodes, shape (B, n, m), float32 or float64; +infinity forbids a pair.
        struct_x: Structure of the first graph, shape (B, n, n).
        struct_y: Structure of the second graph, shape (B, m, m).
        a: Masses of the first graph, shape (B, n). Nodes of zero weight are absent.
        b: Masses of the second graph, shape (B, m).
        alpha: Weight of the quadratic term per item, shape (B,), in [0, 1].
        mass: What is moved, shape (B,), at most the sum of `a` and that of `b`.
        init: Partial coupling to start from, shape (B, n, m), or no elements for none.
        start_costs: Costs whose cheapest vertices are starts, shape (R, n, m), or no elements.
        loss: 0 for l1, 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.
        num_starts: How many of the starts of `fgw` to use; the order-preserving one, of all mass,
            is passed over where mass is left.
        tol: Relative duality gap to stop at.
        max_iter: Most transport problems that one start may solve.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        `plan` (B, n, m); `objective` (B,); duals `f` (B, n), `g` (B, m) and `price` (B,) of the
        problem linearised there, as of `partial_transport`; `gap` (B,), at least
        <grad F(T), T - V> for every partial coupling V; `iterations` (B,) int32; `status` (B,)
        int32.

    Differentiability:
        `objective` in everything up to `mass`, by the envelope theorem at the coupling found; else
        as `fgw`.
    """
    check_starts(num_starts, init, start_costs)
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _FGW(
        cost,
        struct_x,
        struct_y,
        a,
        b,
        alpha,
        mass,
        init,
        start_costs,
        loss,
        pairs,
        num_starts,
        tol,
        max_iter,
        backend,
    )
    return result


def _left(masses: Tensor, mass: Tensor) -> Tensor:
    """Return what `mass` leaves of (B, n), shape (B,); what rounding leaves of it is nothing."""
    total = masses.sum(1)
    rest = total - mass
    dust = 4 * masses.shape[1] * torch.finfo(masses.dtype).eps * total
    return torch.where(rest.abs() <= dust, 0, rest)


def _with_dummies(
    cost: Tensor, a: Tensor, b: Tensor, mass: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One more row and column, which take what is left of the other side, at no cost."""
    bordered = pad(cost, (0, 1, 0, 1))
    bordered[:, -1, -1] = torch.inf
    of_rows, of_columns = _left(b, mass), _left(a, mass)
    return (
        bordered,
        torch.cat([a, of_rows[:, None]], 1),
        torch.cat([b, of_columns[:, None]], 1),
    )


def _bordered(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return a partial coupling (B, n, m) with what it leaves, (B, n + 1, m + 1)."""

    def left(masses: Tensor, moved: Tensor) -> Tensor:
        rest = masses - moved
        dust = 8 * torch.finfo(rest.dtype).eps * masses.sum(1, keepdim=True)
        return torch.where(rest <= dust, 0, rest)

    whole = torch.cat([plan, left(a, plan.sum(2))[:, :, None]], 2)
    below = torch.cat([left(b, plan.sum(1)), torch.zeros_like(a[:, :1])], 1)
    return torch.cat([whole, below[:, None, :]], 1)


def _without_dummies(
    rows: Tensor, columns: Tensor, f: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Duals of the partial problem from those of the bordered one, which have a free constant.

    A dummy for which nothing is left enters where the nodes that are there allow it.
    """

    def at_dummy(own: Tensor, dual: Tensor, masses: Tensor, others: Tensor) -> Tensor:
        largest = torch.where(masses > 0, others, -torch.inf)[:, :-1].amax(1)
        return torch.where((own[:, -1] > 0) | (largest == -torch.inf), dual[:, -1], -largest)

    left = rows[:, -1], columns[:, -1]
    readable = rows.device.type == "cpu" and has_values(*left)
    if readable and all(mass.numel() and mass.min().item() > 0 for mass in left):
        row, column = f[:, -1], g[:, -1]
    else:
        row, column = at_dummy(rows, f, columns, g), at_dummy(columns, g, rows, f)
    of_rows = (f[:, :-1] + column[:, None]).clamp_max(0)
    of_columns = (g[:, :-1] + row[:, None]).clamp_max(0)
    return of_rows, of_columns, -(row + column)


def _entering(
    cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, price: Tensor
) -> tuple[Tensor, Tensor]:
    """Duals with which absent nodes would enter: they may be left, or take part."""
    x, y = a > 0, b > 0
    rest = cost - price[:, None, None]
    of_rows = torch.where(y[:, None, :], rest - g[:, None, :], torch.inf).amin(2)
    of_columns = torch.where(x[:, :, None], rest - f[:, :, None], torch.inf).amin(1)
    # What costs no number does not enter.
    of_rows, of_columns = (dual.nan_to_num(0, 0, 0).clamp_max(0) for dual in (of_rows, of_columns))
    return torch.where(x, f, of_rows), torch.where(y, g, of_columns)


# --- transport ------------------------------------------------------------------------------------


def _transport(
    cost: Tensor, a: Tensor, b: Tensor, mass: Tensor, backend: Backend
) -> tuple[Tensor, ...]:
    bordered, rows, columns = _with_dummies(cost, a, b, mass)
    plan, objective, f, g, iterations, status = transport(
        bordered, rows, columns, 1, backend=backend
    )
    f, g, price = _without_dummies(rows, columns, f, g)
    return plan[:, :-1, :-1].contiguous(), objective, f, g, price, iterations, status


def _setup_transport(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cost, a, b, *_ = inputs
    plan, _, f, g, price, _, _ = output
    ctx.underived = ("plan", "f", "g", "price")
    save(ctx, cost, a, b, plan, f, g, price)


def _transport_slopes(ctx: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the derivatives of the objective in cost, a, b and mass."""
    cost, a, b, plan, f, g, price = ctx.saved_tensors
    f, g = _entering(cost.detach(), a, b, f.detach(), g.detach(), price.detach())
    plan = held(plan, _MIXED, a, b)
    f, g, price = (held(dual, _MIXED, cost) for dual in (f, g, price))
    return plan, f, g, price


def _transport_backward(
    ctx: Any, grad_plan: Tensor | None, grad_objective: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    del grad_plan
    if grad_objective is None:
        return (None,) * 4
    return tuple(
        grad_objective.reshape(-1, *[1] * (slope.dim() - 1)) * slope
        for slope in _transport_slopes(ctx)
    )


def _transport_jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
    plan, f, g, price = ctx.saved_tensors[3:]
    change = along(_transport_slopes(ctx), tangents[:4])
    return undefined(plan), change, undefined(f), undefined(g), undefined(price), None, None


_MIXED = (
    "the second derivative of partial_transport in both cost and masses would have to move the"
    " plan; detach one of them"
)
_TRANSPORT = attached(
    "partial_transport",
    _transport,
    outputs=("plan", "objective", "f", "g", "price", "iterations", "status"),
    setup_context=_setup_transport,
    backward=_transport_backward,
    jvp=_transport_jvp,
)


# --- fused Gromov-Wasserstein ---------------------------------------------------------------------


def _fgw(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    mass: Tensor,
    init: Tensor,
    start_costs: Tensor,
    loss: int,
    pairs: int,
    num_starts: int,
    tol: float,
    max_iter: int,
    backend: Backend,
) -> tuple[Tensor, ...]:
    bordered, rows, columns = _with_dummies(cost, a, b, mass)
    plan, objective, f, g, gap, iterations, status = fgw(
        bordered,
        pad(struct_x, (0, 1, 0, 1)),
        pad(struct_y, (0, 1, 0, 1)),
        rows,
        columns,
        alpha,
        _bordered(init, a, b) if init.numel() else init,
        pad(start_costs, (0, 1, 0, 1)) if start_costs.numel() else start_costs,
        loss,
        pairs,
        num_starts,
        tol,
        max_iter,
        1,
        backend=backend,
    )
    f, g, price = _without_dummies(rows, columns, f, g)
    plan = plan[:, :-1, :-1].contiguous()
    return plan, objective, f, g, price, gap, iterations, status


def _setup_fgw(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cost, struct_x, struct_y, a, b, alpha, mass, _, _, ctx.loss, ctx.pairs, *_, ctx.backend = inputs
    plan, _, f, g, price, *_ = output
    ctx.underived = ("plan", "f", "g", "price", "gap")
    save(ctx, cost, struct_x, struct_y, a, b, alpha, mass, plan, f, g, price)


def _fgw_slopes(ctx: Any, grad: Tensor, needed: Sequence[bool]) -> tuple[Tensor | None, ...]:
    *inputs, mass, plan, f, g, price = ctx.saved_tensors
    cost, struct_x, struct_y, a, b, alpha = inputs
    plan, f, g, price = (value.detach() for value in (plan, f, g, price))
    if needed[3] or needed[4]:
        slope = linearised(cost, struct_x, struct_y, alpha, plan, loss=ctx.loss, pairs=ctx.pairs)
        f, g = _entering(slope, a, b, f, g, price)
    others = cost, struct_x, struct_y, alpha
    if is_tracked(*others, a, b, mass):
        vertex = _bordered(plan, a.detach(), b.detach())
        f, g, price = (held(dual, _MOVES, *inputs, mass) for dual in (f, g, price))
        moved = held(plan, _MOVES, *others, vertex=vertex)
        plan = held(plan, _MOVES, a, b, mass) + (moved - moved.detach())
    slopes = envelope_gradients(
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
    of_cost, of_x, of_y, _, _, of_alpha = slopes
    return of_cost, of_x, of_y, grad[:, None] * f, grad[:, None] * g, of_alpha, grad * price


def _fgw_backward(
    ctx: Any, grad_plan: Tensor | None, grad_objective: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    del grad_plan
    if grad_objective is None:
        return (None,) * 7
    return _fgw_slopes(ctx, grad_objective, ctx.needs_input_grad)


def _fgw_jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
    mass, plan, f, g, price = ctx.saved_tensors[6:]
    needed = [tangent is not None for tangent in tangents[:7]]
    change = along(_fgw_slopes(ctx, torch.ones_like(mass), needed), tangents[:7])
    duals = (undefined(value) for value in (f, g, price))
    return undefined(plan), change, *duals, undefined(mass), None, None


_MOVES = (
    "the second derivative of partial_fgw would have to move the coupling, which stays only where"
    " it is a vertex of the polytope of partial couplings and the masses do not change; pass"
    " create_graph=False"
)
_FGW = attached(
    "partial_fgw",
    _fgw,
    outputs=("plan", "objective", "f", "g", "price", "gap", "iterations", "status"),
    shared=(8,),
    setup_context=_setup_fgw,
    backward=_fgw_backward,
    jvp=_fgw_jvp,
)
