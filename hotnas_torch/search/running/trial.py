"""Record of evaluations, and how an objective's answer becomes one."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import number
from hotnas_torch.errors import NonFiniteValueError
from hotnas_torch.spaces import SearchSpace

__all__ = ["ObjectiveFunction", "Outcome", "SearchResult", "SupportsOutcome", "Trial", "evaluate"]


@runtime_checkable
class SupportsOutcome(Protocol):
    """What an objective may return instead of a number, as `objectives.Evaluation` does."""

    @property
    def value(self) -> float:
        """The value to minimise; NaN for a failure."""
        ...

    @property
    def metrics(self) -> Mapping[str, float]:
        """Other figures by name."""
        ...

    @property
    def cost(self) -> float:
        """Seconds."""
        ...

    @property
    def error(self) -> str:
        """Why it failed."""
        ...


ObjectiveFunction = Callable[[Network], float | SupportsOutcome]
"""An objective: anything that takes a network and returns a number or more than that."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one evaluation.

    Attributes:
        value: The value to minimise; NaN when it failed.
        metrics: Other figures by name.
        cost: Seconds that the evaluation took, by the objective's own account, else wall clock.
        error: Why it failed; empty otherwise. What no text file can hold is written as an escape.
    """

    value: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: float = 0.0
    error: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", _storable(self.error))
        metrics = {_storable(name): number for name, number in self.metrics.items()}
        object.__setattr__(self, "metrics", metrics)


def _storable(text: str) -> str:
    """Return the text with halves of surrogate pairs, which UTF-8 cannot hold, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluation of a search.

    Attributes:
        number: Place in the order of asking, from 0.
        network: What was evaluated.
        outcome: What came of it.
        elapsed: Seconds from the start of the search until it was finished, interruptions left out.
    """

    number: int
    network: Network
    outcome: Outcome
    elapsed: float

    @property
    def value(self) -> float:
        """The value to minimise; NaN when the evaluation failed."""
        return self.outcome.value

    @property
    def failed(self) -> bool:
        """Whether there is no value."""
        return math.isnan(self.outcome.value)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes:
        space: What was searched.
        trials: All evaluations in the order of asking.
        reason: Why it ended: `"evaluations"` or `"time"` (the budget), `"exhausted"` (the
            space has no other network).
    """

    space: SearchSpace
    trials: tuple[Trial, ...]
    reason: str

    @property
    def best(self) -> Trial | None:
        """The trial with the smallest value, the earliest of equals; None when all failed."""
        return best_trial(self.trials)

    @property
    def best_so_far(self) -> Tensor:
        """Smallest value up to each trial, (num_trials,) float64; NaN before the first value."""
        return best_so_far([trial.value for trial in self.trials])


def best_trial(trials: tuple[Trial, ...]) -> Trial | None:
    """Return the trial with the smallest value, the earliest of equals; None without a value."""
    finished = (trial for trial in trials if not trial.failed)
    return min(finished, key=lambda trial: trial.value, default=None)


def best_so_far(values: list[float]) -> Tensor:
    """Return running minimum that passes over NaN, (N,) float64; NaN before the first number."""
    numbers = torch.tensor(values, dtype=torch.float64)
    running = torch.cummin(numbers.nan_to_num(nan=math.inf), dim=0).values
    return running.masked_fill(running.isinf(), math.nan)


def evaluate(
    objective: ObjectiveFunction, net: Network, catch: tuple[type[Exception], ...]
) -> Outcome:
    """Evaluate one network.

    Args:
        objective: What to call.
        net: What to call it with.
        catch: Exceptions that mean a failed evaluation; others are raised, with a note that says
            for which network and what to do. An infinite value is a failure in any case.

    Raises:
        TypeError: The objective returned neither a number nor something with `value`,
            `metrics`, `cost` and `error`.
    """
    started = time.perf_counter()
    try:
        result = objective(net)
    except NonFiniteValueError as error:
        return Outcome(math.nan, cost=time.perf_counter() - started, error=str(error))
    except catch as error:
        return Outcome(math.nan, cost=time.perf_counter() - started, error=_described(error))
    except StopIteration as error:
        # Let through, it would be taken for the end of the networks.
        raise RuntimeError(f"the objective raised {error!r} for {_name(net)}") from error
    except Exception as error:
        error.add_note(
            f"The objective raised this for {_name(net)}. Failures of this kind are recorded, and "
            f"the search goes on, with catch=(..., {type(error).__qualname__}); a search with a "
            "storage begins with the same evaluation when it is run again."
        )
        raise
    seconds = time.perf_counter() - started
    try:
        if isinstance(result, SupportsOutcome):
            cost = number("cost", result.cost)
            if not (math.isfinite(cost) and cost >= 0.0):
                raise TypeError(f"cost must be finite and >= 0 seconds; got {cost}")
            return _finite(
                number("value", result.value),
                {str(name): number(name, entry) for name, entry in result.metrics.items()},
                cost,
                str(result.error),
            )
        return _finite(number("value", result), {}, seconds, "")
    except (TypeError, ValueError, AttributeError) as error:
        raise TypeError(
            "the objective must return a number or an Evaluation; got "
            f"{result!r} of type {type(result).__name__} for {_name(net)}: {error}"
        ) from error


def _described(error: BaseException) -> str:
    """Kind and text of an exception, whose own `__str__` may fail."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return f"{type(error).__name__} (without a text: its __str__ fails)"


def _name(asked: object) -> str:
    """Name what is evaluated in a message: a network's text, or a job of a bracket."""
    return repr(getattr(asked, "spec", asked))


def _finite(value: float, metrics: dict[str, float], cost: float, error: str) -> Outcome:
    if math.isinf(value):
        return Outcome(math.nan, metrics, cost, error or f"the value was {value}")
    if math.isnan(value):
        return Outcome(math.nan, metrics, cost, error or "the value was NaN")
    return Outcome(value, metrics, cost, "")
