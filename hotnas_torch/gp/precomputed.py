"""A Gaussian process on a matrix of distances, whoever computed it."""

from typing import Any

import torch
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.utils.types import DEFAULT, _DefaultType
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import Likelihood
from gpytorch.means import Mean
from torch import Tensor

from hotnas_torch.arguments import kind, takes
from hotnas_torch.gp.kernel_gp import KernelGP
from hotnas_torch.gp.memory import typical_distance
from hotnas_torch.gp.psd import DEFAULT_CUTOFF, landmark_features, whitener
from hotnas_torch.gp.scales import scaled, start_lengthscale

__all__ = ["PrecomputedGP", "check_distances"]

_RANGE = 1e3
# Distances that somebody computed twice, in float32 perhaps, agree to this share of the largest.
_SYMMETRY = 1e-4


class _PrecomputedKernel(Kernel):  # type: ignore[misc]
    """exp(-d / lengthscale) between what rows of distances to the training points stand for.

    Positive semi-definite for any distances: an inner product of features, see
    `hotnas_torch.gp.psd`, whose landmarks are the training points; 1 between equal rows.

    Args:
        among: Distances between the training points, shape (n, n).
    """

    has_lengthscale = True

    def __init__(self, among: Tensor) -> None:
        super().__init__()
        self.register_buffer("_among", among)

    def forward(
        self,
        x1: Tensor,
        x2: Tensor,
        diag: bool = False,
        last_dim_is_batch: bool = False,
        **params: Any,
    ) -> Tensor:
        """Covariance of rows, as for every GPyTorch kernel.

        Raises:
            ValueError: `last_dim_is_batch`: one column of a row stands for nothing.
        """
        del params
        if last_dim_is_batch:
            raise ValueError("last_dim_is_batch: a single column of a row stands for nothing")
        equal = torch.equal(x1, x2)
        if diag and equal:
            return x1.new_ones(x1.shape[:-1])
        whitening = whitener(self._similarity(self._among), DEFAULT_CUTOFF)
        left = landmark_features(self._similarity(x1), whitening)
        right = left if equal else landmark_features(self._similarity(x2), whitening)
        rows = torch.cat([x.reshape(-1, x.shape[-1]) for x in (x1, x2)])
        _, place = torch.unique(rows, dim=0, return_inverse=True)
        first, second = place.split([x1.shape[:-1].numel(), x2.shape[:-1].numel()])
        first, second = first.reshape(x1.shape[:-1]), second.reshape(x2.shape[:-1])
        if diag:
            return torch.where(first == second, 1.0, (left * right).sum(-1))
        same = first.unsqueeze(-1) == second.unsqueeze(-2)
        return torch.where(same, 1.0, left @ right.mT)

    def _similarity(self, rows: Tensor) -> Tensor:
        return torch.exp(-rows / self.lengthscale)


class PrecomputedGP(KernelGP):
    """Gaussian process on points of which only the distances are known.

    A `botorch.models.SingleTaskGP` whose covariance is an output scale times exp(-d /
    lengthscale), made positive semi-definite with the training points as landmarks: any distances
    will do, of a `Gram` file for example. Targets are standardised unless another
    `outcome_transform` is given.

    Args:
        distances: Between the n >= 2 training points, shape (n, n): symmetric, not negative, with a
            diagonal of zeros. In any unit.
        train_Y: Targets, shape (n, 1), larger is better where BoTorch's acquisition functions are
            used; finite.
        train_Yvar: Known variances of the targets' noise, shape (n, 1); None infers it.
        likelihood: Of the observations; None takes Gaussian noise.
        mean_module: Prior mean; None takes a constant that is learned.
        outcome_transform: What is done to targets first; by default they are standardised.

    Raises:
        TypeError: No floating-point tensor, or a setting of the wrong kind.
        ValueError: No matrix of distances; the message names the entry. Or targets that are
            constant, or not finite.

    Complexity: O(n^3) per evaluation of the likelihood.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> nets = space.sample(8, generator=torch.Generator().manual_seed(0))
        >>> metric = ht.distances.TreeWasserstein(space)
        >>> Y = torch.tensor([[float(net.spec.count("3x3"))] for net in nets]).double()
        >>> model = PrecomputedGP(metric(nets[:6]), Y[:6])
        >>> model.posterior(metric(nets[6:], nets[:6])).mean.shape
        torch.Size([2, 1])
    """

    _alone = True

    @takes()
    def __init__(
        self,
        distances: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        *,
        likelihood: Likelihood | None = None,
        mean_module: Mean | None = None,
        outcome_transform: OutcomeTransform | _DefaultType | None = DEFAULT,
    ) -> None:
        check_distances("distances", distances)

        def covariance(rows: Tensor, batch_shape: torch.Size) -> Kernel:
            del batch_shape  # of one output of one data set
            kernel = _PrecomputedKernel(rows).to(rows)
            start_lengthscale(kernel, typical_distance(rows), rows, range_=_RANGE)
            return scaled(kernel, bounded=True)

        super().__init__(
            distances,
            train_Y,
            train_Yvar,
            covariance=covariance,
            likelihood=likelihood,
            mean_module=mean_module,
            outcome_transform=outcome_transform,
        )


def check_distances(name: str, distances: Tensor) -> None:
    """Refuse what is no matrix of distances, by the entry.

    Raises:
        TypeError: No floating-point tensor.
        ValueError: Another shape, an entry that is negative or not finite, not symmetric within
            1e-4 of the largest entry, or a diagonal that is not 0 in this sense.
    """
    kind(name, distances, Tensor)
    if not distances.is_floating_point():
        raise TypeError(f"{name} must be float32 or float64; got {distances.dtype}")
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1]:
        raise ValueError(
            f"{name} must be square, the distances among the training points; got shape"
            f" {tuple(distances.shape)}"
        )
    largest = distances.abs().nan_to_num(0.0, 0.0, 0.0)
    tolerance = _SYMMETRY * float(largest.max()) if len(distances) else 0.0
    skew = (distances - distances.mT).abs()
    for wrong, expected in (
        (~distances.isfinite(), "finite"),
        (distances < 0.0, ">= 0"),
        (skew > tolerance, f"what the entry across the diagonal is, within {tolerance:g}"),
        (
            torch.diag(distances.diagonal().abs() > tolerance),
            "0: a point has no distance to itself",
        ),
    ):
        if bool(wrong.any()):
            i, j = wrong.nonzero()[0].tolist()
            raise ValueError(f"{name}[{i}, {j}] must be {expected}; got {distances[i, j]:g}")
