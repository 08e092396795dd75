"""Semi-relaxed fused Gromov-Wasserstein: rows keep their masses, columns take what comes.

A linear problem is the cheapest column of each row, and what a coupling is above it is its gap: a
sum of terms of which none is negative.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hotnas_torch.ot._reference.fgw import (
    Problem,
    Solution,
    Units,
    slopes_between,
    without_absent_nodes,
)
from hotnas_torch.ot._reference.pair_cost import LOSS_L1, PAIRS_ALL, pair_cost
from hotnas_torch.ot._reference.scale import back, exponent_of
from hotnas_torch.ot._reference.transport import (
    CONVERGED,
    INFEASIBLE,
    MAX_ITER,
    NONFINITE,
    feasibility,
)

__all__ = ["NUM_STARTS", "semirelaxed_fgw"]

NUM_STARTS = 2
"""Starts that need no further input: product, pointwise."""
_MOST_WHOLE = 100
"""Steps towards whole vertices before the rows go on alone."""


def semirelaxed_fgw(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    init: Tensor,
    start_costs: Tensor,
    loss: int,
    pairs: int,
    num_starts: int,
    tol: float,
    max_iter: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""Find a stationary coupling of the fused Gromov-Wasserstein objective, of row masses alone.

    .. math:: \min_T F(T) = (1 - \alpha) \langle C, T \rangle
        + \alpha \sum T_{ij} T_{kl} L(C^x_{ik} - C^y_{jl}) \quad T 1 = a, \; T \ge 0

    A few steps of conditional gradient, exact ones, choose the valley; then the rows in turn, each
    moving mass from the column that adds most to the gap to the cheapest one, end at its bottom.
    Units, absent nodes and CONVERGED are as in `fgw`; the gap here is no difference of two sums, so
    that it is exact to its own size.

    Args:
        cost: Costs between nodes, shape (B, n, m), float32 or float64.
        struct_x: Structure of the first graph, shape (B, n, n).
        struct_y: Structure of the second graph, shape (B, m, m).
        a: Masses of the first graph, shape (B, n).
        b: Masses that the start a b' gives the second graph, shape (B, m), with the same sum; a
            node of mass 0 is absent.
        alpha: Weight of the quadratic term per item, shape (B,), in [0, 1].
        init: Coupling to start from, shape (B, n, m), or no elements for none.
        start_costs: Costs whose cheapest columns are starts, shape (R, n, m), or no elements.
        loss: 0 for l1, 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.
        num_starts: How many starts to use, in the order `init`, a b', the cheapest columns of
            `cost`, then those of `start_costs`. The best objective is kept, the first of equals.
        tol: Relative gap to stop at.
        max_iter: Most iterations of one start.

    Returns:
        `plan` (B, n, m); `objective` (B,); `f` (B, n), the least entry of each row of grad F(T),
        also of absent rows; `gap` (B,), sum of T_ij (grad F(T)_ij - f_i); `iterations` (B,) int32,
        over all starts; `status` (B,) int32.

    Complexity:
        O(n^2 m) per iteration.

    Reference:
        C. Vincent-Cuaz, R. Flamary, M. Corneli, T. Vayer, N. Courty, Semi-relaxed
        Gromov-Wasserstein divergence and applications on graphs, ICLR 2022, algorithm 1; S.
        Lacoste-Julien, M. Jaggi, M. Schmidt, P. Pletscher, Block-coordinate Frank-Wolfe
        optimization for structural SVMs, ICML 2013.
    """
    given = len(start_costs) if start_costs.numel() else 0
    most = NUM_STARTS + given + (1 if init.numel() else 0)
    if not 1 <= num_starts <= most:
        msg = f"num_starts must be between 1 and {most}; got {num_starts}"
        raise ValueError(msg)
    inputs = without_absent_nodes(cost, struct_x, struct_y, a, b, pairs)
    x, y = a != 0, b != 0
    present = x[:, :, None] & y[:, None, :]
    status = _check_starts(feasibility(a, b, *inputs, alpha), a, init, start_costs, present)
    items = (status == CONVERGED).nonzero().squeeze(1)
    used_cost, used_x, used_y = (value[items] for value in inputs)
    units = Units.of(used_cost, used_x, used_y, a[items], alpha[items], loss)
    nowhere = torch.zeros_like(used_cost, dtype=torch.bool)
    problem = units.scale(used_cost, used_x, used_y, a[items], b[items], nowhere)
    best = Solution.unsolved(problem)
    everything = torch.arange(len(items), device=a.device)
    coupling = back(torch.where(present, init, 0)[items], -units.mass) if init.numel() else init
    for number in range(num_starts):
        start = _start(problem, number, coupling, start_costs, present[items])
        best.improve(everything, _descend(problem, start, loss, pairs, tol, max_iter))
    found = units.restore(best, problem, loss, pairs)
    if not bool(x.all()):
        slopes = slopes_between(
            problem, best.plan, cost[items], struct_x[items], struct_y[items], units, loss, pairs
        )
        slopes = torch.where(y[items][:, None, :] & slopes.isfinite(), slopes, torch.inf)
        entering = slopes.amin(2)
        f = torch.where(x[items], found.f, torch.where(entering.isfinite(), entering, 0))
        lost = (found.status == NONFINITE)[:, None]
        found = replace(found, f=torch.where(lost, torch.nan, f))
    result = Solution.failed(cost, a, b, status)
    result.fill(items, found)
    return (
        result.plan,
        result.objective,
        result.f,
        result.gap,
        result.iterations,
        result.status,
    )


