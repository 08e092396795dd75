"""Official strings of choices: `name=option` between commas, blocks in parentheses."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from hotnas_torch.arguments import number, shown
from hotnas_torch.errors import ArchitectureError

__all__ = ["SEPARATORS", "Option", "enclosed", "opened", "pieces", "plain", "written"]

Option: TypeAlias = int | float | bool | str | None
"""What can be chosen."""

SEPARATORS = ",=()\"'"
"""What no name of a choice may hold."""

_BARE = re.compile(r"[A-Za-z_](?:[\w.+/ -]*[\w.+/-])?", re.ASCII)
_WORDS = frozenset(("true", "false", "null", "NaN", "Infinity"))


def plain(value: Any) -> Option:
    """Return an option as a value of Python: numbers of NumPy and torch become int and float.

    Raises:
        TypeError: It is none of int, float, bool, str and None.
        ValueError: It is a number that is not finite.
    """
    if callable(item := getattr(value, "item", None)):
        try:
            value = item()
        except (TypeError, ValueError, RuntimeError):
            value = [value]  # several numbers, refused below
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Integers beyond floats are too long for texts as well.
    if is_number and not math.isfinite(size := number("it", value)):
        raise ValueError(f"must be finite; got {size}")
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)  # without subclasses, such as members of an enumeration
    if value is None:
        return None
    raise TypeError(
        f"must be an int, a float, a bool, a str or None; got {shown(value)} (name it by a str, and"
        " look it up in build)"
    )


def written(value: Option) -> str:
    """Return an option as text, as JSON where a word alone could be read otherwise."""
    if isinstance(value, str) and _BARE.fullmatch(value) and value not in _WORDS:
        return value
    return json.dumps(value)


def pieces(text: str) -> Iterator[tuple[int, str]]:
    """Yield what stands between the commas outside of quotes and parentheses, with its place.

    Raises:
        ArchitectureError: Quotes or parentheses do not match.
    """
    start = depth = 0
    quoted = escaped = False
    for place, sign in enumerate(text):
        if quoted:
            quoted, escaped = escaped or sign != '"', sign == "\\" and not escaped
        elif sign == '"':
            quoted = True
        elif sign in "()":
            depth += 1 if sign == "(" else -1
            if depth < 0:
                raise ArchitectureError(f"expected '(' before the ')' at position {place}")
        elif sign == "," and depth == 0:
            yield start, text[start:place]
            start = place + 1
    if quoted or depth:
        raise ArchitectureError(f"expected {'a quote' if quoted else repr(')')} before the end")
    yield start, text[start:]


def enclosed(text: str) -> str:
    """Put a text in parentheses, as JSON where its own quotes and parentheses do not match."""
    try:
        kept = not text.startswith('"') and text == ",".join(piece for _, piece in pieces(text))
    except ArchitectureError:
        kept = False
    return f"({text if kept else json.dumps(text)})"


def opened(name: str, text: str) -> str:
    """Return what `enclosed` put in parentheses.

    Raises:
        ArchitectureError: It is not in parentheses, or no JSON.
    """
    if len(text) < 2 or text[0] != "(" or text[-1] != ")":
        raise ArchitectureError(f"{name} must be in parentheses; got {text!r}")
    inner = text[1:-1]
    if not inner.startswith('"'):
        return inner
    try:
        found = json.loads(inner)
    except ValueError as error:
        raise ArchitectureError(f"{name} must be a text in quotes; got {inner!r}") from error
    return str(found)
