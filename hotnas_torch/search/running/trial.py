# Over 400 lines: evaluations, trials and the result that holds them, with what it shows of itself.
"""Record of evaluations, and how an objective's answer becomes one."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import number
from hotnas_torch.errors import NonFiniteValueError, StopSearch
from hotnas_torch.notebook import table_html
from hotnas_torch.search.goal import Goal
from hotnas_torch.search.goal_settings import VALUE, VARIANCE
from hotnas_torch.spaces import SearchSpace

if TYPE_CHECKING:
    import pandas

__all__ = [
    "Named",
    "ObjectiveFunction",
    "Outcome",
    "SearchResult",
    "SupportsOutcome",
    "Trial",
    "evaluate",
]


@runtime_checkable
class SupportsOutcome(Protocol):
    """What an objective may return instead of a number, as `objectives.Evaluation` does."""

    @property
    def value(self) -> float:
        """The value; NaN for a failure."""
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


ObjectiveFunction = Callable[
    [Network], float | SupportsOutcome | Mapping[str, float] | Sequence[float]
]
"""An objective: anything that takes a network and returns a number or more than that."""


@dataclass(frozen=True, slots=True, repr=False)
class Named:
    """An objective of which several numbers count.

    Attributes:
        objective: It returns them as a mapping by name, as a sequence, or as an `Evaluation` with
            them among its metrics.
        names: What they are called, in the order of a sequence.
    """

    objective: ObjectiveFunction
    names: tuple[str, ...]

    def __call__(self, net: Network) -> Any:
        """Evaluate a network, whatever comes of it; `read` understands it."""
        return self.objective(net)

    def read(self, result: Any, seconds: float) -> "Outcome":
        """Return what was measured, as a failure if one of the numbers is NaN or infinite.

        Raises:
            TypeError: They are not the numbers that were to be measured.
        """
        metrics: dict[str, Any] = {}
        cost, error = seconds, ""
        if isinstance(result, SupportsOutcome):
            metrics = {VALUE: result.value, **result.metrics}
            if len(self.names) == 1 and set(result.metrics) <= {f"{VALUE}{VARIANCE}"}:
                # Nothing but the one number that is wanted, as if it had been returned alone.
                metrics = {name.replace(VALUE, self.names[0], 1): metrics[name] for name in metrics}
            cost, error = number("cost", result.cost, least=0.0), str(result.error)
            if math.isnan(number("value", result.value)):
                known = {str(name): number(name, one) for name, one in result.metrics.items()}
                return Outcome(math.nan, known, cost, error or "the value was NaN")
        elif isinstance(result, Mapping):
            metrics = dict(result)
        else:
            if callable(listed := getattr(result, "tolist", None)):
                result = listed()
            many = isinstance(result, Sequence) and not isinstance(result, str | bytes)
            numbers = list(result) if many else [result]
            if not many and isinstance(result, float) and math.isnan(result):
                numbers = [result] * len(self.names)
            if len(numbers) != len(self.names):
                raise TypeError(f"expected {len(self.names)} numbers, {', '.join(self.names)}")
            metrics = dict(zip(self.names, numbers, strict=True))
        for name in self.names:
            if name not in metrics:
                raise TypeError(f"there is no {name!r} among {', '.join(map(repr, metrics))}")
        found = {str(name): number(str(name), entry) for name, entry in metrics.items()}
        _check_variances(found, self.names)
        wrong = [name for name in self.names if not math.isfinite(found[name])]
        if VALUE not in self.names:
            found.pop(VALUE, None)
        if wrong:
            what = "NaN" if math.isnan(found[wrong[0]]) else f"{found[wrong[0]]}"
            return Outcome(math.nan, found, cost, error or f"{wrong[0]} was {what}")
        return Outcome(found[self.names[0]], found, cost, "")

    def __repr__(self) -> str:
        return repr(self.objective)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one evaluation.

    Attributes:
        value: The value, of several objectives the first; NaN when it failed.
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
        earlier: Whether it was known before the search, which did not evaluate it; its number is
            then its place among what was.
    """

    number: int
    network: Network
    outcome: Outcome
    elapsed: float
    earlier: bool = False

    @property
    def value(self) -> float:
        """The value, of several objectives the first; NaN when the evaluation failed."""
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
        reason: Why it ended: `"evaluations"`, `"time"` or `"cost"` (the budget), `"exhausted"` (the
            space has no other network), `"stopped"` (somebody raised `StopSearch`).
        goal: What was sought.
        earlier: What the strategy knew before, by being told or from earlier searches. The best,
            the front and what these had become by each trial are of both.
        objective: How the objective described itself; empty where nobody knows.
    """

    space: SearchSpace
    trials: tuple[Trial, ...]
    reason: str
    goal: Goal = field(default_factory=Goal)
    earlier: tuple[Trial, ...] = ()
    objective: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def best(self) -> Trial | None:
        """The best trial that keeps all bounds, the earliest of equals; None without one.

        Raises:
            ValueError: There are several objectives, see `front`.
        """
        place = self.goal.best(self._known)
        return None if place is None else (*self.earlier, *self.trials)[place]

    @property
    def best_so_far(self) -> Tensor:
        """Best value up to each trial, (num_trials,) float64; NaN before the first.

        Only those count that keep all bounds.

        Raises:
            ValueError: There are several objectives, see `front`.
        """
        return self.goal.best_so_far(self._known)[len(self.earlier) :]

    @property
    def values(self) -> Tensor:
        """All numbers that count of each trial, (num_trials, len(goal.names)) float64."""
        return self._known[len(self.earlier) :]

    @property
    def _known(self) -> Tensor:
        """All numbers that count of what was known before and of each trial."""
        known = (*self.earlier, *self.trials)
        rows = [self.goal.recorded(trial.value, trial.outcome.metrics) for trial in known]
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, len(self.goal.names))

    @property
    def front(self) -> tuple[Trial, ...]:
        """The trials that keep all bounds and that no other one dominates, in order."""
        known = (*self.earlier, *self.trials)
        return tuple(known[place] for place in self.goal.front(self._known))

    @property
    def reference_point(self) -> Tensor:
        """A point a tenth of the front's extent worse than it in all objectives, (m,) float64.

        Raises:
            ValueError: No trial keeps all bounds.
        """
        return self.goal.reference_point(self._known)

    def _repr_html_(self) -> str:
        """Show the best trials, of several objectives the front."""
        if self.goal.several:
            kept, which = list(self.front), "the front"
        else:
            sign = 1.0 if self.goal.direction == "minimize" else -1.0
            feasible = self.goal.feasible(self.values).tolist()
            kept = [
                trial
                for trial, keeps in zip(self.trials, feasible, strict=True)
                if keeps and not trial.failed
            ]
            kept, which = sorted(kept, key=lambda trial: sign * trial.value), "the best"
        rows = [
            (
                trial.number,
                *self.goal.recorded(trial.value, trial.outcome.metrics),
                self.space.to_string(trial.network),
            )
            for trial in kept[:10]
        ]
        failed = sum(trial.failed for trial in self.trials)
        caption = f"SearchResult: {len(self.trials)} trials, {failed} failed; {which}"
        return table_html(("trial", *self.goal.names, "network"), rows, caption)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the trials as a DataFrame, one per line in the order of asking.

        Its columns are `arch` (the string of the network), those of `goal.names`, the other
        metrics, `trial_failed`, `trial_error`, and `trial_cost` and `trial_elapsed` in seconds;
        what a failed trial did not measure is NaN. `objectives.Table(frame, column,
        space=result.space)` reads it.

        Raises:
            ImportError: pandas is not installed.
            ValueError: A metric has the name of one of our columns.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                f"to_pandas needs pandas (pip install 'hotnas-torch[pandas]'): {error}"
            ) from error
        outcomes = [trial.outcome for trial in self.trials]
        texts = [self.space.to_string(trial.network) for trial in self.trials]
        columns: dict[str, Any] = dict(zip(self.goal.names, self.values.T.tolist(), strict=True))
        for name in sorted({name for one in outcomes for name in one.metrics}.difference(columns)):
            columns[name] = [one.metrics.get(name, math.nan) for one in outcomes]
        own = {
            "trial_failed": [trial.failed for trial in self.trials],
            "trial_error": pandas.Series([one.error for one in outcomes], dtype=str),
            "trial_cost": [one.cost for one in outcomes],
            "trial_elapsed": [trial.elapsed for trial in self.trials],
        }
        taken = [name for name in columns if name in own or name == "arch"]
        if taken:
            raise ValueError(
                f"metrics must not be called {taken[0]!r}, as a column is (call it otherwise)"
            )
        return pandas.DataFrame({"arch": pandas.Series(texts, dtype=str), **columns, **own})

    def hypervolume(self, reference: Sequence[float] | Tensor | None = None) -> float:
        """Return the volume of what the front dominates.

        Args:
            reference: Up to where, one number per objective in its units; None takes
                `reference_point`. Searches are compared with one point for all of them.

        Returns:
            The volume in the product of the objectives' units; 0 without a front.

        Raises:
            TypeError, ValueError: `reference` is not one finite number per objective.
        """
        return self.goal.hypervolume(self._known, reference)

    def hypervolume_so_far(self, reference: Sequence[float] | Tensor | None = None) -> Tensor:
        """Return the hypervolume up to each trial, (num_trials,) float64, as `hypervolume`."""
        return self.goal.hypervolume_so_far(self._known, reference)[len(self.earlier) :]


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
    except StopSearch:
        raise
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
        if isinstance(objective, Named):
            return objective.read(result, seconds)
        if isinstance(result, SupportsOutcome):
            cost = number("cost", result.cost)
            if not (math.isfinite(cost) and cost >= 0.0):
                raise TypeError(f"cost must be finite and >= 0 seconds; got {cost}")
            metrics = {str(name): number(name, entry) for name, entry in result.metrics.items()}
            _check_variances(metrics, (VALUE,))
            return _finite(
                number("value", result.value),
                metrics,
                cost,
                str(result.error),
            )
        return _finite(number("value", result), {}, seconds, "")
    except (TypeError, ValueError, AttributeError) as error:
        several = isinstance(result, Mapping) and not isinstance(objective, Named)
        remedy = " (a strategy with objectives= or constraints= takes numbers by name)"
        raise TypeError(
            f"the objective must return {_expected(objective)}; got {result!r} of type "
            f"{type(result).__name__} for {_name(net)}: {error}{remedy if several else ''}"
        ) from error


def _check_variances(metrics: Mapping[str, float], names: Sequence[str]) -> None:
    """Refuse variances of noise that cannot be any; NaN is not known.

    Raises:
        ValueError: One is negative or infinite.
    """
    for name in names:
        variance = metrics.get(f"{name}{VARIANCE}", math.nan)
        if variance < 0.0 or math.isinf(variance):
            raise ValueError(f"{name}{VARIANCE} must be finite and >= 0; got {variance}")


def _expected(objective: ObjectiveFunction) -> str:
    if isinstance(objective, Named):
        names = ", ".join(map(repr, objective.names))
        return f"a mapping or an Evaluation with {names}, or a sequence of them"
    return "a number or an Evaluation"


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
