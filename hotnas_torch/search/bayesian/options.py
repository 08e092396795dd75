"""Former place of some functions of `hotnas_torch.arguments`."""

import inspect
from collections.abc import Callable
from typing import Any

from hotnas_torch.arguments import checked_options, refused_by

__all__ = ["checked_options", "refused_by", "settings_of"]

# What a search itself passes.
_OWN = {"space", "landmarks", "generator", "encoding", "memory"}


def settings_of(constructor: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the keyword arguments that a search leaves to its caller."""
    parameters = inspect.signature(constructor).parameters.values()
    return tuple(
        found.name
        for found in parameters
        if found.kind is inspect.Parameter.KEYWORD_ONLY and found.name not in _OWN
    )
