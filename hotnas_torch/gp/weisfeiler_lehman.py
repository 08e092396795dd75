"""The Gaussian process of NAS-BOWL: a Weisfeiler-Lehman kernel whose depth the data choose."""

import math
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.means import ZeroMean
from gpytorch.mlls import MarginalLogLikelihood
from torch import Tensor

from hotnas_torch.arguments import integer, interval, takes
from hotnas_torch.distances.weisfeiler_lehman import (
    Aggregation,
    WeisfeilerLehman,
    level_similarities,
)
from hotnas_torch.gp.kernel_gp import KernelGP
from hotnas_torch.gp.landmarks import NetworkKernel
from hotnas_torch.gp.memory import NetworkMemory
from hotnas_torch.gp.rounds import fit_in_rounds
from hotnas_torch.gp.settings import KERNEL_SETTINGS
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space
from hotnas_torch.spaces.joint import network_space

__all__ = ["WeisfeilerLehmanGP", "WeisfeilerLehmanKernel"]

_NOISE_VALUES = 256
# Stay this far inside the bounds, where the constraint's transform is finite.
_ROOM = 1e-3


class WeisfeilerLehmanKernel(NetworkKernel):
    """`hotnas_torch.distances.weisfeiler_lehman.WeisfeilerLehman` on encoded rows.

    It has no lengthscale and needs no landmarks. Features of a network are computed when its row is
    first seen.

    Args:
        space: Search space of the rows.
        level: Largest level that counts, >= 0; may be set to another value up to `max_level`.
        max_level: Largest level that is computed; None takes `level`.
        aggregation: How labels of layers are compared, `"histogram"` or `"assignment"`; None takes
            what NAS-BOWL uses in the space.
        contract: Labels of layers that are replaced by direct edges; None takes skip connections
            and identities.

    Attributes:
        max_level: As passed.

    Raises:
        TypeError: `space` is no search space, or a setting is unknown or of the wrong kind.
        ValueError: An argument out of range.
        ArchitectureError: A row that encodes no network of the space, when called.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> X = space.encode(space.sample(4, generator=torch.Generator().manual_seed(0)))
        >>> WeisfeilerLehmanKernel(space)(X).to_dense().shape
        torch.Size([4, 4])
    """

    has_lengthscale = False
    _level: Tensor

    @takes(*KERNEL_SETTINGS)
    def __init__(
        self,
        space: SearchSpace,
        *,
        level: int = 2,
        max_level: int | None = None,
        aggregation: Aggregation | None = None,
        contract: Collection[str] | None = None,
        **kwargs: Any,
    ) -> None:
        check_space(space)
        if max_level is None:
            max_level = integer("level", level, least=0)
        largest = integer("max_level", max_level, least=0)
        super().__init__(space, **kwargs)
        self.max_level = largest
        self._distance = WeisfeilerLehman(
            space=space, level=self.max_level, aggregation=aggregation, contract=contract
        )
        self._memory: NetworkMemory[Tensor] = NetworkMemory(space, self._distance.labels)
        self.register_buffer("_level", torch.tensor(0))
        self.level = level

    @property
    def level(self) -> int:
        """Largest level that counts."""
        return int(self._level)

    @level.setter
    def level(self, value: int) -> None:
        if isinstance(value, int) and not 0 <= value <= self.max_level:
            raise ValueError(f"level must lie between 0 and {self.max_level}; got {value}")
        self._level.fill_(integer("level", value, least=0))

    @property
    def aggregation(self) -> Aggregation:
        """How labels are compared."""
        return self._distance.aggregation

    def similarities(self, rows: Tensor) -> Tensor:
        """Kernel matrices of encoded rows (n, d) for every level, (max_level + 1, n, n)."""
        labels = self._memory(self._index(rows))
        return level_similarities(labels, labels, self.aggregation).to(rows)

    def _similarity(self, rows: Tensor, cols: Tensor) -> Tensor:
        counted = slice(self.level + 1)
        labels_rows, labels_cols = (
            [labels[counted] for labels in self._memory(numbers)] for numbers in (rows, cols)
        )
        return level_similarities(labels_rows, labels_cols, self.aggregation)[-1:]


