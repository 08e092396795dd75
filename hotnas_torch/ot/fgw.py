"""Fused Gromov-Wasserstein by conditional gradient."""

from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot._operators.fgw import NUM_STRUCTURAL_STARTS
from hotnas_torch.ot.problem import (
    GraphProblem,
    check_count,
    check_number,
    graph_problem,
    has_values,
    paid,
)
from hotnas_torch.ot.result import FGWResult, unless_beyond, warn_if_unsolved
from hotnas_torch.ot.terms import Loss, Pairs, loss_code, pairs_code

__all__ = ["fgw", "random_starts"]


def fgw(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    alpha: float | Tensor = 0.5,
    loss: Loss = "l1",
    pairs: Pairs = "all",
    num_starts: int = 1,
    init: Tensor | Literal["product"] | None = None,
    generator: torch.Generator | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    bound: bool = False,
    backend: ops.Backend = "auto",
    validate: bool = True,
) -> FGWResult:
    r"""Compute fused Gromov-Wasserstein between small graphs by conditional gradient.

    .. math:: \min_T F(T) = (1 - \alpha) \langle C, T \rangle
        + \alpha \sum T_{ij} T_{kl} L(C^x_{ik} - C^y_{jl}) \quad T 1 = a, \; T^\top 1 = b

    F is not convex: the result is the best of the stationary couplings that the starts lead to.

    Args:
        cost: Costs between nodes, shape (*batch, n, m), float32 or float64. +inf forbids a pair:
            it is never in the plan, whatever `alpha` is.
        struct_x: Structure of the first graph, shape (*batch, n, n) or broadcastable; need not be
            symmetric.
        struct_y: Structure of the second graph, shape (*batch, m, m) or broadcastable.
        a: Masses of the first graph, shape (*batch, n) or broadcastable, sum 1; None for uniform. A
            node of zero mass is absent (padding), whatever its costs are.
        b: Masses of the second graph, shape (*batch, m) or broadcastable, sum 1; None for uniform.
        alpha: Weight of the quadratic term in [0, 1], a number or shape (*batch,), as in POT.
        loss: L(d) = abs(d) for "l1", d squared for "l2".
        pairs: The sum goes over "all" i, j, k, l; over i != k, j != l for "directed"; over i < k,
            j < l for "ordered".
        num_starts: How many starts to use, in the order `init` if given, signature (the
            optimum of the linear term with the difference of mean structures added), pointwise (of
            the linear term alone), order-preserving, then random vertices drawn from `generator`.
        init: Coupling to start from first, shape (*batch, n, m) or broadcastable, with marginals
            `a` and `b`; "product" for a b' (POT's start); None for none.
        generator: Source of the random starts; needed if `num_starts` exceeds the others.
        tol: Duality gap, relative to the objective, to stop at. Converged says that feasible duals
            prove it, up to the rounding of the dtype: 8 epsilon times <grad F(T), T> and <grad
            F(T), V>, with V the vertex of the last linear problem.
        max_iter: Most transport problems that one start may solve.
        bound: Whether to compute a certified lower bound of the global optimum, too.
        backend: "auto" runs the compiled op where it has kernels for the device, CPU or CUDA,
            else the reference implementation in torch; "ext" and "torch" insist on one of them.
        validate: Whether to check values (this reads the data, which waits for a GPU) and to warn
            of items that were not solved.

    Returns:
        Plan, objective, its two parts, duals and gap with the leading dimensions of the input.

    Raises:
        TypeError: Something is no tensor, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or do not sum to 1, a cost or
            a structure is NaN or infinite (a cost: or -inf), or an option is out of range.

    Differentiability:
        `objective` in `cost`, `struct_x`, `struct_y`, `a`, `b` and `alpha` by the
        envelope theorem at the coupling found. Each entry of a structure counts for itself,
        symmetric or not. Forward mode, `torch.func` and `torch.compile` included. Second
        derivatives exist where the coupling is a vertex, which stays, but not in the masses, and
        raise otherwise. Differentiating any other output raises. In forward mode, where it cannot
        be known what the loss will use, NaN stands for what raises.

    Complexity:
        O((n + m) n m) and one exact transport problem per iteration; backward O(n^2 m^2); a bound
        takes n m transport problems.

    Reference:
        T. Vayer et al., Optimal transport for structured data with application on graphs, ICML
        2019, eq. 3.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> places = torch.tensor([0.0, 1.0, 3.0])
        >>> graph = (places[:, None] - places).abs()
        >>> moved = graph[[2, 0, 1]][:, [2, 0, 1]]
        >>> ht.ot.fgw(torch.zeros(3, 3), graph, moved, alpha=1.0, num_starts=2).objective.item()
        0.0
    """
    problem = graph_problem(cost, struct_x, struct_y, a, b, alpha, init, validate=validate)
    num_starts = check_count("num_starts", num_starts)
    tol = check_number("tol", tol, positive=False)
    codes = loss_code(loss), pairs_code(pairs)
    tensors = (
        problem.cost,
        problem.struct_x,
        problem.struct_y,
        problem.a,
        problem.b,
        problem.alpha,
    )
    plan, objective, f, g, gap, iterations, status = ops.fgw(
        *tensors,
        problem.init,
        random_starts(problem, init is not None, num_starts, generator),
        *codes,
        num_starts,
        tol,
        check_count("max_iter", max_iter),
        backend=backend,
    )
    lower = None
    if bound:
        lower = problem.restore(ops.fgw_lower_bound(*tensors, *codes, backend=backend))
    linear = (1 - problem.alpha) * paid(problem.cost, plan)
    f, g = ops.mean_free_duals(f, g, problem.a, problem.b, whole=problem.whole)
    status = unless_beyond(status, f, g)
    result = FGWResult(
        plan=problem.restore(plan),
        objective=problem.restore(objective),
        cost_linear=problem.restore(linear),
        cost_quad=problem.restore(objective - linear),
        f=problem.restore(f),
        g=problem.restore(g),
        gap=problem.restore(gap),
        lower_bound=lower,
        iterations=problem.restore(iterations),
        status=problem.restore(status),
    )
    if validate and has_values(result.status):
        warn_if_unsolved("fgw", result.status)
    return result


def random_starts(
    problem: GraphProblem, has_init: bool, num_starts: int, generator: torch.Generator | None
) -> Tensor:
    """Costs of random vertices for the starts that structure does not provide."""
    count = num_starts - NUM_STRUCTURAL_STARTS - has_init
    if count <= 0:
        return problem.cost.new_empty(0)
    if generator is None:
        msg = (
            f"num_starts={num_starts} asks for {count} random starts and needs a generator: pass"
            " generator=torch.Generator().manual_seed(0)"
        )
        raise ValueError(msg)
    # In double precision whatever the problem's dtype, so that both draw the same starts.
    drawn = torch.rand(
        (count, *problem.cost.shape[1:]),
        generator=generator,
        dtype=torch.float64,
        device=generator.device,
    )
    return drawn.to(problem.cost)
