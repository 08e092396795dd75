"""What a model is fitted to: values so that a few wild ones do not hide what the others say."""

import math
from typing import Literal

import torch
from gpytorch.models import ExactGP
from torch import Tensor

__all__ = ["targets", "unexplained"]

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
    if transform == "log" and bool((values > 0.0).all()):
        values = values.log()
    elif bool((values.abs() > _LARGEST).any()):
        values = values * 2.0**-64  # differences of the largest numbers are infinite
    reference = values[:num_reference]
    median = torch.quantile(reference, 0.5)
    # Not the very best of few, which may be far from all others.
    best = torch.quantile(reference, _BEST_SHARE, interpolation="higher")
    spread = float(median - best)
    if not spread > 0.0:
        gaps = (values - median).abs()
        spread = float(gaps[gaps > 0.0].min()) if bool((gaps > 0.0).any()) else 1.0
    low = median - _BEST * spread
    beyond = ((low - values) / spread).clamp(0.0, _LARGEST).log1p()
    bounded = values.clamp(low, median + _WORST * spread)
    found = bounded - spread * beyond
    if not _USUAL[0] <= spread <= _USUAL[1] or spread < _FLATTEST * abs(float(median)):
        exponent = math.frexp(spread)[1]
        # In two steps, as neither may overflow.
        found = (found - median) * 2.0 ** -(exponent // 2) * 2.0 ** -(exponent - exponent // 2)
    return -found


def unexplained(model: object) -> Tensor | None:
    """Which observations of a Gaussian process are far worse than all the others predict.

    The prediction of each observation by the others, mean and deviation, comes from the inverse of
    the covariance of all (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006,
    Section 5.4.2). Where it is more than 2.5 deviations better than the observation, the latter is
    likely to be a training that went wrong.

    Args:
        model: A fitted model, in evaluation mode, of which larger is better.

    Returns:
        (n,) bool; None for models other than exact Gaussian processes with one output.
    """
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
        deviations = (inverse @ (model.train_targets - mean)) / inverse.diagonal().sqrt()
    doubtful: Tensor = deviations < -_DOUBT
    return doubtful
