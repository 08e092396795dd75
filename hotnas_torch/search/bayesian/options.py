"""Names of the settings that a search leaves to its caller."""

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["settings_of"]

# What a search itself passes.
_OWN = {"train_X", "train_Y", "space", "landmarks", "generator", "encoding", "memory"}


def settings_of(constructor: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the keyword arguments that a search leaves to its caller."""
    parameters = inspect.signature(constructor).parameters.values()
    named = [found.name for found in parameters if found.kind is inspect.Parameter.KEYWORD_ONLY]
    # What a constructor takes by name through its `**settings`, where it says so.
    passed_on = getattr(constructor.__init__, "known_settings", ())
    return tuple(name for name in dict.fromkeys((*named, *passed_on)) if name not in _OWN)
