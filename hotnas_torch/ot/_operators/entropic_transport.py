"""Entropic transport with its coupling and values in one pass, where nothing is differentiated."""

from typing import Any

import torch
from torch import Tensor

from hotnas_torch.ot._operators.operator import Backend, Operator, has_values, is_tracked
from hotnas_torch.ot._reference.entropic_transport import entropic_transport as reference

__all__ = ["at_once", "entropic_transport"]


def entropic_transport(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: float,
    tol: float,
    max_iter: int,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Minimise <cost, T> + epsilon KL(T | a b') over the couplings T of `a` and `b`.

    The arguments and results are those of
    `hotnas_torch.ot._reference.entropic_transport.entropic_transport`, which is the specification.

    Args:
        cost: Costs, shape (B, n, m), float32 or float64.
        a: Row masses, shape (B, n). Nodes of zero weight are absent.
        b: Column masses, shape (B, m), with the same sum as `a`.
        epsilon: Weight of the entropy, in units of the cost, > 0.
        tol: L1 error to stop at, of the row and of the column masses of the plan.
        max_iter: Most iterations of an item.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        `plan` (B, n, m); `objective` (B,); `linear` (B,); duals `f` (B, n), `g` (B, m);
        `residual` (B,); `iterations` (B,) int32; `status` (B,) int32.

    Differentiability:
        None; `sinkhorn`, `entropic_plan` and `entropic_objective` have derivatives.

    Complexity:
        O(n m) per iteration; of each entry of the plan one exponential more.
    """
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _OPERATOR(
        cost, a, b, epsilon, tol, max_iter, backend=backend
    )
    return result


def at_once(backend: Backend, cost: Tensor, a: Tensor, b: Tensor) -> bool:
    """Whether the compiled operator takes these tensors: values that nothing tracks."""
    if not has_values(cost, a, b) or is_tracked(cost, a, b):
        return False
    return _OPERATOR.uses_extension(backend, cost.device)


def _fake(cost: Tensor, a: Tensor, b: Tensor, *_: Any) -> tuple[Tensor, ...]:
    batch = cost.shape[0]
    counts = cost.new_empty(batch, dtype=torch.int32)
    return (
        torch.empty_like(cost, memory_format=torch.contiguous_format),
        cost.new_empty(batch),
        cost.new_empty(batch),
        torch.empty_like(a, memory_format=torch.contiguous_format),
        torch.empty_like(b, memory_format=torch.contiguous_format),
        cost.new_empty(batch),
        counts,
        torch.empty_like(counts),
    )


_OPERATOR = Operator(
    "entropic_transport",
    reference,
    fake=_fake,
    outputs=("plan", "objective", "linear", "f", "g", "residual", "iterations", "status"),
)
