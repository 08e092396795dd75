"""What a running search shows: a bar with the best value so far, or the caller's own."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from tqdm.auto import tqdm

from hotnas_torch.search.base import Strategy
from hotnas_torch.search.goal import Goal
from hotnas_torch.search.running.storage import Storage
from hotnas_torch.search.running.trial import Trial

__all__ = ["reporting"]


class _Leaders:
    """The best trial so far, or the front."""

    def __init__(self, goal: Goal, trials: Iterable[Trial]) -> None:
        self._goal = goal
        self._trials: list[Trial] = []
        self._keep([*trials])

    def add(self, trial: Trial) -> None:
        """Count a trial."""
        self._keep([*self._trials, trial])

    def _keep(self, trials: list[Trial]) -> None:
        rows = [self._goal.recorded(trial.value, trial.outcome.metrics) for trial in trials]
        values = torch.tensor(rows, dtype=torch.float64).reshape(-1, len(self._goal.names))
        self._trials = [trials[place] for place in self._goal.leaders(values)]

    def notes(self) -> list[str]:
        """Return what the bar says of them."""
        if not self._trials:
            return []
        if self._goal.several:
            return [f"{len(self._trials)} on the front"]
        return [f"best {self._trials[0].value:.6g}"]


@contextmanager
def reporting(
    progress: bool | Callable[[Trial], None],
    store: Storage,
    strategy: Strategy,
    num_evaluations: int | None,
) -> Iterator[Callable[[Trial], None]]:
    """Give what is called with each finished trial: a bar, or the caller's own."""
    if callable(progress):
        yield progress
        return
    trials = store.trials(strategy.space)
    leaders = _Leaders(strategy.goal, trials)
    num_failed = sum(trial.failed for trial in trials)
    with tqdm(
        desc="search",
        total=num_evaluations,
        initial=len(trials),
        unit="net",
        disable=not progress,
    ) as bar:

        def show() -> None:
            notes = leaders.notes()
            notes += [f"{num_failed} failed"] if num_failed else []
            bar.set_postfix_str(", ".join(notes))

        def report(trial: Trial) -> None:
            nonlocal num_failed
            if trial.failed:
                num_failed += 1
            leaders.add(trial)
            bar.update()
            show()

        show()
        yield report
