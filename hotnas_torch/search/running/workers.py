# Over 400 lines: one protocol between a process and its workers.
"""Evaluation in this process, or in several beside it."""

import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from hotnas_torch.arch import Network
from hotnas_torch.search.running.trial import ObjectiveFunction, Outcome, evaluate

__all__ = [
    "Evaluator",
    "Executor",
    "InProcess",
    "TimeLimits",
    "WorkerProcesses",
    "answer",
    "can_interrupt",
    "make_evaluator",
]

_JOIN_SECONDS = 5.0
_READY = "ready"
# What is running when a search's time is over may take at least this long, in seconds.
_LEAST_GRACE = 10.0
# What a timer of the system takes, in seconds; the longer one is three years.
_SHORTEST, _LONGEST = 1e-3, 1e8
_WATCH_SECONDS = 0.5


class Evaluator(Protocol):
    """Evaluate networks; used as a context manager."""

    def __call__(self, networks: Iterable[Network]) -> Iterator[tuple[int, Outcome]]:
        """Yield (place in `networks`, outcome) in the order in which they finish.

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
    """Where networks can be evaluated, if not in processes of this machine.

    One that can stop evaluations takes the keyword `limits`, too, a `TimeLimits`: it gets them
    where the budget of a search is a time.
    """

    def evaluator(
        self, objective: ObjectiveFunction, workers: int, catch: tuple[type[Exception], ...]
    ) -> Evaluator:
        """Return what evaluates `workers` networks at a time."""
        ...


@dataclass(slots=True)
class TimeLimits:
    """When an evaluation is stopped.

    One that has taken `timeout` is. After the search's own time is over, what is running may
    still finish, but what takes more than twice as long as the longest evaluation before (and more
    than ten seconds), or as long again as the whole search, is stopped, too.

    Args:
        timeout: Seconds of one evaluation; None is no limit.
        over: `time.perf_counter` when the search's time is over; infinite without a limit.
        grace: Seconds that what is running then may still take at most.
    """

    timeout: float | None = None
    over: float = math.inf
    grace: float = math.inf
    longest: float = math.inf
    """Seconds of the longest evaluation that has finished; infinite before the first."""

    def finished(self, seconds: float) -> None:
        """Take note of how long an evaluation took."""
        self.longest = seconds if math.isinf(self.longest) else max(self.longest, seconds)

    @property
    def end(self) -> float:
        """`time.perf_counter` from which on nothing is evaluated any more."""
        return self.over + min(self.grace, max(_LEAST_GRACE, 2.0 * self.longest))

    def deadline(self, started: float) -> float:
        """`time.perf_counter` when an evaluation that began at `started` is stopped."""
        return min(self.end, math.inf if self.timeout is None else started + self.timeout)

    def reason(self, started: float) -> str:
        """Return what is recorded of an evaluation that is stopped now."""
        seconds = time.perf_counter() - started
        if self.timeout is not None and seconds >= self.timeout:
            return f"stopped after {seconds:.1f} s (timeout {self.timeout:g} s)"
        return f"stopped after {seconds:.1f} s: the time of the search was over"


def make_evaluator(
    objective: ObjectiveFunction,
    workers: int,
    catch: tuple[type[Exception], ...],
    limits: TimeLimits | None = None,
) -> Evaluator:
    """Choose the process itself for one worker, worker processes for more."""
    limits = TimeLimits() if limits is None else limits
    return (
        InProcess(objective, catch, limits)
        if workers == 1
        else WorkerProcesses(objective, workers, catch, limits)
    )


class _Stopped(BaseException):
    """Raised inside an evaluation whose time is over; no `Exception`, so that few catch it."""


class InProcess:
    """Evaluate one network after the other in this process.

    An evaluation whose time is over is interrupted as by Ctrl-C, by a timer, which works in the
    main thread alone.
    """

    def __init__(
        self,
        objective: ObjectiveFunction,
        catch: tuple[type[Exception], ...],
        limits: TimeLimits | None = None,
    ) -> None:
        self._objective = objective
        self._catch = catch
        self._limits = TimeLimits() if limits is None else limits

    def __call__(self, networks: Iterable[Network]) -> Iterator[tuple[int, Outcome]]:
        """See `Evaluator`."""
        for place, net in enumerate(networks):
            started = time.perf_counter()
            if started >= self._limits.end:
                return
            try:
                with interruption(self._limits.deadline(started) - started):
                    outcome = evaluate(self._objective, net, self._catch)
            except _Stopped:
                seconds = time.perf_counter() - started
                outcome = Outcome(math.nan, cost=seconds, error=self._limits.reason(started))
            else:
                self._limits.finished(time.perf_counter() - started)
            yield place, outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def can_interrupt() -> bool:
    """Whether what runs in this thread can be interrupted by a timer."""
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    )


@contextmanager
def interruption(seconds: float) -> Iterator[None]:
    """Raise `_Stopped` in what takes longer, and again each second if that was swallowed."""
    if math.isinf(seconds) or not can_interrupt():
        yield
        return

    armed = True

    def stop(*_: object) -> None:
        if armed:
            raise _Stopped

    signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, min(max(seconds, _SHORTEST), _LONGEST), 1.0)
        try:
            yield
        finally:
            armed = False
    finally:
        armed = False  # again: the timer may have struck before the first time
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


@dataclass(slots=True, eq=False)
class _Worker:
    process: SpawnProcess
    connection: "Connection[Any, Any]"
    ready: bool = False
    place: int | None = None
    started: float = 0.0

    @property
    def busy(self) -> bool:
        """Whether it is evaluating something."""
        return self.place is not None

    def send(self, task: tuple[int, Network]) -> bool:
        """Hand over a network; False when the process is gone."""
        try:
            self.connection.send(task[1])
        except ConnectionError:
            return False
        self.place = task[0]
        self.started = time.perf_counter()
        return True


class WorkerProcesses:
    """Evaluate networks in processes of their own.

    A process that dies in an evaluation, or whose time is over, costs that evaluation, which counts
    as failed, and is replaced. Processes are started fresh (`spawn`), so that threads and CUDA
    work in them; the objective is sent to each once. Each leads a process group of its own and ends
    with all of that group when this process ends, in whatever way.

    Args:
        objective: What to evaluate; must be picklable.
        workers: How many processes, >= 1.
        catch: Exceptions that mean a failed evaluation.
        limits: When an evaluation is stopped.

    Raises:
        TypeError: The objective cannot be sent to another process.
    """

    def __init__(
        self,
        objective: ObjectiveFunction,
        workers: int,
        catch: tuple[type[Exception], ...],
        limits: TimeLimits | None = None,
    ) -> None:
        self._objective = objective
        self._payload = _packed(objective, catch)
        self._limits = TimeLimits() if limits is None else limits
        self._size = workers
        self._threads = max(1, (os.cpu_count() or 1) // workers)
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def __call__(self, networks: Iterable[Network]) -> Iterator[tuple[int, Outcome]]:
        """See `Evaluator`."""
        source = enumerate(networks)
        waiting: list[tuple[int, Network]] = []
        try:
            while self._take(source, waiting) or self._num_busy:
                if time.perf_counter() < self._limits.end:
                    self._hand_out(waiting)
                elif not self._num_busy:
                    return
                for worker in self._readable():
                    message = self._receive(worker)
                    if message == _READY:
                        worker.ready = True
                        continue
                    place, worker.place = worker.place, None
                    if message is None:
                        message = self._bury(worker)
                    elif isinstance(message, _Unloadable):
                        raise self._refusal(message)
                    elif isinstance(message, Exception):
                        raise message
                    else:
                        self._limits.finished(time.perf_counter() - worker.started)
                    if place is not None:
                        yield place, message
                for place, outcome in self._stop_overdue():
                    yield place, outcome
        finally:
            # What is still running was given up: its answer must not meet the next batch.
            self._end([worker for worker in self._workers if worker.busy])

    @property
    def _num_busy(self) -> int:
        return sum(worker.busy for worker in self._workers)

    def _take(
        self, source: Iterator[tuple[int, Network]], waiting: list[tuple[int, Network]]
    ) -> bool:
        """Take as many networks as there are processes to come; False if none is waiting."""
        while self._num_busy + len(waiting) < self._size:
            task = next(source, None)
            if task is None:
                break
            waiting.append(task)
        return bool(waiting)

    def _hand_out(self, waiting: list[tuple[int, Network]]) -> None:
        """Give networks from the start of `waiting` to processes that have nothing to do."""
        while len(self._workers) < self._num_busy + len(waiting):
            self._workers.append(self._start())
        for worker in self._workers:
            if waiting and worker.ready and not worker.busy and worker.send(waiting[0]):
                del waiting[0]

    def _stop_overdue(self) -> list[tuple[int, Outcome]]:
        """End the processes whose time is over, and returns what came of their evaluations."""
        now = time.perf_counter()
        overdue = [
            (worker.place, worker, self._limits.reason(worker.started))
            for worker in self._workers
            if worker.place is not None and self._limits.deadline(worker.started) <= now
        ]
        self._end([worker for _, worker, _ in overdue])
        return [
            (place, Outcome(math.nan, cost=now - worker.started, error=reason))
            for place, worker, reason in overdue
        ]

    def _bury(self, worker: _Worker) -> Outcome:
        """Remove a process that has ended, and returns what came of its evaluation."""
        self._end([worker])
        _kill(worker.process)  # what it has started, too
        code = worker.process.exitcode
        if not worker.ready:
            raise RuntimeError(
                f"a worker process ended before it evaluated anything (exit code {code}; its own "
                "message is above). A script that uses workers must call run() under "
                "`if __name__ == '__main__':`"
            )
        seconds = time.perf_counter() - worker.started
        return Outcome(math.nan, cost=seconds, error=f"the worker process died (exit code {code})")

    def _refusal(self, message: "_Unloadable") -> TypeError:
        return TypeError(
            f"the objective {self._objective!r} cannot be loaded in a worker process: "
            f"{message.text} ({_REMEDY})"
        )

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve,
            args=(theirs, self._payload, self._threads),
            name="hotnas-worker",
        )
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _readable(self) -> list[_Worker]:
        connections = {worker.connection: worker for worker in self._workers}
        running = [worker.started for worker in self._workers if worker.busy]
        # Without a worker at work, there is one about to begin.
        deadline = min(map(self._limits.deadline, running), default=self._limits.end)
        left = max(0.0, min(deadline - time.perf_counter(), _WATCH_SECONDS))
        found = {connections[found] for found in wait(list(connections), left)}  # type: ignore[index]
        # What an evaluation has forked may keep the pipe of its dead process open.
        return [w for w in self._workers if w in found or not w.process.is_alive()]

    @staticmethod
    def _receive(worker: _Worker) -> Any:
        """Return a message, or None when the process has ended."""
        try:
            return worker.connection.recv() if worker.connection.poll() else None
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
            if worker.busy or not worker.ready:
                _kill(worker.process)
        for worker in workers:
            worker.process.join(_JOIN_SECONDS)
            if worker.process.is_alive():
                _kill(worker.process)
                worker.process.join()


def _kill(process: SpawnProcess) -> None:
    """End a process with all of its group: what an evaluation has started ends with it."""
    assert process.pid is not None
    with suppress(ProcessLookupError):  # it has none of its own yet, or any more
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


_REMEDY = (
    "worker processes import it by its name: define it at the top level of a module file and import"
    " it from there, or pass workers=1"
)
_WITHOUT_NAME = (
    "pip install 'hotnas-torch[notebook]', which sends such functions whole; otherwise, "
)


@dataclass(frozen=True, slots=True)
class _Unloadable:
    """What a process says that cannot load the objective."""

    text: str


def _packed(objective: ObjectiveFunction, catch: tuple[type[Exception], ...]) -> bytes:
    """Return the objective as worker processes get it.

    What they can import travels by its name; closures, lambdas and what a notebook defines by
    value, where cloudpickle is installed.

    Raises:
        TypeError: It cannot be sent, or could not be found there.
    """
    reason = "it is, or uses, what is defined in a notebook or an interactive session"
    try:
        # ForkingPickler may have learned from torch to share tensors, which one process gets.
        payload = pickle.dumps((objective, catch))
    except Exception as error:
        reason = str(error)
    else:
        # Worker processes run the main script again to have what it defines; a notebook is none.
        main = sys.modules["__main__"]
        script = getattr(main, "__file__", None) or main.__spec__
        if script or b"__main__" not in payload:
            return payload
    try:
        import cloudpickle
    except ImportError:
        remedy = _WITHOUT_NAME + _REMEDY
    else:
        try:
            return bytes(cloudpickle.dumps((objective, catch)))
        except Exception as error:
            reason, remedy = str(error), _REMEDY
    raise TypeError(
        f"the objective {objective!r} cannot be sent to worker processes: {reason} ({remedy})"
    )


def _serve(connection: "Connection[Any, Any]", payload: bytes, num_threads: int) -> None:
    """Evaluate what comes through the pipe until its other end is closed."""
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # An interrupt from the keyboard reaches all processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(num_threads)
    try:
        objective, catch = ForkingPickler.loads(payload)
    except Exception as error:
        connection.send(_Unloadable(f"{type(error).__name__}: {error}"))
        return
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


def _end_with_parent() -> None:
    """Wait for the end of the parent, however it comes, and ends this process's group."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    # The sentinel lives on in processes that the parent has forked; the number of ours does not.
    while not wait([parent.sentinel], _WATCH_SECONDS) and os.getppid() == parent.pid:
        pass
    os.killpg(0, signal.SIGKILL)


def answer(
    objective: ObjectiveFunction, net: Network, catch: tuple[type[Exception], ...]
) -> Outcome | Exception:
    """Evaluate one network for another process.

    Returns:
        What came of it, or an exception that is not in `catch` and that the other process is to
        raise.
    """
    try:
        return evaluate(objective, net, catch)
    except Exception as error:
        return _portable(error)


def _portable(error: Exception) -> Exception:
    """Return the error if it survives the way to another process, else one with its text."""
    trace = "".join(traceback.format_exception(error))
    try:
        travelled = ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        travelled = None
    if not isinstance(travelled, Exception):
        return RuntimeError(f"an evaluation failed in a worker process:\n{trace}")
    error.add_note(f"In a worker process:\n{trace}")
    return error
