"""Fused Gromov-Wasserstein by fully corrective conditional gradient.

The coupling is a convex combination of few atoms, the start and the vertices found so far. The pair
cost is linear, so with B(V_a) stored for every atom the objective restricted to the atoms is a
small quadratic form in their weights: re-balancing the weights needs no further transport problem.
"""

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from hotnas_torch.ops.reference.pair_cost import (
    dense_pair_cost,
    pair_cost,
    pair_cost_gradient,
    signature_distance,
)
from hotnas_torch.ops.reference.transport import CONVERGED, MAX_ITER, NONFINITE, transport

__all__ = ["NUM_STRUCTURAL_STARTS", "fgw", "fgw_backward"]

# Starts that need no further input: signature, pointwise, order-preserving.
NUM_STRUCTURAL_STARTS = 3
_SLOTS = 8  # atoms that room is made for at a time


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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""Find a stationary coupling of the fused Gromov-Wasserstein objective.

    .. math:: F(T) = (1 - \alpha) \langle C, T \rangle
        + \alpha \sum T_{ij} T_{kl} L(C^x_{ik} - C^y_{jl})

    with the sum over the pair set. Nodes of zero weight are absent, whatever their costs are.

    Args:
        cost: Costs between nodes, shape (B, n, m), float32 or float64.
        struct_x: Structure of the first graph, shape (B, n, n); need not be symmetric.
        struct_y: Structure of the second graph, shape (B, m, m).
        a: Masses of the first graph, shape (B, n).
        b: Masses of the second graph, shape (B, m), with the same sum.
        alpha: Weight of the quadratic term per item, shape (B,), in [0, 1].
        init: Coupling to start from, shape (B, n, m), or no elements for none.
        start_costs: Costs whose cheapest vertices are starts, shape (R, n, m), or no elements.
        loss: 0 for L(d) = abs(d), 1 for the square.
        pairs: 0 for all i, j, k, l; 1 (directed) for i != k, j != l; 2 (ordered) for i < k, j < l.
        num_starts: How many starts to use, in the order ``init``, the cheapest vertex of
            (1 - alpha) cost + alpha * signature distance, that of ``cost`` alone (pointwise), the
            order-preserving coupling, then ``start_costs``. A start with the support of an earlier
            one would lead to the same result and is passed over. The best objective is kept, the
            first of equals.
        tol: Relative duality gap to stop at.
        max_iter: Most transport problems that one start may solve.

    Returns:
        ``plan`` (B, n, m); ``objective`` (B,); duals ``f`` (B, n), ``g`` (B, m) of the transport
        problem linearised at ``plan``, 0 at absent nodes; ``gap`` (B,), its duality gap <grad F(T),
        T - V>; ``iterations`` (B,) int32, transport problems solved over all starts; ``status``
        (B,) int32.

    Complexity:
        O((n + m) n m) per iteration plus one exact transport problem.

    Reference:
        T. Vayer et al., Optimal transport for structured data with application on graphs, ICML
        2019, eq. 3; S. Lacoste-Julien, M. Jaggi, On the global linear convergence of Frank-Wolfe
        optimization variants, NeurIPS 2015, algorithm 3.
    """
    problem = _Problem.without_absent_nodes(cost, struct_x, struct_y, a, b, alpha)
    if num_starts < 1:
        msg = f"num_starts must be at least 1, got {num_starts}"
        raise ValueError(msg)
    best = _Solution.unsolved(problem)
    supports: list[Tensor] = []
    for number in range(num_starts):
        start, transports = _start(problem, number, init, start_costs, pairs)
        best.iterations.add_(transports)
        fresh = torch.ones_like(best.status, dtype=torch.bool)
        if number > 0 or not init.numel():  # a vertex is told by its support, other couplings not
            support = start > 0
            for earlier in supports:
                fresh &= (support != earlier).any(2).any(1)
            supports.append(support)
        items = fresh.nonzero().squeeze(1)
        best.improve(
            items, _descend(problem.select(items), start[items], loss, pairs, tol, max_iter)
        )
    return best.plan, best.objective, best.f, best.g, best.gap, best.iterations, best.status


def fgw_backward(
    plan: Tensor, struct_x: Tensor, struct_y: Tensor, weight: Tensor, loss: int, pairs: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate the quadratic term by the structures at a fixed plan, and compute it.

    See `hotnas_torch.ops.reference.pair_cost.pair_cost_gradient`; the third result is weight times
    the quadratic term, shape (B,), a sum of terms that are not negative.
    """
    grad_x, grad_y = pair_cost_gradient(plan, struct_x, struct_y, weight, loss, pairs)
    value = 0.5 * (plan * dense_pair_cost(plan, struct_x, struct_y, loss, pairs)).sum((1, 2))
    return grad_x, grad_y, weight * value


