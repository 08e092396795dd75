"""Entropic fused Gromov-Wasserstein of a batch of small problems."""

from typing import Any

import torch
from torch import Tensor

from hotnas_torch.ops.operator import Backend, Operator
from hotnas_torch.ops.reference.entropic_fgw import entropic_fgw as reference

__all__ = ["entropic_fgw"]


def entropic_fgw(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    epsilon: float,
    loss: int,
    pairs: int,
    proximal: int,
    tol: float,
    max_iter: int,
    inner_tol: float,
    inner_max_iter: int,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Find a stationary coupling of F - epsilon * entropy, or of F by proximal steps.

    The arguments are those of `hotnas_torch.ops.reference.entropic_fgw.entropic_fgw`, which is the
    specification.

    Args:
        cost: Costs between nodes, shape (B, n, m), float32 or float64.
        struct_x: Structure of the first graph, shape (B, n, n).
        struct_y: Structure of the second graph, shape (B, m, m).
        a: Masses of the first graph, shape (B, n). Nodes of zero weight are absent.
        b: Masses of the second graph, shape (B, m), with the same sum.
        alpha: Weight of the quadratic term per item, shape (B,), in [0, 1].
        epsilon: Weight of the entropy or of the proximal term, in units of the cost, > 0.
        loss: 0 for l1, 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.
        proximal: 0 for mirror descent on the regularised problem, 1 for proximal point.
        tol: Residual to stop at.
        max_iter: Most outer steps of an item.
        inner_tol: L1 row-marginal error at which Sinkhorn stops.
        inner_max_iter: Most Sinkhorn iterations of one step.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        ``log_plan`` (B, n, m); duals ``f`` (B, n), ``g`` (B, m); ``residual`` (B,); ``iterations``
        (B,) int32; ``status`` (B,) int32.

    Differentiability:
        None: a backward pass raises.

    Complexity:
        O(n^2 m^2) per step plus Sinkhorn, O(n m) memory per item.
    """
    result: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = _OPERATOR(
        cost,
        struct_x,
        struct_y,
        a,
        b,
        alpha,
        epsilon,
        loss,
        pairs,
        proximal,
        tol,
        max_iter,
        inner_tol,
        inner_max_iter,
        backend=backend,
    )
    return result


def _fake(
    cost: Tensor, struct_x: Tensor, struct_y: Tensor, a: Tensor, b: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    del struct_x, struct_y
    counts = cost.new_empty(cost.shape[0], dtype=torch.int32)
    return (
        torch.empty_like(cost, memory_format=torch.contiguous_format),
        torch.empty_like(a, memory_format=torch.contiguous_format),
        torch.empty_like(b, memory_format=torch.contiguous_format),
        cost.new_empty(cost.shape[0]),
        counts,
        torch.empty_like(counts),
    )


_OPERATOR = Operator("entropic_fgw", reference, fake=_fake)
