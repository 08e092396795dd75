"""Regularised evolution: mutate the winner of a tournament, retire the oldest."""

from typing import Any

import torch

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, takes
from hotnas_torch.search.base import Observation, Strategy
from hotnas_torch.search.goal import GOAL
from hotnas_torch.spaces import SearchSpace

__all__ = ["RegularizedEvolution"]


class RegularizedEvolution(Strategy):
    """Aging evolution: the population is the networks that were observed last.

    The first `population` networks are random. Each one after that is a mutant of the best of
    `tournament` members drawn from the population with replacement. Failed evaluations never
    enter the population.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        population: Size of the population, >= 1.
        tournament: Members drawn per tournament, >= 1.
        **goal: Settings of `Goal`, such as `direction="maximize"`.

    Raises:
        ValueError: A setting is below 1.

    Reference: Real et al., Regularized Evolution for Image Classifier Architecture Search, AAAI
        2019, Algorithm 1; population and tournament as in the comparison of BO-TW (Nguyen et al.,
        Optimal Transport Kernels for Sequential and Parallel Neural Architecture Search, ICML
        2021).

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = RegularizedEvolution(
        ...     ht.spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0), population=4
        ... )
        >>> for _ in range(20):
        ...     nets = strategy.ask()
        ...     strategy.tell(nets, [nets[0].spec.count("0")])
        >>> strategy.best.value <= 1
        True
    """

    name = "evolution"
    pursues_several = True

    @takes(*GOAL)
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        population: int = 50,
        tournament: int = 10,
        **goal: Any,
    ) -> None:
        super().__init__(space, generator=generator, **goal)
        self.population = integer("population", population, least=1)
        self.tournament = integer("tournament", tournament, least=1)

    def settings(self) -> dict[str, Any]:
        """Return the sizes of population and tournament."""
        return {"population": self.population, "tournament": self.tournament}

    def _propose(self, num: int) -> list[Network]:
        taken = self._taken()
        living = self._finite()[-self.population :]
        proposed: list[Network] = []
        while len(proposed) < num:
            child = None
            if living and len(taken) >= self.population:
                child = self._mutate_unseen(self._select(living), taken)
            found = self._sample_unseen(1, taken) if child is None else [child]
            if not found:
                break
            proposed += found
        return proposed

    def _select(self, living: list[Observation]) -> Network:
        drawn = torch.randint(
            len(living),
            (self.tournament,),
            generator=self._generator,
            device=self._generator.device,
        )
        members: list[Observation] = [living[place] for place in drawn.tolist()]
        return min(members, key=lambda member: member.value).network
