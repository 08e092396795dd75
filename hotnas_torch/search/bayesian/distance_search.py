"""Bayesian optimisation with a Gaussian process on a distance that has no parameters of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from hotnas_torch.arguments import integer
from hotnas_torch.distances import NetworkDistance
from hotnas_torch.gp import DistanceGP, PairMemory
from hotnas_torch.search.base import Observation
from hotnas_torch.search.bayesian.base import BayesianSearch
from hotnas_torch.search.bayesian.options import checked_options, refused_by, settings_of
from hotnas_torch.search.bayesian.targets import targets
from hotnas_torch.spaces import SearchSpace

__all__ = ["DistanceSearch", "built"]

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
        self.distance = distance
        self.refit_every = integer("refit_every", refit_every, least=1)
        self._memory = PairMemory(distance)
        # With their data, the latest last: as many as one choice makes.
        self._last_fits: deque[tuple[Tensor, Tensor, DistanceGP]] = deque(maxlen=4)

    def settings(self) -> dict[str, Any]:
        """Returns all settings."""
        return super().settings() | {"refit_every": self.refit_every}

    def _num_fitted(self, num: int) -> int:
        """How many of so many observations the parameters of the kernel depend on."""
        # The first ones alone, so that a continued search has the same.
        return num - max(0, num - self.num_initial) % self.refit_every

    def _targets(self, observed: list[Observation]) -> Tensor:
        values = torch.tensor([found.value for found in observed], dtype=torch.float64)
        first = max(2, self._num_fitted(len(values)))
        return targets(values, transform=self.transform, num_reference=first)[:, None]

    def _fit(self, X: Tensor, Y: Tensor) -> DistanceGP:
        first = self._num_fitted(len(X))
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
        for last_X, last_Y, fitted in self._last_fits:
            if torch.equal(X, last_X) and torch.equal(Y, last_Y):
                return fitted
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
        self._last_fits.append((X, Y, model))
        return model


def built(
    kind: Callable[..., NetworkDistance],
    space: SearchSpace,
    options: Mapping[str, Any] | None,
    **own: Any,
) -> tuple[NetworkDistance, dict[str, Any]]:
    """Returns a distance with a caller's settings, and these as a dict.

    Args:
        kind: The class of the distance.
        space: What is searched.
        options: The caller's ``distance_options``.
        **own: Settings that are the search's.

    Raises:
        TypeError, ValueError: A setting that is not known, not ready for ``json.dumps``, of the
            wrong kind or out of range.
    """
    known = [name for name in settings_of(kind) if name not in own]
    found = checked_options("distance_options", options, known)
    with refused_by("distance_options", found):
        return kind(space, **own, **found), found
