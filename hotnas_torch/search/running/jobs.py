"""Running a multi-fidelity search: as many evaluations at a time as there are workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm

from hotnas_torch.arch import Network
from hotnas_torch.arguments import boolean, integer, number
from hotnas_torch.errors import StorageError
from hotnas_torch.files import read_bytes, write_text
from hotnas_torch.search.box.hyperband import Hyperband, Job
from hotnas_torch.search.running.runner import CATCH, check_catch, check_executor, check_timeout
from hotnas_torch.search.running.trial import ObjectiveFunction, SupportsOutcome
from hotnas_torch.search.running.workers import Executor, TimeLimits, make_evaluator

__all__ = ["JobFunction", "run_jobs"]

_MOST_BYTES = 2**30

JobFunction = Callable[[Job], float | SupportsOutcome]
"""What evaluates a job: a number to minimise, or more than that as for :func:`run`."""


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
) -> Hyperband:
    """Evaluates jobs until their budgets sum up to a total.

    Whenever an evaluation finishes, its value is told and the next job is asked for; nobody waits
    for a rung. With one worker the outcome depends on the strategy and the objective alone, with
    more on the order in which evaluations finish.

    With ``checkpoint``, the state is written after every value, and a search that was interrupted
    in whatever way goes on when it is run again with the same arguments: what was asked for and not
    told is evaluated again.

    Args:
        strategy: What to ask; changed in place.
        objective: Called with a :class:`Job`; ``space.decode(job.rows)[0]`` is its point.
        budget: Sum of the budgets of all jobs, > 0; the last job may exceed it. It counts what
            ``checkpoint`` holds and may be raised.
        checkpoint: JSON file of the strategy's state; None keeps nothing.
        workers: Jobs that are evaluated at the same time, each in a process of its own; 1
            evaluates in this process.
        executor: Where to evaluate instead of processes of this machine.
        progress: Whether to show a bar on stderr.
        catch: Exceptions of the objective that count as a failed evaluation.
        timeout: Seconds after which an evaluation is stopped and counts as failed, see `run`.

    Returns:
        ``strategy``.

    Raises:
        TypeError: An argument of the wrong kind, or an objective that cannot be sent to workers.
        ValueError: An argument out of range.
        StorageError: The checkpoint holds another search or is damaged; raised before anything is
            evaluated.

    Example:
        >>> import torch
        >>> from hotnas_torch.search import UnitBox
        >>> generator = torch.Generator().manual_seed(0)
        >>> search = Hyperband(UnitBox(1), min_budget=1, max_budget=9, generator=generator)
        >>> _ = run_jobs(search, lambda job: job.row[0], budget=60, progress=False)
        >>> search.spent
        63.0
    """
    if not isinstance(strategy, Hyperband):
        raise TypeError(f"strategy must be a Hyperband or BOHB, got {strategy!r}.")
    if not callable(objective):
        raise TypeError(f"objective must be callable, got {objective!r}.")
    if not (budget := number("budget", budget)) > 0.0:
        raise ValueError(f"budget must be positive, got {budget}.")
    workers = integer("workers", workers, least=1)
    progress = boolean("progress", progress)
    catch = check_catch(catch)
    check_executor(executor)
    limits = TimeLimits(check_timeout(timeout, workers, executor))
    file = None if checkpoint is None else Path(checkpoint)
    if file is not None:
        _resume(strategy, file)
    # Evaluators hand on what they are given; all that is said of networks holds for jobs.
    function = cast(ObjectiveFunction, objective)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        (
            make_evaluator(function, workers, catch, limits)
            if executor is None
            else executor.evaluator(function, workers, catch)
        ) as evaluator,
        tqdm(desc=strategy.name, total=budget, unit="budget", disable=not progress) as bar,
    ):
        bar.update(strategy.spent - sum(job.budget for job in strategy.pending))
        while True:
            begun: list[Job] = []
            for place, outcome in evaluator(
                cast(Iterator[Network], _asked(strategy, budget, begun))
            ):
                strategy.tell(begun[place], outcome.value)
                if file is not None:
                    write_text(file, json.dumps(strategy.state_dict()) + "\n")
                bar.update(begun[place].budget)
                if strategy.best is not None:
                    bar.set_postfix_str(f"best {strategy.best.value:.6g}")
            if not begun:
                return strategy


def _asked(strategy: Hyperband, budget: float, begun: list[Job]) -> Iterator[Job]:
    """What is open, then what is asked for, as long as the budget lasts."""
    for job in strategy.pending:
        begun.append(job)
        yield job
    while strategy.spent < budget and (new := strategy.ask()) is not None:
        begun.append(new)
        yield new


def _resume(strategy: Hyperband, file: Path) -> None:
    if not file.is_file():
        return
    try:
        state: dict[str, Any] = json.loads(read_bytes(file, most=_MOST_BYTES))
        strategy.load_state_dict(state)
    except (OSError, TypeError, ValueError, KeyError, RecursionError) as error:
        raise StorageError(f"{file}: {error} (choose another checkpoint to begin anew).") from error
