"""Bounds on numbers of an evaluation."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

__all__ = ["Constraint", "read_constraints"]

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
