"""HOTNAS without its model."""

from __future__ import annotations

import torch

from hotnas_torch.arch import Network
from hotnas_torch.search.base import Observation
from hotnas_torch.search.bayesian.hotnas import HOTNAS

__all__ = ["RandomPool"]


class RandomPool(HOTNAS):
    """HOTNAS without its model: the pool is the same, what is taken from it is left to chance.

    Arguments and errors as for :class:`HOTNAS`; those of the model and the acquisition function
    have no effect.

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

    def _choose(
        self, num: int, observed: list[Observation], proposed: list[Network], taken: set[str]
    ) -> list[Network]:
        del proposed
        pool = self._pool(max(self.pool_size, num), observed, set(taken))
        order = torch.randperm(len(pool), generator=self._generator, device=self._generator.device)
        return [pool[place] for place in order[:num].tolist()]
