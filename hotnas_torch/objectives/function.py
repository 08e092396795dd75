"""Any Python callable as an objective."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hotnas_torch.arch import Network
from hotnas_torch.callables import describe_callable
from hotnas_torch.objectives.base import Evaluation

__all__ = ["Function"]


class Function:
    """A Python callable as an objective; its wall-clock time is the cost.

    Args:
        function: Takes a `Network` and returns the value to minimise: a
            number, NaN for a failure, or an `Evaluation` (whose own cost is kept where it is
            not 0). Where several numbers count, a mapping of names to them or a sequence, as
            without this class. For evaluation in worker processes it must be importable, that is,
            defined at the top level of a module.
        name: What `describe` calls it; default: its qualified name.

    Raises:
        TypeError: `function` is not callable.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.Pooling()
        >>> objective = Function(lambda net: net.num_cells, name="depth")
        >>> objective(space.from_string("[7,1,2]")).value
        10.0
    """

    def __init__(
        self,
        function: Callable[[Network], float | Evaluation | Mapping[str, float] | Sequence[float]],
        *,
        name: str | None = None,
    ) -> None:
        if not callable(function):
            raise TypeError(f"function must be callable; got {function!r}")
        self.function = function
        self.name = name or getattr(function, "__qualname__", type(function).__qualname__)

    def __call__(self, net: Network) -> Any:
        """Call the function and measure its time.

        Returns:
            An `Evaluation`; several numbers as they are, since the search knows which it wants.

        Raises:
            TypeError: It returned nothing of what is taken.
            NonFiniteValueError: It returned an infinite value; in a search, a failed evaluation.
        """
        started = time.perf_counter()
        result: Any = self.function(net)
        seconds = time.perf_counter() - started
        if isinstance(result, Evaluation):
            if result.cost == 0.0:
                return Evaluation(result.value, result.metrics, seconds, result.error)
            return result
        return result if _is_several(result) else Evaluation(result, cost=seconds)

    def describe(self) -> dict[str, Any]:
        """Return the kind, the name, and what tells the function from others.

        That is a digest of its code and what it works with: a partial's arguments, defaults, and
        variables from outside, without those that it writes to.
        """
        return describe_callable(self.function) | {"name": self.name}

    def __repr__(self) -> str:
        return f"Function({self.name})"


def _is_several(result: Any) -> bool:
    """Whether this is more than a number: by name, in order, in an array, or someone's record."""
    if isinstance(result, str | bytes):
        return False
    listed = isinstance(result, Mapping | Sequence) or getattr(result, "ndim", 0) > 0
    return listed or hasattr(result, "metrics")
