"""Exact optimal transport."""

from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot.problem import (
    all_solved,
    alone,
    check_once_solved,
    has_values,
    linear_problem,
    sums_to_one,
)
from hotnas_torch.ot.result import TransportResult, warn_if_unsolved

__all__ = ["transport"]


def transport(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    backend: ops.Backend = "auto",
    validate: bool = True,
) -> TransportResult:
    r"""Compute exact optimal transport between small discrete measures.

    .. math:: \min_T \langle C, T \rangle \quad T \ge 0, \; T 1 = a, \; T^\top 1 = b

    Args:
        cost: Costs, shape (*batch, n, m), float32 or float64, any sign. +inf forbids a pair: it is
            never in the plan, and items that are not to be solved without have status INFEASIBLE.
        a: Row masses, shape (*batch, n) or broadcastable, sum 1; None for uniform. A node of zero
            mass is absent (padding), whatever its costs are.
        b: Column masses, shape (*batch, m) or broadcastable, sum 1; None for uniform.
        backend: "auto" runs the compiled op where it has kernels for the device, CPU or CUDA,
            else the reference implementation in torch; "ext" and "torch" insist on one of them.
        validate: Whether to check values (this reads the data, which waits for a GPU) and to warn
            of items that were not solved.

    Returns:
        Plan, objective and duals with the leading dimensions of the input.

    Raises:
        TypeError: Something is no tensor, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or do not sum to 1, or a cost
            is NaN or -inf.

    Differentiability:
        `objective` in `cost`, `a` and `b` by the envelope theorem (plan and duals). Where
        the problem is degenerate this is a subgradient. Forward mode, `torch.func` and
        `torch.compile` included (under `vmap` and in traced functions values are not checked).
        The plan is locally constant in `cost`: second derivatives go through what `cost` was
        computed from; those in both costs and masses raise. Differentiating `plan`, `f` or
        `g` raises; in forward mode, where that cannot be known, they get NaN.

    Complexity:
        Uniform masses of equal sizes: O(n m) per augmenting path, at most n of them. Others: about
        n + m pivots, more for large n; O(n m) each up to some 20 nodes, else O(n + m) and the few
        rows whose costs are looked at. O(n m) memory per problem.

    Reference:
        R. Jonker, A. Volgenant, A shortest augmenting path algorithm for dense and sparse linear
        assignment problems, Computing 38, 1987; W. Cunningham, A network simplex method,
        Mathematical Programming 11, 1976.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> result = ht.ot.transport(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        >>> result.objective.item(), result.plan.tolist()
        (0.0, [[0.5, 0.0], [0.0, 0.5]])
    """
    if backend in ("auto", "ext"):
        short = _solved_alone(cost, a, b, validate=validate)
        if short is not None:
            return short
    problem = linear_problem(cost, a, b, validate=False, presence=False)
    plan, objective, f, g, iterations, status = ops.transport(
        problem.cost, problem.a, problem.b, backend=backend
    )
    solved = True
    if validate and has_values(status):  # as the inputs have
        solved = check_once_solved(problem, status)
    result = TransportResult(
        plan=problem.restore(plan),
        objective=problem.restore(objective),
        f=problem.restore(f),
        g=problem.restore(g),
        iterations=problem.restore(iterations),
        status=problem.restore(status),
    )
    if not solved:
        warn_if_unsolved("transport", result.status)
    return result


def _solved_alone(
    cost: Tensor, a: Tensor | None, b: Tensor | None, *, validate: bool
) -> TransportResult | None:
    """Solve one problem that is right and has a solution: None for all others, and for errors."""
    problem = alone(cost, a, b)
    found = None if problem is None else ops.transport_alone(*problem)
    if problem is None or found is None:
        return None
    result = TransportResult(
        plan=found[0],
        objective=found[1],
        f=found[2],
        g=found[3],
        iterations=found[4],
        status=found[5],
    )
    given = [mass for mass in (a, b) if mass is not None]
    if validate and not (all_solved(result.status) and all(map(sums_to_one, given))):
        return None
    return result
