"""How closely a search keeps to the best encoding so far."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hotnas_torch.arguments import integer, number

__all__ = ["DirichletTrustRegion"]


@dataclass(frozen=True, slots=True)
class DirichletTrustRegion:
    r"""Width of the distribution from which candidate encodings are drawn.

    Candidates are Dirichlet with parameters alpha_i = k beta p*_i + 1 around the best encoding p*.
    After `successes` successive batches that improve the best value, beta is halved, which
    widens the distribution; after `failures` successive ones that do not, it is doubled. Halved
    below `smallest`, it becomes 0, the uniform distribution. Doubling 0 would never leave it, so
    from there a failure leads to `smallest`.

    Args:
        start: beta at the start, in [0, `largest`].
        smallest: Smallest positive beta, > 0.
        largest: beta_max, >= `smallest`; 2 is the paper's for its biased random search.
        successes: Batches in a row that widen, >= 1.
        failures: Batches in a row that narrow, >= 1.
        batch: Evaluations that are counted as one, >= 1.
        threshold: An improvement must exceed this share of the best value's size, >= 0.

    Raises:
        ValueError: A setting out of range.

    Reference: Wan et al., ANASOD, CVPR 2022, Section 3.2, which does not give the numbers; these
        are TuRBO's (Eriksson et al., NeurIPS 2019) where there are such.

    Example:
        >>> region = DirichletTrustRegion(batch=1, failures=2)
        >>> region.beta([5.0, 6.0, 6.0, 6.0, 6.0], num_initial=1)
        2.0
    """

    start: float = 1.0
    smallest: float = 2.0**-6
    largest: float = 2.0
    successes: int = 3
    failures: int = 3
    batch: int = 4
    threshold: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("start", "smallest", "largest", "threshold"):
            object.__setattr__(self, name, number(name, getattr(self, name)))
        for name in ("successes", "failures", "batch"):
            object.__setattr__(self, name, integer(name, getattr(self, name)))
        for name, valid, expected in (
            ("smallest", 0.0 < self.smallest < math.inf, "positive and finite"),
            ("largest", self.smallest <= self.largest < math.inf, "finite and >= smallest"),
            ("start", 0.0 <= self.start <= self.largest, "in [0, largest]"),
            ("successes", self.successes >= 1, "at least 1"),
            ("failures", self.failures >= 1, "at least 1"),
            ("batch", self.batch >= 1, "at least 1"),
            ("threshold", 0.0 <= self.threshold < math.inf, "finite and >= 0"),
        ):
            if not valid:
                raise ValueError(f"{name} must be {expected}; got {getattr(self, name)!r}")

    def beta(self, values: Sequence[float], *, num_initial: int) -> float:
        """Return beta after some evaluations.

        Args:
            values: All values in order, smaller is better; NaN for a failed evaluation.
            num_initial: How many of the first are the initial design, which moves nothing.
        """
        numbers = [math.inf if math.isnan(value) else value for value in values]
        best = min(numbers[:num_initial], default=math.inf)
        beta, successes, failures = self.start, 0, 0
        for first in range(num_initial, len(numbers) - self.batch + 1, self.batch):
            found = min(numbers[first : first + self.batch])
            if found < best and (math.isinf(best) or best - found > self.threshold * abs(best)):
                successes, failures = successes + 1, 0
            else:
                successes, failures = 0, failures + 1
            best = min(best, found)
            if successes == self.successes:
                beta, successes = self.wider(beta), 0
            elif failures == self.failures:
                beta, failures = self.narrower(beta), 0
        return beta

    def wider(self, beta: float) -> float:
        """Return half of beta, or 0 where that is too small."""
        return beta / 2.0 if beta / 2.0 >= self.smallest else 0.0

    def narrower(self, beta: float) -> float:
        """Return twice beta, within its range."""
        return min(max(2.0 * beta, self.smallest), self.largest)

    def to_json(self) -> dict[str, Any]:
        """Return the settings, ready for `json.dumps`."""
        return asdict(self)
