"""Unbalanced fused Gromov-Wasserstein."""

from math import inf, isinf
from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot._operators.edge_fgw import EdgeLoss, EdgeTerms
from hotnas_torch.ot._operators.operator import has_values
from hotnas_torch.ot._operators.total_variation_fgw import total_variation_fgw
from hotnas_torch.ot._operators.unbalanced_fgw import Prices
from hotnas_torch.ot._operators.unbalanced_fgw import unbalanced_fgw as solve
from hotnas_torch.ot.edge_fgw import check_domain, edge_loss
from hotnas_torch.ot.problem import GraphProblem, check_count, check_number, graph_problem, paid
from hotnas_torch.ot.result import UnbalancedFGWResult, warn_if_unsolved
from hotnas_torch.ot.terms import Pairs, Penalty, loss_code, pairs_code, penalty_code
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
    penalty: Penalty = "kl",
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
    terms but the linear one are of the second degree in T, or the total variation, the sum of
    abs(p - q). What has no counterpart in the other
    graph is left out, at a price that rho sets. For the total variation, it is `fgw` with a dummy
    node on either side. For the divergence, each step improves one factor of T T' with the
    other held, by `unbalanced_sinkhorn`; where epsilon is 0, exactly by `unbalanced_transport` or
    by a step with an entropy relative to the last plan, and the better of two descents counts. G is
    not convex: the result is a stationary plan that the start leads to.

    Args:
        cost: Costs between nodes, shape (*batch, n, m), float32 or float64; with "tv" at least 0,
            and +inf forbids a pair.
        struct_x: Structure of the first graph, shape (*batch, n, n) or broadcastable; need not be
            symmetric.
        struct_y: Structure of the second graph, shape (*batch, m, m) or broadcastable.
        a: Masses of the first graph, shape (*batch, n) or broadcastable, of any positive sum; None
            for uniform, sum 1. A node of zero mass is absent (padding), whatever its costs are.
        b: Masses of the second graph, shape (*batch, m) or broadcastable, of any positive sum; None
            for uniform.
        reg_m: Weights rho of the divergences, in units of the objective, of rows and columns or one
            for both, positive and finite: `semirelaxed_fgw` frees columns altogether, `fgw` holds
            all. With "tv" both are the same, as it would else pay to exceed masses.
        penalty: D, "kl" or "tv".
        epsilon: Weight of the entropy, in units of the objective; 0 for none, as with "tv".
        alpha: Weight of the quadratic term in [0, 1], a number or shape (*batch,).
        loss: L(x, y) = abs(x - y) for "l1", (x - y)^2 for "l2", x log(x / y) - x + y for "kl",
            which needs x >= 0 and y > 0, and the penalty "kl".
        pairs: "all", "directed" or "ordered"; see `hotnas_torch.ot.fgw`.
        init: Plan to start from, shape (*batch, n, m) or broadcastable, of any positive mass, with
            "tv" within `a` and `b`; "product" for a b', with "tv" over the larger sum of the two.
        tol: Gap to stop at, relative to the objective; rounding is allowed for.
        max_iter: Most steps of a descent, or transport problems with "tv".
        backend: Of the transport problems; the rest is torch code on any device.
        validate: Whether to check values and to warn of items that were not solved.

    Returns:
        Plan, objective, two of its parts and gap with the leading dimensions of the input.

    Raises:
        TypeError: Something is no tensor or number, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or have no positive sum, a
            number is NaN or infinite, structures are outside the domain of the loss, or an option
            is out of range.
        RuntimeError: Python cannot look at the values, as under `torch.vmap` or `torch.compile`;
            not with "tv".

    Differentiability:
        `objective` in `cost`, `struct_x`, `struct_y`, `a`, `b` and `alpha` by the envelope theorem
        at the plan found, once, and in reverse mode unless with "tv"; another output has no
        gradient. A gap of g leaves errors of the order of its square root, so that gradients may
        want a smaller `tol` than values. With "tv" it has a kink where all mass of a side is moved:
        the gradient in masses is one of the slopes there.

    Complexity:
        Per step one unbalanced transport problem and O(n m (n + m)) for "l2" and "kl", O(n^2 m^2)
        for "l1". A few dozen steps without entropy; with it more, the less there is.

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
    penalty_code(penalty)  # refuses others
    by_variation = penalty == "tv"
    weights = marginal_weights(reg_m)
    if 0 in weights or any(map(isinf, weights)):
        msg = (
            f"reg_m must be positive and finite; got {reg_m!r} (semirelaxed_fgw frees columns, fgw"
            " holds all masses)"
        )
        raise ValueError(msg)
    epsilon = check_number("epsilon", epsilon, positive=False)
    tol, max_iter = check_number("tol", tol, positive=False), check_count("max_iter", max_iter)
    if by_variation:
        _check_variation(weights, epsilon, loss)
    if init is None:
        raise ValueError('init must be "product" or a plan; got None')
    # Its product is made below, within the masses and without forbidden pairs.
    of_masses = by_variation and isinstance(init, str) and init == "product"
    problem = graph_problem(
        cost,
        struct_x,
        struct_y,
        a,
        b,
        alpha,
        None if of_masses else init,
        validate=validate,
        forbidding=by_variation,
        balanced=False,
    )
    if by_variation:
        if validate and has_values(problem.init, problem.cost):
            _check_not_negative(problem)
            if not of_masses:
                _check_within(problem)
        start = _product(problem) if of_masses else problem.init
        exact = _by_variation(problem, start, terms, weights[0], tol, max_iter, backend)
        if validate and has_values(exact.status):
            warn_if_unsolved("unbalanced_fgw", exact.status)
        return exact
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
        tol,
        max_iter,
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


