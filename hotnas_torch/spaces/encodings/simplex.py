"""Mirror ascent on the probability simplex."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["FLOOR", "ascend_simplex", "exponentiated_gradient"]

FLOOR = 1e-5
"""Smallest share after a step: an operation that has reached 0 could never come back."""


def exponentiated_gradient(
    points: Tensor, gradient: Tensor, rate: float | Tensor, *, floor: float = FLOOR
) -> Tensor:
    r"""Take a step of exponentiated gradient descent.

    .. math:: p_i \leftarrow p_i \exp(-\eta g_i), \quad
        p \leftarrow \max(p, \mathrm{floor}), \quad p \leftarrow p / \sum_i p_i

    It is mirror descent with the entropy as mirror map, and stays on the simplex, as a step that
    adds the gradient and divides by the sum does not (ANASOD prints that one, Eq. 4).

    Args:
        points: (..., k), on the simplex.
        gradient: (..., k); negate it to ascend.
        rate: eta > 0, or one per point, (..., 1).
        floor: Lower bound of a share before the division, >= 0.

    Returns:
        (..., k), on the simplex.

    Reference: Kivinen and Warmuth, Exponentiated Gradient versus Gradient Descent for Linear
        Predictors, Information and Computation 1997; floor as in GAEA (Li et al., ICLR 2021).

    Example:
        >>> point = torch.tensor([0.5, 0.5])
        >>> exponentiated_gradient(point, torch.tensor([1.0, 0.0]), 1.0)
        tensor([0.2689, 0.7311])
    """
    exponent = -rate * gradient
    # The largest exponent becomes 0: nothing overflows, and the division cancels it.
    scaled = points * (exponent - exponent.amax(dim=-1, keepdim=True)).exp()
    scaled = scaled / scaled.sum(dim=-1, keepdim=True)
    scaled = scaled.clamp_min(floor)
    return scaled / scaled.sum(dim=-1, keepdim=True)


def ascend_simplex(
    function: Callable[[Tensor], Tensor], points: Tensor, *, steps: int = 30, rate: float = 1.0
) -> Tensor:
    """Ascend a function by exponentiated gradients and keep the best point met from each start.

    The gradient is scaled to a largest entry of 1, and the rate falls as 1 / sqrt(step).

    Args:
        function: Maps points (n, k) to values (n,), differentiable.
        points: Starts, (n, k), on the simplex.
        steps: Steps, >= 0.
        rate: Rate of the first step, > 0.

    Returns:
        (n, k), on the simplex, with values no smaller than at the starts.
    """
    current = points.detach()
    best, best_values = current, None
    for step in range(steps + 1):
        with torch.enable_grad():
            moving = current.clone().requires_grad_()
            values = function(moving)
            (gradient,) = torch.autograd.grad(values.sum(), moving)
        values = values.detach()
        if best_values is None:
            best_values = values
        else:
            better = values > best_values
            best = torch.where(better[:, None], current, best)
            best_values = torch.where(better, values, best_values)
        scale = gradient.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
        current = exponentiated_gradient(current, -gradient / scale, rate / (step + 1) ** 0.5)
    return best
