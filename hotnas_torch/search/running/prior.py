"""What is known before a search: told to its strategy, or found by earlier ones."""

import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Union

import torch

from hotnas_torch.arguments import shown
from hotnas_torch.errors import HotnasError, StorageError, TableError
from hotnas_torch.search.asking import refuse_difference
from hotnas_torch.search.base import Strategy
from hotnas_torch.search.goal import VALUE, Goal
from hotnas_torch.search.goal_settings import VARIANCE
from hotnas_torch.search.running.checks import describe_objective
from hotnas_torch.search.running.storage import Storage
from hotnas_torch.search.running.trial import Outcome, SearchResult, Trial
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.frames import is_frame

if TYPE_CHECKING:
    import pandas

    from hotnas_torch.objectives import Table

__all__ = ["Prior", "observed_before", "read_prior"]

Prior = Union[str, PathLike[str], SearchResult, "Table", "pandas.DataFrame"]
"""An earlier search, its file or its result; or a table of values: a CSV file or a DataFrame of the
numbers that count here, by name, or an objective that looks values up."""

_SUBSET = re.compile(r"Subset\((.*), \d+ networks\)", re.DOTALL)
_TABLES = (".csv", ".csv.gz")


def observed_before(strategy: Strategy) -> tuple[Trial, ...]:
    """Return what a strategy has observed, as trials."""
    goal = strategy.goal
    names = [*([] if goal.plain else goal.names), *(f"{name}{VARIANCE}" for name in goal.names)]
    numbers = torch.cat([strategy.values[:, goal.plain :], strategy.variances], dim=1).tolist()
    earlier = []
    for place, (found, row) in enumerate(zip(strategy.observations, numbers, strict=True)):
        metrics = {name: one for name, one in zip(names, row, strict=True) if not math.isnan(one)}
        earlier.append(
            Trial(place, found.network, Outcome(found.value, metrics), 0.0, earlier=True)
        )
    return tuple(earlier)


def read_prior(
    prior: Prior | Iterable[Prior],
    space: SearchSpace,
    goal: Goal,
    objective: Mapping[str, Any],
) -> tuple[Trial, ...]:
    """Return the finished trials of earlier searches, theirs before those that they were told.

    Args:
        prior: What `run` takes.
        space: What is searched now; an earlier search may have been of a subset of it, or of a
            space that it is a subset of.
        goal: What is sought now, in whose numbers the trials are returned.
        objective: Description of what is evaluated now. A warning names the first earlier search
            that evaluated something else.

    Raises:
        TypeError: One is of none of these kinds.
        TableError: A table cannot be read.
        ValueError: One is of another space, an objective goes the other way, or an evaluation lacks
            a number that counts; for a file, a StorageError, also where it cannot be read.
    """
    found: list[Trial] = []
    other = ""
    for place, one in enumerate(_listed(prior)):
        is_file = isinstance(one, str | PathLike)
        name = f"prior {one}" if is_file else f"prior[{place}]"
        try:
            known = _read(name, one, space, goal)
            _check_directions(name, known.goal, goal)
            found += [_translated(name, trial, known.goal, goal) for trial in known.trials]
        except ValueError as error:
            if is_file and not isinstance(error, HotnasError):
                raise StorageError(str(error)) from error
            raise
        other = other or _difference(name, known.objective, objective)
    if other:
        warnings.warn(
            f"{other} (its values are taken for values of this one: leave it out if they are not)",
            UserWarning,
            stacklevel=3,
        )
    return tuple(replace(trial, number=n, earlier=True) for n, trial in enumerate(found))


@dataclass(frozen=True, slots=True)
class _Known:
    """Trials, and what is known of the search that found them."""

    trials: tuple[Trial, ...]
    goal: Goal
    objective: Mapping[str, Any] = field(default_factory=dict)


def _listed(prior: object) -> list[object]:
    if isinstance(prior, list | tuple):
        return list(prior)
    if isinstance(prior, str | PathLike | SearchResult) or is_frame(prior) or _is_table(prior):
        return [prior]
    if not isinstance(prior, Iterable) or isinstance(prior, Mapping | bytes):
        raise TypeError(
            f"prior must be files or results of earlier searches, or tables; got {shown(prior)}"
        )
    return list(prior)


def _is_table(one: object) -> bool:
    from hotnas_torch.objectives import Table

    return isinstance(one, Table)


