"""What a solver has after each iteration."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from torch import Tensor

from hotnas_torch.errors import ConvergenceWarning
from hotnas_torch.ot.problem import check_count
from hotnas_torch.ot.result import SolveStatus

__all__ = ["trace"]


class _Iterated(Protocol):
    """What results of solvers that iterate have."""

    status: Tensor


Result = TypeVar("Result", bound=_Iterated)


def trace(
    solver: Callable[..., Result], *inputs: Any, max_iter: int = 100, **options: Any
) -> Iterator[Result]:
    """Yield the result of a solver as it is after 1, 2, 3, ... iterations.

    Solvers are deterministic, so what they return with `max_iter=k` is where they are after k
    iterations: objectives, gaps or residuals, plans and duals, of every item.

    Args:
        solver: `sinkhorn`, `fgw`, `partial_fgw` or `entropic_fgw`, or any function that takes
            `max_iter` and returns a result with `status`.
        *inputs: Its tensors.
        max_iter: Most iterations.
        **options: Its settings. Values are checked once; nothing warns of items that are not
            solved yet.

    Yields:
        Results, the last one when every item has converged or ended, or after `max_iter`.

    Raises:
        TypeError, ValueError: As the solver; or `max_iter` is out of range.

    Complexity:
        k iterations are run anew for the k-th result: O(max_iter^2) iterations in all.

    Example:
        >>> import torch, hotnas_torch as ht
        >>> cost = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0]], dtype=torch.float64)
        >>> steps = list(ht.ot.trace(ht.ot.sinkhorn, cost, epsilon=0.5))
        >>> len(steps) == int(steps[-1].iterations), bool(steps[-1].converged)
        (True, True)
        >>> bool(steps[3].residual < steps[0].residual)
        True
    """
    if not _takes_max_iter(solver):
        name = getattr(solver, "__name__", repr(solver))
        msg = f"solver must take max_iter, and {name} does not: it is solved in one go"
        raise TypeError(msg)
    return _trace(solver, inputs, check_count("max_iter", max_iter), options)


def _takes_max_iter(solver: Callable[..., Any]) -> bool:
    known = inspect.signature(solver).parameters
    return "max_iter" in known or any(p.kind is p.VAR_KEYWORD for p in known.values())


def _trace(
    solver: Callable[..., Result], inputs: tuple[Any, ...], max_iter: int, options: dict[str, Any]
) -> Iterator[Result]:
    if options.pop("validate", True):
        # The checks alone: what is not solved after one iteration is no news.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            yield (result := solver(*inputs, max_iter=1, **options))
    else:
        yield (result := solver(*inputs, max_iter=1, validate=False, **options))
    for count in range(2, max_iter + 1):
        if not (result.status == SolveStatus.MAX_ITER.value).any():
            return
        yield (result := solver(*inputs, max_iter=count, validate=False, **options))
