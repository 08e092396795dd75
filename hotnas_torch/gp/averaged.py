"""A Gaussian process that averages over kernels, each as likely as the observations make it."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from botorch.models.model import Model
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from linear_operator.operators import DiagLinearOperator
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import takes
from hotnas_torch.gp.evidence import Evidence
from hotnas_torch.gp.network_lists import as_rows
from hotnas_torch.gp.network_pairs import NetworkPairs
from hotnas_torch.gp.observations import checked_rows
from hotnas_torch.gp.psd import DEFAULT_CUTOFF, landmark_features, whitener
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space

__all__ = ["AveragedGP"]

# What is averaged over: shares of Weisfeiler-Lehman, scales of HOTNN in typical distances.
_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
# Normal prior of its logarithm: median and spread.
_SCALE_PRIOR = math.log(3.0), 1.0
# Kernels that are less likely are left out, and all but the most likely ones.
_LEAST_WEIGHT = 0.01
# Observations that kernels are weighed by, and that are landmarks: of more, these many in order.
_MOST_COMPARED = 200
_MOST_KERNELS = 20
_JITTER = 1e-8
_LEAST_VARIANCE = 1e-10


@dataclass(frozen=True)
class _Kernels:
    """What is averaged over, C kernels w s_h + (1 - w) r_l each.

    Attributes:
        share: Of Weisfeiler-Lehman, w, (C,).
        level: Which level h, (C,).
        scale: Which scale l of HOTNN, (C,).
        prior: Logarithm of the prior probability, (C,).
    """

    share: Tensor
    level: Tensor
    scale: Tensor
    prior: Tensor

    @classmethod
    def all(cls, num_levels: int) -> Self:
        """Return all of them; what does not count in one is not told apart."""
        center, spread = _SCALE_PRIOR
        of_scale = -0.5 * ((torch.tensor(_SCALES).double().log() - center) / spread).square()
        of_scale = of_scale.log_softmax(0)
        of_level = -math.log(num_levels)
        found = []
        for share in _SHARES:
            levels = range(num_levels) if share > 0.0 else range(1)
            scales = range(len(_SCALES)) if share < 1.0 else range(1)
            for level in levels:
                for scale in scales:
                    prior = -math.log(len(_SHARES))
                    prior += of_level if share > 0.0 else 0.0
                    prior += float(of_scale[scale]) if share < 1.0 else 0.0
                    found.append((share, level, scale, prior))
        share_, level_, scale_, prior_ = zip(*found, strict=True)
        return cls(
            torch.tensor(share_, dtype=torch.float64),
            torch.tensor(level_),
            torch.tensor(scale_),
            torch.tensor(prior_, dtype=torch.float64),
        )

    def __getitem__(self, places: Tensor) -> "_Kernels":
        return _Kernels(
            self.share[places], self.level[places], self.scale[places], self.prior[places]
        )

    def without_unused(self) -> tuple["_Kernels", Tensor, Tensor]:
        """Return the same kernels, which levels, and which scales they need, at least one each."""
        level = torch.where(self.share > 0.0, self.level, self.level[self.share.argmax()])
        scale = torch.where(self.share < 1.0, self.scale, self.scale[self.share.argmin()])
        levels, level = torch.unique(level, return_inverse=True)
        scales, scale = torch.unique(scale, return_inverse=True)
        return _Kernels(self.share, level, scale, self.prior), levels, scales

    def combine(self, of_levels: Tensor, of_scales: Tensor) -> Tensor:
        """Add what is known by level, (L, ...), and by scale, (S, ...); returns (C, ...)."""
        share = self.share.reshape(-1, *(1 for _ in of_levels.shape[1:]))
        return torch.lerp(of_scales[self.scale], of_levels[self.level], share)


class AveragedGP(Model):
    r"""Gaussian processes with kernels of HOTNN and Weisfeiler-Lehman, averaged by their evidence.

    .. math:: k(x, x') = w\,s_h(x, x') + (1 - w)\,\exp(-\mathrm{HOTNN}(x, x') / \ell)

    with the Weisfeiler-Lehman similarity of level h, which is linear in how often neighbourhoods of
    layers occur, and the exponential of HOTNN distances, made positive semi-definite with the
    training rows as landmarks (with 200 of them, where there are more).

    No w, h and l is taken for the right one: each of a grid counts as much as the observations make
    it likely, so that few of them mislead less than the most likely one would. Mean, output scale
    and noise are the most likely ones of each kernel. The constructor does it all, there is nothing
    to be fitted afterwards.

    Predictions have mean and covariance of the mixture. Targets are standardised.

    Args:
        train_X: Networks; or rows of `space.encode`, shape (n, d), float64 recommended.
        train_Y: Targets, shape (n, 1), larger is better where BoTorch's acquisition functions are
            used; finite.
        space: Search space of the rows.
        pairs: What is known of pairs of networks; None starts anew. Share it between the models of
            one search.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: Targets of another shape; fewer than two observations; targets that are not
            finite, are constant, or vary so little or so much that variances cannot be told; rows
            of another length than the space's; or pairs of another space.
        ArchitectureError: A row that encodes no network of the space; the message names it.

    Complexity: one distance of each kind per pair of a new row and a training row; about a hundred
        eigendecompositions of min(n, 200) rows at the start, and up to 20 of O(n^3) to predict.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> X = space.encode(space.sample(8, generator=torch.Generator().manual_seed(0)))
        >>> Y = (X == 3).sum(dim=1, keepdim=True).double()  # number of 3x3 convolutions
        >>> model = AveragedGP(X, Y, space=space)
        >>> model.posterior(X[:2]).mean.shape
        torch.Size([2, 1])
        >>> 0.0 <= float(model.share) <= 1.0  # of Weisfeiler-Lehman
        True
    """

    @takes()
    def __init__(
        self,
        train_X: Tensor | Sequence[Network],
        train_Y: Tensor,
        *,
        space: SearchSpace,
        pairs: NetworkPairs | None = None,
    ) -> None:
        super().__init__()
        check_space(space)
        if not isinstance(pairs, NetworkPairs | None):
            raise TypeError(f"pairs must be NetworkPairs or None; got {type(pairs).__name__}")
        if pairs is not None and pairs.space.description() != space.description():
            raise ValueError(f"pairs must be of {space!r}; they are of {pairs.space!r}")
        rows = as_rows("train_X", train_X, space)
        X, Y, _ = checked_rows(rows, train_Y, space=space, outcome_transform=None)
        if X.ndim != 2 or Y.shape[1] != 1 or X.shape[1] != space.dim:
            raise ValueError(
                f"train_X and train_Y must have shapes (n, {space.dim}) and (n, 1); got"
                f" {tuple(X.shape)} and {tuple(Y.shape)}"
            )
        self.space = space
        self._pairs = NetworkPairs(space) if pairs is None else pairs
        self._rows = X.detach().to("cpu", torch.float64)
        values = Y.detach().to("cpu", torch.float64).squeeze(1)
        self._center, self._unit = values.mean(), values.std()
        self._targets = (values - self._center) / self._unit
        self._landmarks = self._rows
        if len(values) > _MOST_COMPARED:
            places = torch.linspace(0, len(values) - 1, _MOST_COMPARED).round().long()
            self._landmarks = self._rows[places]
            self._fit(self._targets[places])
        else:
            self._fit(self._targets)
        self._predictor: _Predictor | None = None

    # --- what BoTorch asks ------------------------------------------------------------------------

    @property
    def num_outputs(self) -> int:
        """One."""
        return 1

    @property
    def batch_shape(self) -> torch.Size:
        """None."""
        return torch.Size()

    @property
    def train_targets(self) -> Tensor:
        """Standardised targets, (n,)."""
        return self._targets

    @property
    def weights(self) -> Tensor:
        """Posterior probabilities of the kernels that count, the largest first, with sum 1."""
        return self._weights

    @property
    def share(self) -> Tensor:
        """Expected share w of Weisfeiler-Lehman in the kernel."""
        return self._weights @ self._kernels.share

    def posterior(
        self,
        X: Tensor | Sequence[Network],
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: Any = None,
    ) -> Posterior:
        """Predict networks or rows (..., q, d) jointly, as every BoTorch model does.

        Raises:
            ValueError: Another output than the first is asked for.
            NotImplementedError: `observation_noise` are variances.
        """
        if output_indices not in (None, [0]):
            raise ValueError(f"output_indices must be None or [0]; got {output_indices}")
        if isinstance(observation_noise, Tensor):
            raise NotImplementedError("observation_noise must be True or False")
        rows = as_rows("X", X, self.space)
        flat = rows.detach().reshape(-1, rows.shape[-1]).to("cpu", torch.float64)
        predictor, joint = self._prediction(), rows.shape[-2] > 1
        distinct, place = torch.unique(flat, dim=0, return_inverse=True)
        mean, spread = predictor(self, distinct, joint=joint)
        if observation_noise:
            noise = self._weights @ (self._outputs * self._noises)
            spread = spread + (noise * torch.eye(len(distinct)).double() if joint else noise)
        place = place.reshape(rows.shape[:-1])
        mean = (self._center + self._unit * mean)[place].to(rows)
        spread = self._unit.square() * spread
        if joint:
            dense = spread[place.unsqueeze(-1), place.unsqueeze(-2)].to(rows)
            covariance: Any = to_linear_operator(dense)  # factorised where it is asked for
        else:
            covariance = DiagLinearOperator(spread[place].to(rows))
        found: Any = GPyTorchPosterior(MultivariateNormal(mean, covariance))
        if posterior_transform is not None:
            found = posterior_transform(found)
        return cast(Posterior, found)

    def condition_on_observations(self, X: Tensor, Y: Tensor, **kwargs: Any) -> "AveragedGP":
        """Return the model as if Y, (k, 1), had been observed at rows X (k, d) as well.

        Weights, landmarks and all parameters stay as they are.
        """
        del kwargs
        other = copy.copy(self)
        other._rows = torch.cat([self._rows, X.detach().to(self._rows)])
        values = (Y.detach().to(self._targets).reshape(-1) - self._center) / self._unit
        other._targets = torch.cat([self._targets, values])
        other._predictor = None
        return other

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        """How far each target is from what all the others predict, and the deviation of that.

        Returns:
            Residuals and standard deviations, (n,) each, in units of `train_targets`.
        """
        return self._prediction().leave_one_out(self)

    # --- fitting ----------------------------------------------------------------------------------

    def _fit(self, targets: Tensor) -> None:
        """Weigh all kernels by what they say of the targets at the landmarks."""
        kernels, rows = _Kernels.all(self._pairs.num_levels), self._landmarks
        similarities = self._pairs.similarities(rows, rows)
        self._scales = self._pairs.typical * torch.tensor(_SCALES, dtype=torch.float64)
        self._whiteners = self._whitening()
        features = self._features(rows)
        of_scales = _gram(features, features, self._same(rows, rows))
        found = Evidence.of(kernels.combine(similarities, of_scales), targets)
        weights = (found.value + kernels.prior).softmax(0)
        order = weights.argsort(descending=True, stable=True)[:_MOST_KERNELS]
        order = order[weights[order] >= min(_LEAST_WEIGHT, float(weights[order[0]]))]
        self._kernels, self._levels, used = kernels[order].without_unused()
        self._scales, self._whiteners = self._scales[used], self._whiteners[used]
        self._weights = weights[order] / weights[order].sum()
        self._means, self._outputs = found.mean[order], found.output[order]
        self._noises = found.noise[order]

    def _similarity(self, rows: Tensor) -> Tensor:
        """Exponentials of HOTNN distances to the landmarks, by scale, (S, r, n)."""
        distances = self._pairs.distances(rows, self._landmarks)
        return torch.exp(-distances / self._scales[:, None, None])

    def _whitening(self) -> Tensor:
        with torch.no_grad():
            return whitener(self._similarity(self._landmarks), DEFAULT_CUTOFF)

    def _features(self, rows: Tensor) -> Tensor:
        """Features of HOTNN by scale, (S, r, n)."""
        with torch.no_grad():
            return landmark_features(self._similarity(rows), self._whiteners)

    def _same(self, rows: Tensor, cols: Tensor) -> Tensor:
        numbers = self._pairs.numbers
        return numbers(rows)[:, None] == numbers(cols)[None, :]

    def _prediction(self) -> "_Predictor":
        if self._predictor is None:
            self._predictor = _Predictor.of(self)
        return self._predictor

    def _covariances(self, rows: Tensor, cols: Tensor, of_rows: Tensor, of_cols: Tensor) -> Tensor:
        """Kernels between rows whose features are known, (C, r, c)."""
        of_scales = _gram(of_rows, of_cols, self._same(rows, cols))
        of_levels = self._pairs.similarities(rows, cols)[self._levels]
        return self._kernels.combine(of_levels, of_scales)


def _gram(left: Tensor, right: Tensor, same: Tensor) -> Tensor:
    """Inner products of features (S, r, n) and (S, c, n); what a row lacks to 1 is its own."""
    return torch.where(same, 1.0, left @ right.mT)


@dataclass(frozen=True)
class _Predictor:
    """What predictions need of the observations.

    Attributes:
        features: Of HOTNN, by scale, (S, n, landmarks).
        factor: Cholesky factors, (C, n, n).
        solved: Residuals divided by the covariances, (C, n).
    """

    features: Tensor
    factor: Tensor
    solved: Tensor

    @classmethod
    def of(cls, model: AveragedGP) -> Self:
        """Factorise the covariances of a model's observations."""
        rows = model._rows
        features = model._features(rows)
        covariance = model._covariances(rows, rows, features, features)
        noise = (model._noises + _JITTER)[:, None, None]
        factor = torch.linalg.cholesky(covariance + noise * torch.eye(len(rows)).double())
        residuals = model._targets - model._means[:, None]
        return cls(features, factor, torch.cholesky_solve(residuals[..., None], factor)[..., 0])

    def __call__(self, model: AveragedGP, rows: Tensor, *, joint: bool) -> tuple[Tensor, Tensor]:
        """Mean (r,) and covariance (r, r), or variances (r,), of the mixture at distinct rows."""
        features = model._features(rows)
        across = model._covariances(rows, model._rows, features, self.features)
        means = model._means[:, None] + (across @ self.solved[..., None])[..., 0]
        mean = model.weights @ means
        apart = means - mean
        reduced = torch.linalg.solve_triangular(self.factor, across.mT, upper=False)
        weights = model.weights * model._outputs
        if not joint:
            left = (1.0 - reduced.square().sum(1)).clamp_min(_LEAST_VARIANCE)
            return mean, weights @ left + model.weights @ apart.square()
        own = model._covariances(rows, rows, features, features) - reduced.mT @ reduced
        own = own + _LEAST_VARIANCE * torch.eye(len(rows)).double()
        between = torch.einsum("c,cr,cs->rs", model.weights, apart, apart)
        return mean, torch.einsum("c,crs->rs", weights, own) + between

    def leave_one_out(self, model: AveragedGP) -> tuple[Tensor, Tensor]:
        """Residuals and deviations of the mixture, (n,) each."""
        inverse = torch.cholesky_inverse(self.factor)
        precision = inverse.diagonal(dim1=-2, dim2=-1)
        residuals = self.solved / precision
        mean = model.weights @ residuals
        variance = model._outputs[:, None] / precision + (residuals - mean).square()
        return mean, (model.weights @ variance).sqrt()