@dataclass(frozen=True)
class _Rows:
    """Tensors with one row per item."""

    def select(self, items: Tensor) -> Self:
        return type(self)(*(getattr(self, field.name)[items] for field in fields(self)))


@dataclass(frozen=True)
class _Problem(_Rows):
    cost: Tensor
    struct_x: Tensor
    struct_y: Tensor
    a: Tensor
    b: Tensor
    alpha: Tensor

    @classmethod
    def without_absent_nodes(
        cls,
        cost: Tensor,
        struct_x: Tensor,
        struct_y: Tensor,
        a: Tensor,
        b: Tensor,
        alpha: Tensor,
    ) -> Self:
        """Blank whatever belongs to nodes of zero weight, so that it cannot reach a result."""
        x, y = a != 0, b != 0
        return cls(
            torch.where(x[:, :, None] & y[:, None, :], cost, 0),
            torch.where(x[:, :, None] & x[:, None, :], struct_x, 0),
            torch.where(y[:, :, None] & y[:, None, :], struct_y, 0),
            a,
            b,
            alpha,
        )


@dataclass(frozen=True)
class _Solution(_Rows):
    plan: Tensor
    objective: Tensor
    f: Tensor
    g: Tensor
    gap: Tensor
    iterations: Tensor
    status: Tensor

    @classmethod
    def unsolved(cls, problem: _Problem) -> Self:
        """Nothing found yet: every status but NONFINITE and INFEASIBLE is better."""
        batch = problem.cost.shape[0]
        counts = torch.zeros(batch, dtype=torch.int32, device=problem.cost.device)
        return cls(
            plan=torch.full_like(problem.cost, torch.nan),
            objective=torch.full_like(problem.alpha, torch.nan),
            f=torch.full_like(problem.a, torch.nan),
            g=torch.full_like(problem.b, torch.nan),
            gap=torch.full_like(problem.alpha, torch.nan),
            iterations=counts,
            status=torch.full_like(counts, MAX_ITER),
        )

    def improve(self, items: Tensor, found: "_Solution") -> None:
        """Take over what is better for the given items; count all of it."""
        self.iterations[items] += found.iterations
        now = self.objective[items]
        better = (found.objective < now) | now.isnan()
        for field in fields(self):
            if field.name != "iterations":
                getattr(self, field.name)[items[better]] = getattr(found, field.name)[better]


