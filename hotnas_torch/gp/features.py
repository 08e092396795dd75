"""Gaussian processes on numeric features of architectures."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from botorch.models import SingleTaskGP
from botorch.models.transforms.input import InputTransform
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.means import Mean
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import interval, takes
from hotnas_torch.gp.feature_kernel import FeatureKernel, Features, check_features
from hotnas_torch.gp.kernel_gp import KernelGP
from hotnas_torch.gp.memory import NetworkMemory
from hotnas_torch.gp.observations import check_modules
from hotnas_torch.gp.scales import matern_kernel, middle
from hotnas_torch.spaces import SearchSpace

__all__ = ["FeatureGP", "FeatureKernel", "Features", "NetworkFeatures", "feature_kernel"]

# What ANASOD allows its hyperparameters, and where they start: inside, on a logarithmic scale.
_LENGTHSCALE = (0.01, 0.5)
_OUTPUTSCALE = (0.5, 5.0)
_NOISE = (1e-6, 1e-1)


class NetworkFeatures:
    """Features of rows from an encoding of networks, each network encoded once.

    Deep copies share what is encoded.

    Args:
        space: Search space of the rows.
        encoding: Maps N networks to features (N, f) float64, for example
            `hotnas_torch.spaces.encodings.PathEncoding`.
    """

    def __init__(self, space: SearchSpace, encoding: Callable[[Sequence[Network]], Tensor]) -> None:
        self._memory: NetworkMemory[Tensor] = NetworkMemory(space, encoding)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the features of rows, (..., d) to (..., f), in the dtype of the rows."""
        return self.encoded(rows).to(rows)

    def encoded(self, rows: Tensor) -> Tensor:
        """Return the features of rows, (..., d) to (..., f), as they are encoded."""
        features: Tensor = self._memory(self._memory.index(rows))
        return features


@takes()
def feature_kernel(
    features: Features, *, lengthscale: tuple[float, float] = _LENGTHSCALE
) -> FeatureKernel:
    """Return a Matern-5/2 kernel on features with one lengthscale, float64.

    Args:
        features: As for `FeatureKernel`.
        lengthscale: Range of the lengthscale; it starts at the geometric mean.

    Raises:
        ValueError: The range is empty or not positive.
    """
    return FeatureKernel(_matern(lengthscale), features)


class FeatureGP(KernelGP):
    """Gaussian process on features of rows, with the ranges of ANASOD's hyperparameters.

    A Matern-5/2 kernel with one lengthscale, an output scale and noise, each held in its range
    while `fit_gpytorch_mll` maximises the marginal likelihood; targets are standardised.

    Args:
        train_X: Rows, (n, d) float64.
        train_Y: Targets, (n, 1).
        features: Maps rows to features in [0, 1].
        lengthscale: Range.
        outputscale: Range.
        noise: Range of the noise variance.
        covar_module: Kernel on features in place of the default one.
        mean_module: Shared with another model.
        likelihood: Shared with another model.

    Raises:
        TypeError: A setting that is unknown or of the wrong kind.
        ValueError: A range is empty or not positive; other shapes, fewer than two observations, or
            targets that are not finite or vary so little or so much that variances cannot be told.

    Reference: Wan et al., ANASOD, CVPR 2022, Appendix A.1.

    Example:
        >>> import torch
        >>> import hotnas_torch as ht
        >>> from hotnas_torch.spaces.encodings import encoding_of
        >>> space = ht.spaces.NASBench201()
        >>> X = space.encode(space.sample(6, generator=torch.Generator().manual_seed(0)))
        >>> Y = (X == 3).sum(dim=1, keepdim=True).double()  # number of 3x3 convolutions
        >>> model = FeatureGP(X, Y, encoding_of(space).of_rows)
        >>> model.posterior(X[:2]).mean.shape
        torch.Size([2, 1])
    """

    _alone = True

    @takes()
    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        features: Features,
        *,
        lengthscale: tuple[float, float] = _LENGTHSCALE,
        outputscale: tuple[float, float] = _OUTPUTSCALE,
        noise: tuple[float, float] = _NOISE,
        covar_module: Kernel | None = None,
        mean_module: Mean | None = None,
        likelihood: GaussianLikelihood | None = None,
    ) -> None:
        check_modules(covar_module=covar_module)
        check_features(features)
        ranges = {"lengthscale": lengthscale, "outputscale": outputscale, "noise": noise}
        for name, range_ in ranges.items():
            interval(name, range_)
        if likelihood is None:
            likelihood = GaussianLikelihood(noise_constraint=_range(noise)).double()
            likelihood.noise = middle(noise)

        def covariance(rows: Tensor, batch_shape: torch.Size) -> Kernel:
            del rows, batch_shape
            if covar_module is not None:
                return covar_module
            product = ScaleKernel(
                _matern(lengthscale), outputscale_constraint=_range(outputscale)
            ).double()
            product.outputscale = middle(outputscale)
            return product

        super().__init__(
            train_X,
            train_Y,
            covariance=covariance,
            likelihood=likelihood,
            mean_module=mean_module,
            # Features are computed once per row, before rows are paired with each other.
            input_transform=_Featurize(features),
        )
        self.features = features
        (rows,) = self.train_inputs
        self._observed = rows, train_Y.to(rows)

    def on_features(self) -> SingleTaskGP:
        """Return the same model as a function of features, differentiable in them."""
        rows, targets = self._observed
        return SingleTaskGP(
            self.features(rows),
            targets,
            likelihood=self.likelihood,
            covar_module=self.covar_module,
            mean_module=self.mean_module,
        ).eval()


class _Featurize(InputTransform, torch.nn.Module):
    """Replace rows by their features."""

    is_one_to_many = False

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.transform_on_train = True
        self.transform_on_eval = True
        self.transform_on_fantasize = True
        self._features = features

    def transform(self, X: Tensor) -> Tensor:
        # Rows may be integers, features are not.
        return self._features(X.detach() if X.is_floating_point() else X.double())


def _matern(lengthscale: tuple[float, float]) -> Kernel:
    range_ = _range(interval("lengthscale", lengthscale))
    return matern_kernel(middle(lengthscale), constraint=range_, dtype=torch.float64)


def _range(ends: tuple[float, float]) -> Interval:
    # Without a transform, L-BFGS-B keeps to the bounds itself and does not crawl towards them.
    return Interval(*ends, transform=None)
