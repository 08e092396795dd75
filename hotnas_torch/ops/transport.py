"""Exact optimal transport of a batch of small problems."""

from typing import Any

import torch
from torch import Tensor

from hotnas_torch.ops.operator import Backend, Operator
from hotnas_torch.ops.reference.transport import transport as reference

__all__ = ["refuse_gradients", "tangent", "transport"]


def transport(
    cost: Tensor, a: Tensor, b: Tensor, *, backend: Backend = "auto"
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Minimise <cost, T> over the couplings T of ``a`` and ``b``, exactly.

    Args:
        cost: Costs, shape (B, n, m), float32 or float64.
        a: Row masses, shape (B, n). Nodes of zero weight are absent.
        b: Column masses, shape (B, m), with the same sum as ``a``.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        ``plan`` (B, n, m), a vertex of the transport polytope; ``objective`` (B,); duals ``f`` (B,
        n) and ``g`` (B, m), up to one constant per item; ``iterations`` (B,) int32, augmenting
        paths; ``status`` (B,) int32.

    Differentiability:
        ``objective`` in ``cost`` (the plan), ``a`` and ``b`` (the duals, without their part along
        (1, ..., 1), a direction in which balanced masses cannot move), by the envelope theorem.
        At degenerate problems this is one of several subgradients. ``plan``, ``f`` and ``g`` are
        piecewise constant: a backward pass into them raises.

    Complexity:
        O(n m) per augmenting path, about n + m of them; O(n m) memory per item.
    """
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _OPERATOR(
        cost, a, b, backend=backend
    )
    return result


def refuse_gradients(op: str, **gradients: Tensor | None) -> None:
    """Raise when the loss uses outputs through which no gradient is defined."""
    used = [name for name, gradient in gradients.items() if gradient is not None]
    if used:
        msg = (
            f"the loss depends on {' and '.join(used)} of {op}, which have no useful derivative;"
            f" differentiate the objective, or detach {' and '.join(used)}"
        )
        raise RuntimeError(msg)


def tangent(dual: Tensor, masses: Tensor) -> Tensor:
    """Subtract from ``dual`` (B, n) its mean over the nodes of positive weight."""
    present = masses > 0
    mean = torch.where(present, dual, 0).sum(1) / present.sum(1).clamp_min(1)
    return dual - mean[:, None]


def _fake(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    batch = cost.shape[0]
    counts = cost.new_empty(batch, dtype=torch.int32)
    return (
        torch.empty_like(cost, memory_format=torch.contiguous_format),
        cost.new_empty(batch),
        torch.empty_like(a, memory_format=torch.contiguous_format),
        torch.empty_like(b, memory_format=torch.contiguous_format),
        counts,
        torch.empty_like(counts),
    )


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    _, a, b = inputs
    plan, _, f, g, _, _ = output
    ctx.save_for_backward(plan, f, g, a, b)


def _backward(
    ctx: Any,
    grad_plan: Tensor | None,
    grad_objective: Tensor | None,
    grad_f: Tensor | None,
    grad_g: Tensor | None,
    *_: Tensor | None,
) -> tuple[Tensor | None, ...]:
    refuse_gradients("transport", plan=grad_plan, f=grad_f, g=grad_g)
    if grad_objective is None:
        return None, None, None
    plan, f, g, a, b = ctx.saved_tensors
    return (
        grad_objective[:, None, None] * plan,
        grad_objective[:, None] * tangent(f, a),
        grad_objective[:, None] * tangent(g, b),
    )


_OPERATOR = Operator(
    "transport", reference, fake=_fake, setup_context=_setup_context, backward=_backward
)
