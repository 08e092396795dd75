"""What every coupling and every pair of duals must satisfy, whatever the solver."""

import torch
from torch import Tensor


def marginal_error(plan: Tensor, a: Tensor, b: Tensor) -> float:
    rows, columns = (plan.sum(-1) - a).abs(), (plan.sum(-2) - b).abs()
    return max(rows.max().item(), columns.max().item()) if plan.numel() else 0.0


def check_coupling(plan: Tensor, a: Tensor, b: Tensor) -> None:
    """Not negative, and marginals to 1e-12 (float64) or 1e-6 (float32)."""
    assert (plan >= 0).all()
    assert marginal_error(plan, a, b) <= (1e-12 if plan.dtype == torch.float64 else 1e-6)


def check_vertex(plan: Tensor) -> None:
    """A vertex of the transport polytope: the support, a bipartite graph, has no cycle."""
    for item in plan:
        group = list(range(item.shape[0] + item.shape[1]))

        def root(node: int, group: list[int] = group) -> int:
            while group[node] != node:
                node = group[node]
            return node

        for i, j in (item > 0).nonzero().tolist():
            x, y = root(i), root(item.shape[0] + j)
            assert x != y, "the support has a cycle"
            group[x] = y


def check_duals(cost: Tensor, plan: Tensor, f: Tensor, g: Tensor, a: Tensor, b: Tensor) -> None:
    """Feasible wherever one node has mass, and tight where the plan has (the constant is free)."""
    tolerance = 200 * torch.finfo(cost.dtype).eps * (1 + cost.abs().max().item())
    slack = cost - f[..., :, None] - g[..., None, :]
    relevant = (a > 0)[..., :, None] | (b > 0)[..., None, :]
    assert slack[relevant].min() >= -tolerance
    assert slack[plan > 0].abs().max() <= tolerance
