"""The regular grid on the simplex: rounding to it, its points and their neighbours."""

import itertools
import math

import torch
from torch import Tensor

from hotnas_torch.arguments import integer

__all__ = [
    "draw_dirichlet",
    "grid_neighbors",
    "grid_points",
    "num_arrangements",
    "num_encodings",
    "round_to_grid",
]

# What a product such as 6 * (1 / 6) may be off by, and how far a point may be off the simplex.
_GUARD = 1e-9
_TOLERANCE = 1e-6


def round_to_grid(points: Tensor, total: int) -> Tensor:
    r"""Round points of the simplex to the nearest whole counts.

    .. math:: m = N \tilde p, \quad g = N - \sum_i \lfloor m_i \rfloor

    and the g entries with the largest fractional parts are rounded up, the others down; of equal
    ones those with the smallest index. No grid point is nearer in any l_p norm, p >= 1.

    Args:
        points: Distributions over operations, shape (..., k), >= 0, summing to 1.
        total: N, the number of places that hold an operation, >= 0.

    Returns:
        Counts, shape (..., k), int64, summing to `total`.

    Raises:
        ValueError: `total` is negative, or a point is off the simplex; the message gives it.

    Complexity: O(k log k) per point.

    Reference: Wan et al., ANASOD, CVPR 2022, Eq. 1; Bomze, Gollowitzer and Yildirim, Rounding on
        the Standard Simplex, Journal of Global Optimization 2014.

    Example:
        >>> round_to_grid(torch.tensor([0.5, 0.3, 0.2]), 4).tolist()
        [2, 1, 1]
    """
    integer("total", total, least=0)
    scaled = total * check_simplex(points)
    whole = (scaled + _GUARD).floor()
    left = total - whole.sum(dim=-1, keepdim=True)
    # In steps of the guard, so that equal parts stay equal and the sort leaves them in order.
    parts = ((scaled - whole) / _GUARD).round()
    order = parts.argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1)
    return (whole + (rank < left)).long()


def check_simplex(points: Tensor) -> Tensor:
    """Return points (..., k) as float64, or raise a ValueError that names one off the simplex."""
    points = points.to(torch.float64)
    off = (points.sum(dim=-1) - 1.0).abs() > _TOLERANCE
    wrong = off | ~torch.isfinite(points).all(dim=-1) | (points < -_TOLERANCE).any(dim=-1)
    if bool(wrong.any()):
        place = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(
            "points must be >= 0 and sum to 1 along the last dimension; got "
            f"{points[place].tolist()}{f' at {list(place)}' if place else ''} (divide counts by "
            "their sum)"
        )
    return points.clamp_min(0.0)


def grid_points(total: int, num_operations: int) -> Tensor:
    """Return all counts of `num_operations` operations that sum to `total`.

    Args:
        total: N >= 0.
        num_operations: k >= 1.

    Returns:
        (num_encodings(N, k), k) int64, in lexicographic order.

    Example:
        >>> grid_points(2, 2).tolist()
        [[0, 2], [1, 1], [2, 0]]
    """
    size = num_encodings(total, num_operations)
    # Stars and bars: k - 1 bars among N + k - 1 places, the counts are the gaps between them.
    places = range(total + num_operations - 1)
    bars = torch.tensor(list(itertools.combinations(places, num_operations - 1)))
    bars = bars.reshape(size, num_operations - 1).long()
    first, last = bars.new_full((size, 1), -1), bars.new_full((size, 1), len(places))
    return torch.cat([first, bars, last], dim=1).diff(dim=1) - 1


def grid_neighbors(counts: Tensor) -> Tensor:
    """Return the counts that differ by one operation exchanged for another.

    Args:
        counts: (k,) integers >= 0.

    Returns:
        (m, k) int64 with m = k - 1 times the number of operations that occur.

    Raises:
        ValueError: `counts` is not a vector of integers >= 0.

    Example:
        >>> grid_neighbors(torch.tensor([1, 1, 3])).tolist()
        [[0, 2, 3], [0, 1, 4], [2, 0, 3], [1, 0, 4], [2, 1, 2], [1, 2, 2]]
    """
    if counts.dim() != 1 or counts.is_floating_point() or bool((counts < 0).any()):
        raise ValueError(f"counts must be a vector of integers >= 0; got {counts!r}")
    unit = torch.eye(len(counts), dtype=torch.int64)
    taken, given = (~unit.bool()).nonzero().T
    moved = counts.long() - unit[taken] + unit[given]
    return moved[counts[taken] > 0]


def num_encodings(total: int, num_operations: int) -> int:
    """Return the number of grid points, binomial(N + k - 1, k - 1).

    Raises:
        ValueError: `total` is negative or `num_operations` below 1.

    Example:
        >>> num_encodings(6, 5)
        210
    """
    integer("total", total, least=0)
    integer("num_operations", num_operations, least=1)
    return math.comb(total + num_operations - 1, num_operations - 1)


def num_arrangements(counts: Tensor) -> list[int]:
    """Return in how many orders the operations can be placed, N! / (n_1! ... n_k!).

    Args:
        counts: (n, k) integers >= 0.

    Example:
        >>> num_arrangements(torch.tensor([[4, 2], [6, 0]]))
        [15, 1]
    """
    return [
        math.factorial(sum(row)) // math.prod(math.factorial(count) for count in row)
        for row in counts.tolist()
    ]


def draw_dirichlet(concentration: Tensor, num: int, *, generator: torch.Generator) -> Tensor:
    """Draw points of the simplex.

    Args:
        concentration: (k,), > 0; ones are the uniform distribution.
        num: How many, >= 0.
        generator: Source of randomness.

    Returns:
        (num, k) float64.

    Raises:
        ValueError: A concentration is not positive.
    """
    if not bool((concentration > 0).all()):
        raise ValueError(f"concentration must be positive; got {concentration.tolist()}")
    seed = torch.randint(2**62, (), generator=generator, device=generator.device).item()
    # torch.distributions draws from global state only, here on the CPU.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(seed))
        drawn: Tensor = torch.distributions.Dirichlet(concentration.double().cpu()).sample(
            torch.Size([num])
        )
    return drawn
