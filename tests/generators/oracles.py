"""Slow and obvious computations to hold the solvers to."""

import numpy as np
import scipy.optimize
import torch
from torch import Tensor


def linprog_objective(cost: Tensor, a: Tensor, b: Tensor) -> float:
    """The value of one transport problem (n, m), by scipy's linear programming."""
    n, m = cost.shape
    rows = np.kron(np.eye(n), np.ones((1, m)))
    columns = np.kron(np.ones((1, n)), np.eye(m))
    result = scipy.optimize.linprog(
        cost.double().flatten().numpy(),
        A_eq=np.vstack([rows, columns]),
        b_eq=np.concatenate([a.double().numpy(), b.double().numpy()]),
        method="highs",
    )
    assert result.status == 0, result.message
    return float(result.fun)


def in_pair_set(n: int, m: int, pairs: int) -> Tensor:
    """Whether ((i, j), (k, l)) belongs to the pair set, bool (n, m, n, m)."""
    i = torch.arange(n)[:, None, None, None]
    j = torch.arange(m)[None, :, None, None]
    k = torch.arange(n)[None, None, :, None]
    l = torch.arange(m)[None, None, None, :]
    if pairs == 0:
        return torch.ones(n, m, n, m, dtype=torch.bool)
    if pairs == 1:
        return ((i != k) & (j != l)).expand(n, m, n, m)
    return ((i < k) & (j < l)).expand(n, m, n, m)


def pair_tensor(struct_x: Tensor, struct_y: Tensor, loss: int, pairs: int) -> Tensor:
    """L(struct_x_ik - struct_y_jl) on the pair set, (B, n, m, n, m)."""
    difference = struct_x[:, :, None, :, None] - struct_y[:, None, :, None, :]
    terms = difference.abs() if loss == 0 else difference.square()
    return terms * in_pair_set(struct_x.shape[1], struct_y.shape[1], pairs)


def fgw_objective(
    plan: Tensor,
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    alpha: Tensor,
    loss: int,
    pairs: int,
) -> Tensor:
    """F of a batch of couplings, by the full fourfold sum; differentiable by autograd."""
    terms = pair_tensor(struct_x, struct_y, loss, pairs)
    quadratic = torch.einsum("bij,bkl,bijkl->b", plan, plan, terms)
    return (1 - alpha) * (cost * plan).sum((1, 2)) + alpha * quadratic
