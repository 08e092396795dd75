"""What is known of one network: its evaluations, their mean, and the noise of that."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Measured", "variances_of_means"]

Row = tuple[float, ...]

# Degrees of freedom from which on the noise is taken from repeated evaluations.
_LEAST_REPEATS = 4


@dataclass(frozen=True, slots=True)
class Measured:
    """The evaluations of one network.

    Attributes:
        rows: The numbers of each; NaN in all places of one that failed.
        variances: Of the noise of each, NaN where it is not known.
    """

    rows: tuple[Row, ...]
    variances: tuple[Row, ...]

    def again(self, other: "Measured") -> "Measured":
        """Return these evaluations and others of the same network."""
        return Measured(self.rows + other.rows, self.variances + other.variances)

    @property
    def mean(self) -> Row:
        """The mean of those that did not fail, weighted by precision where that is known.

        NaN if all failed.
        """
        return tuple(map(self._mean, range(len(self.rows[0]))))

    @property
    def plain(self) -> bool:
        """Whether it is one evaluation of unknown noise."""
        return len(self.rows) == 1 and all(map(math.isnan, self.variances[0]))

    def _succeeded(self, place: int) -> list[tuple[float, float]]:
        """Return numbers and variances of one outcome."""
        pairs = zip(self.rows, self.variances, strict=True)
        return [(row[place], noise[place]) for row, noise in pairs if not math.isnan(row[place])]

    def _mean(self, place: int) -> float:
        found = self._succeeded(place)
        if len(found) < 2:
            return found[0][0] if found else math.nan
        weights = _weights([noise for _, noise in found])
        return math.fsum(w * value for w, (value, _) in zip(weights, found, strict=True))

    def known_variance(self, place: int) -> float:
        """Return the variance of the mean where that of each evaluation is known, else NaN."""
        noise = [one for _, one in self._succeeded(place)]
        if not noise or any(map(math.isnan, noise)):
            return math.nan
        if min(noise) == 0.0:
            return 0.0
        return 1.0 / math.fsum(1.0 / one for one in noise)

    def deviations(self, place: int) -> tuple[int, float]:
        """Return how many evaluations succeeded, and the sum of their squared deviations."""
        values = [value for value, _ in self._succeeded(place)]
        if len(values) < 2:
            return len(values), 0.0
        mean = math.fsum(value / len(values) for value in values)
        return len(values), math.fsum((value - mean) ** 2 for value in values)


def _weights(noise: Sequence[float]) -> list[float]:
    """Return weights that sum to 1: by precision, or equal where one is not known."""
    if any(map(math.isnan, noise)):
        return [1.0 / len(noise)] * len(noise)
    least = min(noise)
    if least == 0.0:
        precisions = [float(one == 0.0) for one in noise]
    else:
        precisions = [least / one for one in noise]
    total = math.fsum(precisions)
    return [one / total for one in precisions]


def variances_of_means(measured: Iterable[Measured], place: int) -> list[float] | None:
    """Return the variances of the means of networks, of one outcome.

    Where nobody said them, they come from what repeated evaluations differ by: the variance within
    networks, pooled over all that were evaluated several times, by the number of evaluations. One
    that is not known even so is taken to be the mean of the known ones of single evaluations.

    Returns:
        One per network; None where there are neither known variances nor enough repetitions.
    """
    all_measured = list(measured)
    known = [one.known_variance(place) for one in all_measured]
    counted = [one.deviations(place) for one in all_measured]
    freedom = sum(max(0, count - 1) for count, _ in counted)
    said = [
        variance * count
        for variance, (count, _) in zip(known, counted, strict=True)
        if not math.isnan(variance)
    ]
    if freedom >= _LEAST_REPEATS:
        single = math.fsum(squares for _, squares in counted) / freedom
    elif said:
        single = math.fsum(said) / len(said)
    else:
        return None
    return [
        single / max(1, count) if math.isnan(variance) else variance
        for variance, (count, _) in zip(known, counted, strict=True)
    ]
