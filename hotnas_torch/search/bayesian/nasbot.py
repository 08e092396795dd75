"""NASBOT: Bayesian optimisation with OTMANN distances, acquisition by evolution."""

from collections.abc import Mapping
from typing import Any

import torch

from hotnas_torch.arguments import takes
from hotnas_torch.distances import OTMANN
from hotnas_torch.search.bayesian.pools import BredPool
from hotnas_torch.search.bayesian.recipe import CHOICE, Recipe, SearchSettings, distance_of
from hotnas_torch.search.bayesian.surrogates import DistanceSurrogate
from hotnas_torch.spaces import SearchSpace

__all__ = ["NASBOT"]


class NASBOT(Recipe):
    """NASBOT: a Gaussian process on OTMANN distances, candidates bred for the acquisition.

    The kernel is that of `OTMANN`, fitted after every seventh observation; candidates are a
    `BredPool`. NASBOT's own modifiers (changing widths and labels, wedging in, removing, branching
    and skipping layers) belong to networks of any form; here an edit is the space's own mutation,
    and initial networks are random ones in place of NASBOT's fixed ones.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        max_pool_size: Most evaluations of the acquisition per step, >= `pool_size`.
        refit_every: Observations from one fit of the kernel to the next, >= 1.
        distance_options: Settings of `OTMANN` ready for `json.dumps`, such as `{"nu": [0.5]}`.
        **settings: Of `SearchSettings`: `num_initial`, `acquisition`, `transform`, `pending` and
            `pool_size`, here the fewest evaluations of the acquisition per step, 50 by default.

    Raises:
        TypeError, ValueError: A setting that is unknown, of the wrong kind or out of range.

    Reference: Kandasamy, Neiswanger, Schneider, Poczos and Xing, Neural Architecture Search with
        Bayesian Optimisation and Optimal Transport, NeurIPS 2018; numbers as in its public code.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = NASBOT(
        ...     ht.spaces.NASBench201(),
        ...     generator=torch.Generator().manual_seed(0),
        ...     num_initial=4,
        ...     pool_size=20,
        ... )
        >>> for num in (4, 1):
        ...     nets = strategy.ask(num)
        ...     strategy.tell(nets, [1.0 + net.spec.count("none") for net in nets])
        >>> len(strategy.observations)
        5
    """

    name = "nasbot"

    @takes(*CHOICE, "pool_size", "pending")
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        max_pool_size: int = 500,
        refit_every: int = 7,
        distance_options: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.distance, options = distance_of(OTMANN, space, distance_options)
        surrogate = DistanceSurrogate(self.distance, refit_every)
        common = SearchSettings.of({"pool_size": 50} | settings)
        super().__init__(
            space,
            common,
            surrogate,
            generator=generator,
            pool=BredPool(common.pool_size, max_pool_size),
            record={"refit_every": surrogate.refit_every, "distance_options": options},
        )
