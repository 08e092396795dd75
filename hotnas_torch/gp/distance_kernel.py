"""Gaussian processes on distances that are computed once: exponential kernels of their parts."""

from collections.abc import Sequence
from typing import Any

import torch
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.utils.types import DEFAULT, _DefaultType
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import Likelihood
from gpytorch.means import Mean
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import kind, takes
from hotnas_torch.distances import NetworkDistance
from hotnas_torch.gp.kernel_gp import KernelGP
from hotnas_torch.gp.landmarks import NetworkKernel
from hotnas_torch.gp.memory import PairMemory, typical_distance
from hotnas_torch.gp.network_lists import as_rows
from hotnas_torch.gp.psd import DEFAULT_CUTOFF
from hotnas_torch.gp.scales import LogInterval, middle, scaled
from hotnas_torch.gp.settings import KERNEL_SETTINGS
from hotnas_torch.spaces import Joint

__all__ = ["DistanceGP", "DistanceKernel", "starting_scales"]


class DistanceKernel(NetworkKernel):
    r"""Sum of exponentials of the parts of a distance between the networks behind encoded rows.

    .. math:: k(x, x') = \sum_t s_t \exp\Big(-\sum_{k \in t} d_k(x, x')^{p_t} / \ell_k\Big)

    The terms t with their parts, powers and ranges are the distance's `kernel_terms`. The scales
    l_k and, with several terms, the shares s_t (positive, with sum 1) are learned. With landmarks
    it is positive semi-definite, see `LandmarkKernel`; a distance that is `negative_definite` needs
    none.

    Args:
        distance: The distance, with a space.
        memory: What remembers its values; None starts a new one. Share one between kernels of one
            search.
        landmarks: Rows Z of the feature map, shape (..., n, d).
        cutoff: Eigenvalues of K_ZZ below it are dropped, see `hotnas_torch.gp.psd.inverse_root`.
        **kwargs: `batch_shape`, `active_dims`, as for every `gpytorch.kernels.Kernel`.

    Raises:
        TypeError: `distance` is no NetworkDistance, or a setting is unknown or of the wrong kind.
        ValueError: `memory` is of another distance, or `cutoff` is not positive.

    Differentiability: in the scales and shares, once; not in the rows.

    Complexity: one distance per pair of a new row and a landmark; O(n^3) per evaluation with n
        landmarks, O(n^2) without.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> kernel = DistanceKernel(ht.distances.TreeWasserstein(space)).double()
        >>> X = space.encode(space.sample(3, generator=torch.Generator().manual_seed(0)))
        >>> kernel(X).to_dense().diagonal().tolist()
        [1.0, 1.0, 1.0]
    """

    @takes(*KERNEL_SETTINGS)
    def __init__(
        self,
        distance: NetworkDistance,
        *,
        memory: PairMemory | None = None,
        landmarks: Tensor | None = None,
        cutoff: float = DEFAULT_CUTOFF,
        **kwargs: Any,
    ) -> None:
        _check_distance(distance)
        if memory is not None and not isinstance(memory, PairMemory):
            raise TypeError(f"memory must be a PairMemory; got {type(memory).__name__}")
        if memory is not None and memory.distance is not distance:
            raise ValueError("memory must be one of the distance that is passed")
        super().__init__(distance.space, cutoff=cutoff, **kwargs)
        self.distance = distance
        self._memory = PairMemory(distance) if memory is None else memory
        num_parts, num_terms = len(distance.parts), len(distance.kernel_terms)
        lower, upper = torch.ones(num_parts), torch.ones(num_parts)
        for term in distance.kernel_terms:
            lower[list(term.parts)] = term.smallest
            upper[list(term.parts)] = term.largest
        self.register_parameter(
            "raw_scales", torch.nn.Parameter(torch.zeros(*self.batch_shape, num_parts))
        )
        self.register_constraint("raw_scales", LogInterval(lower, upper))
        if num_terms > 1:
            self.register_parameter(
                "raw_shares", torch.nn.Parameter(torch.zeros(*self.batch_shape, num_terms))
            )
        if landmarks is not None:
            self.landmarks = landmarks

    @property
    def scales(self) -> Tensor:
        """Scales l_k, shape (*batch_shape, K)."""
        value: Tensor = self.raw_scales_constraint.transform(self.raw_scales)
        return value

    @scales.setter
    def scales(self, value: Tensor | float) -> None:
        tensor = torch.as_tensor(value, dtype=self.raw_scales.dtype, device=self.raw_scales.device)
        raw = self.raw_scales_constraint.inverse_transform(tensor.expand_as(self.raw_scales))
        self.initialize(raw_scales=raw)

    @property
    def shares(self) -> Tensor:
        """Shares s_t of the terms, shape (*batch_shape, T); one term has share 1."""
        if not hasattr(self, "raw_shares"):
            return torch.ones_like(self.raw_scales[..., :1])
        shares: Tensor = self.raw_shares.softmax(-1)
        return shares

    def part_distances(self, rows: Tensor) -> Tensor:
        """Parts of the distances between the distinct networks of rows (n, d), (K, r, r)."""
        numbers: Tensor = torch.unique(self._index(rows))
        return self._memory(numbers, numbers)

    def _similarity(self, rows: Tensor, cols: Tensor) -> Tensor:
        parts = self._memory(rows, cols).to(self.raw_scales)
        num_parts = len(parts)
        rates = self.scales.reshape(-1, num_parts).reciprocal()
        shares = self.shares.reshape(len(rates), -1)
        total = parts.new_zeros(len(rates), len(rows), len(cols))
        for place, term in enumerate(self.distance.kernel_terms):
            exponent = torch.einsum(
                "bk,krc->brc", rates[:, term.parts], parts[list(term.parts)] ** term.power
            )
            total = total + shares[:, place, None, None] * torch.exp(-exponent)
        return total


