"""Gaussian processes on kernel matrices that are known, with hyperparameters on grids."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Factor", "Prediction", "exponential", "matern", "predict"]

_NOISE = tuple(10.0**k for k in (-4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0))
_SCALES = tuple(2.0 ** (k / 2) for k in range(-6, 9))
_MOST_SWEEPS = 10


@dataclass(frozen=True, slots=True)
class Factor:
    """A kernel that is known for every combination of some hyperparameters.

    Attributes:
        name: What it compares.
        matrices: Positive semi-definite, unit diagonal, shape (*number of values per axis, N, N).
    """

    name: str
    matrices: Tensor

    @property
    def axes(self) -> tuple[int, ...]:
        """Number of values of each hyperparameter."""
        return tuple(self.matrices.shape[:-2])


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of points that it has not seen.

    Attributes:
        mean: Shape (n,).
        variance: Shape (n,), noise included.
        chosen: Place of every hyperparameter on its axis, of the noise last.
    """

    mean: Tensor
    variance: Tensor
    chosen: tuple[int, ...]


def exponential(distances: Sequence[Tensor], name: str) -> Factor:
    """Return exp(-d / l), made positive semi-definite, over distances and fifteen scales l.

    Scales are multiples of the median distance above 0. Negative eigenvalues are set to 0, and rows
    scaled to a unit diagonal again, over all points at once: of those that are to be predicted only
    the networks are seen, not the values.
    """
    kernels = []
    for matrix in distances:
        apart = matrix[matrix > 0.0]
        median = float(apart.median()) if len(apart) else 1.0
        for scale in _SCALES:
            kernels.append(_psd(torch.exp(-matrix / (scale * median))))
    stacked = torch.stack(kernels)
    return Factor(name, stacked.unflatten(0, (len(distances), len(_SCALES))))


def matern(columns: Tensor, name: str) -> Factor:
    """Return Matern-5/2 kernels of columns (N, k), standardised, over fifteen lengthscales."""
    varying = columns[:, columns.std(0) > 0.0]
    standard = (varying - varying.mean(0)) / varying.std(0)
    apart = torch.cdist(standard, standard) / math.sqrt(standard.shape[1])
    kernels = []
    for scale in _SCALES:
        ratio = math.sqrt(5.0) * apart / scale
        kernels.append((1.0 + ratio + ratio.square() / 3.0) * torch.exp(-ratio))
    return Factor(name, torch.stack(kernels))


def predict(factors: Sequence[Factor], values: Tensor, train: Tensor, test: Tensor) -> Prediction:
    """Fit a product of kernels by marginal likelihood, and predict.

    Mean and output scale are the most likely ones given the rest, in closed form. The rest, values
    on grids and the noise, is found one at a time, from the middle of all grids.

    Args:
        factors: Kernels of N points.
        values: Shape (N,), of which those of `train` are read.
        train: Places of points, (n,) int64.
        test: Places of points, (m,) int64.
    """
    axes = [size for factor in factors for size in factor.axes] + [len(_NOISE)]
    square = [factor.matrices[..., train[:, None], train] for factor in factors]
    y = values[train]
    known: dict[tuple[int, ...], float] = {}

    def evidence(chosen: tuple[int, ...]) -> float:
        if chosen not in known:
            known[chosen] = _Fit(_product(square, chosen), y, _NOISE[chosen[-1]]).evidence
        return known[chosen]

    best: tuple[int, ...] = tuple(size // 2 for size in axes)
    for _ in range(_MOST_SWEEPS):
        before = best
        for axis, size in enumerate(axes):
            options = [(*best[:axis], place, *best[axis + 1 :]) for place in range(size)]
            best = max(options, key=evidence)
        if best == before:
            break
    fit = _Fit(_product(square, best), y, _NOISE[best[-1]])
    across = _product([f.matrices[..., test[:, None], train] for f in factors], best)
    mean, variance = fit.predicted(across, _NOISE[best[-1]])
    return Prediction(mean, variance, best)


def _product(matrices: Sequence[Tensor], chosen: tuple[int, ...]) -> Tensor:
    found = torch.ones(matrices[0].shape[-2:], dtype=matrices[0].dtype)
    place = 0
    for options in matrices:
        axes = options.ndim - 2
        found = found * options[chosen[place : place + axes]]
        place += axes
    return found


class _Fit:
    """A Gaussian process with unit prior variance, its mean and scale estimated."""

    def __init__(self, kernel: Tensor, y: Tensor, noise: float) -> None:
        noisy = kernel + noise * torch.eye(len(y), dtype=kernel.dtype)
        self.factor, failed = torch.linalg.cholesky_ex(noisy)
        self.evidence = -math.inf
        if int(failed):
            return
        ones = torch.ones_like(y)
        solved = torch.cholesky_solve(torch.stack([y, ones], dim=1), self.factor)
        self.mean = float((ones @ solved[:, 0]) / (ones @ solved[:, 1]))
        self.weights = solved[:, 0] - self.mean * solved[:, 1]
        self.scale = float((y - self.mean) @ self.weights) / len(y)
        logdet = 2.0 * float(self.factor.diagonal().log().sum())
        self.evidence = -0.5 * (len(y) * math.log(self.scale) + logdet)

    def predicted(self, across: Tensor, noise: float) -> tuple[Tensor, Tensor]:
        reduced = torch.linalg.solve_triangular(self.factor, across.T, upper=False)
        left = (1.0 - reduced.square().sum(0)).clamp_min(0.0)
        return self.mean + across @ self.weights, self.scale * (left + noise)


def _psd(kernel: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(0.5 * (kernel + kernel.T))
    raised = (vectors * values.clamp_min(0.0)) @ vectors.T
    size = raised.diagonal().rsqrt()
    return size[:, None] * raised * size
