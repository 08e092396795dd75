"""Means, errors, ranks and paired tests of what was measured."""

import math
import statistics
from collections.abc import Sequence

import numpy as np
from scipy.stats import wilcoxon
from torch import Tensor

__all__ = ["FEWEST_PAIRS", "mean_and_error", "paired", "standard_error", "surprise"]

FEWEST_PAIRS = 5
"""Fewer pairs cannot differ significantly by Wilcoxon's test, whatever they are."""


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of a mean; None of a single value."""
    if len(values) < 2:
        return None
    return statistics.stdev(map(float, values)) / math.sqrt(len(values))


def mean_and_error(values: Sequence[float], digits: int) -> str:
    """Write a mean with its standard error, or alone where there is one value."""
    error = standard_error(values)
    text = f"{statistics.fmean(values):.{digits}f}"
    return text if error is None else f"{text} ± {error:.{digits}f}"


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Test whether pairs differ, by Wilcoxon's signed-rank test, two-sided.

    Args:
        ours: A value per pair.
        theirs: The other value of each.

    Returns:
        The probability of a difference as large by chance; None where the pairs are fewer than
        `FEWEST_PAIRS` or do not differ at all.
    """
    difference = np.subtract(ours, theirs)
    if len(difference) < FEWEST_PAIRS or not difference.any():
        return None
    return float(wilcoxon(difference).pvalue)


def surprise(mean: Tensor, variance: Tensor, values: Tensor) -> Tensor:
    """Return the negative logarithms of normal densities.

    Args:
        mean: Predicted means, shape (n,).
        variance: Predicted variances, noise included, shape (n,).
        values: What came, shape (n,).

    Returns:
        Shape (n,).
    """
    return 0.5 * ((values - mean).square() / variance + (2.0 * math.pi * variance).log())
