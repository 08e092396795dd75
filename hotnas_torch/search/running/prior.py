"""What is known before a search: told to its strategy, or found by earlier ones."""

import math
from collections.abc import Iterable
from dataclasses import replace
from os import PathLike

import torch

from hotnas_torch.errors import StorageError
from hotnas_torch.search.asking import refuse_difference
from hotnas_torch.search.base import Strategy
from hotnas_torch.search.goal import Goal
from hotnas_torch.search.goal_settings import VARIANCE
from hotnas_torch.search.running.storage import Storage
from hotnas_torch.search.running.trial import Outcome, SearchResult, Trial

__all__ = ["Prior", "observed_before", "read_prior"]

Prior = str | PathLike[str] | SearchResult
"""An earlier search: its file or its result."""


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


def read_prior(prior: Prior | Iterable[Prior], strategy: Strategy) -> tuple[Trial, ...]:
    """Return the finished trials of earlier searches, theirs before those that they were told.

    Raises:
        TypeError: One is neither a file nor a result.
        StorageError: A file cannot be read, or is of another space.
        ValueError: A result is of another space, or an evaluation lacks a number that counts.
    """
    single = isinstance(prior, str | PathLike | SearchResult)
    given: list[object] = [prior] if single else _listed(prior)
    found: list[Trial] = []
    for place, one in enumerate(given):
        name = f"prior[{place}]"
        if isinstance(one, SearchResult):
            described, trials = one.space.description(), (*one.trials, *one.earlier)
            try:
                refuse_difference(name, described, strategy.space.description(), "space")
            except ValueError as error:
                raise ValueError(f"{error} (search that space)") from error
        elif isinstance(one, str | PathLike):
            trials = _read(one, strategy)
        else:
            raise TypeError(f"{name} must be a file or a SearchResult; got {one!r}")
        for trial in trials:
            _check_numbers(name, trial, strategy.goal)
        found += trials
    return tuple(replace(trial, number=n, earlier=True) for n, trial in enumerate(found))


def _listed(prior: object) -> list[object]:
    if not isinstance(prior, Iterable):
        raise TypeError(f"prior must be files or results of earlier searches; got {prior!r}")
    return list(prior)


def _read(path: str | PathLike[str], strategy: Strategy) -> tuple[Trial, ...]:
    with Storage(path, read_only=True) as store:
        identity = store.identity
        if identity is None:
            raise StorageError(f"{path} holds no search yet")
        try:
            refuse_difference(
                "prior", identity.get("space", {}), strategy.space.description(), "space"
            )
        except ValueError as error:
            raise StorageError(f"{path}: {error} (search that space)") from error
        return (*store.trials(strategy.space), *store.earlier(strategy.space))


def _check_numbers(name: str, trial: Trial, goal: Goal) -> None:
    if trial.failed:
        return
    row = goal.recorded(trial.value, trial.outcome.metrics)
    for number, one in zip(goal.names, row, strict=True):
        if math.isnan(one):
            raise ValueError(
                f"{name} must have {number!r} of all its evaluations, which counts here; got none "
                f"of {trial.network.spec!r} (leave that search out)"
            )
