"""Local search first over operation distributions, then over architectures."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import boolean, integer, takes
from hotnas_torch.search.base import Observation
from hotnas_torch.search.direct.encoding_strategy import EncodingStrategy
from hotnas_torch.search.draws import EncodingDraws
from hotnas_torch.search.goal import GOAL
from hotnas_torch.search.goal_settings import Direction
from hotnas_torch.spaces import SearchSpace

__all__ = ["ANASODLocalSearch"]


class ANASODLocalSearch(EncodingStrategy):
    """Hill climbing over encodings; at an optimum of these, over networks from there on.

    An encoding has the value of the first network that was evaluated of it. The walk begins at the
    best of `num_initial` random encodings and moves over the grid, where two encodings are
    neighbours if they exchange one operation for another. Where none of them is strictly better, it
    goes on from the network that gave the best encoding its value, to networks one edit away; and
    where that ends, too, from another random encoding. What was observed unasked counts as if it
    had been asked for. A batch that is larger than what is left of a neighbourhood is filled with
    networks of random encodings.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        num_initial: Random encodings at the start, >= 1.
        full_neighborhood: Evaluate all neighbours before moving to the best of them; otherwise the
            first that is better becomes the centre, as in
            `LocalSearch`.
        **goal: Settings of `Goal`, such as `direction="maximize"`.

    Raises:
        ValueError: `num_initial` is below 1, or the space has no operation encoding.

    Reference: Wan et al., ANASOD, CVPR 2022, Algorithm 3. It prints "while y_i <= y_(i-1)", which
        may walk in circles among equals, and draws another network of the best encoding between
        the two phases, which costs an evaluation.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = ANASODLocalSearch(
        ...     ht.spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0), num_initial=2
        ... )
        >>> for _ in range(30):
        ...     (net,) = strategy.ask()
        ...     strategy.tell([net], [net.spec.count("0") + 0.1 * net.spec.count("1")])
        >>> strategy.best.network.spec
        '22222222'
    """

    name = "anasod_local_search"

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
        self._levels: tuple[_Level, ...] = (_Encodings(self._draws), _Networks(space))
        self._begin()

    def settings(self) -> dict[str, Any]:
        """Return the number of random encodings at the start and when the walk moves."""
        return {"num_initial": self.num_initial, "full_neighborhood": self.full_neighborhood}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken, see `Strategy`."""
        super().load_state_dict(state)
        self._begin()

    def aim(self, direction: Direction | Sequence[Direction]) -> None:
        """Say which values are good, see `Strategy`."""
        super().aim(direction)
        self._begin()

    @property
    def center(self) -> Observation | None:
        """Where the walk stands after all that was observed; None where it is about to begin."""
        self._replay()
        return None if self._place is None else self._place.center

    # --- the walk, replayed from what was observed ------------------------------------------------

    def _begin(self) -> None:
        self._place: _Place | None = None
        self._num_replayed = 0
        # Per level, the first observation of each point.
        self._known: list[dict[Hashable, Observation]] = [{} for _ in self._levels]

    def _replay(self) -> None:
        """Walk on with what was observed since the last time, one by one, in order."""
        for found in list(self._judged().values())[self._num_replayed :]:
            self._num_replayed += 1
            found = found._replace(value=math.inf if math.isnan(found.value) else found.value)
            for level, known in zip(self._levels, self._known, strict=True):
                known.setdefault(level.point(found.network), found)
            if self._num_replayed < self.num_initial:
                continue
            if self._num_replayed == self.num_initial:
                found = min(self._known[-1].values(), key=lambda one: one.value)
            if self._place is None and math.isfinite(found.value):
                self._place = self._at(0, found)
            self._move()

    def _at(self, level: int, center: Observation) -> "_Place":
        return _Place(level, center, self._levels[level].neighbors(center.network))

    def _move(self) -> None:
        """Move as far as what is known around the centre says."""
        while self._place is not None:
            level, center, around = self._place
            known = [self._known[level][point] for point in around if point in self._known[level]]
            complete = len(known) == len(around)
            best = min(known, key=lambda one: one.value, default=center)
            if best.value < center.value and (complete or not self.full_neighborhood):
                self._place = self._at(level, best)
            elif not complete:
                return
            elif level + 1 < len(self._levels):
                self._place = self._at(level + 1, center)
            else:
                self._place = None

    # --- proposing --------------------------------------------------------------------------------

    def _propose(self, num: int) -> list[Network]:
        self._replay()
        taken = self._taken()
        num_initial = max(0, min(num, self.num_initial - len(taken)))
        proposed = self._sample_unseen(num_initial, taken)
        if self._place is not None:
            proposed += self._around(num - len(proposed), self._place, taken)
        return proposed + self._sample_unseen(num - len(proposed), taken)

    def _around(self, num: int, place: "_Place", taken: set[str]) -> list[Network]:
        level = self._levels[place.level]
        seen = self._known[place.level].keys() | {
            level.point(net) for net in self._pending.values()
        }
        left = [entry for point, entry in place.around.items() if point not in seen]
        order = torch.randperm(len(left), generator=self._generator, device=self._generator.device)
        found: list[Network] = []
        for position in order.tolist():
            if len(found) == num:
                break
            found += level.networks(left[position], taken)
        return found


class _Place(NamedTuple):
    """Where a walk stands: its level, its centre, and the neighbours of that."""

    level: int
    center: Observation
    around: Mapping[Hashable, Any]


class _Level(Protocol):
    """What a walk takes for one point, and for a neighbour of it."""

    def point(self, net: Network) -> Hashable:
        """Return the point that a network stands for."""
        ...

    def neighbors(self, net: Network) -> Mapping[Hashable, Any]:
        """Return the points around a network's, each with what `networks` needs."""
        ...

    def networks(self, entry: Any, taken: set[str]) -> list[Network]:
        """Return a network of a point that is not in `taken`, adding its key; or none."""
        ...


class _Encodings:
    """Points are encodings, neighbours exchange one operation for another."""

    def __init__(self, draws: EncodingDraws) -> None:
        self._draws = draws
        self._encoding = draws.encoding

    def point(self, net: Network) -> Hashable:
        return self._encoding.key(self._encoding.snap(self._encoding.encode([net]))[0])

    def neighbors(self, net: Network) -> dict[Hashable, Tensor]:
        (own,) = self._encoding.snap(self._encoding.encode([net]))
        return {self._encoding.key(point): point for point in self._encoding.neighbors(own)}

    def networks(self, entry: Tensor, taken: set[str]) -> list[Network]:
        return self._draws.decode(entry[None], taken)


class _Networks:
    """Points are the networks themselves, neighbours are one edit away."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def point(self, net: Network) -> Hashable:
        return self._space.key(net)

    def neighbors(self, net: Network) -> dict[Hashable, Network]:
        return {self._space.key(other): other for other in self._space.neighbors(net)}

    def networks(self, entry: Network, taken: set[str]) -> list[Network]:
        key = self._space.key(entry)
        if key in taken:
            return []
        taken.add(key)
        return [entry]
