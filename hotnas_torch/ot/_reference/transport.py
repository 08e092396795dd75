"""Exact optimal transport of a batch of small problems, by shortest augmenting paths.

This is the specification of the compiled op of the same name. Every item of the batch has its own
masses, its own sequence of paths and its own result; what stands beside it in the batch changes
nothing.
"""

import torch
from torch import Tensor

from hotnas_torch.ot._reference.scale import back, exponent_of, largest_of
from hotnas_torch.ot._reference.shortest_paths import shortest_paths

__all__ = [
    "CONVERGED",
    "INFEASIBLE",
    "MAX_ITER",
    "NONFINITE",
    "extend_duals",
    "feasibility",
    "split_costs",
    "transport",
]

# Status codes of every solver of the library.
CONVERGED = 0
MAX_ITER = 1
NONFINITE = 2
INFEASIBLE = 3


def transport(
    cost: Tensor, a: Tensor, b: Tensor, dummies: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""Minimise :math:`\langle C, T \rangle` over the couplings T of `a` and `b`.

    Successive shortest paths on the residual graph (Dijkstra on reduced costs): the first row that
    still has supply sends mass along the cheapest path to a column that still has demand, until no
    supply is left. Support edges are explored before other edges of equal length, which keeps the
    support a forest: the plan is a vertex of the transport polytope with at most n + m - 1
    non-zeros, also when costs tie. Every item is solved in units of its own (`scale`), so scaling
    costs or masses by a power of two scales the results and changes nothing else.

    Args:
        cost: Costs, shape (B, n, m), float32 or float64; +infinity forbids a pair. Entries at
            zero-weight nodes are never used for the plan.
        a: Row masses, shape (B, n), non-negative. Zero weight removes the row.
        b: Column masses, shape (B, m), with the same sum as `a`.
        dummies: 1: the last node of each side takes at no cost what a partial coupling leaves. This
            tells the compiled op where to begin, and changes no result.

    Returns:
        `plan` (B, n, m); `objective` (B,); duals `f` (B, n) and `g` (B, m) with f_i + g_j
        <= C_ij, equality on the support and <f, a> = <g, b> (a zero-weight row gets the largest
        dual that the positive columns allow, which makes it the one-sided derivative of the
        objective in that weight, a zero-weight column then what all rows allow; costs of these
        nodes that are no numbers are passed over, 0 where there is no other); `iterations` (B,)
        int32, the number of augmenting paths (of the compiled op, paths or pivots of the network
        simplex, which ends at the same optimum); `status` (B,) int32. Items of status NONFINITE or
        INFEASIBLE (the masses do not fit, or what is forbidden leaves no coupling) are NaN
        throughout.

    Complexity:
        O(n + m) per settled node, O(n m) per path, n to about n + m paths; O(n m) memory per item.
        The host waits for the device once in a few nodes.

    Reference:
        R. Jonker, A. Volgenant, A shortest augmenting path algorithm for dense and sparse linear
        assignment problems, Computing 38, 1987; R. Ahuja, T. Magnanti, J. Orlin, Network Flows,
        1993, section 9.7.
    """
    del dummies
    n, m = cost.shape[1:]
    rows, columns = a > 0, b > 0
    active = rows[:, :, None] & columns[:, None, :]
    used_cost, forbidden = split_costs(cost, active)
    status = feasibility(a, b, used_cost)
    cut_off = (status == CONVERGED) & _without_arcs(forbidden, rows, columns)
    status = torch.where(cut_off, INFEASIBLE, status).to(torch.int32)
    solvable = (status == CONVERGED)[:, None]

    of_cost, of_mass = exponent_of(largest_of(used_cost)), exponent_of(a.sum(1))
    used_cost = back(used_cost, -of_cost)
    arcs = used_cost.masked_fill(forbidden | ~active, torch.inf)
    supply = back(torch.where(rows & solvable, a, 0), -of_mass)
    demand = back(torch.where(columns & solvable, b, 0), -of_mass)
    # What the columns cannot take, and what is left over by rounding.
    epsilon = torch.finfo(cost.dtype).eps
    excess = (supply.sum(1) - demand.sum(1)).clamp_min(0) + (n + m) * epsilon * supply.sum(1)

    plan, f, g, iterations, left = shortest_paths(arcs, supply, demand)
    f, g = f * solvable, g * solvable
    masses = (supply.sum(1) + demand.sum(1)).clamp_min(torch.finfo(cost.dtype).tiny)
    shift = (((g * demand).sum(1) - (f * supply).sum(1)) / masses)[:, None]
    f, g = f + shift, g - shift
    status = torch.where(solvable[:, 0] & ~(left <= excess), INFEASIBLE, status)

    objective = back(back((plan * used_cost).sum((1, 2)), of_cost), of_mass)
    f, g = extend_duals(cost, rows, columns, back(f, of_cost), back(g, of_cost))
    failed = status != CONVERGED
    beyond = ~(f.isfinite().all(1) & g.isfinite().all(1))  # what the dtype holds
    status = torch.where(beyond & ~failed, NONFINITE, status).to(torch.int32)
    return (
        _nan_where(failed, back(plan, of_mass)),
        _nan_where(failed, objective),
        _nan_where(failed, f),
        _nan_where(failed, g),
        iterations,
        status,
    )


def feasibility(a: Tensor, b: Tensor, *values: Tensor) -> Tensor:
    """Return per item NONFINITE, INFEASIBLE (negative or unequal masses) or, so far, CONVERGED.

    Args:
        a: Row masses, shape (B, n).
        b: Column masses, shape (B, m).
        *values: What must be finite, each with B items.
    """
    total_a, total_b = a.sum(1), b.sum(1)
    finite = total_a.isfinite() & total_b.isfinite()
    for value in values:
        finite &= value[:, None].flatten(1).isfinite().all(1)
    # Loose enough for masses that were rounded when they were normalised.
    slack = torch.finfo(a.dtype).eps ** 0.5 * torch.maximum(total_a, total_b)
    balanced = (a >= 0).all(1) & (b >= 0).all(1) & ((total_a - total_b).abs() <= slack)
    status = torch.full((len(a),), CONVERGED, dtype=torch.int32, device=a.device)
    status = torch.where(balanced, status, torch.full_like(status, INFEASIBLE))
    return torch.where(finite, status, torch.full_like(status, NONFINITE))


def split_costs(cost: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """Return the costs with 0 at pairs that are not there or forbidden, and what is forbidden."""
    forbidden = active & (cost == torch.inf)
    return torch.where(active & ~forbidden, cost, 0), forbidden


def _without_arcs(forbidden: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Whether all pairs of some node that has mass are forbidden, (B,)."""
    of_rows = (forbidden | ~columns[:, None, :]).all(2) & rows
    of_columns = (forbidden | ~rows[:, :, None]).all(1) & columns
    return of_rows.any(1) | of_columns.any(1)


def extend_duals(
    cost: Tensor, rows: Tensor, columns: Tensor, f: Tensor, g: Tensor
) -> tuple[Tensor, Tensor]:
    """Give zero-weight rows the largest dual that the positive columns allow; columns likewise.

    The columns by all rows: f_i + g_j <= cost_ij also where both have zero weight. Costs there that
    are no numbers are passed over.
    """
    if cost.numel() == 0:
        return f, g
    infinity = torch.full_like(cost, torch.inf)
    allowed = cost - g[:, None, :]
    allowed = torch.where(columns[:, None, :] & allowed.isfinite(), allowed, infinity)
    f = torch.where(rows, f, _finite_or_zero(allowed.amin(2)))
    present = columns.any(1)[:, None]
    allowed = cost - f[:, :, None]
    allowed = torch.where(allowed.isfinite(), allowed, infinity).amin(1)
    return f, torch.where(columns | ~present, g, _finite_or_zero(allowed))


def _finite_or_zero(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values, torch.zeros_like(values))


def _nan_where(failed: Tensor, values: Tensor) -> Tensor:
    mask = failed.reshape(-1, *[1] * (values.dim() - 1))
    return torch.where(mask, torch.full_like(values, torch.nan), values)
