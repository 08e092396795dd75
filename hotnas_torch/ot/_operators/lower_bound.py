"""Certified lower bound of fused Gromov-Wasserstein."""

from typing import Any

from torch import Tensor

from hotnas_torch.ot._operators.operator import Backend, Operator
from hotnas_torch.ot._reference.lower_bound import fgw_lower_bound as reference

__all__ = ["fgw_lower_bound"]


def fgw_lower_bound(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor,
    b: Tensor,
    alpha: Tensor,
    loss: int,
    pairs: int,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Bound the minimum of the fused Gromov-Wasserstein objective from below.

    Args:
        cost: Costs between nodes, shape (B, n, m), float32 or float64.
        struct_x: Structure of the first graph, shape (B, n, n).
        struct_y: Structure of the second graph, shape (B, m, m).
        a: Masses of the first graph, shape (B, n). Nodes of zero weight are absent.
        b: Masses of the second graph, shape (B, m), with the same sum.
        alpha: Weight of the quadratic term per item, shape (B,), in [0, 1].
        loss: 0 for l1, 1 for l2.
        pairs: 0 all, 1 directed, 2 ordered.
        backend: "auto", "ext" or "torch"; see `Operator`.

    Returns:
        The bound, shape (B,); NaN for items without a solution. Not differentiable: a backward pass
        raises.

    Complexity:
        n m exact transport problems of size n x m per item.
    """
    result: Tensor = _OPERATOR(cost, struct_x, struct_y, a, b, alpha, loss, pairs, backend=backend)
    return result


def _fake(cost: Tensor, *_: Any) -> Tensor:
    return cost.new_empty(cost.shape[0])


_OPERATOR = Operator("fgw_lower_bound", reference, fake=_fake)
