"""Hyperband's brackets: many evaluations with a small budget, the best of them with larger ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hotnas_torch.arguments import number

__all__ = ["Bracket", "brackets_between", "brackets_of"]

# Whether a ratio of budgets is a power of eta, in spite of rounding.
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Bracket:
    """One run of successive halving.

    Attributes:
        sizes: Points on each rung.
        budgets: Budget of each rung.
    """

    sizes: tuple[int, ...]
    budgets: tuple[float, ...]


def brackets_of(min_budget: float, max_budget: float, eta: float) -> tuple[Bracket, ...]:
    """Return one round of Hyperband's brackets, the most exploring one first.

    With L = floor(log_eta(max_budget / min_budget)) + 1 rungs, bracket s = L - 1, ..., 0 starts
    n = ceil(floor(L / (s + 1)) eta^s) points with the budget max_budget eta^-s, and goes on with
    max(floor(n eta^-i), 1) of them with eta^i times that.

    Args:
        min_budget: Smallest budget, > 0; where the ratio is no power of eta, the smallest used is
            larger.
        max_budget: Largest budget, >= `min_budget`.
        eta: Share of the points that stay is 1 / eta, > 1.

    Raises:
        ValueError: A number out of range.

    Reference: Li et al., Hyperband, JMLR 2018, Algorithm 1, with the sizes of Falkner, Klein and
        Hutter's HpBandSter.

    Example:
        >>> [bracket.sizes for bracket in brackets_of(30, 120, 2)]
        [(4, 2, 1), (2, 1), (3,)]
    """
    min_budget, max_budget = number("min_budget", min_budget), number("max_budget", max_budget)
    eta = number("eta", eta)
    if not 0.0 < min_budget < math.inf:
        raise ValueError(f"min_budget must be positive and finite; got {min_budget}")
    if not min_budget <= max_budget < math.inf:
        raise ValueError(
            f"max_budget must be finite and at least min_budget, {min_budget:g}; got {max_budget:g}"
        )
    if not 1.0 < eta < math.inf:
        raise ValueError(f"eta must be finite and greater than 1; got {eta}")
    num_rungs = math.floor(math.log(max_budget / min_budget) / math.log(eta) + _TOLERANCE) + 1
    return brackets_between(
        [max_budget * eta ** -float(rest) for rest in reversed(range(num_rungs))]
    )


def brackets_between(budgets: Sequence[float]) -> tuple[Bracket, ...]:
    """Return one round of brackets whose rungs have given budgets, as `brackets_of`.

    Points that go on are fewer by as much as budgets grow.

    Args:
        budgets: Of the rungs, positive, from small to large.

    Example:
        >>> [bracket.sizes for bracket in brackets_between([12, 200])]
        [(17, 1), (2,)]
    """
    found = []
    for first in range(len(budgets)):
        rungs = tuple(budgets[first:])
        start = math.ceil(len(budgets) // len(rungs) * rungs[-1] / rungs[0] - _TOLERANCE)
        sizes = tuple(
            max(math.floor(start * rungs[0] / budget + _TOLERANCE), 1) for budget in rungs
        )
        found.append(Bracket(sizes, rungs))
    return tuple(found)
