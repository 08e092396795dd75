"""Sampling sets of a given size from a determinantal point process."""

import torch
from torch import Tensor

__all__ = ["sample_kdpp"]

# Eigenvalues below this share of the largest one are rounding, and would be drawn without meaning.
_SMALLEST = 1e-14


def sample_kdpp(matrix: Tensor, size: int, *, generator: torch.Generator) -> list[int]:
    r"""Draw a set S of `size` items with probability proportional to det(L_S).

    Exact: eigenvectors are drawn first, by the elementary symmetric polynomials of the eigenvalues,
    then items from the projection that the drawn ones span.

    Args:
        matrix: L, symmetric and positive semi-definite, (N, N) float64.
        size: Number of items, 0 <= size <= N.
        generator: Source of randomness.

    Returns:
        `size` different places, ascending.

    Raises:
        ValueError: `matrix` is not square or not finite, or its rank is below `size`.

    Complexity: O(N^3) for the eigenvalues, O(N size^3) for the draws.

    Reference: Kulesza and Taskar, k-DPPs: Fixed-Size Determinantal Point Processes, ICML 2011,
        Algorithm 2.

    Example:
        >>> L = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).double()
        >>> # Items 0 and 1 are the same, so they are never together.
        >>> 2 in sample_kdpp(L, 2, generator=torch.Generator().manual_seed(0))
        True
    """
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix must be square; got shape {tuple(matrix.shape)}")
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError("matrix must be finite")
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    top = eigenvalues[-1].clamp_min(torch.finfo(matrix.dtype).tiny) if len(matrix) else 1.0
    # Only ratios matter, and products of many numbers should stay near 1.
    shares = eigenvalues / top
    shares = torch.where(shares > _SMALLEST, shares, 0.0)
    rank = int((shares > 0).sum())
    if not 0 <= size <= rank:
        raise ValueError(f"size must be between 0 and the rank of matrix, {rank}; got {size}")
    chosen = _draw_vectors(shares.tolist(), size, generator)
    return sorted(_draw_items(vectors[:, chosen], generator))


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, device=generator.device, dtype=torch.float64))


def _draw_vectors(shares: list[float], size: int, generator: torch.Generator) -> list[int]:
    """Draw `size` eigenvectors with probability proportional to the product of their values."""
    # polynomials[n][k]: sum over subsets of k of the first n values of their products.
    polynomials = [[1.0] + [0.0] * size]
    for share in shares:
        last = polynomials[-1]
        polynomials.append([1.0] + [last[k] + share * last[k - 1] for k in range(1, size + 1)])
    chosen: list[int] = []
    for n in range(len(shares), 0, -1):
        left = size - len(chosen)
        if left == 0:
            break
        taken = shares[n - 1] * polynomials[n - 1][left - 1]
        if left == n or _uniform(generator) * polynomials[n][left] < taken:
            chosen.append(n - 1)
    return chosen


def _draw_items(basis: Tensor, generator: torch.Generator) -> list[int]:
    """Draw one item per column from the projection onto orthonormal columns (N, k)."""
    items: list[int] = []
    while basis.shape[1]:
        weights = basis.square().sum(1)
        weights[items] = 0.0
        total = weights.cumsum(0)
        item = int(torch.searchsorted(total, _uniform(generator) * total[-1], right=True))
        item = min(item, len(weights) - 1)
        items.append(item)
        # What is left is orthogonal to the item: clear its row, then one column is dependent.
        pivot = int(basis[item].abs().argmax())
        column = basis[:, pivot : pivot + 1] / basis[item, pivot]
        rest = basis - column * basis[item]
        keep = [k for k in range(basis.shape[1]) if k != pivot]
        basis = torch.linalg.qr(rest[:, keep]).Q if keep else basis[:, :0]
    return items