@dataclass(frozen=True)
class _Atoms(_Rows):
    """Couplings V_a with weight w_a; slots of weight 0 are free."""

    plans: Tensor  # (B, K, n, m)
    pair_costs: Tensor  # B(V_a), (B, K, n, m)
    weights: Tensor  # (B, K)
    linear: Tensor  # <cost, V_a>, (B, K)
    form: Tensor  # Q_ab = <B(V_a), V_b>, (B, K, K)

    @classmethod
    def single(cls, problem: _Problem, start: Tensor, loss: int, pairs: int) -> Self:
        batch, n, m = start.shape
        atoms = cls(
            start.new_zeros(batch, _SLOTS, n, m),
            start.new_zeros(batch, _SLOTS, n, m),
            start.new_zeros(batch, _SLOTS),
            start.new_zeros(batch, _SLOTS),
            start.new_zeros(batch, _SLOTS, _SLOTS),
        )
        atoms.put(problem, start, torch.zeros_like(problem.alpha, dtype=torch.int64), loss, pairs)
        atoms.weights[:, 0] = 1
        return atoms

    def with_free_slot(self) -> "_Atoms":
        if (self.weights == 0).any(1).all():
            return self
        pad = torch.nn.functional.pad
        return _Atoms(
            pad(self.plans, (0, 0, 0, 0, 0, _SLOTS)),
            pad(self.pair_costs, (0, 0, 0, 0, 0, _SLOTS)),
            pad(self.weights, (0, _SLOTS)),
            pad(self.linear, (0, _SLOTS)),
            pad(self.form, (0, _SLOTS, 0, _SLOTS)),
        )

    def put(self, problem: _Problem, plan: Tensor, slot: Tensor, loss: int, pairs: int) -> None:
        """Fill a free slot of every item with a coupling of weight 0."""
        item = torch.arange(len(slot), device=slot.device)
        cost_of_pairs = pair_cost(plan, problem.struct_x, problem.struct_y, loss, pairs)
        self.plans[item, slot] = plan
        self.pair_costs[item, slot] = cost_of_pairs
        self.linear[item, slot] = (problem.cost * plan).sum((1, 2))
        for other in range(self.weights.shape[1]):
            product = (cost_of_pairs * self.plans[:, other]).sum((1, 2))
            self.form[item, slot, other] = product
            self.form[item, other, slot] = product

    def slopes(self, alpha: Tensor) -> Tensor:
        """Return d F / d w_a, (B, K)."""
        quadratic = _weighted_sum(self.weights, self.form)
        return (1 - alpha)[:, None] * self.linear + alpha[:, None] * quadratic

    def rebalance(self, alpha: Tensor, fresh: Tensor, enough: Tensor) -> None:
        """Move weight between the atoms, exactly per pair, until their own gap is small.

        Each step moves weight from the atom of steepest slope to the one of least. ``fresh`` is the
        slot that takes part although it has no weight yet. At least one step is made.
        """
        item = torch.arange(len(fresh), device=fresh.device)
        weights, form = self.weights, self.form
        in_use = weights > 0
        in_use[item, fresh] = True
        most_steps = 4 * in_use.sum(1)
        slopes = self.slopes(alpha)
        moving = torch.ones_like(fresh, dtype=torch.bool)
        for step in range(int(most_steps.max())):
            up = torch.where(in_use, slopes, torch.inf).argmin(1)
            down = torch.where(weights > 0, slopes, -torch.inf).argmax(1)
            local = slopes[item, down] - slopes[item, up]
            moving = moving & (local > 0) & (step < most_steps)
            if step > 0:
                moving = moving & (local > enough)
            if not moving.any():
                break
            curvature = alpha * (
                form[item, up, up] + form[item, down, down] - 2 * form[item, up, down]
            )
            most = weights[item, down]
            exact = torch.where(curvature > 0, local / curvature, torch.inf)
            moved = torch.where(moving, torch.minimum(exact, most), 0)
            weights[item, up] += moved
            weights[item, down] -= moved  # exactly 0 when all of it goes: the slot is free again
            slopes = slopes + (alpha * moved)[:, None] * (form[item, up] - form[item, down])
            in_use = torch.where(moving[:, None], weights > 0, in_use)


def _weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """Sum over the slots in their order: empty slots, which other items may need, change no bit."""
    total = torch.zeros_like(values[:, 0])
    for slot in range(weights.shape[1]):
        share = weights[:, slot].reshape(-1, *[1] * (total.dim() - 1))
        total = total + share * values[:, slot]
    return total


