"""HOTNN distances and Weisfeiler-Lehman similarities of networks, each pair computed once."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from hotnas_torch.distances import HOTNN, WeisfeilerLehman
from hotnas_torch.distances.weisfeiler_lehman import level_similarities
from hotnas_torch.gp.memory import NetworkMemory, PairMemory, typical_distance
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space
from hotnas_torch.spaces.joint import check_architectures

__all__ = ["NetworkPairs"]

# One more than the largest level of Weisfeiler-Lehman.
_LEVELS = 4
# Networks between which distances are typical ones of the space.
_TYPICAL = 50


class _LevelMemory(PairMemory):
    """Weisfeiler-Lehman similarities at several levels, each pair computed once."""

    def __init__(self, space: SearchSpace, levels: Sequence[int]) -> None:
        self.levels = list(levels)
        distance = WeisfeilerLehman(space, level=max(levels))
        self.labels: NetworkMemory[Tensor] = NetworkMemory(space, distance.labels)
        super().__init__(distance, self.labels.index)

    def _num_parts(self) -> int:
        return len(self.levels)

    def _between(self, things_a: list[Any], things_b: list[Any] | None) -> Tensor:
        of_a = self._of(things_a)
        of_b = of_a if things_b is None else self._of(things_b)
        return level_similarities(of_a, of_b, self.distance.aggregation)[self.levels]

    def _of(self, things: list[Any]) -> list[Tensor]:
        numbers = torch.tensor([self.index.number(thing) for thing in things])
        found: list[Tensor] = self.labels(numbers)
        return found


class NetworkPairs:
    """HOTNN distances and Weisfeiler-Lehman similarities of networks, each pair computed once.

    Share one between the models of a search. Deep copies share what is known; a pickled one knows
    nothing.

    Args:
        space: Search space of the rows.

    Raises:
        TypeError: `space` is no search space.
        ValueError: `space` has hyperparameters.

    Attributes:
        space: As passed.
        typical: Median HOTNN distance between random networks of the space.
    """

    def __init__(self, space: SearchSpace) -> None:
        check_space(space)
        check_architectures("NetworkPairs", space)
        self.space = space
        # Those that NAS-BOWL chooses from.
        self._levels = _LevelMemory(space, range(1 if space.repeats_one_cell else 0, _LEVELS))
        self._index = self._levels.labels.index
        self._hotnn = PairMemory(HOTNN(space=space), self._index)
        drawn = space.sample(_TYPICAL, generator=torch.Generator().manual_seed(0))
        rows = space.encode(drawn)
        self.typical = typical_distance(self.distances(rows, rows)) or 1.0

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"space": self.space}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def num_levels(self) -> int:
        """Number of Weisfeiler-Lehman levels."""
        return len(self._levels.levels)

    def numbers(self, rows: Tensor) -> Tensor:
        """Numbers of networks; networks at distance 0 share one."""
        return self._index(rows)

    def distances(self, rows: Tensor, cols: Tensor) -> Tensor:
        """HOTNN distances, (r, c) float64."""
        return self._asked(self._hotnn, rows, cols)[0]

    def similarities(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Weisfeiler-Lehman similarities by level, (L, r, c) float64."""
        return self._asked(self._levels, rows, cols)

    def _asked(self, memory: PairMemory, rows: Tensor, cols: Tensor) -> Tensor:
        names, row = torch.unique(self.numbers(rows), return_inverse=True)
        others, col = torch.unique(self.numbers(cols), return_inverse=True)
        return memory(names, others)[:, row][:, :, col].double()
