"""BO-TW: Bayesian optimisation with tree-Wasserstein distances, batches from a k-DPP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from botorch.models.model import Model
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer
from hotnas_torch.distances import TreeWasserstein
from hotnas_torch.search.base import Observation
from hotnas_torch.search.bayesian.acquisition import UCB, Acquisition
from hotnas_torch.search.bayesian.base import believe
from hotnas_torch.search.bayesian.distance_search import DistanceSearch, built
from hotnas_torch.search.bayesian.kdpp import sample_kdpp
from hotnas_torch.spaces import SearchSpace

__all__ = ["BOTW"]

_BETA = 2.0 * math.log(100.0)
# Added to the covariance that sets are drawn by, so that equal networks do not lower its rank.
_JITTER = 1e-6


class BOTW(DistanceSearch):
    """BO-TW and, with ``grams=2``, BO-TW-2G.

    A Gaussian process with the kernel exp(-W_op/l_1 - W_in/l_2 - W_out/l_3) of `TreeWasserstein`,
    all scales fitted by marginal likelihood; a pool of mutants of the best networks; the upper
    confidence bound with beta = 2 ln 100, on the standard deviation.

    For a batch, the networks are drawn together from the pool by a k-determinantal point process
    with L = q_x q_x' k(x, x' | data), k(. | data) being the posterior covariance and q = exp(mean),
    in units of the targets' standard deviation: good ones that differ. For networks that are
    pending, the model is first told its own mean as if it had been observed.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        grams: 1 for operations, 2 for operations and consecutive pairs of them.
        num_initial: Random networks at the start, >= 2.
        acquisition: For single networks, as for `BayesianSearch`.
        pool_size: Candidates per choice, >= 1.
        num_parents: How many of the best networks are mutated, >= 1.
        random_fraction: Share of the pool that is drawn at random, in [0, 1].
        transform: As for `BayesianSearch`.
        pending: As for `BayesianSearch`; for single networks.
        refit_every: Observations from one fit of the kernel to the next, >= 1.
        batches: ``"kdpp"``: see above; ``"believer"``: one after the other, as `BayesianSearch`.
        distance_options: Settings of `TreeWasserstein` ready for ``json.dumps``, such as
            ``{"alpha": 0.05}``.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range.

    Reference: Nguyen, Le, Yamada and Osborne, Optimal Transport Kernels for Sequential and Parallel
        Neural Architecture Search, ICML 2021, Algorithms 1 and 2; settings as in its public code,
        whose confidence bound uses the variance in place of the standard deviation, and whose
        likelihood leaves l_3 out.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = BOTW(
        ...     ht.spaces.NASBench201(), generator=torch.Generator().manual_seed(0), num_initial=4
        ... )
        >>> for num in (4, 3):
        ...     nets = strategy.ask(num)
        ...     strategy.tell(nets, [1.0 + net.spec.count("none") for net in nets])
        >>> len(strategy.observations)
        7
    """

    name = "bo_tw"

    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        grams: Literal[1, 2] = 1,
        num_initial: int = 10,
        acquisition: Literal["log_ei", "ucb"] | Acquisition | None = None,
        pool_size: int = 100,
        num_parents: int = 10,
        random_fraction: float = 0.0,
        transform: Literal["none", "log"] = "log",
        pending: Literal["believer", "acquisition"] = "believer",
        refit_every: int = 1,
        batches: Literal["kdpp", "believer"] = "kdpp",
        distance_options: Mapping[str, Any] | None = None,
    ) -> None:
        if batches not in ("kdpp", "believer"):
            raise ValueError(f"batches must be 'kdpp' or 'believer', got {batches!r}.")
        self.grams = integer("grams", grams)
        self.batches: Literal["kdpp", "believer"] = batches
        if self.grams not in (1, 2):
            raise ValueError(f"grams must be 1 or 2, got {self.grams}.")
        distance, self.distance_options = built(
            TreeWasserstein, space, distance_options, grams=self.grams
        )
        super().__init__(
            space,
            distance,
            generator=generator,
            num_initial=num_initial,
            acquisition=UCB(_BETA) if acquisition is None else acquisition,
            pool_size=pool_size,
            num_parents=num_parents,
            random_fraction=random_fraction,
            transform=transform,
            pending=pending,
            refit_every=refit_every,
        )

    def settings(self) -> dict[str, Any]:
        """Returns all settings."""
        return super().settings() | {
            "grams": self.grams,
            "batches": self.batches,
            "distance_options": self.distance_options,
        }

    def _choose(
        self, num: int, observed: list[Observation], proposed: list[Network], taken: set[str]
    ) -> list[Network]:
        if num == 1 or self.batches == "believer":
            return super()._choose(num, observed, proposed, taken)
        X = self.space.encode([found.network for found in observed])
        Y = self._targets(observed)
        model: Model = self._fit_explained(X, Y)
        self.model = model
        awaited = self.space.encode([*self._pending.values(), *proposed])
        if len(awaited):
            model = believe(model, awaited)
        pool = self._pool(max(self.pool_size, num), observed, set(taken))
        if len(pool) <= num:
            return pool
        matrix = _quality_and_diversity(model, self.space.encode(pool), Y)
        return [pool[place] for place in sample_kdpp(matrix, num, generator=self._generator)]


def _quality_and_diversity(model: Model, rows: Tensor, Y: Tensor) -> Tensor:
    """L of the candidates, (N, N): posterior covariance times the qualities of both."""
    with torch.no_grad():
        posterior: Any = model.posterior(rows)
        mean: Tensor = posterior.mean.squeeze(-1)
        covariance: Tensor = posterior.distribution.covariance_matrix
    spread = Y.std()
    quality = torch.exp((mean - mean.max()) / spread)
    covariance = covariance / spread**2
    covariance = covariance + _JITTER * torch.eye(len(rows), dtype=covariance.dtype)
    return quality[:, None] * quality * covariance
