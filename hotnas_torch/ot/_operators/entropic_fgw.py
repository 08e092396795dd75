# Over 400 lines: one operator and its derivatives, with the mathematics.
"""Entropic fused Gromov-Wasserstein of a batch of small problems, and its gradients.

Mirror descent ends at a coupling T of `a` and `b` with ::

    (1 - alpha) cost + alpha B(T) + epsilon log T = f 1' + 1 g'

(B in `hotnas_torch.ot._reference.pair_cost`), a stationary point of F - epsilon * entropy. With
S = sqrt(T), dT = S u and E u the marginals of S u, differentiating both equations gives the
symmetric system ::

    (epsilon + alpha S B S) u - E' (df, dg) = -S dG,    E u = (da, db)

where dG is what the gradient of F changes by while T is held. It is solved on the couplings'
tangent space, with P the projection onto the null space of E: R = epsilon + alpha P S B S P. Mirror
descent multiplies errors by 1 - R / epsilon there, so that where it converges to T, R is positive
definite. The scaling by S is what keeps entries of T that are almost 0 harmless.

Proximal steps end at a stationary coupling of F, typically on the boundary of the transport
polytope, where it does not move smoothly; its objective has the derivative of the envelope theorem.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.ot._operators.fgw import (
    entering_duals,
    envelope_gradients,
    fgw_backward,
    quadratic_cost,
)
from hotnas_torch.ot._operators.operator import (
    Backend,
    Differentiate,
    Operator,
    along,
    attached,
    has_values,
    held,
    is_tracked,
    save,
    undefined,
)
from hotnas_torch.ot._operators.sinkhorn import (
    absent_shares,
    appearing,
    following_masses,
    marginal_inverse,
    refuse_entering,
)
from hotnas_torch.ot._operators.tracing import one_call
from hotnas_torch.ot._reference.entropic_fgw import entropic_fgw as reference
from hotnas_torch.ot._reference.pair_cost import (
    dense_pair_cost,
    pair_cost_change,
    pair_cost_gradient,
    pair_cost_matrix,
)

__all__ = ["entropic_fgw", "following_plan", "stationary_objective"]

_CHUNK_ELEMENTS = 2**24
"""Entries of the matrices B that exist at one time in a backward pass."""

_MOST_PRODUCTS = 200
"""Of conjugate gradients, until elimination takes over."""


def entropic_fgw(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    init: Tensor,
    epsilon: float,
    loss: int,
    pairs: int,
    proximal: int,
    tol: float,
    max_iter: int,
    inner_tol: float,
    inner_max_iter: int,
    *,
    backend: Backend = "auto",
    differentiate: Differentiate = "implicit",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Find a stationary coupling of F - epsilon * entropy, or of F by proximal steps.

    The arguments are those of `hotnas_torch.ot._reference.entropic_fgw.entropic_fgw`, which is the
    specification.

    Args:
        cost: Costs between nodes, shape (B, n, m), float32 or float64; +inf forbids a pair.
        struct_x: Structure of the first graph, shape (B, n, n).
        struct_y: Structure of the second graph, shape (B, m, m).
        a: Masses of the first graph, shape (B, n). Nodes of zero weight are absent.
        b: Masses of the second graph, shape (B, m), with the same sum.
        alpha: Weight of the quadratic term per item, shape (B,), in [0, 1].
        init: Coupling to start from, shape (B, n, m), or no elements for none; constant.
        epsilon: Weight of the entropy or of the proximal term, in units of the cost, > 0.
        loss: 0 for l1, 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.
        proximal: 0 for mirror descent on the regularised problem, 1 for proximal point.
        tol: Residual to stop at.
        max_iter: Most outer steps of an item.
        inner_tol: L1 row-marginal error at which Sinkhorn stops.
        inner_max_iter: Most Sinkhorn iterations of one step.
        backend: "auto", "ext" or "torch"; see `Operator`.
        differentiate: "implicit", or "unroll" for the reference with its steps recorded.

    Returns:
        `log_plan` (B, n, m); duals `f` (B, n), `g` (B, m); `residual` (B,); `iterations`
        (B,) int32; `status` (B,) int32.

    Differentiability:
        Mirror descent: `log_plan`, `f` and `g` in `cost`, the structures, the masses and
        `alpha`, by implicit differentiation of the equations in the module's docstring, with
        sum f - sum g held constant. This is the derivative at convergence; of an item that was
        stopped early it is the same formula at the plan reached, wrong to the order of the
        residual. Items without a solution (status NONFINITE or INFEASIBLE) get NaN.
        Proximal steps: none, a backward pass raises; see `stationary_objective`.
        Unrolled, everything but the residual, as the derivative of the steps that were taken;
        masses of 0 that are tracked are refused.

    Complexity:
        O(n^2 m^2) per step plus Sinkhorn (for large problems, squared loss, all pairs, on a CPU:
        O(n m (n + m))), O(n m) memory per item; implicit backward O(n^2 m^2) time per step of
        conjugate gradients, O(n^3 m^3) where these do not serve (not converged, or differentiated
        once more), and O(n^2 m^2) memory per item, in chunks of items; unrolled, O(n m) memory per
        Sinkhorn iteration and O(n^2 m^2) per step.
    """
    if differentiate == "unroll":
        refuse_entering(a, b)
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _OPERATOR(
        cost,
        struct_x,
        struct_y,
        a,
        b,
        alpha,
        init,
        epsilon,
        loss,
        pairs,
        proximal,
        tol,
        max_iter,
        inner_tol,
        inner_max_iter,
        backend=backend,
        differentiate=differentiate,
    )
    return result


