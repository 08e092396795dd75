"""Samplers that stay within a budget of operations, parameters or time."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hotnas_torch.arguments import kind
from hotnas_torch.hierarchy.sampler import Sampler

__all__ = ["Budgeted"]


class Budgeted(Sampler):
    """Another sampler that draws only architectures whose cost lies in a range.

    The distribution is the other sampler's, with everything else ruled out: for samplers without a
    tree that equals drawing until an architecture fits; in a tree, branches in which none fits are
    left out of every choice, so that no draw is lost.

    Args:
        sampler: What draws. It is held, not copied.
        cost: (N,) numbers, the cost of each architecture, for example multiply-adds.
        budget: Largest cost allowed.
        least: Smallest cost allowed; the paper draws in [0.99, 1] times its budget.

    Attributes:
        allowed: (N,) bool, what fits.

    Raises:
        TypeError: `sampler` is no sampler or `cost` no tensor.
        ValueError: `cost` has another length or holds NaN, or nothing fits.

    Example:
        >>> import torch
        >>> from hotnas_torch.hierarchy import Uniform
        >>> sampler = Budgeted(Uniform(3), torch.tensor([280.0, 300.0, 275.0]), 280.0)
        >>> sampler.log_probabilities().exp().round(decimals=6).tolist()
        [0.5, 0.0, 0.5]
    """

    name = "budgeted"

    def __init__(
        self, sampler: Sampler, cost: Tensor, budget: float, *, least: float = 0.0
    ) -> None:
        kind("sampler", sampler, Sampler)
        kind("cost", cost, Tensor)
        if cost.shape != (sampler.num_architectures,):
            raise ValueError(
                f"cost must have shape ({sampler.num_architectures},), a number per architecture; "
                f"got {tuple(cost.shape)}"
            )
        cost = cost.detach().cpu().double()
        if cost.isnan().any():
            raise ValueError(f"cost[{int(cost.isnan().nonzero()[0, 0])}] is NaN")
        super().__init__(sampler.num_architectures, schedule=sampler.schedule)
        self.sampler = sampler
        self.budget = float(budget)
        self.least = float(least)
        self.allowed = (cost >= self.least) & (cost <= self.budget)
        if not self.allowed.any():
            raise ValueError(
                f"budget must leave an architecture: none costs between {self.least:g} and "
                f"{self.budget:g}, they cost {float(cost.min()):g} to {float(cost.max()):g}"
            )

    def settings(self) -> dict[str, Any]:
        """Return the range, how much fits, and the other sampler's settings."""
        return {
            "budget": self.budget,
            "least": self.least,
            "num_allowed": int(self.allowed.sum()),
            "sampler": self.sampler.name,
            **self.sampler.settings(),
        }

    def set_progress(self, progress: float) -> None:
        """Say how far the search is, to the other sampler, too."""
        super().set_progress(progress)
        self.sampler.set_progress(progress)

    def log_probabilities(self, *, explore: bool = True, allowed: Tensor | None = None) -> Tensor:
        """As in `Sampler`, of what fits."""
        if allowed is not None:
            self._check_allowed(allowed)
        return self.sampler.log_probabilities(explore=explore, allowed=self._fitting(allowed))

    def _log_weights(self, *, explore: bool, allowed: Tensor | None) -> Tensor:
        return self.sampler._log_weights(explore=explore, allowed=self._fitting(allowed))

    def _greedy(self, allowed: Tensor | None) -> int:
        return self.sampler._greedy(self._fitting(allowed))

    def _fitting(self, allowed: Tensor | None) -> Tensor:
        return self.allowed if allowed is None else self.allowed & allowed

    def _record(self, indices: Tensor, rewards: Tensor) -> None:
        self.sampler.update(indices, rewards)

    def _statistics(self) -> dict[str, dict[str, Tensor]]:
        return self.sampler._statistics()

    def _load_statistics(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.sampler._load_statistics(state)
