"""Options of one choice: plain values, written and read without a doubt."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from hotnas_torch.arguments import shown
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces.base import Code, draw_index
from hotnas_torch.spaces.declared.texts import Option, plain, written
from hotnas_torch.spaces.hyperparameters import Hyperparameter

__all__ = ["Options"]

# More are a number, not a list of choices.
_MOST = 2**16


class Options:
    """Plain values of which one is chosen.

    Args:
        name: What messages call it.
        options: The values, at least one, all different.
        ordered: Whether only values beside each other are neighbours; None takes numbers that rise
            or fall as ordered.

    Raises:
        TypeError: They are no list, or one of them is no plain value.
        ValueError: There is none, or two are equal; the message names them.
    """

    def __init__(self, name: str, options: Any, *, ordered: bool | None) -> None:
        if callable(listed := getattr(options, "tolist", None)):
            options = listed()
        if not isinstance(options, list | tuple | range):
            raise TypeError(
                f"options of {name!r} must be a list or tuple; got "
                f"{shown(options)}{_remedy(options)}"
            )
        if not options:
            raise ValueError(f"options of {name!r} must hold at least one; got none")
        if len(options) > _MOST:
            raise ValueError(
                f"options of {name!r} must be at most {_MOST:,}; got {len(options):,} (a number "
                "from a wide range is a hyperparameter beside the space: Joint(space, {...}))"
            )
        places: dict[Option, int] = {}
        for place, given in enumerate(options):
            try:
                value = plain(given)
            except (TypeError, ValueError) as error:
                raise type(error)(f"options[{place}] of {name!r} {error}") from None
            if (earlier := places.setdefault(value, place)) != place:  # True is 1
                raise ValueError(
                    f"options of {name!r} must differ; options[{place}] = {value!r} is"
                    f" options[{earlier}] = {list(places)[earlier]!r}"
                )
        found = list(places)
        self.name = name
        self.options = tuple(found)
        self.texts = tuple(map(written, found))
        self.ordered = _monotone(found) if ordered is None else ordered
        self.columns = {"": range(len(found))}

    # --- codes, of one number each ----------------------------------------------------------------

    def count(self) -> int:
        """Return the number of options."""
        return len(self.options)

    bound = count

    def some_code(self) -> Code:
        """Return a code, always the same."""
        return (0,)

    def last_code(self) -> Code:
        """Return the code of the last option."""
        return (len(self.options) - 1,)

    def all_codes(self) -> Iterator[Code]:
        """Yield all codes."""
        return ((place,) for place in range(len(self.options)))

    def draw_code(self, generator: torch.Generator) -> Code:
        """Draw a code uniformly."""
        return (draw_index(len(self.options), generator),)

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        """Yield the codes of the others, or of those beside it where there is an order."""
        for place in range(len(self.options)):
            if place != code[0] and (not self.ordered or abs(place - code[0]) == 1):
                yield (place,)

    def mutate_code(self, code: Code, generator: torch.Generator) -> Code:
        """Draw a neighbour; `code` where there is none."""
        around = list(self.neighbor_codes(code))
        return around[draw_index(len(around), generator)] if around else code

    def fault_of(self, code: Code) -> str | None:
        """Every code in range is one."""
        del code
        return None

    # --- values and texts -------------------------------------------------------------------------

    def value(self, code: Code) -> Option:
        """Return what a build function gets."""
        return self.options[code[0]]

    def to_plain(self, code: Code) -> Option:
        """Return what describes a code in JSON."""
        return self.options[code[0]]

    def from_plain(self, given: Any) -> Code:
        """Return the code of an option.

        Raises:
            ArchitectureError: It is none.
        """
        try:
            value = plain(given)
        except (TypeError, ValueError) as error:
            raise ArchitectureError(f"{self.name} {error}") from None
        for place, option in enumerate(self.options):
            if option == value and isinstance(option, bool) == isinstance(value, bool):
                return (place,)
        raise ArchitectureError(
            f"{self.name} must be one of {', '.join(map(repr, self.options))}; got {value!r}"
        )

    def format(self, code: Code) -> str:
        """Return the text of a code."""
        return self.texts[code[0]]

    def parse(self, text: str) -> Code:
        """Return the code of a text.

        Raises:
            ArchitectureError: It is none.
        """
        if text not in self.texts:
            raise ArchitectureError(
                f"{self.name}={text} must be one of {', '.join(self.texts)}, written so"
            )
        return (self.texts.index(text),)

    def declaration(self) -> list[Any]:
        """Return what tells it from others, ready for JSON."""
        return [list(self.options), self.ordered]


def _remedy(given: object) -> str:
    """Return what to do about a hyperparameter in the place of options."""
    if not isinstance(given, Hyperparameter):
        return ""
    return f" (put it beside the space: Joint(space, {{name: {given!r}}}))"


def _monotone(values: Sequence[Option]) -> bool:
    """Whether these are two numbers or more that rise, or that fall."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) != len(values):
        return False
    rising = sorted(numbers)
    return len(numbers) > 1 and (numbers == rising or numbers == rising[::-1])
