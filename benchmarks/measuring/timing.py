"""Rates that stay comparable on a machine that others use, too."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Contender", "Rates", "alternate"]


@dataclass(frozen=True, slots=True)
class Contender:
    """Something to be timed.

    Attributes:
        name: What the tables call it.
        solve: Solves all problems once; what it returns is ignored.
        problems: How many problems one call solves.
    """

    name: str
    solve: Callable[[], object]
    problems: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Problems per processor second of one contender, one value per round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one of all rounds."""
        return statistics.median(self.values)

    def over(self, other: "Rates") -> float:
        """Return how many times faster than `other` it is: median over rounds that ran both."""
        return statistics.median(x / y for x, y in zip(self.values, other.values, strict=True))


def alternate(
    contenders: Sequence[Contender], *, rounds: int, seconds: float, once: float = math.inf
) -> dict[str, Rates]:
    """Time contenders in turns: one, the next, ..., and again from the first.

    What slows the machine down for a while then hits all of them. Processor time is counted and not
    time on the clock, of all threads together.

    Args:
        contenders: What to time, names distinct.
        rounds: How often each has its turn.
        seconds: Least processor time of a turn; a call is repeated until then.
        once: Who takes longer, in seconds of processor time, has no turns: its first call counts as
            all of them.

    Returns:
        Rates by name. One call of each goes before, uncounted: it fills caches and compiles.
    """
    values: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for contender in contenders:
        started = time.process_time()
        contender.solve()
        used = time.process_time() - started
        if used > once:
            values[contender.name] = [contender.problems / used] * rounds
    in_turns = [contender for contender in contenders if not values[contender.name]]
    for _ in range(rounds):
        for contender in in_turns:
            calls, used, started = 0, 0.0, time.process_time()
            while used < seconds or calls == 0:
                contender.solve()
                calls += 1
                used = time.process_time() - started
            values[contender.name].append(calls * contender.problems / max(used, 1e-9))
    return {name: Rates(tuple(rates)) for name, rates in values.items()}
