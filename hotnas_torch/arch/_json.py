"""JSON descriptions: checks that report a damaged file by key and index, and digests."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from hotnas_torch.errors import ArchitectureError

__all__ = ["check_keys", "check_list", "check_pairs", "check_value", "content_digest"]

T = TypeVar("T")

_NAMES: dict[type, str] = {
    dict: "an object",
    float: "a number",
    int: "an integer",
    list: "a list",
    str: "a string",
}


def check_keys(
    data: object, what: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> None:
    """Check that a JSON object has every required key and no unknown one.

    Raises:
        TypeError: `data` is not a mapping.
        ArchitectureError: A key is missing or unknown.
    """
    if not isinstance(data, Mapping):
        raise TypeError(
            f"data must be a mapping that describes {what}; got {type(data).__name__} "
            "(parse text with json.loads first)"
        )
    known = required + optional
    for key in required:
        if key not in data:
            raise ArchitectureError(
                f"data must describe {what} with the keys {_listed(known)}; {key!r} is missing; "
                f"got {_listed(data)} (is this the right file?)"
            )
    for key in data:
        if key not in known:
            raise ArchitectureError(
                f"data must describe {what} with the keys {_listed(known)}; {key!r} is unknown "
                "(remove it, or update the library)"
            )


def check_value(value: Any, kind: type[T], argument: str) -> T:
    """Return `value` if it is of the JSON kind `kind`; a number may be written as an integer.

    Raises:
        ArchitectureError: It is of another kind; the message names `argument`.
    """
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise ArchitectureError(
            f"{argument} must be {_NAMES[kind]}; got {_shown(value)} of type {type(value).__name__}"
        )
    return value  # type: ignore[return-value]


def _shown(value: object) -> str:
    try:
        return repr(value)
    except RecursionError:
        return "something nested without end"


def check_list(value: Any, kind: type[T], argument: str) -> list[T]:
    """Return `value` if it is a list of values of the JSON kind `kind`.

    Raises:
        ArchitectureError: It is no list, or an entry is of another kind; the message names it.
    """
    entries = check_value(value, list, argument)
    return [
        check_value(entry, kind, f"{argument}[{position}]")
        for position, entry in enumerate(entries)
    ]


def check_pairs(value: Any, argument: str) -> tuple[tuple[int, int], ...]:
    """Return a JSON list of two-element integer lists as a tuple of pairs.

    Raises:
        ArchitectureError: Anything else; the message names the entry.
    """
    pairs = []
    for position, entry in enumerate(check_list(value, list, argument)):
        numbers = check_list(entry, int, f"{argument}[{position}]")
        if len(numbers) != 2:
            raise ArchitectureError(
                f"{argument}[{position}] must be a pair [i, j]; got {len(numbers)} numbers: "
                f"{numbers}"
            )
        pairs.append((numbers[0], numbers[1]))
    return tuple(pairs)


def content_digest(data: Any) -> str:
    """Return 32 hex digits that depend only on the JSON text of `data`."""
    text = json.dumps(data, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _listed(keys: Any) -> str:
    return ", ".join(repr(key) for key in keys) or "none"
