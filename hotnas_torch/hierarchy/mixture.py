"""A sampler of several sets of shared weights, among which architectures are divided."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hotnas_torch.arguments import integer
from hotnas_torch.hierarchy.flat import tried_first
from hotnas_torch.hierarchy.running_mean import RunningMean
from hotnas_torch.hierarchy.sampler import Sampler
from hotnas_torch.hierarchy.schedule import Schedule

__all__ = ["Mixture"]

_ROUNDS = 50


class Mixture(Sampler):
    r"""Draws architectures uniformly, each in one of M models, to which it comes to belong.

    What is drawn are pairs: the number m * N + a is architecture a in model m. A pair has its own
    smoothed reward C, and

    .. math:: p(a, m) = u_a v_m \exp(C_{a, m} / T), \quad \sum_m p(a, m) = 1 / N, \quad
        \sum_a p(a, m) \approx 1 / M

    so that models specialise on architectures that they make good, and none is left without any.
    The final choice is the pair with the largest reward.

    Args:
        num_architectures: Number N of architectures, >= 1.
        num_models: Number M of models, >= 1.
        beta: Smoothing of the rewards, see `RunningMean`.
        initial: Value of what was never tried.
        schedule: Phases and temperature; None takes `Schedule`'s defaults.

    Attributes:
        num_models: As passed; `num_architectures` counts the N M pairs.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range.

    Complexity: O(N M) per draw after an update.

    Reference: a baseline of "Neural Architecture Search by Learning a Hierarchical Search Space",
        2025; after Roshtkhari, Toews and Pedersoli, Balanced Mixture of Supernets for Learning the
        CNN Pooling Architecture, AutoML 2023. The balance by row and column scaling is ours.

    Example:
        >>> sampler = Mixture(3, 2)
        >>> sampler.num_architectures, sampler.log_probabilities().exp().sum().round(decimals=6)
        (6, tensor(1., dtype=torch.float64))
    """

    name = "mixture"

    def __init__(
        self,
        num_architectures: int,
        num_models: int,
        *,
        beta: float = 0.9,
        initial: float = 1.0,
        schedule: Schedule | None = None,
    ) -> None:
        num = integer("num_architectures", num_architectures, least=1)
        self.num_models = integer("num_models", num_models, least=1)
        super().__init__(num * self.num_models, schedule=schedule)
        self._rewards = RunningMean(self.num_architectures, beta=beta, initial=initial)

    def settings(self) -> dict[str, Any]:
        """Return the number of models, smoothing and initial value."""
        return {
            "num_models": self.num_models,
            "beta": self._rewards.beta,
            "initial": self._rewards.initial,
        }

    def _log_weights(self, *, explore: bool, allowed: Tensor | None) -> Tensor:
        weights = self._rewards.value / self.temperature
        if not explore:
            return tried_first(weights, self._rewards.count, allowed)
        weights = weights.reshape(self.num_models, -1)
        for _ in range(_ROUNDS):
            weights = weights - weights.logsumexp(1, keepdim=True)
            weights = weights - weights.logsumexp(0, keepdim=True)
        return weights.flatten()

    def _record(self, indices: Tensor, rewards: Tensor) -> None:
        self._rewards.record(indices, rewards)

    def _statistics(self) -> dict[str, dict[str, Tensor]]:
        return {"rewards": self._rewards.state_dict()}

    def _load_statistics(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._rewards.load_state_dict(state["rewards"])
