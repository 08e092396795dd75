"""Unbalanced fused Gromov-Wasserstein."""

from math import isinf
from typing import Literal

from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot._operators.edge_fgw import EdgeLoss, EdgeTerms
from hotnas_torch.ot._operators.operator import has_values
from hotnas_torch.ot._operators.unbalanced_fgw import Prices
from hotnas_torch.ot._operators.unbalanced_fgw import unbalanced_fgw as solve
from hotnas_torch.ot.edge_fgw import check_domain, edge_loss
from hotnas_torch.ot.problem import check_count, check_number, graph_problem
from hotnas_torch.ot.result import UnbalancedFGWResult, warn_if_unsolved
from hotnas_torch.ot.terms import Pairs, pairs_code
from hotnas_torch.ot.unbalanced_sinkhorn import marginal_weights

__all__ = ["unbalanced_fgw"]


def unbalanced_fgw(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    reg_m: float | tuple[float, float],
    epsilon: float = 0.0,
    alpha: float | Tensor = 0.5,
    loss: EdgeLoss = "l1",
    pairs: Pairs = "all",
    init: Tensor | Literal["product"] = "product",
    tol: float = 1e-8,
    max_iter: int = 1000,
    backend: ops.Backend = "auto",
    validate: bool = True,
) -> UnbalancedFGWResult:
    r"""Compute fused Gromov-Wasserstein between graphs whose masses need not be matched.

    .. math:: \min_{T \ge 0} G(T) = (1 - \alpha) \langle C, T \rangle
        + \alpha \sum T_{ij} T_{kl} L(C^x_{ik} - C^y_{jl})
        + \rho_1 D(T 1 | a) + \rho_2 D(T^\top 1 | b) + \epsilon D(T | a b^\top)

    with D(p | q) the Kullback-Leibler divergence of the products, KL(p p' | q q'), so that all
    terms but the linear one are of the second degree in T. What has no counterpart in the other
    graph is left out, at a price that rho sets. Each step improves one factor of T T' with the
    other held, by an entropic problem whose entropy is relative to the last plan where epsilon is
    0; a second descent, which begins with whole sides, is then tried as well. G is not convex: the
    result is a stationary plan that the start leads to.

    Args:
        cost: Costs between nodes, shape (*batch, n, m), float32 or float64, finite.
        struct_x: Structure of the first graph, shape (*batch, n, n) or broadcastable; need not be
            symmetric.
        struct_y: Structure of the second graph, shape (*batch, m, m) or broadcastable.
        a: Masses of the first graph, shape (*batch, n) or broadcastable, of any positive sum; None
            for uniform, sum 1. A node of zero mass is absent (padding), whatever its costs are.
        b: Masses of the second graph, shape (*batch, m) or broadcastable, of any positive sum; None
            for uniform.
        reg_m: Weights rho of the divergences, in units of the objective, of rows and columns or one
            for both, positive and finite: `semirelaxed_fgw` frees columns altogether, `fgw` holds
            all.
        epsilon: Weight of the entropy, in units of the objective; 0 for none.
        alpha: Weight of the quadratic term in [0, 1], a number or shape (*batch,).
        loss: L(x, y) = abs(x - y) for "l1", (x - y)^2 for "l2", x log(x / y) - x + y for "kl",
            which needs x >= 0 and y > 0.
        pairs: "all", "directed" or "ordered"; see `hotnas_torch.ot.fgw`.
        init: Plan to start from, shape (*batch, n, m) or broadcastable, of any positive mass;
            "product" for a b'.
        tol: Gap to stop at, relative to the objective; rounding is allowed for.
        max_iter: Most steps of a descent.
        backend: Of the transport problems; the rest is torch code on any device.
        validate: Whether to check values and to warn of items that were not solved.

    Returns:
        Plan, objective, two of its parts and gap with the leading dimensions of the input.

    Raises:
        TypeError: Something is no tensor or number, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or have no positive sum, a
            number is NaN or infinite, structures are outside the domain of the loss, or an option
            is out of range.
        RuntimeError: Python cannot look at the values, as under `torch.vmap` or `torch.compile`.

    Differentiability:
        `objective` in `cost`, `struct_x`, `struct_y`, `a`, `b` and `alpha` by the envelope theorem
        at the plan found, once and in reverse mode; another output has no gradient.

    Complexity:
        O(n m) per iteration of Sinkhorn, and per step O(n m (n + m)) for "l2" and "kl", O(n^2 m^2)
        for "l1".

    Reference:
        T. Sejourne, F.-X. Vialard, G. Peyre, The unbalanced Gromov Wasserstein distance: conic
        formulation and relaxation, NeurIPS 2021; A. Thual et al., Aligning individual brains with
        fused unbalanced Gromov-Wasserstein, NeurIPS 2022.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> places = torch.tensor([0.0, 1.0, 3.0, 90.0], dtype=torch.float64)
        >>> graph = (places[:, None] - places).abs()
        >>> cost = torch.zeros(4, 3, dtype=torch.float64)
        >>> found = ht.ot.unbalanced_fgw(cost, graph, graph[:3, :3], alpha=1.0, reg_m=1.0)
        >>> found.plan.sum(1)[3].item() < 1e-3  # the outlier is left out
        True
    """
    terms = EdgeTerms(edge_loss(loss), pairs_code(pairs))
    weights = marginal_weights(reg_m)
    if 0 in weights or any(map(isinf, weights)):
        msg = (
            f"reg_m must be positive and finite; got {reg_m!r} (semirelaxed_fgw frees columns, fgw"
            " holds all masses)"
        )
        raise ValueError(msg)
    epsilon = check_number("epsilon", epsilon, positive=False)
    if init is None:
        raise ValueError('init must be "product" or a plan; got None')
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
        balanced=False,
    )
    x, y = problem.struct_x[..., None], problem.struct_y[..., None]
    given = problem.cost, x, y, problem.a, problem.b, problem.alpha
    if not has_values(*given):
        msg = (
            "the steps of unbalanced_fgw depend on values, which Python cannot see under torch.vmap"
            " or in a traced function; call it outside, with a batch dimension"
        )
        raise RuntimeError(msg)
    if validate:
        check_domain(x.detach(), y.detach(), problem, terms)
    found = solve(
        *given,
        problem.init,
        terms,
        Prices(*weights, epsilon),
        check_number("tol", tol, positive=False),
        check_count("max_iter", max_iter),
        backend=backend,
    )
    result = UnbalancedFGWResult(
        plan=problem.restore(found.plan),
        objective=problem.restore(found.objective),
        cost_linear=problem.restore(found.cost_linear),
        cost_quad=problem.restore(found.cost_quad),
        gap=problem.restore(found.gap),
        iterations=problem.restore(found.iterations),
        status=problem.restore(found.status),
    )
    if validate:
        warn_if_unsolved("unbalanced_fgw", result.status)
    return result
