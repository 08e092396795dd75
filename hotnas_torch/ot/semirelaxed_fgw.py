"""Semi-relaxed fused Gromov-Wasserstein."""

from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot._operators.semirelaxed_fgw import NUM_STARTS
from hotnas_torch.ot.problem import (
    GraphProblem,
    check_count,
    check_number,
    graph_problem,
    has_values,
)
from hotnas_torch.ot.result import SemirelaxedFGWResult, unless_beyond, warn_if_unsolved
from hotnas_torch.ot.terms import Loss, Pairs, loss_code, pairs_code

__all__ = ["semirelaxed_fgw"]


def semirelaxed_fgw(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    alpha: float | Tensor = 0.5,
    loss: Loss = "l1",
    pairs: Pairs = "all",
    num_starts: int = 2,
    init: Tensor | Literal["product"] | None = None,
    generator: torch.Generator | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    backend: ops.Backend = "auto",
    validate: bool = True,
) -> SemirelaxedFGWResult:
    r"""Compute semi-relaxed fused Gromov-Wasserstein: columns take whatever mass fits them.

    .. math:: \min_T F(T) = (1 - \alpha) \langle C, T \rangle
        + \alpha \sum T_{ij} T_{kl} L(C^x_{ik} - C^y_{jl}) \quad T 1 = a

    Which part of the second graph is like the first, and how much of it: the second graph's masses
    are part of the answer (`column_masses`). F is not convex: the result is the best of the
    stationary couplings that the starts lead to. Not symmetric in the two graphs.

    Args:
        cost: Costs between nodes, shape (*batch, n, m), float32 or float64.
        struct_x: Structure of the first graph, shape (*batch, n, n) or broadcastable; need not be
            symmetric.
        struct_y: Structure of the second graph, shape (*batch, m, m) or broadcastable.
        a: Masses of the first graph, shape (*batch, n) or broadcastable, sum 1; None for uniform. A
            node of zero mass is absent (padding), whatever its costs are.
        b: Masses that the first start gives the second graph, shape (*batch, m) or broadcastable,
            sum 1; None for uniform. A node of zero mass is absent; nothing else depends on them but
            which optimum is found.
        alpha: Weight of the quadratic term in [0, 1], a number or shape (*batch,), as in POT.
        loss: L(d) = abs(d) for "l1", d squared for "l2".
        pairs: The sum goes over "all" i, j, k, l; over i != k, j != l for "directed"; over i < k,
            j < l for "ordered".
        num_starts: How many starts to take the best of, in the order `init` if given, a b' (POT's
            start), each row's cheapest column, then random columns drawn from `generator`.
        init: Coupling to start from first, shape (*batch, n, m) or broadcastable, with row masses
            `a`; "product" for a b', which is the first start anyway; None for none.
        generator: Source of the random starts; needed if `num_starts` exceeds the others.
        tol: Gap, relative to the objective, to stop at. The gap is a sum of terms of which none is
            negative, so that Converged holds up to the rounding of the gradient: 8 epsilon times
            <grad F(T), T>.
        max_iter: Most iterations of one start.
        backend: "auto" runs the compiled op where it has kernels for the device, CPU or CUDA,
            else the reference implementation in torch; "ext" and "torch" insist on one of them.
        validate: Whether to check values (this reads the data, which waits for a GPU) and to warn
            of items that were not solved.

    Returns:
        Plan, objective, its two parts, row duals and gap with the leading dimensions of the input.

    Raises:
        TypeError: Something is no tensor, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or do not sum to 1, a cost or
            a structure is NaN or infinite, or an option is out of range.

    Differentiability:
        `objective` in `cost`, `struct_x`, `struct_y`, `a` and `alpha` by the envelope theorem at
        the coupling found, forward mode, `torch.func` and `torch.compile` included; the derivative
        in `b` is 0. Second derivatives exist where every row has one column, but not in the masses,
        and raise otherwise. Differentiating any other output raises. In forward mode, where it
        cannot be known what the loss will use, NaN stands for what raises.

    Complexity:
        O(n^2 m) per iteration, a few to some dozens of them; backward O(n^2 m^2).

    Reference:
        C. Vincent-Cuaz, R. Flamary, M. Corneli, T. Vayer, N. Courty, Semi-relaxed
        Gromov-Wasserstein divergence and applications on graphs, ICLR 2022.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> places = torch.tensor([0.0, 1.0, 3.0, 7.0])
        >>> graph = (places[:, None] - places).abs()
        >>> part = graph[1:3, 1:3]
        >>> found = ht.ot.semirelaxed_fgw(1 - torch.eye(4)[1:3], part, graph)
        >>> found.objective.item(), found.column_masses.tolist()
        (0.0, [0.0, 0.5, 0.5, 0.0])
    """
    problem = graph_problem(
        cost,
        struct_x,
        struct_y,
        a,
        b,
        alpha,
        init,
        validate=validate,
        forbidding=False,
        columns_free=True,
    )
    num_starts = check_count("num_starts", num_starts)
    tol = check_number("tol", tol, positive=False)
    plan, objective, f, gap, iterations, status = ops.semirelaxed_fgw(
        problem.cost,
        problem.struct_x,
        problem.struct_y,
        problem.a,
        problem.b,
        problem.alpha,
        problem.init,
        _random_starts(problem, init is not None, num_starts, generator),
        loss_code(loss),
        pairs_code(pairs),
        num_starts,
        tol,
        check_count("max_iter", max_iter),
        backend=backend,
    )
    linear = (1 - problem.alpha) * (problem.cost * plan).sum((1, 2))
    status = unless_beyond(status, f)
    result = SemirelaxedFGWResult(
        plan=problem.restore(plan),
        objective=problem.restore(objective),
        cost_linear=problem.restore(linear),
        cost_quad=problem.restore(objective - linear),
        f=problem.restore(f),
        gap=problem.restore(gap),
        iterations=problem.restore(iterations),
        status=problem.restore(status),
    )
    if validate and has_values(result.status):
        warn_if_unsolved("semirelaxed_fgw", result.status)
    return result


def _random_starts(
    problem: GraphProblem, has_init: bool, num_starts: int, generator: torch.Generator | None
) -> Tensor:
    """Costs whose cheapest columns are the random starts."""
    count = num_starts - NUM_STARTS - has_init
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
