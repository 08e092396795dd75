"""Evaluations of a search as tasks on a Ray cluster."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch

from hotnas_torch.arch import Network
from hotnas_torch.integrations.ray.broadcast import (
    Broadcast,
    import_ray,
    lost_worker,
    not_loaded,
    times,
)
from hotnas_torch.search.running.trial import ObjectiveFunction, Outcome
from hotnas_torch.search.running.workers import TimeLimits, answer

__all__ = ["RayEvaluator"]

_BEGUN = "begun"


@dataclass(slots=True)
class _Evaluation:
    """One evaluation on its way; `started` is infinite until a worker has begun it."""

    place: int
    network: Network
    lost: int = 0
    started: float = math.inf


class RayEvaluator:
    """Evaluates networks as Ray tasks; made by `RayExecutor.evaluator`.

    A lost worker costs the evaluation that it was working on, which is begun again up to
    `retries` times and counts as failed after that. One that exceeds its time is stopped with its
    process and counts as failed; so is what hangs when the time of the search is over.

    Args:
        objective: What to evaluate; sent to each worker process once.
        workers: Networks that are on their way at the same time, >= 1.
        catch: Exceptions that mean a failed evaluation.
        num_cpus: Processors per evaluation.
        num_gpus: GPUs per evaluation.
        retries: Restarts after a lost worker, >= 0.
        limits: When an evaluation is stopped, counted from its start.

    Raises:
        TypeError: The objective cannot be sent to another process.
    """

    def __init__(
        self,
        objective: ObjectiveFunction,
        workers: int,
        catch: tuple[type[Exception], ...],
        *,
        num_cpus: float,
        num_gpus: float,
        retries: int,
        limits: TimeLimits,
    ) -> None:
        self._ray = import_ray()
        self._workers, self._retries, self._limits = workers, retries, limits
        self._num_threads = max(1, int(num_cpus))
        # Retries are counted here: Ray's own would not tell that one has begun.
        self._task = self._ray.remote(_evaluate).options(
            num_cpus=num_cpus, num_gpus=num_gpus, max_retries=0, num_returns="streaming"
        )
        try:
            self._job = Broadcast((objective, catch))
        except Exception as error:
            raise TypeError(
                f"the objective {objective!r} cannot be sent to a cluster: {error} (define it at"
                " the top level of a module that every node has)"
            ) from error
        self._running: dict[Any, _Evaluation] = {}

    def __call__(self, networks: Iterable[Network]) -> Iterator[tuple[int, Outcome]]:
        """See `hotnas_torch.search.running.workers.Evaluator`."""
        source = enumerate(networks)
        try:
            while True:
                while self._has_room and (task := next(source, None)):
                    self._begin(_Evaluation(*task))
                if not self._running:
                    return
                done, _ = self._ray.wait(list(self._running), timeout=self._until_deadline())
                for stream in done:
                    evaluation = self._running[stream]
                    outcome = self._news(stream, evaluation)
                    if outcome is not None:
                        yield evaluation.place, outcome
                for evaluation, outcome in self._overdue():
                    yield evaluation.place, outcome
        finally:
            self._stop()

    @property
    def _has_room(self) -> bool:
        over = time.perf_counter() >= self._limits.end
        return len(self._running) < self._workers and not over

    def _begin(self, evaluation: _Evaluation) -> None:
        evaluation.started = math.inf
        stream = self._task.remote(self._job, evaluation.network, self._num_threads)
        self._running[stream] = evaluation

    def _news(self, stream: Any, evaluation: _Evaluation) -> Outcome | None:
        """Take what a task has to say; returns the outcome if there is one now."""
        try:
            message = self._ray.get(next(stream))
        except lost_worker() as error:
            if (refusal := not_loaded(error)) is not None:
                raise refusal from error
            del self._running[stream]
            evaluation.lost += 1
            if evaluation.lost <= self._retries:
                self._begin(evaluation)
                return None
            cost = max(0.0, time.perf_counter() - evaluation.started)
            reason = f"lost its worker {times(evaluation.lost)}: {_brief(error)}"
            return Outcome(math.nan, cost=cost, error=reason)
        except self._ray.exceptions.RayTaskError as error:
            # Not the objective's, whose errors arrive as messages: it could not be begun at all.
            raise error.cause from error
        if message == _BEGUN:
            evaluation.started = time.perf_counter()
            return None
        del self._running[stream]
        if isinstance(message, Exception):
            raise message
        self._limits.finished(time.perf_counter() - evaluation.started)
        outcome: Outcome = message
        return outcome

    def _until_deadline(self) -> float | None:
        """Seconds until the next evaluation is overdue; None where none can be."""
        first = min(self._limits.deadline(found.started) for found in self._running.values())
        return None if math.isinf(first) else max(0.0, first - time.perf_counter())

    def _overdue(self) -> Iterator[tuple[_Evaluation, Outcome]]:
        """Stop what has taken too long; what has not begun yet when all is over never does."""
        for stream, evaluation in list(self._running.items()):
            now = time.perf_counter()
            if now < self._limits.deadline(evaluation.started):
                continue
            del self._running[stream]
            self._ray.cancel(stream, force=True)
            if math.isinf(evaluation.started):
                continue
            seconds, timeout = now - evaluation.started, self._limits.timeout
            error = (
                f"stopped after its time-out of {timeout:g} s"
                if timeout is not None and seconds >= timeout
                else self._limits.reason(evaluation.started)
            )
            yield evaluation, Outcome(math.nan, cost=seconds, error=error)

    def _stop(self) -> None:
        """Give up what is running."""
        for stream in self._running:
            self._ray.cancel(stream, force=True)
        self._running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()


def _evaluate(
    job: Broadcast, network: Network, num_threads: int
) -> Iterator[str | Outcome | Exception]:
    """One evaluation, in a worker process: says when it begins, then what came of it."""
    objective, catch = job.received(tuple)
    torch.set_num_threads(num_threads)
    yield _BEGUN
    yield answer(objective, network, catch)


def _brief(error: Exception) -> str:
    """Ray's messages fill pages."""
    return str(error).strip().partition("\n")[0].partition(". ")[0]
