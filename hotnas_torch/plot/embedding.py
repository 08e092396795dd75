"""Points in the plane whose distances are those of a matrix, as nearly as possible."""

import numpy as np

from hotnas_torch.plot.figure import FloatArray

__all__ = ["embed"]


def embed(distances: FloatArray, *, max_iter: int = 300, tol: float = 1e-5) -> FloatArray:
    """Metric multidimensional scaling into the plane by stress majorisation.

    Starts from classical scaling, so that the result is the same every time.

    Args:
        distances: Symmetric, >= 0, zero diagonal, shape (N, N), N >= 1.
        max_iter: Most majorisation steps, each O(N^2).
        tol: Relative fall of the stress at which to stop.

    Returns:
        Points, shape (N, 2), with mean 0, the first axis the longer one.

    Reference: de Leeuw, Applications of Convex Analysis to Multidimensional Scaling, 1977.
    """
    size = len(distances)
    points = _classical(distances)
    stress = np.inf
    for _ in range(max_iter):
        between = _between(points)
        before, stress = stress, float(((between - distances) ** 2).sum())
        if not before - stress > tol * stress:
            break
        ratio = np.divide(distances, between, out=np.zeros_like(between), where=between > 0.0)
        weights = -ratio
        np.fill_diagonal(weights, ratio.sum(axis=1))
        points = weights @ points / size
    points -= points.mean(axis=0)
    _, _, axes = np.linalg.svd(points, full_matrices=False)
    turned: FloatArray = points @ axes.T if size > 1 else points
    return turned


def _classical(distances: FloatArray) -> FloatArray:
    """Torgerson's scaling: the leading eigenvectors of the doubly centred squares."""
    squares = distances**2
    centred = squares - squares.mean(axis=0) - squares.mean(axis=1)[:, None] + squares.mean()
    values, vectors = np.linalg.eigh(-0.5 * centred)
    points = np.zeros((len(distances), 2))
    for axis in range(min(2, len(values))):
        vector = vectors[:, -1 - axis]
        # An eigenvector has no sign of its own: the largest entry shall be positive.
        sign = np.sign(vector[np.abs(vector).argmax()])
        points[:, axis] = sign * np.sqrt(max(values[-1 - axis], 0.0)) * vector
    return points


def _between(points: FloatArray) -> FloatArray:
    difference = points[:, None, :] - points[None, :, :]
    lengths: FloatArray = np.sqrt((difference**2).sum(axis=-1))
    return lengths
