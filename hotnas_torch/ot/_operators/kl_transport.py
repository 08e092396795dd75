"""Unbalanced transport with Kullback-Leibler penalties and no entropy, of a batch, exactly."""

from typing import Any

import torch
from torch import Tensor

from hotnas_torch.ot._operators.operator import Backend, Operator
from hotnas_torch.ot._reference.kl_transport import kl_transport as reference

__all__ = ["kl_transport"]


def kl_transport(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    marginal_x: float,
    marginal_y: float,
    tol: float,
    max_iter: int,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Minimise <cost, T> + marginal_x KL(T 1 | a) + marginal_y KL(T' 1 | b) over T >= 0.

    The arguments and results are those of `hotnas_torch.ot._reference.kl_transport.kl_transport`,
    which is the specification.

    Args:
        cost: Costs, shape (B, n, m), float32 or float64.
        a: Row masses, shape (B, n). Nodes of zero weight are absent.
        b: Column masses, shape (B, m).
        marginal_x: Weight of the penalty of the rows, > 0, or infinite.
        marginal_y: Weight of that of the columns; not both are infinite.
        tol: Relative gap up to which an item has converged.
        max_iter: Most arcs that enter.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        `plan` (B, n, m); `objective` (B,); feasible duals `f` (B, n), `g` (B, m); `gap` (B,);
        `iterations` (B,) int32; `status` (B,) int32.

    Differentiability:
        None; `unbalanced_transport` has its derivatives.

    Complexity:
        O(n m) per arc that enters for small problems, about n + m of them.
    """
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _OPERATOR(
        cost, a, b, marginal_x, marginal_y, tol, max_iter, backend=backend
    )
    return result


def _fake(cost: Tensor, a: Tensor, b: Tensor, *_: Any) -> tuple[Tensor, ...]:
    batch = cost.shape[0]
    counts = cost.new_empty(batch, dtype=torch.int32)
    return (
        torch.empty_like(cost, memory_format=torch.contiguous_format),
        cost.new_empty(batch),
        torch.empty_like(a, memory_format=torch.contiguous_format),
        torch.empty_like(b, memory_format=torch.contiguous_format),
        cost.new_empty(batch),
        counts,
        torch.empty_like(counts),
    )


_OPERATOR = Operator(
    "kl_transport",
    reference,
    fake=_fake,
    outputs=("plan", "objective", "f", "g", "gap", "iterations", "status"),
)
