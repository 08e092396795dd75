"""Entropic optimal transport."""

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot.problem import (
    LinearProblem,
    all_solved,
    check_count,
    check_number,
    check_once_solved,
    given_duals,
    has_finite_sum,
    has_values,
    linear_problem,
    paid,
)
from hotnas_torch.ot.result import SinkhornResult, SolveStatus, warn_if_unsolved

__all__ = ["forbidden_pairs", "lost_by_plan", "sinkhorn", "spared", "without_coupling"]

_Problem = TypeVar("_Problem", bound=LinearProblem)
_Found = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Plan, objective, linear cost, duals of rows and columns, residual, iterations, status."""

# L1 errors of the row marginal that rounding allows to reach.
_DEFAULT_TOL = {torch.float32: 1e-5, torch.float64: 1e-9}


def sinkhorn(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    init: tuple[Tensor, Tensor] | None = None,
    tol: float | None = None,
    max_iter: int = 10_000,
    differentiate: ops.Differentiate = "implicit",
    backend: ops.Backend = "auto",
    validate: bool = True,
) -> SinkhornResult:
    r"""Compute entropic optimal transport by stabilised Sinkhorn sweeps.

    .. math:: \min_T \langle C, T \rangle + \epsilon \, \mathrm{KL}(T \,|\, a b^\top)
        \quad T 1 = a, \; T^\top 1 = b

    Args:
        cost: Costs, shape (*batch, n, m), float32 or float64, any sign. +inf forbids a pair: it is
            never in the plan, and items that are not to be solved without have status INFEASIBLE.
        a: Row masses, shape (*batch, n) or broadcastable, sum 1; None for uniform. A node of zero
            mass is absent (padding), whatever its costs are.
        b: Column masses, shape (*batch, m) or broadcastable, sum 1; None for uniform.
        epsilon: Weight of the entropy, > 0, in units of the cost. Iterations grow as it shrinks.
        init: Row and column duals to start from, shapes (*batch, n) and (*batch, m) or
            broadcastable, such as `f` and `g` of a result; constants where gradients are concerned,
            and 0 where they are not finite, as at absent nodes. None for none.
        tol: L1 error to stop at, of the row and of the column masses of `plan` as it is returned.
            Default 1e-9 for float64, 1e-5 for float32. The dtype bounds what can be reached: to
            about its precision times the largest cost over `epsilon`, what whole rows or columns
            have in common left out, at best 3e-7 in float32.
            An item that rounding keeps from `tol` stops early, with status MAX_ITER and the
            `residual` that it reached.
        max_iter: Most iterations of an item, at most 2**31 - 1.
        differentiate: "implicit" differentiates the equations that hold at convergence; "unroll"
            records the iterations, which runs the reference, slower and with O(n m) memory for
            each, and gives the derivative of what was computed, converged or not.
        backend: "auto" runs the compiled op where it has kernels for the device, CPU or CUDA,
            else the reference implementation in torch; "ext" and "torch" insist on one of them.
        validate: Whether to check values (this reads the data, which waits for a GPU) and to warn
            of items that were not solved.

    Returns:
        Plan, objective and duals with the leading dimensions of the input.

    Raises:
        TypeError: Something is no tensor, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or do not sum to 1, a cost is
            NaN or -inf, `epsilon`, `tol` or `max_iter` is out of range, or iterations
            shall be recorded in a mass of 0.

    Differentiability:
        `objective` in `cost`, `a`, `b` by the envelope theorem; `plan`, `f`, `g` and
        `cost_linear` by implicit differentiation of the marginal equations. Both hold at
        convergence, whatever number of iterations was run, and can be differentiated again. Items
        that failed get NaN, and only they. In the mass of an absent node, the first derivative is
        the limit of those at small masses; second ones take the node as absent for good. Unrolled
        iterations have none there, and refuse masses of 0 where a gradient is recorded. Without a
        gradient, `vmap` or a tracer, values may differ from those with one by their last bits.

    Complexity:
        O(n m) per iteration, O(n m) memory per problem; implicit backward O((n + m)^3).

    Reference:
        M. Cuturi, Sinkhorn distances, NeurIPS 2013; G. Peyre, M. Cuturi, Computational optimal
        transport, 2019, eq. 4.2 and section 4.4.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
        >>> plan = ht.ot.sinkhorn(cost, epsilon=1.0).plan
        >>> [[round(mass, 4) for mass in row] for row in plan.tolist()]
        [[0.3655, 0.1345], [0.1345, 0.3655]]
    """
    problem = linear_problem(cost, a, b, validate=False, presence=False)
    epsilon = check_number("epsilon", epsilon, positive=True)
    tol = _DEFAULT_TOL[cost.dtype] if tol is None else check_number("tol", tol, positive=False)
    check_count("max_iter", max_iter)
    settings = epsilon, tol, max_iter
    if init is None and differentiate == "implicit" and _goes_at_once(problem, backend, validate):
        given = problem.cost, problem.a, problem.b
        found = ops.entropic_transport(*given, *settings, backend=backend)
        # Values are checked afterwards, as the operator is safe on any.
        status = found[-1]
        solved = check_once_solved(problem, status) if validate else all_solved(status)
        if not solved and not has_finite_sum(problem.cost):
            _solve_forbidding(problem, *settings, backend, found)
    else:
        problem = linear_problem(cost, a, b, validate=validate)
        found = _step_by_step(problem, *settings, init, differentiate, backend, validate=validate)
        solved = not has_values(found[-1])
    plan, objective, linear, f, g, residual, iterations, status = map(problem.restore, found)
    result = SinkhornResult(
        plan=plan,
        objective=objective,
        cost_linear=linear,
        f=f,
        g=g,
        residual=residual,
        iterations=iterations,
        status=status,
    )
    if validate and not solved:
        warn_if_unsolved("sinkhorn", result.status)
    return result


def _goes_at_once(problem: LinearProblem, backend: ops.Backend, validate: bool) -> bool:
    """Whether the operator of all steps may run: nothing is tracked, values can be looked at."""
    if not (validate or problem.cost.device.type == "cpu"):
        return False
    return ops.at_once(backend, problem.cost, problem.a, problem.b)


def _solve_forbidding(
    problem: LinearProblem,
    epsilon: float,
    tol: float,
    max_iter: int,
    backend: ops.Backend,
    found: _Found,
) -> None:
    """Put the results of items with a forbidden pair, which the operator of all steps knows not.

    They go step by step; so no item's values depend on what stands in another one.
    """
    present = (problem.a > 0)[:, :, None] & (problem.b > 0)[:, None, :]
    barred = (present & (problem.cost == torch.inf)).any(2).any(1)
    if not barred.any():
        return
    part = replace(problem, cost=problem.cost[barred], a=problem.a[barred], b=problem.b[barred])
    of_part = _step_by_step(part, epsilon, tol, max_iter, None, "implicit", backend, validate=True)
    for values, some in zip(found, of_part, strict=True):
        values[barred] = some


def _step_by_step(
    problem: LinearProblem,
    epsilon: float,
    tol: float,
    max_iter: int,
    init: tuple[Tensor, Tensor] | None,
    differentiate: ops.Differentiate,
    backend: ops.Backend,
    *,
    validate: bool,
) -> _Found:
    """Solve by steps that each have their own derivative; values have been checked."""
    lost, forbidden = None, forbidden_pairs(problem, validate=validate)
    if forbidden is not None:
        lost = without_coupling(problem, forbidden, backend, validate=validate)
        problem, forbidden = spared(problem, forbidden, lost)
    if init is None:
        cost, of_rows, of_columns = ops.reduced_costs(
            problem.cost, problem.a, problem.b, whole=problem.whole, differentiate=differentiate
        )
    else:
        # Duals to start from are what rows and columns have in common.
        of_rows, of_columns = given_duals(problem, init, validate=validate)
        cost = problem.cost - of_rows[:, :, None] - of_columns[:, None, :]
    if forbidden is not None:
        cost = ops.forbidding_costs(cost, problem.a, problem.b, forbidden, epsilon)
    f, g, residual, iterations, status = ops.sinkhorn(
        cost,
        problem.a,
        problem.b,
        epsilon,
        tol,
        max_iter,
        backend=backend,
        differentiate=differentiate,
    )
    plan = ops.entropic_plan(cost, f, g, epsilon, whole=problem.whole)
    if forbidden is not None:
        lost = lost_by_plan(forbidden, plan) if lost is None else lost
        status = torch.where(lost, SolveStatus.INFEASIBLE.value, status).to(torch.int32)
        # By products, so that the gradients of these items are NaN, too.
        number = torch.where(lost, torch.full_like(residual, torch.nan), 1)
        f, g, plan = f * number[:, None], g * number[:, None], plan * number[:, None, None]
    mass = plan.sum((1, 2))
    if differentiate == "implicit":
        plan = ops.following_masses(plan, cost, problem.a, problem.b, f, g, epsilon)
    objective = ops.entropic_objective(
        cost,
        problem.a,
        problem.b,
        f,
        g,
        epsilon,
        mass,
        of_rows,
        of_columns,
        whole=problem.whole,
        differentiate=differentiate,
    )
    del cost  # whose memory the next product can have: fresh pages take as long as the arithmetic
    numbers = problem.cost
    if not problem.whole or numbers.is_inference():  # which autograd cannot keep
        present = (problem.a > 0)[:, :, None] & (problem.b > 0)[:, None, :]
        numbers = torch.where(present | numbers.isfinite(), numbers, 0)
    linear = (numbers * plan).sum((1, 2)) if forbidden is None else paid(numbers, plan)
    f, g = ops.mean_free_duals(
        f + of_rows, g + of_columns, problem.a, problem.b, whole=problem.whole
    )
    return plan, objective, linear, f, g, residual, iterations, status


def forbidden_pairs(problem: LinearProblem, *, validate: bool) -> Tensor | None:
    """Return which pairs are forbidden, (B, n, m); None where it is known that none is."""
    if problem.finite:
        return None
    cost = problem.cost.detach()
    forbidden = cost == torch.inf
    if not problem.whole:
        # Not in place: torch.vmap may map the masses alone.
        forbidden = forbidden & (problem.a > 0)[:, :, None] & (problem.b > 0)[:, None, :]
    if _may_read(problem, validate=validate) and not bool(forbidden.any()):
        return None
    return forbidden


def _may_read(problem: LinearProblem, *, validate: bool) -> bool:
    """Whether values can be looked at, and nothing that is not to waits for a GPU."""
    there = has_values(problem.cost, problem.a, problem.b)
    return there and (validate or problem.cost.device.type == "cpu")


def without_coupling(
    problem: LinearProblem, forbidden: Tensor, backend: ops.Backend, *, validate: bool
) -> Tensor | None:
    """Return the items that no coupling solves without forbidden pairs, (B,).

    None where values cannot be read: then `lost_by_plan` tells afterwards.
    """
    if not _may_read(problem, validate=validate):
        return None
    barred = torch.where(forbidden, torch.inf, 0 * problem.cost.detach())
    *_, status = ops.transport(barred, problem.a.detach(), problem.b.detach(), backend=backend)
    return status == SolveStatus.INFEASIBLE.value


def lost_by_plan(forbidden: Tensor, plan: Tensor) -> Tensor:
    """Return the items whose plan had come to use a forbidden pair, (B,)."""
    return (forbidden & (plan.detach() > 0)).any(2).any(1)


def spared(problem: _Problem, forbidden: Tensor, lost: Tensor | None) -> tuple[_Problem, Tensor]:
    """Allow all pairs of items that are lost, which would take all iterations for nothing."""
    if lost is None:
        return problem, forbidden
    of_lost = forbidden & lost[:, None, None]
    cost = torch.where(of_lost, 0, problem.cost)
    return replace(problem, cost=cost), forbidden & ~of_lost
