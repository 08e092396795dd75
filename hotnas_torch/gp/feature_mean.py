"""A prior mean that is linear in features of rows, such as scores of untrained networks."""

import torch
from gpytorch.means import Mean
from gpytorch.priors import NormalPrior
from torch import Tensor

from hotnas_torch.arguments import takes
from hotnas_torch.gp.feature_kernel import Features, check_features

__all__ = ["FeatureMean"]

# Standardised features beyond it say no more: some scores are far off where nothing flows.
_FARTHEST = 3.0
# How far weights, in standard deviations of the targets, are expected from 0.
_WEIGHTS = 0.5


class FeatureMean(Mean):  # type: ignore[misc]
    r"""Prior mean that is linear in features.

    .. math:: m(x) = c + \sum_k w_k z_k(x)

    with z the features, standardised over given rows and cut off at 3. The weights start at 0 with
    a normal prior there, so that features which tell nothing stay without effect.

    Args:
        features: Maps rows (..., d) to features (..., k), for example `gp.NetworkFeatures` of a
            `nn.ZeroCost`.
        rows: Rows that features are standardised over, usually the training rows, (n, d).

    Raises:
        TypeError: `features` is not callable.
        ValueError: `rows` are no matrix; or a feature is not finite, here or when called.

    Example:
        >>> mean = FeatureMean(lambda X: X[..., :1], torch.tensor([[0.0], [1.0], [2.0]]))
        >>> mean(torch.tensor([[5.0], [1.0]])).tolist()
        [0.0, 0.0]
    """

    @takes()
    def __init__(self, features: Features, rows: Tensor) -> None:
        check_features(features)
        if not isinstance(rows, Tensor) or rows.ndim != 2 or not len(rows):
            raise ValueError("rows must be a tensor of shape (n, d), n >= 1")
        super().__init__()
        self.features = features
        found = self._finite(rows)
        self.register_buffer("center", found.median(0).values)
        spread = (found - found.mean(0)).square().mean(0).sqrt()
        self.register_buffer("spread", spread.masked_fill(spread == 0.0, 1.0))
        self.register_parameter("constant", torch.nn.Parameter(found.new_zeros(())))
        self.register_parameter("weights", torch.nn.Parameter(found.new_zeros(found.shape[-1])))
        prior = NormalPrior(0.0, _WEIGHTS).to(found)
        self.register_prior("weights_prior", prior, _weights, _set_weights)

    def forward(self, rows: Tensor) -> Tensor:
        """Prior mean of rows, (..., d) to (...)."""
        found = ((self._finite(rows) - self.center) / self.spread).clamp(-_FARTHEST, _FARTHEST)
        mean: Tensor = self.constant + found @ self.weights
        return mean

    def _finite(self, rows: Tensor) -> Tensor:
        found = self.features(rows.detach())
        found = found.to(rows) if rows.is_floating_point() else found
        wrong = ~found.isfinite().all(-1)
        if bool(wrong.any()):
            place = wrong.nonzero()[0].tolist()
            raise ValueError(f"features must be finite; those of row {place} are {found[*place]}")
        return found


# By name, so that models can be pickled.
def _weights(mean: FeatureMean) -> Tensor:
    weights: Tensor = mean.weights
    return weights


def _set_weights(mean: FeatureMean, value: Tensor) -> None:
    mean.initialize(weights=value)
