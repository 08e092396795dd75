"""What a search does when: uniform sampling, warm-up, and sampling at a falling temperature."""

import math
from dataclasses import dataclass
from enum import StrEnum

from hotnas_torch.arguments import number

__all__ = ["Phase", "Schedule"]


class Phase(StrEnum):
    """Part of a search.

    Attributes:
        UNIFORM: Architectures are drawn uniformly, and rewards are not recorded.
        WARM_UP: Architectures are drawn uniformly, and rewards are recorded.
        SEARCH: Architectures are drawn as the rewards say.
    """

    UNIFORM = "uniform"
    WARM_UP = "warm-up"
    SEARCH = "search"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Phases and temperature over the progress of a search, 0 at its begin and 1 at its end.

    The paper splits its iterations "to roughly 40/25/35 fractions for uniform sampling / warm-up /
    sampling". Its epochs make the 40 % the training of the supernet that the distances come from
    (80 of 200 epochs), which ends before the search begins: 25/60 of the search is then warm-up,
    the default. `inside_search` is the other reading.

    The temperature falls linearly from the end of the warm-up to the end of the search; the
    defaults are the paper's for the pooling space.

    Args:
        uniform: Share of the search without records, in [0, 1].
        warm_up: Share of the search with uniform sampling and records, in [0, 1].
        start: Temperature at the end of the warm-up, > 0.
        end: Temperature at the end of the search, > 0.

    Raises:
        ValueError: An argument out of range, or shares that sum to more than 1.

    Example:
        >>> schedule = Schedule()
        >>> schedule.phase(0.4).value, schedule.phase(0.5).value
        ('warm-up', 'search')
        >>> schedule.temperature(1.0)
        0.0025
    """

    uniform: float = 0.0
    warm_up: float = 25 / 60
    start: float = 0.02
    end: float = 0.0025

    def __post_init__(self) -> None:
        for name in ("uniform", "warm_up"):
            number(name, getattr(self, name), least=0.0, most=1.0)
        if self.uniform + self.warm_up > 1.0:
            raise ValueError(
                f"uniform and warm_up must sum to at most 1; got {self.uniform + self.warm_up}"
            )
        for name in ("start", "end"):
            value = number(name, getattr(self, name))
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be a temperature > 0; got {value}")

    @classmethod
    def inside_search(cls, *, start: float = 0.02, end: float = 0.0025) -> "Schedule":
        """Return the reading in which all three fractions, 40/25/35, are of the search itself."""
        return cls(uniform=0.40, warm_up=0.25, start=start, end=end)

    def phase(self, progress: float) -> Phase:
        """Return the part of the search that `progress` lies in."""
        if progress < self.uniform:
            return Phase.UNIFORM
        return Phase.WARM_UP if progress < self.uniform + self.warm_up else Phase.SEARCH

    def temperature(self, progress: float) -> float:
        """Return the temperature T at `progress`."""
        begin = self.uniform + self.warm_up
        if begin >= 1.0:
            return self.end
        share = min(max((progress - begin) / (1.0 - begin), 0.0), 1.0)
        return (1.0 - share) * self.start + share * self.end