def _read(name: str, one: Any, space: SearchSpace, goal: Goal) -> _Known:
    if isinstance(one, SearchResult):
        known = _Known((*one.trials, *one.earlier), one.goal, one.objective)
        return _of_space(name, known, one.space, space)
    if is_frame(one) or (
        isinstance(one, str | PathLike) and os.fspath(one).lower().endswith(_TABLES)
    ):
        return _of_columns(name, one, space, goal)
    if isinstance(one, str | PathLike):
        return _stored(name, one, space)
    if _is_table(one):
        known = _Known(_rows(one), Goal(), describe_objective(one))
        return _of_space(name, known, one.space, space)
    raise TypeError(
        f"{name} must be a file, a SearchResult, a Table or a DataFrame; got {shown(one)} "
        "(networks and their values are told to the strategy: strategy.tell(networks, values))"
    )


def _stored(name: str, path: str | PathLike[str], space: SearchSpace) -> _Known:
    with Storage(path, read_only=True) as store:
        identity = store.identity
        if identity is None:
            raise StorageError(f"{name} holds no search yet")
        _check_space(name, identity.get("space", {}), space)
        return _Known(
            (*store.trials(space), *store.earlier(space)),
            Goal.read(identity.get("strategy", {}).get("goal")),
            identity.get("objective", {}),
        )


def _of_columns(name: str, given: Any, space: SearchSpace, goal: Goal) -> _Known:
    """Read the numbers that count here from columns of their names, as they are."""
    from hotnas_torch.objectives import Table

    wanted = goal.measured[0]
    try:
        table = Table(given, wanted, space=space, goal="min")
    except TableError as error:
        raise TableError(
            f"{name} must have the strings of networks in a column 'arch' and the numbers of this "
            f"search in columns of their names, {', '.join(map(repr, goal.measured))} (objectives= "
            f"names them): {error}"
        ) from error
    return _Known(_rows(table), goal)


def _rows(table: "Table") -> tuple[Trial, ...]:
    found = []
    for place, net in enumerate(table.networks()):
        entry = table(net)
        found.append(Trial(place, net, Outcome(entry.value, entry.metrics), 0.0, earlier=True))
    return tuple(found)


# --- whether it is about the same -----------------------------------------------------------------


def _check_space(name: str, theirs: Mapping[str, str], ours: SearchSpace) -> None:
    """Refuse another space; parts of one are the same, as networks are looked at one by one."""
    try:
        refuse_difference(name, _whole(theirs), _whole(ours.description()), "space")
    except ValueError as error:
        raise ValueError(f"{error} (search that space)") from error


def _of_space(name: str, known: _Known, theirs: SearchSpace, ours: SearchSpace) -> _Known:
    _check_space(name, theirs.description(), ours)
    for trial in known.trials:
        if not ours.contains(trial.network):
            raise ValueError(
                f"{name} must be of networks of {ours!r}; got {trial.network.spec!r} (search "
                f"{theirs!r}, or leave that search out)"
            )
    return known


def _whole(described: Mapping[str, str]) -> dict[str, str]:
    """Return the description of a space, of a subset that of the space which it is a part of."""
    found = dict(described)
    while subset := _SUBSET.fullmatch(found.get("space", "")):
        found["space"] = subset[1]
        found.pop("members", None)
    if found.get("space", "").startswith("Joint("):
        networks = json.loads(found["networks"])
        whole = _whole(networks)
        found["space"] = found["space"].replace(networks["space"], whole["space"], 1)
        found["networks"] = json.dumps(whole, sort_keys=True)
    return found


def _check_directions(name: str, theirs: Goal, ours: Goal) -> None:
    known = dict(zip(theirs.objectives, theirs.directions, strict=True))
    for objective, direction in zip(ours.objectives, ours.directions, strict=True):
        if known.get(objective, direction) != direction:
            raise ValueError(
                f"{name} must {direction} {objective!r}, as this search does; got one that "
                f"is to {known[objective]} it (search in its direction, or leave it out)"
            )


def _difference(name: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Say in what another objective differs; empty where it does not, or nothing is known of it."""
    if theirs:
        try:
            refuse_difference(name, dict(theirs), dict(ours), "objective")
        except ValueError as error:
            return str(error)
    return ""


def _translated(name: str, trial: Trial, theirs: Goal, ours: Goal) -> Trial:
    """Return a trial in the numbers of another goal."""
    if trial.failed:
        return trial
    numbers = dict(trial.outcome.metrics)
    if theirs.plain:
        numbers[VALUE] = trial.value
    for one in ours.measured:
        if not math.isfinite(numbers.get(one, math.nan)):
            raise ValueError(
                f"{name} must have {one!r} of all its evaluations, which counts here; got "
                f"{', '.join(map(repr, numbers))} of {trial.network.spec!r} (name the objectives "
                "alike, or leave that search out)"
            )
    numbers = ours.completed(name, trial.network, numbers)
    value = numbers[ours.objectives[0]]
    if ours.plain or VALUE not in ours.names:
        numbers.pop(VALUE, None)  # it is the value, or that of nothing that counts
    return replace(trial, outcome=replace(trial.outcome, value=value, metrics=numbers))
