# Over 400 lines: one loop with its three schedules, and its one long signature.
"""Running a search: ask, evaluate, record, tell, until the budget is spent."""

import inspect
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from os import PathLike
from typing import Any, NamedTuple

import torch

from hotnas_torch.arch import Network
from hotnas_torch.arguments import boolean, integer, number
from hotnas_torch.errors import StopSearch, StorageError
from hotnas_torch.search.base import Strategy
from hotnas_torch.search.fidelity import FullTrainings
from hotnas_torch.search.goal_settings import Direction
from hotnas_torch.search.running.checks import (
    CATCH,
    check_catch,
    check_executor,
    check_shared,
    check_timeout,
    describe_objective,
)
from hotnas_torch.search.running.prior import Prior, observed_before, read_prior
from hotnas_torch.search.running.progress import reporting
from hotnas_torch.search.running.sharing import Membership
from hotnas_torch.search.running.storage import OpenTrial, Storage
from hotnas_torch.search.running.trial import (
    Named,
    ObjectiveFunction,
    Outcome,
    SearchResult,
    Trial,
)
from hotnas_torch.search.running.workers import (
    Evaluator,
    Executor,
    TimeLimits,
    make_evaluator,
)

__all__ = ["run"]


def run(
    strategy: Strategy,
    objective: ObjectiveFunction,
    *,
    budget: int | timedelta | FullTrainings,
    storage: str | PathLike[str] | None = None,
    workers: int = 1,
    batch_size: int | None = None,
    asynchronous: bool = False,
    executor: Executor | None = None,
    progress: bool | Callable[[Trial], None] = True,
    catch: tuple[type[Exception], ...] = CATCH,
    take_over: bool = False,
    accept_objective: bool = False,
    timeout: float | None = None,
    direction: Direction | Sequence[Direction] | None = None,
    prior: Prior | Sequence[Prior] = (),
    shared: bool | timedelta = False,
) -> SearchResult:
    """Search until the budget is spent.

    The strategy is asked for a batch, the batch is evaluated, and it observes its values in the
    order of asking. So the outcome depends on the strategy with its seed, the objective and
    `batch_size`, but neither on `workers` nor on the order in which evaluations finish.

    With `asynchronous`, nobody waits for a batch: whenever an evaluation finishes, its value is
    observed and the strategy is asked for the next network, while the others are pending. No worker
    is idle then, and the outcome depends on the order in which evaluations finish.

    What the strategy was told before, and what earlier searches found (`prior`), is part of the
    result and of the file, and costs nothing of the budget. Networks that were enqueued
    (`Strategy.enqueue`) are evaluated first.

    With `shared`, any number of processes work on one file at the same time, each calling `run`
    with equal arguments: nobody evaluates what another one has begun, each learns from the results
    of all, and what a process leaves behind that dies is evaluated by another.

    With `storage`, a search that was interrupted in whatever way continues when it is run again
    with the same arguments, and (in batches) ends as it would have uninterrupted. What was asked
    for and not finished is evaluated again. The budget counts what is already there and may be
    raised.

    Args:
        strategy: What to ask.
        objective: Called with a `Network`; returns its value, or
            an `Evaluation`. For a strategy with several `objectives`, or with `constraints`, it
            returns a mapping of their names to numbers, a sequence, or an `Evaluation` with them
            among its metrics. NaN and infinite values are failed evaluations.
        budget: An int: evaluations in all, >= 1. A `timedelta`: time spent searching in all; the
            batch that is running when it is over is finished. What then takes more than twice as
            long as the longest evaluation before and ten seconds, or as long again as the whole
            budget, hangs: it is stopped and counts as failed. `FullTrainings`: what evaluations may
            cost in all (`Strategy.cost`), which those of a search with several fidelities do by
            their level; the search ends before the first that would exceed it.
        storage: SQLite file to record everything in; None keeps it in memory.
        workers: Networks that are evaluated at the same time, each in a process of its own; 1
            evaluates in this process.
        batch_size: Networks per batch, >= 1; None takes the one that `storage` was started with,
            and `workers` for a new search.
        asynchronous: Ask for one network at a time, whenever a worker is free.
        executor: Where to evaluate, for example a
            `RayExecutor`; None is this machine.
        progress: True shows a bar on stderr (in a notebook, its own) with the best value so far; a
            callable receives each trial when it finishes. If it, or the objective, raises
            `hotnas_torch.errors.StopSearch`, the search ends with its result; what was running then
            is evaluated when it is continued.
        take_over: Go on with a search that another process is running: that one stops with an error
            when it next records something. Without it, the second process is refused; what a dead
            one leaves behind stops nobody.
        accept_objective: Go on although the objective is not described as when `storage` was
            begun, for example after its code was tidied or moved: its values are taken to be the
            same. A function is described by its name, its code and what it works with; see
            `Function`.
        catch: Exceptions of the objective that count as a failed evaluation. Others end the search;
            what is recorded stays, and the evaluation is the first when the search is continued.
        timeout: Seconds, > 0, after which an evaluation is stopped and counts as failed; None is no
            limit. Worker processes are killed with all that they have started; with one worker the
            evaluation is interrupted as by Ctrl-C, which works in the main thread and in what
            listens to signals. An `executor` has time limits of its own.
        direction: `"maximize"` where large values are good, `"minimize"` where small ones are; None
            is what the strategy was made for, by default minimising. Of several objectives one for
            each.
        prior: Files or results of earlier searches over the same space, or a subset of it, whose
            finished trials the strategy is told before it is asked. Or tables of values: a CSV file
            (`.csv`, `.csv.gz`) or a DataFrame with strings of networks in the column `arch` and, in
            the objective's units, the numbers that count by their names (`value` where they have
            none); rows without one are left out. Or an `objectives.Table`, whose value is to be
            minimised. Where a network is known twice, the first one counts. What goes in another
            direction or lacks a number that counts is refused; a `UserWarning` names a search of
            another objective.
        shared: Work on `storage` together with other processes, on this machine or any that shares
            the file and its locks. Asks as `asynchronous` does. A process whose signs of life stop
            for a minute counts as dead; a `timedelta` is another time. Returns when the budget is
            spent and nothing is running any more.

    Returns:
        All trials, the best one, and why the search ended.

    Raises:
        TypeError: An argument of the wrong kind, or an objective that cannot be sent to workers.
        ValueError: An argument out of range, or `batch_size` for an asynchronous search.
        TableError: A table in `prior` cannot be read or lacks a column.
        StorageError: The storage holds another search, is no storage, is written by another
            process, is damaged, or cannot be written; raised before anything is evaluated, except
            where it can no longer be written later.

    Example:
        >>> import torch
        >>> import hotnas_torch as ht
        >>> from hotnas_torch.search.direct.random_search import RandomSearch
        >>> space = ht.spaces.Pooling()
        >>> strategy = RandomSearch(space, generator=torch.Generator().manual_seed(0))
        >>> result = run(strategy, lambda net: sum(net.downsampling), budget=36, progress=False)
        >>> result.best.network.spec
        '[8,1,1]'
    """
    if not isinstance(strategy, Strategy):
        raise TypeError(f"strategy must be a Strategy; got {strategy!r}")
    if not callable(objective):
        raise TypeError(f"objective must be callable; got {objective!r}")
    limits = _check_budget(budget)
    if limits.cost is not None and shared:
        raise ValueError("budget must be an int or a timedelta for a shared search; got a cost")
    workers = integer("workers", workers, least=1)
    asynchronous = boolean("asynchronous", asynchronous)
    if batch_size is not None:
        batch_size = integer("batch_size", batch_size, least=1)
        if asynchronous:
            raise ValueError("batch_size is for searches in batches; leave it out (asynchronous)")
    take_over = boolean("take_over", take_over)
    accept_objective = boolean("accept_objective", accept_objective)
    if not callable(progress):
        progress = boolean("progress", progress)
    catch = check_catch(catch)
    check_executor(executor)
    timeout = check_timeout(timeout, workers, executor)
    patience = check_shared(shared, storage, batch_size)
    goal = strategy.goal if direction is None else strategy.goal.toward(direction)
    described = describe_objective(objective)
    found_before = read_prior(prior, strategy.space, goal, described)
    # Also where nobody said it: what is observed from here on must not be turned round later.
    strategy.aim(goal.directions)
    goal = strategy.goal
    own = observed_before(strategy)
    if not goal.plain:
        objective = Named(objective, goal.measured)
    with ExitStack() as stack:
        # Models and networks are trained here, whatever the caller is in the middle of.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        store = stack.enter_context(Storage(storage))
        schedule: dict[str, Any] = {"asynchronous": True}
        if patience is not None:
            batch_size, schedule = None, {"shared": True}
        elif not asynchronous:
            batch_size = batch_size or _held_batch_size(store) or workers
            schedule = {"batch_size": batch_size}
        store.begin(
            _identity(strategy, described, schedule),
            take_over=take_over,
            accept=("objective",) if accept_objective else (),
            shared=patience is not None,
        )
        member: Membership | None = None
        if patience is not None:
            opened = _join(strategy, store, own)
            member = stack.enter_context(Membership(store, strategy.space, patience))
            strategy.diverge(member.place)
        else:
            opened = _resume(strategy, store, own)
        _tell_before(strategy, store, found_before)
        began = time.perf_counter() - store.elapsed
        times = _times(limits, timeout, began)
        if executor is None:
            evaluator = stack.enter_context(make_evaluator(objective, workers, catch, times))
        else:
            # Not all can stop evaluations.
            can_stop = "limits" in inspect.signature(executor.evaluator).parameters
            options = {"limits": times} if can_stop else {}
            evaluator = stack.enter_context(
                executor.evaluator(objective, workers, catch, **options)
            )
        report = stack.enter_context(reporting(progress, store, strategy, limits.evaluations))
        search = _Search(strategy, store, evaluator, report, limits, began, member)
        try:
            if member is not None:
                reason = search.together(member)
            elif batch_size is None:
                reason = search.asynchronously(opened)
            else:
                reason = search.in_batches(opened, batch_size)
        except StopSearch:
            reason = "stopped"
        space = strategy.space
        trials, earlier = store.trials(space), store.earlier(space)
        return SearchResult(space, trials, reason, goal, earlier, described)


