"""NSGA-II over the unit cube, one population at a time as tensors."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["crowding_distances", "domination_ranks", "nsga2"]

_CROSSOVER_SHARE = 0.9
_CROSSOVER_INDEX = 15.0
_MUTATION_INDEX = 20.0


def domination_ranks(values: Tensor) -> Tensor:
    """Return number of the front of each point, 0 for points that no other dominates.

    A point dominates another if it is at least as large in every objective and larger in one.

    Args:
        values: N points, larger is better, (N, m).

    Returns:
        (N,) int64. Points of front k are dominated by points of the fronts before alone.

    Complexity: O(m N^2) and O(N^2) per front.
    """
    at_least = (values[:, None] >= values[None]).all(dim=-1)
    dominates = at_least & ~at_least.T
    ranks = torch.full((len(values),), -1, dtype=torch.int64, device=values.device)
    front = 0
    while bool((ranks < 0).any()):
        left = ranks < 0
        free = left & ~(dominates & left[:, None]).any(dim=0)
        ranks[free] = front
        front += 1
    return ranks


def crowding_distances(values: Tensor) -> Tensor:
    """How far apart the neighbours of each point of a front are, summed over objectives.

    Args:
        values: N points, (N, m).

    Returns:
        (N,); in each objective the gap between the next smaller and the next larger value as a
        share of the range, infinite at both ends.

    Reference: Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, 2002,
        Section III-B.
    """
    if len(values) <= 2:
        return values.new_full((len(values),), math.inf)
    ordered, order = values.sort(dim=0)
    span = ordered[-1] - ordered[0]
    gaps = torch.full_like(values, math.inf)
    gaps[1:-1] = (ordered[2:] - ordered[:-2]) / torch.where(span > 0.0, span, 1.0)
    return torch.zeros_like(values).scatter(0, order, gaps).sum(dim=1)


def nsga2(
    function: Callable[[Tensor], Tensor],
    initial: Tensor,
    *,
    generations: int,
    generator: torch.Generator,
    move: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> tuple[Tensor, Tensor]:
    """Maximise several objectives at once.

    Binary tournaments by front and crowding choose parents; children come from simulated binary
    crossover (with probability 0.9, index 15, cut off at the borders) and polynomial mutation (one
    column each on average, index 20). The better half of parents and children is the next
    generation.

    Args:
        function: Maps rows (N, d) to values (N, m).
        initial: First generation, (P, d) in [0, 1], P >= 2.
        generations: How many generations of P children follow, >= 0.
        generator: Source of randomness.
        move: Applied to children before they are evaluated, for example to round columns.

    Returns:
        The last generation (P, d) and its values (P, m), the first front at the start, less crowded
        points first.

    Complexity: P * (generations + 1) evaluations.

    Reference: Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, 2002.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> first = torch.rand(20, 1, generator=generator)
        >>> rows, values = nsga2(  # everything between 0.2 and 0.6 is a compromise
        ...     lambda x: -torch.cat([(x - 0.2).abs(), (x - 0.6).abs()], dim=1),
        ...     first, generations=20, generator=generator,
        ... )
        >>> bool(((rows > 0.19) & (rows < 0.61)).all())
        True
    """
    size = len(initial)
    rows, values = _best(initial, function(initial), size)
    for _ in range(generations):
        first, second = (rows[_tournament(size, generator).to(rows.device)] for _ in range(2))
        children = move(_mutated(_crossed(first, second, generator), generator))
        rows, values = _best(
            torch.cat([rows, children]), torch.cat([values, function(children)]), size
        )
    return rows, values


def _best(rows: Tensor, values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the first `size` by front and crowding, in that order."""
    ranks = domination_ranks(values)
    crowding = values.new_zeros(len(values))
    for front in range(int(ranks.max()) + 1):
        members = ranks == front
        crowding[members] = crowding_distances(values[members])
    order = torch.argsort(crowding, descending=True, stable=True)
    order = order[torch.argsort(ranks[order], stable=True)][:size]
    return rows[order], values[order]


def _tournament(size: int, generator: torch.Generator) -> Tensor:
    """Place of winners; as members are ordered, the best first, the earlier of two wins."""
    drawn = torch.randint(size, (2, size), generator=generator, device=generator.device)
    return drawn.amin(dim=0)


def _crossed(first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
    """One child of each pair of parents."""
    uniform = _uniform(first, generator)
    power = 1.0 / (_CROSSOVER_INDEX + 1.0)
    spread = torch.where(
        uniform <= 0.5, 2.0 * uniform, 1.0 / (2.0 * (1.0 - uniform)).clamp_min(1e-12)
    )
    child = 0.5 * (first + second) + 0.5 * spread**power * (first - second)
    crossed = _uniform(first[:, :1], generator) < _CROSSOVER_SHARE
    taken = crossed & (_uniform(first, generator) < 0.5)
    return torch.where(taken, child, first).clamp(0.0, 1.0)


def _mutated(rows: Tensor, generator: torch.Generator) -> Tensor:
    uniform = _uniform(rows, generator)
    power = 1.0 / (_MUTATION_INDEX + 1.0)
    shift = torch.where(
        uniform < 0.5, (2.0 * uniform) ** power - 1.0, 1.0 - (2.0 * (1.0 - uniform)) ** power
    )
    moved = _uniform(rows, generator) < 1.0 / rows.shape[1]
    return torch.where(moved, rows + shift, rows).clamp(0.0, 1.0)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=generator.device)
    return drawn.to(like.device)
