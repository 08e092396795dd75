"""Unbalanced entropic optimal transport."""

from math import inf, isinf, isnan, log

import torch
from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot._operators.unbalanced_sinkhorn import Penalty
from hotnas_torch.ot.problem import (
    LinearProblem,
    check_count,
    check_number,
    given_duals,
    has_values,
    linear_problem,
)
from hotnas_torch.ot.result import SolveStatus, UnbalancedSinkhornResult, warn_if_unsolved
from hotnas_torch.ot.sinkhorn import forbidden_pairs, lost_by_plan, spared, without_coupling
from hotnas_torch.ot.terms import Penalty as Divergence
from hotnas_torch.ot.terms import penalty_code

__all__ = ["marginal_weights", "unbalanced_sinkhorn"]

# L1 errors of the masses that rounding allows to reach.
_DEFAULT_TOL = {torch.float32: 1e-5, torch.float64: 1e-9}


def unbalanced_sinkhorn(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    epsilon: float,
    reg_m: float | tuple[float, float],
    penalty: Divergence = "kl",
    init: tuple[Tensor, Tensor] | None = None,
    tol: float | None = None,
    max_iter: int = 10_000,
    backend: ops.Backend = "auto",
    validate: bool = True,
) -> UnbalancedSinkhornResult:
    r"""Compute entropic transport between masses that need not be matched, at a price.

    .. math:: \min_{T \ge 0} \langle C, T \rangle + \epsilon \, \mathrm{KL}(T \,|\, a b^\top)
        + \rho_1 D(T 1 \,|\, a) + \rho_2 D(T^\top 1 \,|\, b)

    with KL(p | q) the sum of p log(p / q) - p + q, and D either that or the total variation, the
    sum of abs(p - q). With infinite weights it is `sinkhorn`, whose objective it then has.

    Args:
        cost: Costs, shape (*batch, n, m), float32 or float64, any sign. +inf forbids a pair: it is
            never in the plan, and items that are not to be solved without, as masses are held,
            have status INFEASIBLE.
        a: Row masses, shape (*batch, n) or broadcastable, of any positive sum; None for uniform,
            sum 1. A node of zero mass is absent (padding), whatever its costs are.
        b: Column masses, shape (*batch, m) or broadcastable, of any positive sum; None for uniform.
        epsilon: Weight of the entropy, > 0, in units of the cost.
        reg_m: Weights rho of the penalties, in units of the cost, of rows and columns or one for
            both: at least 0, or infinity for masses that are held. Where both are held, the sums
            must agree.
        penalty: D, "kl" or "tv".
        init: Row and column duals to start from, shapes (*batch, n) and (*batch, m) or
            broadcastable, such as `f` and `g` of a result; constants where gradients are concerned,
            and 0 where they are not finite, as at absent nodes. None for none. Not for "tv" with a
            finite weight, which draws duals to [-rho, rho] wherever they start.
        tol: L1 distance to stop at, of the masses of the plan from those that the duals ask for,
            over the larger sum of `a` and `b`. Default 1e-9 for float64, 1e-5 for float32. An item
            that rounding keeps from `tol` stops early, with status MAX_ITER and the `residual` that
            it reached.
        max_iter: Most iterations of an item, at most 2**31 - 1.
        backend: "auto" runs the compiled op where it has kernels for the device, CPU or CUDA,
            else the reference implementation in torch; "ext" and "torch" insist on one of them.
        validate: Whether to check values (this reads the data, which waits for a GPU) and to warn
            of items that were not solved.

    Returns:
        Plan, objective, duals and gap with the leading dimensions of the input.

    Raises:
        TypeError: Something is no tensor or number, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or have no positive sum, a
            cost is NaN or -inf, or an option is out of range.

    Differentiability:
        `objective` in `cost`, `a`, `b` by the envelope theorem; `plan`, `f`, `g` and `cost_linear`
        by implicit differentiation of the equations that hold at convergence. Both can be
        differentiated again, and in forward mode. Items that failed get NaN, and only they. In the
        mass of an absent node, the derivative is the limit of those at small masses.

    Complexity:
        O(n m) per iteration, O(n m) memory per problem; implicit backward O((n + m)^3).

    Reference:
        L. Chizat, G. Peyre, B. Schmitzer, F.-X. Vialard, Scaling algorithms for unbalanced optimal
        transport problems, Mathematics of Computation 2018; T. Sejourne, F.-X. Vialard, G. Peyre,
        Faster unbalanced optimal transport, AISTATS 2022.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> cost = torch.tensor([[0.0, 9.0], [9.0, 9.0]], dtype=torch.float64)
        >>> found = ht.ot.unbalanced_sinkhorn(cost, epsilon=0.1, reg_m=1.0, penalty="tv")
        >>> [[round(mass, 3) for mass in row] for row in found.plan.tolist()]
        [[0.5, 0.0], [0.0, 0.0]]
    """
    problem = linear_problem(cost, a, b, validate=validate, balanced=False)
    epsilon = check_number("epsilon", epsilon, positive=True)
    weights = marginal_weights(reg_m)
    tol = _DEFAULT_TOL[cost.dtype] if tol is None else check_number("tol", tol, positive=False)
    if validate and all(map(isinf, weights)) and has_values(problem.a, problem.b):
        _check_equal_sums(problem.a, problem.b)
    sides = tuple(Penalty(weight, penalty_code(penalty)) for weight in weights)
    settings = (epsilon, *weights, penalty_code(penalty))
    lost, forbidden = None, forbidden_pairs(problem, validate=validate)
    if forbidden is not None:
        lost = _without_plan(problem, forbidden, sides, backend, validate=validate)
        problem, forbidden = spared(problem, forbidden, lost)
    cost = problem.cost
    if forbidden is not None:
        bends = epsilon + sum(weight for weight in weights if not isinf(weight))
        cost = ops.forbidding_costs(cost, problem.a, problem.b, forbidden, bends)
    start = None if init is None else _start(problem, init, sides[1], validate=validate)
    used, masses = (cost, problem.b) if start is None else _from(start, cost, problem.b, *settings)
    f, g, residual, iterations, status = ops.unbalanced_sinkhorn(
        used,
        problem.a,
        masses,
        *settings,
        tol,
        check_count("max_iter", max_iter),
        backend=backend,
    )
    g = g if start is None else g + start
    given = cost, problem.a, problem.b, f, g
    plan = ops.unbalanced_plan(*given, epsilon)
    if forbidden is not None:
        astray = (forbidden & (plan > 0)).any(2).any(1)  # where the dtype has no cost that bars
        status = torch.where(astray, SolveStatus.NONFINITE.value, status)
        lost = lost_by_plan(forbidden, plan) if lost is None else lost
        status = torch.where(lost, SolveStatus.INFEASIBLE.value, status).to(torch.int32)
        f, g = (torch.where((lost | astray)[:, None], torch.nan, dual) for dual in (f, g))
        given = cost, problem.a, problem.b, f, g
        plan = torch.where((lost | astray)[:, None, None], torch.nan, plan)
    objective = ops.unbalanced_objective(*given, *settings)
    with torch.no_grad():
        gap = ops.unbalanced_value(plan, cost, problem.a, problem.b, *settings) - objective
    plan = ops.following_unbalanced(plan, *given, *settings)
    present = (problem.a > 0)[:, :, None] & (problem.b > 0)[:, None, :]
    linear = (torch.where(present | cost.isfinite(), cost, 0) * plan).sum((1, 2))
    result = UnbalancedSinkhornResult(
        plan=problem.restore(plan),
        objective=problem.restore(objective),
        cost_linear=problem.restore(linear),
        f=problem.restore(f),
        g=problem.restore(g),
        gap=problem.restore(gap.detach().clamp_min(0)),
        residual=problem.restore(residual),
        iterations=problem.restore(iterations),
        status=problem.restore(status),
    )
    if validate and has_values(result.status):
        warn_if_unsolved("unbalanced_sinkhorn", result.status)
    return result


