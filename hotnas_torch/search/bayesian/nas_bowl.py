"""NAS-BOWL: Bayesian optimisation with a Weisfeiler-Lehman kernel."""

from collections.abc import Sequence
from typing import Any, Literal

import torch

from hotnas_torch.arguments import takes
from hotnas_torch.search.bayesian.recipe import CHOICE, POOL, Recipe, SearchSettings
from hotnas_torch.search.bayesian.surrogates import WeisfeilerLehmanSurrogate
from hotnas_torch.spaces import SearchSpace

__all__ = ["NASBOWL"]

_LEAST_NOISE = 1e-5

_RANDOM_FRACTIONS = {"nasbench201": 0.0}
"""By the name of a space, where the paper's pool is not half random."""


class NASBOWL(Recipe):
    """Bayesian optimisation with a Gaussian process on Weisfeiler-Lehman features of networks.

    Defaults are those of the method's code: logarithms of the errors, expected improvement, a pool
    of 200 around the 10 best, half of it random (none of it on NAS-Bench-201).

    Args:
        space: What is searched.
        generator: Source of all randomness.
        levels: Levels of the kernel to choose from; None takes what `gp.WeisfeilerLehmanGP` does.
        aggregation: `"histogram"` or `"assignment"`; None takes the one that fits the space.
        max_noise: Largest variance of the noise of standardised targets, > 1e-5.
        **settings: Of `SearchSettings`: all but `pending`; `acquisition="ucb"` has the paper's
            schedule, `random_fraction=None` is as above.

    Raises:
        TypeError, ValueError: A setting that is unknown, of the wrong kind or out of range.

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

    @takes(*CHOICE, *POOL)
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        levels: Sequence[int] | None = None,
        aggregation: Literal["histogram", "assignment"] | None = None,
        max_noise: float = 0.01,
        **settings: Any,
    ) -> None:
        if settings.get("random_fraction") is None:
            settings["random_fraction"] = _RANDOM_FRACTIONS.get(getattr(space, "name", ""), 0.5)
        surrogate = WeisfeilerLehmanSurrogate(levels, aggregation, max_noise)
        super().__init__(
            space,
            SearchSettings.of({"pool_size": 200} | settings),
            surrogate,
            generator=generator,
            record=surrogate.settings(),
        )
