# Over 400 lines: one kind of codes, in all that can be done with them.
"""Choices that are made together: options, conditions between them, a constraint on all."""

import difflib
import itertools
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from hotnas_torch.arguments import kind, shown
from hotnas_torch.errors import ArchitectureError, SizeError
from hotnas_torch.spaces.base import Code, draw_index
from hotnas_torch.spaces.declared.building import called
from hotnas_torch.spaces.declared.options import Options
from hotnas_torch.spaces.declared.places import Part, Place, parents_first, read_places, verdict
from hotnas_torch.spaces.declared.texts import enclosed, opened, pieces

__all__ = ["Block", "Constraint"]

Constraint = Callable[[dict[str, Any]], Any]

# Combinations that a count looks at one by one, and random ones before a constraint is given up.
_MOST_COUNTED = 2**20
_MOST_DRAWS = 10_000
# Random combinations that tell how much a constraint refuses, and the share that has to be allowed
# to draw until one is. Otherwise a random walk makes so many mutations.
_TRIED = 500
_LEAST_ALLOWED = 0.01
_STEPS = 20
# Mutations that a constraint refuses before the code is left as it is.
_MUTATIONS = 64


class Block:
    """Choices that are made together, at a place of a `Choices` space or of another block.

    A build function gets a block as a dict of what was chosen, or as what `build` makes of it. The
    same block at several places is chosen anew at each; one that is to be repeated is chosen once
    and used several times by the build function.

    Args:
        choices: Options by the name of each choice: a list of plain values, a `Choice`, or a
            `Block` or search space, one of whose members is chosen (of `Cells`, a cell).
        build: What a build function gets, from the dict of what was chosen. Choices that are not
            made are not in it.
        constraint: Says of such a dict whether it is allowed.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: No choice, a name or options that cannot be used, a condition on an unknown
            choice or option, conditions in a circle, or a constraint that refused everything that
            was tried; the message says how much that was.

    Example:
        >>> from hotnas_torch.spaces import Choice
        >>> kernel = Choice([3, 5], when={"operation": "conv"})
        >>> block = Block({"operation": ["conv", "pool"], "kernel": kernel})
        >>> block.count(), [block.format(code) for code in block.all_codes()]
        (3, ['operation=conv,kernel=3', 'operation=conv,kernel=5', 'operation=pool'])
    """

    def __init__(
        self,
        choices: Mapping[str, Any],
        build: Callable[[dict[str, Any]], Any] | None = None,
        *,
        constraint: Constraint | None = None,
    ) -> None:
        if not isinstance(choices, Mapping):
            raise TypeError(f"choices must be a mapping of names to options; got {shown(choices)}")
        if not choices:
            raise ValueError("choices must hold at least one choice; got none")
        for argument, function in (("build", build), ("constraint", constraint)):
            if function is not None and not callable(function):
                raise TypeError(f"{argument} must be a function; got {shown(function)}")
        self._places = read_places(choices, Block)
        self._order = parents_first(self._places)
        self._build = build
        self._constraint = constraint
        self.columns: dict[str, range] = {}
        for place in self._places:
            for column, values in place.part.columns.items():
                name = f"{place.name}{'.' if column else ''}{column}"
                if name in self.columns:
                    raise ValueError(
                        f"names of choices must differ from those within blocks; got {name!r} twice"
                        f", in {place.name!r} as well (call one of them something else)"
                    )
                whole = range(values.start - 1, values.stop) if place.parents else values
                self.columns[name] = whole
        self._some_code, self._listed = self._find_codes()

    @property
    def num_choices(self) -> int:
        """Number of choices, those of blocks within not counted."""
        return len(self._places)

    # --- which codes there are --------------------------------------------------------------------

    def count(self) -> int:
        """Return the number of combinations.

        Raises:
            SizeError: A constraint, or conditions that depend on each other, leave too many to
                count.
        """
        if self._constraint is None:
            return self._product(lambda part: part.count())
        bound = self.bound()
        if bound > _MOST_COUNTED:
            raise SizeError(
                "combinations under a constraint must be counted one by one, and there are "
                f"{bound:,} without it, more than {_MOST_COUNTED:,} (size_bound() of a space "
                "returns that number)"
            )
        return sum(1 for _ in self.all_codes())

    def bound(self) -> int:
        """Return the number of combinations without the constraint."""
        return self._product(lambda part: part.bound())

    def _product(self, count: Callable[[Part], int]) -> int:
        # Variables are eliminated one by one: what later conditions still ask for is remembered.
        asked = {
            number: max(
                (
                    self._order.index(other)
                    for other, place in enumerate(self._places)
                    if number in dict(place.parents)
                ),
                default=-1,
            )
            for number in range(len(self._places))
        }
        states: Counter[tuple[tuple[int, int], ...]] = Counter({(): 1})
        for position, number in enumerate(self._order):
            place = self._places[number]
            after: Counter[tuple[tuple[int, int], ...]] = Counter()
            ways = count(place.part)
            for state, number_of in states.items():
                chosen = dict(state)
                made = all(chosen[parent] in allowed for parent, allowed in place.parents)
                values: Sequence[int] = range(ways) if made else (-1,)
                if asked[number] < 0:  # nobody asks what was chosen
                    values, number_of = (-1,), number_of * (ways if made else 1)
                for value in values:
                    kept = {**chosen, number: value}
                    left = {key: v for key, v in kept.items() if asked[key] > position}
                    after[tuple(sorted(left.items()))] += number_of
            states = after
            if len(states) > _MOST_COUNTED:
                raise SizeError(
                    "conditions depend on each other in more ways than can be counted, at the "
                    f"choice {place.name!r}"
                )
        return sum(states.values())

    def some_code(self) -> Code:
        """Return a valid code, always the same."""
        return self._some_code

    def last_code(self) -> Code:
        """Return the code with the last options everywhere, or where that is none, `some_code`."""
        code = self._assembled(lambda place: place.part.last_code())
        return code if self._allows(code) else self._some_code

    def _find_codes(self) -> tuple[Code, Sequence[Code] | None]:
        """Return a valid code, and all of them where random ones hardly ever are."""
        first = self._assembled(lambda place: place.part.some_code())
        if self._constraint is None:
            return first, None
        generator = torch.Generator().manual_seed(0)
        drawn = [self._combination(generator) for _ in range(_TRIED)]
        allowed = [code for code in (first, *drawn) if self._allows(code)]
        if len(allowed) > _TRIED * _LEAST_ALLOWED:
            return allowed[0], None
        bound = self.bound()
        if bound <= _MOST_DRAWS:
            listed = list(self.all_codes())
            if not listed:
                raise ValueError(
                    f"constraint must allow some choices; it refuses all {bound:,} combinations"
                )
            return listed[0], listed
        for _ in range(0 if allowed else _MOST_DRAWS - _TRIED):
            if self._allows(code := self._combination(generator)):
                return code, ()
        if not allowed:
            raise ValueError(
                f"constraint must allow some choices; it refused all of {_MOST_DRAWS:,} random "
                f"ones, the last of them {self.format(code)} (let the options themselves say what "
                "is allowed)"
            )
        return allowed[0], ()

    def all_codes(self) -> Iterator[Code]:
        """Yield all codes."""
        return filter(self._allows, self._combinations())

    def _combinations(self) -> Iterator[Code]:
        """Yield all codes, whatever the constraint says."""
        parts: list[Code] = [()] * len(self._places)

        def complete(position: int) -> Iterator[Code]:
            if position == len(self._order):
                yield tuple(itertools.chain.from_iterable(parts))
                return
            number = self._order[position]
            place = self._places[number]
            made = self._is_made(place, parts)
            for part in place.part.all_codes() if made else (place.absent,):
                parts[number] = part
                yield from complete(position + 1)

        return complete(0)

    def fault_of(self, code: Code) -> str | None:
        """Say why a code within the ranges of its columns is none; None if it is one."""
        parts = self._split(code)
        for place, part in zip(self._places, parts, strict=True):
            if not self._is_made(place, parts):
                if part != place.absent:
                    return f"{place.name} is not chosen here; it must be {_shown(place.absent)}"
            elif any(map(operator.eq, part, place.absent)):
                return f"{place.name} must be chosen here; got {_shown(part)}"
            elif reason := place.part.fault_of(part):
                return reason
        if not self._allows(code):
            return f"the constraint refuses {self.format(code)}"
        return None

    def _allows(self, code: Code) -> bool:
        if self._constraint is None:
            return True
        chosen = self.chosen(code)
        try:
            found = self._constraint(chosen)
        # The user's own function, which may fail in any way.
        except Exception as error:
            raise ArchitectureError(
                f"constraint raised {type(error).__name__}: {error}, for the choices "
                f"{self.format(code)}"
            ) from error
        return verdict(found, lambda: f"constraint returns for {self.format(code)}")

    # --- drawing and editing ----------------------------------------------------------------------

    def draw_code(self, generator: torch.Generator) -> Code:
        """Draw a code: every choice that is made uniformly, again while the constraint refuses.

        Where it refuses nearly everything, a code is drawn from all that there are, or, where they
        are too many to list, by a random walk of mutations from one that is known.
        """
        if self._listed is None:
            for _ in range(_MOST_DRAWS):
                if self._allows(code := self._combination(generator)):
                    return code
        elif self._listed:
            return self._listed[draw_index(len(self._listed), generator)]
        code = self._some_code
        for _ in range(_STEPS):
            code = self.mutate_code(code, generator)
        return code

    def _combination(self, generator: torch.Generator) -> Code:
        """Draw a code, whatever the constraint says."""
        return self._assembled(lambda place: place.part.draw_code(generator))

    def covering_codes(self, codes: Sequence[Code], generator: torch.Generator) -> Iterator[Code]:
        """Yield codes with options that none of some codes has, if one change makes one of these.

        Args:
            codes: Some codes.
            generator: Draws what an option makes necessary.
        """
        seen = [set(values) for values in zip(*codes, strict=True)]
        values = list(self.columns.values())
        for number, place in enumerate(self._places):
            for column in range(place.columns.start, place.columns.stop):
                first = place.absent[column - place.columns.start] + 1
                for value in set(range(first, values[column].stop)) - seen[column]:
                    if found := self._with_value(codes, number, column, value, generator):
                        yield found

    def _with_value(
        self,
        codes: Sequence[Code],
        number: int,
        column: int,
        value: int,
        generator: torch.Generator,
    ) -> Code | None:
        place = self._places[number]
        for code in codes:
            if code[place.columns] == place.absent:
                continue
            changed = (*code[:column], value, *code[column + 1 :])
            parts = self._split(changed)
            if place.part.fault_of(parts[number]):
                continue
            found = self._assembled(lambda other: other.part.draw_code(generator), parts)
            if self._allows(found):
                return found
        return None

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        """Yield the codes with another neighbouring option at one place.

        Choices that this adds get one fixed value. Where a constraint refuses all of them, two
        places differ.
        """
        found = False
        for edited in self._edited(code):
            if self._allows(edited):
                found = True
                yield edited
        if not found and self._constraint is not None:
            for edited in self._edited(code):
                for again in self._edited(edited):
                    if again != code and self._allows(again):
                        yield again

    def _edited(self, code: Code) -> Iterator[Code]:
        parts = self._split(code)
        for number, place in enumerate(self._places):
            if not self._is_made(place, parts):
                continue
            for part in place.part.neighbor_codes(parts[number]):
                changed = [*parts[:number], part, *parts[number + 1 :]]
                yield self._assembled(lambda other: other.part.some_code(), changed)

    def mutate_code(self, code: Code, generator: torch.Generator) -> Code:
        """Draw a code near `code`, possibly `code` itself.

        Each of the n choices that are made is changed with probability 1 / n, and at least one.
        Where a constraint refuses many of these in a row, it is a random code.
        """
        for _ in range(_MUTATIONS):
            parts = self._split(code)
            made = [n for n, place in enumerate(self._places) if self._is_made(place, parts)]
            always = made[draw_index(len(made), generator)]
            draws = torch.rand(len(made), generator=generator, device=generator.device).tolist()
            for number, draw in zip(made, draws, strict=True):
                if number == always or draw * len(made) < 1.0:
                    part = self._places[number].part
                    parts[number] = part.mutate_code(parts[number], generator)
            mutant = self._assembled(lambda place: place.part.draw_code(generator), parts)
            if self._allows(mutant):
                return mutant
        # A random walk consists of mutations itself.
        return code if self._listed == () else self.draw_code(generator)

    # --- values and texts -------------------------------------------------------------------------

    def chosen(self, code: Code) -> dict[str, Any]:
        """Return what was chosen by name, as build functions and constraints get it."""
        parts = self._split(code)
        return {
            place.name: place.part.value(part)
            for place, part in zip(self._places, parts, strict=True)
            if part != place.absent
        }

    def value(self, code: Code) -> Any:
        """Return what the build function of the space around it gets."""
        chosen = self.chosen(code)
        if self._build is None:
            return chosen
        return called("build of a block", self._build, chosen, self.format(code))

    def to_plain(self, code: Code) -> dict[str, Any]:
        """Return what was chosen by name, ready for JSON."""
        parts = self._split(code)
        return {
            place.name: place.part.to_plain(part)
            for place, part in zip(self._places, parts, strict=True)
            if part != place.absent
        }

    def from_plain(self, given: Any) -> Code:
        """Return the code that `to_plain` described.

        Raises:
            TypeError: It is no mapping.
            ArchitectureError: It describes none; the message names the choice.
        """
        kind("choices", given, Mapping, hint="pass a dict of options by name")
        return self._checked(given, lambda place, one: place.part.from_plain(one))

    def format(self, code: Code) -> str:
        """Return the text of a code, `name=option` between commas; a block is in parentheses."""
        parts = self._split(code)
        return ",".join(
            f"{place.name}={_formatted(place.part, part)}"
            for place, part in zip(self._places, parts, strict=True)
            if part != place.absent
        )

    def parse(self, text: str) -> Code:
        """Return the code of a text.

        Raises:
            ArchitectureError: It is none; the message names what was expected.
        """
        given: dict[str, str] = {}
        for position, piece in pieces(text):
            name, equals, value = piece.partition("=")
            if not equals or name in given:
                expected = "another name" if equals else "name=option"
                raise ArchitectureError(
                    f"expected {expected} at position {position}; got {piece!r}"
                )
            given[name] = value
        code = self._checked(given, _parsed)
        if self.format(code) != text:
            raise ArchitectureError(f"expected the order {self.format(code)!r}")
        return code

    def _checked(self, given: Mapping[str, Any], read: Callable[[Place, Any], Code]) -> Code:
        """Return the code in which what is made is read from `given`, all of it and no more."""
        known = [place.name for place in self._places]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                meant = f" (did you mean {near[0]!r}?)" if near else ""
                raise ArchitectureError(f"there is no choice {name!r}{meant}")

        def part(place: Place) -> Code:
            if place.name not in given:
                raise ArchitectureError(f"the choice {place.name!r} is missing")
            return read(place, given[place.name])

        code = self._assembled(part)
        for place, found in zip(self._places, self._split(code), strict=True):
            if place.name in given and found == place.absent:
                raise ArchitectureError(f"the choice {place.name!r} is not made with the others")
        if reason := self.fault_of(code):
            raise ArchitectureError(reason)
        return code

    def declaration(self) -> list[Any]:
        """Return what tells it from others, ready for JSON."""
        return [
            [
                place.name,
                place.part.declaration(),
                [[self._places[n].name, sorted(allowed)] for n, allowed in place.parents],
            ]
            for place in self._places
        ]

    # --- columns ----------------------------------------------------------------------------------

    def _split(self, code: Code) -> list[Code]:
        return [code[place.columns] for place in self._places]

    def _is_made(self, place: Place, parts: Sequence[Code]) -> bool:
        # An absent parent holds no number of an option.
        return all(parts[parent][0] in allowed for parent, allowed in place.parents)

    def _assembled(
        self, added: Callable[[Place], Code], parts: Sequence[Code] | None = None
    ) -> Code:
        """Put a code together: what is not made is left out, what is missing is added."""
        found = [place.absent for place in self._places] if parts is None else list(parts)
        for number in self._order:
            place = self._places[number]
            if not self._is_made(place, found):
                found[number] = place.absent
            elif found[number] == place.absent:
                found[number] = added(place)
        return tuple(itertools.chain.from_iterable(found))


# --- texts ----------------------------------------------------------------------------------------


def _formatted(part: Part, code: Code) -> str:
    text = part.format(code)
    return text if isinstance(part, Options) else enclosed(text)


def _parsed(place: Place, text: str) -> Code:
    if isinstance(place.part, Options):
        return place.part.parse(text)
    inner = opened(place.name, text)
    try:
        return place.part.parse(inner)
    except ArchitectureError as error:
        raise ArchitectureError(f"{place.name}: {error}") from None


def _shown(code: Code) -> str:
    return str(code[0]) if len(code) == 1 else str(list(code))