class WeisfeilerLehmanGP(KernelGP):
    """Gaussian process on architectures with a Weisfeiler-Lehman kernel.

    A `botorch.models.SingleTaskGP` of standardised targets with zero mean, unit variance and
    noise. `fit_gpytorch_mll` finds the level of the kernel and the noise that maximise the
    marginal likelihood, and with a `Joint` space also the lengthscales of hyperparameters, with a
    gradient descent per level. Without hyperparameters: with K = Q diag(lambda) Q' and u = Q'y, ::

        log p(y) = -1/2 sum_i (u_i^2 / (lambda_i + noise) + log(lambda_i + noise)) + const

    on every level and a fine logarithmic grid of noises, one eigendecomposition per level.

    Args:
        train_X: Rows, shape (n, d) with d = space.dim, float64 recommended.
        train_Y: Targets, shape (n, 1), finite and not all equal.
        space: Search space of the rows.
        levels: Levels to choose from, each >= 0; None takes what NAS-BOWL uses: 1..3 where networks
            repeat one cell, 0..3 elsewhere.
        aggregation: How labels of layers are compared, `"histogram"` or `"assignment"`; None takes
            what NAS-BOWL uses in the space.
        contract: Labels of layers that are replaced by direct edges; None takes skip connections
            and identities.
        noise_bounds: Smallest and largest variance of the noise of standardised targets.

    Raises:
        TypeError: `space` is no search space.
        ValueError: Targets of another shape, constant or not finite; no levels; a bound out of
            order.
        ArchitectureError: A row that encodes no network of the space; the message names it.

    Complexity: O(n^3) per level.

    Reference: Ru et al., "Interpretable Neural Architecture Search via Bayesian Optimisation with
        Weisfeiler-Lehman Kernels", ICLR 2021.

    Example:
        >>> import hotnas_torch as ht
        >>> from botorch.fit import fit_gpytorch_mll
        >>> from gpytorch.mlls import ExactMarginalLogLikelihood
        >>> space = ht.spaces.NASBench201()
        >>> X = space.encode(space.sample(30, generator=torch.Generator().manual_seed(0)))
        >>> Y = (X == 3).sum(dim=1, keepdim=True).double()  # number of 3x3 convolutions
        >>> model = WeisfeilerLehmanGP(X, Y, space=space)
        >>> mll = fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        >>> model.posterior(X[:2]).mean.shape
        torch.Size([2, 1])
    """

    _alone = True

    @takes()
    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        *,
        space: SearchSpace,
        levels: Sequence[int] | None = None,
        aggregation: Aggregation | None = None,
        contract: Collection[str] | None = None,
        noise_bounds: tuple[float, float] = (1e-5, 1e-2),
    ) -> None:
        low, high = interval("noise_bounds", noise_bounds)
        check_space(space)
        if levels is None:
            levels = range(1 if space.repeats_one_cell else 0, 4)
        given: object = levels
        if isinstance(given, str | bytes) or not isinstance(given, Sequence):
            raise TypeError(f"levels must be a sequence of integers; got {levels!r}")
        if not levels:
            raise ValueError("levels must hold at least one level; got none")
        levels = tuple(
            integer(f"levels[{place}]", level, least=0) for place, level in enumerate(levels)
        )

        def covariance(rows: Tensor, batch_shape: torch.Size) -> Kernel:
            del rows, batch_shape
            return WeisfeilerLehmanKernel(
                network_space(space),
                level=min(levels),
                max_level=max(levels),
                aggregation=aggregation,
                contract=contract,
            )

        super().__init__(
            train_X,
            train_Y,
            covariance=covariance,
            space=space,
            likelihood=GaussianLikelihood(noise_constraint=Interval(low, high)),
            mean_module=ZeroMean(),
        )
        self.levels = levels
        self.noise_bounds = low, high
        self.likelihood.noise = high / 2

    def custom_fit(self, mll: MarginalLogLikelihood, **ignored: Any) -> MarginalLogLikelihood:
        """Choose level and noise; `fit_gpytorch_mll` calls this.

        Args:
            mll: Marginal log likelihood of this model.
            **ignored: Other arguments of `fit_gpytorch_mll`, which concern iterations.

        Returns:
            `mll`, in evaluation mode.
        """
        del ignored
        if self.covar_module is not self.kernel:
            return self._fit_jointly(mll)
        low, high = self.noise_bounds
        room = _ROOM * (high - low)
        noises = torch.logspace(
            math.log10(low + room), math.log10(high - room), _NOISE_VALUES, dtype=torch.float64
        )
        targets = self.train_targets.double()
        best = -torch.inf
        similarities = self.covar_module.similarities(self.train_inputs[0]).double()
        for level in self.levels:
            evidence = _evidence(similarities[level], targets, noises)
            place = int(evidence.argmax())
            if float(evidence[place]) > best:
                best = float(evidence[place])
                self.covar_module.level = level
                self.likelihood.noise = float(noises[place])
        return mll.eval()

    @property
    def kernel(self) -> WeisfeilerLehmanKernel:
        """The kernel between networks."""
        modules = self.covar_module.modules()
        return next(module for module in modules if isinstance(module, WeisfeilerLehmanKernel))

    def _fit_jointly(self, mll: MarginalLogLikelihood) -> MarginalLogLikelihood:
        """Find the lengthscales of hyperparameters and the noise on every level; keep the best."""
        least, best = torch.inf, self.state_dict()
        for level in self.levels:
            self.kernel.level = level
            fit_in_rounds(mll, nullcontext, batch_shape=torch.Size(), max_rounds=1)
            with torch.no_grad():
                mll.train()
                loss = -float(mll(self(*self.train_inputs), self.train_targets))
            if loss < least:
                least, best = loss, {name: one.clone() for name, one in self.state_dict().items()}
        self.load_state_dict(best)
        return mll.eval()


def _evidence(covariance: Tensor, targets: Tensor, noises: Tensor) -> Tensor:
    """Log marginal likelihood up to a constant, for every noise, (k,)."""
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    spread = eigenvalues.clamp_min(0.0) + noises[:, None]
    evidence: Tensor = -0.5 * ((vectors.mT @ targets).square() / spread + spread.log()).sum(1)
    return evidence
