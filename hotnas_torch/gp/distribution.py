"""The operation distribution as a coarse level beside HOTNN."""

import math
from typing import Literal

import torch
from gpytorch.priors import LogNormalPrior

from hotnas_torch.arguments import takes
from hotnas_torch.gp.features import FeatureKernel
from hotnas_torch.gp.scales import matern_kernel
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space
from hotnas_torch.spaces.encodings import operation_slots
from hotnas_torch.spaces.joint import check_architectures

__all__ = ["Coarse", "distribution_kernel"]

Coarse = Literal["product", "additive"]
"""How the kernel of the coarse level is combined with that of HOTNN."""

# A quarter of the largest distance of two encodings, sqrt(2).
_LENGTHSCALE = 0.35
_SPREAD = 1.0


@takes()
def distribution_kernel(
    space: SearchSpace, *, batch_shape: torch.Size | None = None
) -> FeatureKernel:
    """Return a Matern-5/2 kernel between operation distributions of rows, float64.

    It has one lengthscale with a log-normal prior, and no output scale.

    Args:
        space: Search space of the rows.
        batch_shape: As for every GPyTorch kernel.

    Raises:
        TypeError: `space` is no search space, or a setting is unknown.
        ValueError: The space chooses no operations.

    Reference: Wan et al., ANASOD, CVPR 2022, Appendix A.1, for the kernel.
    """
    check_space(space)
    check_architectures("a distribution kernel", space)
    slots = operation_slots(space)
    if slots is None:
        raise ValueError(f"{space!r} chooses no operations that could have a distribution")
    base = matern_kernel(
        _LENGTHSCALE,
        batch_shape=batch_shape,
        prior=LogNormalPrior(math.log(_LENGTHSCALE), _SPREAD),
    )
    return FeatureKernel(base.double(), slots.shares)
