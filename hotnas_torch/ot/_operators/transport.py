"""Exact optimal transport of a batch of small problems."""

from typing import Any

import torch
from torch import Tensor

from hotnas_torch.ot._operators.operator import (
    Backend,
    Operator,
    along,
    has_values,
    held,
    save,
    undefined,
)
from hotnas_torch.ot._reference.transport import transport as reference

__all__ = ["entry_duals", "tangent", "transport", "transport_alone"]


def transport(
    cost: Tensor, a: Tensor, b: Tensor, dummies: int = 0, *, backend: Backend = "auto"
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Minimise <cost, T> over the couplings T of `a` and `b`, exactly.

    Args:
        cost: Costs, shape (B, n, m), float32 or float64.
        a: Row masses, shape (B, n). Nodes of zero weight are absent.
        b: Column masses, shape (B, m), with the same sum as `a`.
        dummies: 1 where the last node of each side is a dummy, see the specification.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        `plan` (B, n, m), a vertex of the transport polytope; `objective` (B,); duals `f` (B,
        n) and `g` (B, m) with <f, a> = <g, b>; `iterations` (B,) int32, augmenting paths or
        pivots; `status` (B,) int32.

    Differentiability:
        `objective` in `cost` (the plan), `a` and `b` (the duals, without their part along
        (1, ..., 1), a direction in which balanced masses cannot move), by the envelope theorem.
        At degenerate problems this is one of several subgradients. In reverse and in forward mode,
        and twice in `cost` or in the masses, where the second derivative is 0; the mixed one
        moves the plan, and raises. A backward pass into `plan`, `f` or `g` raises; in
        forward mode the plan has the tangent 0 along `cost`, the duals along the masses, and NaN
        else.

    Complexity:
        Uniform masses of equal sizes: O(n m) per augmenting path, at most n of them. Others: about
        n + m pivots, more for large n; O(n m) each up to some 20 nodes, else O(n + m) and the few
        rows whose costs are looked at. O(n m) memory per item.
    """
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _OPERATOR(
        cost, a, b, dummies, backend=backend
    )
    return result


def transport_alone(
    cost: Tensor, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] | None:
    """Solve one problem, whose tensors and results have no batch dimension; see `Operator.alone`.

    Args:
        cost: Shape (n, m).
        a: Shape (n,).
        b: Shape (m,).
    """
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] | None = _OPERATOR.alone(
        cost, a, b
    )
    return result


def tangent(dual: Tensor, masses: Tensor) -> Tensor:
    """Subtract from `dual` (B, n) its mean over the nodes of positive weight."""
    present = masses > 0
    mean = torch.where(present, dual, 0).sum(1) / present.sum(1).clamp_min(1)
    return dual - mean[:, None]


def _fake(cost: Tensor, a: Tensor, b: Tensor, dummies: int = 0) -> tuple[Tensor, ...]:
    del dummies
    batch = cost.shape[:-2]
    counts = cost.new_empty(batch, dtype=torch.int32)
    return (
        torch.empty_like(cost, memory_format=torch.contiguous_format),
        cost.new_empty(batch),
        torch.empty_like(a, memory_format=torch.contiguous_format),
        torch.empty_like(b, memory_format=torch.contiguous_format),
        counts,
        torch.empty_like(counts),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cost, a, b, *_ = inputs
    plan, _, f, g, _, _ = output
    ctx.underived = ("plan", "f", "g")
    save(ctx, cost, a, b, plan, f, g)


def entry_duals(cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Duals with which absent nodes would enter: where the nodes that are there cost least.

    The duals of an absent row and an absent column also keep to the cost between them, which does
    not count as long as one of them stays away.

    Args:
        cost: Costs, of the linearised problem if it is not linear, shape (B, n, m).
        a: Row masses, shape (B, n).
        b: Column masses, shape (B, m).
        f: Row duals, shape (B, n), as they are returned where a > 0.
        g: Column duals, shape (B, m).
    """
    cost, f, g = cost.detach(), f.detach(), g.detach()
    x, y = a > 0, b > 0
    if has_values(a, b) and bool(x.all()) and bool(y.all()):
        return f, g
    of_rows = torch.where(y[:, None, :], cost - g[:, None, :], torch.inf).amin(2)
    of_columns = torch.where(x[:, :, None], cost - f[:, :, None], torch.inf).amin(1)
    # What costs no number does not enter.
    of_rows, of_columns = of_rows.nan_to_num(0, 0, 0), of_columns.nan_to_num(0, 0, 0)
    return torch.where(x, f, of_rows), torch.where(y, g, of_columns)


def _slopes(ctx: Any, of_masses: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives of the objective in cost, a and b."""
    cost, a, b, plan, f, g = ctx.saved_tensors
    if of_masses:
        f, g = entry_duals(cost, a, b, f, g)
    plan = held(plan, _MIXED, a, b)
    f, g = held(f, _MIXED, cost), held(g, _MIXED, cost)
    return plan, tangent(f, a), tangent(g, b)


def _backward(
    ctx: Any, grad_plan: Tensor | None, grad_objective: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    del grad_plan
    if grad_objective is None:
        return None, None, None
    of_cost, of_a, of_b = _slopes(ctx, any(ctx.needs_input_grad[1:3]))
    return (
        grad_objective[:, None, None] * of_cost,
        grad_objective[:, None] * of_a,
        grad_objective[:, None] * of_b,
    )


def _jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
    plan, f, g = ctx.saved_tensors[3:]
    of_cost, *of_masses = (tangent is not None for tangent in tangents[:3])
    change = along(_slopes(ctx, any(of_masses)), tangents[:3])
    plan = undefined(plan) if any(of_masses) else torch.zeros_like(plan)
    f, g = (undefined(dual) if of_cost else torch.zeros_like(dual) for dual in (f, g))
    return plan, change, f, g, None, None


_MIXED = (
    "the second derivative of transport in both cost and masses would have to move the plan;"
    " detach one of them, or use sinkhorn"
)
_OPERATOR = Operator(
    "transport",
    reference,
    fake=_fake,
    outputs=("plan", "objective", "f", "g", "iterations", "status"),
    setup_context=_setup_context,
    backward=_backward,
    jvp=_jvp,
)
