"""Exact optimal transport of a batch of small problems, by shortest augmenting paths.

This is the specification of the compiled op of the same name. Every item of the batch has its own
masses, its own sequence of paths and its own result; what stands beside it in the batch changes
nothing.
"""

import torch
from torch import Tensor

from hotnas_torch.ot._reference.scale import back, exponent_of, largest_of

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
        <= C_ij and equality on the support (a zero-weight row gets the largest dual that the
        positive columns allow, which makes it the one-sided derivative of the objective in that
        weight, a zero-weight column then what all rows allow; costs of these nodes that are no
        numbers are passed over, 0 where there is no other); `iterations` (B,) int32, the number
        of augmenting paths (of the compiled op, paths or pivots of the network simplex, which
        ends at the same optimum); `status` (B,) int32. Items with status NONFINITE or
        INFEASIBLE (the masses do not fit, or what is forbidden leaves no coupling) are NaN
        throughout.

    Complexity:
        O(n m) per settled column, O(n m^2) per path, n to about n + m paths; O(n m) memory per
        item.

    Reference:
        R. Jonker, A. Volgenant, A shortest augmenting path algorithm for dense and sparse linear
        assignment problems, Computing 38, 1987; R. Ahuja, T. Magnanti, J. Orlin, Network Flows,
        1993, section 9.7.
    """
    del dummies
    batch, n, m = cost.shape
    rows, columns = a > 0, b > 0
    active = rows[:, :, None] & columns[:, None, :]
    used_cost, forbidden = split_costs(cost, active)
    status = feasibility(a, b, used_cost)
    cut_off = (status == CONVERGED) & _without_arcs(forbidden, rows, columns)
    status = torch.where(cut_off, INFEASIBLE, status).to(torch.int32)
    solvable = status == CONVERGED

    of_cost, of_mass = exponent_of(largest_of(used_cost)), exponent_of(a.sum(1))
    used_cost = back(used_cost, -of_cost)
    arcs = torch.where(forbidden, torch.inf, used_cost)
    supply = back(torch.where(rows & solvable[:, None], a, torch.zeros_like(a)), -of_mass)
    demand = back(torch.where(columns & solvable[:, None], b, torch.zeros_like(b)), -of_mass)
    # Differences of masses that are equal in exact arithmetic leave a few units in the last place:
    # these are no mass.
    epsilon = torch.finfo(cost.dtype).eps
    negligible = 2 * epsilon * torch.maximum(largest_of(supply), largest_of(demand))
    # What the columns cannot take, and what is left over by rounding.
    excess = (supply.sum(1) - demand.sum(1)).clamp_min(0) + (n + m) * epsilon * supply.sum(1)

    plan = torch.zeros_like(cost)
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    if n and m:
        blocked = torch.where(active, arcs, torch.inf)
        g = _finite_or_zero(blocked.amin(1)) * solvable[:, None]
        f, plan = _take_cheapest(blocked, g, supply, demand)
        f = f * solvable[:, None]
    iterations = torch.zeros(batch, dtype=torch.int32, device=cost.device)
    stuck = ~solvable

    for _ in range(4 * (n + m) * (n + m)):
        unfinished = (supply > negligible[:, None]).any(1) & (demand > negligible[:, None]).any(1)
        items = (unfinished & ~stuck).nonzero().squeeze(1)
        if items.numel() == 0:
            break
        plan[items], supply[items], demand[items], f[items], g[items], stuck[items] = _augment(
            arcs[items],
            columns[items],
            plan[items],
            supply[items],
            demand[items],
            f[items],
            g[items],
            negligible[items],
        )
        iterations[items] += 1
    left = torch.where(supply > negligible[:, None], supply, 0).sum(1)
    status = torch.where(solvable & ~(left <= excess), INFEASIBLE, status)

    objective = back(back((plan * used_cost).sum((1, 2)), of_cost), of_mass)
    f, g = extend_duals(cost, rows, columns, back(f, of_cost), back(g, of_cost))
    failed = status != CONVERGED
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


def _take_cheapest(
    cost: Tensor, g: Tensor, supply: Tensor, demand: Tensor
) -> tuple[Tensor, Tensor]:
    """Start: each row in turn sends what its cheapest column takes; reduces supply and demand.

    Returns feasible row duals and a plan with at most one edge per row, which is tight.
    """
    batch, n, _ = cost.shape
    item = torch.arange(batch, device=cost.device)
    plan = torch.zeros_like(cost)
    least, cheapest = (cost - g[:, None, :]).min(2)
    for i in range(n):
        column = cheapest[:, i]
        amount = torch.minimum(supply[:, i], demand[item, column])
        plan[item, i, column] = amount
        supply[:, i] -= amount
        demand[item, column] -= amount
    return _finite_or_zero(least), plan


def _augment(
    cost: Tensor,
    columns: Tensor,
    plan: Tensor,
    supply: Tensor,
    demand: Tensor,
    f: Tensor,
    g: Tensor,
    negligible: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Send mass along one shortest path from the first row with supply (every item has one).

    Where forbidden pairs cut it off from all demand, nothing changes, and the last result says so.
    """
    batch, n, m = cost.shape
    item = torch.arange(batch, device=cost.device)
    support = plan > 0
    # Support edges are tight and no edge is negative; rounding must not say otherwise.
    reduced = (cost - f[:, :, None] - g[:, None, :]).clamp_min_(0)
    reduced.masked_fill_(support, 0).masked_fill_(~columns[:, None, :], torch.inf)

    source = (supply > negligible[:, None]).int().argmax(1)
    in_tree = torch.zeros_like(f, dtype=torch.bool)
    in_tree[item, source] = True
    row_distance = torch.zeros_like(f)
    row_parent = torch.zeros_like(
        f, dtype=torch.int64
    )  # the column from which the path enters the row
    distance = reduced[item, source]
    column_parent = source[:, None].expand(batch, m).clone()
    linked = support[item, source]  # reached over a support edge
    settled = torch.zeros_like(g, dtype=torch.bool)
    sink = torch.zeros_like(source)
    searching = torch.ones_like(source, dtype=torch.bool)
    wanting = demand > negligible[:, None]

    for _ in range(m):
        open_distance = distance.masked_fill(settled, torch.inf)
        nearest = open_distance.amin(1)
        # Among the nearest, support edges first: a whole tree of the support is explored before the
        # path leaves it, so a path never closes a cycle in the support. Then the lowest index.
        among = open_distance == nearest[:, None]
        column = (among.byte() + (among & linked)).argmax(1)
        sink = torch.where(searching, column, sink)
        searching = searching & ~wanting[item, column]
        here = searching.nonzero().squeeze(1)
        if len(here) == 0:
            break
        at = column[here]
        settled[here, at] = True
        # The rows that enter are few: only they are looked at.
        entered, row = (support[here, :, at] & ~in_tree[here]).nonzero().unbind(1)
        which = here[entered]
        in_tree[which, row] = True
        row_distance[which, row] = nearest[which]
        row_parent[which, row] = column[which]

        through = reduced[which, row] + nearest[which, None]
        to = entered[:, None].expand_as(through)
        shortest = through.new_full((len(here), m), torch.inf)
        shortest.scatter_reduce_(0, to, through, "amin")
        # Of the shortest, a support edge, which no edge is shorter than, and then the lowest row.
        via = torch.where(support[which, row], row[:, None], row[:, None] + n)
        via = torch.where(through == shortest[entered], via, 2 * n)
        first = via.new_full((len(here), m), 2 * n).scatter_reduce_(0, to, via, "amin")
        link = first < n
        closer = ((shortest < distance[here]) | link) & ~settled[here]
        distance[here] = torch.where(closer, shortest, distance[here])
        column_parent[here] = torch.where(closer, first % n, column_parent[here])
        linked[here] |= link & closer

    length = distance[item, sink][:, None]
    stuck = length.isinf()
    f = f + torch.where(in_tree & ~stuck, length - row_distance, 0)
    g = g - torch.where(settled & ~stuck, length - distance, 0)
    stuck = stuck.squeeze(1)

    # The path back from the sink: +1 where it adds mass, -1 where it takes mass back.
    direction = torch.zeros_like(plan)
    column, walking = sink, torch.ones_like(searching)
    for _ in range(m):
        if not walking.any():
            break
        row = column_parent[item, column]
        direction[item, row, column] += walking.to(plan.dtype)
        walking = walking & (row != source)
        previous = row_parent[item, row]
        direction[item, row, previous] -= walking.to(plan.dtype)
        column = torch.where(walking, previous, column)

    taken = direction < 0
    amount = torch.where(taken, plan, torch.full_like(plan, torch.inf)).amin((1, 2))
    amount = torch.minimum(amount, torch.minimum(supply[item, source], demand[item, sink]))
    amount = torch.where(stuck, 0, amount)
    plan = plan + direction * amount[:, None, None]
    exhausted = taken & (plan <= negligible[:, None, None])
    plan = torch.where(exhausted, torch.zeros_like(plan), plan)
    supply, demand = supply.clone(), demand.clone()
    supply[item, source] -= amount
    demand[item, sink] -= amount
    return plan, supply, demand, f, g, stuck


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
