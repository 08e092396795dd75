"""Bayesian optimisation with a Gaussian process on a distance that has no parameters of its own."""

from __future__ import annotations

from typing import Any

import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from hotnas_torch.gp import DistanceGP, PartMemory
from hotnas_torch.metrics import NetworkDistance
from hotnas_torch.search.bayesian import BayesianSearch
from hotnas_torch.spaces import SearchSpace

__all__ = ["DistanceSearch"]

_FIT_OPTIONS = {"maxiter": 60, "ftol": 1e-6, "gtol": 1e-4}


class DistanceSearch(BayesianSearch):
    """A `BayesianSearch` whose model is a `DistanceGP`, with one memory of distances.

    Args:
        space: What is searched.
        distance: The distance, of ``space``.
        generator: Source of all randomness.
        **options: As for `BayesianSearch`.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        distance: NetworkDistance,
        *,
        generator: torch.Generator | None,
        **options: Any,
    ) -> None:
        super().__init__(space, generator=generator, **options)
        self.distance = distance
        self._memory = PartMemory(distance)

    def _fit(self, X: Tensor, Y: Tensor) -> DistanceGP:
        model = DistanceGP(X, Y, distance=self.distance, memory=self._memory)
        try:
            fit_gpytorch_mll(
                ExactMarginalLogLikelihood(model.likelihood, model),
                optimizer_kwargs={"options": _FIT_OPTIONS},
            )
        except ModelFittingError:
            # The starting values are a usable model, too.
            model = DistanceGP(X, Y, distance=self.distance, memory=self._memory)
        model.eval()
        return model
