"""Running a search: ask, evaluate, record, tell, until the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from os import PathLike
from typing import Any

from tqdm import tqdm

from hotnas_torch.errors import StorageError
from hotnas_torch.search.base import Strategy, describe_space
from hotnas_torch.search.storage import OpenTrial, Storage
from hotnas_torch.search.trial import (
    ObjectiveFunction,
    SearchResult,
    Trial,
    best_trial,
)
from hotnas_torch.search.workers import Evaluator, make_evaluator

__all__ = ["CATCH", "run"]

CATCH: tuple[type[Exception], ...] = (RuntimeError, ArithmeticError, MemoryError)
"""Exceptions that mean a failed evaluation: what torch raises while it computes (out of memory
among them), and arithmetic. Others are mistakes in the program and end the search."""


def run(
    strategy: Strategy,
    objective: ObjectiveFunction,
    *,
    budget: int | timedelta,
    storage: str | PathLike[str] | None = None,
    workers: int = 1,
    batch_size: int | None = None,
    progress: bool | Callable[[Trial], None] = True,
    catch: tuple[type[Exception], ...] = CATCH,
) -> SearchResult:
    """Searches until the budget is spent.

    The strategy is asked for a batch, the batch is evaluated, and its values are told in the order
    of asking. So the outcome depends on the strategy with its seed, the objective and
    ``batch_size``, but neither on ``workers`` nor on the order in which evaluations finish.

    With ``storage``, a search that was interrupted in whatever way continues when it is run again
    with the same arguments, and ends as it would have uninterrupted. What was asked for and not
    finished is evaluated again. The budget counts what is already there and may be raised.

    Args:
        strategy: What to ask.
        objective: Called with a :class:`~hotnas_torch.Network`; returns the value to minimise, or
            an :class:`~hotnas_torch.objectives.Evaluation`. NaN is a failed evaluation.
        budget: An int: evaluations in all, >= 1. A ``timedelta``: time spent searching in all; the
            batch that is running when it is over is finished.
        storage: SQLite file to record everything in; None keeps it in memory.
        workers: Processes that evaluate; 1 evaluates in this process.
        batch_size: Networks per batch, >= 1; None takes the one that ``storage`` was started with,
            and ``workers`` for a new search.
        progress: True shows a bar on stderr with the best value so far; a callable receives each
            trial when it finishes.
        catch: Exceptions of the objective that count as a failed evaluation.

    Returns:
        All trials, the best one, and why the search ended.

    Raises:
        TypeError: An argument of the wrong kind, or an objective that cannot be sent to workers.
        ValueError: An argument out of range.
        StorageError: The storage holds another search, is no storage, or cannot be written; raised
            before anything is evaluated.

    Example:
        >>> import torch
        >>> import hotnas_torch as ht
        >>> from hotnas_torch.search import RandomSearch
        >>> space = ht.spaces.Pooling()
        >>> strategy = RandomSearch(space, generator=torch.Generator().manual_seed(0))
        >>> result = run(strategy, lambda net: sum(net.downsampling), budget=36, progress=False)
        >>> result.best.network.spec
        '[8,1,1]'
    """
    if not isinstance(strategy, Strategy):
        raise TypeError(f"strategy must be a Strategy, got {strategy!r}.")
    if not callable(objective):
        raise TypeError(f"objective must be callable, got {objective!r}.")
    num_evaluations, seconds = _check_budget(budget)
    _check_count("workers", workers)
    if batch_size is not None:
        _check_count("batch_size", batch_size)
    with ExitStack() as stack:
        store = stack.enter_context(Storage(storage))
        if batch_size is None:
            batch_size = _held_batch_size(store) or workers
        store.begin(_identity(strategy, objective, batch_size))
        batch = _resume(strategy, store)
        evaluator = stack.enter_context(make_evaluator(objective, workers, catch))
        report = stack.enter_context(_reporting(progress, store, strategy, num_evaluations))
        search = _Search(strategy, store, evaluator, report)
        while True:
            search.finish(batch)
            left = batch_size
            if num_evaluations is not None:
                left = min(left, num_evaluations - store.num_trials)
            if left <= 0:
                reason = "evaluations"
            elif seconds is not None and search.elapsed >= seconds:
                reason = "time"
            elif not (networks := strategy.ask(left)):
                reason = "exhausted"
            else:
                batch = store.add_batch(networks, strategy.state_dict())
                continue
            return SearchResult(strategy.space, store.trials(strategy.space), reason)


class _Search:
    """The moving parts of one run."""

    def __init__(
        self,
        strategy: Strategy,
        store: Storage,
        evaluator: Evaluator,
        report: Callable[[Trial], None],
    ) -> None:
        self._strategy = strategy
        self._store = store
        self._evaluator = evaluator
        self._report = report
        self._before = store.elapsed
        self._started = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds of searching, those before an interruption included."""
        return self._before + time.perf_counter() - self._started

    def finish(self, batch: list[OpenTrial]) -> None:
        """Evaluates what is not finished, records it, and tells the batch in order of asking."""
        outcomes = {trial.number: trial.outcome for trial in batch if trial.outcome is not None}
        todo = [trial for trial in batch if trial.outcome is None]
        for place, outcome in self._evaluator([trial.network for trial in todo]):
            trial = todo[place]
            finished = Trial(trial.number, trial.network, outcome, self.elapsed)
            self._store.add_outcome(trial.number, outcome, finished.elapsed)
            outcomes[trial.number] = outcome
            self._report(finished)
        self._strategy.tell(
            [trial.network for trial in batch], [outcomes[trial.number].value for trial in batch]
        )


