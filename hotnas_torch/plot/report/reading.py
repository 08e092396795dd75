"""A search, read from its file while it may still be running."""

import json
from collections.abc import Mapping
from os import PathLike
from typing import Any

from hotnas_torch import spaces
from hotnas_torch.errors import StorageError
from hotnas_torch.search.fidelity import Fidelity
from hotnas_torch.search.goal import Goal
from hotnas_torch.search.running.storage import Storage
from hotnas_torch.search.running.trial import SearchResult
from hotnas_torch.spaces import SearchSpace

__all__ = ["NothingYetError", "read_search"]


class NothingYetError(StorageError):
    """The file is in order, but no evaluation has finished yet."""


def read_search(
    storage: str | PathLike[str], *, space: SearchSpace | None = None
) -> tuple[dict[str, Any], SearchResult]:
    """Read the finished trials of a storage file.

    Args:
        storage: The file.
        space: As for `write_report`.

    Returns:
        The description of the search, and its trials.

    Raises:
        StorageError: As `write_report`.
    """
    with Storage(storage, read_only=True) as store:
        identity = store.identity
        if identity is None:
            raise NothingYetError(f"{storage} holds no search yet")
        if space is None:
            space = _rebuilt(
                identity["space"], storage, identity.get("strategy", {}).get("fidelity")
            )
        trials, earlier = store.trials(space), store.earlier(space)
    if not trials:
        raise NothingYetError(f"{storage} holds no finished trial yet (let the search go on first)")
    goal = Goal.read(identity["strategy"].get("goal"))
    objective = identity.get("objective", {})
    return identity, SearchResult(space, trials, "", goal, earlier, objective)


def _rebuilt(
    described: Mapping[str, str],
    storage: str | PathLike[str],
    fidelity: Mapping[str, Any] | None = None,
) -> SearchSpace:
    if fidelity is not None:
        networks = _rebuilt(json.loads(described["networks"]), storage)
        pairs = Fidelity(fidelity["levels"], fidelity["name"]).joined(networks)
        # Nothing else than levels beside the networks.
        if described["space"].endswith(repr(pairs).removeprefix(f"Joint({networks!r}")):
            return pairs
    try:
        space = spaces.get(described["name"])
    except ValueError as error:
        raise StorageError(f"{storage}: {error} (pass space=)") from error
    # A subset names the space that it is a part of.
    if repr(space) not in described["space"]:
        raise StorageError(
            f"{storage} is a search of {described['space']}, whose options are not the default "
            "ones (pass space=)"
        )
    return space
