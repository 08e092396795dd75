"""Labels of operations: a kind, and the numbers that tell operations of one kind apart."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hotnas_torch.arguments import number, shown
from hotnas_torch.errors import ArchitectureError

__all__ = ["Operation", "check_name"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LONGEST_WHOLE = 1e16
"""From here on floats have gaps, and are written with an exponent."""


@dataclass(frozen=True, slots=True, init=False)
class Operation:
    """An operation: what it is, and positive numbers such as its kernel size and its width.

    `str` of it is the label that a node of a `Cell` carries: `kind`, or `kind[name=value,...]` with
    the names in sorted order and the numbers written as short as they can be. Equal operations have
    equal labels. An `OperationTree` compares the kinds; its `weights` say what the numbers cost.

    Args:
        kind: What is done, a non-empty text without `[` and `]`.
        **numbers: Positive finite numbers by their names, each a letter or underscore followed by
            letters, digits and underscores.

    Attributes:
        kind: As given.
        numbers: As floats, in the order of the names; cannot be written to.

    Raises:
        TypeError: The kind is no text, or a number is none.
        ArchitectureError: The kind, a name or a number breaks the rules above; the message names
            it.

    Example:
        >>> label = str(Operation("conv", kernel=3, groups=1, width=64))
        >>> label
        'conv[groups=1,kernel=3,width=64]'
        >>> Operation.parse(label).numbers["kernel"]
        3.0
        >>> str(Operation("relu")), Operation.parse(label) == Operation.parse("relu")
        ('relu', False)
    """

    kind: str
    numbers: Mapping[str, float]

    def __init__(self, kind: str, /, **numbers: float) -> None:
        if not isinstance(kind, str):
            raise TypeError(f"kind must be a str; got {shown(kind)}")
        if not kind or "[" in kind or "]" in kind:
            raise ArchitectureError(
                f"kind must be a non-empty text without '[' and ']'; got {kind!r}"
                + (" (Operation.parse reads a label)" if kind else "")
            )
        found = {}
        for name in sorted(numbers):
            check_name("names of numbers", name)
            value = number(f"{name} of {kind!r}", numbers[name])
            if not 0.0 < value < float("inf"):
                raise ArchitectureError(
                    f"{name} of {kind!r} must be a positive finite number; got {value}"
                )
            found[name] = value
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "numbers", MappingProxyType(found))

    @classmethod
    def parse(cls, label: str) -> "Operation":
        """Return the operation whose label this is.

        Raises:
            TypeError: `label` is no text.
            ArchitectureError: It is no label of an operation, or not written as `str` writes it:
                two ways to write an operation would be two operations. The message says how.
        """
        if not isinstance(label, str):
            raise TypeError(f"label must be a str; got {shown(label)}")
        kind, bracket, rest = label.partition("[")
        if not bracket:
            return cls(label)
        expected = "kind[name=number,...]"
        if not rest.endswith("]"):
            raise ArchitectureError(f"label must be a kind, or {expected}; got {label!r}")
        numbers: dict[str, float] = {}
        for part in rest[:-1].split(","):
            name, equals, text = part.partition("=")
            try:
                value = float(text)
            except ValueError:
                equals = ""
            if not equals or name in numbers:
                fault = "repeats" if equals else "has"
                raise ArchitectureError(
                    f"label must be a kind, or {expected} with each name once; {label!r} {fault}"
                    f" {part!r}"
                )
            numbers[name] = value
        try:
            found = cls(kind, **numbers)
        except ArchitectureError as error:
            raise ArchitectureError(f"label {label!r}: {error}") from error
        if str(found) != label:
            raise ArchitectureError(
                f"label must have its names sorted and its numbers written shortest,"
                f" {str(found)!r}; got {label!r}"
            )
        return found

    def __str__(self) -> str:
        if not self.numbers:
            return self.kind
        return f"{self.kind}[{','.join(f'{n}={_shortest(v)}' for n, v in self.numbers.items())}]"

    def __repr__(self) -> str:
        numbers = "".join(f", {name}={_shortest(v)}" for name, v in self.numbers.items())
        return f"Operation({self.kind!r}{numbers})"

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[object, ...]:
        return (Operation.parse, (str(self),))


def check_name(what: str, name: object) -> None:
    """Raise unless a number may have this name; the message begins with `what`."""
    if not isinstance(name, str):
        raise TypeError(f"{what} must have names that are texts; got {shown(name)}")
    if not _NAME.fullmatch(name):
        raise ArchitectureError(
            f"{what} must have names of letters, digits and underscores that do not begin with a"
            f" digit; got {name!r}"
        )


def _shortest(value: float) -> str:
    return str(int(value)) if value.is_integer() and value < _LONGEST_WHOLE else repr(value)