def _start(
    problem: _Problem, number: int, init: Tensor, start_costs: Tensor, pairs: int
) -> tuple[Tensor, int]:
    """Return the coupling of one start and the number of transport problems it took."""
    cost, a, b, alpha = problem.cost, problem.a, problem.b, problem.alpha
    if init.numel():
        if number == 0:
            return torch.where((a != 0)[:, :, None] & (b != 0)[:, None, :], init, 0), 0
        number -= 1
    if number == 0:
        signature = signature_distance(problem.struct_x, problem.struct_y, a, b, pairs)
        weight = alpha[:, None, None]
        return transport((1 - weight) * cost + weight * signature, a, b)[0], 1
    if number == 1:
        return transport(cost, a, b)[0], 1
    if number == 2:
        return _order_preserving(a, b), 0
    chosen = start_costs[number - NUM_STRUCTURAL_STARTS]
    return transport(chosen.expand_as(cost), a, b)[0], 1


def _order_preserving(a: Tensor, b: Tensor) -> Tensor:
    """Couple both sides in their order (the north-west corner rule)."""
    end_a, end_b = a.cumsum(1), b.cumsum(1)
    begin_a = torch.nn.functional.pad(end_a[:, :-1], (1, 0))
    begin_b = torch.nn.functional.pad(end_b[:, :-1], (1, 0))
    overlap = torch.minimum(end_a[:, :, None], end_b[:, None, :]) - torch.maximum(
        begin_a[:, :, None], begin_b[:, None, :]
    )
    return overlap.clamp_min(0)


def _descend(
    problem: _Problem, start: Tensor, loss: int, pairs: int, tol: float, max_iter: int
) -> _Solution:
    """Run the conditional gradient from one coupling; each item leaves when it is done."""
    batch = start.shape[0]
    # A start without a coupling (impossible masses) must not hide why: the first transport problem
    # says.
    start = torch.where(start.isnan(), 0, start)
    solution = _Solution.unsolved(problem)
    rounding = 8 * torch.finfo(start.dtype).eps
    items = torch.arange(batch, device=start.device)
    atoms = _Atoms.single(problem, start, loss, pairs)
    for iteration in range(1, max_iter + 1):
        if len(items) == 0:
            break
        alpha = problem.alpha
        weights = atoms.weights
        on_plan = _weighted_sum(weights, atoms.slopes(alpha))
        linear = _weighted_sum(weights, atoms.linear)
        objective = 0.5 * ((1 - alpha) * linear + on_plan)
        gradient = (1 - alpha)[:, None, None] * problem.cost
        gradient = gradient + alpha[:, None, None] * _weighted_sum(weights, atoms.pair_costs)
        vertex, on_vertex, f, g, _, status = transport(gradient, problem.a, problem.b)
        f, g = torch.where(problem.a != 0, f, 0), torch.where(problem.b != 0, g, 0)
        gap = on_plan - on_vertex
        # A relative stop alone never ends at objective 0, where the gap is rounding.
        small = tol * objective.abs() + rounding * (on_plan.abs() + on_vertex.abs())
        solved = (status == CONVERGED) & (gap <= small)
        status = torch.where((status == CONVERGED) & ~gap.isfinite(), NONFINITE, status)
        failed = status != CONVERGED
        status = torch.where(solved | failed, status, MAX_ITER).to(torch.int32)

        done = solved | failed
        if iteration == max_iter:
            done = torch.ones_like(done)
        finished = items[done]
        plan = _weighted_sum(weights, atoms.plans)
        invalid = failed[done]
        solution.plan[finished] = torch.where(invalid[:, None, None], torch.nan, plan[done])
        solution.objective[finished] = torch.where(invalid, torch.nan, objective[done])
        solution.f[finished], solution.g[finished] = f[done], g[done]
        solution.gap[finished] = torch.where(invalid, torch.nan, gap[done])
        solution.iterations[finished] = iteration
        solution.status[finished] = status[done]

        going = (~done).nonzero().squeeze(1)
        items, problem, atoms = items[going], problem.select(going), atoms.select(going)
        if len(items) == 0:
            break
        atoms = atoms.with_free_slot()
        fresh = (atoms.weights == 0).int().argmax(1)
        atoms.put(problem, vertex[going], fresh, loss, pairs)
        atoms.rebalance(problem.alpha, fresh, 0.1 * gap[going])
    return solution