def _identity(
    strategy: Strategy, objective: ObjectiveFunction, batch_size: int
) -> dict[str, dict[str, Any]]:
    describe = getattr(objective, "describe", None)
    if callable(describe):
        described = dict(describe())
    else:
        described = {"kind": "function", "name": getattr(objective, "__qualname__", "")}
    return {
        "space": describe_space(strategy.space),
        "strategy": strategy.config(),
        "objective": described,
        "run": {"batch_size": batch_size},
    }


def _held_batch_size(store: Storage) -> int | None:
    held = store.identity
    return None if held is None else int(held["run"]["batch_size"])


def _resume(strategy: Strategy, store: Storage) -> list[OpenTrial]:
    """Brings the strategy to where the storage is, and returns the batch that it was asked last."""
    state = store.state
    if state is None:
        return []
    batch = store.last_batch(strategy.space)
    known = {str(entry[0]) for entry in state.get("observations", [])}
    known |= {trial.network.spec for trial in batch}
    for observation in strategy.observations:
        if observation.network.spec not in known:
            raise StorageError(
                f"{store.path} does not know {observation.network.spec!r}, which the strategy was "
                "told of (continue with a fresh strategy, or choose another file)."
            )
    try:
        strategy.load_state_dict(state)
    except ValueError as error:
        raise StorageError(f"{store.path}: {error}") from error
    return batch


@contextmanager
def _reporting(
    progress: bool | Callable[[Trial], None],
    store: Storage,
    strategy: Strategy,
    num_evaluations: int | None,
) -> Iterator[Callable[[Trial], None]]:
    if callable(progress):
        yield progress
        return
    trials = store.trials(strategy.space)
    best = best_trial(trials)
    num_failed = sum(trial.failed for trial in trials)
    with tqdm(
        desc="search",
        total=num_evaluations,
        initial=len(trials),
        unit="net",
        disable=not progress,
    ) as bar:

        def show() -> None:
            notes = [] if best is None else [f"best {best.value:.6g}"]
            notes += [f"{num_failed} failed"] if num_failed else []
            bar.set_postfix_str(", ".join(notes))

        def report(trial: Trial) -> None:
            nonlocal best, num_failed
            if trial.failed:
                num_failed += 1
            elif best is None or trial.value < best.value:
                best = trial
            bar.update()
            show()

        show()
        yield report


def _check_budget(budget: object) -> tuple[int | None, float | None]:
    if isinstance(budget, timedelta):
        if budget <= timedelta(0):
            raise ValueError(f"budget must be a positive time, got {budget}.")
        return None, budget.total_seconds()
    if isinstance(budget, bool) or not isinstance(budget, int):
        raise TypeError(
            "budget must be an int (evaluations) or a datetime.timedelta (time), got "
            f"{budget!r} of type {type(budget).__name__}."
        )
    if budget < 1:
        raise ValueError(f"budget must be at least 1 evaluation, got {budget}.")
    return budget, None


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r} of type {type(value).__name__}.")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}.")
