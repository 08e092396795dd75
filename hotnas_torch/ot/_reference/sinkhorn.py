"""Entropic optimal transport of a batch of problems, in the log domain with one stop per item."""

from dataclasses import dataclass
from math import frexp, ldexp

import torch
from torch import Tensor

from hotnas_torch.ot._reference.chunks import Rows, iterate
from hotnas_torch.ot._reference.transport import CONVERGED, INFEASIBLE, MAX_ITER, NONFINITE

__all__ = ["Duals", "Masses", "beyond_dtype", "cost_unit", "log_domain_sinkhorn", "sinkhorn"]

_PATIENCE = 50
"""Iterations that move no dual by more than its rounding, after which an item stops."""


@dataclass(frozen=True)
class Masses(Rows):
    """Problems of Sinkhorn: costs in units, masses, their logarithms, and which there are."""

    cost: Tensor
    a: Tensor
    b: Tensor
    log_a: Tensor
    log_b: Tensor
    rows: Tensor
    columns: Tensor


@dataclass(frozen=True)
class Duals(Rows):
    """What Sinkhorn has found; `still` counts the iterations that moved no dual."""

    f: Tensor
    g: Tensor
    residual: Tensor
    iterations: Tensor
    still: Tensor
    status: Tensor

    @classmethod
    def begun(cls, f: Tensor, g: Tensor, status: Tensor) -> "Duals":
        """Return where problems begin."""
        zero = torch.zeros_like(status)
        return cls(f, g, torch.full_like(f.sum(1), torch.nan), zero, zero.clone(), status)

    def after(
        self, f: Tensor, g: Tensor, error: Tensor, tol: float, number: int, rows: Tensor
    ) -> tuple["Duals", Tensor]:
        """Return what an iteration has found, and which items go on."""
        rounding = 2 * torch.finfo(f.dtype).eps
        with torch.no_grad():
            moved = torch.where(rows, f - self.f, 0).abs().amax(1)
            size = torch.where(rows, f, 0).abs().amax(1)
            still = torch.where(2 * moved <= rounding * size, self.still + 1, 0)
            # the sums of the masses are rounded, too
            outcome = torch.where(error <= tol - rounding, CONVERGED, MAX_ITER).to(torch.int32)
            status = torch.where(error.isfinite(), outcome, NONFINITE)
            iterations = torch.full_like(self.iterations, number)
        found = Duals(f, g, error, iterations, still, status)
        return found, (status == MAX_ITER) & (still < _PATIENCE)