def marginal_weights(reg_m: object) -> tuple[float, float]:
    """Return the weights of the penalties of rows and columns, at least 0 or infinite, or raise."""
    both = reg_m if isinstance(reg_m, tuple | list) else (reg_m, reg_m)
    if len(both) != 2:
        raise ValueError(f"reg_m must be a number or one each for rows and columns; got {reg_m!r}")
    for weight in both:
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            msg = f"reg_m must be a number or a pair of numbers; got {type(weight).__name__}"
            raise TypeError(msg)
        if isnan(weight) or weight < 0:
            raise ValueError(f"reg_m must be at least 0, or infinity to hold masses; got {weight}")
    return float(both[0]), float(both[1])


def _start(
    problem: LinearProblem, init: tuple[Tensor, Tensor], columns: Penalty, *, validate: bool
) -> Tensor:
    """Return column duals to start from, (B, m); row duals follow from them in the first sweep."""
    if columns.bound < inf and columns.weight > 0:
        msg = (
            'init must be None with penalty="tv" and a finite reg_m of columns, which draws duals'
            f" to [-{columns.weight:g}, {columns.weight:g}] wherever they start"
        )
        raise ValueError(msg)
    _, g = given_duals(problem, init, validate=validate)
    if columns.weight == 0:
        return torch.zeros_like(g)
    if not columns.inverse:
        return g
    # Of the level that leaves the masses their sum: the solver chooses its own.
    masses = problem.b.detach()
    most = 0.25 * log(torch.finfo(g.dtype).max)
    power = (-g * columns.inverse).clamp(-most, most)
    level = ((masses * power.exp()).sum(1) / masses.sum(1)).log()
    return -(power - level[:, None]) / columns.inverse


