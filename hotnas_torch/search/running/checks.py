"""What a run takes besides its strategy, checked before work starts."""

import json
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hotnas_torch.arguments import number
from hotnas_torch.callables import describe_callable
from hotnas_torch.search.running.workers import Executor, can_interrupt

__all__ = [
    "CATCH",
    "check_catch",
    "check_executor",
    "check_shared",
    "check_timeout",
    "describe_objective",
]

CATCH: tuple[type[Exception], ...] = (RuntimeError, ArithmeticError, MemoryError)
"""Exceptions that mean a failed evaluation: what torch raises while it computes (out of memory
among them), and arithmetic. Others are mistakes in the program and end the search."""


# Seconds without a sign of life after which a process of a shared search counts as dead.
_PATIENCE = 60.0


def check_catch(catch: object) -> tuple[type[Exception], ...]:
    """Return the exceptions that count as a failed evaluation.

    Raises:
        TypeError: It is neither a kind of exception nor a tuple of them. Interrupts and exits are
            no `Exception`, and end a search always.
    """
    kinds = catch if isinstance(catch, tuple) else (catch,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise TypeError(f"catch must be a tuple of subclasses of Exception; got {catch!r}")
    return kinds


def check_executor(executor: object) -> None:
    """Refuse what cannot evaluate.

    Raises:
        TypeError: It is neither None nor an `Executor`.
    """
    if executor is not None and not callable(getattr(executor, "evaluator", None)):
        raise TypeError(
            f"executor must be an Executor such as RayExecutor, or None; got {executor!r}"
        )


def check_timeout(timeout: float | None, workers: int, executor: Executor | None) -> float | None:
    """Return the seconds after which an evaluation is stopped.

    Raises:
        TypeError: It is no number.
        ValueError: It is not positive, or could not be kept.
    """
    if timeout is None:
        return None
    if executor is not None:
        raise ValueError("timeout is for evaluations on this machine; set the executor's own")
    if workers == 1 and not can_interrupt():
        raise ValueError(
            "timeout needs worker processes here (pass workers=2): with workers=1, evaluations are "
            "interrupted by SIGALRM, in the main thread and where nobody else uses that signal"
        )
    seconds = number("timeout", timeout)
    if not 0.0 < seconds < math.inf:
        raise ValueError(f"timeout must be positive and finite; got {seconds}")
    return seconds


def check_shared(shared: object, storage: object, batch_size: int | None) -> float | None:
    """Return the seconds after which a silent process counts as dead; None: nobody shares.

    Raises:
        TypeError: It is neither a bool nor a timedelta.
        ValueError: It is not positive, there is no file to share, or there are batches.
    """
    if isinstance(shared, timedelta):
        seconds = shared.total_seconds()
        if seconds <= 0.0:
            raise ValueError(f"shared must be a positive time, or True; got {shared}")
    elif isinstance(shared, bool):
        if not shared:
            return None
        seconds = _PATIENCE
    else:
        raise TypeError(f"shared must be a bool or a datetime.timedelta; got {shared!r}")
    if storage is None:
        raise ValueError("shared needs a storage: the file that the processes work on")
    if batch_size is not None:
        raise ValueError("batch_size is for searches in batches; leave it out (shared)")
    return seconds


def describe_objective(objective: Callable[..., Any]) -> dict[str, Any]:
    """Return what an objective says of itself, as a file holds it, else what its code shows.

    Raises:
        TypeError: What it says is no dict, or cannot be written as JSON.
    """
    describe = getattr(objective, "describe", None)
    if not callable(describe) or isinstance(objective, type):
        return describe_callable(objective)
    described = describe()
    try:
        described = json.loads(json.dumps(described))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"objective.describe() must return what json.dumps takes: {error}"
        ) from error
    if not isinstance(described, dict):
        raise TypeError(f"objective.describe() must return a dict; got {described!r}")
    return described