@one_call
def following_plan(
    log_plan: Tensor,
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: float,
    loss: int,
    pairs: int,
) -> Tensor:
    """Return the coupling of mirror descent, with its derivative in the masses of absent nodes.

    `log_plan` carries it for all others, but is -inf there. The arguments are those of
    `entropic_fgw` and what it returned; the structures are finite also at absent nodes.

    Complexity:
        O(n^2 m^2) if autograd or a transform follows the masses.
    """
    plan = log_plan.exp()
    if not is_tracked(a, b):
        return plan
    (struct_x, known_x), (struct_y, known_y) = bounded(struct_x, a), bounded(struct_y, b)
    bend = dense_pair_cost(plan, struct_x, struct_y, loss, pairs)
    known = known_x[:, :, None] & known_y[:, None, :]
    gradient = torch.where(known, _gradient(cost, bend, alpha), torch.nan)
    return following_masses(plan, gradient, a, b, f, g, epsilon)


def bounded(struct: Tensor, masses: Tensor) -> tuple[Tensor, Tensor]:
    """Return a structure without what absent nodes hold where its square would be no number.

    The slope of the quadratic term at absent nodes is then one: 0 times it is 0.

    Args:
        struct: Shape (B, n, n).
        masses: Shape (B, n), 0 at absent nodes.

    Returns:
        The structure, with 0 in place of such numbers; which nodes hold none, (B, n).
    """
    there = masses > 0
    small = struct.abs() < _most_squared(struct.dtype)
    beside = there[:, None, :]
    known = there | ((small | ~beside) & (small.mT | ~beside)).all(2)
    return torch.where(small | there[:, :, None] & beside, struct, 0), known


def _most_squared(dtype: torch.dtype) -> float:
    """Return up to where squares, and sums of them, are numbers."""
    return 0.1 * float(torch.finfo(dtype).max ** 0.5)


def _gradient(cost: Tensor, bend: Tensor, alpha: Tensor) -> Tensor:
    weight = alpha[:, None, None]
    barred = cost == torch.inf
    slope = (1 - weight) * _unbarred(cost) + weight * bend
    return torch.where(barred, torch.inf, slope)


def _unbarred(cost: Tensor) -> Tensor:
    """Costs with 0 in place of +inf, where there is no mass."""
    return torch.where(cost == torch.inf, 0, cost)