def _from(
    start: Tensor,
    cost: Tensor,
    b: Tensor,
    epsilon: float,
    marginal_x: float,
    marginal_y: float,
    penalty: int,
) -> tuple[Tensor, Tensor]:
    """Return the costs and column masses of the problem whose column duals are as much smaller.

    a b' exp((f + g - C) / epsilon) with masses b exp(-g / rho) of columns is the same of
    b exp(-start / rho), C - start (1 + epsilon / rho) and g - start.
    """
    del marginal_x
    inverse = Penalty(marginal_y, penalty).inverse
    return cost - ((1 + epsilon * inverse) * start)[:, None, :], b * (-start * inverse).exp()


def _without_plan(
    problem: LinearProblem,
    forbidden: Tensor,
    sides: tuple[Penalty, ...],
    backend: ops.Backend,
    *,
    validate: bool,
) -> Tensor | None:
    """Return the items whose held masses no plan has without forbidden pairs, (B,).

    None where that is not known beforehand.
    """
    if all(side.held for side in sides):
        return without_coupling(problem, forbidden, backend, validate=validate)
    x, y = problem.a > 0, problem.b > 0
    allowed = ~forbidden & x[:, :, None] & y[:, None, :]
    bare = (x & ~allowed.any(2)).any(1), (y & ~allowed.any(1)).any(1)
    none = torch.zeros_like(bare[0])
    return (bare[0] if sides[0].held else none) | (bare[1] if sides[1].held else none)


def _check_equal_sums(a: Tensor, b: Tensor) -> None:
    sums, others = a.detach().sum(1), b.detach().sum(1)
    slack = 0.5 * torch.finfo(a.dtype).eps ** 0.5 * torch.maximum(sums, others)
    off = ~((sums - others).abs() <= slack)
    if off.any():
        first = int(off.nonzero()[0])
        msg = (
            f"masses that are held must have equal sums; those of item {first} are"
            f" {float(sums[first]):.9g} and {float(others[first]):.9g} (make one reg_m finite)"
        )
        raise ValueError(msg)
