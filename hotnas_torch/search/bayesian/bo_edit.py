"""BO-edit: Bayesian optimisation with edit distances between architectures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch

from hotnas_torch.distances import EditDistance
from hotnas_torch.search.bayesian.acquisition import Acquisition
from hotnas_torch.search.bayesian.distance_search import DistanceSearch, built
from hotnas_torch.spaces import SearchSpace

__all__ = ["BOEdit"]


class BOEdit(DistanceSearch):
    """Bayesian optimisation with a Gaussian process on edit distances.

    The kernel is exp(-`EditDistance` / lengthscale), made positive semi-definite with the observed
    networks as landmarks. Pool, acquisition and batches are those of `BayesianSearch`.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        num_initial: Random networks at the start, >= 2.
        acquisition: As for `BayesianSearch`, like the following.
        pool_size: Candidates per choice, >= 1.
        num_parents: How many of the best networks are mutated, >= 1.
        random_fraction: Share of the pool that is drawn at random, in [0, 1].
        transform: See `BayesianSearch`.
        pending: See `BayesianSearch`.
        refit_every: Observations from one fit of the kernel to the next, >= 1.
        distance_options: Settings of `EditDistance` ready for ``json.dumps``, such as
            ``{"edge_cost": 0.5}``.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range.

    Reference: a baseline of HOTNAS (CVPR 2023), which states no settings; after Jin, Song and Hu,
        Auto-Keras: An Efficient Neural Architecture Search System, KDD 2019.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = BOEdit(
        ...     ht.spaces.NASBench201(), generator=torch.Generator().manual_seed(0), num_initial=4
        ... )
        >>> for num in (4, 1):
        ...     nets = strategy.ask(num)
        ...     strategy.tell(nets, [1.0 + net.spec.count("none") for net in nets])
        >>> len(strategy.observations)
        5
    """

    name = "bo_edit"

    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        num_initial: int = 10,
        acquisition: Literal["log_ei", "ucb"] | Acquisition = "log_ei",
        pool_size: int = 200,
        num_parents: int = 10,
        random_fraction: float = 0.5,
        transform: Literal["none", "log"] = "log",
        pending: Literal["believer", "acquisition"] = "believer",
        refit_every: int = 1,
        distance_options: Mapping[str, Any] | None = None,
    ) -> None:
        distance, self.distance_options = built(EditDistance, space, distance_options)
        super().__init__(
            space,
            distance,
            generator=generator,
            num_initial=num_initial,
            acquisition=acquisition,
            pool_size=pool_size,
            num_parents=num_parents,
            random_fraction=random_fraction,
            transform=transform,
            pending=pending,
            refit_every=refit_every,
        )

    def settings(self) -> dict[str, Any]:
        """Returns all settings."""
        return super().settings() | {"distance_options": self.distance_options}
