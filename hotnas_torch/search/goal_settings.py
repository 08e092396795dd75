"""Settings of a goal, as callers write them: objectives, directions, bounds, what is known."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor

from hotnas_torch.arch import Network

__all__ = [
    "VALUE",
    "VARIANCE",
    "Constraint",
    "Direction",
    "read_constraints",
    "read_known",
    "read_objectives",
]

Direction = Literal["minimize", "maximize"]

VALUE = "value"
"""Name of the one number of an objective that has no other name."""

VARIANCE = "_variance"
"""Ends the name of a metric that is the variance of another number's noise."""

_DIRECTIONS = ("minimize", "maximize")

_CONSTRAINT = re.compile(r"\s*(?P<name>.*?\S)\s*(?P<relation><=|>=)\s*(?P<bound>\S+)\s*")


class Constraint(NamedTuple):
    """A bound on a number.

    Attributes:
        name: Of the number: an objective, or anything else that an evaluation reports.
        relation: `"<="` or `">="`.
        bound: In the number's units.
    """

    name: str
    relation: str
    bound: float

    def excess(self, values: Tensor) -> Tensor:
        """Return by how much values break the bound, of the same shape; <= 0 where they do not."""
        return values - self.bound if self.relation == "<=" else self.bound - values

    def __str__(self) -> str:
        return f"{self.name} {self.relation} {self.bound!r}"


def read_constraints(given: object) -> tuple[Constraint, ...]:
    """Return constraints from texts.

    Raises:
        TypeError, ValueError: One is no text, or cannot be read; the message names it.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(
            f'constraints must be a sequence of texts such as ["latency <= 5"]; got {given!r}'
        )
    return tuple(_constraint(f"constraints[{place}]", one) for place, one in enumerate(given))


def _constraint(name: str, given: object) -> Constraint:
    if isinstance(given, Constraint):
        return given
    expected = f'{name} must be a text such as "latency <= 5" or "accuracy >= 0.9"'
    if not isinstance(given, str):
        raise TypeError(f"{expected}; got {given!r}")
    found = _CONSTRAINT.fullmatch(given)
    try:
        bound = math.nan if found is None else float(found["bound"])
    except ValueError:
        bound = math.nan
    if found is None or not math.isfinite(bound):
        raise ValueError(f"{expected}; got {given!r}")
    return Constraint(found["name"], found["relation"], bound)


def _direction(name: str, given: object) -> Direction:
    if not isinstance(given, str) or given not in _DIRECTIONS:
        raise ValueError(f"{name} must be 'minimize' or 'maximize'; got {given!r}")
    return "maximize" if given == "maximize" else "minimize"


def read_objectives(
    given: object, direction: object
) -> tuple[tuple[str, ...], tuple[Direction, ...], bool]:
    """Return names, directions, and whether the latter were said."""
    if isinstance(given, Mapping):
        if direction is not None:
            raise ValueError(
                "direction must be left out where objectives are a mapping to directions; got "
                f"{direction!r}"
            )
        names = _names("objectives", given)
        found = tuple(_direction(f"objectives[{name!r}]", given[name]) for name in names)
        return names, found, True
    names = (VALUE,) if given is None else _names("objectives", given)
    if direction is None or isinstance(direction, str):
        one = "minimize" if direction is None else _direction("direction", direction)
        return names, (one,) * len(names), direction is not None
    if not isinstance(direction, Sequence):
        raise ValueError(f"direction must be 'minimize' or 'maximize'; got {direction!r}")
    if len(direction) != len(names):
        raise ValueError(
            f"direction must be one, or one per objective, {len(names)}; got {len(direction)}"
        )
    found = tuple(_direction(f"direction[{place}]", one) for place, one in enumerate(direction))
    return names, found, True


def _names(what: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{what} must be a sequence of names; got {given!r}")
    names = tuple(given)
    for place, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise TypeError(f"{what}[{place}] must be a name; got {name!r}")
        if name in names[:place]:
            raise ValueError(f"{what} must be different names; got {name!r} twice")
    if not names:
        raise ValueError(f"{what} must hold at least one name; got none")
    return names


def read_known(given: object, names: Sequence[str]) -> dict[str, Callable[[Network], float]]:
    """Return functions of a network by the name of the number that they give.

    Raises:
        TypeError: It is no mapping of names to functions.
        ValueError: A name does not count, or nothing is left to evaluate.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"known must be a mapping of names to functions; got {given!r}")
    for name, function in given.items():
        if name not in names:
            raise ValueError(
                f"known must be objectives or have a constraint ({', '.join(names)}); got {name!r}"
            )
        if not callable(function):
            raise TypeError(f"known[{name!r}] must be a function of a network; got {function!r}")
    if all(name in given for name in names):
        raise ValueError(
            f"known must leave something to evaluate; got all of {', '.join(names)} (sort the "
            "networks of the space by them instead)"
        )
    return dict(given)
