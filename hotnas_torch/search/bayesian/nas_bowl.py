"""NAS-BOWL: Bayesian optimisation with a Weisfeiler-Lehman kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models.model import Model
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from hotnas_torch.arguments import integer, number
from hotnas_torch.gp.weisfeiler_lehman import WeisfeilerLehmanGP
from hotnas_torch.search.bayesian.acquisition import Acquisition
from hotnas_torch.search.bayesian.base import BayesianSearch
from hotnas_torch.spaces import SearchSpace

__all__ = ["NASBOWL"]

_LEAST_NOISE = 1e-5

_RANDOM_FRACTIONS = {"nasbench201": 0.0}
"""By the name of a space, where the paper's pool is not half random."""


class NASBOWL(BayesianSearch):
    """Bayesian optimisation with a Gaussian process on Weisfeiler-Lehman features of networks.

    The model is :class:`~hotnas_torch.gp.WeisfeilerLehmanGP`, everything else is described with
    :class:`BayesianSearch`. Defaults are those of the method's code: logarithms of the errors,
    expected improvement, a pool of 200 around the 10 best, half of it random (none of it on
    NAS-Bench-201).

    Args:
        space: What is searched.
        generator: Source of all randomness.
        num_initial: Random networks at the start, >= 2.
        acquisition: See `BayesianSearch`; ``"ucb"`` has the paper's schedule.
        pool_size: Candidates per choice of a batch, >= 1.
        num_parents: How many of the best networks are mutated, >= 1.
        random_fraction: Share of the pool that is drawn at random, in [0, 1]; None: see above.
        transform: See `BayesianSearch`.
        levels: Levels of the kernel to choose from; None: see `WeisfeilerLehmanGP`.
        aggregation: ``"histogram"`` or ``"assignment"``; None: see `WeisfeilerLehman`.
        max_noise: Largest variance of the noise of standardised targets, > 1e-5.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range.

    Reference: Ru et al., Interpretable Neural Architecture Search via Bayesian Optimisation with
        Weisfeiler-Lehman Kernels, ICLR 2021.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = NASBOWL(
        ...     ht.spaces.NASBenchMacro(),
        ...     generator=torch.Generator().manual_seed(0),
        ...     num_initial=5,
        ...     pool_size=50,
        ... )
        >>> for num in (5, 3, 3, 3, 3, 3):
        ...     nets = strategy.ask(num)
        ...     strategy.tell(nets, [1.0 + net.spec.count("0") for net in nets])
        >>> strategy.best.value
        1.0
    """

    name = "nas_bowl"

    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        num_initial: int = 10,
        acquisition: Literal["log_ei", "ucb"] | Acquisition = "log_ei",
        pool_size: int = 200,
        num_parents: int = 10,
        random_fraction: float | None = None,
        transform: Literal["none", "log"] = "log",
        levels: Sequence[int] | None = None,
        aggregation: Literal["histogram", "assignment"] | None = None,
        max_noise: float = 0.01,
    ) -> None:
        if random_fraction is None:
            random_fraction = _RANDOM_FRACTIONS.get(getattr(space, "name", ""), 0.5)
        super().__init__(
            space,
            generator=generator,
            num_initial=num_initial,
            acquisition=acquisition,
            pool_size=pool_size,
            num_parents=num_parents,
            random_fraction=random_fraction,
            transform=transform,
        )
        if levels is not None and not isinstance(levels, list | tuple | range):
            raise TypeError(f"levels must be a sequence of int or None, got {levels!r}.")
        self.levels = (
            None
            if levels is None
            else tuple(integer(f"levels[{place}]", one) for place, one in enumerate(levels))
        )
        self.aggregation = aggregation
        self.max_noise = number("max_noise", max_noise)
        if not _LEAST_NOISE < self.max_noise < math.inf:
            raise ValueError(
                f"max_noise must be finite and above {_LEAST_NOISE:g}; got {self.max_noise:g}"
            )
        # A model of any two networks says now what would be wrong later.
        nets = space.sample(2, generator=torch.Generator().manual_seed(0))
        self._model(space.encode(nets), torch.tensor([[0.0], [1.0]], dtype=torch.float64))

    def settings(self) -> dict[str, Any]:
        """Returns all settings; a callable by its name."""
        return super().settings() | {
            "levels": None if self.levels is None else list(self.levels),
            "aggregation": self.aggregation,
            "max_noise": self.max_noise,
        }

    def _model(self, X: Tensor, Y: Tensor) -> WeisfeilerLehmanGP:
        return WeisfeilerLehmanGP(
            X,
            Y,
            space=self.space,
            levels=self.levels,
            aggregation=self.aggregation,
            noise_bounds=(_LEAST_NOISE, self.max_noise),
        )

    def _fit(self, X: Tensor, Y: Tensor) -> Model:
        model = self._model(X, Y)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        return model
