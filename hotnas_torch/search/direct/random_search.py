"""Random search: the baseline of every comparison."""

from typing import Any

from hotnas_torch.arch import Network
from hotnas_torch.search.base import Strategy

__all__ = ["RandomSearch"]


class RandomSearch(Strategy):
    """Draw networks from the space at random, each at most once.

    What is asked does not depend on what was observed.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        **goal: Settings of `Goal`, such as `direction="maximize"`.

    Example:
        >>> import torch
        >>> import hotnas_torch as ht
        >>> strategy = RandomSearch(
        ...     ht.spaces.Pooling(), generator=torch.Generator().manual_seed(0)
        ... )
        >>> nets = strategy.ask(3)
        >>> strategy.tell(nets, [0.3, float("nan"), 0.2])
        >>> strategy.best.network == nets[2]
        True
    """

    name = "random"
    pursues_several = True

    def settings(self) -> dict[str, Any]:
        """Return no settings: there are none."""
        return {}

    def _propose(self, num: int) -> list[Network]:
        return self._sample_unseen(num, self._taken())