class DistanceGP(KernelGP):
    """Gaussian process on architectures with the exponential kernel of a distance.

    A `botorch.models.SingleTaskGP` whose covariance is an output scale times a
    `DistanceKernel`, with the training rows as landmarks unless the distance needs none. Targets
    are standardised unless another `outcome_transform` is given; several outputs are modelled
    independently. The scales start where a typical distance between training rows has a covariance
    of 1/e, or as near as their ranges allow.

    Args:
        train_X: Networks; or rows of `distance.space.encode`, shape (..., n, d), float64
            recommended.
        train_Y: Targets, shape (..., n, m), larger is better where BoTorch's acquisition functions
            are used; finite.
        train_Yvar: Known variances of the targets' noise, shape (..., n, m); None infers it.
        distance: The distance.
        space: Space of the rows where these hold hyperparameters beside a network of the distance's
            space, see `values_kernel`; None for rows of networks alone.
        memory: As for `DistanceKernel`.
        likelihood: Of the observations; None takes Gaussian noise.
        mean_module: Prior mean; None takes a constant that is learned.
        outcome_transform: What is done to targets first; by default they are standardised.
        input_transform: What is done to rows first; it must leave them as they are.

    Raises:
        TypeError: `distance` is no NetworkDistance, or a setting is unknown.
        ValueError: Fewer than two observations; targets that are not finite, are constant, or vary
            so little or so much that variances cannot be told; rows of another length than the
            space's; or an `input_transform` that changes them.
        ArchitectureError: A row that encodes no network of the space; the message names it.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> X = space.encode(space.sample(6, generator=torch.Generator().manual_seed(0)))
        >>> Y = (X == 3).sum(dim=1, keepdim=True).double()  # number of 3x3 convolutions
        >>> model = DistanceGP(X, Y, distance=ht.distances.TreeWasserstein(space))
        >>> model.posterior(X[:2]).mean.shape
        torch.Size([2, 1])
    """

    @takes()
    def __init__(
        self,
        train_X: Tensor | Sequence[Network],
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        *,
        distance: NetworkDistance,
        space: Joint | None = None,
        memory: PairMemory | None = None,
        likelihood: Likelihood | None = None,
        mean_module: Mean | None = None,
        outcome_transform: OutcomeTransform | _DefaultType | None = DEFAULT,
        input_transform: InputTransform | None = None,
    ) -> None:
        _check_distance(distance)
        kind("space", space, Joint, optional=True)
        train_X = as_rows("train_X", train_X, distance.space if space is None else space)

        def covariance(rows: Tensor, batch_shape: torch.Size) -> Kernel:
            kernel = DistanceKernel(distance, memory=memory, batch_shape=batch_shape).to(rows)
            if not distance.negative_definite:
                kernel.landmarks = rows
            kernel.scales = starting_scales(
                distance, kernel.part_distances(rows.reshape(-1, rows.shape[-1]))
            )
            return scaled(kernel, bounded=True)

        super().__init__(
            train_X,
            train_Y,
            train_Yvar,
            covariance=covariance,
            space=distance.space if space is None else space,
            likelihood=likelihood,
            mean_module=mean_module,
            outcome_transform=outcome_transform,
            input_transform=input_transform,
        )
        self.distance = distance

    @property
    def kernel(self) -> DistanceKernel:
        """The kernel of the distance."""
        modules = self.covar_module.modules()
        return next(module for module in modules if isinstance(module, DistanceKernel))


def _check_distance(distance: object) -> None:
    if not isinstance(distance, NetworkDistance):
        raise TypeError(f"distance must be a NetworkDistance; got {type(distance).__name__}")
    if distance.space is None:
        raise ValueError(
            "distance must have a space, whose rows the networks are (pass space=, which is"
            " spaces.AnyNetwork(tree) for networks of no space)"
        )


def starting_scales(distance: NetworkDistance, parts: Tensor) -> Tensor:
    """Where the scales start, from the parts (K, r, r) between training networks."""
    starts = torch.ones(len(parts), dtype=torch.float64)
    for term in distance.kernel_terms:
        for part in term.parts:
            typical = len(term.parts) * typical_distance(parts[part]) ** term.power
            starts[part] = typical if typical > 0.0 else middle((term.smallest, term.largest))
    return starts
