"""What stands at a place of a declared space, and the conditions under which it is chosen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch

from hotnas_torch.arguments import boolean, shown
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces.base import Code, SearchSpace
from hotnas_torch.spaces.declared.options import Options
from hotnas_torch.spaces.declared.texts import SEPARATORS

__all__ = ["Choice", "Part", "Place", "parents_first", "read_places", "verdict"]


@dataclass(frozen=True)
class Choice:
    """One choice: its options, whether they have an order, and when it is made.

    Args:
        options: Plain values (int, float, bool, str, None), or a `Block` or a search space, one of
            whose members is chosen.
        ordered: Whether only options beside each other are neighbours. None: numbers that rise or
            fall are ordered, all else is not.
        when: Names of other choices, each with the options of it (one, or several in a list, or a
            function of the option that says so) with which this choice is made. With several names
            all have to hold. Where they do not hold, the choice is left out.

    Example:
        >>> Choice([3, 5, 7], when={"operation": "conv"}).options
        [3, 5, 7]
    """

    options: Any
    ordered: bool | None = None
    when: Mapping[str, Any] | None = None


class Part(Protocol):
    """What stands at a place: options, a block, a space."""

    columns: dict[str, range]

    def count(self) -> int: ...
    def bound(self) -> int: ...
    def some_code(self) -> Code: ...
    def last_code(self) -> Code: ...
    def all_codes(self) -> Iterator[Code]: ...
    def draw_code(self, generator: torch.Generator) -> Code: ...
    def neighbor_codes(self, code: Code) -> Iterator[Code]: ...
    def mutate_code(self, code: Code, generator: torch.Generator) -> Code: ...
    def fault_of(self, code: Code) -> str | None: ...
    def value(self, code: Code) -> Any: ...
    def to_plain(self, code: Code) -> Any: ...
    def from_plain(self, given: Any) -> Code: ...
    def format(self, code: Code) -> str: ...
    def parse(self, text: str) -> Code: ...
    def declaration(self) -> Any: ...


class _Member:
    """A search space at a place: one of its networks, or of its cells, is chosen."""

    def __init__(self, name: str, space: SearchSpace) -> None:
        self.name = name
        self.space = space
        self.columns = dict(zip(space.columns, space.values, strict=True))
        self.count = space.size
        self.bound = space.size_bound
        self.all_codes = space.all_codes
        self.mutate_code = space.mutate_code
        self.format = space.format_code
        self.parse = space.parse_code
        self.value = space.block_of
        self.to_plain = space.format_code

    def some_code(self) -> Code:
        return self.draw_code(torch.Generator().manual_seed(0))

    last_code = some_code

    def draw_code(self, generator: torch.Generator) -> Code:
        return self.space.draw_codes(1, generator)[0]

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        around = self.space.neighbors(self.space.network_of(code))
        return map(self.space.code_of, around)

    def fault_of(self, code: Code) -> str | None:
        fault = self.space.find_fault(torch.tensor([code]))
        if fault is None and self.space.code_of(self.space.network_of(code)) != code:
            return f"{self.name}: another row stands for the same network"
        return None if fault is None else f"{self.name}: {fault[1]}"

    def from_plain(self, given: Any) -> Code:
        if isinstance(given, str):
            return self.parse(given)
        return self.space.code_of(given, self.name)

    def declaration(self) -> Any:
        return self.space.description()


@dataclass(frozen=True)
class Place:
    """A choice with its columns.

    Attributes:
        name: Of the choice.
        part: What is chosen.
        parents: Numbers of the places that decide whether it is made, with the options of each.
        columns: Which columns of a code it has.
        absent: What they hold where it is not made.
    """

    name: str
    part: Part
    parents: tuple[tuple[int, frozenset[int]], ...]
    columns: slice
    absent: Code


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"names of choices must be strings; got {shown(name)}")
    bad = [sign for sign in name if sign in SEPARATORS or not sign.isprintable()]
    if not name or bad or name != name.strip():
        fault = f"; it holds {bad[0]!r}" if bad else ""
        raise ValueError(
            f"names of choices must be printable texts without {' '.join(SEPARATORS)} and without "
            f"spaces at their ends; got {name!r}{fault}"
        )
    return name


def _as_choice(given: Any) -> Choice:
    return given if isinstance(given, Choice) else Choice(given)


def _part(name: str, choice: Choice, block: type) -> Part:
    if choice.ordered is not None:
        boolean(f"ordered of {name!r}", choice.ordered)
    if isinstance(choice.options, block | SearchSpace):
        if choice.ordered is not None:
            raise ValueError(f"ordered of {name!r} must be None: it is for lists of options")
        if isinstance(choice.options, SearchSpace):
            if choice.options.hyperparameters:
                raise ValueError(
                    f"options of {name!r} must be a space of networks alone; got {choice.options!r}"
                    " (put hyperparameters beside the whole: Joint(space, {...}))"
                )
            return _Member(name, choice.options)
        return cast(Part, choice.options)
    return Options(name, choice.options, ordered=choice.ordered)


def read_places(choices: Mapping[str, Any], block: type) -> list[Place]:
    """Return the places that a declaration describes.

    Args:
        choices: As for `Block`.
        block: The class `Block`, which is a part itself.

    Raises:
        TypeError, ValueError: As `Block`.
    """
    choices = {_checked_name(name): _as_choice(given) for name, given in choices.items()}
    parts = {name: _part(name, choice, block) for name, choice in choices.items()}
    numbers = {name: number for number, name in enumerate(choices)}
    places = []
    start = 0
    for name, choice in choices.items():
        when = {} if choice.when is None else choice.when
        if not isinstance(when, Mapping):
            raise TypeError(
                f"when of {name!r} must be a mapping of names to options; got {shown(when)}"
            )
        parents = tuple(
            (numbers.get(parent, -1), _allowed(name, parent, parts.get(parent), given))
            for parent, given in when.items()
        )
        columns = parts[name].columns
        absent = tuple(values.start - 1 for values in columns.values())
        end = start + len(columns)
        places.append(Place(name, parts[name], parents, slice(start, end), absent))
        start = end
    return places


def _allowed(name: str, parent: str, part: Part | None, given: Any) -> frozenset[int]:
    """Return the numbers of the options of `parent` with which `name` is made."""
    if part is None:
        raise ValueError(f"when of {name!r} names {parent!r}, which is no choice")
    if not isinstance(part, Options):
        raise ValueError(
            f"when of {name!r} names {parent!r}, which is no list of options (put the choices that "
            "depend on each other into one block)"
        )
    if callable(given):
        try:
            said = [given(option) for option in part.options]
        # The user's own function, which may fail in any way.
        except Exception as error:
            raise ValueError(
                f"when of {name!r} raised {type(error).__name__} for an option of {parent!r}: "
                f"{error}"
            ) from error
        found = {
            n
            for n, (option, one) in enumerate(zip(part.options, said, strict=True))
            if verdict(
                one, partial("when of {!r} returns for {}={!r}".format, name, parent, option)
            )
        }
    else:
        several = given if isinstance(given, list | tuple | range | set | frozenset) else [given]
        try:
            found = {part.from_plain(one)[0] for one in several}
        except ArchitectureError as error:
            raise ValueError(f"when of {name!r}: {error}") from None
    if not found:
        raise ValueError(
            f"when of {name!r} must hold for an option of {parent!r}; it does for none"
        )
    return frozenset(found)


def verdict(found: Any, described: Callable[[], str]) -> bool:
    """Return what a function of the user's said: True or False, or a whole number for these.

    Args:
        found: What it returned.
        described: Says which function that is, and what it was asked.

    Raises:
        TypeError: It is something else; "no" and [False] would count as true.
    """
    return bool(found) if isinstance(found, int) else boolean(f"what {described()}", found)


def parents_first(places: Sequence[Place]) -> list[int]:
    """Return an order in which conditions are about what stands before.

    Raises:
        ValueError: There is none; the message names the circle.
    """
    order: list[int] = []
    entered: list[int] = []

    def enter(number: int) -> None:
        if number in order:
            return
        if number in entered:
            circle = [places[n].name for n in [*entered[entered.index(number) :], number]]
            raise ValueError(
                f"conditions must not go in a circle; got {' when '.join(map(repr, circle))}"
            )
        entered.append(number)
        for parent, _ in places[number].parents:
            enter(parent)
        entered.pop()
        order.append(number)

    for number in range(len(places)):
        enter(number)
    return order
