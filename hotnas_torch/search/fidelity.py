"""Evaluations cut short: the levels that there are, and how a search goes through them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, Self

from hotnas_torch.arch import Network
from hotnas_torch.arguments import kind, number
from hotnas_torch.search.brackets import Bracket, brackets_between, brackets_of
from hotnas_torch.search.goal_settings import VALUE, VARIANCE
from hotnas_torch.spaces import ConfiguredNetwork, Joint, Ordered, SearchSpace

__all__ = ["Fidelity", "FullTrainings"]


class FullTrainings(NamedTuple):
    """A budget in units of one evaluation that is not cut short, for `run`.

    Attributes:
        number: How many, > 0; 30 of them are 500 trainings of 12 epochs in place of 200.
    """

    number: float


class Slot(NamedTuple):
    """One evaluation of a round.

    Attributes:
        place: Of its level among the levels.
        fresh: Whether a network may begin here, on the first rung of a bracket.
    """

    place: int
    fresh: bool


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Levels at which a network can be evaluated, such as numbers of epochs.

    What is searched with a fidelity are pairs of a network and a level, of a `spaces.Joint` space:
    an objective gets one as its one argument, and unpacks it, `network, values = point`.

    An evaluation costs in proportion to its level. Slots of evaluations are those of Hyperband's
    brackets, one bracket after the other, again and again.

    Args:
        levels: At least two positive numbers, from small to large; the last is the whole
            evaluation.
        name: What is cut short, as `values` has it.

    Raises:
        TypeError: A level is no number, or the name no str.
        ValueError: There are fewer than two levels, they are not increasing, or not positive and
            finite; or the name is empty, unprintable, or that of a value.

    Example:
        >>> fidelity = Fidelity([12, 200])
        >>> [bracket.sizes for bracket in fidelity.brackets]
        [(17, 1), (2,)]
        >>> Fidelity.between(3, 200, eta=4).levels
        (3, 12, 50, 200)
    """

    levels: Sequence[float]
    name: str = "epochs"
    brackets: tuple[Bracket, ...] = field(init=False, repr=False, compare=False)
    # Slots that are alike, and how many; there may be more in a round than memory holds.
    _rungs: tuple[tuple[Slot, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        kind("name", self.name, str)
        if not self.name or not self.name.isprintable():
            raise ValueError(f"name must be printable and not empty; got {self.name!r}")
        if self.name == VALUE or self.name.endswith(VARIANCE):
            raise ValueError(
                f"name must not be that of a value or of its noise, {VALUE!r} or ...{VARIANCE}; "
                f"got {self.name!r}"
            )
        given: object = self.levels
        if isinstance(given, str | bytes) or not isinstance(given, Sequence):
            raise TypeError(
                f"levels must be a sequence of numbers such as [12, 200]; got {given!r}"
            )
        found = tuple(_level(f"levels[{place}]", one) for place, one in enumerate(given))
        if len(found) < 2 or any(b <= a for a, b in pairwise(found)):
            raise ValueError(
                "levels must be at least two numbers from small to large, the last one the whole "
                f"evaluation; got {list(found)}"
            )
        object.__setattr__(self, "levels", found)
        object.__setattr__(self, "brackets", brackets_between(found))
        rungs = [
            (Slot(len(found) - len(bracket.sizes) + rung, rung == 0), size)
            for bracket in self.brackets
            for rung, size in enumerate(bracket.sizes)
        ]
        object.__setattr__(self, "_rungs", tuple(rungs))

    @classmethod
    def between(cls, low: float, high: float, *, eta: float = 3.0, name: str = "epochs") -> Self:
        """Return levels that grow by a factor, rounded to whole numbers where the ends are whole.

        Args:
            low: The smallest is not below it, > 0.
            high: The whole evaluation.
            eta: The factor, > 1.
            name: What is cut short.

        Raises:
            TypeError: An argument is no number.
            ValueError: One is out of range, or there is room for one level only.
        """
        (bracket, *_) = brackets_of(low, high, eta)
        whole = isinstance(low, int) and isinstance(high, int)
        levels = [round(one) if whole else one for one in bracket.budgets]
        return cls(tuple(dict.fromkeys(levels)), name)

    @property
    def full(self) -> float:
        """The level of a whole evaluation."""
        return self.levels[-1]

    def slot(self, place: int) -> Slot:
        """Return what the evaluation of this place in the order of asking, from 0, is for."""
        place %= sum(size for _, size in self._rungs)
        for slot, size in self._rungs[:-1]:
            if place < size:
                return slot
            place -= size
        return self._rungs[-1][0]

    def to_json(self) -> dict[str, Any]:
        """Return it ready for `json.dumps`."""
        return {"name": self.name, "levels": list(self.levels)}

    # --- points -----------------------------------------------------------------------------------

    def joined(self, space: SearchSpace) -> Joint:
        """Return the space of pairs.

        Args:
            space: Of the networks, or a `Joint` one of networks and hyperparameters.

        Raises:
            TypeError: It is no search space.
            ValueError: It has a hyperparameter or a column of this name already.
        """
        networks, others = space, {}
        if isinstance(space, Joint):
            networks, others = space.space, dict(space.hyperparameters)
        if self.name in others:
            raise ValueError(
                f"fidelity must not be called as a hyperparameter of {space!r}; got {self.name!r}"
            )
        return Joint(networks, {**others, self.name: Ordered(tuple(self.levels))})

    def point(self, pairs: Joint, net: Network, place: int) -> ConfiguredNetwork:
        """Return the pair of a network, with its hyperparameters if it has some, and a level."""
        inner, values = net, {}
        if isinstance(net, ConfiguredNetwork):
            inner, values = net.network, dict(net.values)
        return pairs.configure(inner, {**values, self.name: self.levels[place]})

    def network(self, space: SearchSpace, point: Network) -> Network:
        """Return the network of a pair, as its own space has it."""
        inner, values = _parts(point)
        if not isinstance(space, Joint):
            return inner
        return space.configure(inner, {k: v for k, v in values.items() if k != self.name})

    def place(self, point: Network) -> int:
        """Return the place of a pair's level among the levels."""
        return self.levels.index(self.level(point))

    def level(self, point: Network) -> float:
        """Return the level of a pair."""
        _, values = _parts(point)
        return float(values[self.name])

    def cost(self, point: Network) -> float:
        """Return what the evaluation of a pair costs, in (0, 1]; a whole one costs 1."""
        return self.level(point) / self.full


def _parts(point: Network) -> tuple[Network, Mapping[str, Any]]:
    if not isinstance(point, ConfiguredNetwork):
        raise TypeError(f"point must be a pair of a network and a level; got {point!r}")
    return point.network, point.values


def _level(name: str, given: object) -> float:
    found = number(name, given)
    if not 0.0 < found < math.inf:
        raise ValueError(f"{name} must be positive and finite; got {found}")
    return int(found) if found == int(found) else found
