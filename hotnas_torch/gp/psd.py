"""Positive semi-definite kernels from similarities that are not.

exp(-distance) of an optimal transport distance has negative eigenvalues. Clipping them in one Gram
matrix repairs that matrix and says nothing about the next one. Here the repair is a feature map:
with landmarks Z and similarities k, ::

    phi(x) = k(x, Z) g(K_ZZ),      g(t) ~ t^(-1/2) on the positive eigenvalues, 0 on the others

phi(x)'phi(x') is positive semi-definite for any points. Rows longer than 1 are scaled back to the
unit ball, and what a row lacks to length 1 is variance of its own, so that k(x, x) = 1 throughout.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "DEFAULT_CUTOFF",
    "Spectrum",
    "inverse_root",
    "landmark_features",
    "spectral_function",
    "spectrum",
    "whitener",
]

DEFAULT_CUTOFF = 1e-2
"""Eigenvalues well above it are kept, those well below dropped, for similarities k(x, x) = 1."""

SpectralPair = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A function of the eigenvalues: returns its values and its derivatives, elementwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """What the feature map keeps of a similarity matrix, and what it drops.

    Attributes:
        eigenvalues: All n eigenvalues in ascending order, shape (n,).
        cutoff: Where eigenvalues start to be dropped.
        num_negative: How many are below -`cutoff`.
        num_dropped: How many are below `cutoff`, the negative ones included.
        negative_share: Sum of the sizes of the negative ones over the sum of all sizes.
        dropped_share: Part of the sum of the positive ones that the feature map loses.
    """

    eigenvalues: Tensor
    cutoff: float
    num_negative: int
    num_dropped: int
    negative_share: float
    dropped_share: float

    @property
    def smallest(self) -> float:
        """The smallest eigenvalue."""
        return float(self.eigenvalues[0])

    def __str__(self) -> str:
        return (
            f"{self.num_dropped} of {len(self.eigenvalues)} eigenvalues dropped (cutoff"
            f" {self.cutoff:g}), {self.num_negative} of them negative, down to {self.smallest:.2g}:"
            f" {100 * self.negative_share:.2g} % of the spectrum is negative,"
            f" {100 * self.dropped_share:.2g} % of its positive part is lost"
        )


class _SpectralFunction(torch.autograd.Function):
    """f(A) = U f(L) U' of a symmetric matrix; backward by Daleckii and Krein's theorem."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, function: SpectralPair, scale: float) -> Tensor:
        eigenvalues, vectors = torch.linalg.eigh(matrix)
        values, slopes = function(eigenvalues)
        ctx.save_for_backward(eigenvalues, vectors, values, slopes)
        ctx.scale = scale
        result: Tensor = (vectors * values.unsqueeze(-2)) @ vectors.mT
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a spectral function can be differentiated once (pass create_graph=False)"
            )
        eigenvalues, vectors, values, slopes = ctx.saved_tensors
        differences = divided_differences(eigenvalues, values, slopes, ctx.scale)
        inner = vectors.mT @ (0.5 * (grad + grad.mT)) @ vectors
        return vectors @ (differences * inner) @ vectors.mT, None, None


def divided_differences(nodes: Tensor, values: Tensor, slopes: Tensor, scale: float) -> Tensor:
    """First divided differences of a function between all pairs of its nodes.

    Args:
        nodes: Places t_i, shape (..., n).
        values: f(t_i), shape (..., n).
        slopes: f'(t_i), shape (..., n).
        scale: Distance from 0 within which f may change its course.

    Returns:
        (f(t_i) - f(t_j)) / (t_i - t_j), shape (..., n, n); where t_i and t_j nearly agree, the mean
        of their slopes, which then is the more accurate of the two.
    """
    gap = nodes.unsqueeze(-1) - nodes.unsqueeze(-2)
    size = torch.maximum(nodes.abs().unsqueeze(-1), nodes.abs().unsqueeze(-2)) + scale
    # The quotient loses eps / gap to rounding, the mean slope gap^2 to curvature: equal at eps^1/3.
    close = gap.abs() <= torch.finfo(nodes.dtype).eps ** (1 / 3) * size
    quotient = (values.unsqueeze(-1) - values.unsqueeze(-2)) / torch.where(close, 1.0, gap)
    return torch.where(close, 0.5 * (slopes.unsqueeze(-1) + slopes.unsqueeze(-2)), quotient)


