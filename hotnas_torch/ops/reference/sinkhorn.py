"""Entropic optimal transport of a batch of problems, in the log domain with one stop per item."""

import torch
from torch import Tensor

from hotnas_torch.ops.reference.transport import CONVERGED, INFEASIBLE, MAX_ITER, NONFINITE

__all__ = ["log_domain_sinkhorn", "sinkhorn"]


def sinkhorn(
    cost: Tensor, a: Tensor, b: Tensor, epsilon: float, tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    r"""Solve :math:`\min_T \langle C, T \rangle + \epsilon \sum_{ij} T_{ij} (\log T_{ij} - 1)`.

    The plan is exp((f_i + g_j - C_ij) / epsilon). Each iteration sets f so that the rows are right,
    then g so that the columns are, starting from g = 0.

    Args:
        cost: Costs, shape (B, n, m), float32 or float64. Entries at zero-weight nodes are not used.
        a: Row masses, shape (B, n), non-negative.
        b: Column masses, shape (B, m), with the same sum as ``a``.
        epsilon: Weight of the entropy, in units of the cost, > 0.
        tol: L1 error of the row marginal to stop at (the column marginal is met).
        max_iter: Most iterations of an item.

    Returns:
        Duals ``f`` (B, n) and ``g`` (B, m), -inf at zero weights; ``residual`` (B,), the L1 error
        of the row marginal; ``iterations`` (B,) int32; ``status`` (B,) int32. Items with status
        NONFINITE or INFEASIBLE are NaN.

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
    """Run `sinkhorn` from given column duals ``g`` (B, m), which may be -inf at zero weights."""
    rows, columns = a != 0, b != 0
    kernel = torch.where(rows[:, :, None] & columns[:, None, :], cost, 0) / -epsilon
    # NaN at negative weights; no gradient of log 0, should autograd record the steps.
    log_a, log_b = torch.where(rows, a, 1).log(), torch.where(columns, b, 1).log()
    log_v = torch.where(columns, g / epsilon, -torch.inf)
    log_u = torch.where(rows, torch.zeros_like(a), -torch.inf)
    residual = torch.full_like(a.sum(1), torch.nan)
    iterations = torch.zeros(len(a), dtype=torch.int32, device=a.device)
    status = _feasibility(kernel, a, b)

    items = (status == CONVERGED).nonzero().squeeze(1)
    for iteration in range(1, max_iter + 1):
        if len(items) == 0:
            break
        row_sums = (kernel[items] + log_v[items, None, :]).logsumexp(2)
        log_u[items] = torch.where(rows[items], log_a[items] - row_sums, -torch.inf)
        column_sums = (kernel[items] + log_u[items, :, None]).logsumexp(1)
        log_v[items] = torch.where(columns[items], log_b[items] - column_sums, -torch.inf)
        row_sums = (kernel[items] + log_v[items, None, :]).logsumexp(2)
        off = ((log_u[items] + row_sums).exp() - a[items]).abs()
        error = torch.where(rows[items], off, 0).sum(1)
        residual[items] = error.detach()
        iterations[items] = iteration
        status[items] = torch.where(error <= tol, CONVERGED, MAX_ITER).to(torch.int32)
        status[items] = torch.where(error.isfinite(), status[items], NONFINITE)
        items = items[status[items] == MAX_ITER]

    failed = ((status == NONFINITE) | (status == INFEASIBLE))[:, None]
    f = torch.where(failed, torch.nan, epsilon * log_u)
    g = torch.where(failed, torch.nan, epsilon * log_v)
    return f, g, residual, iterations, status


def _feasibility(kernel: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return per item NONFINITE, INFEASIBLE (negative or unequal masses) or, so far, CONVERGED."""
    total_a, total_b = a.sum(1), b.sum(1)
    finite = kernel.isfinite().all(2).all(1) & total_a.isfinite() & total_b.isfinite()
    slack = torch.finfo(a.dtype).eps ** 0.5 * torch.maximum(total_a, total_b)
    balanced = (a >= 0).all(1) & (b >= 0).all(1) & ((total_a - total_b).abs() <= slack)
    status = torch.where(balanced, CONVERGED, INFEASIBLE)
    return torch.where(finite, status, NONFINITE).to(torch.int32)
