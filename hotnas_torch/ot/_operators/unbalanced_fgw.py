# Over 400 lines: one solver: the objective of two plans, the steps between them, its gradient.
"""Unbalanced fused Gromov-Wasserstein: one side of the product of a coupling with itself at a time.

With F(P, T) the objective of a product of couplings, linear in the pair costs and convex in each of
the two, a step solves the unbalanced transport problem min_P F(P, T), whose value bounds from below
what any coupling can bring.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import frexp, inf, log
from typing import NamedTuple

import torch
from torch import Tensor

from hotnas_torch.ot._operators.edge_fgw import (
    EdgeProblem,
    EdgeTerms,
    at_coupling,
    batches,
    edge_problem,
    pair_bend,
    read_edges,
    within,
)
from hotnas_torch.ot._operators.operator import Backend, full_precision, is_tracked
from hotnas_torch.ot._operators.unbalanced_sinkhorn import (
    mass_shares,
    paid_for,
    unbalanced_objective,
    unbalanced_plan,
    unbalanced_sinkhorn,
)
from hotnas_torch.ot._operators.unbalanced_transport import unbalanced_transport
from hotnas_torch.ot._reference.scale import exponent_of, largest_of
from hotnas_torch.ot._reference.transport import CONVERGED, MAX_ITER, NONFINITE
from hotnas_torch.ot._reference.unbalanced_sinkhorn import PENALTY_KL, Penalty

__all__ = ["Prices", "Relaxed", "unbalanced_fgw"]

_STEP = 0.05
"""Entropy of a step where the problem has none, in units of what pairs cost."""
_SMALL_STEPS, _EXACT_STEPS = 10, 10
"""Where the problem has no entropy: steps with one that the first of two descents begins with, and
exact ones of both, after which the better one goes on."""
_EXACT_TOL, _MOST_ARCS = 1e-9, 10_000
"""Of the transport problem of an exact step, which ends at rounding after about n + m arcs."""
_INNER_FIRST, _INNER_SHARE = 1e-4, 0.01
"""Error of masses that the transport problem of the first step may leave, a tenth of it with each
step, down to a share of the gap wanted: of the step alone, as no neighbour is to change an item."""
_INNER_MAX_ITER = 10_000
_INNER_TOL = {torch.float32: 1e-6, torch.float64: 1e-11}
_HALVINGS = 30
_PATIENCE = 50
"""Steps that lower nothing by more than its rounding, after which an item stops."""


class Prices(NamedTuple):
    """Weights of the divergences of rows and columns, and of the entropy."""

    rows: float
    columns: float
    epsilon: float


@dataclass(frozen=True, slots=True)
class Relaxed:
    """What was found of each item."""

    plan: Tensor  # (B, n, m)
    objective: Tensor  # (B,)
    cost_linear: Tensor  # (B,)
    cost_quad: Tensor  # (B,)
    gap: Tensor  # (B,)
    iterations: Tensor  # (B,)
    status: Tensor  # (B,)


@full_precision
def unbalanced_fgw(
    cost: Tensor,
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    start: Tensor,
    terms: EdgeTerms,
    prices: Prices,
    tol: float,
    max_iter: int,
    *,
    backend: Backend = "auto",
) -> Relaxed:
    """Find a stationary coupling.

    Args:
        cost: Costs between nodes, shape (B, n, m), finite.
        x: Features of the edges of the first graph, shape (B, n, n, d).
        y: Those of the second graph, shape (B, m, m, d).
        a: Masses of the first graph, shape (B, n), of any sum. Nodes of zero mass are absent.
        b: Masses of the second graph, shape (B, m).
        alpha: Weight of the quadratic term, shape (B,).
        start: Coupling to start from, shape (B, n, m).
        terms: The quadratic term.
        prices: Weights of divergences and entropy.
        tol: Relative gap to stop at.
        max_iter: Most steps of a descent.
        backend: Of the transport problems.

    Returns:
        Coupling, objective with its derivatives, gap, steps and status of each item.
    """
    with torch.no_grad():
        read_x, read_y = read_edges(x, a, terms.pairs), read_edges(y, b, terms.pairs)
        there = (a > 0)[:, :, None] & (b > 0)[:, None, :]
        used = torch.where(there, cost, 0)
        parts = []
        for items in batches(torch.arange(len(cost), device=cost.device), cost, terms):
            given = [value[items] for value in (used, read_x, read_y, a, b, alpha)]
            bend = edge_problem(*given, terms=terms, backend=backend)
            known = _Known(bend.cost, bend.a, bend.b, alpha[items], prices, backend)
            plan = torch.where(there[items], start[items], 0)
            parts.append(_solve(known, bend, plan, tol, max_iter))
        found = _joined(parts)
    if not is_tracked(cost, x, y, a, b, alpha):
        return found
    slopes = partial(_slopes, terms=terms, prices=prices, backend=backend)
    tensors = cost, x, y, a, b, alpha, found.plan
    return replace(found, objective=at_coupling(found.objective, tensors, slopes, _ONCE))


# --- the objective --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Known:
    """What the steps of some items share."""

    cost: Tensor
    a: Tensor
    b: Tensor
    alpha: Tensor
    prices: Prices
    backend: Backend

    def of(self, items: Tensor) -> "_Known":
        """Return some of the items."""
        cost, a, b, alpha = (value[items] for value in (self.cost, self.a, self.b, self.alpha))
        return _Known(cost, a, b, alpha, self.prices, self.backend)


def _relative(plan: Tensor, a: Tensor, b: Tensor, prices: Prices) -> tuple[Tensor, Tensor, Tensor]:
    """Sum p log(p / q), (B,): of row masses, of column masses, of the plan to the product.

    What costs nothing is left at 0.
    """
    log_a, log_b = (torch.where(mass > 0, mass, 1).log() for mass in (a, b))
    rows, columns = plan.sum(2), plan.sum(1)
    towards = (rows * log_a).sum(1), (columns * log_b).sum(1)
    of_rows = torch.xlogy(rows, rows).sum(1) - towards[0]
    of_columns = torch.xlogy(columns, columns).sum(1) - towards[1]
    if not prices.epsilon:
        return of_rows, of_columns, torch.zeros_like(of_rows)
    joint = torch.xlogy(plan, plan).sum((1, 2)) - towards[0] - towards[1]
    return of_rows, of_columns, joint


def _value(
    plan: Tensor, bend: Tensor, cost: Tensor, a: Tensor, b: Tensor, alpha: Tensor, prices: Prices
) -> tuple[Tensor, Tensor]:
    """Return the objective of plans (B, n, m) with B(plan), and how large its terms are, (B,)."""
    linear = (1 - alpha) * (cost * plan).sum((1, 2))
    quadratic = 0.5 * alpha * (bend * plan).sum((1, 2))
    value, size = linear + quadratic, linear.abs() + quadratic.abs()
    mass = plan.sum((1, 2))
    totals = a.sum(1), b.sum(1), a.sum(1) * b.sum(1)
    weights = prices.rows, prices.columns, prices.epsilon
    for weight, total, off in zip(weights, totals, _relative(plan, a, b, prices), strict=True):
        if weight:
            # KL of two products: 2 |p| sum p log(p / q) - |p|^2 + |q|^2.
            value = value + weight * (2 * mass * off - mass.square() + total.square())
            size = size + weight * (2 * mass * off.abs() + mass.square() + total.square())
    return value, size


# --- steps ----------------------------------------------------------------------------------------


def _solve(
    known: _Known, problem: EdgeProblem, start: Tensor, tol: float, max_iter: int
) -> Relaxed:
    """Descend from a start; without entropy also without small steps, which leads elsewhere."""
    prices = known.prices
    if prices.epsilon:
        return _descend(known, problem, start, prices.epsilon, max_iter, 0, tol, max_iter)
    steps = _step_sizes(known, start, problem.pair_cost(start))
    parts, places = [], []
    for step in steps.unique().tolist() or [0]:
        items = (steps == step).nonzero().squeeze(1)
        given = known.of(items), problem.select(items), start[items], _STEP * 2.0**step
        parts.append(_by_both(*given, tol, max_iter))
        places.append(items)
    order = torch.cat(places).argsort()
    return Relaxed(*(getattr(_joined(parts), name)[order] for name in Relaxed.__slots__))


def _by_both(
    known: _Known, problem: EdgeProblem, start: Tensor, epsilon: float, tol: float, max_iter: int
) -> Relaxed:
    """Descend with small steps first and without, and go on where the lower one is not done."""
    few = min(max_iter, _SMALL_STEPS + _EXACT_STEPS)
    ends = (
        _descend(known, problem, start, epsilon, small, _EXACT_STEPS, tol, few)
        for small in (_SMALL_STEPS, 0)
    )
    best = _better(*ends)
    left = (best.status == MAX_ITER).nonzero().squeeze(1)
    if len(left) and max_iter > few:
        given = known.of(left), problem.select(left), best.plan[left], epsilon
        rest = _descend(*given, 0, 0, tol, max_iter - few)
        rest = replace(rest, iterations=rest.iterations + best.iterations[left])
        for name in Relaxed.__slots__:
            getattr(best, name)[left] = getattr(rest, name)
    return best


def _joined(parts: Sequence[Relaxed]) -> Relaxed:
    """Return the items of all."""
    columns = ([getattr(part, name) for part in parts] for name in Relaxed.__slots__)
    return Relaxed(*(torch.cat(column) for column in columns))


def _better(one: Relaxed, other: Relaxed) -> Relaxed:
    """Return what is lower of each item, with the steps of both."""
    chosen = (other.objective < one.objective) | one.objective.isnan()
    columns = {
        name: torch.where(chosen.reshape(-1, *[1] * (value.dim() - 1)), getattr(other, name), value)
        for name in Relaxed.__slots__
        if isinstance(value := getattr(one, name), Tensor)
    }
    return Relaxed(**columns | {"iterations": one.iterations + other.iterations})


def _side(known: _Known, plan: Tensor, bend: Tensor) -> tuple[Tensor, Tensor]:
    """Return the transport problem of one side: costs (B, n, m) and a constant (B,).

    With the other side held, F(P, plan) = |plan| (<costs, P> + divergences and entropy of P +
    constant).
    """
    mass = plan.sum((1, 2))
    alpha = known.alpha[:, None, None]
    costs = 0.5 * ((1 - alpha) * known.cost + alpha * bend)
    fixed = 0.5 * (1 - known.alpha) * (known.cost * plan).sum((1, 2))
    totals = known.a.sum(1), known.b.sum(1), known.a.sum(1) * known.b.sum(1)
    prices = known.prices
    shift = torch.zeros_like(mass)
    for weight, total, off in zip(
        (prices.rows, prices.columns, prices.epsilon),
        totals,
        _relative(plan, known.a, known.b, prices),
        strict=True,
    ):
        if weight:
            shift = shift + weight * off
            fixed = fixed + weight * total * (total - mass)
    return (costs + shift[:, None, None]) / mass[:, None, None], fixed / mass


def _solve_side(
    known: _Known, costs: Tensor, last: Tensor, epsilon: float, tol: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Solve the transport problem of one side, or step towards its solution.

    Args:
        known: The items.
        costs: Costs of the side, (B, n, m).
        last: Coupling of the other side, (B, n, m), which an entropy that is not part of the
            problem is relative to.
        epsilon: Weight of the entropy.
        tol: Relative error of masses to stop at.

    Returns:
        Plan, lower bound of the problem, duals and status.
    """
    prices, a, b = known.prices, known.a, known.b
    weights = prices.rows, prices.columns, PENALTY_KL
    relative = costs
    if not prices.epsilon:
        tiny = torch.finfo(last.dtype).tiny
        nothing = a[:, :, None] * b[:, None, :] == 0
        share = torch.where(nothing, 1, last.clamp_min(tiny) / (a[:, :, None] * b[:, None, :]))
        relative = costs - epsilon * share.log()
    f, g, _, _, status = unbalanced_sinkhorn(
        relative, a, b, epsilon, *weights, tol, _INNER_MAX_ITER, backend=known.backend
    )
    plan = unbalanced_plan(relative, a, b, f, g, epsilon)
    if prices.epsilon:
        return plan, unbalanced_objective(costs, a, b, f, g, epsilon, *weights), f, g, status
    # Without entropy the duals must not ask more than a pair costs.
    here, there = a > 0, b > 0
    f, g = torch.where(here, f, 0), torch.where(there, g, 0)
    slack = torch.where(here[:, :, None], costs - f[:, :, None], inf).amin(1)
    g = torch.where(there, torch.minimum(g, slack), 0)
    sides = Penalty(prices.rows, PENALTY_KL), Penalty(prices.columns, PENALTY_KL)
    lower = (paid_for(sides[0], f) * a).sum(1) + (paid_for(sides[1], g) * b).sum(1)
    return plan, lower, f, g, status


