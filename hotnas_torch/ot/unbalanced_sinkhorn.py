"""Unbalanced entropic optimal transport."""

from math import isinf, isnan

import torch
from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot.problem import check_count, check_number, has_values, linear_problem
from hotnas_torch.ot.result import UnbalancedSinkhornResult, warn_if_unsolved
from hotnas_torch.ot.terms import Penalty, penalty_code

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
    penalty: Penalty = "kl",
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
        cost: Costs, shape (*batch, n, m), float32 or float64, any sign.
        a: Row masses, shape (*batch, n) or broadcastable, of any positive sum; None for uniform,
            sum 1. A node of zero mass is absent (padding), whatever its costs are.
        b: Column masses, shape (*batch, m) or broadcastable, of any positive sum; None for uniform.
        epsilon: Weight of the entropy, > 0, in units of the cost.
        reg_m: Weights rho of the penalties, in units of the cost, of rows and columns or one for
            both: at least 0, or infinity for masses that are held. Where both are held, the sums
            must agree.
        penalty: D, "kl" or "tv".
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
            cost is NaN or infinite, or an option is out of range.

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
    settings = (epsilon, *weights, penalty_code(penalty))
    f, g, residual, iterations, status = ops.unbalanced_sinkhorn(
        problem.cost,
        problem.a,
        problem.b,
        *settings,
        tol,
        check_count("max_iter", max_iter),
        backend=backend,
    )
    given = problem.cost, problem.a, problem.b, f, g
    plan = ops.unbalanced_plan(*given, epsilon)
    objective = ops.unbalanced_objective(*given, *settings)
    with torch.no_grad():
        gap = ops.unbalanced_value(plan, problem.cost, problem.a, problem.b, *settings) - objective
    plan = ops.following_unbalanced(plan, *given, *settings)
    present = (problem.a > 0)[:, :, None] & (problem.b > 0)[:, None, :]
    linear = (torch.where(present | problem.cost.isfinite(), problem.cost, 0) * plan).sum((1, 2))
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