def _check_starts(
    status: Tensor, a: Tensor, init: Tensor, start_costs: Tensor, present: Tensor
) -> Tensor:
    """Mark the items whose given starts are none: no numbers, or other masses of the rows."""
    if init.numel():
        plan = torch.where(present, init, 0)
        unit = back(torch.ones_like(a[:, :1]), exponent_of(a.sum(1)))
        slack = 2 * torch.finfo(a.dtype).eps ** 0.5 * unit
        fits = ((plan.sum(2) - a).abs() <= slack).all(1) & (plan >= 0).all(2).all(1)
        wrong = torch.where(plan.isfinite().all(2).all(1), INFEASIBLE, NONFINITE)
        status = torch.where((status == CONVERGED) & ~fits, wrong, status).to(torch.int32)
    for cost in start_costs if start_costs.numel() else ():
        finite = torch.where(present, cost, 0).isfinite().all(2).all(1)
        status = torch.where((status == CONVERGED) & ~finite, NONFINITE, status).to(torch.int32)
    return status


def _start(
    problem: Problem, number: int, init: Tensor, start_costs: Tensor, present: Tensor
) -> Tensor:
    """Return the coupling of one start."""
    a, b = problem.a, problem.b
    if init.numel():
        if number == 0:
            return init
        number -= 1
    if number == 0:
        return a[:, :, None] * (b / b.sum(1, keepdim=True))[:, None, :]
    costs = problem.cost if number == 1 else start_costs[number - NUM_STARTS].expand_as(present)
    return _cheapest(torch.where(present, costs, 0), problem)


def _cheapest(slopes: Tensor, problem: Problem) -> Tensor:
    """Return the vertex of the cheapest columns that are there, the first of equals."""
    slopes = _there(slopes, problem)
    at = torch.where(slopes == slopes.amin(2, keepdim=True), 1, 0).argmax(2)
    return torch.zeros_like(slopes).scatter_(2, at[:, :, None], problem.a[:, :, None])


