"""Mutation of the best networks, without a model."""

from typing import Any

import torch

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, takes
from hotnas_torch.search.base import Observation, Strategy
from hotnas_torch.search.goal import GOAL
from hotnas_torch.spaces import SearchSpace

__all__ = ["MutationSearch"]


class MutationSearch(Strategy):
    """Mutate the best networks, without a model and without a pool.

    The first `num_initial` networks are random. Each one after that is an unseen mutant of one of
    the `num_parents` best, drawn at random.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        num_initial: Random networks at the start, >= 1.
        num_parents: How many of the best networks are mutated, >= 1.
        **goal: Settings of `Goal`, such as `direction="maximize"`.

    Raises:
        ValueError: A setting is below 1.

    Reference: the mutation step by itself gives much of what BANANAS gains on NAS-Bench-301, says
        arXiv 2107.07343; this is the control for that.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = MutationSearch(
        ...     ht.spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0)
        ... )
        >>> for _ in range(40):
        ...     nets = strategy.ask()
        ...     strategy.tell(nets, [nets[0].spec.count("0")])
        >>> strategy.best.value
        0.0
    """

    name = "mutation"
    pursues_several = True

    @takes(*GOAL)
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        num_initial: int = 10,
        num_parents: int = 10,
        **goal: Any,
    ) -> None:
        super().__init__(space, generator=generator, **goal)
        self.num_initial = integer("num_initial", num_initial, least=1)
        self.num_parents = integer("num_parents", num_parents, least=1)

    def settings(self) -> dict[str, Any]:
        """Return the numbers of initial networks and of parents."""
        return {"num_initial": self.num_initial, "num_parents": self.num_parents}

    def _propose(self, num: int) -> list[Network]:
        taken = self._taken()
        proposed = self._sample_unseen(max(0, min(num, self.num_initial - len(taken))), taken)
        parents = sorted(self._finite(), key=lambda found: found.value)[: self.num_parents]
        while len(proposed) < num:
            mutant = self._mutate_unseen(self._draw(parents), taken) if parents else None
            found = self._sample_unseen(1, taken) if mutant is None else [mutant]
            if not found:
                break
            proposed += found
        return proposed

    def _draw(self, parents: list[Observation]) -> Network:
        place = torch.randint(
            len(parents), (), generator=self._generator, device=self._generator.device
        )
        return parents[int(place)].network