# Between two looks at what other processes are doing.
_WAIT_SECONDS = 0.2
_ROUNDING = 1e-9


class _Limits(NamedTuple):
    """What ends a search; None is no limit."""

    evaluations: int | None = None
    seconds: float | None = None
    cost: float | None = None


def _times(limits: _Limits, timeout: float | None, began: float) -> TimeLimits:
    if limits.seconds is None:
        return TimeLimits(timeout)
    return TimeLimits(timeout, began + limits.seconds, grace=limits.seconds)


class _Search:
    """The moving parts of one run."""

    def __init__(
        self,
        strategy: Strategy,
        store: Storage,
        evaluator: Evaluator,
        report: Callable[[Trial], None],
        limits: _Limits,
        began: float,
        member: Membership | None = None,
    ) -> None:
        self._strategy = strategy
        self._store = store
        self._evaluator = evaluator
        self._report = report
        self._limits = limits
        self._member = member
        self._began = began  # by the clock of the limits, had nothing interrupted the search
        self._reason = ""

    @property
    def elapsed(self) -> float:
        """Seconds of searching, those before an interruption included."""
        return time.perf_counter() - self._began

    def in_batches(self, opened: list[OpenTrial], size: int) -> str:
        """Finish what is open, then batch after batch; returns why it ended."""
        batch = opened
        while True:
            todo = [trial for trial in batch if trial.outcome is None]
            outcomes = {trial.number: trial.outcome for trial in batch if trial.outcome is not None}
            for trial, outcome in self._evaluated(todo):
                outcomes[trial.number] = outcome
            if len(outcomes) < len(batch):
                return "time"  # over for good before the rest of the batch had begun
            # In the order of asking, so that the order of finishing does not matter.
            self._tell(batch, [outcomes[trial.number] for trial in batch])
            batch = self._ask(size)
            if not batch:
                return self._reason

    def asynchronously(self, opened: list[OpenTrial]) -> str:
        """Ask whenever a worker is free, for what is open first; returns why it ended."""
        # Those that an earlier run finished after it last asked, in the order of finishing.
        for trial in sorted(opened, key=lambda trial: trial.elapsed):
            if trial.outcome is not None:
                self._tell([trial], [trial.outcome])

        def asked() -> Iterator[OpenTrial]:
            yield from (trial for trial in opened if trial.outcome is None)
            while batch := self._ask(1):
                yield from batch

        for trial, outcome in self._evaluated(asked()):
            self._tell([trial], [outcome])
        return self._reason or "time"

    def together(self, member: Membership) -> str:
        """Ask whenever a worker is free, beside other processes; returns why it ended."""
        while True:
            for _ in self._evaluated(self._of_all(member)):
                pass  # recorded; the strategy hears of it with the news of all
            self._catch_up(member)
            if self._reason in ("", "time"):
                return "time"
            if not member.waiting:
                return self._reason
            time.sleep(_WAIT_SECONDS)

    def _of_all(self, member: Membership) -> Iterator[OpenTrial]:
        """Take what others have left behind, then what the strategy proposes by all the news."""
        while not self._out_of_time():
            self._catch_up(member)
            if (orphan := member.orphan()) is not None:
                yield orphan
                continue
            most = self._limits.evaluations
            if most is not None and self._store.num_trials >= most:
                self._reason = "evaluations"
                return
            networks = self._strategy.ask(1)
            if not networks:
                self._reason = "exhausted"
                return
            if (trial := member.add(networks[0], most)) is not None:
                yield trial
            else:
                # Pending again at once, if it is another process that evaluates it.
                self._strategy.withdraw(networks)

    def _catch_up(self, member: Membership) -> None:
        begun, finished = member.news()
        self._strategy.expect(begun)
        observed = {found.network.spec for found in self._strategy.observations}
        for trial in finished:
            if trial.network.spec not in observed:
                self._tell([OpenTrial(trial.number, trial.network, None)], [trial.outcome])

    def _out_of_time(self) -> bool:
        over = self._limits.seconds is not None and self.elapsed >= self._limits.seconds
        if over:
            self._reason = "time"
        return over

    def _tell(self, trials: Sequence[OpenTrial], outcomes: Sequence[Outcome]) -> None:
        _tell(self._strategy, [trial.network for trial in trials], outcomes)

    def _ask(self, size: int) -> list[OpenTrial]:
        """Ask for up to `size` networks and records them; none when the search is over."""
        if self._limits.evaluations is not None:
            size = min(size, self._limits.evaluations - self._store.num_trials)
        if size <= 0:
            self._reason = "evaluations"
        elif self._out_of_time():
            pass
        elif networks := self._strategy.ask(size):
            if affordable := self._affordable(networks):
                return self._store.add_batch(affordable, self._strategy.state_dict())
            self._reason = "cost"
        else:
            self._reason = "exhausted"
        return []

    def _affordable(self, networks: list[Network]) -> list[Network]:
        """Return the first networks that the budget pays for; others are taken back."""
        if self._limits.cost is None:
            return networks
        spent = itertools.accumulate(
            map(self._strategy.cost, (*self._store.networks(self._strategy.space), *networks))
        )
        left = list(spent)[-len(networks) :]
        # Sums of shares are rounded.
        num = sum(cost <= self._limits.cost * (1.0 + _ROUNDING) for cost in left)
        self._strategy.withdraw(networks[num:])
        return networks[:num]

    def _evaluated(self, trials: Iterable[OpenTrial]) -> Iterator[tuple[OpenTrial, Outcome]]:
        """Evaluate and records; yields in the order of finishing."""
        begun: list[OpenTrial] = []

        def networks() -> Iterator[Network]:
            for trial in trials:
                begun.append(trial)
                yield trial.network

        for place, outcome in self._evaluator(networks()):
            trial = begun[place]
            outcome = self._completed(trial.network, outcome)
            finished = Trial(trial.number, trial.network, outcome, self.elapsed)
            if self._member is None:
                self._store.add_outcome(trial.number, outcome, finished.elapsed)
            elif not self._member.finish(trial.number, outcome, finished.elapsed):
                continue  # this process was taken for dead, and another one evaluates it
            self._report(finished)
            yield trial, outcome

    def _completed(self, net: Network, outcome: Outcome) -> Outcome:
        """Return an outcome with what is known of the network, its value that of the goal."""
        goal = self._strategy.goal
        if goal.plain or math.isnan(outcome.value):
            return outcome
        metrics = goal.completed("outcome", net, outcome.metrics)
        value = metrics[goal.objectives[0]]
        return Outcome(value, metrics, outcome.cost, outcome.error)


