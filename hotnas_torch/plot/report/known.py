"""All that is known of a search, as the sections of its page read it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hotnas_torch.plot.figure import FloatArray
from hotnas_torch.search.running.trial import SearchResult, Trial

__all__ = ["Known"]


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known of a search: what was before it, and its trials.

    Attributes:
        result: The search.
        trials: What was known before, then the trials.
        names: Of their rows in the table.
        rows: The numbers that count, (N, k), NaN for failed ones.
        losses: By which they are ranked, (N,), NaN for failed ones.
        kept: Which keep all bounds.
        leaders: Places of the best or of the front.
    """

    result: SearchResult
    trials: tuple[Trial, ...]
    names: list[str]
    rows: FloatArray
    losses: FloatArray
    kept: np.ndarray[Any, np.dtype[np.bool_]]
    leaders: list[int]

    @classmethod
    def of(cls, result: SearchResult) -> "Known":
        """Read it off a result."""
        trials = (*result.earlier, *result.trials)
        names = [f"{'earlier' if one.earlier else 'trial'}-{one.number}" for one in trials]
        goal = result.goal
        recorded = [goal.recorded(one.value, one.outcome.metrics) for one in trials]
        rows = torch.tensor(recorded, dtype=torch.float64)
        return cls(
            result,
            trials,
            names,
            rows.numpy(),
            goal.losses(rows).numpy(),
            goal.feasible(rows).numpy(),
            goal.leaders(rows),
        )

    @property
    def ranked(self) -> list[int]:
        """Places from the best to the worst, what failed last."""
        found: list[int] = np.argsort(self.losses, kind="stable").tolist()
        return found

    @property
    def own(self) -> slice:
        """Places of the trials."""
        return slice(len(self.result.earlier), None)
