"""Distances, kernels and Gaussian processes as estimators of scikit-learn.

What they are fitted to are networks: a list of them, of their strings, rows of `space.encode`, or a
DataFrame of pandas with either. They can be cloned, pickled, searched over and put into pipelines.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from botorch.fit import fit_gpytorch_mll
from gpytorch.mlls import ExactMarginalLogLikelihood
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.utils.validation import (
    check_is_fitted,
    check_non_negative,
    column_or_1d,
    validate_data,
)
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import boolean, choice, items, kind, number
from hotnas_torch.distances import NetworkDistance
from hotnas_torch.gp import HOTNNGP, DistanceGP, DistanceKernel, PrecomputedGP
from hotnas_torch.gp.distance_kernel import starting_scales
from hotnas_torch.gp.network_lists import space_or_any
from hotnas_torch.gp.precomputed import check_distances
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space
from hotnas_torch.spaces.frames import frame_rows, is_frame, read_strings

__all__ = ["DistanceTransformer", "HOTNNRegressor"]

Array = NDArray[Any]
_OUTPUTS = ("distance", "kernel")


class DistanceTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Networks as their distances to those of the fit, or as a kernel between them.

    For the estimators of scikit-learn that take `metric="precomputed"` or `kernel="precomputed"`,
    and for all others, as features. In a pipeline the networks themselves are split and
    cross-validated, so nothing of a test set leaks.

    Args:
        distance: Between networks, for example `ht.HOTNN(space=space)`.
        output: `"distance"`, or `"kernel"`: the `gp.DistanceKernel` of the distance, positive
            semi-definite, with the networks of the fit as landmarks.
        scale: Scales of the kernel in typical distances between networks of the fit, > 0.

    Attributes:
        networks_: The networks of the fit.

    Raises:
        TypeError, ValueError, ArchitectureError: In `fit` and `transform`: a setting of the wrong
            kind, or what is no list of networks; the message names the entry.

    Complexity: One distance per pair of a new network and one of the fit.

    Example:
        >>> import hotnas_torch as ht
        >>> from sklearn.neighbors import KNeighborsRegressor
        >>> from sklearn.pipeline import make_pipeline
        >>> space = ht.spaces.NASBench201()
        >>> nets = space.sample(12, generator=torch.Generator().manual_seed(0))
        >>> distances = DistanceTransformer(ht.distances.TreeWasserstein(space))
        >>> model = make_pipeline(distances, KNeighborsRegressor(3, metric="precomputed"))
        >>> model.fit(nets[:8], [net.spec.count("3x3") for net in nets[:8]]).predict(nets[8:]).shape
        (4,)
    """

    def __init__(
        self,
        distance: NetworkDistance,
        *,
        output: Literal["distance", "kernel"] = "distance",
        scale: float = 1.0,
    ) -> None:
        self.distance = distance
        self.output = output
        self.scale = scale

    def fit(self, X: Any, y: Any = None) -> Self:
        """Remember networks.

        Args:
            X: n networks.
            y: Ignored.
        """
        del y
        kind("distance", self.distance, NetworkDistance)
        choice("output", self.output, _OUTPUTS)
        number("scale", self.scale, above=0.0)
        networks = _networks("X", X, self.distance.space)
        if self.output == "kernel":
            space = check_space(self.distance.space)
            rows = space.encode(networks)
            kernel = DistanceKernel(self.distance, landmarks=rows).double()
            starts = starting_scales(self.distance, kernel.part_distances(rows))
            kernel.scales = self.scale * starts
            self.kernel_ = kernel
        self.networks_ = networks
        self._n_features_out = len(networks)
        return self

    def transform(self, X: Any) -> Array:
        """Return distances to the networks of the fit, or kernel values, shape (len(X), n)."""
        check_is_fitted(self, "networks_")
        networks = _networks("X", X, self.distance.space)
        with torch.no_grad():
            if self.output == "kernel":
                encode = self.distance.space.encode
                found = self.kernel_(encode(networks), encode(self.networks_)).to_dense()
            else:
                found = self.distance(networks, self.networks_)
        array: Array = found.cpu().double().numpy()
        return array

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Arrays of numbers are networks only where they are rows of the space.
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.no_validation = True
        return tags


class HOTNNRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A Gaussian process on networks as a regressor of scikit-learn.

    Args:
        space: Search space of the networks, for `metric="hotnn"`; None takes all networks over the
            `tree` among the settings.
        metric: `"hotnn"`: a `gp.HOTNNGP`, which learns the distance. A distance: a `gp.DistanceGP`
            on it. `"precomputed"`: a `gp.PrecomputedGP`; `X` then are distances to the points of
            the fit, shape (n, n) there and (m, n) in `predict`.
        noise_variance: Variance of the noise of targets, >= 0, in their units squared; None learns
            it.
        settings: Others of the `HOTNNGP`, by name, such as `{"learn": ()}`.

    Attributes:
        model_: The BoTorch model.

    Raises:
        TypeError, ValueError, ArchitectureError: In `fit` and `predict`: a setting of the wrong
            kind, what is no list of networks, or no matrix of distances; targets that are constant
            or not finite. The message names the argument and the entry.

    Example:
        >>> import hotnas_torch as ht
        >>> from sklearn.model_selection import cross_val_score
        >>> space = ht.spaces.NASBench201()
        >>> nets = space.sample(12, generator=torch.Generator().manual_seed(0))
        >>> count = [net.spec.count("3x3") for net in nets]
        >>> model = HOTNNRegressor(metric=ht.distances.TreeWasserstein(space))
        >>> cross_val_score(model, nets, count, cv=2, scoring="neg_mean_absolute_error").shape
        (2,)
    """

    def __init__(
        self,
        space: SearchSpace | None = None,
        *,
        metric: Literal["hotnn", "precomputed"] | NetworkDistance = "hotnn",
        noise_variance: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.space = space
        self.metric = metric
        self.noise_variance = noise_variance
        self.settings = settings

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the model to targets.

        Args:
            X: n >= 2 networks; of `metric="precomputed"` their distances, (n, n).
            y: Targets, shape (n,).
        """
        settings = self._checked_settings()
        if self._precomputed:
            X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
            check_non_negative(X, f"{type(self).__name__}, distances")
            rows = torch.tensor(X)
            check_distances("X", rows)
        else:
            rows = _rows("X", X, self._space(settings))
            self.n_features_in_ = rows.shape[1]
        targets = _targets(y, len(rows))
        variances = None
        if self.noise_variance is not None:
            number("noise_variance", self.noise_variance, least=0.0)
            variances = torch.full_like(targets, self.noise_variance)
        model: HOTNNGP | DistanceGP | PrecomputedGP
        if self._precomputed:
            model = PrecomputedGP(rows, targets, variances)
        elif isinstance(self.metric, NetworkDistance):
            model = DistanceGP(rows, targets, variances, distance=self.metric)
        else:
            space = self._fitted_space
            model = HOTNNGP(rows, targets, variances, space=space, **settings)
        # Should a fit fail, BoTorch draws the next start from the global source.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        self.model_ = model
        return self

    def predict(
        self, X: Any, return_std: bool = False, return_cov: bool = False
    ) -> Array | tuple[Array, Array]:
        """Return the posterior of the targets without their noise.

        Args:
            X: m networks; of `metric="precomputed"` their distances to those of the fit, (m, n).
            return_std: Whether to return standard deviations, too.
            return_cov: Whether to return the covariance, too; not both.

        Returns:
            Means, shape (m,); standard deviations, (m,); covariances, (m, m).
        """
        check_is_fitted(self, "model_")
        if boolean("return_std", return_std) and boolean("return_cov", return_cov):
            raise ValueError("return_std and return_cov must not both be True (call predict twice)")
        if self._precomputed:
            X = validate_data(self, X, dtype=np.float64, reset=False)
            check_non_negative(X, f"{type(self).__name__}, distances")
            rows = torch.tensor(X)
        else:
            rows = _rows("X", X, self._fitted_space)
        with torch.no_grad():
            posterior = self.model_.posterior(rows)
            mean: Array = posterior.mean[:, 0].numpy()
            if return_std:
                return mean, posterior.variance[:, 0].sqrt().numpy()
            if return_cov:
                return mean, posterior.distribution.covariance_matrix.numpy()  # type: ignore[union-attr]
        return mean

    @property
    def _precomputed(self) -> bool:
        return isinstance(self.metric, str) and self.metric == "precomputed"

    def _checked_settings(self) -> dict[str, Any]:
        if not isinstance(self.metric, NetworkDistance):
            choice("metric", self.metric, ("hotnn", "precomputed"))
        kind("settings", self.settings, Mapping, optional=True)
        settings = dict(self.settings or {})
        learned = isinstance(self.metric, str) and self.metric == "hotnn"
        for name, found in (("settings", settings), ("space", self.space)):
            if found and not learned:
                raise ValueError(
                    f"{name} belong to metric='hotnn'; got metric={self.metric!r} (leave them out)"
                )
        return settings

    def _space(self, settings: Mapping[str, Any]) -> SearchSpace:
        if isinstance(self.metric, NetworkDistance):
            self._fitted_space = check_space(self.metric.space)
        else:
            self._fitted_space = space_or_any(self.space, settings)
        return self._fitted_space

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Arrays of numbers are networks only where they are rows of the space.
        tags.input_tags.two_d_array = self._precomputed
        tags.input_tags.pairwise = self._precomputed
        tags.input_tags.positive_only = self._precomputed
        tags.input_tags.one_d_array = not self._precomputed
        tags.input_tags.string = not self._precomputed
        return tags


def _targets(y: Any, num: int) -> Tensor:
    values = column_or_1d(y, dtype=np.float64, warn=True)
    if len(values) != num:
        raise ValueError(f"y must have a target per network, {num}; got {len(values)}")
    return torch.from_numpy(np.array(values)).unsqueeze(-1)


def _networks(name: str, given: Any, space: SearchSpace | None) -> list[Network]:
    """Return networks, given as themselves or as what a space reads."""
    if isinstance(given, np.ndarray) and given.dtype == object and given.ndim == 1:
        given = given.tolist()
    if isinstance(given, list | tuple) and not any(isinstance(one, str) for one in given):
        return items(name, given, Network)
    if space is None:
        raise TypeError(
            f"{name} must be a list of networks, as the distance has no space that reads others"
            " (make it with space=)"
        )
    return space.decode(_rows(name, given, space))


def _rows(name: str, given: Any, space: SearchSpace) -> Tensor:
    """Return rows of a space; numeric columns may follow its own."""
    if is_frame(given):
        return frame_rows(name, given, space)
    if isinstance(given, np.ndarray):
        given = given.tolist() if given.dtype.kind in "OUS" else torch.from_numpy(given.copy())
    if isinstance(given, Tensor):
        return given
    if not isinstance(given, list | tuple):
        raise TypeError(
            f"{name} must be a list of networks or of their strings, rows of space.encode, or a"
            f" DataFrame; got {type(given).__name__}"
        )
    if any(isinstance(one, str) for one in given):
        return space.encode(read_strings(name, list(given), space))
    return space.encode(items(name, given, Network))
