"""A kernel between features of rows."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from gpytorch.kernels import Kernel
from torch import Tensor

from hotnas_torch.arguments import kind, takes
from hotnas_torch.gp.settings import KERNEL_SETTINGS

__all__ = ["FeatureKernel", "Features", "check_features"]

Features = Callable[[Tensor], Tensor]
"""Maps encoded rows (..., d) to features (..., f)."""


class FeatureKernel(Kernel):  # type: ignore[misc]
    r"""A kernel between features of rows.

    .. math:: k(x, x') = k_0(\phi(x), \phi(x'))

    Positive semi-definite as k_0 is. It multiplies and adds with kernels on the rows themselves,
    such as `HOTNNKernel`.

    Args:
        base_kernel: k_0, a kernel on features.
        features: phi, for example
            `hotnas_torch.spaces.encodings.encoding_of(space).of_rows`; no gradient flows
            through it.
        **kwargs: As for every GPyTorch kernel, for example `active_dims`.
    """

    @takes(*KERNEL_SETTINGS)
    def __init__(self, base_kernel: Kernel, features: Features, **kwargs: Any) -> None:
        if not isinstance(base_kernel, Kernel):
            raise TypeError(f"base_kernel must be a Kernel; got {type(base_kernel).__name__}")
        check_features(features)
        kind("batch_shape", kwargs.get("batch_shape"), Sequence, optional=True)
        super().__init__(**{"batch_shape": base_kernel.batch_shape} | kwargs)
        self.base_kernel = base_kernel
        self.features = features

    @property
    def is_stationary(self) -> bool:
        """Whether the kernel on features is."""
        return bool(self.base_kernel.is_stationary)

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Tensor:
        """Covariance of rows, as for every GPyTorch kernel."""
        like = next(self.base_kernel.parameters(), torch.empty(()))
        first, second = (
            self.features(x.detach() if x.is_floating_point() else x.to(like)) for x in (x1, x2)
        )
        result: Tensor = self.base_kernel.forward(first, second, diag=diag, **params)
        return result


def check_features(features: object) -> None:
    """Raise a TypeError unless these are a function of rows."""
    if not callable(features):
        raise TypeError(
            f"features must be a function of rows, such as encoding_of(space).of_rows; got"
            f" {type(features).__name__}"
        )
