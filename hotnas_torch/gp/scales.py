"""Output scales and lengthscales: where they start, how far they may go, what is likely."""

import math
from collections.abc import Sequence

import torch
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel, MaternKernel, ScaleKernel
from gpytorch.priors import LogNormalPrior, Prior
from torch import Tensor

__all__ = ["LogInterval", "matern_kernel", "middle", "scaled", "start_lengthscale"]

_OUTPUT_SCALES = 1e-2, 1e2

_LENGTHSCALE_FACTOR = 3.0

_ROOM = 0.02
"""Share of a range, on a log scale, that a start keeps from its ends: a sigmoid is flat there."""


class LogInterval(Interval):  # type: ignore[misc]
    """Numbers between positive bounds, parametrised by the sigmoid of their place on a log scale.

    Args:
        lower_bound: Smallest values, > 0, any shape.
        upper_bound: Largest values, of the same shape.
    """

    def __init__(self, lower_bound: Tensor | float, upper_bound: Tensor | float) -> None:
        super().__init__(lower_bound, upper_bound)

    def _ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.lower_bound.to(like).log(), self.upper_bound.to(like).log()

    def transform(self, tensor: Tensor) -> Tensor:
        """Return the number of a raw value."""
        low, high = self._ends(tensor)
        return torch.exp(low + tensor.sigmoid() * (high - low))

    def inverse_transform(self, transformed_tensor: Tensor) -> Tensor:
        """Return the raw value of a number, of a nearby one where it is at or beyond an end."""
        low, high = self._ends(transformed_tensor)
        share = (transformed_tensor.log() - low) / (high - low)
        return share.clamp(_ROOM, 1.0 - _ROOM).logit()


def middle(ends: tuple[float, float]) -> float:
    """Geometric mean of the ends of a range."""
    return math.sqrt(ends[0] * ends[1])


def scaled(kernel: Kernel, *, bounded: bool = False) -> ScaleKernel:
    """Return a kernel with an output scale that starts at 1, with a log-normal prior there.

    Args:
        kernel: What is scaled.
        bounded: Whether the scale keeps within a factor of 100. One of 0 has no density, and noise
            alone, or a line search, may lead there.
    """
    product = ScaleKernel(
        kernel,
        batch_shape=kernel.batch_shape,
        outputscale_prior=LogNormalPrior(0.0, 1.0),
        outputscale_constraint=LogInterval(*_OUTPUT_SCALES) if bounded else None,
    )
    product.outputscale = 1.0
    return product.to(next(kernel.parameters()))


def start_lengthscale(
    kernel: Kernel, typical: float, like: Tensor, *, prior: bool = True, range_: float | None = None
) -> None:
    """Start a lengthscale at three times a typical distance.

    Args:
        kernel: Kernel with a lengthscale.
        typical: The distance; 0 stands for 1.
        like: Tensor of the dtype and on the device of the kernel.
        prior: Whether the lengthscale gets a log-normal prior around its start.
        range_: Factor within which it keeps; None for any.
    """
    start = _LENGTHSCALE_FACTOR * (typical if typical > 0.0 else 1.0)
    if range_ is not None:
        kernel.register_constraint("raw_lengthscale", LogInterval(start / range_, start * range_))
    if prior:
        kernel.register_prior(
            "lengthscale_prior",
            LogNormalPrior(math.log(start), 1.0).to(like),
            kernel._lengthscale_param,
            kernel._lengthscale_closure,
        )
    kernel.lengthscale = start


def matern_kernel(
    start: float,
    *,
    num_columns: int | None = None,
    active_dims: Sequence[int] | None = None,
    batch_shape: Sequence[int] | None = None,
    prior: Prior | None = None,
    constraint: Interval | None = None,
    dtype: torch.dtype | None = None,
) -> MaternKernel:
    """Matern-5/2 kernel without an output scale.

    Args:
        start: Where its lengthscales start.
        num_columns: Columns with a lengthscale each; None: one for all.
        active_dims: As for every `gpytorch.kernels.Kernel`, like the following.
        batch_shape: None is no batch.
        prior: Prior of the lengthscales.
        constraint: Range of the lengthscales.
        dtype: Type of the parameters; None takes torch's default.
    """
    kernel = MaternKernel(
        nu=2.5,
        ard_num_dims=num_columns,
        active_dims=None if active_dims is None else tuple(active_dims),
        batch_shape=torch.Size(batch_shape or ()),
        lengthscale_prior=prior,
        lengthscale_constraint=constraint,
    ).to(dtype)
    kernel.lengthscale = start
    return kernel
