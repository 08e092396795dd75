"""Samples of whole functions: what BoTorch's pathwise sampling asks of our kernels and models.

A kernel with landmarks is an inner product of features, and variance of each row's own. Its prior
functions are therefore exact::

    f(x) = w'phi(x) + sqrt(1 - |phi(x)|^2) e(x),      w and e standard normal

where equal networks share e. Landmarks have an e each; the other networks share a fixed number of
them by a hash of what they are, so that all marginals are exact, and two of a few hundred networks
that are no landmarks may covary by accident. Importing the module registers it with BoTorch.
"""

from typing import Any

import torch
from botorch.exceptions.errors import UnsupportedError
from botorch.sampling.pathwise.features.generators import GenKernelFeatures
from botorch.sampling.pathwise.features.maps import FeatureMap
from botorch.sampling.pathwise.paths import GeneralizedLinearPath
from botorch.sampling.pathwise.prior_samplers import (
    DrawKernelFeaturePaths,
    _draw_kernel_feature_paths_fallback,
)
from botorch.sampling.pathwise.utils import (
    FeatureSelector,
    get_input_transform,
    get_output_transform,
    get_train_inputs,
)
from torch import Tensor

from hotnas_torch.gp.kernel_gp import KernelGP
from hotnas_torch.gp.landmarks import LandmarkKernel

__all__ = ["LandmarkFeatureMap"]


class LandmarkFeatureMap(FeatureMap):
    """Features whose inner products are a kernel with landmarks.

    Args:
        kernel: The kernel.
        num_others: Independent variables that networks share which are no landmarks, >= 1.

    Attributes:
        num_outputs: 2n + `num_others` features for n landmarks.

    Raises:
        UnsupportedError: The kernel has no landmarks, and so no features.
    """

    def __init__(self, kernel: LandmarkKernel, num_others: int) -> None:
        if kernel.landmarks is None:
            raise UnsupportedError(
                f"paths of a {type(kernel).__name__} need its landmarks, whose features they are"
                " made of (set kernel.landmarks to the training rows)"
            )
        super().__init__()
        self.kernel = kernel
        self.num_others = num_others
        self.input_transform = (
            torch.nn.Identity()
            if kernel.active_dims is None
            else FeatureSelector(indices=kernel.active_dims)
        )
        self.output_transform = torch.nn.Identity()
        self.num_outputs = 2 * len(kernel.landmarks) + num_others
        self.batch_shape = kernel.batch_shape

    def forward(self, x: Tensor) -> Tensor:
        """Features of rows, shape (..., q, d) to (*batch_shape, ..., q, num_outputs)."""
        features, variables = self.kernel.landmark_features(x)
        num = features.shape[-1]
        length = features.square().sum(-1, keepdim=True)
        own = (1.0 - length).clamp_min(0.0).sqrt()
        # A landmark has a variable of its own; others share those that are left.
        places = variables.where(variables < num, num + variables % self.num_others)
        shared = features.new_zeros(*features.shape[:-1], num + self.num_others)
        places = places.to(features.device).expand(features.shape[:-1]).unsqueeze(-1)
        return torch.cat([features, shared.scatter(-1, places, own)], dim=-1)


@GenKernelFeatures.register(LandmarkKernel)  # type: ignore[untyped-decorator]
def _landmark_features(
    kernel: LandmarkKernel, *, num_inputs: int, num_outputs: int
) -> LandmarkFeatureMap:
    del num_inputs
    return LandmarkFeatureMap(kernel, num_outputs)


@DrawKernelFeaturePaths.register(KernelGP)  # type: ignore[untyped-decorator]
def _paths(model: KernelGP, **kwargs: Any) -> GeneralizedLinearPath:
    (inputs,) = get_train_inputs(model, transformed=True)
    if model._aug_batch_shape.numel() > 1:
        # BoTorch deals the points of one Sobol sequence out to the outputs in turn, and every other
        # point of a Sobol sequence is in the same half of the cube.
        kwargs.setdefault("weight_generator", torch.randn)
    return _draw_kernel_feature_paths_fallback(
        num_inputs=inputs.shape[-1],
        mean_module=model.mean_module,
        covar_module=model.covar_module,
        input_transform=get_input_transform(model),
        output_transform=get_output_transform(model),
        **kwargs,
    )