def _solve_exactly(known: _Known, costs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Solve the transport problem of one side without entropy; see `_solve_side`."""
    prices = known.prices
    weights = prices.rows, prices.columns, PENALTY_KL
    plan, value, f, g, gap, _, status = unbalanced_transport(
        costs, known.a, known.b, *weights, _EXACT_TOL, _MOST_ARCS, backend=known.backend
    )
    return plan, value - gap, f, g, status


def _terms(known: _Known) -> tuple[Tensor, Tensor, Tensor, Tensor, Prices]:
    return known.cost, known.a, known.b, known.alpha, known.prices


def _vanishing(known: _Known, costs: Tensor) -> Tensor:
    """Whether a pair costs so much that its mass, exp(-costs / weights), is nothing to the dtype.

    No plan is then the best one, as no cost is negative.
    """
    present = (known.a > 0)[:, :, None] & (known.b > 0)[:, None, :]
    least = torch.where(present, costs, inf).amin((1, 2)) / sum(known.prices)
    dear = torch.where(present, known.cost, 0).amin((1, 2)) >= 0
    return dear & (least > -0.9 * log(torch.finfo(costs.dtype).tiny))


def _step_sizes(known: _Known, plan: Tensor, bend: Tensor) -> Tensor:
    """Exponents of the entropies of steps where the problem has none: those of what pairs cost."""
    alpha = known.alpha[:, None, None]
    pair = ((1 - alpha) * known.cost + alpha * bend) / plan.sum((1, 2))[:, None, None]
    least, largest = frexp(min(known.prices.rows, known.prices.columns))[1], largest_of(pair)
    return torch.where(largest > 0, exponent_of(largest).clamp(max=least), least)


def _descend(
    known: _Known,
    problem: EdgeProblem,
    plan: Tensor,
    epsilon: float,
    small: int,
    exact: int,
    tol: float,
    max_iter: int,
) -> Relaxed:
    """Step until the gap is small; an item that is done rests.

    Args:
        known: The items.
        problem: Their pair costs.
        plan: Couplings to start from.
        epsilon: Weight of the entropy, of the problem or of steps.
        small: How many steps have it.
        exact: How many of those that follow solve for one side exactly, before both take turns:
            exact steps find what carries no mass, the others the rest.
        tol: Relative gap to stop at.
        max_iter: Most steps.
    """
    least = max(_INNER_SHARE * tol, _INNER_TOL[plan.dtype])
    floor = 2 * torch.finfo(plan.dtype).eps
    rounding = 16 * torch.finfo(plan.dtype).eps

    def valued(part: _Known, pairs: EdgeProblem, plan: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bend = pairs.pair_cost(plan)
        return bend, *_value(plan, bend, *_terms(part))

    plan = plan.clone()
    bend, objective, size = valued(known, problem, plan)
    gap = torch.full_like(objective, inf)
    iterations = torch.zeros_like(objective, dtype=torch.int32)
    status = torch.where(objective.isfinite(), MAX_ITER, NONFINITE).to(torch.int32)
    items = (status == MAX_ITER).nonzero().squeeze(1)
    still = torch.zeros_like(items)
    for step in range(1, max_iter + 1):
        if not len(items):
            break
        part, pairs = known.of(items), problem.select(items)
        last, value = plan[items], objective[items]
        costs, fixed = _side(part, last, bend[items])
        mass = last.sum((1, 2))
        inner = max(least, _INNER_FIRST * 0.1 ** (step - 1))
        if step <= small or (step > small + exact and (step - small) % 2):
            target, lower, _, _, ended = _solve_side(part, costs, last, epsilon, inner)
        else:
            target, lower, _, _, ended = _solve_exactly(part, costs)
        # A minimum over one side; the other has the same to win.
        apart = 2 * (value - mass * (lower + fixed)).clamp_min(0)
        gap[items], iterations[items] = apart, step
        broken = (ended > MAX_ITER) | ~apart.isfinite()
        solved = apart <= tol * value.abs() + rounding * size[items]
        status[items] = torch.where(broken, NONFINITE, torch.where(solved, CONVERGED, MAX_ITER)).to(
            torch.int32
        )
        gone = items[_vanishing(part, costs)]
        plan[gone], bend[gone], gap[gone], status[gone] = 0.0, 0.0, 0.0, CONVERGED
        objective[gone] = _value(plan[gone], bend[gone], *_terms(known.of(gone)))[0]
        going = ~solved & ~broken & (status[items] != CONVERGED)
        moved = torch.zeros_like(going)
        # As much mass on both sides; else part of the way, which lowers convex functions.
        share = (mass / target.sum((1, 2))).sqrt()[:, None, None]
        offer, way = share * target, 1.0
        for _ in range(_HALVINGS):
            trial = (going & ~moved).nonzero().squeeze(1)
            if not len(trial):
                break
            found = valued(part.of(trial), pairs.select(trial), offer[trial])
            # Mass that has almost gone comes back in steps that rounding hides.
            fallen = value[trial] - found[1]
            down = fallen >= -floor * size[items[trial]]
            accepted, chosen = trial[down], items[trial[down]]
            moved[accepted] = True
            still[accepted] = torch.where(
                fallen[down] > floor * size[chosen], 0, still[accepted] + 1
            )
            plan[chosen] = offer[accepted]
            bend[chosen], objective[chosen], size[chosen] = (v[down] for v in found)
            offer = last + way * (target - last)
            way *= 0.5
        rest = moved & (still < _PATIENCE)
        items, still = items[rest], still[rest]
    failed = status > MAX_ITER
    plan = torch.where(failed[:, None, None], torch.nan, plan)
    linear = (1 - known.alpha) * (known.cost * plan).sum((1, 2))
    quadratic = 0.5 * known.alpha * (bend * plan).sum((1, 2))
    objective, gap = (torch.where(failed, torch.nan, value) for value in (objective, gap))
    return Relaxed(plan, objective, linear, quadratic, gap, iterations, status)


# --- the gradient ---------------------------------------------------------------------------------


_ONCE = "the objective of unbalanced_fgw is differentiable once; pass create_graph=False"


def _slopes(
    grad: Tensor,
    given: Sequence[Tensor],
    needed: Sequence[bool],
    *,
    terms: EdgeTerms,
    prices: Prices,
    backend: Backend,
) -> list[Tensor | None]:
    *inputs, plan = given
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in inputs]
        cost, x, y, a, b, alpha = leaves
        read = read_edges(x, a.detach(), terms.pairs), read_edges(y, b.detach(), terms.pairs)
        bend = pair_bend(plan, *read, terms)
        there = (a > 0)[:, :, None] & (b > 0)[:, None, :]
        used = torch.where(there, cost, 0)
        value, _ = _value(plan, bend, used, a, b, alpha, prices)
        slopes = list(torch.autograd.grad((value * grad).sum(), leaves))
    if (needed[3] or needed[4]) and not bool((inputs[3] > 0).all() and (inputs[4] > 0).all()):
        entering = _entering(inputs, plan, terms, prices, backend)
        for place, slope in zip((3, 4), entering, strict=True):
            slopes[place] = slopes[place] + grad[:, None] * slope
    return slopes  # type: ignore[return-value]


def _entering(
    given: list[Tensor], plan: Tensor, terms: EdgeTerms, prices: Prices, backend: Backend
) -> tuple[Tensor, Tensor]:
    """Return the derivatives in masses of absent nodes by what they would carry, (B, n), (B, m)."""
    cost, x, y, a, b, alpha = given
    known = _Known(cost, a, b, alpha, prices, backend)
    bend = pair_bend(plan, within(x, a), within(y, b), terms)  # also of nodes that are absent
    costs, _ = _side(known, plan, bend)
    if prices.epsilon:
        found = _solve_side(known, costs, plan, prices.epsilon, _INNER_TOL[plan.dtype])
    else:
        found = _solve_exactly(known, costs)
    _, _, f, g, _ = found
    there_x, there_y = (a > 0)[:, :, None], (b > 0)[:, None, :]
    if prices.epsilon:
        weights = prices.rows, prices.columns, PENALTY_KL
        shares = mass_shares(costs, a, b, f, g, prices.epsilon, *weights)
        rows, columns = shares[0].sum(2), shares[1].sum(1)
    else:
        least_x = torch.where(there_y, costs - g[:, None, :], inf).amin(2)
        least_y = torch.where(there_x, costs - f[:, :, None], inf).amin(1)
        rows, columns = (-least_x / prices.rows).exp(), (-least_y / prices.columns).exp()
    mass = plan.sum((1, 2))[:, None]
    slope_x = -2 * mass * (prices.rows + prices.epsilon) * rows
    slope_y = -2 * mass * (prices.columns + prices.epsilon) * columns
    nothing = mass == 0
    return torch.where((a > 0) | nothing, 0, slope_x), torch.where((b > 0) | nothing, 0, slope_y)
