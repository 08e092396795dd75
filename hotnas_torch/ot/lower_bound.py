"""Certified lower bound of fused Gromov-Wasserstein."""

from torch import Tensor

from hotnas_torch.ot import _operators as ops
from hotnas_torch.ot.problem import graph_problem
from hotnas_torch.ot.terms import Loss, Pairs, loss_code, pairs_code

__all__ = ["fgw_lower_bound"]


def fgw_lower_bound(
    cost: Tensor,
    struct_x: Tensor,
    struct_y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    *,
    alpha: float | Tensor = 0.5,
    loss: Loss = "l1",
    pairs: Pairs = "all",
    backend: ops.Backend = "auto",
    validate: bool = True,
) -> Tensor:
    r"""Bound the global minimum of fused Gromov-Wasserstein from below (Gilmore-Lawler).

    The pair cost that mass at (i, j) pays is at least that of its own cheapest coupling; one
    transport problem with these costs bounds the objective of every coupling at once.

    Args:
        cost: Costs between nodes, shape (*batch, n, m), float32 or float64; +inf forbids a pair.
        struct_x: Structure of the first graph, shape (*batch, n, n) or broadcastable.
        struct_y: Structure of the second graph, shape (*batch, m, m) or broadcastable.
        a: Masses of the first graph, shape (*batch, n) or broadcastable, sum 1; None for uniform.
        b: Masses of the second graph, shape (*batch, m) or broadcastable, sum 1; None for uniform.
        alpha: Weight of the quadratic term in [0, 1], a number or shape (*batch,).
        loss: "l1" or "l2"; see `hotnas_torch.ot.fgw`.
        pairs: "all", "directed" or "ordered"; see `hotnas_torch.ot.fgw`.
        backend: "auto" runs the compiled op where it has kernels for the device, CPU or CUDA,
            else the reference implementation in torch; "ext" and "torch" insist on one of them.
        validate: Whether to check values; this reads the data, which waits for a GPU.

    Returns:
        The bound, shape (*batch,), up to rounding at most the objective of every coupling.

    Raises:
        TypeError: Something is no tensor, or no float32 or float64, or dtypes differ.
        ValueError: Shapes or devices do not fit, masses are negative or do not sum to 1, a cost or
            a structure is NaN or infinite (a cost: or -inf), or an option is out of range.

    Differentiability:
        None: a backward pass raises.

    Complexity:
        n m exact transport problems of size n x m.

    Reference:
        P. C. Gilmore, Optimal and suboptimal algorithms for the quadratic assignment problem, 1962;
        F. Memoli, Gromov-Wasserstein distances and the metric approach to object matching, 2011.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> near = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> ht.ot.fgw_lower_bound(torch.zeros(2, 2), near, 3 * near, alpha=1.0).item()
        1.0
    """
    problem = graph_problem(cost, struct_x, struct_y, a, b, alpha, validate=validate)
    return problem.restore(
        ops.fgw_lower_bound(
            problem.cost,
            problem.struct_x,
            problem.struct_y,
            problem.a,
            problem.b,
            problem.alpha,
            loss_code(loss),
            pairs_code(pairs),
            backend=backend,
        )
    )
