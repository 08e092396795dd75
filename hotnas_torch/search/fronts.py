"""Points that several numbers judge, smaller being better: dominance, fronts, hypervolume."""

import math

import torch
from torch import Tensor

__all__ = ["hypervolume", "nondominated", "nondominated_fronts", "reference_point"]

# Share of a front's extent by which a reference point lies beyond it.
_MARGIN = 0.1


def nondominated(losses: Tensor) -> Tensor:
    """Return which points no other one dominates; equal ones are all on the front.

    Args:
        losses: (n, m), smaller is better.

    Returns:
        (n,) bool.

    Complexity: O(n f m) for a front of f points.
    """
    # In this order nothing comes before what dominates it.
    order = sorted(range(len(losses)), key=losses.tolist().__getitem__)
    front = losses[:0]
    found = torch.zeros(len(losses), dtype=torch.bool)
    for place in order:
        point = losses[place]
        if not bool(((front <= point).all(dim=-1) & (front < point).any(dim=-1)).any()):
            found[place] = True
            front = torch.cat([front, point[None]])
    return found


def nondominated_fronts(losses: Tensor) -> list[list[int]]:
    """Sort points into fronts, each of what nothing dominates once those before are gone.

    Args:
        losses: (n, m), smaller is better.

    Returns:
        Places by front, within each from the largest crowding distance to the smallest.

    Complexity: O(n^2 m).

    Reference: Deb, Pratap, Agarwal and Meyarivan, A Fast and Elitist Multiobjective Genetic
        Algorithm: NSGA-II, IEEE Transactions on Evolutionary Computation, 2002.
    """
    below = (losses[:, None] <= losses).all(dim=-1)
    dominates = below & (losses[:, None] < losses).any(dim=-1)
    left = torch.ones(len(losses), dtype=torch.bool)
    fronts: list[list[int]] = []
    while bool(left.any()):
        beaten = (dominates & left[:, None]).any(dim=0)
        places = (left & ~beaten).nonzero().flatten()
        order = _crowding(losses[places]).argsort(descending=True, stable=True)
        fronts.append(places[order].tolist())
        left[places] = False
    return fronts


def _crowding(losses: Tensor) -> Tensor:
    """Return how far the neighbours of each point of a front are apart, (n,); ends are infinite."""
    total = torch.zeros(len(losses), dtype=torch.float64)
    for column in losses.double().unbind(dim=1):
        order = column.argsort(stable=True)
        ordered = column[order]
        gaps = torch.full_like(ordered, math.inf)
        extent = ordered[-1] - ordered[0]
        if len(ordered) > 2 and extent > 0.0:
            gaps[1:-1] = (ordered[2:] - ordered[:-2]) / extent
        elif extent == 0.0:
            gaps.zero_()
        total[order] += gaps
    return total


def reference_point(front: Tensor) -> Tensor:
    """Return a point that is worse than a front by a tenth of its extent, in all numbers.

    Args:
        front: (n, m), n >= 1, smaller is better.

    Returns:
        (m,). Where all points are equal in a number, a tenth of its size stands for the extent.

    Reference: Ishibuchi et al., Reference Point Specification in Hypervolume Calculation for Fair
        Comparison and Efficient Search, GECCO 2017; BoTorch infers the same.
    """
    worst = front.amax(dim=0)
    extent = worst - front.amin(dim=0)
    extent = torch.where(extent > 0.0, extent, worst.abs())
    return worst + _MARGIN * torch.where(extent > 0.0, extent, torch.ones_like(extent))


def hypervolume(points: Tensor, reference: Tensor) -> float:
    """Return the volume that points dominate up to a reference point.

    Args:
        points: (n, m), smaller is better; dominated ones and those beyond the reference count for
            nothing.
        reference: (m,).

    Complexity: O(n log n) for two numbers, O(n^(m-1)) for more.
    """
    inside = points[(points < reference).all(dim=-1)]
    if not len(inside):
        return 0.0
    return _volume(sorted({tuple(point) for point in inside.tolist()}), reference.tolist())


def _volume(points: list[tuple[float, ...]], reference: list[float]) -> float:
    """Sum slices along the last number, each the volume of what lies below it."""
    if len(reference) == 1:
        return reference[0] - min(point[0] for point in points)
    if len(reference) == 2:
        total, height = 0.0, reference[1]
        for across, along in sorted(points):
            if along < height:
                total += (reference[0] - across) * (height - along)
                height = along
        return total
    ordered = sorted(points, key=lambda point: point[-1])
    total = 0.0
    for place, point in enumerate(ordered):
        end = ordered[place + 1][-1] if place + 1 < len(ordered) else reference[-1]
        if end > point[-1]:
            below = [other[:-1] for other in ordered[: place + 1]]
            total += (end - point[-1]) * _volume(below, reference[:-1])
    return total
