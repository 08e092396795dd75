"""Semi-relaxed fused Gromov-Wasserstein of a batch of small problems."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.ot._operators.fgw import envelope_gradients
from hotnas_torch.ot._operators.operator import (
    Backend,
    Operator,
    along,
    held,
    is_tracked,
    save,
    undefined,
)
from hotnas_torch.ot._reference.semirelaxed_fgw import NUM_STARTS
from hotnas_torch.ot._reference.semirelaxed_fgw import semirelaxed_fgw as reference

__all__ = ["NUM_STARTS", "semirelaxed_fgw"]


def semirelaxed_fgw(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    init: Tensor,
    start_costs: Tensor,
    loss: int,
    pairs: int,
    num_starts: int,
    tol: float,
    max_iter: int,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Find a stationary T of (1 - alpha) <cost, T> + alpha * sum T_ij T_kl L(...) with T 1 = a.

    The arguments are those of `hotnas_torch.ot._reference.semirelaxed_fgw.semirelaxed_fgw`, which
    is the specification.

    Args:
        cost: Costs between nodes, shape (B, n, m), float32 or float64.
        struct_x: Structure of the first graph, shape (B, n, n).
        struct_y: Structure of the second graph, shape (B, m, m).
        a: Masses of the first graph, shape (B, n). Nodes of zero weight are absent.
        b: Masses that the start a b' gives the second graph, shape (B, m); likewise.
        alpha: Weight of the quadratic term per item, shape (B,), in [0, 1].
        init: Coupling to start from, shape (B, n, m), or no elements for none.
        start_costs: Costs whose cheapest columns are starts, shape (R, n, m), or no elements.
        loss: 0 for l1, 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.
        num_starts: How many of the starts to use.
        tol: Relative gap to stop at.
        max_iter: Most iterations of one start.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        `plan` (B, n, m); `objective` (B,); row duals `f` (B, n); `gap` (B,); `iterations` (B,)
        int32; `status` (B,) int32.

    Raises:
        ValueError: There are fewer starts than `num_starts`.

    Differentiability:
        `objective` in `cost`, `struct_x`, `struct_y`, `a` and `alpha`, by the envelope theorem at
        the coupling found; the derivative in a mass is its dual, as the columns take any total. It
        does not depend on `b`. A backward pass into any other output raises.

    Complexity:
        O(n^2 m) per iteration; backward O(n^2 m^2).
    """
    given = len(start_costs) if start_costs.numel() else 0
    available = NUM_STARTS + given + (1 if init.numel() else 0)
    if not 1 <= num_starts <= available:
        msg = (
            f"num_starts must be between 1 and {available} (a b', pointwise, init and start_costs"
            f" together); got {num_starts}; give more start_costs"
        )
        raise ValueError(msg)
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _OPERATOR(
        cost,
        struct_x,
        struct_y,
        a,
        b,
        alpha,
        init,
        start_costs,
        loss,
        pairs,
        num_starts,
        tol,
        max_iter,
        backend=backend,
    )
    return result


def _fake(cost: Tensor, struct_x: Tensor, struct_y: Tensor, a: Tensor, *_: Any) -> Any:
    del struct_x, struct_y
    batch = cost.shape[0]
    counts = cost.new_empty(batch, dtype=torch.int32)
    return (
        torch.empty_like(cost, memory_format=torch.contiguous_format),
        cost.new_empty(batch),
        torch.empty_like(a, memory_format=torch.contiguous_format),
        cost.new_empty(batch),
        counts,
        torch.empty_like(counts),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cost, struct_x, struct_y, a, b, alpha, _, _, ctx.loss, ctx.pairs, *_, compiled = inputs
    ctx.backend = "ext" if compiled else "torch"
    plan, _, f, *_ = output
    ctx.underived = ("plan", "f", "gap")
    save(ctx, cost, struct_x, struct_y, a, b, alpha, plan, f)


_MOVES = (
    "the second derivative of semirelaxed_fgw would have to move the coupling, which stays only"
    " where every row has one column and the masses do not change; pass create_graph=False"
)


def _held(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    alpha: Tensor,
    plan: Tensor,
    f: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return a stationary coupling and its duals, constant to first order (second: `held`)."""
    others = cost, struct_x, struct_y, alpha
    if not is_tracked(*others, a):
        return plan.detach(), f.detach()
    # One more row that has all columns: a row with two of them closes a cycle with it.
    vertex = torch.cat([plan, torch.ones_like(plan[:, :1])], 1)
    moved = held(plan, _MOVES, *others, vertex=vertex)
    f = held(f, _MOVES, *others, a)
    return held(plan, _MOVES, a) + (moved - moved.detach()), f


def _slopes(ctx: Any, grad: Tensor, needed: Sequence[bool]) -> tuple[Tensor | None, ...]:
    cost, struct_x, struct_y, a, b, alpha, plan, f = ctx.saved_tensors
    plan, f = _held(cost, struct_x, struct_y, a, alpha, plan, f)
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
        torch.zeros_like(b),
        loss=ctx.loss,
        pairs=ctx.pairs,
        needed=needed,
        backend=ctx.backend,
    )
    return of_cost, of_x, of_y, grad[:, None] * f, None, of_alpha


def _backward(
    ctx: Any, grad_plan: Tensor | None, grad_objective: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    del grad_plan
    if grad_objective is None:
        return (None,) * 6
    return _slopes(ctx, grad_objective, ctx.needs_input_grad)


def _jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
    *_, alpha, plan, f = ctx.saved_tensors
    needed = [tangent is not None for tangent in tangents[:6]]
    moving = [tangent if place != 4 else None for place, tangent in enumerate(tangents[:6])]
    change = torch.zeros_like(alpha)
    if any(tangent is not None for tangent in moving):
        change = along(_slopes(ctx, torch.ones_like(alpha), needed), moving)
    return undefined(plan), change, undefined(f), undefined(alpha), None, None


_OPERATOR = Operator(
    "semirelaxed_fgw",
    reference,
    fake=_fake,
    outputs=("plan", "objective", "f", "gap", "iterations", "status"),
    shared=(7,),
    setup_context=_setup_context,
    backward=_backward,
    jvp=_jvp,
)