def stationary_objective(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    log_plan: Tensor,
    f: Tensor,
    g: Tensor,
    loss: int,
    pairs: int,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Compute F at a stationary coupling of F, as proximal steps find one.

    Args:
        cost: Costs between nodes, shape (B, n, m).
        struct_x: Structure of the first graph, shape (B, n, n), finite also at absent nodes.
        struct_y: Structure of the second graph, shape (B, m, m), finite also at absent nodes.
        a: Masses of the first graph, shape (B, n).
        b: Masses of the second graph, shape (B, m).
        alpha: Weight of the quadratic term per item, shape (B,).
        log_plan: From `entropic_fgw`, like the duals, shape (B, n, m).
        f: Row duals, shape (B, n): those of F linearised at the coupling.
        g: Column duals, shape (B, m).
        loss: 0 for l1, 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        Shape (B,).

    Differentiability:
        In `cost`, the structures, the masses and `alpha` by the envelope theorem, once.
    """
    value: Tensor = _STATIONARY_OBJECTIVE(
        cost, struct_x, struct_y, a, b, alpha, log_plan, f, g, loss, pairs, backend
    )
    return value


def _objective(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    log_plan: Tensor,
    f: Tensor,
    g: Tensor,
    loss: int,
    pairs: int,
    backend: Backend,
) -> Tensor:
    del a, b, f, g
    plan = log_plan.exp()
    quadratic = quadratic_cost(plan, struct_x, struct_y, loss, pairs, backend=backend)
    return (1 - alpha) * (_unbarred(cost) * plan).sum((1, 2)) + alpha * quadratic


def _setup_objective(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    *tensors, ctx.loss, ctx.pairs, ctx.backend = inputs
    save(ctx, *tensors)


_MOVES = (
    'the objective of entropic_fgw with method="proximal" can be differentiated once: a second'
    " derivative would have to move the plan (pass create_graph=False, or"
    ' differentiate="unroll")'
)


def _objective_slopes(ctx: Any, grad: Tensor, needed: Sequence[bool]) -> tuple[Tensor | None, ...]:
    cost, struct_x, struct_y, a, b, alpha, log_plan, f, g = ctx.saved_tensors
    inputs = cost, struct_x, struct_y, a, b, alpha
    f, g = entering_duals(*inputs, log_plan.exp(), f, g, loss=ctx.loss, pairs=ctx.pairs)
    plan, f, g = (held(value, _MOVES, *inputs) for value in (log_plan.exp(), f, g))
    return envelope_gradients(
        grad,
        *inputs,
        plan,
        f,
        g,
        loss=ctx.loss,
        pairs=ctx.pairs,
        needed=needed,
        backend=ctx.backend,
    )


def _objective_backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    return () if grad is None else _objective_slopes(ctx, grad, ctx.needs_input_grad)


def _objective_jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
    alpha = ctx.saved_tensors[5]
    needed = [tangent is not None for tangent in tangents[:6]]
    return along(_objective_slopes(ctx, torch.ones_like(alpha), needed), tangents[:6])


def _fake(
    cost: Tensor, struct_x: Tensor, struct_y: Tensor, a: Tensor, b: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    del struct_x, struct_y
    counts = cost.new_empty(cost.shape[0], dtype=torch.int32)
    return (
        torch.empty_like(cost, memory_format=torch.contiguous_format),
        torch.empty_like(a, memory_format=torch.contiguous_format),
        torch.empty_like(b, memory_format=torch.contiguous_format),
        cost.new_empty(cost.shape[0]),
        counts,
        torch.empty_like(counts),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cost, struct_x, struct_y, a, b, alpha, _, *settings = inputs
    ctx.epsilon, ctx.loss, ctx.pairs, ctx.proximal, *_, compiled = settings
    ctx.backend = "ext" if compiled else "torch"
    log_plan, f, g, residual, *_ = output
    ctx.underived = ("plan", "f", "g", "residual") if ctx.proximal else ("residual",)
    if ctx.proximal:
        ctx.name = 'entropic_fgw with method="proximal"'
    save(ctx, cost, struct_x, struct_y, a, b, alpha, log_plan, f, g, residual)


def _backward(
    ctx: Any,
    grad_log_plan: Tensor | None,
    grad_f: Tensor | None,
    grad_g: Tensor | None,
    *_: Tensor | None,
) -> tuple[Tensor | None, ...]:
    if grad_log_plan is None and grad_f is None and grad_g is None:
        return ()
    log_plan, f, g, _ = ctx.saved_tensors[6:]
    grads = zip((grad_log_plan, grad_f, grad_g), (log_plan, f, g), strict=True)
    upstream = (torch.zeros_like(like) if grad is None else grad for grad, like in grads)
    return _per_chunk(ctx, _implicit_gradients, *upstream)


def _jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
    *inputs, log_plan, f, g, residual = ctx.saved_tensors
    if ctx.proximal:
        return undefined(log_plan), undefined(f), undefined(g), undefined(residual), None, None
    changes = (
        torch.zeros_like(like) if tangent is None else tangent
        for tangent, like in zip(tangents[:6], inputs, strict=True)
    )
    change, change_f, change_g = _per_chunk(ctx, _implicit_change, *changes)
    # log 0 stays.
    change = torch.where(log_plan == -torch.inf, 0, change)
    change_f, change_g = appearing(change_f, f, tangents[3]), appearing(change_g, g, tangents[4])
    return change, change_f, change_g, undefined(residual), None, None


def _per_chunk(
    ctx: Any, solve: Callable[..., tuple[Tensor, ...]], *given: Tensor
) -> tuple[Tensor, ...]:
    """Solve the systems of a few items at a time; NaN for items without a solution.

    Args:
        ctx: What `_setup_context` filled.
        solve: `_implicit_gradients` or `_implicit_change`.
        *given: Derivatives that it takes, of plan and duals or of the inputs.
    """
    cost, struct_x, struct_y, a, b, alpha, log_plan, f, g, _ = ctx.saved_tensors
    # Items without a solution may hold anything: 0 times that must be 0.
    failed = log_plan.isnan().any(2).any(1)
    x, y = (a > 0) & ~failed[:, None], (b > 0) & ~failed[:, None]
    present = x[:, :, None] & y[:, None, :]
    within_x, within_y = x[:, :, None] & x[:, None, :], y[:, :, None] & y[:, None, :]
    solved = ~failed
    # Forbidden pairs have no mass, and so no derivative; those of absent nodes never will have.
    barred = (cost == torch.inf) & ~present & solved[:, None, None]
    cost = _unbarred(cost)
    # Absent nodes may hold anything; what they hold counts for their masses' derivatives alone, 0
    # if it is no number, and its square must not spoil the others.
    most = _most_squared(cost.dtype)

    def whole(values: Tensor, there: Tensor) -> Tensor:
        small: Tensor = values.abs() < most
        return (small | ~there[:, None, :]).all(2)

    def numbers(values: Tensor, kept: Tensor) -> Tensor:
        return torch.where(kept | (values.abs() < most) & solved[:, None, None], values, 0)

    known_x = x | whole(cost, y) & whole(struct_x, x) & whole(struct_x.mT, x) & solved[:, None]
    known_y = y | whole(cost.mT, x) & whole(struct_y, y) & whole(struct_y.mT, y) & solved[:, None]
    where: tuple[Tensor, ...] = (present, x, y)
    if len(given) == 6:
        where = (present, within_x, within_y, known_x, known_y, solved)
    tensors: tuple[Tensor, ...] = (
        *(torch.where(kept, value, 0) for kept, value in zip(where, given, strict=True)),
        torch.where(barred, torch.inf, numbers(cost, present)),
        numbers(struct_x, within_x),
        numbers(struct_y, within_y),
        alpha,
        torch.where(present, log_plan, -torch.inf),
        f,
        g,
    )
    size = max(1, _CHUNK_ELEMENTS // max(1, cost[0].numel() ** 2)) if len(cost) else 1
    chunks: Iterable[Any] = zip(*(tensor.split(size) for tensor in tensors), strict=True)
    options = {"epsilon": ctx.epsilon, "loss": ctx.loss, "pairs": ctx.pairs}
    if solve is _implicit_gradients:
        options["backend"] = ctx.backend
    parts = [solve(*chunk, **options) for chunk in chunks]
    found = [torch.cat(column) for column in zip(*parts, strict=True)]
    if len(given) == 3:
        found[3], found[4] = torch.where(known_x, found[3], 0), torch.where(known_y, found[4], 0)
    return tuple(
        torch.where(failed.reshape(-1, *[1] * (value.dim() - 1)), torch.nan, value)
        for value in found
    )


def _implicit_change(
    change_cost: Tensor,
    change_x: Tensor,
    change_y: Tensor,
    change_a: Tensor,
    change_b: Tensor,
    change_alpha: Tensor,
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    alpha: Tensor,
    log_plan: Tensor,
    f: Tensor,
    g: Tensor,
    *,
    epsilon: float,
    loss: int,
    pairs: int,
) -> tuple[Tensor, ...]:
    """Tangents of log_plan, f and g: the system of the module's docstring, one per item."""
    batch, n, m = log_plan.shape
    weight = alpha[:, None, None]
    plan = log_plan.exp()
    root = (0.5 * log_plan).exp().reshape(batch, n * m, 1)
    matrix = pair_cost_matrix(struct_x, struct_y, loss, pairs)
    curvature = weight * root * matrix * root.mT
    inverse = marginal_inverse(plan)

    def marginals(columns: Tensor) -> Tensor:  # E
        plans = (root * columns).reshape(batch, n, m, columns.shape[2])
        return torch.cat([plans.sum(2), plans.sum(1)], 1)

    def spread(duals: Tensor) -> Tensor:  # E'
        rows, columns = duals[:, :n, None], duals[:, None, n:]
        return root * (rows + columns).reshape(batch, n * m, duals.shape[2])

    def tangent(columns: Tensor) -> Tensor:  # P
        return columns - spread(inverse @ marginals(columns))

    bend = (matrix @ plan.reshape(batch, n * m, 1)).reshape(batch, n, m)
    # What enters at absent nodes leaves the others.
    rows, columns = absent_shares(_gradient(cost, bend, alpha), f, g, epsilon)
    into_rows, into_columns = rows * change_a[:, :, None], columns * change_b[:, None, :]
    entering = (into_rows + into_columns).reshape(batch, n * m, 1)
    change_a, change_b = change_a - into_columns.sum(2), change_b - into_rows.sum(1)
    push = (1 - weight) * change_cost + change_alpha[:, None, None] * (bend - _unbarred(cost))
    push = push + weight * (matrix @ entering).reshape(batch, n, m)
    push = push + weight * pair_cost_change(
        plan, struct_x, struct_y, change_x, change_y, loss, pairs
    )
    push = root * push.reshape(batch, n * m, 1)  # S dG
    across = spread(inverse @ torch.cat([change_a, change_b], 1)[:, :, None])
    along = _on_tangents(
        curvature, tangent, epsilon, -tangent(push + epsilon * across + curvature @ across)
    )
    change = along + across
    duals = inverse @ marginals(push + epsilon * change + curvature @ change)
    change_f, change_g = duals.squeeze(2).split([n, m], 1)
    moved = torch.where(root == 0, 0, change / torch.where(root == 0, 1, root))
    return moved.reshape(batch, n, m), change_f, change_g


def _implicit_gradients(
    grad_log_plan: Tensor,
    grad_f: Tensor,
    grad_g: Tensor,
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    alpha: Tensor,
    log_plan: Tensor,
    f: Tensor,
    g: Tensor,
    *,
    epsilon: float,
    loss: int,
    pairs: int,
    backend: Backend,
) -> tuple[Tensor, ...]:
    """Gradients of cost, struct_x, struct_y, a, b and alpha: one adjoint system per item."""
    batch, n, m = log_plan.shape
    weight = alpha[:, None, None]
    plan = log_plan.exp()
    root = (0.5 * log_plan).exp().reshape(batch, n * m, 1)
    matrix = pair_cost_matrix(struct_x, struct_y, loss, pairs)
    curvature = weight * root * matrix * root.mT
    inverse = marginal_inverse(plan)

    def marginals(columns: Tensor) -> Tensor:  # E
        plans = (root * columns).reshape(batch, n, m, columns.shape[2])
        return torch.cat([plans.sum(2), plans.sum(1)], 1)

    def spread(duals: Tensor) -> Tensor:  # E'
        rows, columns = duals[:, :n, None], duals[:, None, n:]
        return root * (rows + columns).reshape(batch, n * m, duals.shape[2])

    def tangent(columns: Tensor) -> Tensor:  # P, as E E' is the derivative of the marginals
        return columns - spread(inverse @ marginals(columns))

    held = root == 0
    right = grad_log_plan.reshape(batch, n * m, 1) / torch.where(held, 1, root)
    right = torch.where(held, 0, right)
    duals = torch.cat([grad_f, grad_g], 1)[:, :, None]
    across = -spread(inverse @ duals)
    along = _on_tangents(
        curvature, tangent, epsilon, tangent(right - epsilon * across - curvature @ across)
    )
    adjoint = along + across
    of_masses = inverse @ marginals(right - epsilon * adjoint - curvature @ adjoint)
    grad_a, grad_b = of_masses.squeeze(2).split([n, m], 1)

    change = (root * adjoint).reshape(batch, n, m)  # what the loss gains per unit of -dG
    bend = (matrix @ plan.reshape(batch, n * m, 1)).reshape(batch, n, m)
    grad_alpha = (change * (_unbarred(cost) - bend)).sum((1, 2))
    # An absent node takes its first mass from the others, and bends their costs.
    rows, columns = absent_shares(_gradient(cost, bend, alpha), f, g, epsilon)
    bent = weight * (matrix @ change.reshape(batch, n * m, 1)).reshape(batch, n, m)
    of_rows = (rows * (grad_b[:, None, :] + bent)).sum(2)
    of_columns = (columns * (grad_a[:, :, None] + bent)).sum(1)
    grad_a, grad_b = grad_a - of_rows, grad_b - of_columns
    # <B(T), v> = (Q(T + v) - Q(T - v)) / 2 for the quadratic form Q(T) = <B(T), T> / 2, with v
    # scaled to the size of T so that little cancels. The scale moves nothing, and detach would stop
    # torch.autograd.grad(is_grads_batched=True).
    norm = torch.linalg.vector_norm(change, dim=(1, 2))
    scale = torch.linalg.vector_norm(plan.detach(), dim=(1, 2)) / torch.where(norm > 0, norm, 1)
    scale = torch.where(scale > 0, scale, 1)
    step = scale[:, None, None] * change
    factor = -0.5 * alpha / scale
    if is_tracked(plan, step, struct_x, struct_y, factor) or not has_values(plan, struct_x):
        up_x, up_y = pair_cost_gradient(plan + step, struct_x, struct_y, factor, loss, pairs)
        down_x, down_y = pair_cost_gradient(plan - step, struct_x, struct_y, factor, loss, pairs)
        grad_x, grad_y = up_x - down_x, up_y - down_y
    else:
        grad_x, grad_y = _bilinear_gradients(
            plan, step, struct_x, struct_y, factor, loss, pairs, backend=backend
        )
    return -(1 - weight) * change, grad_x, grad_y, grad_a, grad_b, grad_alpha


def _bilinear_gradients(
    plan: Tensor,
    step: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    factor: Tensor,
    loss: int,
    pairs: int,
    *,
    backend: Backend,
) -> tuple[Tensor, Tensor]:
    """`pair_cost_gradient` at plan + step less that at plan - step, by the op.

    It knows no negative masses, so that those of the step are taken one sign at a time:
    Q(T + u) - Q(u) - Q(T + d) + Q(d) for a step u - d is half of the difference.
    """
    up, down = step.clamp_min(0), (-step).clamp_min(0)
    of_x, of_y = fgw_backward(
        torch.cat([plan + up, up, plan + down, down]),
        struct_x.repeat(4, 1, 1),
        struct_y.repeat(4, 1, 1),
        torch.cat([2 * factor, -2 * factor, -2 * factor, 2 * factor]),
        loss,
        pairs,
        backend=backend,
    )
    # reshape, as vmap knows no unflatten of what carries no batch
    x, y = (4, *struct_x.shape), (4, *struct_y.shape)
    return of_x.reshape(x).sum(0), of_y.reshape(y).sum(0)


def _on_tangents(
    curvature: Tensor, tangent: Callable[[Tensor], Tensor], epsilon: float, right: Tensor
) -> Tensor:
    """Solve (epsilon + P curvature P) x = right on the tangent space, where `right` lies.

    By conjugate gradients, a few dozen products, where the matrix shows itself positive definite,
    as it is where mirror descent converges. What it is not, and what is differentiated once more,
    is solved by elimination.

    Args:
        curvature: alpha S B S, shape (B, nm, nm).
        tangent: P, of columns (B, nm, k).
        epsilon: Weight of the entropy.
        right: Shape (B, nm, 1).
    """

    def eliminated() -> Tensor:
        system = tangent(tangent(curvature).mT)
        unit = torch.eye(system.shape[1], dtype=system.dtype, device=system.device)
        found: Tensor = torch.linalg.solve_ex(system + epsilon * unit, right)[0]
        return found

    if is_tracked(curvature, right) or not has_values(curvature, right):
        return eliminated()
    found, left, direction = torch.zeros_like(right), right, right
    size = (left * left).sum(1, keepdim=True)
    enough = size * torch.finfo(right.dtype).eps ** 1.4  # of squares
    for _ in range(_MOST_PRODUCTS):
        active = size > enough
        if not active.any():
            break
        image = epsilon * direction + tangent(curvature @ direction)
        bent = (direction * image).sum(1, keepdim=True)
        active &= bent > 0
        length = torch.where(active, size / torch.where(active, bent, 1), 0)
        found, left = found + length * direction, left - length * image
        now = (left * left).sum(1, keepdim=True)
        direction = left + torch.where(active, now / torch.where(active, size, 1), 0) * direction
        size = now
    solved = size <= enough
    return found if bool(solved.all()) else torch.where(solved, found, eliminated())


_OPERATOR = Operator(
    "entropic_fgw",
    reference,
    fake=_fake,
    outputs=("plan", "f", "g", "residual", "iterations", "status"),
    setup_context=_setup_context,
    backward=_backward,
    jvp=_jvp,
)
_STATIONARY_OBJECTIVE = attached(
    "stationary_objective",
    _objective,
    setup_context=_setup_objective,
    backward=_objective_backward,
    jvp=_objective_jvp,
)
