"""Entropic fused Gromov-Wasserstein: mirror descent and proximal point, Sinkhorn inside."""

import torch
from torch import Tensor

from hotnas_torch.ot._reference.pair_cost import LOSS_L1, kept_pairs, pair_cost
from hotnas_torch.ot._reference.sinkhorn import beyond_dtype, cost_unit, log_domain_sinkhorn
from hotnas_torch.ot._reference.transport import CONVERGED, INFEASIBLE, MAX_ITER, NONFINITE

__all__ = ["entropic_fgw"]


def entropic_fgw(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    init: Tensor,
    epsilon: float,
    loss: int,
    pairs: int,
    proximal: int,
    tol: float,
    max_iter: int,
    inner_tol: float,
    inner_max_iter: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""Find a stationary coupling of F, or of F minus epsilon times the entropy of the coupling.

    F is the objective of `fgw`. From `init` or the product coupling, each step solves an entropic
    transport problem whose cost is grad F(T) (mirror descent on the regularised problem) or
    grad F(T) - epsilon log T (proximal point: the regularisation vanishes in the limit), with
    Sinkhorn warm-started from the last duals.

    Args:
        cost: Costs between nodes, shape (B, n, m), float32 or float64; +inf forbids a pair.
        struct_x: Structure of the first graph, shape (B, n, n).
        struct_y: Structure of the second graph, shape (B, m, m).
        a: Masses of the first graph, shape (B, n). Nodes of zero weight are absent.
        b: Masses of the second graph, shape (B, m), with the same sum.
        alpha: Weight of the quadratic term per item, shape (B,).
        init: Coupling to start from, shape (B, n, m), or no elements for none; proximal steps leave
            no mass where it has none.
        epsilon: Weight of the entropy (of the proximal term), in units of the cost, > 0.
        loss: 0 for l1, 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.
        proximal: 0 for mirror descent, 1 for proximal point.
        tol: Residual to stop at.
        max_iter: Most outer steps of an item.
        inner_tol: L1 row-marginal error at which Sinkhorn stops.
        inner_max_iter: Most Sinkhorn iterations of one step.

    Returns:
        `log_plan` (B, n, m), -inf at zero weights; duals `f` (B, n), `g` (B, m) of the last
        Sinkhorn problem; `residual` (B,), the larger of the L1 change of the plan in the last
        step and the residual of its Sinkhorn problem; `iterations` (B,) int32, outer steps;
        `status` (B,) int32. Items with status NONFINITE or INFEASIBLE are NaN, such as those with a
        node all of whose pairs are forbidden; no other lack of a coupling is noticed.

    Complexity:
        O(n^2 m^2) per step for the gradient plus the Sinkhorn iterations, O(n m) memory per item.

    Reference:
        G. Peyre, M. Cuturi, J. Solomon, Gromov-Wasserstein averaging of kernel and distance
        matrices, ICML 2016, eq. 8; H. Xu, D. Luo, H. Zha, L. Carin, Gromov-Wasserstein learning for
        graph matching and node embedding, ICML 2019, algorithm 1 (proximal point).
    """
    x, y = a != 0, b != 0
    present = x[:, :, None] & y[:, None, :]
    unit = cost_unit(epsilon)
    epsilon /= unit
    structure_unit = unit if loss == LOSS_L1 else unit**0.5
    forbidden = present & (cost == torch.inf)
    lacking = (x & ~(present & ~forbidden).any(2)).any(1) | (
        y & ~(present & ~forbidden).any(1)
    ).any(1)
    lacking &= forbidden.any(2).any(1)
    cost = torch.where(present & ~forbidden, cost, 0) / unit
    struct_x, struct_y = kept_pairs(struct_x, pairs), kept_pairs(struct_y, pairs)
    struct_x = torch.where(x[:, :, None] & x[:, None, :], struct_x, 0) / structure_unit
    struct_y = torch.where(y[:, :, None] & y[:, None, :], struct_y, 0) / structure_unit

    plan = a[:, :, None] * b[:, None, :]
    # No gradient of log 0, should autograd record the steps.
    log_a, log_b = torch.where(x, a, 1).log(), torch.where(y, b, 1).log()
    log_plan = torch.where(present, log_a[:, :, None] + log_b[:, None, :], -torch.inf)
    if init.numel():
        plan = torch.where(present, init, 0)
        log_plan = plan.log()
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    residual = torch.full_like(alpha, torch.nan)
    iterations = torch.zeros(len(a), dtype=torch.int32, device=a.device)
    status = torch.where(lacking, INFEASIBLE, MAX_ITER).to(torch.int32)

    items = (status == MAX_ITER).nonzero().squeeze(1)
    for iteration in range(1, max_iter + 1):
        if len(items) == 0:
            break
        old, seen = plan[items], present[items]
        weight = alpha[items, None, None]
        bend = pair_cost(old, struct_x[items], struct_y[items], loss, pairs)
        gradient = (1 - weight) * cost[items] + weight * bend
        if proximal:
            gradient = gradient - epsilon * torch.where(seen, log_plan[items], 0)
        barred = forbidden[items]
        gradient = torch.where(barred, _beyond_any_arc(gradient, barred, epsilon), gradient)
        f[items], g[items], marginal_error, _, inner_status = log_domain_sinkhorn(
            gradient, a[items], b[items], g[items], epsilon, inner_tol, inner_max_iter
        )
        log_new = (f[items, :, None] + g[items, None, :] - gradient) / epsilon
        log_new = torch.where((seen & ~barred) | log_new.isnan(), log_new, -torch.inf)
        new = log_new.exp()
        plan[items], log_plan[items] = new, log_new
        change = (new - old).detach().abs().sum((1, 2))
        error = torch.maximum(change, marginal_error)
        residual[items] = error
        iterations[items] = iteration
        solvable = (inner_status == CONVERGED) | (inner_status == MAX_ITER)
        outcome = torch.where(error <= tol, CONVERGED, MAX_ITER).to(torch.int32)
        status[items] = torch.where(solvable, outcome, inner_status)
        items = items[status[items] == MAX_ITER]
    f, g = unit * f, unit * g
    beyond = (status <= MAX_ITER) & beyond_dtype(f, g, x, y)
    status = torch.where(beyond, NONFINITE, status)
    f, g = torch.where(beyond[:, None], torch.nan, f), torch.where(beyond[:, None], torch.nan, g)
    log_plan = torch.where(beyond[:, None, None], torch.nan, log_plan)
    residual = torch.where(beyond, torch.nan, residual)
    f, g = (torch.where(lacking[:, None], torch.nan, dual) for dual in (f, g))
    log_plan = torch.where(lacking[:, None, None], torch.nan, log_plan)
    return log_plan, f, g, residual, iterations, status


def _beyond_any_arc(gradient: Tensor, forbidden: Tensor, epsilon: float) -> Tensor:
    """Return what a forbidden pair costs so that its mass is 0, (B, 1, 1).

    Duals of a coupling without them differ along its arcs by costs and logarithms of masses.
    """
    underflow = 110 if gradient.dtype == torch.float32 else 750  # exp(-underflow) is 0
    largest = torch.where(forbidden, 0, gradient.detach()).abs().amax((1, 2), keepdim=True)
    return 2 * sum(gradient.shape[1:]) * (largest + underflow * epsilon)
