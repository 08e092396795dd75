"""Distances by their names."""

import difflib
from typing import Any

from hotnas_torch.distances.edit_distance import EditDistance
from hotnas_torch.distances.hotnn import HOTNN
from hotnas_torch.distances.network_distance import NetworkDistance
from hotnas_torch.distances.otmann import OTMANN
from hotnas_torch.distances.tree_wasserstein import TreeWasserstein
from hotnas_torch.distances.weisfeiler_lehman import WeisfeilerLehman
from hotnas_torch.references import referenced

__all__ = ["NAMES", "get", "kind"]

_KINDS: dict[str, type[NetworkDistance]] = {
    found.name: found for found in (HOTNN, OTMANN, EditDistance, TreeWasserstein, WeisfeilerLehman)
}

NAMES = tuple(_KINDS)
"""Names by which `get` makes a distance."""


def kind(name: str) -> type[NetworkDistance]:
    """Return the class of a distance.

    Args:
        name: One of `NAMES`, or `"package.module:Class"` or `"folder/file.py:Class"` of one's own,
            which is imported.

    Raises:
        ValueError: There is no such distance; the message says what there is.
    """
    if name in _KINDS:
        return _KINDS[name]
    if ":" not in name:
        near = difflib.get_close_matches(name, NAMES, n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(
            f"name must be one of {', '.join(map(repr, NAMES))} or 'package.module:Class';"
            f" got {name!r}{meant}"
        )
    found = referenced(name)
    if not (isinstance(found, type) and issubclass(found, NetworkDistance)):
        raise ValueError(f"{name} must be a subclass of NetworkDistance; got {found!r}")
    return found


def get(name: str, **settings: Any) -> NetworkDistance:
    """Return a distance by its name.

    Args:
        name: As for `kind`.
        **settings: What its class takes, `space` above all.

    Raises:
        ValueError: There is no such distance, or a setting is out of range.
        TypeError: A setting that it does not have, or of the wrong kind.

    Example:
        >>> import hotnas_torch as ht
        >>> get("edit", space=ht.spaces.NASBench201(), edge_cost=0.5).edge_cost
        0.5
    """
    return kind(name)(**settings)
