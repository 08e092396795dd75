# Over 400 lines: all kinds of hyperparameters, one interface.
"""Hyperparameters beside an architecture: their values, how they are drawn and changed."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from hotnas_torch.arguments import boolean, integer, number, shown
from hotnas_torch.spaces.base import draw_index

__all__ = [
    "Categorical",
    "Float",
    "Hyperparameter",
    "Integer",
    "Log",
    "Ordered",
    "Value",
    "hyperparameter",
]

Value: TypeAlias = bool | int | float | str | None
"""A value of a hyperparameter, as JSON holds it."""

# Mutations of a number move it by a normal step whose scale is drawn from here, in shares of its
# range: near ones refine, far ones explore.
_STEPS = (0.01, 0.3)
# Neighbours of a number are this far away, in shares of its range.
_NEIGHBORS = (-0.1, -0.01, 0.01, 0.1)
_DRAWS = 16
_MOST_OPTIONS = 2**16
# Beyond it, float64 does not tell integers apart.
_LARGEST = 2**53


class Hyperparameter(ABC):
    """A set of values, which a row holds as one number.

    Attributes:
        categorical: Whether values are equal or not, and nothing more.
        size: How many values there are; `math.inf` for continuous ones.
    """

    categorical: ClassVar[bool] = False

    @property
    @abstractmethod
    def size(self) -> float:
        """How many values there are; `math.inf` for continuous ones."""

    @abstractmethod
    def values(self) -> Iterator[Value]:
        """Yield all values, where there are finitely many."""

    @abstractmethod
    def checked(self, name: str, value: Any) -> Value:
        """Return a value as the space writes it.

        Args:
            name: What the message calls it.
            value: What the caller passed; numbers of NumPy and torch count as such.

        Raises:
            TypeError: It is of another kind.
            ValueError: It is no value of this hyperparameter.
        """

    @abstractmethod
    def draw(self, generator: torch.Generator) -> Value:
        """Draw a value uniformly, on the scale of the hyperparameter."""

    @abstractmethod
    def mutate(self, value: Value, generator: torch.Generator) -> Value:
        """Draw another value, near ones more often where values have an order."""

    @abstractmethod
    def neighbors(self, value: Value) -> list[Value]:
        """Return the values that are one edit away, without `value` itself."""

    @abstractmethod
    def to_column(self, value: Value) -> float:
        """Return what a row holds for a value."""

    @abstractmethod
    def from_column(self, entry: float) -> Value:
        """Return the value that a finite entry of a row stands for.

        Raises:
            ValueError: It stands for none.
        """

    @abstractmethod
    def scaled(self, column: Tensor) -> Tensor:
        """Return entries of rows as a kernel sees them: in [0, 1] where values have an order."""


class _Range(Hyperparameter):
    """Numbers between two ends, on some scale."""

    low: float
    high: float

    @abstractmethod
    def _place(self, value: float) -> float:
        """Return where a value lies between the ends, in [0, 1]."""

    @abstractmethod
    def _at(self, place: float) -> Value:
        """Return the value at a place in [0, 1]."""

    def draw(self, generator: torch.Generator) -> Value:
        return self._at(_uniform(generator))

    def mutate(self, value: Value, generator: torch.Generator) -> Value:
        place = self._place(_real(value))
        for _ in range(_DRAWS):
            shortest, longest = map(math.log, _STEPS)
            step = math.exp(shortest + _uniform(generator) * (longest - shortest))
            moved = place + step * _normal(generator)
            # Reflected at the ends, as often as it takes.
            moved = abs((moved + 1.0) % 2.0 - 1.0)
            if (found := self._at(moved)) != value:
                return found
        around = self.neighbors(value)
        return around[draw_index(len(around), generator)]

    def neighbors(self, value: Value) -> list[Value]:
        place = self._place(_real(value))
        around = dict.fromkeys(self._at(min(max(place + step, 0.0), 1.0)) for step in _NEIGHBORS)
        around.pop(value, None)
        # Where numbers between the ends run out, the ends are left.
        return list(around) or [end for end in (self._at(0.0), self._at(1.0)) if end != value]

    def to_column(self, value: Value) -> float:
        return float(_real(value))


@dataclass(frozen=True)
class Float(_Range):
    """Real numbers in a range, on a linear scale.

    Args:
        low: Smallest value.
        high: Largest value, > `low`.

    Raises:
        TypeError: An end is no number.
        ValueError: The ends are not finite, or not in this order.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_ends(self, -math.inf)

    @property
    def size(self) -> float:
        """`math.inf`."""
        return math.inf

    def values(self) -> Iterator[Value]:
        """Refuse: there are infinitely many."""
        raise ValueError(f"{self!r} has infinitely many values")

    def checked(self, name: str, value: Any) -> Value:
        """Return a number in the range."""
        # Adding 0 turns -0 into 0, which is written otherwise.
        return number(name, value, least=self.low, most=self.high) + 0.0

    def from_column(self, entry: float) -> Value:
        """Return the entry, which must be in the range."""
        if not self.low <= entry <= self.high:
            raise ValueError(f"in [{self.low:g}, {self.high:g}]")
        return entry + 0.0

    def scaled(self, column: Tensor) -> Tensor:
        """Return the places between the ends."""
        return (column - self.low) / (self.high - self.low)

    def _place(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def _at(self, place: float) -> Value:
        return min(max(self.low + place * (self.high - self.low), self.low), self.high) + 0.0


@dataclass(frozen=True)
class Log(Float):
    """Positive numbers in a range, on a logarithmic scale.

    Args:
        low: Smallest value, > 0.
        high: Largest value, > `low`.

    Raises:
        TypeError: An end is no number.
        ValueError: The ends are not positive and finite, or not in this order.
    """

    def __post_init__(self) -> None:
        _check_ends(self, 0.0)

    def scaled(self, column: Tensor) -> Tensor:
        """Return the places of the logarithms between those of the ends."""
        return (column.log() - math.log(self.low)) / (math.log(self.high) - math.log(self.low))

    def _place(self, value: float) -> float:
        low, high = math.log(self.low), math.log(self.high)
        return (math.log(value) - low) / (high - low)

    def _at(self, place: float) -> Value:
        low, high = math.log(self.low), math.log(self.high)
        return min(max(math.exp(low + place * (high - low)), self.low), self.high)


@dataclass(frozen=True)
class Integer(_Range):
    """Whole numbers in a range.

    Args:
        low: Smallest value.
        high: Largest value, > `low`.
        log: Whether they are compared, drawn and changed on a logarithmic scale; `low` is > 0 then.

    Raises:
        TypeError: An end is no integer.
        ValueError: The ends are not in this order, not positive where they must be, or beyond
            2^53.
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        log = boolean("log", self.log)
        low = integer("low", self.low, least=1 if log else -_LARGEST, most=_LARGEST)
        high = integer("high", self.high, most=_LARGEST, least=-_LARGEST)
        if not low < high:
            raise ValueError(f"low must be below high; got {low} and {high}")
        for name, value in (("low", low), ("high", high), ("log", log)):
            object.__setattr__(self, name, value)

    @property
    def size(self) -> float:
        """How many there are."""
        return self.high - self.low + 1

    def values(self) -> Iterator[Value]:
        """Yield them from low to high."""
        return iter(range(self.low, self.high + 1))

    def checked(self, name: str, value: Any) -> Value:
        """Return an integer in the range."""
        return integer(name, value, least=self.low, most=self.high)

    def neighbors(self, value: Value) -> list[Value]:
        """Return the next ones, and some that are farther away."""
        whole = int(_real(value))
        near = (one for one in (whole - 1, whole + 1) if self.low <= one <= self.high)
        return list(dict.fromkeys((*near, *super().neighbors(value))))

    def from_column(self, entry: float) -> Value:
        """Return the entry, which must be a whole number in the range."""
        if not self.low <= entry <= self.high or entry != round(entry):
            raise ValueError(f"a whole number in {self.low}..{self.high}")
        return int(entry)

    def scaled(self, column: Tensor) -> Tensor:
        """Return the places between the ends."""
        if self.log:
            return Log(float(self.low), float(self.high)).scaled(column)
        return (column - self.low) / (self.high - self.low)

    # Half a step beyond the ends, so that all are equally likely.
    @property
    def _wide(self) -> Float:
        return (Log if self.log else Float)(self.low - 0.5, self.high + 0.5)

    def _place(self, value: float) -> float:
        return self._wide._place(value)

    def _at(self, place: float) -> Value:
        return min(max(round(_real(self._wide._at(place))), self.low), self.high)


@dataclass(frozen=True)
class Categorical(Hyperparameter):
    """Values that are equal or not, and nothing more.

    Args:
        options: At least two different ones: texts, numbers, True, False or None.

    Raises:
        TypeError: No sequence, or an option of another kind.
        ValueError: Fewer than two, an option that repeats, or a number that is not finite.
    """

    options: tuple[Value, ...]
    categorical: ClassVar[bool] = True

    def __post_init__(self) -> None:
        given: object = self.options
        if isinstance(given, str | bytes) or not isinstance(given, Sequence):
            raise TypeError(f"options must be a list or tuple; got {shown(given)}")
        if len(given) > _MOST_OPTIONS:
            raise ValueError(
                f"options must be at most {_MOST_OPTIONS:,}; got {len(given):,} (take Integer, "
                "Float or Log for numbers)"
            )
        options = tuple(_option(place, option) for place, option in enumerate(given))
        places: dict[Value, int] = {}
        for place, option in enumerate(options):
            if (earlier := places.setdefault(option, place)) != place:  # True is 1
                raise ValueError(
                    f"options[{place}] = {option!r} repeats options[{earlier}] (each once)"
                )
        if len(options) < 2:
            raise ValueError(f"options must hold at least two; got {list(options)}")
        object.__setattr__(self, "options", options)

    @property
    def size(self) -> float:
        """How many there are."""
        return len(self.options)

    def values(self) -> Iterator[Value]:
        """Yield them in their order."""
        return iter(self.options)

    def checked(self, name: str, value: Any) -> Value:
        """Return the option that is equal."""
        found = _plain(value)
        for option in self.options:
            if found == option and isinstance(found, bool) == isinstance(option, bool):
                return option
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, self.options))}; got {shown(value)}"
        )

    def draw(self, generator: torch.Generator) -> Value:
        """Draw an option."""
        return self.options[draw_index(len(self.options), generator)]

    def mutate(self, value: Value, generator: torch.Generator) -> Value:
        """Draw another one."""
        others = [option for option in self.options if option != value]
        return others[draw_index(len(others), generator)]

    def neighbors(self, value: Value) -> list[Value]:
        """Return all others."""
        return [option for option in self.options if option != value]

    def to_column(self, value: Value) -> float:
        """Return the place among the options."""
        return float(self.options.index(value))

    def from_column(self, entry: float) -> Value:
        """Return the option at a place."""
        if not 0 <= entry < len(self.options) or entry != round(entry):
            raise ValueError(f"the place of an option, 0..{len(self.options) - 1}")
        return self.options[int(entry)]

    def scaled(self, column: Tensor) -> Tensor:
        """Return the places: they are equal or not."""
        return column


@dataclass(frozen=True)
class Ordered(Categorical):
    """Values in an order, evenly spaced, for example sizes of a batch.

    Args:
        options: At least two different ones, in their order.

    Raises:
        TypeError, ValueError: As `Categorical`.
    """

    categorical: ClassVar[bool] = False

    def mutate(self, value: Value, generator: torch.Generator) -> Value:
        """Draw one that is next in the order, or, as often, any other one."""
        around = self.neighbors(value)
        if draw_index(2, generator):
            around = [option for option in self.options if option != value]
        return around[draw_index(len(around), generator)]

    def neighbors(self, value: Value) -> list[Value]:
        """Return the next ones in the order."""
        place = self.options.index(value)
        return [*self.options[max(place - 1, 0) : place], *self.options[place + 1 : place + 2]]

    def scaled(self, column: Tensor) -> Tensor:
        """Return the places in the order, in [0, 1]."""
        return column / (len(self.options) - 1)


def hyperparameter(name: str, given: object) -> Hyperparameter:
    """Return a hyperparameter, or the one that a list of values stands for.

    Args:
        name: What messages call it.
        given: A hyperparameter; or a list, tuple, range or array, `Ordered` where it holds numbers
            from small to large, `Categorical` otherwise.

    Raises:
        TypeError: It is something else, or a list holds something else than values.
        ValueError: The list has fewer than two values, or repeats one.
    """
    if isinstance(given, Hyperparameter):
        return given
    if callable(listed := getattr(given, "tolist", None)):
        given = listed()  # an array of NumPy or torch
    if not isinstance(given, list | tuple | range):
        raise TypeError(
            f"{name} must be a hyperparameter such as Log(1e-4, 1.0) or Integer(1, 8), or a list "
            f"of its values; got {shown(given)}"
        )
    try:
        options = Categorical(tuple(given)).options
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error
    numbers = [one for one in options if isinstance(one, int | float) and not isinstance(one, bool)]
    increasing = len(numbers) == len(options) and numbers == sorted(numbers)
    return Ordered(options) if increasing else Categorical(options)


def described(values: Mapping[str, Hyperparameter]) -> str:
    """Return hyperparameters as `Joint` takes them."""
    return f"{{{', '.join(f'{name!r}: {one!r}' for name, one in values.items())}}}"


def _check_ends(given: Float, above: float) -> None:
    low, high = number("low", given.low), number("high", given.high)
    if not (above < low < high < math.inf and math.isfinite(high - low)):
        wanted = "0 < low < high, both" if above == 0.0 else "low < high, both"
        raise ValueError(f"a range must have {wanted} finite; got low={low:g}, high={high:g}")
    object.__setattr__(given, "low", low)
    object.__setattr__(given, "high", high)


def _plain(value: Any) -> Any:
    """Return a number of NumPy or torch as Python's."""
    if not isinstance(value, str) and callable(item := getattr(value, "item", None)):
        try:
            return item()
        except (TypeError, ValueError, RuntimeError):
            return value
    return value


def _option(place: int, option: object) -> Value:
    found = _plain(option)
    if not (found is None or isinstance(found, bool | int | float | str)):
        raise TypeError(
            f"options[{place}] must be a str, a number, True, False or None; got {shown(option)} "
            "(name it, and look it up by its name)"
        )
    if isinstance(found, int | float) and not isinstance(found, bool):
        value = number(f"options[{place}]", found)
        if not math.isfinite(value):
            raise ValueError(f"options[{place}] must be finite; got {value}")
    return found + 0.0 if isinstance(found, float) else found


def _real(value: Value) -> float:
    assert isinstance(value, int | float)
    return value


def _uniform(generator: torch.Generator) -> float:
    drawn = torch.rand((), generator=generator, device=generator.device, dtype=torch.float64)
    return drawn.item()


def _normal(generator: torch.Generator) -> float:
    drawn = torch.randn((), generator=generator, device=generator.device, dtype=torch.float64)
    return drawn.item()
