"""Running a multi-fidelity search: as many evaluations at a time as there are workers."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, Self, cast

import torch
from tqdm.auto import tqdm

from hotnas_torch.arch import Network
from hotnas_torch.arguments import boolean, integer, number
from hotnas_torch.errors import StorageError
from hotnas_torch.files import InUseError, WriteLock, read_bytes, write_text
from hotnas_torch.nago.hyperband import Hyperband, Job
from hotnas_torch.search.asking import refuse_difference
from hotnas_torch.search.running.checks import (
    CATCH,
    check_catch,
    check_executor,
    check_timeout,
    describe_objective,
)
from hotnas_torch.search.running.trial import ObjectiveFunction, SupportsOutcome
from hotnas_torch.search.running.workers import Executor, TimeLimits, make_evaluator

__all__ = ["JobFunction", "run_jobs"]

_MOST_BYTES = 2**30

JobFunction = Callable[[Job], float | SupportsOutcome]
"""What evaluates a job: a number to minimise, or more than that as for `run`."""


def run_jobs(
    strategy: Hyperband,
    objective: JobFunction,
    *,
    budget: float,
    checkpoint: str | PathLike[str] | None = None,
    workers: int = 1,
    executor: Executor | None = None,
    progress: bool = True,
    catch: tuple[type[Exception], ...] = CATCH,
    timeout: float | None = None,
    take_over: bool = False,
    accept_objective: bool = False,
) -> Hyperband:
    """Evaluate jobs until their budgets sum up to a total.

    Whenever an evaluation finishes, its value is observed and the next job is asked for; nobody
    waits for a rung. With one worker the outcome depends on the strategy and the objective alone,
    with more on the order in which evaluations finish.

    With `checkpoint`, the state is written after every value, and a search that was interrupted
    in whatever way goes on when it is run again with the same arguments: what was asked for and not
    observed is evaluated again. One process at a time writes it.

    Args:
        strategy: What to ask; changed in place.
        objective: Called with a `Job`; `space.decode(job.rows)[0]` is its point.
        budget: Sum of the budgets of all jobs, > 0; the last job may exceed it. It counts what
            `checkpoint` holds and may be raised.
        checkpoint: JSON file of the strategy's state; None keeps nothing.
        workers: Jobs that are evaluated at the same time, each in a process of its own; 1
            evaluates in this process.
        executor: Where to evaluate instead of processes of this machine.
        progress: Whether to show a bar on stderr.
        catch: Exceptions of the objective that count as a failed evaluation.
        timeout: Seconds after which an evaluation is stopped and counts as failed, see `run`.
        take_over: Go on with a search that another process is running: that one stops with an error
            after its next value.
        accept_objective: Go on although the objective is not described as in `checkpoint`, see
            `run`.

    Returns:
        `strategy`.

    Raises:
        TypeError: An argument of the wrong kind, or an objective that cannot be sent to workers.
        ValueError: An argument out of range.
        StorageError: The checkpoint holds another search, is damaged, cannot be written, or is
            written by another process; raised before anything is evaluated.

    Example:
        >>> import torch
        >>> from hotnas_torch.nago.box import UnitBox
        >>> generator = torch.Generator().manual_seed(0)
        >>> search = Hyperband(UnitBox(1), min_budget=1, max_budget=9, generator=generator)
        >>> _ = run_jobs(search, lambda job: job.row[0], budget=60, progress=False)
        >>> search.spent
        63.0
    """
    if not isinstance(strategy, Hyperband):
        raise TypeError(f"strategy must be a Hyperband or BOHB; got {strategy!r}")
    if not callable(objective):
        raise TypeError(f"objective must be callable; got {objective!r}")
    if not (budget := number("budget", budget)) > 0.0:
        raise ValueError(f"budget must be positive; got {budget}")
    workers = integer("workers", workers, least=1)
    progress = boolean("progress", progress)
    catch = check_catch(catch)
    check_executor(executor)
    limits = TimeLimits(check_timeout(timeout, workers, executor))
    # Evaluators hand on what they are given; all that is said of networks holds for jobs.
    function = cast(ObjectiveFunction, objective)
    with (
        nullcontext()
        if checkpoint is None
        else _Checkpoint(Path(checkpoint), objective, take_over=take_over) as file,
        torch.inference_mode(False),
        torch.enable_grad(),
        (
            make_evaluator(function, workers, catch, limits)
            if executor is None
            else executor.evaluator(function, workers, catch)
        ) as evaluator,
        tqdm(desc=strategy.name, total=budget, unit="budget", disable=not progress) as bar,
    ):
        if file is not None:
            file.resume(strategy, accept_objective=accept_objective)
        bar.update(strategy.spent - sum(job.budget for job in strategy.pending))
        while True:
            begun: list[Job] = []
            for place, outcome in evaluator(
                cast(Iterator[Network], _asked(strategy, budget, begun))
            ):
                strategy.tell(begun[place], outcome.value)
                if file is not None:
                    file.write(strategy)
                bar.update(begun[place].budget)
                if strategy.best is not None:
                    bar.set_postfix_str(f"best {strategy.best.value:.6g}")
            if not begun:
                return strategy


def _asked(strategy: Hyperband, budget: float, begun: list[Job]) -> Iterator[Job]:
    """Return what is open, then what is asked for, as long as the budget lasts."""
    for job in strategy.pending:
        begun.append(job)
        yield job
    while strategy.spent < budget and (new := strategy.ask()) is not None:
        begun.append(new)
        yield new


class _Checkpoint:
    """A file of a strategy's state and of what its values are of, for one writer at a time."""

    def __init__(self, path: Path, objective: JobFunction, *, take_over: bool) -> None:
        self._path, self._objective = path, describe_objective(objective)
        try:
            self._lock = WriteLock(Path(os.path.realpath(path)), take_over=take_over)
        except InUseError as error:
            raise StorageError(
                f"{path}: another search is writing to it ({error}); wait for it, choose another "
                "file, or pass take_over=True: then that one stops"
            ) from error
        except OSError as error:
            raise StorageError(
                f"cannot use {path} as a checkpoint: {error} (it must be a file in a folder that "
                "exists and is writable)"
            ) from error
        self._written = self._stamp()

    def resume(self, strategy: Hyperband, *, accept_objective: bool) -> None:
        """Bring a strategy to where it was written; a file that is not there changes nothing."""
        if not self._path.is_file():
            return
        try:
            content: dict[str, Any] = json.loads(read_bytes(self._path, most=_MOST_BYTES))
            if "checksum" in content:
                if content["checksum"] != _checksum(content["state"], content["objective"]):
                    raise ValueError("it is damaged: its checksum is another one")
                if not accept_objective:
                    refuse_difference(
                        "the checkpoint", content["objective"], self._objective, "objective"
                    )
                content = content["state"]
            # Earlier versions wrote the state alone.
            strategy.load_state_dict(content)
        except (OSError, TypeError, ValueError, KeyError, RecursionError) as error:
            raise StorageError(
                f"{self._path}: {error} (choose another checkpoint to begin anew; if it is the "
                "objective that differs and gives the same values, pass accept_objective=True)"
            ) from error

    def write(self, strategy: Hyperband) -> None:
        """Replace the file by the present state."""
        # Who took it over may have finished before.
        if not self._lock.held or self._stamp() != self._written:
            raise StorageError(f"{self._path}: another process has taken this search over")
        state = strategy.state_dict()
        content = {
            "state": state,
            "objective": self._objective,
            "checksum": _checksum(state, self._objective),
        }
        write_text(self._path, json.dumps(content) + "\n")
        self._written = self._stamp()

    def _stamp(self) -> tuple[int, int] | None:
        """Return what tells the file from one that somebody else has put in its place."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()


def _checksum(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
