"""Settings that a search hands on to its model or its distance: checked when it is made."""

import difflib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["checked_options", "refused_by", "settings_of"]

# What a search itself passes.
_OWN = {"train_X", "train_Y", "space", "landmarks", "generator", "encoding", "memory"}


def settings_of(constructor: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the keyword arguments that a search leaves to its caller."""
    parameters = inspect.signature(constructor).parameters.values()
    named = [found.name for found in parameters if found.kind is inspect.Parameter.KEYWORD_ONLY]
    # What a constructor takes by name through its `**settings`, where it says so.
    passed_on = getattr(constructor.__init__, "known_settings", ())
    return tuple(name for name in dict.fromkeys((*named, *passed_on)) if name not in _OWN)


def checked_options(
    argument: str, options: Mapping[str, Any] | None, known: Sequence[str]
) -> dict[str, Any]:
    """Return settings as a dict, which has to fit into the record of a search.

    Args:
        argument: What the message calls them.
        options: Settings by name; None is none.
        known: Names that there are.

    Raises:
        TypeError: They are no mapping, a name is not known, or they are not ready for
            `json.dumps`.
        ValueError: A number is not finite.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise TypeError(
            f"{argument} must be a mapping of settings by name; got {options!r} of type "
            f"{type(options).__name__}"
        )
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            raise TypeError(
                f"{argument} must be among {', '.join(sorted(set(known)))}; got {name!r}{meant}"
            )
    found = dict(options)
    try:
        json.dumps(found, allow_nan=False)
    except TypeError as error:
        raise TypeError(f"{argument} must be ready for json.dumps: {error}") from error
    except ValueError as error:
        raise ValueError(f"{argument} must hold finite numbers; got {found!r}") from error
    return found


@contextmanager
def refused_by(argument: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Say which settings were meant where a model or a distance refuses them.

    Raises:
        TypeError, ValueError: What is built within refuses one.
    """
    try:
        yield
    except Exception as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{argument} = {dict(options)!r} cannot be used: {error}") from error
