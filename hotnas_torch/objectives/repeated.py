"""An objective evaluated several times: the mean, and how far it can be trusted."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, number
from hotnas_torch.callables import describe_callable
from hotnas_torch.objectives.base import Evaluation

__all__ = ["Repeated"]


class Repeated:
    """Evaluates each network several times and returns the mean, for objectives with noise.

    The variance of each mean, that of the evaluations divided by their number, is among the metrics
    as `value_variance` and `<name>_variance`: Gaussian processes on distances take it for known.
    Evaluations that fail are left out; the network fails if all do. The cost is the sum.

    Args:
        objective: What to evaluate: an objective, or a function of a network that returns a number
            or, where several count, a mapping of names to numbers. It must differ from call to
            call: one that seeds itself gives the same value each time.
        times: How often, >= 2.

    Raises:
        TypeError: `objective` is not callable, or `times` no int.
        ValueError: `times` is below 2.

    Example:
        >>> import itertools
        >>> import hotnas_torch as ht
        >>> noise = itertools.cycle([-1.0, 0.0, 1.0])
        >>> objective = Repeated(lambda net: net.num_cells + next(noise), times=3)
        >>> found = objective(ht.spaces.Pooling().from_string("[7,1,2]"))
        >>> found.value, round(found.metrics["value_variance"], 3)
        (10.0, 0.333)
    """

    def __init__(self, objective: Callable[[Network], float | Evaluation], times: int = 3) -> None:
        if not callable(objective):
            raise TypeError(f"objective must be callable; got {objective!r}")
        self.objective = objective
        self.times = integer("times", times, least=2)

    def __call__(self, net: Network) -> Evaluation:
        """Evaluate a network.

        Raises:
            TypeError: The objective returned neither a number nor an Evaluation.
        """
        started = time.perf_counter()
        results = [self._once(net) for _ in range(self.times)]
        cost = math.fsum(one.cost for one in results) or time.perf_counter() - started
        found = [one for one in results if not one.failed]
        if not found:
            return Evaluation.failure(results[0].error, cost=cost)
        means: dict[str, float] = {}
        variances: dict[str, float] = {}
        for name in found[0].metrics:
            if not all(name in one.metrics for one in found):
                continue
            means[name], variance = _mean([one.metrics[name] for one in found])
            variances[f"{name}_variance"] = variance
        value, variances["value_variance"] = _mean([one.value for one in found])
        if len(found) == 1:
            variances = {}
        return Evaluation(value, means | variances, cost)

    def _once(self, net: Network) -> Evaluation:
        result: Any = self.objective(net)
        if isinstance(result, Evaluation):
            return result
        if isinstance(result, Mapping):
            # Several objectives: what fails of them makes all of it fail.
            failed = any(math.isnan(number(str(name), one)) for name, one in result.items())
            return Evaluation(math.nan if failed else next(iter(result.values())), result)
        return Evaluation(result)

    def describe(self) -> dict[str, Any]:
        """Return what the values depend on: the objective, and how often."""
        own = getattr(self.objective, "describe", None)
        described = own() if callable(own) else describe_callable(self.objective)
        return {"kind": "repeated", "times": self.times, "objective": described}

    def __repr__(self) -> str:
        return f"Repeated({self.objective!r}, times={self.times})"


def _mean(numbers: Sequence[float]) -> tuple[float, float]:
    """Return the mean, and the variance of it as an estimate."""
    mean = math.fsum(one / len(numbers) for one in numbers)
    squares = math.fsum((one - mean) ** 2 for one in numbers)
    return mean, squares / max(1, len(numbers) - 1) / len(numbers)
