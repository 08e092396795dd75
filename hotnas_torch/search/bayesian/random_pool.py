"""HOTNAS without its model."""

from typing import Any

import torch

from hotnas_torch.arguments import takes
from hotnas_torch.search.bayesian.batches import RandomChoice
from hotnas_torch.search.bayesian.recipe import POOL, Recipe, SearchSettings
from hotnas_torch.spaces import SearchSpace

__all__ = ["RandomPool"]

# In records since there are any, of what HOTNAS has and this has not.
_RECORD = {
    "acquisition": "LogEI()",
    "transform": "log",
    "pending": "believer",
    "learn_from": 50,
    "model_options": {},
    "model": None,
}


class RandomPool(Recipe):
    """HOTNAS without its model: the pool is the same, what is taken from it is left to chance.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        **settings: Of `SearchSettings`: `num_initial`, `pool_size`, `num_parents`,
            `random_fraction`.

    Raises:
        TypeError, ValueError: A setting that is unknown, of the wrong kind or out of range.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = RandomPool(
        ...     ht.spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0), num_initial=5
        ... )
        >>> for num in (5, 10):
        ...     nets = strategy.ask(num)
        ...     strategy.tell(nets, [net.spec.count("0") for net in nets])
        >>> strategy.model is None
        True
    """

    name = "random_pool"

    @takes("num_initial", *POOL)
    def __init__(
        self, space: SearchSpace, *, generator: torch.Generator | None, **settings: Any
    ) -> None:
        super().__init__(
            space,
            SearchSettings.of(settings),
            None,
            generator=generator,
            batch=RandomChoice(),
            record={},
        )
        del self._record["acquisition"], self._record["transform"], self._record["batches"]

    def settings(self) -> dict[str, Any]:
        """Return all settings, and constants that its records have always held."""
        return self._record | _RECORD
