# Over 400 lines: one algorithm, read top to bottom.
"""Fused Gromov-Wasserstein by fully corrective conditional gradient.

The coupling is a convex combination of few atoms, the start and the vertices found so far. The pair
cost is linear, so with B(V_a) stored for every atom the objective restricted to the atoms is a
small quadratic form in their weights: re-balancing the weights needs no further transport problem.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from hotnas_torch.ot._reference.chunks import Rows, in_chunks
from hotnas_torch.ot._reference.pair_cost import (
    LOSS_L1,
    PAIRS_ALL,
    dense_pair_cost,
    folded_sum,
    kept_pairs,
    pair_cost,
    pair_cost_gradient,
    signature_distance,
)
from hotnas_torch.ot._reference.scale import back, exponent_of, largest_of, power_of_two
from hotnas_torch.ot._reference.shortest_paths import shortest_paths
from hotnas_torch.ot._reference.transport import (
    CONVERGED,
    INFEASIBLE,
    MAX_ITER,
    NONFINITE,
    extend_duals,
    feasibility,
    split_costs,
    transport,
)

__all__ = [
    "NUM_STRUCTURAL_STARTS",
    "Problem",
    "Solution",
    "Units",
    "descend",
    "fgw",
    "fgw_backward",
    "slopes_between",
    "without_absent_nodes",
]

# Starts that need no further input: signature, pointwise, order-preserving.
NUM_STRUCTURAL_STARTS = 3
_SLOTS = 8  # atoms that room is made for at first, a power of two
_STEPS_BETWEEN_LOOKS = 4  # of moving weight between atoms
_WORTH_LEAVING = 1 << 13  # numbers, below which items that are done are no burden
_REFINEMENTS = 2  # times that a transport problem is solved again in its reduced costs


def fgw(
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
    dummies: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""Find a stationary coupling of the fused Gromov-Wasserstein objective.

    .. math:: F(T) = (1 - \alpha) \langle C, T \rangle
        + \alpha \sum T_{ij} T_{kl} L(C^x_{ik} - C^y_{jl})

    with the sum over the pair set. Nodes of zero weight are absent, whatever their costs are. Every
    item is solved in units of its own (`scale`): scaling costs by a power of two, and structures by
    what makes the pair costs follow, scales the results and changes nothing else.

    CONVERGED says that duals which are feasible to the last bit prove a gap of at most `tol`
    times the objective, plus the rounding of the dtype: 8 epsilon times <grad F(T), T> and <grad
    F(T), V>. Where that cannot be proved in the dtype, the status is MAX_ITER.

    Args:
        cost: Costs between nodes, shape (B, n, m), float32 or float64; +infinity forbids a pair,
            whatever alpha is.
        struct_x: Structure of the first graph, shape (B, n, n); need not be symmetric.
        struct_y: Structure of the second graph, shape (B, m, m).
        a: Masses of the first graph, shape (B, n).
        b: Masses of the second graph, shape (B, m), with the same sum.
        alpha: Weight of the quadratic term per item, shape (B,), in [0, 1].
        init: Coupling to start from, shape (B, n, m), or no elements for none.
        start_costs: Costs whose cheapest vertices are starts, shape (R, n, m), or no elements.
        loss: 0 for L(d) = abs(d), 1 for the square.
        pairs: 0 for all i, j, k, l; 1 (directed) for i != k, j != l; 2 (ordered) for i < k, j < l.
        num_starts: How many starts to use, in the order `init`, the cheapest vertex of
            (1 - alpha) cost + alpha * `signature_distance`, that of `cost` alone (pointwise), the
            order-preserving coupling, then `start_costs`. A start with the support of an earlier
            one would lead to the same result and is passed over, and so is the order-preserving
            one where pairs of it are forbidden. The best objective is kept, the first of equals.
        tol: Relative duality gap to stop at.
        max_iter: Most transport problems that one start may solve.
        dummies: 1: the last node of each side takes part in no pair of the sum, and its structure
            is 0: a reservoir for the mass that a partial coupling leaves.

    Returns:
        `plan` (B, n, m); `objective` (B,); duals `f` (B, n), `g` (B, m) of the transport
        problem linearised at `plan`, those of absent nodes as in `transport`; `gap` (B,), its
        duality gap, an upper bound of <grad F(T), T - V> for all couplings V; `iterations` (B,)
        int32, transport problems solved over all starts; `status` (B,) int32.

    Complexity:
        O((n + m) n m) per iteration plus one exact transport problem.

    Reference:
        T. Vayer et al., Optimal transport for structured data with application on graphs, ICML
        2019, eq. 3; S. Lacoste-Julien, M. Jaggi, On the global linear convergence of Frank-Wolfe
        optimization variants, NeurIPS 2015, algorithm 3.
    """
    if num_starts < 1:
        msg = f"num_starts must be at least 1; got {num_starts}"
        raise ValueError(msg)
    x, y = a != 0, b != 0
    present, *structures = without_absent_nodes(cost, struct_x, struct_y, a, b, pairs, dummies)
    numbers, forbidden = split_costs(present, x[:, :, None] & y[:, None, :])
    status = feasibility(a, b, numbers, *structures, alpha)
    if forbidden.any():
        barred = torch.where(forbidden, torch.inf, torch.zeros_like(cost))
        cut_off = (status == CONVERGED) & (transport(barred, a, b)[5] == INFEASIBLE)
        status = torch.where(cut_off, INFEASIBLE, status).to(torch.int32)
    status = _check_starts(status, a, b, forbidden, init, start_costs, num_starts)
    items = (status == CONVERGED).nonzero().squeeze(1)
    used_cost, used_x, used_y = (value[items] for value in (numbers, *structures))
    units = Units.of(used_cost, used_x, used_y, a[items], alpha[items], loss)
    problem = units.scale(used_cost, used_x, used_y, a[items], b[items], forbidden[items], dummies)
    terms = _Terms(loss, pairs, tol, max_iter)
    coupling = back(init[items], -units.mass) if init.numel() else init
    best = Solution.unsolved(problem)
    numbers_of_item = 64 * num_starts * (problem.cost[0].numel() if len(items) else 1)
    for part in in_chunks(torch.arange(len(items), device=a.device), numbers_of_item):
        here = coupling[part] if init.numel() else init
        best.fill(part, _solve(problem.select(part), here, start_costs, num_starts, terms))
    found = units.restore(best, problem, loss, pairs)
    if not (bool(x.all()) and bool(y.all())):
        slopes = slopes_between(
            problem, best.plan, cost[items], struct_x[items], struct_y[items], units, loss, pairs
        )
        f, g = extend_duals(slopes, x[items], y[items], found.f, found.g)
        lost = (found.status == NONFINITE)[:, None]
        found = replace(found, f=torch.where(lost, torch.nan, f), g=torch.where(lost, torch.nan, g))
    result = Solution.failed(cost, a, b, status)
    result.fill(items, found)
    return (
        result.plan,
        result.objective,
        result.f,
        result.g,
        result.gap,
        result.iterations,
        result.status,
    )


