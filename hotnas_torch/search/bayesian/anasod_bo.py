"""ANASOD-BO: Bayesian optimisation over operation distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models.model import Model
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer
from hotnas_torch.gp import FeatureGP
from hotnas_torch.search.base import Observation
from hotnas_torch.search.bayesian.acquisition import Acquisition, AcquisitionInputs, name_of
from hotnas_torch.search.bayesian.bananas import ThompsonSampling
from hotnas_torch.search.bayesian.base import BayesianSearch
from hotnas_torch.search.bayesian.ensemble import MLPEnsemble
from hotnas_torch.search.bayesian.trust_region import DirichletTrustRegion
from hotnas_torch.search.direct.encoding_strategy import EncodingStrategy
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.encodings import ascend_simplex

__all__ = ["ANASODBO", "fit_feature_gp"]

_CANDIDATES_PER_OPERATION = 100
_MOST_CANDIDATES = 5000
# Starts of the ascent: the most promising candidates.
_ASCENTS = 10


def fit_feature_gp(
    X: Tensor, Y: Tensor, features: Callable[[Tensor], Tensor], **ranges: tuple[float, float]
) -> FeatureGP:
    """Fits a Gaussian process on features of rows by maximising the marginal likelihood.

    Args:
        X: Rows, (n, d) float64.
        Y: Targets, (n, 1), larger being better.
        features: Maps rows to features.
        **ranges: Of hyperparameters, see :class:`~hotnas_torch.gp.FeatureGP`.
    """
    model = FeatureGP(X, Y, features, **ranges)
    try:
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    except ModelFittingError:
        # The starting values are a usable model, too.
        model = FeatureGP(X, Y, features, **ranges)
    return model.eval()


class ANASODBO(EncodingStrategy, BayesianSearch):
    """Bayesian optimisation over encodings, each standing for the networks that share it.

    The first ``num_initial`` networks are of random encodings. After them, each :meth:`ask` fits a
    model from encodings to values, draws candidate encodings around the best one (a probabilistic
    trust region, see :class:`~hotnas_torch.search.DirichletTrustRegion`), rounds them, and takes
    the one with the largest acquisition value: one network of it, not seen before, is evaluated.
    Batches are made as in :class:`~hotnas_torch.search.BayesianSearch`.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        num_initial: Random encodings at the start, >= 2.
        acquisition: As for :class:`~hotnas_torch.search.HOTNAS`, or ``"its"``, independent
            Thompson sampling. None: ``"log_ei"`` with a Gaussian process, whose maximum is that of
            the paper's expected improvement, and ``"its"`` with an ensemble.
        num_candidates: Encodings drawn per :meth:`ask`, >= 1; None takes min(100 k, 5000) for k
            operations.
        optimizer: ``"sample"``: the candidates as they were drawn; ``"gradient"``: the most
            promising of them also ascend the acquisition function by exponentiated gradients on
            the simplex before they are rounded.
        trust_region: None draws candidates from the whole simplex at all times.
        transform: As for :class:`~hotnas_torch.search.HOTNAS`.
        surrogate: ``"gp"``: a Gaussian process with a Matern-5/2 kernel in the paper's ranges
            (:class:`~hotnas_torch.gp.FeatureGP`); ``"ensemble"``: the neural networks of
            :class:`~hotnas_torch.search.BANANAS`, which train on a batch of their own: pending
            networks then count for nothing.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range; the space has no
            operation encoding; ``optimizer="gradient"`` with an ensemble.

    Complexity: one fit in O(n^3) for n observations and O(c n^2) for c candidates per :meth:`ask`.

    Reference: Wan et al., ANASOD, CVPR 2022, Algorithm 2 and Appendix A.1.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = ANASODBO(
        ...     ht.spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0), num_initial=5
        ... )
        >>> for num in (5, 4, 4):
        ...     nets = strategy.ask(num)
        ...     strategy.tell(nets, [1.0 + net.spec.count("0") for net in nets])
        >>> strategy.best.value
        1.0
    """

    name = "anasod_bo"

    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        num_initial: int = 10,
        acquisition: Literal["log_ei", "ucb", "its"] | Acquisition | None = None,
        num_candidates: int | None = None,
        optimizer: Literal["sample", "gradient"] = "sample",
        trust_region: DirichletTrustRegion | None = DirichletTrustRegion(),  # noqa: B008 - frozen
        transform: Literal["none", "log"] = "log",
        surrogate: Literal["gp", "ensemble"] = "gp",
    ) -> None:
        if surrogate not in ("gp", "ensemble"):
            raise ValueError(f"surrogate must be 'gp' or 'ensemble', got {surrogate!r}.")
        if acquisition is None:
            acquisition = "log_ei" if surrogate == "gp" else "its"
        super().__init__(
            space,
            generator=generator,
            num_initial=num_initial,
            acquisition=ThompsonSampling() if acquisition == "its" else acquisition,
            transform=transform,
            pending="believer" if surrogate == "gp" else "acquisition",
        )
        if optimizer not in ("sample", "gradient"):
            raise ValueError(f"optimizer must be 'sample' or 'gradient', got {optimizer!r}.")
        if optimizer == "gradient" and surrogate == "ensemble":
            raise ValueError("optimizer must be 'sample' with an ensemble, got 'gradient'.")
        if num_candidates is None:
            num_candidates = min(
                _CANDIDATES_PER_OPERATION * self.encoding.num_operations, _MOST_CANDIDATES
            )
        num_candidates = integer("num_candidates", num_candidates, least=1)
        if not isinstance(trust_region, DirichletTrustRegion | None):
            raise TypeError(
                f"trust_region must be a DirichletTrustRegion or None, got {trust_region!r}."
            )
        self.num_candidates = self.pool_size = num_candidates
        self.optimizer = optimizer
        self.trust_region = trust_region
        self.surrogate = surrogate

    def settings(self) -> dict[str, Any]:
        """Returns all settings; a callable by its name."""
        return {
            "num_initial": self.num_initial,
            "acquisition": name_of(self.acquisition),
            "num_candidates": self.num_candidates,
            "optimizer": self.optimizer,
            "trust_region": None if self.trust_region is None else self.trust_region.to_json(),
            "transform": self.transform,
            "surrogate": self.surrogate,
        }

    @property
    def beta(self) -> float:
        """How closely candidates keep to the best encoding; 0 is not at all."""
        if self.trust_region is None:
            return 0.0
        values = [found.value for found in self.observations]
        return self.trust_region.beta(values, num_initial=self.num_initial)

    def _fit(self, X: Tensor, Y: Tensor) -> Model:
        if self.surrogate == "ensemble":
            return MLPEnsemble(
                X,
                Y,
                space=self.space,
                encoding=self.encoding.encode,
                generator=self._generator,
            )
        return fit_feature_gp(X, Y, self.encoding.of_rows)

    def _propose(self, num: int) -> list[Network]:
        proposed = super()._propose(num)
        # Fewer where the candidates' encodings have fewer unseen networks.
        taken = self._taken() | {self.space.key(net) for net in proposed}
        return proposed + self._sample_unseen(num - len(proposed), taken)

    def _pool(self, size: int, observed: list[Observation], taken: set[str]) -> list[Network]:
        """Draws an unseen network of each candidate encoding."""
        best = min(observed, key=lambda found: found.value)
        center = self.encoding.encode([best.network])[0]
        points = self.encoding.draw(
            size,
            generator=self._generator,
            concentration=1.0 + len(center) * self.beta * center,
        )
        if self.optimizer == "gradient":
            points = torch.cat([self._ascend(points, observed), points])
        return self._decode_unseen(self._distinct(self.encoding.snap(points)), taken)

    def _ascend(self, points: Tensor, observed: list[Observation]) -> Tensor:
        """Moves the most promising points up the acquisition function, over the simplex."""
        assert isinstance(self.model, FeatureGP)
        model = self.model.on_features()
        known = self.encoding.encode([found.network for found in observed])
        with torch.no_grad():
            best = float(model.posterior(known).mean.max())
        inputs = AcquisitionInputs(
            X=known,
            best=best,
            pending=known[:0],
            step=max(1, len(observed) - self.num_initial + 1),
        )
        acquisition = self.acquisition(model, inputs)

        def values(rows: Tensor) -> Tensor:
            result: Tensor = acquisition(rows.unsqueeze(1))
            return result

        with torch.no_grad():
            promising = values(points).nan_to_num(nan=-torch.inf).argsort(descending=True)
        return ascend_simplex(values, points[promising[:_ASCENTS]])

    def _distinct(self, points: Tensor) -> Tensor:
        """Drops repeated encodings, keeping the order."""
        first: dict[tuple[float, ...], int] = {}
        for place, point in enumerate(points.tolist()):
            first.setdefault(tuple(point), place)
        return points[list(first.values())]
