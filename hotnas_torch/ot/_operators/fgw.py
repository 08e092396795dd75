# Over 400 lines: one operator and its derivatives, with the mathematics.
"""Fused Gromov-Wasserstein of a batch of small problems by conditional gradient."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.ot._operators.operator import (
    Backend,
    Operator,
    along,
    attached,
    has_values,
    held,
    is_tracked,
    save,
    undefined,
)
from hotnas_torch.ot._operators.transport import entry_duals, tangent
from hotnas_torch.ot._reference.fgw import NUM_STRUCTURAL_STARTS
from hotnas_torch.ot._reference.fgw import fgw as reference
from hotnas_torch.ot._reference.fgw import fgw_backward as reference_backward
from hotnas_torch.ot._reference.pair_cost import (
    LOSS_L2,
    PAIRS_ALL,
    dense_pair_cost,
    pair_cost_gradient,
)

__all__ = [
    "NUM_STRUCTURAL_STARTS",
    "check_starts",
    "envelope_gradients",
    "fgw",
    "fgw_backward",
    "linearised",
    "quadratic_cost",
]

_MOST_FOURFOLD = 16
"""Nodes up to which the quadratic term is summed by its definition also where products give it."""


def fgw(
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
    dummies: int = 0,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Find a stationary coupling T of (1 - alpha) <cost, T> + alpha * sum T_ij T_kl L(...).

    The arguments are those of `hotnas_torch.ot._reference.fgw.fgw`, which is the specification.

    Args:
        cost: Costs between nodes, shape (B, n, m), float32 or float64; +infinity forbids a pair.
        struct_x: Structure of the first graph, shape (B, n, n).
        struct_y: Structure of the second graph, shape (B, m, m).
        a: Masses of the first graph, shape (B, n). Nodes of zero weight are absent.
        b: Masses of the second graph, shape (B, m), with the same sum.
        alpha: Weight of the quadratic term per item, shape (B,), in [0, 1].
        init: Coupling to start from, shape (B, n, m), or no elements for none.
        start_costs: Costs whose cheapest vertices are starts, shape (R, n, m), or no elements.
        loss: 0 for l1, 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.
        num_starts: How many of the starts to use.
        tol: Relative duality gap to stop at.
        max_iter: Most transport problems that one start may solve.
        dummies: 1 where the last node of each side is a dummy, see the specification; not
            differentiable then.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        `plan` (B, n, m); `objective` (B,); duals `f` (B, n), `g` (B, m) of the linearised
        problem; `gap` (B,); `iterations` (B,) int32; `status` (B,) int32.

    Raises:
        ValueError: There are fewer starts than `num_starts`.

    Differentiability:
        `objective` in `cost`, `struct_x`, `struct_y`, `alpha` and the masses, by the
        envelope
        theorem at the coupling found: the local optimum is followed, not the choice among several.
        The derivative of the l1 loss at ties is taken as 0. The masses' derivatives are the duals
        of the linearised problem without their part along (1, ..., 1). A
        backward pass into any other output raises.

    Complexity:
        O((n + m) n m) per iteration plus one exact transport problem; backward O(n^2 m^2).
    """
    check_starts(num_starts, init, start_costs)
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _FGW(
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
        dummies,
        backend=backend,
    )
    return result