def spectral_function(matrix: Tensor, function: SpectralPair, *, scale: float = 0.0) -> Tensor:
    """Apply a function to the eigenvalues of a symmetric matrix.

    Args:
        matrix: Symmetric, shape (..., n, n), float32/float64; its lower half is read.
        function: Takes eigenvalues, shape (..., n), returns values and derivatives.
        scale: Distance from 0 within which the function may change its course; decides below which
            gap two eigenvalues count as repeated in the backward pass.

    Returns:
        U f(L) U', shape (..., n, n).

    Differentiability: in `matrix`, once, also where eigenvalues repeat: f(A) depends smoothly on A
        where f is smooth, although eigenvectors do not (Daleckii and Krein).

    Complexity: one eigendecomposition; O(n^3) backward.

    Reference: Daleckii and Krein, 1965; Higham, "Functions of Matrices", SIAM 2008, Theorem 3.11.
    """
    apply: Any = _SpectralFunction.apply
    result: Tensor = apply(matrix, function, scale)
    return result


def inverse_root(eigenvalues: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """t^(-1/2) for t well above `cutoff`, falling to 0 below it; 0 for t <= 0.

    g(t) = t^2 / (t^2 + c^2)^(5/4), with g(0) = g'(0) = 0: an eigenvalue that crosses 0 as
    parameters change neither lets a likelihood jump nor blows a feature up.

    Args:
        eigenvalues: Any shape.
        cutoff: c > 0.

    Returns:
        g and its derivative, shaped like `eigenvalues`.
    """
    t = eigenvalues.clamp_min(0.0)
    square = t * t + cutoff * cutoff
    value = t * t * square**-1.25
    return value, t * (2.0 * square - 2.5 * t * t) * square**-2.25


def whitener(similarity: Tensor, cutoff: float = DEFAULT_CUTOFF) -> Tensor:
    """g(K_ZZ), what turns similarities to the landmarks into features.

    Args:
        similarity: K_ZZ with unit diagonal, shape (..., n, n).
        cutoff: Where eigenvalues start to be dropped, > 0.

    Returns:
        Shape (..., n, n), differentiable once.
    """
    return spectral_function(similarity, lambda t: inverse_root(t, cutoff), scale=cutoff)


def landmark_features(similarity: Tensor, whitening: Tensor) -> Tensor:
    """Features phi(x) in the unit ball.

    Args:
        similarity: k(x, Z), shape (..., m, n).
        whitening: What `whitener` returned for K_ZZ, shape (..., n, n).

    Returns:
        Shape (..., m, n), every row of length at most 1.
    """
    features = similarity @ whitening
    length: Tensor = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return features / length.clamp_min(1.0)


def spectrum(similarity: Tensor, cutoff: float = DEFAULT_CUTOFF) -> Spectrum:
    """Report which eigenvalues of a similarity matrix the feature map drops.

    Args:
        similarity: K_ZZ, shape (n, n).
        cutoff: Where eigenvalues start to be dropped, > 0.

    Raises:
        ValueError: Not a square matrix.
    """
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ValueError(
            f"similarity must be one square matrix; got shape {tuple(similarity.shape)}"
        )
    eigenvalues = torch.linalg.eigvalsh(similarity.detach())
    positive = eigenvalues.clamp_min(0.0)
    value, _ = inverse_root(eigenvalues, cutoff)
    kept = (positive * value).square().minimum(positive)
    total = float(positive.sum())
    sizes = float(eigenvalues.abs().sum())
    return Spectrum(
        eigenvalues=eigenvalues,
        cutoff=cutoff,
        num_negative=int((eigenvalues < -cutoff).sum()),
        num_dropped=int((eigenvalues < cutoff).sum()),
        negative_share=(sizes - total) / sizes if sizes else 0.0,
        dropped_share=1.0 - float(kept.sum()) / total if total else 0.0,
    )