def fgw_backward(
    plan: Tensor, struct_x: Tensor, struct_y: Tensor, weight: Tensor, loss: int, pairs: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate the quadratic term by the structures at a fixed plan, and compute it.

    See `hotnas_torch.ot._reference.pair_cost.pair_cost_gradient`; the third result is weight times
    the quadratic term, shape (B,), a sum of terms that are not negative.
    """
    grad_x, grad_y = pair_cost_gradient(plan, struct_x, struct_y, weight, loss, pairs)
    bend = dense_pair_cost(plan, struct_x, struct_y, loss, pairs)
    value = 0.5 * torch.where(plan != 0, plan * bend, 0).sum((1, 2))
    return grad_x, grad_y, weight * value


@dataclass(frozen=True)
class _Terms:
    """What all items have in common."""

    loss: int
    pairs: int
    tol: float
    max_iter: int


def _solve(
    problem: "Problem", init: Tensor, start_costs: Tensor, num_starts: int, terms: _Terms
) -> "Solution":
    """Return the best of what the starts lead to."""
    best = Solution.unsolved(problem)
    found = [_start(problem, k, init, start_costs, terms) for k in range(num_starts)]
    starts, transports = [start for start, _ in found], sum(count for _, count in found)
    best.iterations.add_(transports)
    worthwhile = []
    for number, start in enumerate(starts):
        fresh = torch.ones_like(problem.linear, dtype=torch.bool)
        if number > 0 or not init.numel():  # a vertex is told by its support, other couplings not
            support = start > 0
            fresh &= ~(support & problem.forbidden).flatten(1).any(1)
            for earlier in starts[bool(init.numel()) : number]:
                fresh &= (support != (earlier > 0)).flatten(1).any(1)
        worthwhile.append(fresh)
    of_start, item = torch.stack(worthwhile).nonzero().unbind(1)
    paths = descents(problem.select(item), torch.stack(starts)[of_start, item], terms)
    for number in range(num_starts):
        here = (of_start == number).nonzero().squeeze(1)
        chosen = item[here]
        ended = paths.select(here).ended(problem.select(chosen), best.objective[chosen], terms)
        best.improve(chosen, ended)
    return best


def without_absent_nodes(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    pairs: int,
    dummies: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Blank what belongs to nodes of zero weight or to no pair, so that it can reach no result."""
    x, y = a != 0, b != 0
    paired_x, paired_y = (side[:, : side.shape[1] - dummies] for side in (x, y))
    any_pair = (paired_x.sum(1) > 1) & (paired_y.sum(1) > 1)
    if pairs == PAIRS_ALL:
        any_pair = torch.ones_like(any_pair)
    with_pairs = any_pair[:, None, None]
    return (
        torch.where(x[:, :, None] & y[:, None, :], cost, 0),
        torch.where(x[:, :, None] & x[:, None, :] & with_pairs, kept_pairs(struct_x, pairs), 0),
        torch.where(y[:, :, None] & y[:, None, :] & with_pairs, kept_pairs(struct_y, pairs), 0),
    )


@dataclass(frozen=True)
class Problem(Rows):
    """Of size 1: F(T) = linear <cost, T> + pair sum T_ij T_kl L(struct_x_ik - struct_y_jl)."""

    cost: Tensor
    struct_x: Tensor
    struct_y: Tensor
    a: Tensor
    b: Tensor
    linear: Tensor
    pair: Tensor
    forbidden: Tensor  # pairs of nodes that carry no mass, whose cost is 0 here
    paired: Tensor  # whether both nodes take part in pairs, (B, n, m)

    def vertex(self, cost: Tensor) -> tuple[Tensor, ...]:
        """Solve the transport problem of these masses for another cost."""
        there = (self.a != 0)[:, :, None] & (self.b != 0)[:, None, :]
        used = torch.where(there & ~self.forbidden, cost, 0)
        finite = used.isfinite().flatten(1).all(1)
        # Masses are known to fit, and everything to be of size 1.
        arcs = used.masked_fill(~there | self.forbidden, torch.inf)
        solvable = finite[:, None]
        plan, f, g, iterations, _ = shortest_paths(
            torch.where(solvable[..., None], arcs, 0), self.a * solvable, self.b * solvable
        )
        failed = ~solvable
        return (
            plan.masked_fill(failed[..., None], torch.nan),
            (plan * used).sum((1, 2)).masked_fill(~finite, torch.nan),
            f.masked_fill(failed, torch.nan),
            g.masked_fill(failed, torch.nan),
            iterations,
            torch.where(finite, CONVERGED, NONFINITE).to(torch.int32),
        )

    def pair_cost(
        self, plan: Tensor, loss: int, pairs: int, *, dense: bool = False, vertex: bool = False
    ) -> Tensor:
        """Compute B(plan), which dummies neither have nor contribute to."""
        met, structures = torch.where(self.paired, plan, 0), (self.struct_x, self.struct_y)
        if dense:
            bend = dense_pair_cost(met, *structures, loss, pairs)
        else:
            most = sum(plan.shape[1:]) - 1 if vertex else None
            bend = pair_cost(met, *structures, loss, pairs, most)
        return torch.where(self.paired, bend, 0)


@dataclass(frozen=True)
class Units(Rows):
    """Exponents of the powers of two that costs, structures and masses are divided by.

    `of_linear` and `of_pair` are those of the terms in the objective, and the weights of the
    terms are such that the larger one is 1 to 2; `result` is its exponent. A smaller term that
    would be lost beside the larger one counts as `_most_apart` below it: what it decides, where the
    larger is 0, is the same. `hidden` is more than a term so raised adds to a derivative; 0 where
    there is none.
    """

    cost: Tensor
    structure: Tensor
    mass: Tensor
    result: Tensor
    of_linear: Tensor
    of_pair: Tensor
    linear: Tensor
    pair: Tensor
    hidden: Tensor

    @classmethod
    def of(
        cls, cost: Tensor, struct_x: Tensor, struct_y: Tensor, a: Tensor, alpha: Tensor, loss: int
    ) -> Self:
        """Choose the units of a batch without absent nodes."""
        largest = largest_of(cost)
        most = torch.maximum(largest_of(struct_x), largest_of(struct_y))
        mass, rest = exponent_of(a.sum(1)), 1 - alpha
        of_cost = torch.where(largest > 0, exponent_of(largest), 0)
        of_struct = torch.where(most > 0, exponent_of(most), 0)
        in_cost = of_cost + mass
        in_pair = (1 if loss == LOSS_L1 else 2) * of_struct + 2 * mass
        has_linear, has_pair = (largest > 0) & (rest != 0), (most > 0) & (alpha != 0)
        # A term that is 0 throughout has a unit all the same: that of absent nodes.
        of_linear, of_pair = in_cost + exponent_of(rest), in_pair + exponent_of(alpha)
        by_linear = has_linear & ~(has_pair & (of_linear <= of_pair))
        result = torch.where(by_linear, of_linear, torch.where(has_pair, of_pair, 0))
        far, both = _most_apart(cost.dtype), has_linear & has_pair
        apart = both & ((of_linear - of_pair).abs() > far)
        smaller = torch.where(apart, torch.minimum(of_linear, of_pair) + far, result)
        of_linear = torch.where(both & ~by_linear, smaller, of_linear)
        of_pair = torch.where(both & by_linear, smaller, of_pair)
        dtype = cost.dtype
        return cls(
            of_cost,
            of_struct,
            mass,
            result,
            of_linear,
            of_pair,
            torch.where(rest != 0, rest * power_of_two(in_cost - of_linear, dtype), 0),
            torch.where(alpha != 0, alpha * power_of_two(in_pair - of_pair, dtype), 0),
            256 * 2.0**-far * apart.to(dtype),
        )

    @property
    def by_pair(self) -> Tensor:
        """Whether the quadratic term is the larger one."""
        return self.result == self.of_pair

    @property
    def smaller(self) -> Tensor:
        """Exponent of the smaller term in the objective."""
        return torch.where(self.by_pair, self.of_linear, self.of_pair)

    def scale(
        self,
        cost: Tensor,
        struct_x: Tensor,
        struct_y: Tensor,
        a: Tensor,
        b: Tensor,
        forbidden: Tensor,
        dummies: int = 0,
    ) -> Problem:
        """Bring the inputs to size 1."""
        paired = torch.ones_like(forbidden)
        if dummies:
            paired[:, -1, :] = paired[:, :, -1] = False
        return Problem(
            back(cost, -self.cost),
            back(struct_x, -self.structure),
            back(struct_y, -self.structure),
            back(a, -self.mass),
            back(b, -self.mass),
            self.linear,
            self.pair,
            forbidden,
            paired,
        )

    def restore(self, found: "Solution", problem: Problem, loss: int, pairs: int) -> "Solution":
        """Bring results back to the units of the caller; NaN throughout where they exceed these."""
        result, objective = self.result, back(found.objective, self.result)
        gap, status = found.gap, found.status
        items = ((self.hidden > 0) & (status <= MAX_ITER)).nonzero().squeeze(1)
        if len(items):
            # Each term has its unit. Where the larger is 0, the smaller decides.
            units, part, plan = self.select(items), problem.select(items), found.plan[items]
            bend = part.pair_cost(plan, loss, pairs, dense=True)
            linear = part.linear * (part.cost * plan).sum((1, 2))
            pair = 0.5 * part.pair * (bend * plan).sum((1, 2))
            larger = torch.where(units.by_pair, pair, linear).abs()
            decided = (larger == 0) & units.never_negative(part.cost)
            lost = ~decided & (units.hidden > 8 * torch.finfo(plan.dtype).eps * larger)
            terms = back(linear, units.of_linear) + back(pair, units.of_pair)
            objective = objective.index_copy(0, items, terms)
            result = result.index_copy(0, items, torch.where(decided, units.smaller, units.result))
            gap = gap.index_copy(0, items, gap[items] + torch.where(lost, units.hidden, 0))
            status = status.index_copy(0, items, torch.where(lost, MAX_ITER, status[items]))
        gap, duals = back(gap, result), result - self.mass
        f, g = back(found.f, duals), back(found.g, duals)
        finite = objective.isfinite() & gap.isfinite() & f.isfinite().all(1) & g.isfinite().all(1)
        beyond = (status <= MAX_ITER) & ~finite
        rows, items = beyond[:, None], beyond[:, None, None]
        return replace(
            found,
            plan=torch.where(items, torch.nan, back(found.plan, self.mass)),
            objective=torch.where(beyond, torch.nan, objective),
            f=torch.where(rows, torch.nan, f),
            g=torch.where(rows, torch.nan, g),
            gap=torch.where(beyond, torch.nan, gap),
            status=torch.where(beyond, NONFINITE, status).to(torch.int32),
        )

    def never_negative(self, cost: Tensor) -> Tensor:
        """Whether the larger term, of scaled costs, is nowhere below 0."""
        return self.by_pair | (cost >= 0).all(2).all(1)


def _most_apart(dtype: torch.dtype) -> int:
    """Exponents that the terms of the objective may be apart."""
    return 93 if dtype == torch.float32 else 765


def _check_starts(
    status: Tensor,
    a: Tensor,
    b: Tensor,
    forbidden: Tensor,
    init: Tensor,
    start_costs: Tensor,
    num_starts: int,
) -> Tensor:
    """Mark the items whose given starts are none: no numbers, or no coupling of these masses."""
    x, y = a != 0, b != 0
    if init.numel():
        plan = torch.where(x[:, :, None] & y[:, None, :], init, 0)
        slack = (
            2
            * torch.finfo(a.dtype).eps ** 0.5
            * back(torch.ones_like(a[:, :1]), exponent_of(a.sum(1)))
        )
        near = ((plan.sum(2) - a).abs() <= slack).all(1) & ((plan.sum(1) - b).abs() <= slack).all(1)
        coupling = near & (plan >= 0).all(2).all(1) & ~(forbidden & (plan > 0)).any(2).any(1)
        wrong = torch.where(plan.isfinite().all(2).all(1), INFEASIBLE, NONFINITE)
        status = torch.where((status == CONVERGED) & ~coupling, wrong, status).to(torch.int32)
    for cost in start_costs[: max(0, num_starts - NUM_STRUCTURAL_STARTS - (init.numel() > 0))]:
        used = torch.where(x[:, :, None] & y[:, None, :], cost, 0)
        finite = used.isfinite().all(2).all(1)
        status = torch.where((status == CONVERGED) & ~finite, NONFINITE, status).to(torch.int32)
    return status


def slopes_between(
    problem: Problem,
    plan: Tensor,
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    units: Units,
    loss: int,
    pairs: int,
) -> Tensor:
    """Return dF/dplan between any two nodes, also absent ones, in the caller's units."""
    x, y = (back(kept_pairs(values, pairs), -units.structure) for values in (struct_x, struct_y))
    share = units.pair[:, None, None]
    bend = replace(problem, struct_x=x, struct_y=y).pair_cost(plan, loss, pairs)
    from_pairs = torch.where(share == 0, 0, share * bend)
    linear = units.linear[:, None, None]
    from_cost = torch.where(linear == 0, 0, linear * back(cost, -units.cost))
    return back(from_cost, units.of_linear - units.mass) + back(
        from_pairs, units.of_pair - units.mass
    )


@dataclass(frozen=True)
class Solution(Rows):
    """What was found of each item."""

    plan: Tensor
    objective: Tensor
    f: Tensor
    g: Tensor
    gap: Tensor
    iterations: Tensor
    status: Tensor

    @classmethod
    def failed(cls, cost: Tensor, a: Tensor, b: Tensor, status: Tensor) -> Self:
        """NaN throughout."""
        return cls(
            plan=torch.full_like(cost, torch.nan),
            objective=torch.full_like(a[:, :1].sum(1), torch.nan),
            f=torch.full_like(a, torch.nan),
            g=torch.full_like(b, torch.nan),
            gap=torch.full_like(a[:, :1].sum(1), torch.nan),
            iterations=torch.zeros_like(status),
            status=status,
        )

    @classmethod
    def unsolved(cls, problem: Problem) -> Self:
        """Nothing found yet: every status but NONFINITE and INFEASIBLE is better."""
        status = torch.full_like(problem.linear, MAX_ITER, dtype=torch.int32)
        return cls.failed(problem.cost, problem.a, problem.b, status)

    def improve(self, items: Tensor, found: "Solution") -> None:
        """Take over what is better for the given items; count all of it."""
        self.iterations[items] += found.iterations
        now = self.objective[items]
        better = (found.objective < now) | now.isnan()
        for field in fields(self):
            if field.name != "iterations":
                mine, theirs = getattr(self, field.name), getattr(found, field.name)
                rows = better.reshape(-1, *[1] * (theirs.dim() - 1))
                mine[items] = torch.where(rows, theirs, mine[items])


@dataclass(frozen=True)
class _Atoms(Rows):
    """Couplings V_a with weight w_a; slots of weight 0 are free."""

    plans: Tensor  # (B, K, n, m)
    pair_costs: Tensor  # B(V_a), (B, K, n, m)
    weights: Tensor  # (B, K)
    linear: Tensor  # <cost, V_a>, (B, K)
    form: Tensor  # Q_ab = <B(V_a), V_b>, (B, K, K)

    @classmethod
    def single(cls, problem: Problem, start: Tensor, loss: int, pairs: int) -> Self:
        batch, n, m = start.shape
        atoms = cls(
            start.new_zeros(batch, _SLOTS, n, m),
            start.new_zeros(batch, _SLOTS, n, m),
            start.new_zeros(batch, _SLOTS),
            start.new_zeros(batch, _SLOTS),
            start.new_zeros(batch, _SLOTS, _SLOTS),
        )
        atoms.put(problem, start, torch.zeros_like(problem.pair, dtype=torch.int64), loss, pairs)
        atoms.weights[:, 0] = 1
        return atoms

    def with_slots(self, slots: int) -> "_Atoms":
        """Make room; slots come in powers of two, so that sums over them are the same in any."""
        more = slots - self.weights.shape[1]
        if more <= 0:
            return self
        pad = torch.nn.functional.pad
        return _Atoms(
            pad(self.plans, (0, 0, 0, 0, 0, more)),
            pad(self.pair_costs, (0, 0, 0, 0, 0, more)),
            pad(self.weights, (0, more)),
            pad(self.linear, (0, more)),
            pad(self.form, (0, more, 0, more)),
        )

    def put(
        self,
        problem: Problem,
        plan: Tensor,
        slot: Tensor,
        loss: int,
        pairs: int,
        *,
        vertex: bool = False,
    ) -> None:
        """Fill a free slot of every item with a coupling of weight 0."""
        item = torch.arange(len(slot), device=slot.device)
        cost_of_pairs = problem.pair_cost(plan, loss, pairs, vertex=vertex)
        self.plans[item, slot] = plan
        self.pair_costs[item, slot] = cost_of_pairs
        self.linear[item, slot] = (problem.cost * plan).sum((1, 2))
        products = (cost_of_pairs[:, None] * self.plans).sum((2, 3))
        self.form[item, slot] = products
        self.form[item, :, slot] = products

    def slopes(self, problem: Problem) -> Tensor:
        """Return d F / d w_a, (B, K)."""
        quadratic = _weighted_sum(self.weights, self.form)
        return problem.linear[:, None] * self.linear + problem.pair[:, None] * quadratic

    def rebalance(self, problem: Problem, fresh: Tensor, enough: Tensor, moving: Tensor) -> None:
        """Move weight between the atoms, exactly per pair, until their own gap is small.

        Each step moves weight from the atom of steepest slope to the one of least. `fresh` is the
        slot that takes part although it has no weight yet. Items that are `moving` make at least
        one step, the others none.
        """
        weights, form = self.weights, self.form
        in_use = (weights > 0).scatter(1, fresh[:, None], True)
        most_steps, taking_part = 4 * in_use.sum(1), moving[:, None]
        slopes, enough = self.slopes(problem), enough.clamp_min(0)
        for step in range(4 * weights.shape[1]):
            low, up = torch.where(in_use, slopes, torch.inf).min(1, keepdim=True)
            high, down = torch.where(weights > 0, slopes, -torch.inf).max(1, keepdim=True)
            local = (high - low).squeeze(1)
            moving = moving & (local > (enough if step > 0 else 0)) & (step < most_steps)
            if step % _STEPS_BETWEEN_LOOKS == 1 and not moving.any():
                break
            rows = torch.cat([up, down], 1)[:, :, None].expand(-1, -1, form.shape[2])
            gained, lost = form.gather(1, rows).unbind(1)
            apart = gained - lost
            curvature = problem.pair * (apart.gather(1, up) - apart.gather(1, down)).squeeze(1)
            exact = torch.where(curvature > 0, local / curvature, torch.inf)
            most = weights.gather(1, down).squeeze(1)
            moved = torch.where(moving, torch.minimum(exact, most), 0)
            weights.scatter_add_(1, up, moved[:, None])
            # exactly 0 when all of it goes: the slot is free again
            weights.scatter_add_(1, down, -moved[:, None])
            slopes = slopes + (problem.pair * moved)[:, None] * apart
            in_use = torch.where(moving[:, None], weights > 0, in_use)
        # Many small moves round the sum away from 1.
        total = _weighted_sum(weights, torch.ones_like(weights))[:, None]
        weights.copy_(torch.where(taking_part, weights / total, weights))


def _weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """Sum over the slots: empty ones, which other items may need, change no bit."""
    return folded_sum(weights.reshape(*weights.shape, *[1] * (values.dim() - 2)) * values)


def _start(
    problem: Problem, number: int, init: Tensor, start_costs: Tensor, terms: _Terms
) -> tuple[Tensor, int]:
    """Return the coupling of one start and the number of transport problems it took."""
    cost, a, b = problem.cost, problem.a, problem.b
    if init.numel():
        if number == 0:
            return torch.where((a != 0)[:, :, None] & (b != 0)[:, None, :], init, 0), 0
        number -= 1
    if number == 0:
        sides = problem.struct_x, problem.struct_y, a, b
        signature = signature_distance(*sides, terms.loss, terms.pairs)
        signature = torch.where(problem.paired, signature, 0)
        linear, pair = problem.linear[:, None, None], problem.pair[:, None, None]
        return problem.vertex(linear * cost + pair * signature)[0], 1
    if number == 1:
        return problem.vertex(cost)[0], 1
    if number == 2:
        return _order_preserving(a, b), 0
    chosen = start_costs[number - NUM_STRUCTURAL_STARTS]
    return problem.vertex(chosen.expand_as(cost))[0], 1


def _order_preserving(a: Tensor, b: Tensor) -> Tensor:
    """Couple both sides in their order (the north-west corner rule)."""
    end_a, end_b = a.cumsum(1), b.cumsum(1)
    begin_a = torch.nn.functional.pad(end_a[:, :-1], (1, 0))
    begin_b = torch.nn.functional.pad(end_b[:, :-1], (1, 0))
    overlap = torch.minimum(end_a[:, :, None], end_b[:, None, :]) - torch.maximum(
        begin_a[:, :, None], begin_b[:, None, :]
    )
    return overlap.clamp_min(0)


def descend(
    problem: Problem,
    start: Tensor,
    known: Tensor,
    loss: int,
    pairs: int,
    tol: float,
    max_iter: int,
) -> Solution:
    """Run the conditional gradient from one coupling.

    What is no better than the objective `known`, shape (B,), needs no proof; NaN is none.
    """
    terms = _Terms(loss, pairs, tol, max_iter)
    return descents(problem, start, terms).ended(problem, known, terms)


def descents(problem: Problem, start: Tensor, terms: _Terms) -> "_Descents":
    """Run the conditional gradient until the duals at hand say that nothing is below."""
    atoms = _Atoms.single(problem, start, terms.loss, terms.pairs)
    spent = torch.zeros_like(problem.linear, dtype=torch.int32)
    state = _Descents.at(atoms, problem, spent, torch.ones_like(spent, dtype=torch.bool), terms)
    return state.run(problem, terms)


@dataclass(frozen=True)
class _Descents(Rows):
    """Couplings on their way, with the transport problem that is linearised there, solved."""

    plans: Tensor
    pair_costs: Tensor
    weights: Tensor
    linear: Tensor
    form: Tensor
    objective: Tensor
    plan: Tensor
    on_plan: Tensor  # <gradient, plan>
    vertex: Tensor
    f: Tensor
    g: Tensor
    gap: Tensor
    enough: Tensor  # gap to stop at
    spent: Tensor
    failed: Tensor

    @classmethod
    def at(
        cls, atoms: _Atoms, problem: Problem, spent: Tensor, moved: Tensor, terms: _Terms
    ) -> "_Descents":
        """Solve the linearised problems; those where nothing moved have been counted before."""
        weights = atoms.weights
        on_plan = _weighted_sum(weights, atoms.slopes(problem))
        linear = _weighted_sum(weights, atoms.linear)
        objective = 0.5 * (problem.linear * linear + on_plan)
        vertex, on_vertex, f, g, _, status = problem.vertex(_gradient(atoms, problem))
        gap = on_plan - on_vertex
        # A relative stop alone never ends at objective 0, where the gap is rounding.
        # A vertex above the plan is no vertex sought, and its rounding not that of the gap.
        lower = torch.minimum(on_plan, on_vertex)
        rounding = 8 * torch.finfo(gap.dtype).eps
        enough = terms.tol * objective.abs() + rounding * (on_plan.abs() + lower.abs())
        return cls(
            atoms.plans,
            atoms.pair_costs,
            atoms.weights,
            atoms.linear,
            atoms.form,
            objective,
            _weighted_sum(weights, atoms.plans),
            on_plan,
            vertex,
            f,
            g,
            gap,
            enough,
            spent + moved.to(spent.dtype),
            status != CONVERGED,
        )

    @property
    def atoms(self) -> _Atoms:
        """The couplings that are combined."""
        return _Atoms(*(getattr(self, field.name) for field in fields(_Atoms)))

    @property
    def small(self) -> Tensor:
        """Whether the duals at hand say that nothing is below."""
        return ~self.failed & ~(self.gap > self.enough)

    def with_slots(self, slots: int) -> "_Descents":
        """Make room for atoms."""
        atoms = self.atoms.with_slots(slots)
        return replace(self, **{field.name: getattr(atoms, field.name) for field in fields(atoms)})

    def run(self, problem: Problem, terms: _Terms, *, resumed: bool = False) -> "_Descents":
        """Go down; who is done stands still, and leaves where that makes the rest much cheaper.

        Those that are `resumed` go on from their vertices first, whatever their gaps say.
        """
        ended, state = self, self
        items = torch.arange(len(self.gap), device=self.gap.device)
        moving = torch.ones_like(self.failed)
        while len(items):
            if not resumed:
                moving = ~(state.small | state.failed | (state.spent >= terms.max_iter))
            resumed = False
            full = (state.weights > 0).all(1)
            left, short = torch.stack([moving.sum(), full.sum()]).cpu().tolist()
            if left == 0:
                break
            if 2 * left <= len(items) and state.plans.numel() > _WORTH_LEAVING:
                ended = ended.joined(items, state)
                kept = moving.nonzero().squeeze(1)
                items, problem, state = items[kept], problem.select(kept), state.select(kept)
                moving = moving[kept]
            if short:
                state = state.with_slots(2 * state.weights.shape[1])
            state = state.step(problem, moving, terms)
        return ended.joined(items, state)

    def joined(self, items: Tensor, found: "_Descents") -> "_Descents":
        """Replace what has been worked on: all of it, or some items."""
        if len(items) == len(self.gap):
            return found
        ended = self.with_slots(found.weights.shape[1])
        ended.fill(items, found)
        return ended

    def step(self, problem: Problem, moving: Tensor, terms: _Terms) -> "_Descents":
        """Go from the couplings that are moving towards their vertices."""
        atoms = self.atoms
        slot = (atoms.weights == 0).to(torch.uint8).argmax(1)
        atoms.put(problem, self.vertex, slot, terms.loss, terms.pairs, vertex=True)
        atoms.rebalance(problem, slot, 0.1 * self.gap, moving)
        return _Descents.at(atoms, problem, self.spent, moving, terms)

    def ended(self, problem: Problem, known: Tensor, terms: _Terms) -> Solution:
        """Prove that nothing is below, or find it and go on, where `known` is not better anyway."""
        solution = Solution.unsolved(problem)
        state, items = self, torch.arange(len(self.gap), device=self.gap.device)
        while len(items):
            small, below = state.small, torch.zeros_like(state.failed)
            found = _Below(state.vertex, state.f, state.g, state.gap, state.spent)
            chosen = (small & ~(state.objective >= known)).nonzero().squeeze(1)
            if len(chosen):
                part, at = problem.select(chosen), state.select(chosen)
                closer, below[chosen] = _improves(
                    part,
                    _gradient(at.atoms, part),
                    at.plan,
                    at.on_plan,
                    at.enough,
                    found.select(chosen),
                    terms.max_iter,
                )
                found.fill(chosen, closer)
            solved = small & ~below & (found.gap <= state.enough)
            status = torch.where(solved, CONVERGED, MAX_ITER)
            status = torch.where(state.failed, NONFINITE, status).to(torch.int32)
            invalid = state.failed
            values = Solution(
                state.plan.masked_fill(invalid[:, None, None], torch.nan),
                state.objective.masked_fill(invalid, torch.nan),
                found.f,
                found.g,
                found.gap.masked_fill(invalid, torch.nan),
                found.spent,
                status,
            )
            solution.fill(items, values)
            going = (below & (found.spent < terms.max_iter)).nonzero().squeeze(1)
            if len(going) == 0:
                break
            items, problem, known = items[going], problem.select(going), known[going]
            closer = found.select(going)
            state = replace(
                state.select(going), vertex=closer.vertex, gap=closer.gap, spent=closer.spent
            ).run(problem, terms, resumed=True)
        return solution


def _gradient(atoms: _Atoms, problem: Problem) -> Tensor:
    """Return dF/dplan, infinite at forbidden pairs."""
    bend = _weighted_sum(atoms.weights, atoms.pair_costs)
    gradient = problem.linear[:, None, None] * problem.cost + problem.pair[:, None, None] * bend
    return gradient.masked_fill(problem.forbidden, torch.inf)


@dataclass(frozen=True)
class _Below(Rows):
    """What a linearised problem leads to."""

    vertex: Tensor
    f: Tensor
    g: Tensor
    gap: Tensor
    spent: Tensor


def _improves(
    problem: Problem,
    gradient: Tensor,
    plan: Tensor,
    on_plan: Tensor,
    enough: Tensor,
    found: _Below,
    max_iter: int,
) -> tuple[_Below, Tensor]:
    """Look for a vertex below a coupling although the duals at hand say that there is none.

    Their sums are rounded to the size of the largest, which can be far more than the objective:
    what the bound of the reduced costs leaves open is solved once more in these.

    Returns:
        What was found, its gap proved where there is nothing below, and whether there is.
    """
    vertex, f, g, spent = (value.clone() for value in (found.vertex, found.f, found.g, found.spent))
    reduced, on_reduced, gap = _reduce(problem, gradient, plan, on_plan, f, g)
    below = torch.zeros_like(gap, dtype=torch.bool)
    for _ in range(_REFINEMENTS):
        items = (~below & (gap > enough) & (spent < max_iter)).nonzero().squeeze(1)
        if len(items) == 0:
            break
        part = problem.select(items)
        again, on_vertex, more_f, more_g, _, _ = part.vertex(reduced[items])
        spent[items] += 1
        step = on_reduced[items] - on_vertex
        lower = step > enough[items]
        vertex[items] = again
        tighter = _reduce(part, reduced[items], plan[items], on_reduced[items], more_f, more_g)
        gap[items] = torch.where(lower, step, tighter[2])
        below[items] = lower
        reduced[items], on_reduced[items] = tighter[0], tighter[1]
        f[items] += more_f
        g[items] += more_g
    return _Below(vertex, f, g, gap, spent), below


def _reduce(
    problem: Problem, cost: Tensor, plan: Tensor, on_plan: Tensor, f: Tensor, g: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the duals from the costs: reduced costs, <reduced costs, plan>, and a bound of the gap.

    The reduced costs are exact to their own size, not to that of the duals, so that a bound by them
    is too.
    """
    rows, columns = problem.a[:, :, None] != 0, problem.b[:, None, :] != 0
    f, g = f[:, :, None].expand_as(cost), g[:, None, :].expand_as(cost)
    both = f + g
    of_g = both - f
    lost = (f - (both - of_g)) + (g - of_g)  # of the sum, by rounding
    reduced = torch.where(rows & columns, (cost - both) - lost, 0)
    mass = plan.sum(1)
    over = (-reduced).amax(1).clamp_min(0)
    least = torch.where(rows, cost, torch.inf).amin(1)
    on_reduced = torch.where(problem.forbidden, 0, reduced * plan).sum((1, 2))
    # Column duals alone are feasible, too, and exact where nothing is to be paid.
    alone = on_plan - torch.where(mass > 0, mass * least, 0).sum(1)
    gap = torch.minimum(alone, on_reduced + (mass * over).sum(1)).clamp_min(0)
    return reduced, on_reduced, gap
