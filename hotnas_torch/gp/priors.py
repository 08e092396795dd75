"""A prior for numbers in (0, 1)."""

import math
from collections.abc import Sequence
from numbers import Real

import torch
from gpytorch.priors import Prior
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn import Module

__all__ = ["LogitNormalPrior"]


class LogitNormalPrior(Prior):  # type: ignore[misc]
    """A number in (0, 1) whose logit is normal.

    Args:
        center: Median, in (0, 1).
        scale: Standard deviation of the logit, > 0. With 1, the odds stay within a factor of 2.7
            of those of `center` in two cases of three.

    Raises:
        TypeError: `center` or `scale` is no number.
        ValueError: `center` or `scale` is out of range.

    Example:
        >>> prior = LogitNormalPrior(0.8, 0.5)
        >>> bool(prior.log_prob(torch.tensor(0.8)) > prior.log_prob(torch.tensor(0.2)))
        True
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch's own interface
    support = constraints.unit_interval
    has_rsample = True

    loc: Tensor
    scale: Tensor

    def __init__(self, center: float | Tensor, scale: float | Tensor = 1.0) -> None:
        for name, value in (("center", center), ("scale", scale)):
            if isinstance(value, bool) or not isinstance(value, Real | Tensor):
                raise TypeError(f"{name} must be a number or a tensor; got {value!r}")
        median, spread = torch.broadcast_tensors(torch.as_tensor(center), torch.as_tensor(scale))
        if not bool(((median > 0) & (median < 1)).all()):
            raise ValueError(f"center must lie inside (0, 1); got {median.tolist()}")
        if not bool(((spread > 0) & spread.isfinite()).all()):
            raise ValueError(f"scale must be > 0 and finite; got {spread.tolist()}")
        Module.__init__(self)
        # This calls Module.__init__ again, so the buffers come after it.
        Distribution.__init__(self, batch_shape=median.shape, validate_args=False)
        self.register_buffer("loc", median.logit())
        self.register_buffer("scale", spread.to(median).clone())

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density at numbers in (0, 1), any shape."""
        standard = (x.logit() - self.loc) / self.scale
        return -0.5 * (standard.square() + math.log(2 * math.pi)) - (self.scale * x * (1 - x)).log()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw from torch's global source of randomness, as every GPyTorch prior does."""
        shape = torch.Size(sample_shape) + self.loc.shape
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return (self.loc + self.scale * noise).sigmoid()

    def expand(self, batch_shape: torch.Size) -> "LogitNormalPrior":
        """Return the same prior for a batch of numbers."""
        return LogitNormalPrior(
            self.loc.sigmoid().expand(batch_shape), self.scale.expand(batch_shape)
        )
