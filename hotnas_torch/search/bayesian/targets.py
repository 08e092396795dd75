"""What a model is fitted to: values so that a few wild ones do not hide what the others say."""

import math
from typing import Literal

import torch
from gpytorch.models import ExactGP
from torch import Tensor

from hotnas_torch.gp import AveragedGP

__all__ = ["explained_share", "target_variances", "targets", "unexplained"]

# In distances from the median to the best tenth. What is worse than the first says "bad" and no
# more; what is better than the second keeps its rank, but is drawn nearer.
_WORST = 6.0
_BEST = 10.0
_BEST_SHARE = 0.1
# Spreads within these bounds are left in the caller's units; variances of much smaller ones are
# nothing to Gaussian processes.
_USUAL = (2.0**-6, 2.0**16)
# Spreads per size: digits that all values share are those that predictions lack.
_FLATTEST = 2.0**-16
_LARGEST = 1e300
# Deviations from what all the others predict, from which on a bad value is not believed.
_DOUBT = 2.5


def targets(
    values: Tensor, *, transform: Literal["none", "log"] = "none", num_reference: int | None = None
) -> Tensor:
    """Return what a model is to maximise: negated values with bounded tails.

    A search asks where values are good; how bad the bad ones are, it need not know. With the
    distance s from the median to the best tenth, values above median + 6 s are moved there, be it a
    network at chance level or a loss of 1e30. Values below median - 10 s are moved nearer by a
    logarithm, so that their order stays.

    Args:
        values: (n,) float64, finite, smaller is better.
        transform: `"log"` takes logarithms first, when all values are positive.
        num_reference: How many of the first values decide on median and s; None takes all.

    Returns:
        (n,), larger is better, finite, and different where two values were; in the units of the
        transformed values unless s is extreme, or small beside the median: then their distances
        from the median, scaled by a power of two so that s is about 1.
    """
    values, reference = _transformed(values, transform, num_reference)
    median, spread = _spread(values, reference)
    low = median - _BEST * spread
    beyond = ((low - values) / spread).clamp(0.0, _LARGEST).log1p()
    bounded = values.clamp(low, median + _WORST * spread)
    found = bounded - spread * beyond
    if (exponent := _exponent(median, spread)) is not None:
        # In two steps, as neither may overflow.
        found = (found - median) * 2.0 ** -(exponent // 2) * 2.0 ** -(exponent - exponent // 2)
    return -found


def target_variances(
    variances: Tensor,
    values: Tensor,
    *,
    transform: Literal["none", "log"] = "none",
    num_reference: int | None = None,
) -> Tensor:
    """Return the variances of the noise of `targets`, given those of the values.

    To first order, as if no tail had been bounded: noise that is known of a wild value does not
    vanish with its target's distance from the others.

    Args:
        variances: (n,), >= 0, in squares of the values' units.
        values: As for `targets`.
        transform: As for `targets`.
        num_reference: As for `targets`.

    Returns:
        (n,), finite.
    """
    logarithms = transform == "log" and bool((values > 0.0).all())
    deviations = variances.sqrt()
    if logarithms:
        deviations = deviations / values
    elif bool((values.abs() > _LARGEST).any()):
        deviations = deviations * 2.0**-64
    exponent = _exponent(*_spread(*_transformed(values, transform, num_reference))) or 0
    deviations = deviations * 2.0 ** -(exponent // 2) * 2.0 ** -(exponent - exponent // 2)
    return deviations.square().clamp(max=_LARGEST)


def _transformed(
    values: Tensor, transform: str, num_reference: int | None
) -> tuple[Tensor, Tensor]:
    """Return values whose differences are finite, and those that median and spread depend on."""
    if transform == "log" and bool((values > 0.0).all()):
        values = values.log()
    elif bool((values.abs() > _LARGEST).any()):
        values = values * 2.0**-64  # differences of the largest numbers are infinite
    return values, values[:num_reference]


def _spread(values: Tensor, reference: Tensor) -> tuple[Tensor, float]:
    """Return the median, and the distance from there to the best tenth."""
    median = torch.quantile(reference, 0.5)
    # Not the very best of few, which may be far from all others.
    best = torch.quantile(reference, _BEST_SHARE, interpolation="higher")
    spread = float(median - best)
    if not spread > 0.0:
        gaps = (values - median).abs()
        spread = float(gaps[gaps > 0.0].min()) if bool((gaps > 0.0).any()) else 1.0
    return median, spread


def _exponent(median: Tensor, spread: float) -> int | None:
    """Return the power of two by which distances from the median are divided; None: none are."""
    if not _USUAL[0] <= spread <= _USUAL[1] or spread < _FLATTEST * abs(float(median)):
        return math.frexp(spread)[1]
    return None


def unexplained(model: object) -> Tensor | None:
    """Which observations of a Gaussian process are far worse than all the others predict.

    The prediction of each observation by the others, mean and deviation, comes from the inverse of
    the covariance of all (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006,
    Section 5.4.2). Where it is more than 2.5 deviations better than the observation, the latter is
    likely to be a training that went wrong.

    Args:
        model: A fitted model, in evaluation mode, of which larger is better.

    Returns:
        (n,) bool; None for models other than Gaussian processes with one output.
    """
    found = _by_others(model)
    if found is None:
        return None
    residuals, deviations = found
    return residuals / deviations < -_DOUBT


def explained_share(model: object) -> float | None:
    """Return which share of the targets' variance each is predicted by all the others.

    Args:
        model: As for `unexplained`.

    Returns:
        At most 1; 0 or less where the mean of all would predict no worse. None for models other
        than Gaussian processes with one output.
    """
    found = _by_others(model)
    if found is None or not isinstance(model, ExactGP | AveragedGP):
        return None
    targets = model.train_targets
    spread = (targets - targets.mean()).square().sum()
    return float(1.0 - found[0].square().sum() / spread)


def _by_others(model: object) -> tuple[Tensor, Tensor] | None:
    """Return what the prediction of each observation by the others lacks, and its deviation."""
    if isinstance(model, AveragedGP):
        return model.leave_one_out()
    if not isinstance(model, ExactGP) or model.train_targets.ndim != 1:
        return None
    with torch.no_grad():
        model.train()
        try:
            joint = model.likelihood(model(*model.train_inputs), model.train_inputs)
            factor, failed = torch.linalg.cholesky_ex(joint.covariance_matrix)
            mean = joint.mean
        finally:
            model.eval()
        if bool(failed):
            return None
        inverse = torch.cholesky_inverse(factor)
        precision = inverse.diagonal()
        residuals = (inverse @ (model.train_targets - mean)) / precision
    return residuals, precision.rsqrt()
