# Over 400 lines: one operator, its gradients and tangents.
"""Entropic optimal transport of a batch of small problems."""

import sys
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.ot._operators.operator import (
    Backend,
    Differentiate,
    Operator,
    along,
    attached,
    full_precision,
    has_values,
    is_tracked,
    save,
    undefined,
)
from hotnas_torch.ot._operators.tracing import STEPS_DEPEND_ON_VALUES, left_to_python, one_call
from hotnas_torch.ot._operators.transport import tangent
from hotnas_torch.ot._reference.entropic_transport import (
    dual_value,
    entropic_plan,
    taken_in_common,
    within_bounds,
)
from hotnas_torch.ot._reference.sinkhorn import sinkhorn as reference

__all__ = [
    "absent_shares",
    "appearing",
    "can_enter",
    "entropic_objective",
    "following_masses",
    "forbidding_costs",
    "marginal_inverse",
    "refuse_entering",
    "sinkhorn",
]


def sinkhorn(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: float,
    tol: float,
    max_iter: int,
    *,
    backend: Backend = "auto",
    differentiate: Differentiate = "implicit",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Minimise <cost, T> + epsilon * sum T (log T - 1) over the couplings T of `a` and `b`.

    Args:
        cost: Costs, shape (B, n, m), float32 or float64.
        a: Row masses, shape (B, n). Nodes of zero weight are absent.
        b: Column masses, shape (B, m), with the same sum as `a`.
        epsilon: Weight of the entropy, in units of the cost, > 0.
        tol: L1 error to stop at, of the row and of the column masses of the plan.
        max_iter: Most iterations of an item.
        backend: "auto", "ext" or "torch"; see `Operator`.
        differentiate: "implicit", or "unroll" for the reference with its iterations recorded.

    Returns:
        Duals `f` (B, n), `g` (B, m), -inf at zero weights; `residual` (B,), the larger L1
        error of the row and column masses; `iterations` (B,) int32; `status` (B,) int32.

    Differentiability:
        `f` and `g` in `cost`, `a` and `b`, by implicit differentiation of the marginal
        equations, with sum f - sum g held constant (the equations leave one constant open; absent
        nodes do not count in it). The mass of an absent node moves the duals of the others as it
        does in the limit; its own dual is -inf, and has the tangent NaN along its mass. This is
        the derivative at convergence, whatever number of iterations was run. The minimum-norm
        solution is taken where a small `epsilon` makes the equations singular in floating point.
        Items without a solution (status NONFINITE or INFEASIBLE) get NaN. Unrolled, it is the
        derivative of the iterations that were run, and masses of 0 that are tracked are refused.

    Complexity:
        O(n m) per iteration; implicit backward O((n + m)^3); O((n + m)^2) memory per item.
    """
    if differentiate == "unroll":
        refuse_entering(a, b)
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = _OPERATOR(
        cost, a, b, epsilon, tol, max_iter, backend=backend, differentiate=differentiate
    )
    return result


def refuse_entering(a: Tensor, b: Tensor) -> None:
    """Refuse masses of 0 in which recorded steps would silently have the derivative 0.

    The steps leave absent nodes out, so that they do not say what a first mass there would do.

    Args:
        a: Row masses, shape (B, n).
        b: Column masses, shape (B, m).

    Raises:
        ValueError: One is 0, and is tracked.
    """
    _refuse_entering_now(a, b)


def _refuse_entering_now(a: Tensor, b: Tensor) -> None:
    for name, mass in (("a", a), ("b", b)):
        if not is_tracked(mass) or not has_values(mass):
            continue
        absent = (mass == 0).nonzero()
        if len(absent):
            item, node = absent[0].tolist()
            msg = (
                f'{name} is 0 at node {node} of item {item}, and differentiate="unroll" has no'
                f' derivative in a mass of 0; use differentiate="implicit", pass {name}.detach(),'
                " or leave the node out"
            )
            raise ValueError(msg)


left_to_python(sys.modules[__name__], "_refuse_entering_now", STEPS_DEPEND_ON_VALUES)  # has values


def forbidding_costs(
    cost: Tensor, a: Tensor, b: Tensor, forbidden: Tensor, epsilon: float
) -> Tensor:
    """Replace forbidden costs by finite ones, of which no coupling of the others leaves a mass.

    Duals of a coupling without them differ along its arcs by costs and logarithms of masses: what
    costs more than all of these together has the mass exp(-large), which is 0.

    Args:
        cost: Costs, shape (B, n, m), anything where forbidden.
        a: Row masses, shape (B, n); what absent nodes cost does not count.
        b: Column masses, shape (B, m).
        forbidden: Which pairs are, shape (B, n, m).
        epsilon: Weight of the entropy.
    """
    underflow = 110 if cost.dtype == torch.float32 else 750  # exp(-underflow) is 0
    counts = (a > 0)[:, :, None] & (b > 0)[:, None, :] & ~forbidden
    allowed = torch.where(counts, cost.detach(), 0).nan_to_num(0, 0, 0).abs().amax((1, 2))
    large = 2 * sum(cost.shape[1:]) * (allowed + underflow * epsilon)
    return torch.where(forbidden, large[:, None, None], cost)


def entropic_objective(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: float,
    mass: Tensor,
    of_rows: Tensor | None = None,
    of_columns: Tensor | None = None,
    *,
    whole: bool = False,
    differentiate: Differentiate = "implicit",
) -> Tensor:
    """Compute the optimal <cost, T> + epsilon * KL(T | a b') from the optimal duals.

    Args:
        cost: Costs, shape (B, n, m).
        a: Row masses, shape (B, n), with sum 1.
        b: Column masses, shape (B, m), with sum 1.
        f: Optimal row duals from `sinkhorn`, shape (B, n).
        g: Optimal column duals, shape (B, m).
        epsilon: As it was given to `sinkhorn`.
        mass: Sum of the entropic plan of these duals, shape (B,).
        of_rows: What was taken from the rows of the costs (`reduced_costs`), shape (B, n), or None.
        of_columns: What was taken from their columns, shape (B, m), or None.
        whole: Whether it is known that no mass is 0, which saves passes.
        differentiate: As it was given to `sinkhorn`.

    Returns:
        The value of the dual problem, shape (B,): a lower bound of the optimum that meets it at
        convergence.

    Differentiability:
        In `cost`, `a` and `b` by the envelope theorem: the duals are optimal, so their own
        dependence on the inputs does not count. That saves the linear system that differentiating
        through them takes, and it stays accurate where that system is nearly singular. Second
        derivatives go through the duals, as they must. Unrolled, the first ones do, too.
    """
    of_rows = torch.zeros_like(a) if of_rows is None else of_rows
    of_columns = torch.zeros_like(b) if of_columns is None else of_columns
    if differentiate == "unroll":
        return dual_value(a, b, f, g, epsilon, mass) + taken_in_common(a, b, of_rows, of_columns)
    value: Tensor = _ENTROPIC_OBJECTIVE(cost, a, b, f, g, epsilon, mass, of_rows, of_columns, whole)
    return value


def absent_shares(cost: Tensor, f: Tensor, g: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Where the first mass of an absent node would go: the limits of T_ij / a_i and T_ij / b_j.

    Args:
        cost: Costs, shape (B, n, m).
        f: Optimal row duals, shape (B, n); -inf at absent rows.
        g: Optimal column duals, shape (B, m); -inf at absent columns.
        epsilon: Weight of the entropy.

    Returns:
        Shares of absent rows in the columns, and of absent columns in the rows, both (B, n, m); 0
        for nodes that are there, at forbidden pairs (+inf), and where a cost is no number.
    """
    rows, columns = _shares(cost, f, g, epsilon), _shares(cost.mT, g, f, epsilon)
    return rows, columns.mT


def _shares(cost: Tensor, own: Tensor, others: Tensor, epsilon: float) -> Tensor:
    there = (others != -torch.inf)[:, None, :]
    usable = cost.isfinite()
    known = (own == -torch.inf) & can_enter(cost, there)
    reached = known[:, :, None] & there & usable
    duals = torch.where(there, others[:, None, :], 0)
    exponent = torch.where(reached, (duals - torch.where(usable, cost, 0)) / epsilon, 0)
    exponent = torch.where(reached | ~known[:, :, None], exponent, -torch.inf)
    return torch.where(reached, exponent.softmax(2), 0)


def can_enter(cost: Tensor, there: Tensor) -> Tensor:
    """Whether rows may have a first mass, (B, n): no cost is NaN or -inf, and one is not +inf.

    Args:
        cost: Costs, shape (B, n, m).
        there: Which columns count, shape (B, 1, m).
    """
    usable = cost.isfinite()
    said = usable | (cost == torch.inf) | ~there
    return said.all(2) & (usable & there).any(2)


@one_call
def following_masses(
    plan: Tensor, cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: float
) -> Tensor:
    """`plan` with the derivative that it has in the masses of absent nodes.

    Elsewhere the duals carry the derivative; those of absent nodes are -inf.

    Args:
        plan: Entropic plan of the duals, shape (B, n, m).
        cost: Costs that it is optimal for, shape (B, n, m).
        a: Row masses, shape (B, n).
        b: Column masses, shape (B, m).
        f: Optimal row duals, shape (B, n).
        g: Optimal column duals, shape (B, m).
        epsilon: Weight of the entropy.
    """
    if not is_tracked(a, b):
        return plan
    rows, columns = absent_shares(cost, f, g, epsilon)
    moved = rows * (a - a.detach())[:, :, None] + columns * (b - b.detach())[:, None, :]
    return plan + moved


def mass_slopes(
    cost: Tensor, a: Tensor, f: Tensor, g: Tensor, epsilon: float, of_rows: Tensor
) -> Tensor:
    """Return derivative of the objective in the row masses, without its part along (1, ..., 1).

    It is f - epsilon log a, which has a limit as a mass goes to 0: by the dual that the node would
    have; forbidden pairs (+inf) have no part in it. Absent nodes get that limit, and 0 where one of
    their costs is no number or all pairs are forbidden.

    Args:
        cost: Costs, shape (B, n, m).
        a: Row masses, shape (B, n).
        f: Optimal row duals, shape (B, n).
        g: Optimal column duals, shape (B, m); -inf at absent columns.
        epsilon: As it was given to `sinkhorn`.
        of_rows: What was taken from the rows of the costs (`reduced_costs`), shape (B, n).

    Returns:
        Shape (B, n).
    """
    here, others = (a > 0), (g != -torch.inf)[:, None, :]
    usable = cost.isfinite()
    exponent = (torch.where(others, g[:, None, :], 0) - torch.where(usable, cost, 0)) / epsilon
    limit = -epsilon * torch.where(others & usable, exponent, -torch.inf).logsumexp(2)
    slope = torch.where(here, f - epsilon * torch.where(here, a, 1).log(), limit)
    slope = slope + of_rows
    known = here | can_enter(cost, others)
    return torch.where(known, tangent(torch.where(known, slope, 0), a), 0)


@full_precision
def _objective(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    f: Tensor,
    g: Tensor,
    epsilon: float,
    mass: Tensor,
    of_rows: Tensor,
    of_columns: Tensor,
    whole: bool,
) -> Tensor:
    value = dual_value(a, b, f, g, epsilon, mass, whole=whole)
    value = within_bounds(value, cost, a, b, epsilon, whole=whole)
    return value + taken_in_common(a, b, of_rows, of_columns)


def _setup_objective(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    cost, a, b, f, g, ctx.epsilon, _, of_rows, of_columns, _ = inputs
    save(ctx, cost, a, b, f, g, of_rows, of_columns)


def _objective_backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return ()
    cost, a, b, f, g, of_rows, of_columns = ctx.saved_tensors
    epsilon = ctx.epsilon
    return (
        grad[:, None, None] * entropic_plan(cost, f, g, epsilon),
        grad[:, None] * mass_slopes(cost, a, f, g, epsilon, of_rows),
        grad[:, None] * mass_slopes(cost.mT, b, g, f, epsilon, of_columns),
    )


def _objective_jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
    cost = ctx.saved_tensors[0]
    return along(_objective_backward(ctx, cost.new_ones(len(cost))), tangents[:3])


def _fake(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, tol: float, max_iter: int
) -> tuple[Tensor, ...]:
    del epsilon, tol, max_iter
    counts = cost.new_empty(cost.shape[0], dtype=torch.int32)
    return (
        torch.empty_like(a, memory_format=torch.contiguous_format),
        torch.empty_like(b, memory_format=torch.contiguous_format),
        cost.new_empty(cost.shape[0]),
        counts,
        torch.empty_like(counts),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cost, _, _, ctx.epsilon, *_ = inputs
    f, g, residual, _, _ = output
    ctx.underived = ("residual",)
    save(ctx, cost, f, g, residual)


def _backward(
    ctx: Any,
    grad_f: Tensor | None,
    grad_g: Tensor | None,
    *_: Tensor | None,
) -> tuple[Tensor | None, ...]:
    if grad_f is None and grad_g is None:
        return ()
    cost, f, g, _ = ctx.saved_tensors
    grad_f = torch.zeros_like(f) if grad_f is None else grad_f
    grad_g = torch.zeros_like(g) if grad_g is None else grad_g
    plan = entropic_plan(cost, f, g, ctx.epsilon)
    # P 1 = a and P' 1 = b, differentiated: H (df, dg) = (epsilon da + (P * dC) 1, ...).
    right = torch.cat([grad_f, grad_g], 1)
    adjoint = (marginal_inverse(plan) @ right[:, :, None]).squeeze(2)
    x, y = adjoint.split([f.shape[1], g.shape[1]], 1)
    grad_cost = plan * (x[:, :, None] + y[:, None, :])
    # An absent node takes its first mass from the others.
    rows, columns = absent_shares(cost, f, g, ctx.epsilon)
    of_a = x - (rows * y[:, None, :]).sum(2)
    of_b = y - (columns * x[:, :, None]).sum(1)
    return grad_cost, ctx.epsilon * of_a, ctx.epsilon * of_b


def _jvp(
    ctx: Any,
    change_cost: Tensor | None,
    change_a: Tensor | None,
    change_b: Tensor | None,
    *_: Tensor | None,
) -> tuple[Tensor | None, ...]:
    cost, f, g, residual = ctx.saved_tensors
    plan = entropic_plan(cost, f, g, ctx.epsilon)
    right_f, right_g = torch.zeros_like(f), torch.zeros_like(g)
    if change_cost is not None:
        moved = plan * torch.where(plan == 0, 0, change_cost)
        right_f, right_g = moved.sum(2), moved.sum(1)
    if change_a is not None or change_b is not None:
        rows, columns = absent_shares(cost, f, g, ctx.epsilon)
        change_a = torch.zeros_like(f) if change_a is None else change_a
        change_b = torch.zeros_like(g) if change_b is None else change_b
        kept_a = change_a - (columns * change_b[:, None, :]).sum(2)
        kept_b = change_b - (rows * change_a[:, :, None]).sum(1)
        right_f, right_g = right_f + ctx.epsilon * kept_a, right_g + ctx.epsilon * kept_b
    right = torch.cat([right_f, right_g], 1)
    change = (marginal_inverse(plan) @ right[:, :, None]).squeeze(2)
    x, y = change.split([f.shape[1], g.shape[1]], 1)
    x, y = appearing(x, f, change_a), appearing(y, g, change_b)
    return x, y, undefined(residual), None, None


def appearing(change: Tensor, dual: Tensor, of_mass: Tensor | None) -> Tensor:
    """Tangent of a dual: NaN where the mass of an absent node grows, which lifts it from -inf."""
    if of_mass is None:
        return change
    return torch.where((dual == -torch.inf) & (of_mass != 0), torch.nan, change)


def marginal_inverse(plan: Tensor) -> Tensor:
    """Pseudo-inverse of H = (diag(P 1), P; P', diag(P' 1)), the derivative of the marginals.

    H is symmetric, singular along (1, -1) and at absent nodes, and nearly so where the support of
    the plan falls apart.

    Args:
        plan: P, shape (B, n, m). NaN makes the inverse of its item, and of no other, NaN.

    Returns:
        Shape (B, n + m, n + m).
    """
    failed = plan.isnan().any(2).any(1)[:, None, None]
    plan = torch.where(failed, 0, plan)
    system = torch.cat(
        [
            torch.cat([torch.diag_embed(plan.sum(2)), plan], 2),
            torch.cat([plan.mT, torch.diag_embed(plan.sum(1))], 2),
        ],
        1,
    )
    inverse = torch.linalg.pinv(system, hermitian=True)
    masses = torch.diagonal(system, dim1=1, dim2=2)
    absent = (masses == 0)[:, :, None] | (masses == 0)[:, None, :]
    return torch.where(failed, torch.nan, torch.where(absent, 0, inverse))  # 0 without rounding


_OPERATOR = Operator(
    "sinkhorn",
    reference,
    fake=_fake,
    outputs=("f", "g", "residual", "iterations", "status"),
    setup_context=_setup_context,
    backward=_backward,
    jvp=_jvp,
)
_ENTROPIC_OBJECTIVE = attached(
    "entropic_objective",
    _objective,
    setup_context=_setup_objective,
    backward=_objective_backward,
    jvp=_objective_jvp,
)
