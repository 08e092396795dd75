"""Unbalanced entropic optimal transport, in the log domain with one stop per item."""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from hotnas_torch.ot._reference.chunks import iterate
from hotnas_torch.ot._reference.sinkhorn import Duals, Masses, beyond_dtype, cost_unit
from hotnas_torch.ot._reference.transport import (
    CONVERGED,
    INFEASIBLE,
    MAX_ITER,
    NONFINITE,
    feasibility,
)

__all__ = ["PENALTY_KL", "PENALTY_TV", "Penalty", "unbalanced_sinkhorn"]

PENALTY_KL, PENALTY_TV = 0, 1


@dataclass(frozen=True)
class Penalty:
    """What a side pays for masses that are not right: `weight` times KL, or the total variation."""

    weight: float
    kind: int

    @property
    def held(self) -> bool:
        """Whether the masses must be right."""
        return self.weight > 1e300

    @property
    def bound(self) -> float:
        """The largest magnitude of a dual."""
        pinned = self.weight == 0 or (self.kind == PENALTY_TV and not self.held)
        return self.weight if pinned else inf

    @property
    def inverse(self) -> float:
        """1 / weight where masses follow from the duals, as mass * exp(-dual / weight); else 0."""
        follow = self.kind == PENALTY_KL and self.weight > 0 and not self.held
        return 1 / self.weight if follow else 0.0

    def draw(self, dual: Tensor, epsilon: float) -> Tensor:
        """Draw back a dual that would make its mass right."""
        if self.kind == PENALTY_KL and not self.held:
            dual = self.weight / (self.weight + epsilon) * dual
        return dual.clamp(-self.bound, self.bound)

    def missed(self, dual: Tensor, mass: Tensor, found: Tensor) -> Tensor:
        """L1 distance of masses (B, n) from what the duals ask for, which beyond a bound is any."""
        more = found - mass * (-dual * self.inverse).exp()
        off = torch.where(more > 0, more * (dual != -self.bound), -more * (dual != self.bound))
        return off.sum(1)


