"""Unbalanced entropic optimal transport, in the log domain with one stop per item."""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from hotnas_torch.ot._reference.sinkhorn import beyond_dtype, cost_unit
from hotnas_torch.ot._reference.transport import (
    CONVERGED,
    INFEASIBLE,
    MAX_ITER,
    NONFINITE,
    feasibility,
)

__all__ = ["PENALTY_KL", "PENALTY_TV", "Penalty", "unbalanced_sinkhorn"]

PENALTY_KL, PENALTY_TV = 0, 1
_PATIENCE = 50
"""Iterations that move no dual by more than its rounding, after which an item stops."""


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
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    residual = torch.full_like(a.sum(1), torch.nan)
    iterations = torch.zeros(len(a), dtype=torch.int32, device=a.device)
    still = torch.zeros_like(iterations)
    status = _masses(kernel, a, b, held=side_x.held and side_y.held)
    rounding = 2 * torch.finfo(a.dtype).eps
    larger = torch.maximum(a.sum(1), b.sum(1))

    items = (status == CONVERGED).nonzero().squeeze(1)
    for iteration in range(1, max_iter + 1):
        if len(items) == 0:
            break
        costs, before = kernel[items], f[items]
        mass_x, mass_y = of_a[items], of_b[items]
        there_x, there_y = rows[items], columns[items]
        now_g = g[items]
        sums = (mass_y[:, None, :] + (now_g[:, None, :] - costs) / epsilon).logsumexp(2)
        now_f = torch.where(there_x, side_x.draw(-epsilon * sums, epsilon), 0)
        now_f, now_g = _levelled(now_f, now_g, mass_x, mass_y, side_x, side_y, level)
        sums = (mass_x[:, :, None] + (now_f[:, :, None] - costs) / epsilon).logsumexp(1)
        now_g = torch.where(there_y, side_y.draw(-epsilon * sums, epsilon), 0)
        now_f, now_g = _levelled(now_f, now_g, mass_x, mass_y, side_x, side_y, level)
        f[items], g[items] = now_f, now_g
        exponent = (now_f[:, :, None] + now_g[:, None, :] - costs) * (1 / epsilon)
        plan = (mass_x[:, :, None] + mass_y[:, None, :] + exponent).exp()
        error = torch.maximum(
            side_x.missed(now_f, a[items], plan.sum(2)),
            side_y.missed(now_g, b[items], plan.sum(1)),
        )
        error = error / larger[items]
        moved = torch.where(there_x, now_f - before, 0).abs().amax(1)
        size = torch.where(there_x, now_f, 0).abs().amax(1)
        still[items] = torch.where(2 * moved <= rounding * size, still[items] + 1, 0)
        residual[items] = error
        iterations[items] = iteration
        # the sums of the masses are rounded, too
        outcome = torch.where(error <= tol - rounding, CONVERGED, MAX_ITER).to(torch.int32)
        status[items] = torch.where(error.isfinite(), outcome, NONFINITE)
        items = items[(status[items] == MAX_ITER) & (still[items] < _PATIENCE)]

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

    The dual problem is piecewise linear in it, with corners where a dual meets its upper bound.
    What lies above the bound then is cut off, which only helps.
    """
    there_x, there_y = a > 0, b > 0

    def value(level: Tensor) -> Tensor:
        on_x = (f[:, None, :] + level[:, :, None]).clamp(max=x.bound)
        on_y = (g[:, None, :] - level[:, :, None]).clamp(max=y.bound)
        return (a[:, None, :] * on_x).sum(2) + (b[:, None, :] * on_y).sum(2)

    low = torch.where(there_x, -x.bound - f, -torch.inf).amax(1, keepdim=True)
    high = torch.where(there_y, g + y.bound, torch.inf).amin(1, keepdim=True)
    levels = torch.cat(
        [torch.where(there_x, x.bound - f, 0), torch.where(there_y, g - y.bound, 0)], 1
    )
    levels = torch.where(levels.isfinite(), levels, 0).clamp(low, high)
    levels = torch.cat([torch.zeros_like(levels[:, :1]), levels], 1)
    level = levels.gather(1, value(levels).argmax(1, keepdim=True))
    f = torch.where(there_x, (f + level).clamp(-x.bound, x.bound), 0)
    return f, torch.where(there_y, (g - level).clamp(-y.bound, y.bound), 0)


def _masses(cost: Tensor, a: Tensor, b: Tensor, *, held: bool) -> Tensor:
    """Return per item NONFINITE, INFEASIBLE (negative masses, or none) or, so far, CONVERGED."""
    if held:
        return feasibility(a, b, cost)
    finite = cost.isfinite().all(2).all(1) & a.isfinite().all(1) & b.isfinite().all(1)
    positive = (a >= 0).all(1) & (b >= 0).all(1) & (a.sum(1) > 0) & (b.sum(1) > 0)
    status = torch.where(positive, CONVERGED, INFEASIBLE)
    return torch.where(finite, status, NONFINITE).to(torch.int32)
