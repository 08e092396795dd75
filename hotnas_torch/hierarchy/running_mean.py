"""Exponential running means of rewards, many at once."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hotnas_torch.arguments import number

__all__ = ["RunningMean", "SharedMean"]


class RunningMean:
    r"""Exponentially smoothed rewards of K slots, Eq. 4 of the paper.

    .. math:: C \leftarrow \beta C + (1 - \beta) \, \text{reward}

    Args:
        size: Number K of slots.
        beta: Smoothing, in [0, 1).
        initial: Value before the first reward; None starts from nothing, so that the value is the
            mean of the rewards weighted by beta to the power of their age.

    Attributes:
        count: (K,) int64, rewards recorded so far.

    Raises:
        ValueError: `beta` out of range.

    Complexity: O(K) memory; recording P rewards O(P log P).

    Example:
        >>> mean = RunningMean(2, beta=0.5, initial=1.0)
        >>> mean.record(torch.tensor([0, 0]), torch.tensor([0.0, 1.0]).double())
        >>> mean.value.tolist()
        [0.75, 1.0]
    """

    def __init__(self, size: int, *, beta: float, initial: float | None) -> None:
        number("beta", beta, least=0.0, below=1.0)
        self.beta = float(beta)
        self.initial = initial
        self.count = torch.zeros(size, dtype=torch.int64)
        self._sum = torch.zeros(size, dtype=torch.float64)

    @property
    def value(self) -> Tensor:
        """(K,) float64; 0 without a reward where there is no initial value."""
        left = torch.pow(self.beta, self.count.double())
        if self.initial is None:
            return self._sum / (1.0 - left).clamp_min(1.0 - self.beta)
        return left * self.initial + self._sum

    def record(self, slots: Tensor, rewards: Tensor, order: Tensor | None = None) -> None:
        """Record rewards as if one after the other.

        Args:
            slots: (P,) int64, the slot that each belongs to; repeats allowed.
            rewards: (P,) float64.
            order: (P,) int64, when each came; None takes them as they stand.
        """
        if not len(slots):
            return
        if order is not None:
            by_time = order.argsort(stable=True)
            slots, rewards = slots[by_time], rewards[by_time]
        by_slot = slots.argsort(stable=True)
        found, counts = slots[by_slot].unique_consecutive(return_counts=True)
        ends = counts.cumsum(0).repeat_interleave(counts)
        later = (ends - 1 - torch.arange(len(slots))).double()
        self._sum[found] *= torch.pow(self.beta, counts.double())
        weighted = (1.0 - self.beta) * torch.pow(self.beta, later) * rewards[by_slot]
        self._sum.index_add_(0, slots[by_slot], weighted)
        self.count[found] += counts

    def state_dict(self) -> dict[str, Tensor]:
        """Return counts and smoothed sums."""
        return {"count": self.count.clone(), "sum": self._sum.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: The shapes differ.
        """
        for name, own in (("count", self.count), ("sum", self._sum)):
            if state[name].shape != own.shape:
                raise ValueError(
                    f"state[{name!r}] must have shape {tuple(own.shape)}; got "
                    f"{tuple(state[name].shape)} (it belongs to another set of architectures)"
                )
        self.count = state["count"].cpu().clone()
        self._sum = state["sum"].cpu().clone()


class SharedMean:
    r"""Exponentially smoothed rewards of K slots, of which those of one group learn together.

    .. math:: C_i \leftarrow C_i + (1 - \beta) (\text{reward} - C_i), \quad
        C_j \leftarrow C_j + w (1 - \beta) (\text{reward} - C_j)

    for the slot i that a reward is of, and every other slot j of its group.

    Args:
        group: (K,) int64, the group of each slot, -1 for none.
        beta: Smoothing, in [0, 1).
        weight: w, in [0, 1]: 0 shares nothing, 1 makes all slots of a group one.
        initial: Value before the first reward; None starts from nothing, so that the value is a
            weighted mean of the rewards.

    Attributes:
        count: (K,) int64, rewards recorded so far, each slot's own.

    Raises:
        ValueError: An argument out of range.

    Complexity: O(K) memory; a reward costs as many steps as its group has slots.

    Example:
        >>> mean = SharedMean(torch.tensor([0, 0, -1]), beta=0.5, weight=0.5, initial=1.0)
        >>> mean.record(torch.tensor([0]), torch.tensor([0.0]).double())
        >>> mean.value.tolist(), mean.count.tolist()
        ([0.5, 0.75, 1.0], [1, 0, 0])
    """

    def __init__(self, group: Tensor, *, beta: float, weight: float, initial: float | None) -> None:
        number("beta", beta, least=0.0, below=1.0)
        number("weight", weight, least=0.0, most=1.0)
        self.beta = float(beta)
        self.weight = float(weight)
        self.initial = initial
        self.count = torch.zeros(len(group), dtype=torch.int64)
        self._sum = torch.zeros(len(group), dtype=torch.float64)
        # What the rewards so far weigh: 1 less the initial value's share.
        self._mass = torch.zeros(len(group), dtype=torch.float64)
        self._group = group
        by_group = group.argsort(stable=True)
        sizes = torch.bincount(group + 1)
        self._slots = list(by_group.split(sizes.tolist()))[1:]

    @property
    def value(self) -> Tensor:
        """(K,) float64; 0 without a reward where there is no initial value."""
        if self.initial is None:
            return torch.where(self._mass > 0.0, self._sum / self._mass, 0.0)
        return (1.0 - self._mass) * self.initial + self._sum

    def record(self, slots: Tensor, rewards: Tensor, order: Tensor | None = None) -> None:
        """Record rewards one after the other; arguments as those of `RunningMean.record`."""
        if order is not None:
            by_time = order.argsort(stable=True)
            slots, rewards = slots[by_time], rewards[by_time]
        rate = 1.0 - self.beta
        for slot, reward in zip(slots.tolist(), rewards.tolist(), strict=True):
            group = int(self._group[slot])
            if group >= 0 and self.weight:
                others = self._slots[group]
                others = others[others != slot]
                self._move(others, reward, self.weight * rate)
            self._move(slot, reward, rate)
            self.count[slot] += 1

    def _move(self, slots: Tensor | int, reward: float, rate: float) -> None:
        self._sum[slots] = (1.0 - rate) * self._sum[slots] + rate * reward
        self._mass[slots] = (1.0 - rate) * self._mass[slots] + rate

    def state_dict(self) -> dict[str, Tensor]:
        """Return counts, smoothed sums and their weights."""
        return {"count": self.count.clone(), "sum": self._sum.clone(), "mass": self._mass.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: The shapes differ.
        """
        own = self.state_dict()
        for name, values in own.items():
            if state[name].shape != values.shape:
                raise ValueError(
                    f"state[{name!r}] must have shape {tuple(values.shape)}; got "
                    f"{tuple(state[name].shape)} (it belongs to another set of architectures)"
                )
            own[name] = state[name].cpu().clone()
        self.count, self._sum, self._mass = own["count"], own["sum"], own["mass"]
