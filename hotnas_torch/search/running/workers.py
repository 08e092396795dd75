"""Evaluation in this process, or in several beside it."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from hotnas_torch.arch import Network
from hotnas_torch.search.running.trial import ObjectiveFunction, Outcome, evaluate

__all__ = ["Evaluator", "Executor", "InProcess", "WorkerProcesses", "answer", "make_evaluator"]

_JOIN_SECONDS = 5.0
_READY = "ready"


class Evaluator(Protocol):
    """Evaluates networks; used as a context manager."""

    def __call__(self, networks: Iterable[Network]) -> Iterator[tuple[int, Outcome]]:
        """Yields (place in ``networks``, outcome) in the order in which they finish.

        The next network is taken only when there is a worker for it: what yields the networks may
        decide on each by the outcomes before.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Executor(Protocol):
    """Where networks can be evaluated, if not in processes of this machine."""

    def evaluator(
        self, objective: ObjectiveFunction, workers: int, catch: tuple[type[Exception], ...]
    ) -> Evaluator:
        """Returns what evaluates ``workers`` networks at a time."""
        ...


def make_evaluator(
    objective: ObjectiveFunction, workers: int, catch: tuple[type[Exception], ...]
) -> Evaluator:
    """Chooses the process itself for one worker, worker processes for more."""
    return (
        InProcess(objective, catch) if workers == 1 else WorkerProcesses(objective, workers, catch)
    )


class InProcess:
    """Evaluates one network after the other in this process."""

    def __init__(self, objective: ObjectiveFunction, catch: tuple[type[Exception], ...]) -> None:
        self._objective = objective
        self._catch = catch

    def __call__(self, networks: Iterable[Network]) -> Iterator[tuple[int, Outcome]]:
        """See :class:`Evaluator`."""
        for place, net in enumerate(networks):
            yield place, evaluate(self._objective, net, self._catch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    connection: Connection[Any, Any]
    ready: bool = False
    place: int | None = None
    started: float = 0.0

    @property
    def busy(self) -> bool:
        """Whether it is evaluating something."""
        return self.place is not None

    def send(self, task: tuple[int, Network]) -> bool:
        """Hands over a network; False when the process is gone."""
        try:
            self.connection.send(task[1])
        except ConnectionError:
            return False
        self.place = task[0]
        self.started = time.perf_counter()
        return True


class WorkerProcesses:
    """Evaluates networks in processes of their own.

    A process that dies in an evaluation costs that evaluation, which counts as failed, and is
    replaced. Processes are started fresh (``spawn``), so that threads and CUDA work in them; the
    objective is sent to each once.

    Args:
        objective: What to evaluate; must be picklable.
        workers: How many processes, >= 1.
        catch: Exceptions that mean a failed evaluation.

    Raises:
        TypeError: The objective cannot be sent to another process.
    """

    def __init__(
        self, objective: ObjectiveFunction, workers: int, catch: tuple[type[Exception], ...]
    ) -> None:
        try:
            ForkingPickler.dumps((objective, catch))
        except Exception as error:
            raise TypeError(
                f"the objective {objective!r} cannot be sent to worker processes: {error} (define "
                "it at the top level of a module, or pass workers=1)."
            ) from error
        self._objective = objective
        self._catch = catch
        self._size = workers
        self._threads = max(1, (os.cpu_count() or 1) // workers)
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def __call__(self, networks: Iterable[Network]) -> Iterator[tuple[int, Outcome]]:
        """See :class:`Evaluator`."""
        source = enumerate(networks)
        waiting: list[tuple[int, Network]] = []
        try:
            while self._take(source, waiting) or self._num_busy:
                self._hand_out(waiting)
                for worker in self._readable():
                    message = self._receive(worker)
                    if message == _READY:
                        worker.ready = True
                        continue
                    place, worker.place = worker.place, None
                    if message is None:
                        message = self._bury(worker)
                    if isinstance(message, Exception):
                        raise message
                    if place is not None:
                        yield place, message
        finally:
            # What is still running was given up: its answer must not meet the next batch.
            self._end([worker for worker in self._workers if worker.busy])

    @property
    def _num_busy(self) -> int:
        return sum(worker.busy for worker in self._workers)

    def _take(
        self, source: Iterator[tuple[int, Network]], waiting: list[tuple[int, Network]]
    ) -> bool:
        """Takes as many networks as there are processes to come; False if none is waiting."""
        while self._num_busy + len(waiting) < self._size:
            task = next(source, None)
            if task is None:
                break
            waiting.append(task)
        return bool(waiting)

    def _hand_out(self, waiting: list[tuple[int, Network]]) -> None:
        """Gives networks from the start of ``waiting`` to processes that have nothing to do."""
        while len(self._workers) < self._num_busy + len(waiting):
            self._workers.append(self._start())
        for worker in self._workers:
            if waiting and worker.ready and not worker.busy and worker.send(waiting[0]):
                del waiting[0]

    def _bury(self, worker: _Worker) -> Outcome:
        """Removes a process that has ended, and returns what came of its evaluation."""
        self._workers.remove(worker)
        worker.connection.close()
        worker.process.join()
        code = worker.process.exitcode
        if not worker.ready:
            raise RuntimeError(
                f"a worker process ended before it evaluated anything (exit code {code}; its own "
                "message is above). A script that uses workers must call run() under "
                "`if __name__ == '__main__':`."
            )
        seconds = time.perf_counter() - worker.started
        return Outcome(math.nan, cost=seconds, error=f"the worker process died (exit code {code})")

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve,
            args=(theirs, self._objective, self._catch, self._threads),
            name="hotnas-worker",
        )
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _readable(self) -> list[_Worker]:
        connections = {worker.connection: worker for worker in self._workers}
        return [connections[found] for found in wait(list(connections))]  # type: ignore[index]

    @staticmethod
    def _receive(worker: _Worker) -> Any:
        """Returns a message, or None when the process has ended."""
        try:
            return worker.connection.recv()
        except (EOFError, ConnectionError):
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(list(self._workers))

    def _end(self, workers: list[_Worker]) -> None:
        for worker in workers:
            self._workers.remove(worker)
            worker.connection.close()  # a process without work ends at this
            if worker.busy:
                worker.process.terminate()
        for worker in workers:
            worker.process.join(_JOIN_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _serve(
    connection: Connection[Any, Any],
    objective: ObjectiveFunction,
    catch: tuple[type[Exception], ...],
    num_threads: int,
) -> None:
    """Evaluates what comes through the pipe until its other end is closed."""
    # An interrupt from the keyboard reaches all processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(num_threads)
    connection.send(_READY)
    while True:
        try:
            net = connection.recv()
        except EOFError:
            return
        try:
            connection.send(answer(objective, net, catch))
        except ConnectionError:
            return


def answer(
    objective: ObjectiveFunction, net: Network, catch: tuple[type[Exception], ...]
) -> Outcome | Exception:
    """Evaluates one network for another process.

    Returns:
        What came of it, or an exception that is not in ``catch`` and that the other process is to
        raise.
    """
    try:
        return evaluate(objective, net, catch)
    except Exception as error:
        return _portable(error)


def _portable(error: Exception) -> Exception:
    """Returns the error if it survives the way to another process, else one with its text."""
    trace = "".join(traceback.format_exception(error))
    try:
        travelled = ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        travelled = None
    if not isinstance(travelled, Exception):
        return RuntimeError(f"an evaluation failed in a worker process:\n{trace}")
    error.add_note(f"In a worker process:\n{trace}")
    return error