def _all_cheapest(slopes: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """Return the coupling of all cheapest columns of each row, in equal parts, and row minima.

    Slopes that only rounding tells apart are equal: none of them is a reason to leave out another.
    """
    slopes = _there(slopes, problem)
    least = slopes.amin(2)
    equal = 16 * torch.finfo(slopes.dtype).eps * (problem.linear + problem.pair)
    cheap = slopes <= (least + equal[:, None])[:, :, None]
    return cheap * (problem.a / cheap.sum(2))[:, :, None], least


def _there(slopes: Tensor, problem: Problem) -> Tensor:
    return torch.where((problem.b != 0)[:, None, :], slopes, torch.inf)


@dataclass
class _State:
    """Couplings on their way, with the gradient there."""

    problem: Problem
    plan: Tensor
    gradient: Tensor
    loss: int
    pairs: int

    def select(self, kept: Tensor) -> "_State":
        return _State(
            self.problem.select(kept), self.plan[kept], self.gradient[kept], self.loss, self.pairs
        )

    def bend(self, plan: Tensor) -> Tensor:
        part = self.problem
        return part.pair[:, None, None] * pair_cost(
            plan, part.struct_x, part.struct_y, self.loss, self.pairs
        )

    @property
    def linear(self) -> Tensor:
        return self.problem.linear[:, None, None] * self.problem.cost

    def renew(self, items: Tensor) -> None:
        """Compute the gradient from nothing but the plan, whose rows get back what they lost."""
        part = self.select(items)
        most = part.plan.argmax(2, keepdim=True)
        rest = part.problem.a - part.plan.sum(2)
        mended = (part.plan.gather(2, most) + rest[:, :, None]).clamp_min(0)
        self.plan[items] = part.plan.scatter(2, most, mended)
        part = self.select(items)
        self.gradient[items] = part.linear + part.bend(part.plan)

    def step(self, items: Tensor, vertex: Tensor, gap: Tensor) -> None:
        """Go towards a vertex."""
        part = self.select(items)
        far = part.bend(vertex)
        here = part.gradient - part.linear
        curvature = (
            (far * vertex).sum((1, 2))
            - 2 * (here * vertex).sum((1, 2))
            + (here * part.plan).sum((1, 2))
        )
        share = torch.where(curvature > 0, gap / curvature, 1).clamp(max=1)
        weight = share[:, None, None]
        self.plan[items] = (1 - weight) * part.plan + weight * vertex
        self.gradient[items] = part.linear + (1 - weight) * here + weight * far

    def move(self, i: int, enough: Tensor) -> Tensor:
        """Move the mass of row i, pair of columns by pair; whether there was any to move."""
        moved = torch.zeros_like(enough, dtype=torch.bool)
        items = torch.arange(len(enough), device=enough.device)
        for _ in range(self.plan.shape[2]):
            part = self.select(items)
            slope, mass = part.gradient[:, i], part.plan[:, i]
            there = part.problem.b != 0
            least, to = torch.where(there, slope, torch.inf).min(1)
            most, source = (mass * (slope - least[:, None])).max(1)
            going = ((most > enough[items]) & (source != to)).nonzero().squeeze(1)
            items, to, source = items[going], to[going], source[going]
            if len(items) == 0:
                break
            part, row = self.select(items), torch.arange(len(items), device=items.device)
            local = part.gradient[row, i, source] - part.gradient[row, i, to]
            bend = part.curvature(i, to, source)
            held = part.plan[row, i, source]
            exact = torch.where(bend > 0, local / bend, torch.inf)
            share = torch.minimum(exact, held)
            change = torch.zeros_like(part.plan)
            change[row, i, to], change[row, i, source] = share, -share
            self.plan[items, i, to] += share
            self.plan[items, i, source] = torch.where(exact < held, held - share, 0)
            self.gradient[items] += part.bend(change)
            moved[items] = True
        return moved

    def curvature(self, i: int, to: Tensor, source: Tensor) -> Tensor:
        """<B(d), d> for d that moves a unit of row i between two columns."""
        part = self.problem
        if self.pairs != PAIRS_ALL:
            return torch.zeros_like(part.pair)
        row = torch.arange(len(to), device=to.device)
        own = part.struct_x[:, i, i]

        def term(k: Tensor, l: Tensor) -> Tensor:
            gap = own - part.struct_y[row, k, l]
            return gap.abs() if self.loss == LOSS_L1 else gap * gap

        total = term(to, to) + term(source, source) - term(to, source) - term(source, to)
        return 2 * part.pair * total


def _descend(
    problem: Problem, start: Tensor, loss: int, pairs: int, tol: float, max_iter: int
) -> Solution:
    """Go down from one coupling; each item leaves when it is done."""
    solution = Solution.unsolved(problem)
    items = torch.arange(len(start), device=start.device)
    state = _State(problem, start.clone(), torch.zeros_like(start), loss, pairs)
    state.renew(items)
    spent = torch.zeros_like(solution.iterations)
    fresh, moving = (torch.ones_like(spent, dtype=torch.bool) for _ in range(2))
    rounding = 8 * torch.finfo(start.dtype).eps
    passes = 0
    while len(items):
        part = state.problem
        vertex, least = _all_cheapest(state.gradient, part)
        on_plan = (state.gradient * state.plan).sum((1, 2))
        linear = (part.cost * state.plan).sum((1, 2))
        above = torch.where(state.plan != 0, state.gradient - least[:, :, None], 0)
        gap = (state.plan * above).sum((1, 2))
        objective = 0.5 * (part.linear * linear + on_plan)
        enough = tol * objective.abs() + rounding * on_plan.abs()
        small = ~(gap > enough)
        ended = small | ~moving | (spent >= max_iter)
        # Many small steps round the gradient away from the plan's.
        stale = ended & ~fresh
        renewed = stale.nonzero().squeeze(1)
        if len(renewed):
            state.renew(renewed)
            fresh, moving = fresh | stale, moving | stale
            if len(renewed) == len(items):
                continue
        done = (ended & ~stale).nonzero().squeeze(1)
        if len(done):
            status = torch.where(small, CONVERGED, MAX_ITER).to(torch.int32)
            g = torch.zeros_like(part.b)
            found = Solution(state.plan, objective, least, g, gap, spent, status)
            solution.fill(items[done], found.select(done))

        whole = spent < _MOST_WHOLE
        spent = torch.where(ended, spent, spent + 1)
        stepping = (~ended & whole).nonzero().squeeze(1)
        if len(stepping):
            state.step(stepping, vertex[stepping], gap[stepping])
            fresh[stepping] = False
        passes += 1
        # none has taken more steps than there were passes
        rows = (~ended & ~whole).nonzero().squeeze(1) if passes > _MOST_WHOLE else items[:0]
        if len(rows):
            n, m = start.shape[1:]
            part_state = state.select(rows)
            moved = torch.zeros_like(rows, dtype=torch.bool)
            for i in range(n):
                moved |= part_state.move(i, enough[rows] / (2 * n * m))
            state.plan[rows], state.gradient[rows] = part_state.plan, part_state.gradient
            moving[rows], fresh[rows] = moved, ~moved
        if len(done):
            going = (~ended | stale).nonzero().squeeze(1)
            items, spent, state = items[going], spent[going], state.select(going)
            fresh, moving = fresh[going], moving[going]
    return solution
