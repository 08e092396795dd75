"""Unbalanced optimal transport without entropy, exactly."""

from math import isinf

from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot.problem import (
    LinearProblem,
    check_count,
    check_number,
    has_values,
    linear_problem,
)
from hotnas_torch.ot.result import UnbalancedTransportResult, warn_if_unsolved
from hotnas_torch.ot.terms import Penalty, penalty_code
from hotnas_torch.ot.unbalanced_sinkhorn import marginal_weights

__all__ = ["unbalanced_transport"]


def unbalanced_transport(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    reg_m: float | tuple[float, float],
    penalty: Penalty = "kl",
    tol: float = 1e-6,
    max_iter: int = 100_000,
    backend: ops.Backend = "auto",
    validate: bool = True,
) -> UnbalancedTransportResult:
    r"""Compute optimal transport between masses that need not be matched, at a price.

    .. math:: \min_{T \ge 0} \langle C, T \rangle
        + \rho_1 D(T 1 \,|\, a) + \rho_2 D(T^\top 1 \,|\, b)

    with D(p | q) the sum of p log(p / q) - p + q (KL) or of abs(p - q) (total variation). The
    second is an exact transport problem with a node more on each side, which takes what is not
    worth its way. The first is solved by pivots, too, on trees of arcs that are tight, each at the
    level at which as much is sent as is taken; duals that are feasible prove the gap, which is
    rounding.

    Args:
        cost: Costs, shape (*batch, n, m), float32 or float64, at least -(rho_1 + rho_2) where D is
            the total variation: more mass would pay without end. For the total variation, +inf
            forbids a pair: it is never in the plan, and items that are not to be solved without, as
            masses are held, have status INFEASIBLE.
        a: Row masses, shape (*batch, n) or broadcastable, of any positive sum; None for uniform,
            sum 1. A node of zero mass is absent (padding), whatever its costs are.
        b: Column masses, shape (*batch, m) or broadcastable, of any positive sum; None for uniform.
        reg_m: Weights rho of the penalties, in units of the cost, of rows and columns or one for
            both, positive. One of them may be infinite, to hold these masses.
        penalty: D, "kl" or "tv".
        tol: Gap, relative to the objective, up to which an item has converged.
        max_iter: Most pivots of an item; for "kl".
        backend: "auto" runs the compiled op where it has kernels for the device, CPU or CUDA,
            else the reference implementation in torch; "ext" and "torch" insist on one of them.
        validate: Whether to check values (this reads the data, which waits for a GPU) and to warn
            of items that were not solved.

    Returns:
        Plan, objective, duals and gap with the leading dimensions of the input.

    Raises:
        TypeError: Something is no tensor or number, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or have no positive sum, a
            cost is NaN or infinite or too small, or an option is out of range.

    Differentiability:
        `objective` in `cost`, `a` and `b` by the envelope theorem: the plan, and what a little more
        mass would pay. Differentiating any other output raises.

    Complexity:
        O(n m) per pivot for small problems, about n + m of them, fewer where masses are cheap to
        miss; O(n m) memory per problem.

    Reference:
        L. Chapel, R. Flamary, H. Wu, C. Fevotte, G. Gasso, Unbalanced optimal transport through
        non-negative penalized linear regression, NeurIPS 2021.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> cost = torch.tensor([[0.0, 9.0], [9.0, 9.0]])
        >>> ht.ot.unbalanced_transport(cost, reg_m=1.0, penalty="tv").plan.tolist()
        [[0.5, 0.0], [0.0, 0.0]]
    """
    # Arcs that exact transport does not take; the levels of the other's trees are finite.
    forbidding = penalty == "tv"
    problem = linear_problem(cost, a, b, validate=validate, balanced=False, forbidding=forbidding)
    weights = marginal_weights(reg_m)
    if 0 in weights or all(map(isinf, weights)):
        msg = f"reg_m must be positive, and finite for rows or columns; got {reg_m!r}"
        raise ValueError(f"{msg} (transport holds both)")
    code = penalty_code(penalty)
    if validate and penalty == "tv" and has_values(problem.cost):
        _check_endless(problem, *weights)
    plan, objective, f, g, gap, iterations, status = ops.unbalanced_transport(
        problem.cost,
        problem.a,
        problem.b,
        *weights,
        code,
        check_number("tol", tol, positive=False),
        check_count("max_iter", max_iter),
        backend=backend,
    )
    result = UnbalancedTransportResult(
        plan=problem.restore(plan),
        objective=problem.restore(objective),
        f=problem.restore(f),
        g=problem.restore(g),
        gap=problem.restore(gap),
        iterations=problem.restore(iterations),
        status=problem.restore(status),
    )
    if validate and has_values(result.status):
        warn_if_unsolved("unbalanced_transport", result.status)
    return result


def _check_endless(problem: LinearProblem, x: float, y: float) -> None:
    """Refuse costs so far below 0 that ever more mass would pay."""
    present = (problem.a > 0)[:, :, None] & (problem.b > 0)[:, None, :]
    wrong = present & (problem.cost.detach() < -(x + y))
    if wrong.any():
        item, *place = wrong.nonzero()[0].tolist()
        msg = (
            f'cost must be at least -(reg_m of rows + of columns), {-(x + y):g}, with penalty="tv";'
            f" item {item} has {float(problem.cost[item, place[0], place[1]]):g} at {tuple(place)}"
            " (raise reg_m, or add a constant to the costs)"
        )
        raise ValueError(msg)
