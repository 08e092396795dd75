"""BO-TW: Bayesian optimisation with tree-Wasserstein distances, batches from a k-DPP."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch

from hotnas_torch.arguments import integer, takes
from hotnas_torch.distances import TreeWasserstein
from hotnas_torch.search.bayesian.acquisition import UCB
from hotnas_torch.search.bayesian.batches import Determinantal
from hotnas_torch.search.bayesian.recipe import CHOICE, POOL, Recipe, SearchSettings, distance_of
from hotnas_torch.search.bayesian.surrogates import DistanceSurrogate
from hotnas_torch.spaces import SearchSpace

__all__ = ["BOTW"]

_BETA = 2.0 * math.log(100.0)


class BOTW(Recipe):
    """BO-TW and, with `grams=2`, BO-TW-2G.

    A Gaussian process with the kernel exp(-W_op/l_1 - W_in/l_2 - W_out/l_3) of `TreeWasserstein`,
    all scales fitted by marginal likelihood; a pool of mutants of the best networks; the upper
    confidence bound with beta = 2 ln 100, on the standard deviation; batches by `Determinantal`.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        grams: 1 for operations, 2 for operations and consecutive pairs of them.
        refit_every: Observations from one fit of the kernel to the next, >= 1.
        batches: `"kdpp"`: drawn together by a determinantal point process; `"believer"`: one after
            the other.
        distance_options: Settings of `TreeWasserstein` ready for `json.dumps`, such as
            `{"alpha": 0.05}`.
        **settings: Fields of `SearchSettings`, all of which it has; by default a pool of 100
            mutants and none at random. `acquisition` and `pending` are for single networks.

    Raises:
        TypeError, ValueError: A setting that is unknown, of the wrong kind or out of range.

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

    @takes(*CHOICE, *POOL, "pending")
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        grams: Literal[1, 2] = 1,
        refit_every: int = 1,
        batches: Literal["kdpp", "believer"] = "kdpp",
        distance_options: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if batches not in ("kdpp", "believer"):
            raise ValueError(f"batches must be 'kdpp' or 'believer'; got {batches!r}")
        num_grams = integer("grams", grams)
        if num_grams not in (1, 2):
            raise ValueError(f"grams must be 1 or 2; got {grams}")
        self.distance, options = distance_of(
            TreeWasserstein, space, distance_options, grams=num_grams
        )
        surrogate = DistanceSurrogate(self.distance, refit_every)
        if settings.get("acquisition") is None:
            settings["acquisition"] = UCB(_BETA)
        common = SearchSettings.of({"pool_size": 100, "random_fraction": 0.0} | settings)
        super().__init__(
            space,
            common,
            surrogate,
            generator=generator,
            batch=Determinantal(common.rule()) if batches == "kdpp" else common.rule(),
            record={
                "refit_every": surrogate.refit_every,
                "grams": num_grams,
                "batches": batches,
                "distance_options": options,
            },
        )
