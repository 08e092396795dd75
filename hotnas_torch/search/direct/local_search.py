"""Local search: move to a better neighbour until there is none, then start again."""

import math
from typing import Any

import torch

from hotnas_torch.arch import Network
from hotnas_torch.arguments import boolean, integer, takes
from hotnas_torch.search.base import Observation, Strategy
from hotnas_torch.search.goal import GOAL
from hotnas_torch.spaces import SearchSpace

__all__ = ["LocalSearch"]


class LocalSearch(Strategy):
    """Hill climbing over all networks one edit away, restarted at every local minimum.

    A climb starts at the best of `num_initial` random networks. The neighbours of its centre are
    evaluated in random order; the first one that is better becomes the centre. When every
    neighbour has been seen and none is better, the next climb starts with new random networks.

    Everything observed since a climb began belongs to it, also networks that were not asked
    for. A batch that is larger than what is left of the neighbourhood is filled with random
    networks.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        num_initial: Random networks at the start of each climb, >= 1.
        full_neighborhood: Evaluate all neighbours before moving to the best of them.
        **goal: Settings of `Goal`, such as `direction="maximize"`.

    Raises:
        ValueError: `num_initial` is below 1.

    Complexity: one list of neighbours per centre.

    Reference: White, Nolen and Savani, Exploring the Loss Landscape in Neural Architecture Search,
        UAI 2021; settings as in its code (naszilla): 10 initial networks, first improvement.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = LocalSearch(
        ...     ht.spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0)
        ... )
        >>> for _ in range(50):
        ...     nets = strategy.ask()
        ...     strategy.tell(nets, [nets[0].spec.count("0")])
        >>> strategy.best.value
        0.0
    """

    name = "local_search"

    @takes(*GOAL)
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        num_initial: int = 10,
        full_neighborhood: bool = False,
        **goal: Any,
    ) -> None:
        super().__init__(space, generator=generator, **goal)
        self.num_initial = integer("num_initial", num_initial, least=1)
        self.full_neighborhood = boolean("full_neighborhood", full_neighborhood)
        self._neighborhoods: dict[str, dict[str, Network]] = {}

    def settings(self) -> dict[str, Any]:
        """Return the number of initial networks and when a climb moves."""
        return {"num_initial": self.num_initial, "full_neighborhood": self.full_neighborhood}

    def _propose(self, num: int) -> list[Network]:
        taken = self._taken()
        centre = self._centre()
        if centre is None:
            return self._sample_unseen(num, taken)
        around = self._neighborhood(centre.network)
        left = [net for key, net in around.items() if key not in taken]
        order = torch.randperm(len(left), generator=self._generator, device=self._generator.device)
        proposed = [left[place] for place in order[:num].tolist()]
        taken.update(map(self.space.key, proposed))
        return proposed + self._sample_unseen(num - len(proposed), taken)

    def _centre(self) -> Observation | None:
        """Follow the climbs through everything observed; None while one collects its start."""
        centre: Observation | None = None
        best: Observation | None = None
        left: set[str] = set()
        seen: set[str] = set()
        length = 0
        for key, found in self._judged().items():
            seen.add(key)
            left.discard(key)
            length += 1
            if not math.isnan(found.value) and (best is None or found.value < best.value):
                best = found
            if best is None or length < self.num_initial:
                continue
            if centre is None or (best is not centre and not (self.full_neighborhood and left)):
                centre = best
                left = set(self._neighborhood(centre.network)) - seen
            if not left:
                centre, best, length = None, None, 0
        return centre

    def _neighborhood(self, net: Network) -> dict[str, Network]:
        """Return the neighbours of a network by their keys."""
        key = self.space.key(net)
        if key not in self._neighborhoods:
            around = self.space.neighbors(net)
            self._neighborhoods[key] = {self.space.key(other): other for other in around}
        return self._neighborhoods[key]