def fgw_backward(
    plan: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    weight: Tensor,
    loss: int,
    pairs: int,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Differentiate the quadratic term by the structures at a fixed plan.

    Args:
        plan: Coupling, shape (B, n, m).
        struct_x: Structure of the first graph, shape (B, n, n).
        struct_y: Structure of the second graph, shape (B, m, m).
        weight: Factor of each item, shape (B,).
        loss: 0 for l1 (the derivative at 0 is taken as 0), 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        weight * d/d struct_x (B, n, n) and weight * d/d struct_y (B, m, m). Not differentiable.

    Complexity:
        O(n^2 m^2) per item for a dense plan.
    """
    grad_x, grad_y, _ = _FGW_BACKWARD(
        plan, struct_x, struct_y, weight, loss, pairs, backend=backend
    )
    return grad_x, grad_y


def quadratic_cost(
    plan: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    loss: int,
    pairs: int,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Compute the sum of plan_ij plan_kl L(struct_x_ik - struct_y_jl) over the pair set.

    Args:
        plan: Coupling, shape (B, n, m), dense or not.
        struct_x: Structure of the first graph, shape (B, n, n), finite also at absent nodes.
        struct_y: Structure of the second graph, shape (B, m, m), finite also at absent nodes.
        loss: 0 for l1, 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        The quadratic term, shape (B,).

    Differentiability:
        In the plan and both structures, as often as wanted; the derivative of the l1 loss at ties
        is taken as 0.

    Complexity:
        O(n^2 m^2) per item for a dense plan, forward and backward; forward O(n m (n + m)) for the
        squared loss on all pairs of large problems on a CPU.
    """
    value: Tensor = _QUADRATIC_COST(plan, struct_x, struct_y, loss, pairs, backend)
    return value


def check_starts(num_starts: int, init: Tensor, start_costs: Tensor) -> None:
    """Raise ValueError unless there are `num_starts` starts, at least one."""
    given = len(start_costs) if start_costs.numel() else 0
    available = NUM_STRUCTURAL_STARTS + given + (1 if init.numel() else 0)
    if not 1 <= num_starts <= available:
        msg = (
            f"num_starts must be between 1 and {available} (structural starts, init and start_costs"
            f" together); got {num_starts}; give more start_costs"
        )
        raise ValueError(msg)


def _fake(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    *_: Any,
) -> tuple[Tensor, ...]:
    del struct_x, struct_y
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


def _fake_backward(
    plan: Tensor, struct_x: Tensor, struct_y: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(struct_x, memory_format=torch.contiguous_format),
        torch.empty_like(struct_y, memory_format=torch.contiguous_format),
        plan.new_empty(plan.shape[0]),
    )


def _quadratic(
    plan: Tensor, struct_x: Tensor, struct_y: Tensor, loss: int, pairs: int, backend: Backend
) -> Tensor:
    falls_apart = loss == LOSS_L2 and pairs == PAIRS_ALL and min(plan.shape[1:]) > _MOST_FOURFOLD
    on_cpu = plan.device.type == "cpu" and has_values(plan, struct_x, struct_y)
    if falls_apart and on_cpu and backend != "torch" and len(plan) > 0:
        items = zip(plan, struct_x, struct_y, strict=True)
        return torch.stack([_quadratic_by_products(*item) for item in items]).to(plan)
    ones = plan.new_ones(plan.shape[0])
    *_, value = _FGW_BACKWARD(plan, struct_x, struct_y, ones, loss, pairs, backend=backend)
    return value  # type: ignore[no-any-return]


def _quadratic_by_products(plan: Tensor, struct_x: Tensor, struct_y: Tensor) -> Tensor:
    """Of one item, as no other is to change how it is rounded, and of the nodes that are there.

    p X^2 p + q Y^2 q - 2 <X T Y', T> cancels where the structures agree, so that it is taken in
    double precision, and from structures less the middle of their entries.
    """
    rows, columns = plan.sum(1) > 0, plan.sum(0) > 0
    if not bool(rows.any()):
        return plan.new_zeros(())
    if not (bool(rows.all()) and bool(columns.all())):
        plan = plan[rows][:, columns]
        struct_x, struct_y = struct_x[rows][:, rows], struct_y[columns][:, columns]
    plan, x, y = plan.double(), struct_x.double(), struct_y.double()
    low, high = torch.minimum(x.amin(), y.amin()), torch.maximum(x.amax(), y.amax())
    middle = low + (high - low) / 2
    x, y = x - middle, y - middle
    p, q = plan.sum(1), plan.sum(0)
    squares = p @ (x.square() @ p) + q @ (y.square() @ q)
    return (squares - 2 * ((x @ plan @ y.mT) * plan).sum()).clamp_min(0)


def _setup_quadratic(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    plan, struct_x, struct_y, ctx.loss, ctx.pairs, ctx.backend = inputs
    save(ctx, plan, struct_x, struct_y)


def _quadratic_slopes(
    ctx: Any, grad: Tensor, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    plan, struct_x, struct_y = ctx.saved_tensors
    terms = ctx.loss, ctx.pairs
    grad_plan = grad_x = grad_y = None
    if needed[0]:
        grad_plan = grad[:, None, None] * dense_pair_cost(plan, struct_x, struct_y, *terms)
    if needed[1] or needed[2]:
        grad_x, grad_y = structure_gradients(
            plan, struct_x, struct_y, grad, *terms, backend=ctx.backend
        )
    return grad_plan, grad_x, grad_y


def _quadratic_backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    return (None,) * 3 if grad is None else _quadratic_slopes(ctx, grad, ctx.needs_input_grad)


def _quadratic_jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
    plan = ctx.saved_tensors[0]
    needed = [tangent is not None for tangent in tangents[:3]]
    return along(_quadratic_slopes(ctx, plan.new_ones(len(plan)), needed), tangents[:3])


def structure_gradients(
    plan: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    weight: Tensor,
    loss: int,
    pairs: int,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """`fgw_backward`, but differentiable in everything where something is tracked."""
    if is_tracked(plan, struct_x, struct_y, weight):
        return pair_cost_gradient(plan, struct_x, struct_y, weight, loss, pairs)
    return fgw_backward(plan, struct_x, struct_y, weight, loss, pairs, backend=backend)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cost, struct_x, struct_y, a, b, alpha, _, _, ctx.loss, ctx.pairs, *_, dummies, compiled = inputs
    ctx.backend = "ext" if compiled else "torch"
    plan, _, f, g, *_ = output
    ctx.underived = ("plan", *(["objective"] * dummies), "f", "g", "gap")
    save(ctx, cost, struct_x, struct_y, a, b, alpha, plan, f, g)


def _slopes(ctx: Any, grad: Tensor, needed: Sequence[bool]) -> tuple[Tensor | None, ...]:
    cost, struct_x, struct_y, a, b, alpha, plan, f, g = ctx.saved_tensors
    if any(want and _has_absent(mass) for want, mass in zip(needed[3:5], (a, b), strict=True)):
        f, g = entering_duals(
            cost, struct_x, struct_y, a, b, alpha, plan, f, g, loss=ctx.loss, pairs=ctx.pairs
        )
    plan, f, g = held_coupling(cost, struct_x, struct_y, a, b, alpha, plan, f, g)
    return envelope_gradients(
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


def _has_absent(masses: Tensor) -> bool:
    """Whether a node may be absent: what it would cost to enter takes the dense form."""
    return not (has_values(masses) and bool((masses > 0).all()))


def _backward(
    ctx: Any, grad_plan: Tensor | None, grad_objective: Tensor | None, *_: Tensor | None
) -> tuple[Tensor | None, ...]:
    del grad_plan
    if grad_objective is None:
        return (None,) * 6
    return _slopes(ctx, grad_objective, ctx.needs_input_grad)


def _jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
    *_, alpha, plan, f, g = ctx.saved_tensors
    needed = [tangent is not None for tangent in tangents[:6]]
    change = along(_slopes(ctx, torch.ones_like(alpha), needed), tangents[:6])
    gap = undefined(alpha)
    return undefined(plan), change, undefined(f), undefined(g), gap, None, None


_MOVES = (
    "the second derivative of fgw would have to move the coupling, which stays only where it is a"
    " vertex of the transport polytope and the masses do not change; pass create_graph=False, or"
    ' use entropic_fgw with method="mirror"'
)


def held_coupling(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    plan: Tensor,
    f: Tensor,
    g: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a stationary coupling and its duals, constant to first order (second: `held`).

    A vertex stays where costs, structures and alpha change a little; any other coupling moves along
    the edge that it lies on, and the duals move with everything.
    """
    others = cost, struct_x, struct_y, alpha
    if not is_tracked(*others, a, b):
        return plan.detach(), f.detach(), g.detach()
    f, g = (held(dual, _MOVES, *others, a, b) for dual in (f, g))
    moved = held(plan, _MOVES, *others, vertex=plan)
    return held(plan, _MOVES, a, b) + (moved - moved.detach()), f, g


def entering_duals(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    plan: Tensor,
    f: Tensor,
    g: Tensor,
    *,
    loss: int,
    pairs: int,
) -> tuple[Tensor, Tensor]:
    """`entry_duals` of the problem linearised at a stationary coupling."""
    if has_values(a, b) and bool((a > 0).all()) and bool((b > 0).all()):
        return f, g
    slope = linearised(cost, struct_x, struct_y, alpha, plan, loss=loss, pairs=pairs)
    return entry_duals(slope, a, b, f, g)


def linearised(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    alpha: Tensor,
    plan: Tensor,
    *,
    loss: int,
    pairs: int,
) -> Tensor:
    """Costs of the problem linearised at a coupling, constant; forbidden pairs stay forbidden."""
    numbers = (value.detach().nan_to_num(0, 0, 0) for value in (cost, struct_x, struct_y))
    numeric, struct_x, struct_y = numbers
    bend = dense_pair_cost(plan.detach(), struct_x, struct_y, loss, pairs)
    weight = alpha.detach()[:, None, None]
    slope = (1 - weight) * numeric + weight * bend
    return torch.where(cost.detach() == torch.inf, torch.inf, slope)


def envelope_gradients(
    grad: Tensor,
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    plan: Tensor,
    f: Tensor,
    g: Tensor,
    *,
    loss: int,
    pairs: int,
    needed: Sequence[bool],
    backend: Backend,
) -> tuple[Tensor | None, ...]:
    """Gradients of the objective at a stationary coupling, by the envelope theorem.

    Args:
        grad: Gradient of the objective, shape (B,).
        cost: Costs that `fgw` got, shape (B, n, m).
        struct_x: Structures of the rows, (B, n, n).
        struct_y: Structures of the columns, (B, m, m).
        a: Row masses, (B, n).
        b: Column masses, (B, m).
        alpha: Trade-offs, (B,).
        plan: Stationary coupling, shape (B, n, m).
        f: Row duals of the problem linearised there, shape (B, n).
        g: Its column duals, shape (B, m).
        loss: 0 for l1, 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.
        needed: Which of the six gradients are wanted; those of the structures and of alpha, which
            cost something, are None where they are not.
        backend: Of those, which the caller of the objective has chosen.

    Returns:
        Gradients of cost, struct_x, struct_y, a, b and alpha.
    """
    needs_x, needs_y, needs_alpha = (needed[k] for k in (1, 2, 5))
    grad_x = grad_y = grad_alpha = None
    if needs_x or needs_y or needs_alpha:
        # Absent nodes may hold anything: 0 times that must be 0.
        x, y = a > 0, b > 0
        struct_x = torch.where(x[:, :, None] & x[:, None, :], struct_x, 0)
        struct_y = torch.where(y[:, :, None] & y[:, None, :], struct_y, 0)
        unit_x, unit_y = structure_gradients(
            plan, struct_x, struct_y, torch.ones_like(alpha), loss, pairs, backend=backend
        )
        weight = (grad * alpha)[:, None, None]
        grad_x, grad_y = weight * unit_x, weight * unit_y
        if needs_alpha:
            quadratic = quadratic_cost(plan, struct_x, struct_y, loss, pairs, backend=backend)
            linear = torch.where(plan > 0, cost * plan, 0).sum((1, 2))
            grad_alpha = grad * (quadratic - linear)
    return (
        (grad * (1 - alpha))[:, None, None] * plan,
        grad_x,
        grad_y,
        grad[:, None] * tangent(f, a),
        grad[:, None] * tangent(g, b),
        grad_alpha,
    )


_FGW = Operator(
    "fgw",
    reference,
    fake=_fake,
    outputs=("plan", "objective", "f", "g", "gap", "iterations", "status"),
    shared=(7,),
    setup_context=_setup_context,
    backward=_backward,
    jvp=_jvp,
)
_FGW_BACKWARD = Operator(
    "fgw_backward", reference_backward, fake=_fake_backward, outputs=("grad_x", "grad_y", "value")
)
_QUADRATIC_COST = attached(
    "quadratic_cost",
    _quadratic,
    setup_context=_setup_quadratic,
    backward=_quadratic_backward,
    jvp=_quadratic_jvp,
)
