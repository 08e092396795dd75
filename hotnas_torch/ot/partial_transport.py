"""Exact partial transport."""

from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot.problem import has_values, linear_problem
from hotnas_torch.ot.result import PartialTransportResult, unless_beyond, warn_if_unsolved

__all__ = ["partial_transport"]


def partial_transport(
    cost: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    mass: float | Tensor,
    backend: ops.Backend = "auto",
    validate: bool = True,
) -> PartialTransportResult:
    r"""Compute exact transport of a part of the mass between small discrete measures.

    .. math:: \min_T \langle C, T \rangle \quad T \ge 0, \; T 1 \le a, \; T^\top 1 \le b,
        \; \sum T_{ij} = s

    What is cheapest to move is moved; the rest of both sides stays where it is and costs nothing.

    Args:
        cost: Costs, shape (*batch, n, m), float32 or float64, any sign. +inf forbids a pair: it is
            never in the plan, and items that are not to be solved without have status INFEASIBLE.
        a: Row masses, shape (*batch, n) or broadcastable, of any sum; None for uniform of sum 1. A
            node of zero mass is absent (padding), whatever its costs are.
        b: Column masses, shape (*batch, m) or broadcastable, of any sum; None for uniform of sum 1.
        mass: The mass s that is moved, at most the sum of `a` and that of `b`; a number or shape
            (*batch,).
        backend: "auto" runs the compiled op where it has kernels for the device, CPU or CUDA,
            else the reference implementation in torch; "ext" and "torch" insist on one of them.
        validate: Whether to check values (this reads the data, which waits for a GPU) and to warn
            of items that were not solved.

    Returns:
        Plan, objective, duals and the price of mass with the leading dimensions of the input.

    Raises:
        TypeError: Something is no tensor, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or not finite, `mass` is
            negative or more than there is, or a cost is NaN or -inf.

    Differentiability:
        `objective` in `cost`, `a`, `b` and `mass` by the envelope theorem (the plan, the duals and
        the price), a subgradient where the problem is degenerate: where all mass of a side is
        moved, that of less. Otherwise as `hotnas_torch.ot.transport`.

    Complexity:
        That of `hotnas_torch.ot.transport` with one more node on each side.

    Reference:
        L. Chapel, M. Alaya, G. Gasso, Partial optimal transport with applications on
        positive-unlabeled learning, NeurIPS 2020, section 3.1.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> cost = torch.tensor([[0.0, 4.0], [4.0, 2.0]])
        >>> result = ht.ot.partial_transport(cost, mass=0.75)
        >>> result.objective.item(), result.plan.tolist(), result.price.item()
        (0.5, [[0.5, 0.0], [0.0, 0.25]], 2.0)
    """
    problem = linear_problem(cost, a, b, mass, validate=validate)
    assert problem.moved is not None
    plan, objective, f, g, price, iterations, status = ops.partial_transport(
        problem.cost, problem.a, problem.b, problem.moved, backend=backend
    )
    status = unless_beyond(status, f, g, price[:, None])
    result = PartialTransportResult(
        plan=problem.restore(plan),
        objective=problem.restore(objective),
        f=problem.restore(f),
        g=problem.restore(g),
        price=problem.restore(price),
        iterations=problem.restore(iterations),
        status=problem.restore(status),
    )
    if validate and has_values(result.status):
        warn_if_unsolved("partial_transport", result.status)
    return result
