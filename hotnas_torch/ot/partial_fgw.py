"""Partial fused Gromov-Wasserstein by conditional gradient."""

from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot.fgw import random_starts
from hotnas_torch.ot.problem import check_count, check_number, graph_problem, has_values, paid
from hotnas_torch.ot.result import PartialFGWResult, unless_beyond, warn_if_unsolved
from hotnas_torch.ot.terms import Loss, Pairs, loss_code, pairs_code

__all__ = ["partial_fgw"]


def partial_fgw(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    mass: float | Tensor,
    alpha: float | Tensor = 0.5,
    loss: Loss = "l1",
    pairs: Pairs = "all",
    num_starts: int = 1,
    init: Tensor | Literal["product"] | None = None,
    generator: torch.Generator | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    backend: ops.Backend = "auto",
    validate: bool = True,
) -> PartialFGWResult:
    r"""Compute fused Gromov-Wasserstein between parts of small graphs by conditional gradient.

    .. math:: \min_T F(T) = (1 - \alpha) \langle C, T \rangle
        + \alpha \sum T_{ij} T_{kl} L(C^x_{ik} - C^y_{jl})
        \quad T 1 \le a, \; T^\top 1 \le b, \; \sum T_{ij} = s

    The objective is that of `hotnas_torch.ot.fgw` on the mass that is moved; what is left of either
    graph costs nothing. So a graph is at distance 0 from one that contains it. F is not convex: the
    result is the best of the stationary couplings that the starts lead to.

    Args:
        cost: Costs between nodes, shape (*batch, n, m), float32 or float64. +inf forbids a pair:
            it is never in the plan, whatever `alpha` is.
        struct_x: Structure of the first graph, shape (*batch, n, n) or broadcastable; need not be
            symmetric.
        struct_y: Structure of the second graph, shape (*batch, m, m) or broadcastable.
        a: Masses of the first graph, shape (*batch, n) or broadcastable, of any sum; None for
            uniform of sum 1. A node of zero mass is absent (padding), whatever its costs are.
        b: Masses of the second graph, shape (*batch, m) or broadcastable, of any sum; None for
            uniform of sum 1.
        mass: The mass s that is moved, at most the sum of `a` and that of `b`; a number or shape
            (*batch,).
        alpha: Weight of the quadratic term in [0, 1], a number or shape (*batch,), as in POT.
        loss: L(d) = abs(d) for "l1", d squared for "l2".
        pairs: The sum goes over "all" i, j, k, l; over i != k, j != l for "directed"; over i < k,
            j < l for "ordered".
        num_starts: How many of the starts of `hotnas_torch.ot.fgw` to use. The order-preserving
            one, which is of all mass, is passed over where some is left.
        init: Coupling to start from first, shape (*batch, n, m) or broadcastable, that moves `mass`
            within `a` and `b`; "product" for the share of a b' (POT's start); None for none.
        generator: Source of the random starts; needed if `num_starts` exceeds the others.
        tol: Duality gap, relative to the objective, to stop at; see `hotnas_torch.ot.fgw`.
        max_iter: Most transport problems that one start may solve.
        backend: "auto" runs the compiled op where it has kernels for the device, CPU or CUDA,
            else the reference implementation in torch; "ext" and "torch" insist on one of them.
        validate: Whether to check values (this reads the data, which waits for a GPU) and to warn
            of items that were not solved.

    Returns:
        Plan, objective, its two parts, duals, price and gap with the leading dimensions of the
        input.

    Raises:
        TypeError: Something is no tensor, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or not finite, `mass` is
            negative or more than there is, a cost is NaN or -inf, a structure is NaN or infinite,
            or an option is out of range.

    Differentiability:
        `objective` in `cost`, `struct_x`, `struct_y`, `a`, `b`, `alpha` and `mass` by the envelope
        theorem at the coupling found; otherwise as `hotnas_torch.ot.fgw`.

    Complexity:
        That of `hotnas_torch.ot.fgw` with one more node on each side.

    Reference:
        L. Chapel, M. Alaya, G. Gasso, Partial optimal transport with applications on
        positive-unlabeled learning, NeurIPS 2020, section 3.2.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> places = torch.tensor([0.0, 1.0, 3.0, 7.0])
        >>> graph = (places[:, None] - places).abs()
        >>> part = graph[1:, 1:]
        >>> a, b = torch.full((4,), 0.25), torch.full((3,), 0.25)
        >>> generator = torch.Generator().manual_seed(0)
        >>> ht.ot.partial_fgw(
        ...     torch.zeros(4, 3), graph, part, a, b, mass=0.75, alpha=1.0, num_starts=20,
        ...     generator=generator,
        ... ).objective.item()
        0.0
    """
    problem = graph_problem(cost, struct_x, struct_y, a, b, alpha, init, mass, validate=validate)
    assert problem.moved is not None
    num_starts = check_count("num_starts", num_starts)
    plan, objective, f, g, price, gap, iterations, status = ops.partial_fgw(
        problem.cost,
        problem.struct_x,
        problem.struct_y,
        problem.a,
        problem.b,
        problem.alpha,
        problem.moved,
        problem.init,
        random_starts(problem, init is not None, num_starts, generator),
        loss_code(loss),
        pairs_code(pairs),
        num_starts,
        check_number("tol", tol, positive=False),
        check_count("max_iter", max_iter),
        backend=backend,
    )
    linear = (1 - problem.alpha) * paid(problem.cost, plan)
    status = unless_beyond(status, f, g, price[:, None])
    result = PartialFGWResult(
        plan=problem.restore(plan),
        objective=problem.restore(objective),
        cost_linear=problem.restore(linear),
        cost_quad=problem.restore(objective - linear),
        f=problem.restore(f),
        g=problem.restore(g),
        price=problem.restore(price),
        gap=problem.restore(gap),
        iterations=problem.restore(iterations),
        status=problem.restore(status),
    )
    if validate and has_values(result.status):
        warn_if_unsolved("partial_fgw", result.status)
    return result
