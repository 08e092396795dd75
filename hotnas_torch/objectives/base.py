"""What every objective is: a function from a network to a value to minimise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from hotnas_torch.arch import Network
from hotnas_torch.arguments import finite, number

__all__ = ["Evaluation", "Objective"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one evaluation of a network gave.

    Args:
        value: The value to minimise; NaN when the evaluation failed.
        metrics: Anything else that was measured, by name, in the units of its source.
        cost: Seconds that the evaluation took, >= 0; 0 for a value that was looked up.
        error: Why it failed; empty when it did not.

    Raises:
        TypeError: A number is not a real number, or a name not a str.
        NonFiniteValueError: `value` is infinite; a search records that as a failed evaluation.
        ValueError: `cost` is negative or not finite.
    """

    value: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    cost: float = 0.0
    error: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", finite("value", self.value))
        object.__setattr__(self, "cost", number("cost", self.cost, least=0.0))
        metrics = {}
        for name, value in self.metrics.items():
            if not isinstance(name, str):
                raise TypeError(f"metrics must be named by str; got {name!r}")
            metrics[name] = number(f"metrics[{name!r}]", value)
        object.__setattr__(self, "metrics", metrics)

    @property
    def failed(self) -> bool:
        """Whether there is no value."""
        return math.isnan(self.value)

    @classmethod
    def failure(cls, error: str, *, cost: float = 0.0) -> "Evaluation":
        """Build the record of an evaluation that gave no value, and why."""
        return cls(math.nan, cost=cost, error=error)


@runtime_checkable
class Objective(Protocol):
    """A function to minimise over networks.

    The result for a network must not depend on which networks were evaluated before, so that
    evaluations may run in any order and in other processes.
    """

    def __call__(self, net: Network) -> Evaluation:
        """Evaluate one network."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what the values depend on, ready for `json.dumps`.

        A search that is resumed compares it with what it was started with.
        """
        ...