# --- total variation ------------------------------------------------------------------------------


def _product(problem: GraphProblem) -> Tensor:
    """Return a b', as much of it as there is of both, without forbidden pairs."""
    a, b = problem.a.detach(), problem.b.detach()
    share = a[:, :, None] * b[:, None, :] / torch.maximum(a.sum(1), b.sum(1))[:, None, None]
    return torch.where(problem.cost.detach() == inf, 0, share)


def _by_variation(
    problem: GraphProblem,
    start: Tensor,
    terms: EdgeTerms,
    price: float,
    tol: float,
    max_iter: int,
    backend: ops.Backend,
) -> UnbalancedFGWResult:
    plan, objective, gap, iterations, status = total_variation_fgw(
        problem.cost,
        problem.struct_x,
        problem.struct_y,
        problem.a,
        problem.b,
        problem.alpha,
        start,
        price,
        loss_code(terms.loss),
        terms.pairs,
        tol,
        max_iter,
        backend=backend,
    )
    with torch.no_grad():
        linear = (1 - problem.alpha) * paid(problem.cost, plan)
        missed = problem.a.sum(1) + problem.b.sum(1) - 2 * plan.sum((1, 2))
        quadratic = (objective - linear - price * missed).clamp_min(0)
    return UnbalancedFGWResult(
        plan=problem.restore(plan),
        objective=problem.restore(objective),
        cost_linear=problem.restore(linear),
        cost_quad=problem.restore(quadratic),
        gap=problem.restore(gap),
        iterations=problem.restore(iterations),
        status=problem.restore(status),
    )


def _check_variation(weights: tuple[float, float], epsilon: float, loss: str) -> None:
    if weights[0] != weights[1]:
        msg = (
            f'reg_m must be one number with penalty="tv"; got {weights!r} (with two it can pay to'
            ' exceed masses; use penalty="kl")'
        )
        raise ValueError(msg)
    if epsilon:
        raise ValueError(f'epsilon must be 0 with penalty="tv"; got {epsilon:g} (use penalty="kl")')
    if loss == "kl":
        raise ValueError('loss must be "l1" or "l2" with penalty="tv"; got \'kl\'')


def _check_not_negative(problem: GraphProblem) -> None:
    present = (problem.a > 0)[:, :, None] & (problem.b > 0)[:, None, :]
    wrong = present & (problem.cost.detach() < 0)
    if wrong.any():
        item, *place = wrong.nonzero()[0].tolist()
        found = float(problem.cost[item, place[0], place[1]])
        msg = (
            f'cost must be at least 0 with penalty="tv"; item {item} has {found:g} at'
            f" {tuple(place)} (add a constant: below 0 it can pay to exceed masses)"
        )
        raise ValueError(msg)


def _check_within(problem: GraphProblem) -> None:
    plan, a, b = problem.init, problem.a.detach(), problem.b.detach()
    over = torch.maximum((plan.sum(2) - a).amax(1), (plan.sum(1) - b).amax(1))
    wrong = over > torch.finfo(plan.dtype).eps ** 0.5 * torch.maximum(a.sum(1), b.sum(1))
    if wrong.any():
        item = int(wrong.nonzero()[0])
        msg = (
            'init must have masses of at most a and b with penalty="tv"; those of item'
            f' {item} exceed them by {float(over[item]):.3g} (use init="product")'
        )
        raise ValueError(msg)