def sinkhorn(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""Solve :math:`\min_T \langle C, T \rangle + \epsilon \sum_{ij} T_{ij} (\log T_{ij} - 1)`.

    The plan is exp((f_i + g_j - C_ij) / epsilon). Each iteration sets f so that the rows are right,
    then g so that the columns are, starting from g = 0.

    Args:
        cost: Costs, shape (B, n, m), float32 or float64. Entries at zero-weight nodes are not used.
        a: Row masses, shape (B, n), non-negative.
        b: Column masses, shape (B, m), with the same sum as `a`.
        epsilon: Weight of the entropy, in units of the cost, > 0.
        tol: L1 error to stop at, of the row and of the column masses of the plan that the duals
            give as they are stored. Where their rounding keeps it from that, an item stops when the
            duals stand still.
        max_iter: Most iterations of an item.

    Returns:
        Duals `f` (B, n) and `g` (B, m), -inf at zero weights; `residual` (B,), the L1 error
        of the row or of the column masses, whichever is larger; `iterations` (B,) int32;
        `status` (B,) int32. Items with status NONFINITE or INFEASIBLE are NaN.

    Complexity:
        O(n m) time per iteration, O(n m) memory per item.

    Reference:
        M. Cuturi, Sinkhorn distances, NeurIPS 2013; G. Peyre, M. Cuturi, Computational optimal
        transport, 2019, section 4.4.
    """
    return log_domain_sinkhorn(cost, a, b, torch.zeros_like(b), epsilon, tol, max_iter)


def log_domain_sinkhorn(
    cost: Tensor, a: Tensor, b: Tensor, g: Tensor, epsilon: float, tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run `sinkhorn` from given column duals `g` (B, m), which may be -inf at zero weights."""
    unit = cost_unit(epsilon)
    epsilon /= unit
    rows, columns = a != 0, b != 0
    kernel = torch.where(rows[:, :, None] & columns[:, None, :], cost, 0) / unit
    # NaN at negative weights; no gradient of log 0, should autograd record the steps.
    log_a, log_b = torch.where(rows, a, 1).log(), torch.where(columns, b, 1).log()
    found = Duals.begun(
        torch.where(rows, torch.zeros_like(a), -torch.inf),
        torch.where(columns, g / unit, -torch.inf),
        _feasibility(kernel, a, b),
    )

    def step(p: Masses, now: Duals, number: int) -> tuple[Duals, Tensor]:
        sums = ((now.g[:, None, :] - p.cost) / epsilon).logsumexp(2)
        f = torch.where(p.rows, epsilon * (p.log_a - sums), -torch.inf)
        sums = ((f[:, :, None] - p.cost) / epsilon).logsumexp(1)
        g = torch.where(p.columns, epsilon * (p.log_b - sums), -torch.inf)
        with torch.no_grad():
            error = _coupling_error(p.cost, p.a, p.b, f, g, epsilon)
        return now.after(f, g, error, tol, number, p.rows)

    masses = Masses(kernel, a, b, log_a, log_b, rows, columns)
    iterate(masses, found, found.status == CONVERGED, step, max_iter)
    f, g, residual, iterations, status = (
        found.f, found.g, found.residual, found.iterations, found.status,
    )  # fmt: skip

    f, g = unit * f, unit * g
    beyond = beyond_dtype(f, g, rows, columns)
    status = torch.where((status <= MAX_ITER) & beyond, NONFINITE, status)
    failed = ((status == NONFINITE) | (status == INFEASIBLE))[:, None]
    f, g = torch.where(failed, torch.nan, f), torch.where(failed, torch.nan, g)
    return f, g, residual, iterations, status


def _coupling_error(
    cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, epsilon: float
) -> Tensor:
    """L1 error of the row or of the column masses of the coupling, whichever is larger."""
    plan = ((f[:, :, None] + g[:, None, :] - cost) * (1 / epsilon)).exp()
    return torch.maximum((plan.sum(2) - a).abs().sum(1), (plan.sum(1) - b).abs().sum(1))


def beyond_dtype(f: Tensor, g: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Whether duals of nodes that are there leave the range in which sums of a few are finite."""
    return (rows & (4 * f).isinf()).any(1) | (columns & (4 * g).isinf()).any(1)


def cost_unit(epsilon: float) -> float:
    """Return the power of 4 in units of which `epsilon` lies between 1/2 and 2.

    In this unit nothing overflows that does not among the caller's numbers. Going to it rounds
    nothing, nor does its root, by which structures that are squared are scaled.
    """
    exponent = min(frexp(epsilon)[1], 1022)  # the largest that is a number
    return ldexp(1.0, exponent - exponent % 2)


def _feasibility(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return per item NONFINITE, INFEASIBLE (negative or unequal masses) or, so far, CONVERGED."""
    total_a, total_b = a.sum(1), b.sum(1)
    finite = cost.isfinite().all(2).all(1) & total_a.isfinite() & total_b.isfinite()
    slack = torch.finfo(a.dtype).eps ** 0.5 * torch.maximum(total_a, total_b)
    balanced = (a >= 0).all(1) & (b >= 0).all(1) & ((total_a - total_b).abs() <= slack)
    status = torch.where(balanced, CONVERGED, INFEASIBLE)
    return torch.where(finite, status, NONFINITE).to(torch.int32)
