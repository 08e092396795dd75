"""How likely observations are under kernels that are known, whatever mean, scale and noise are."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

__all__ = ["NOISES", "Evidence"]

NOISES = torch.logspace(-5.0, 0.0, 40, dtype=torch.float64)
"""Variances of the noise that are tried, in that of the kernel."""

# Normal prior of the logarithm of the noise: median and spread.
_NOISE_PRIOR = math.log(1e-2), 2.5
# The output scale is inverse-gamma around 1, as if so many pairs of observations had said so.
_PAIRS = 2.0


@dataclass(frozen=True)
class Evidence:
    """How likely observations are under C kernels, with the most likely mean, scale and noise.

    Attributes:
        value: Logarithm of the density, priors of scale and noise included, up to a constant.
        mean: Prior mean.
        output: Output scale, by which the noise is multiplied, too.
        noise: Variance of the noise.
    """

    value: Tensor
    mean: Tensor
    output: Tensor
    noise: Tensor

    @classmethod
    def of(cls, covariances: Tensor, targets: Tensor) -> Self:
        """Try all noises, on the eigenvectors of the covariances (C, n, n)."""
        num = len(targets)
        eigenvalues, vectors = torch.linalg.eigh(covariances)
        precision = 1.0 / (eigenvalues.clamp_min(0.0)[:, None] + NOISES[:, None])
        of_targets = (targets @ vectors)[:, None]
        of_mean = vectors.sum(1)[:, None]
        mean = (precision * of_mean * of_targets).sum(-1) / (precision * of_mean.square()).sum(-1)
        residuals = of_targets - mean.unsqueeze(-1) * of_mean
        square = (precision * residuals.square()).sum(-1)
        output = (square + 2.0 * _PAIRS) / (num + 2.0 * _PAIRS)
        value = -0.5 * (num * output.log() - precision.log().sum(-1) + square / output)
        value = value - _PAIRS * (output.log() + 1.0 / output)
        center, spread = _NOISE_PRIOR
        value = value - 0.5 * ((NOISES.log() - center) / spread).square()
        best = value.argmax(1, keepdim=True)
        mean, output, value = (one.gather(1, best).squeeze(1) for one in (mean, output, value))
        return cls(value, mean, output, NOISES[best.squeeze(1)])
