"""BO-edit: Bayesian optimisation with edit distances between architectures."""

from collections.abc import Mapping
from typing import Any

import torch

from hotnas_torch.arguments import takes
from hotnas_torch.distances import EditDistance
from hotnas_torch.search.bayesian.recipe import CHOICE, POOL, Recipe, SearchSettings, distance_of
from hotnas_torch.search.bayesian.surrogates import DistanceSurrogate
from hotnas_torch.spaces import SearchSpace

__all__ = ["BOEdit"]


class BOEdit(Recipe):
    """Bayesian optimisation with a Gaussian process on edit distances.

    The kernel is exp(-`EditDistance` / lengthscale), made positive semi-definite with the observed
    networks as landmarks.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        refit_every: Observations from one fit of the kernel to the next, >= 1.
        distance_options: Settings of `EditDistance` ready for `json.dumps`, such as
            `{"edge_cost": 0.5}`.
        **settings: Fields of `SearchSettings`, all of which it has; a pool has 200 candidates by
            default.

    Raises:
        TypeError, ValueError: A setting that is unknown, of the wrong kind or out of range.

    Reference: a baseline of HOTNAS (Yang, Liu and Xu, CVPR 2023), which states no settings; after
        Jin, Song and Hu, Auto-Keras: An Efficient Neural Architecture Search System, KDD 2019.

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

    @takes(*CHOICE, *POOL, "pending")
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        refit_every: int = 1,
        distance_options: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.distance, options = distance_of(EditDistance, space, distance_options)
        surrogate = DistanceSurrogate(self.distance, refit_every)
        super().__init__(
            space,
            SearchSettings.of({"pool_size": 200} | settings),
            surrogate,
            generator=generator,
            record={"refit_every": surrogate.refit_every, "distance_options": options},
        )
