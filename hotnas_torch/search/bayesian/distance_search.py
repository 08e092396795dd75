"""Bayesian optimisation with a Gaussian process on a distance that has no parameters of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from hotnas_torch.gp import DistanceGP, PartMemory
from hotnas_torch.metrics import NetworkDistance
from hotnas_torch.search.bayesian.base import BayesianSearch
from hotnas_torch.spaces import SearchSpace

__all__ = ["DistanceSearch", "checked_options"]

_FIT_OPTIONS = {"maxiter": 60, "ftol": 1e-6, "gtol": 1e-4}


class DistanceSearch(BayesianSearch):
    """A `BayesianSearch` whose model is a `DistanceGP`, with one memory of distances.

    Args:
        space: What is searched.
        distance: The distance, of ``space``.
        generator: Source of all randomness.
        refit_every: The kernel is fitted after the initial networks, and then after this many
            observations each time, >= 1; it has the same parameters in between.
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
        refit_every: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(space, generator=generator, **options)
        if refit_every < 1:
            raise ValueError(f"refit_every must be at least 1, got {refit_every}.")
        self.distance = distance
        self.refit_every = refit_every
        self._memory = PartMemory(distance)
        self._last_fit: DistanceGP | None = None
        self._last_data: tuple[Tensor, Tensor] | None = None

    def settings(self) -> dict[str, Any]:
        """Returns all settings."""
        return super().settings() | {"refit_every": self.refit_every}

    def _fit(self, X: Tensor, Y: Tensor) -> DistanceGP:
        # Parameters depend on the first observations alone, so that a continued search has them.
        later = max(0, len(X) - self.num_initial) % self.refit_every
        first = len(X) - later
        if first < 2 or bool((Y[:first] == Y[0]).all()):
            first = len(X)
        fitted = self._fitted(X[:first], Y[:first])
        if first == len(X):
            return fitted
        model = self._model(X, Y)
        with torch.no_grad():
            for own, found in zip(model.parameters(), fitted.parameters(), strict=True):
                own.copy_(found)
        model.eval()
        return model

    def _model(self, X: Tensor, Y: Tensor) -> DistanceGP:
        return DistanceGP(X, Y, distance=self.distance, memory=self._memory)

    def _fitted(self, X: Tensor, Y: Tensor) -> DistanceGP:
        if self._last_fit is not None and self._last_data is not None:
            last_X, last_Y = self._last_data
            if torch.equal(X, last_X) and torch.equal(Y, last_Y):
                return self._last_fit
        model = self._model(X, Y)
        try:
            fit_gpytorch_mll(
                ExactMarginalLogLikelihood(model.likelihood, model),
                optimizer_kwargs={"options": _FIT_OPTIONS},
            )
        except ModelFittingError:
            # The starting values are a usable model, too.
            model = self._model(X, Y)
        model.eval()
        self._last_fit, self._last_data = model, (X, Y)
        return model


def checked_options(distance_options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns settings of a distance, which have to fit into the record of a search."""
    options = dict(distance_options or {})
    try:
        json.dumps(options)
    except TypeError as error:
        raise TypeError(f"distance_options must be ready for json.dumps: {error}.") from error
    return options