def unbalanced_sinkhorn(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: float,
    marginal_x: float,
    marginal_y: float,
    penalty: int,
    tol: float,
    max_iter: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""Solve entropic transport whose masses may be wrong, at a price.

    .. math:: \min_{T \ge 0} \langle C, T \rangle + \epsilon \, \mathrm{KL}(T | a b^\top)
        + \rho_x D(T 1 | a) + \rho_y D(T^\top 1 | b)

    with KL(p | q) = sum of p log(p / q) - p + q. The plan is a_i b_j exp((f_i + g_j - C_ij) /
    epsilon). Each iteration sets f to what would make the rows right, drawn back by the factor
    rho / (rho + epsilon) for KL, to [-rho, rho] for the total variation; then g likewise. After
    each half, the duals take the level f + c, g - c that is best, which changes no plan.

    Args:
        cost: Costs, shape (B, n, m), float32 or float64. Entries at zero-weight nodes are not used.
        a: Row masses, shape (B, n), non-negative, of any positive total.
        b: Column masses, shape (B, m), likewise.
        epsilon: Weight of the entropy, in units of the cost, > 0.
        marginal_x: Weight of the penalty of the rows, in units of the cost, >= 0; infinite for
            masses that are held. Where both are, the totals must agree.
        marginal_y: Weight of that of the columns.
        penalty: 0 for D = KL, 1 for the total variation, sum of abs(p - q).
        tol: L1 distance to stop at, of the masses of the plan from those that the duals as they are
            stored ask for: a exp(-f / rho) for KL; a for the total variation, or any that is less
            where f = rho, more where f = -rho. In units of the larger total of `a` and `b`.
        max_iter: Most iterations of an item.

    Returns:
        Duals `f` (B, n) and `g` (B, m), -inf at zero weights; `residual` (B,), that distance, the
        larger of the rows' and the columns'; `iterations` (B,) int32; `status` (B,) int32. Items
        with status NONFINITE or INFEASIBLE are NaN.

    Complexity:
        O(n m) time per iteration, O(n m) memory per item.

    Reference:
        L. Chizat, G. Peyre, B. Schmitzer, F.-X. Vialard, Scaling algorithms for unbalanced optimal
        transport problems, Mathematics of Computation 2018; T. Sejourne, F.-X. Vialard, G. Peyre,
        Faster unbalanced optimal transport, AISTATS 2022.
    """
    unit = cost_unit(epsilon)
    epsilon /= unit
    side_x, side_y = (Penalty(weight / unit, penalty) for weight in (marginal_x, marginal_y))
    level = _level(side_x, side_y)
    rows, columns = a != 0, b != 0
    present = rows[:, :, None] & columns[:, None, :]
    kernel = torch.where(present, cost, 0) / unit
    log_a, log_b = torch.where(rows, a, 1).log(), torch.where(columns, b, 1).log()
    of_a, of_b = torch.where(rows, log_a, -torch.inf), torch.where(columns, log_b, -torch.inf)
    found = Duals.begun(
        torch.zeros_like(a),
        torch.zeros_like(b),
        _masses(kernel, a, b, held=side_x.held and side_y.held),
    )

    def step(p: Masses, now: Duals, number: int) -> tuple[Duals, Tensor]:
        sums = (p.log_b[:, None, :] + (now.g[:, None, :] - p.cost) / epsilon).logsumexp(2)
        f = torch.where(p.rows, side_x.draw(-epsilon * sums, epsilon), 0)
        f, g = _levelled(f, now.g, p.log_a, p.log_b, side_x, side_y, level)
        sums = (p.log_a[:, :, None] + (f[:, :, None] - p.cost) / epsilon).logsumexp(1)
        g = torch.where(p.columns, side_y.draw(-epsilon * sums, epsilon), 0)
        f, g = _levelled(f, g, p.log_a, p.log_b, side_x, side_y, level)
        exponent = (f[:, :, None] + g[:, None, :] - p.cost) * (1 / epsilon)
        plan = (p.log_a[:, :, None] + p.log_b[:, None, :] + exponent).exp()
        error = torch.maximum(
            side_x.missed(f, p.a, plan.sum(2)), side_y.missed(g, p.b, plan.sum(1))
        )
        larger = torch.maximum(p.a.sum(1), p.b.sum(1))
        return now.after(f, g, error / larger, tol, number, p.rows)

    masses = Masses(kernel, a, b, of_a, of_b, rows, columns)
    iterate(masses, found, found.status == CONVERGED, step, max_iter)
    f, g, residual, iterations, status = (
        found.f, found.g, found.residual, found.iterations, found.status,
    )  # fmt: skip

    f, g = unit * f, unit * g
    beyond = beyond_dtype(f, g, rows, columns)
    status = torch.where((status <= MAX_ITER) & beyond, NONFINITE, status)
    failed = ((status == NONFINITE) | (status == INFEASIBLE))[:, None]
    f, g = torch.where(rows, f, -torch.inf), torch.where(columns, g, -torch.inf)
    f, g = torch.where(failed, torch.nan, f), torch.where(failed, torch.nan, g)
    residual = torch.where(failed[:, 0], torch.nan, residual)
    return f, g, residual, iterations, status


def _level(x: Penalty, y: Penalty) -> float:
    """By which share of a difference of logarithms of masses the level of the duals is off."""
    if x.kind == PENALTY_TV or x.weight == 0 or y.weight == 0 or (x.held and y.held):
        return 0.0
    if x.held or y.held:
        return y.weight if x.held else x.weight
    return x.weight / (1 + x.weight / y.weight)


def _levelled(
    f: Tensor, g: Tensor, log_a: Tensor, log_b: Tensor, x: Penalty, y: Penalty, level: float
) -> tuple[Tensor, Tensor]:
    """Give the duals their best level."""
    if x.kind == PENALTY_TV and x.bound > 0 and y.bound > 0 and min(x.bound, y.bound) < inf:
        return _bounded_level(f, g, log_a.exp(), log_b.exp(), x, y)
    if level == 0:
        return f, g
    more = (log_a - f * x.inverse).logsumexp(1) - (log_b - g * y.inverse).logsumexp(1)
    more = torch.where(more.isfinite(), level * more, 0)[:, None]
    there_x, there_y = log_a != -torch.inf, log_b != -torch.inf
    return torch.where(there_x, f + more, 0), torch.where(there_y, g - more, 0)


def _bounded_level(
    f: Tensor, g: Tensor, a: Tensor, b: Tensor, x: Penalty, y: Penalty
) -> tuple[Tensor, Tensor]:
    """Give the duals the level that is best for the total variation.

    The dual problem is piecewise linear in it: its slope is the mass of the rows below their bound
    less that of all columns as the level rises, and likewise as it falls. Duals that pass their
    bound are cut off there, which only helps. Masses that agree up to rounding ask for no level.
    """
    there_x, there_y = a > 0, b > 0
    rows, columns = a.sum(1), b.sum(1)
    slack = (a.shape[1] + b.shape[1]) * torch.finfo(a.dtype).eps * (rows + columns)
    low = torch.where(there_x, f + x.bound, torch.inf).amin(1)
    high = torch.where(there_y, g + y.bound, torch.inf).amin(1)
    up = _least_level(x.bound - f, a, columns + slack, high)
    down = _least_level(y.bound - g, b, rows + slack, low)
    level = (up - down)[:, None]
    new_f = torch.where(x.bound - f <= level, x.bound, (f + level).clamp(min=-x.bound))
    new_g = torch.where(y.bound - g <= -level, y.bound, (g - level).clamp(min=-y.bound))
    moves = level != 0
    return (
        torch.where(there_x & moves, new_f, torch.where(there_x, f, 0)),
        torch.where(there_y & moves, new_g, torch.where(there_y, g, 0)),
    )


def _least_level(room: Tensor, mass: Tensor, enough: Tensor, most: Tensor) -> Tensor:
    """Least level of each item, up to `most`, at which no more mass has room left than `enough`."""
    levels = torch.cat([torch.zeros_like(most)[:, None], room, most[:, None]], 1)
    left = (mass[:, None, :] * (room[:, None, :] > levels[:, :, None])).sum(2)
    fits = (left <= enough[:, None]) | (levels == most[:, None])
    fits &= (levels >= 0) & (levels <= most[:, None])
    return torch.where(fits, levels, torch.inf).amin(1)


def _masses(cost: Tensor, a: Tensor, b: Tensor, *, held: bool) -> Tensor:
    """Return per item NONFINITE, INFEASIBLE (negative masses, or none) or, so far, CONVERGED."""
    if held:
        return feasibility(a, b, cost)
    finite = cost.isfinite().all(2).all(1) & a.isfinite().all(1) & b.isfinite().all(1)
    positive = (a >= 0).all(1) & (b >= 0).all(1) & (a.sum(1) > 0) & (b.sum(1) > 0)
    status = torch.where(positive, CONVERGED, INFEASIBLE)
    return torch.where(finite, status, NONFINITE).to(torch.int32)
