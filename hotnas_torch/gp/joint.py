"""Kernels on hyperparameters beside an architecture, and their product with kernels on networks."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from botorch.models.kernels import CategoricalKernel
from gpytorch.kernels import Kernel
from gpytorch.priors import LogNormalPrior
from torch import Tensor

from hotnas_torch.gp.feature_kernel import FeatureKernel
from hotnas_torch.gp.scales import matern_kernel, scaled
from hotnas_torch.spaces import Joint

__all__ = ["joined_kernel", "values_kernel"]


def values_kernel(space: Joint, *, batch_shape: Sequence[int] = ()) -> FeatureKernel:
    r"""Return a kernel between the hyperparameters of rows, without an output scale.

    A Matern-5/2 kernel on those with an order, scaled to [0, 1], times, on those without one,

    .. math:: \exp(-\tfrac1h \sum_i [x_i \ne x_i'] / \ell_i)

    with a lengthscale each, all under log-normal priors.

    Args:
        space: Space of the rows.
        batch_shape: As for every GPyTorch kernel.
    """
    kinds = [one.categorical for one in space.hyperparameters.values()]
    ordered = [place for place, categorical in enumerate(kinds) if not categorical]
    others = [place for place, categorical in enumerate(kinds) if categorical]
    shape = torch.Size(batch_shape)
    parts: list[Kernel] = []
    if ordered:
        num = len(ordered)
        parts.append(
            matern_kernel(
                math.sqrt(num),
                num_columns=num,
                active_dims=ordered if others else None,
                batch_shape=shape,
                prior=LogNormalPrior(0.5 * math.log(num), 1.0),
            )
        )
    if others:
        categorical = CategoricalKernel(
            ard_num_dims=len(others),
            active_dims=tuple(others) if ordered else None,
            batch_shape=shape,
            lengthscale_prior=LogNormalPrior(0.0, 1.0),
        )
        categorical.lengthscale = 1.0
        parts.append(categorical)
    product = parts[0] if len(parts) == 1 else parts[0] * parts[1]
    return FeatureKernel(product, space.scaled, batch_shape=shape)


def joined_kernel(
    architecture: Kernel, space: Joint, rows: Tensor, how: Literal["product", "additive"]
) -> Kernel:
    """Combine a kernel on networks with one on the hyperparameters beside them.

    Args:
        architecture: Kernel on the columns of the network alone, with an output scale or without.
        space: Space of the rows.
        rows: Of the dtype and on the device of the kernels.
        how: `"product"`: rows must agree in both; `"additive"`: each explains a part.

    Returns:
        The combination, on rows of the space.
    """
    values = values_kernel(space, batch_shape=architecture.batch_shape).to(rows)
    architecture.active_dims = torch.arange(space.space.dim, device=rows.device)
    return architecture * values if how == "product" else architecture + scaled(values)
