"""Unbalanced transport with Kullback-Leibler penalties and no entropy, item by item, exactly.

This is the specification of the compiled op of the same name.
"""

from itertools import pairwise
from math import exp, log

import torch
from torch import Tensor

from hotnas_torch.ot._reference.scale import back, exponent_of
from hotnas_torch.ot._reference.transport import CONVERGED, INFEASIBLE, MAX_ITER, NONFINITE

__all__ = ["kl_transport"]

_EPSILON = torch.finfo(torch.float64).eps
_MOST_LOG = 400.0
_MOST_WEIGHT, _LEAST = 1e300, 1e-290
"""Beyond which a weight is infinite, and what takes the place of numbers that are smaller."""

Arc = tuple[int, int]
Matrix = list[list[float]]


def kl_transport(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    marginal_x: float,
    marginal_y: float,
    tol: float,
    max_iter: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Minimise <cost, T> + marginal_x KL(T 1 | a) + marginal_y KL(T' 1 | b) over T >= 0.

    T is optimal where f_i + g_j <= cost_ij, with equality where T_ij > 0, and rows send
    a_i exp(-f_i / marginal_x), columns take b_j exp(-g_j / marginal_y). Some arcs are held tight,
    of which no cycle is made. In each tree of them the duals are known but for a level, which is
    where as much is sent as is taken, and flows are sums of what nodes send. Where one is negative,
    the arcs carry what they can on the way there, and the one that runs dry leaves. An arc that
    costs less than its duals joins two trees, or closes a cycle, around which mass goes until an
    arc of it is dry. Each arc that enters lowers the objective. All of it in float64.

    Args:
        cost: Costs, shape (B, n, m), float32 or float64.
        a: Row masses, shape (B, n). Nodes of zero weight are absent.
        b: Column masses, shape (B, m).
        marginal_x: Weight of the penalty of the rows, > 0, or infinite, which holds them.
        marginal_y: Weight of that of the columns; not both are infinite.
        tol: Relative gap up to which an item has converged.
        max_iter: Most arcs that enter.

    Returns:
        `plan` (B, n, m); `objective` (B,); feasible duals `f` (B, n), `g` (B, m), 0 at absent
        nodes; `gap` (B,); `iterations` (B,) int32, how many arcs entered; `status` (B,) int32.
        Items whose masses are negative or have no positive sum are INFEASIBLE, and NaN as those are
        that are no numbers.

    Complexity:
        O(n m) per arc that enters, about n + m of them.
    """
    plan, f, g = (torch.full_like(like, torch.nan) for like in (cost, a, b))
    objective, gap = (torch.full_like(a.sum(1), torch.nan) for _ in range(2))
    iterations = torch.zeros(len(a), dtype=torch.int32, device=a.device)
    status = torch.full_like(iterations, INFEASIBLE)
    numbers = cost.detach().double().cpu(), a.detach().double().cpu(), b.detach().double().cpu()
    for item, (costs, rows, columns) in enumerate(zip(*numbers, strict=True)):
        x, y = rows > 0, columns > 0
        used = costs[x][:, y]
        finite = used.isfinite().all() and rows.sum().isfinite() and columns.sum().isfinite()
        if not finite:
            status[item] = NONFINITE
        elif bool((rows >= 0).all() and (columns >= 0).all() and x.any() and y.any()):
            found = _solve(used, rows[x], columns[y], marginal_x, marginal_y, max_iter)
            part, of_x, of_y, value, distance, size, iterations[item] = found
            rounding = 64 * torch.finfo(cost.dtype).eps
            solved = distance <= tol * value.abs() + rounding * size
            ended = CONVERGED if solved else MAX_ITER
            objective[item], gap[item] = value, distance
            if not bool(objective[item].isfinite() and gap[item].isfinite()):
                objective[item], gap[item], status[item] = torch.nan, torch.nan, NONFINITE
                continue
            status[item] = ended
            whole = torch.zeros_like(costs)
            whole[x.nonzero(), y.nonzero()[:, 0]] = part
            plan[item] = whole
            f[item] = torch.zeros_like(rows).masked_scatter(x, of_x)
            g[item] = torch.zeros_like(columns).masked_scatter(y, of_y)
    return plan, objective, f, g, gap, iterations, status


def _solve(
    cost: Tensor, a: Tensor, b: Tensor, marginal_x: float, marginal_y: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int]:
    """Return plan, duals, objective, gap, the size of its terms, and how many arcs entered."""
    largest = cost.abs().max()
    smaller = torch.tensor(min(marginal_x, marginal_y), dtype=torch.float64)
    unit = exponent_of((largest if largest > 0 else smaller)[None])
    mass_unit = exponent_of(torch.maximum(a.sum(), b.sum())[None])
    cost = back(cost[None], -unit)[0]
    a, b = (back(masses[None], -mass_unit)[0].clamp_min(_LEAST) for masses in (a, b))
    weights = back(torch.tensor([[marginal_x, marginal_y]], dtype=torch.float64), -unit)[0]
    held = torch.tensor([marginal_x, marginal_y], dtype=torch.float64) > _MOST_WEIGHT
    inverse = torch.where(held, 0.0, (1 / weights).clamp(_LEAST, 1 / _LEAST))
    x, y = inverse.tolist()
    flow, dual, arcs = _pivot(cost, a.log().tolist() + b.log().tolist(), x, y, max_iter)
    plan = torch.zeros_like(cost)
    for (i, j), moved in flow.items():
        plan[i, j - len(a)] = moved
    f, g = torch.tensor(dual, dtype=torch.float64).split([len(a), len(b)])
    g = torch.minimum(g, (cost - f[:, None]).amin(0))
    paid, size = (plan * cost).sum(), (plan * cost).abs().sum()
    proved = torch.zeros_like(paid)
    sides = (a, plan.sum(1), f, inverse[0]), (b, plan.sum(0), g, inverse[1])
    for masses, sent, duals, rate in sides:
        if rate == 0:
            proved = proved + (duals * masses).sum()
            continue
        paid = paid + (masses * _lost(sent / masses)).sum() / rate
        proved = proved - (masses * torch.expm1(-duals * rate)).sum() / rate
        # masses that could be met all are, up to a rounding per node, which the penalty squares
        size = size + (len(a) + len(b)) ** 2 * _EPSILON * masses.sum() / rate
    gap = torch.where((paid - proved).isfinite(), (paid - proved).clamp_min(0), torch.nan)
    values = (back(v[None], unit + mass_unit)[0] for v in (paid, gap, size + paid.abs()))
    duals = (back(v[None], unit)[0] for v in (f, g))
    return back(plan[None], mass_unit)[0], *duals, *values, arcs


def _lost(x: Tensor) -> Tensor:
    """Return x log x - x + 1, exact to its own size also near 1."""
    u = x - 1
    near = u * u * (1 / 2 - u * (1 / 6 - u / 12))
    return torch.where(u.abs() < 1e-4, near, torch.xlogy(x, x) - u)


def _pivot(
    cost: Tensor, log_mass: list[float], x: float, y: float, max_iter: int
) -> tuple[dict[Arc, float], list[float], int]:
    """Let arcs enter while there are some that pay; nodes are rows, then columns.

    Returns:
        What flows over the arcs of the forest, the duals of the nodes, how many arcs entered.
    """
    n, m = cost.shape
    costs: Matrix = cost.tolist()
    flow = _stars(cost)
    slack, entered = 16 * _EPSILON, None
    for arcs in range(max_iter + 1):
        dual, stalled = _settle(flow, costs, log_mass, x, y, entered)
        slack *= 2 if stalled else 1  # it pays by less than is rounding
        duals = torch.tensor(dual, dtype=torch.float64)
        reduced = cost - duals[n:] - duals[:n, None]
        place = int(reduced.argmin())
        i, j = place // m, n + place % m
        if arcs == max_iter or not float(reduced.flatten()[place]) < -slack * duals.abs().max():
            return flow, dual, arcs
        parents = dict(_walk(i, _near(flow)))
        entered = None
        if j not in parents:
            flow[i, j] = 0.0
            entered = i, j
            continue
        path = [j]
        while path[-1] != i:
            path.append(parents[path[-1]])
        around = [(min(k, l), max(k, l)) for k, l in pairwise(path)]
        dry = min(around[::2], key=flow.__getitem__)
        moved = flow[dry]
        for place, arc in enumerate(around):
            flow[arc] += moved if place % 2 else -moved
        del flow[dry]
        flow[i, j] = moved
    raise AssertionError


def _stars(cost: Tensor) -> dict[Arc, float]:
    """Arcs of each row and its cheapest column, of each column left and its cheapest row.

    Those of the latter kind take their row from a column that has others.
    """
    n = len(cost)
    column_of = dict(enumerate((n + cost.argmin(1)).tolist()))
    taken = list(column_of.values())
    flow = dict.fromkeys(column_of.items(), 0.0)
    for j, i in enumerate(cost.argmin(0).tolist(), n):
        if j in taken:
            continue
        if i in column_of and taken.count(column_of[i]) > 1:
            del flow[i, column_of[i]]
            taken.remove(column_of[i])
        column_of.pop(i, None)
        flow[i, j] = 0.0
    return flow


def _near(flow: dict[Arc, float]) -> dict[int, list[int]]:
    near: dict[int, list[int]] = {}
    for i, j in flow:
        near.setdefault(i, []).append(j)
        near.setdefault(j, []).append(i)
    return near


def _walk(root: int, near: dict[int, list[int]]) -> list[tuple[int, int]]:
    """Nodes of a tree and their parents, these first; -1 is the root's."""
    order = [(root, -1)]
    for node, parent in order:
        order += [(other, node) for other in near.get(node, ()) if other != parent]
    return order


def _settle(
    flow: dict[Arc, float],
    cost: Matrix,
    log_mass: list[float],
    x: float,
    y: float,
    entered: Arc | None,
) -> tuple[list[float], bool]:
    """Bring all trees to their levels, and `flow` to what then flows; dry arcs leave it.

    Returns:
        The duals; whether the arc that entered last did so in vain.
    """
    n = len(cost)
    dual, stalled = [0.0] * len(log_mass), False
    near, settled = _near(flow), set[int]()
    waiting = list(range(len(log_mass)))
    while waiting:
        root = waiting.pop()
        if root in settled:
            continue
        order = _walk(root, near)
        dual[root] = 0.0
        for node, parent in order[1:]:
            row, column = min(node, parent), max(node, parent) - n
            dual[node] = cost[row][column] - dual[parent]
        sent = {k: log_mass[k] - dual[k] * (x if k < n else y) for k, _ in order}
        log_x, shares = _shares({k: value for k, value in sent.items() if k < n})
        log_y, of_columns = _shares({k: value for k, value in sent.items() if k >= n})
        level = (log_x - log_y) / (x + y)
        # what no number holds can only be on the way
        moved = exp(min(log_y if y == 0 else log_x - level * x, _MOST_LOG))
        goal = {k: moved * share for k, share in (shares | of_columns).items()}
        # nodes that send next to nothing beside others take part as if they sent nothing
        noise = _EPSILON * len(order) * moved
        part, dry = 1.0, None
        for node, parent in reversed(order[1:]):
            goal[parent] -= goal[node]
            arc = min(node, parent), max(node, parent)
            if goal[node] < -noise:
                reached = flow[arc] / (flow[arc] - goal[node])
                if dry is None or reached < part:
                    part, dry = reached, arc
        for node, parent in order[1:]:
            arc = min(node, parent), max(node, parent)
            now = goal[node] if dry is None else flow[arc] + part * (goal[node] - flow[arc])
            flow[arc] = max(now, 0.0)
        if dry is None:
            for k in sent:
                dual[k] += level if k < n else -level
            settled |= sent.keys()
            continue
        stalled |= dry == entered and part == 0
        del flow[dry]
        near[dry[0]].remove(dry[1])
        near[dry[1]].remove(dry[0])
        waiting += dry
    return dual, stalled


def _shares(logarithms: dict[int, float]) -> tuple[float, dict[int, float]]:
    """Return the logarithm of a sum of exponentials, and what part of it each is."""
    top = max(logarithms.values())
    parts = {k: exp(value - top) for k, value in logarithms.items()}
    total = sum(parts.values())
    return top + log(total), {k: part / total for k, part in parts.items()}
