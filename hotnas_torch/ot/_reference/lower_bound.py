"""Gilmore-Lawler lower bound of fused Gromov-Wasserstein: small transports inside one transport."""

import torch
from torch import Tensor

from hotnas_torch.ot._reference.fgw import Units, without_absent_nodes
from hotnas_torch.ot._reference.pair_cost import pair_cost_kernel
from hotnas_torch.ot._reference.scale import back
from hotnas_torch.ot._reference.transport import split_costs, transport

__all__ = ["fgw_lower_bound"]


def fgw_lower_bound(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    loss: int,
    pairs: int,
) -> Tensor:
    r"""Bound the minimum of the fused Gromov-Wasserstein objective from below.

    The pair cost of a coupling at (i, j) is <K^ij, T> with
    K^ij_kl = L(C^x_ik - C^y_jl) + L(C^x_ki - C^y_lj) over the pair set, hence at least
    ell_ij = min over couplings V of <K^ij, V>. The objective is therefore at least the transport
    cost of (1 - alpha) C + alpha/2 ell.

    Args:
        cost: Costs between nodes, shape (B, n, m), float32 or float64; +infinity forbids a pair.
        struct_x: Structure of the first graph, shape (B, n, n).
        struct_y: Structure of the second graph, shape (B, m, m).
        a: Masses of the first graph, shape (B, n). Nodes of zero weight are absent.
        b: Masses of the second graph, shape (B, m), with the same sum.
        alpha: Weight of the quadratic term per item, shape (B,).
        loss: 0 for l1, 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.

    Returns:
        The bound, shape (B,), at most the objective of every coupling (up to rounding). NaN where
        the input is not finite, the masses are infeasible or the bound is beyond the dtype.

    Complexity:
        n m exact transport problems of size n x m per item; O(n m^2) memory per item.

    Reference:
        P. C. Gilmore, Optimal and suboptimal algorithms for the quadratic assignment problem, 1962;
        F. Memoli, Gromov-Wasserstein distances and the metric approach to object matching, 2011,
        section 6 (third lower bound).
    """
    batch, n, m = cost.shape
    present, struct_x, struct_y = without_absent_nodes(cost, struct_x, struct_y, a, b, pairs)
    numbers, forbidden = split_costs(present, (a != 0)[:, :, None] & (b != 0)[:, None, :])
    units = Units.of(numbers, struct_x, struct_y, a, alpha, loss)
    problem = units.scale(numbers, struct_x, struct_y, a, b, forbidden)
    cost, struct_x, struct_y = problem.cost, problem.struct_x, problem.struct_y
    a, b = problem.a, problem.b
    inner = torch.zeros_like(cost)
    for i in range(n):
        kernel = pair_cost_kernel(struct_x, struct_y, i, loss, pairs)  # (B, m, n, m)
        masses_a = a[:, None, :].expand(batch, m, n).reshape(batch * m, n)
        masses_b = b[:, None, :].expand(batch, m, m).reshape(batch * m, m)
        cheapest = transport(kernel.reshape(batch * m, n, m), masses_a, masses_b)[1]
        inner[:, i, :] = cheapest.reshape(batch, m)
    linear, pair = problem.linear[:, None, None], problem.pair[:, None, None]
    bound = problem.vertex(linear * cost + 0.5 * pair * inner)[1]
    # A raised term is a bound where the larger is 0, and too much elsewhere.
    decided = (units.hidden > 0) & (bound <= units.hidden) & units.never_negative(problem.cost)
    bound = torch.where(decided, bound, bound - units.hidden)
    bound = back(bound, torch.where(decided, units.smaller, units.result))
    return torch.where(alpha.isfinite() & bound.isfinite(), bound, torch.nan)