def _identity(
    strategy: Strategy, objective: dict[str, Any], schedule: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    return {
        "space": strategy.space.description(),
        "strategy": strategy.config(),
        "objective": objective,
        "run": schedule,
    }


def _held_batch_size(store: Storage) -> int | None:
    held = store.identity
    return None if held is None else held.get("run", {}).get("batch_size")


def _resume(strategy: Strategy, store: Storage, own: Sequence[Trial]) -> list[OpenTrial]:
    """Bring the strategy to where it was last asked, and return what was pending then."""
    state = store.state
    if state is None:
        store.set_earlier(own)
        return []
    opened = store.open_trials(strategy.space)
    known = {str(entry[0]) for entry in state.get("observations", [])}
    known |= {trial.network.spec for trial in opened}
    _refuse_unknown(store, own, known)
    enqueued = strategy.enqueued
    try:
        strategy.load_state_dict(state)
    except ValueError as error:
        raise StorageError(f"{store.path}: {error}") from error
    strategy.enqueue(enqueued)
    return opened


def _join(strategy: Strategy, store: Storage, own: Sequence[Trial]) -> list[OpenTrial]:
    """Tell the strategy what the file knows that others have told; the rest are news."""
    if not store.num_trials and not store.earlier(strategy.space):
        store.set_earlier(own)
        return []
    earlier = store.earlier(strategy.space)
    known = {trial.network.spec for trial in earlier}
    known |= {trial.network.spec for trial in store.trials(strategy.space)}
    _refuse_unknown(store, own, known)
    _tell_before(strategy, None, earlier)
    return []


def _refuse_unknown(store: Storage, own: Sequence[Trial], known: set[str]) -> None:
    for trial in own:
        if trial.network.spec not in known:
            raise StorageError(
                f"{store.path} does not know {trial.network.spec!r}, which the strategy "
                "has observed (continue with a fresh strategy, or choose another file)"
            )


def _tell(strategy: Strategy, nets: Sequence[Network], outcomes: Sequence[Outcome]) -> None:
    """Tell a strategy what was recorded, with the noise that evaluations know of."""
    goal = strategy.goal
    rows = [goal.recorded(outcome.value, outcome.metrics) for outcome in outcomes]
    noise = [goal.recorded_variances(outcome.metrics) for outcome in outcomes]
    values: list[Any] = [row[0] for row in rows] if goal.plain else list(rows)
    variances: list[Any] | None = [row[0] for row in noise] if goal.plain else list(noise)
    if all(math.isnan(one) for row in noise for one in row):
        variances = None
    strategy.tell(nets, values, variances)


def _tell_before(strategy: Strategy, store: Storage | None, earlier: Sequence[Trial]) -> None:
    """Tell a strategy what it does not know yet, and record that where there is a file."""
    space = strategy.space
    known = {space.key(found.network) for found in strategy.observations}
    known |= {space.key(net) for net in strategy.pending}
    new = {space.key(trial.network): trial for trial in reversed(earlier)}
    trials = [trial for key, trial in reversed(new.items()) if key not in known]
    if not trials:
        return
    _tell(strategy, [trial.network for trial in trials], [trial.outcome for trial in trials])
    if store is not None:
        store.set_earlier((*store.earlier(space), *trials))


def _check_budget(budget: object) -> _Limits:
    if isinstance(budget, timedelta):
        if budget <= timedelta(0):
            raise ValueError(f"budget must be a positive time; got {budget}")
        return _Limits(seconds=budget.total_seconds())
    if isinstance(budget, FullTrainings):
        cost = number("budget", budget.number)
        if not 0.0 < cost < math.inf:
            raise ValueError(f"budget must be a positive number of full trainings; got {cost}")
        return _Limits(cost=cost)
    try:
        evaluations = integer("budget", budget)
    except TypeError:
        raise TypeError(
            "budget must be an int (evaluations), a datetime.timedelta (time) or FullTrainings; "
            f"got {budget!r} of type {type(budget).__name__}"
        ) from None
    if evaluations < 1:
        raise ValueError(f"budget must be at least 1 evaluation; got {evaluations}")
    return _Limits(evaluations)
