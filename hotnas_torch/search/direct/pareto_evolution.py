"""NSGA-II: evolution of fronts, for several objectives."""

from typing import Any

import torch

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, takes
from hotnas_torch.search.base import Observation, Strategy
from hotnas_torch.search.goal import GOAL
from hotnas_torch.spaces import SearchSpace

__all__ = ["ParetoEvolution"]


class ParetoEvolution(Strategy):
    """NSGA-II with mutation alone: the fittest of everything observed survive.

    The first `population` networks are random. Each one after that is a mutant of the winner of a
    tournament among the survivors: the `population` networks first in the order of fronts, and of
    crowding distance within each. What breaks a constraint comes after all that keeps them, by how
    much it does.

    Networks of any space can be mutated, but not crossed, so that there is no crossover. One child
    at a time joins the others, where NSGA-II replaces a generation.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        population: Networks that survive, >= 2.
        tournament: Members drawn per tournament, >= 1.
        **goal: Settings of `Goal`: `objectives`, `direction`, `constraints`, `known`.

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.

    Complexity: O(n^2 m) per `ask` for n observations of m objectives.

    Reference: Deb, Pratap, Agarwal and Meyarivan, A Fast and Elitist Multiobjective Genetic
        Algorithm: NSGA-II, IEEE Transactions on Evolutionary Computation, 2002.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = ParetoEvolution(
        ...     ht.spaces.NASBenchMacro(),
        ...     generator=torch.Generator().manual_seed(0),
        ...     population=8,
        ...     objectives=("error", "size"),
        ... )
        >>> for _ in range(40):
        ...     (net,) = strategy.ask()
        ...     zeros = net.spec.count("0")
        ...     strategy.tell([net], [{"error": zeros, "size": 8 - zeros}])
        >>> len({found.value for found in strategy.front}) >= 4
        True
    """

    name = "nsga2"
    pursues_several = True

    @takes(*GOAL)
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        population: int = 20,
        tournament: int = 2,
        **goal: Any,
    ) -> None:
        super().__init__(space, generator=generator, **goal)
        self.population = integer("population", population, least=2)
        self.tournament = integer("tournament", tournament, least=1)

    def settings(self) -> dict[str, Any]:
        """Return the sizes of population and tournament."""
        return {"population": self.population, "tournament": self.tournament}

    def _propose(self, num: int) -> list[Network]:
        taken = self._taken()
        ranked = sorted(self._finite(), key=lambda found: found.value)
        survivors = ranked[: self.population]
        proposed: list[Network] = []
        while len(proposed) < num:
            child = None
            if survivors and len(taken) >= self.population:
                child = self._mutate_unseen(self._select(survivors), taken)
            found = self._sample_unseen(1, taken) if child is None else [child]
            if not found:
                break
            proposed += found
        return proposed

    def _select(self, survivors: list[Observation]) -> Network:
        drawn = torch.randint(
            len(survivors),
            (self.tournament,),
            generator=self._generator,
            device=self._generator.device,
        )
        # Survivors are in the order of their ranks.
        return survivors[int(drawn.min())].network
