"""Samplers without a hierarchy: uniform, one probability per layer, one per architecture."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.hierarchy.running_mean import RunningMean
from hotnas_torch.hierarchy.sampler import Sampler
from hotnas_torch.hierarchy.schedule import Schedule

__all__ = ["Boltzmann", "Independent", "Uniform", "check_codes", "tried_first"]


class Uniform(Sampler):
    """Draws every architecture with the same probability; the final choice has the best mean.

    Args:
        num_architectures: Number N of architectures.
        schedule: Phases and temperature, on which nothing depends.

    Example:
        >>> sampler = Uniform(3)
        >>> sampler.log_probabilities().exp()
        tensor([0.3333, 0.3333, 0.3333], dtype=torch.float64)
        >>> sampler.update(torch.tensor([0, 2]), torch.tensor([0.5, 0.9]))
        >>> sampler.best(1, generator=torch.Generator())
        tensor([2])
    """

    name = "uniform"

    def __init__(self, num_architectures: int, *, schedule: Schedule | None = None) -> None:
        super().__init__(num_architectures, schedule=schedule)
        self._sum = torch.zeros(num_architectures, dtype=torch.float64)
        self._count = torch.zeros(num_architectures, dtype=torch.int64)

    def settings(self) -> dict[str, Any]:
        """Return no settings: there are none."""
        return {}

    def _log_weights(self, *, explore: bool, allowed: Tensor | None) -> Tensor:
        if explore:
            return torch.zeros(self.num_architectures, dtype=torch.float64)
        means = self._sum / self._count.clamp_min(1)
        return tried_first(means / self.temperature, self._count, allowed)

    def _record(self, indices: Tensor, rewards: Tensor) -> None:
        self._sum.index_add_(0, indices, rewards)
        self._count += torch.bincount(indices, minlength=self.num_architectures)

    def _statistics(self) -> dict[str, dict[str, Tensor]]:
        return {"means": {"sum": self._sum.clone(), "count": self._count.clone()}}

    def _load_statistics(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._sum = state["means"]["sum"].cpu().clone()
        self._count = state["means"]["count"].cpu().clone()


class Boltzmann(Sampler):
    r"""Draws architectures by their own smoothed rewards, :math:`p(a) \propto \exp(C_a / T)`.

    Args:
        num_architectures: Number N of architectures.
        beta: Smoothing of the rewards, see `RunningMean`.
        initial: Value of what was never tried.
        schedule: Phases and temperature; None takes `Schedule`'s defaults.

    Reference: "Neural Architecture Search by Learning a Hierarchical Search Space", 2025,
        Section 3.

    Example:
        >>> sampler = Boltzmann(2, beta=0.0, schedule=Schedule(warm_up=0.0, start=1.0, end=1.0))
        >>> sampler.update(torch.tensor([1]), torch.tensor([0.0]))
        >>> sampler.log_probabilities()[0] - sampler.log_probabilities()[1]
        tensor(1., dtype=torch.float64)
    """

    name = "boltzmann"

    def __init__(
        self,
        num_architectures: int,
        *,
        beta: float = 0.95,
        initial: float = 1.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(num_architectures, schedule=schedule)
        self._rewards = RunningMean(num_architectures, beta=beta, initial=initial)

    def settings(self) -> dict[str, Any]:
        """Return smoothing and initial value."""
        return {"beta": self._rewards.beta, "initial": self._rewards.initial}

    def _log_weights(self, *, explore: bool, allowed: Tensor | None) -> Tensor:
        weights = self._rewards.value / self.temperature
        return weights if explore else tried_first(weights, self._rewards.count, allowed)

    def _record(self, indices: Tensor, rewards: Tensor) -> None:
        self._rewards.record(indices, rewards)

    def _statistics(self) -> dict[str, dict[str, Tensor]]:
        return {"rewards": self._rewards.state_dict()}

    def _load_statistics(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._rewards.load_state_dict(state["rewards"])


class Independent(Sampler):
    r"""Draws every layer on its own, :math:`p(a) = \prod_l p(a_l)`, by smoothed rewards.

    A choice in a layer has the smoothed reward of the architectures that make it, and
    :math:`p(a_l) \propto \exp(C_{a_l} / T)`. Where the list lacks combinations of choices, p is
    normalised over those that it has.

    Args:
        codes: (N, L) integers: which choice each architecture makes in each of L layers.
        beta: Smoothing of the rewards, see `RunningMean`.
        initial: Value of what was never tried.
        schedule: Phases and temperature; None takes `Schedule`'s defaults.

    Raises:
        TypeError: `codes` holds no integers.
        ValueError: `codes` is no matrix.

    Reference: "Neural Architecture Search by Learning a Hierarchical Search Space", 2025,
        Section 3.

    Example:
        >>> codes = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
        >>> schedule = Schedule(warm_up=0.0, start=1.0, end=1.0)
        >>> sampler = Independent(codes, beta=0.0, schedule=schedule)
        >>> sampler.update(torch.tensor([0]), torch.tensor([0.0]))
        >>> log_p = sampler.log_probabilities()
        >>> (log_p[3] - log_p[:3]).round(decimals=6)
        tensor([2., 1., 1.], dtype=torch.float64)
    """

    name = "independent"

    def __init__(
        self,
        codes: Tensor,
        *,
        beta: float = 0.95,
        initial: float = 1.0,
        schedule: Schedule | None = None,
    ) -> None:
        columns = [column.unique(return_inverse=True) for column in check_codes(codes).T]
        super().__init__(len(codes), schedule=schedule)
        self._layer_of_choice = torch.cat(
            [torch.full_like(values, layer) for layer, (values, _) in enumerate(columns)]
        )
        sizes = torch.tensor([0, *(len(values) for values, _ in columns)]).cumsum(0)
        self._choices = torch.stack([c + s for (_, c), s in zip(columns, sizes, strict=False)], 1)
        self._num_layers = len(columns)
        self._rewards = RunningMean(int(sizes[-1]), beta=beta, initial=initial)

    def settings(self) -> dict[str, Any]:
        """Return smoothing and initial value."""
        return {"beta": self._rewards.beta, "initial": self._rewards.initial}

    def _log_weights(self, *, explore: bool, allowed: Tensor | None) -> Tensor:
        del allowed
        weights = self._rewards.value / self.temperature
        if not explore:
            per_layer = torch.zeros(self._num_layers, dtype=torch.int64)
            per_layer.index_add_(0, self._layer_of_choice, self._rewards.count)
            untried = (self._rewards.count == 0) & (per_layer[self._layer_of_choice] > 0)
            weights = weights.masked_fill(untried, -torch.inf)
        return weights[self._choices].sum(dim=1)

    def _record(self, indices: Tensor, rewards: Tensor) -> None:
        order = torch.arange(len(indices)).repeat_interleave(self._num_layers)
        self._rewards.record(self._choices[indices].flatten(), rewards[order])

    def _statistics(self) -> dict[str, dict[str, Tensor]]:
        return {"rewards": self._rewards.state_dict()}

    def _load_statistics(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._rewards.load_state_dict(state["rewards"])


def check_codes(codes: object) -> Tensor:
    """Return codes, (N, L) int64, or raise the errors of `Independent`."""
    if not isinstance(codes, Tensor) or codes.is_floating_point() or codes.dtype == torch.bool:
        raise TypeError("codes must be a tensor of integers, a row per architecture")
    if codes.dim() != 2 or 0 in codes.shape:
        raise ValueError(
            "codes must have shape (N, L), a row per architecture and a column per layer; got "
            f"{tuple(codes.shape)}"
        )
    return codes.long()


def tried_first(weights: Tensor, count: Tensor, allowed: Tensor | None) -> Tensor:
    """Rules out what was never tried, unless that is all there is."""
    tried = count > 0
    if not (tried if allowed is None else tried & allowed).any():
        return weights
    return weights.masked_fill(~tried, -torch.inf)
