"""What every sampler of architectures is: it draws, is told rewards, and makes a final choice."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from hotnas_torch.arguments import integer, kind, number
from hotnas_torch.hierarchy.schedule import Phase, Schedule

__all__ = ["Sampler"]

_VERSION = 1


class Sampler(ABC):
    """A distribution over the architectures 0..N-1 that follows the rewards it is told.

    In the first phases of the schedule architectures are drawn uniformly; then as the method says,
    at the temperature of the schedule. Draws between two updates are independent. Everything is
    float64 on the CPU.

    Args:
        num_architectures: Number N of architectures, >= 1.
        schedule: Phases and temperature; None takes `Schedule`'s defaults.

    Attributes:
        num_architectures: As passed.
        schedule: As passed.
        progress: How far the search is, in [0, 1]; see `set_progress`.

    Raises:
        ValueError: `num_architectures` is below 1.
    """

    name: ClassVar[str]
    """What the method is called in states and on the command line."""

    def __init__(self, num_architectures: int, *, schedule: Schedule | None = None) -> None:
        integer("num_architectures", num_architectures, least=1)
        self.num_architectures = num_architectures
        self.schedule = Schedule() if schedule is None else schedule
        self.progress = 0.0
        self._cumulative: Tensor | None = None

    # --- what a method defines --------------------------------------------------------------------

    @abstractmethod
    def _log_weights(self, *, explore: bool, allowed: Tensor | None) -> Tensor:
        """Return (N,) float64, log p up to a constant; what is not allowed does not matter."""

    @abstractmethod
    def _record(self, indices: Tensor, rewards: Tensor) -> None:
        """Take up checked rewards, in order."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the method's own settings: plain numbers, strings and None."""

    @abstractmethod
    def _statistics(self) -> dict[str, dict[str, Tensor]]:
        """Return what was learned, by name; all zeros at the begin."""

    @abstractmethod
    def _load_statistics(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over what `_statistics` returned."""

    def _greedy(self, allowed: Tensor | None) -> int:
        """Return the architecture that the method ends with."""
        return int(self.log_probabilities(explore=False, allowed=allowed).argmax())

    # --- drawing ----------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """The phase of the schedule."""
        return self.schedule.phase(self.progress)

    @property
    def temperature(self) -> float:
        """The temperature T of the schedule."""
        return self.schedule.temperature(self.progress)

    def set_progress(self, progress: float) -> None:
        """Say how far the search is; phase and temperature follow.

        Args:
            progress: In [0, 1], 0 at the begin of the search and 1 at its end.

        Raises:
            ValueError: Out of range.
        """
        number("progress", progress, least=0.0, most=1.0)
        self.progress = float(progress)
        self._cumulative = None

    def log_probabilities(self, *, explore: bool = True, allowed: Tensor | None = None) -> Tensor:
        """Return log p of each architecture at the present temperature.

        Args:
            explore: With the exploration and the phases of the search; otherwise the distribution
                of the final choice.
            allowed: (N,) bool, architectures that may be drawn; None allows all. Where a tree
                decides, branches without an allowed architecture are left out of every choice.

        Returns:
            (N,) float64; -inf for what is not allowed, and without exploration for what was never
            tried where something was.

        Raises:
            TypeError, ValueError: `allowed` is no mask of N entries, or allows nothing.
        """
        if allowed is not None:
            self._check_allowed(allowed)
        if explore and self.phase is not Phase.SEARCH:
            weights = torch.zeros(self.num_architectures, dtype=torch.float64)
        else:
            weights = self._log_weights(explore=explore, allowed=allowed)
        if allowed is not None:
            weights = weights.masked_fill(~allowed, -math.inf)
        return weights.log_softmax(0)

    def sample(
        self, num: int, *, generator: torch.Generator, allowed: Tensor | None = None
    ) -> Tensor:
        """Draw architectures independently.

        Args:
            num: How many, >= 0.
            generator: Source of randomness.
            allowed: (N,) bool, architectures that may be drawn; None allows all.

        Returns:
            (num,) int64.

        Raises:
            TypeError, ValueError: As `log_probabilities`, or `num` is negative.

        Complexity: O(N) after an update, else O(num log N).
        """
        integer("num", num, least=0)
        if allowed is not None:
            cumulative = self.log_probabilities(allowed=allowed).exp().cumsum(0)
        else:
            if self._cumulative is None:
                self._cumulative = self.log_probabilities().exp().cumsum(0)
            cumulative = self._cumulative
        uniform = torch.rand(
            num, generator=generator, device=generator.device, dtype=torch.float64
        ).cpu()
        # Rounded up, 1 - eps may become the sum itself: the last that can be drawn takes it.
        last = torch.searchsorted(cumulative, cumulative[-1])
        drawn = torch.searchsorted(cumulative, uniform * cumulative[-1], right=True)
        return drawn.clamp_max(last)

    def best(
        self, num: int, *, generator: torch.Generator, allowed: Tensor | None = None
    ) -> Tensor:
        """Make the final choice, without exploration.

        Args:
            num: 1 takes the greedy choice; more are drawn without replacement from the distribution
                without exploration, for the caller to compare. >= 1.
            generator: Source of randomness.
            allowed: (N,) bool, architectures that may be drawn; None allows all.

        Returns:
            At most `num` distinct architectures, int64, the greedy choice for `num` 1; fewer
            where fewer can be drawn.

        Raises:
            TypeError, ValueError: As `log_probabilities`, or `num` is below 1.
        """
        integer("num", num, least=1)
        if num == 1:
            if allowed is not None:
                self._check_allowed(allowed)
            return torch.tensor([self._greedy(allowed)])
        log_p = self.log_probabilities(explore=False, allowed=allowed)
        uniform = torch.rand(
            len(log_p), generator=generator, device=generator.device, dtype=torch.float64
        ).cpu()
        # Gumbel noise: the largest k are a draw of k without replacement.
        keys = log_p - torch.log(-torch.log(uniform.clamp_min(1e-300)))
        num = min(num, int((log_p > -math.inf).sum()))
        return keys.topk(num).indices

    # --- learning ---------------------------------------------------------------------------------

    def update(self, indices: Tensor, rewards: Tensor) -> None:
        """Tell rewards, in order. In the phase without records nothing happens.

        Args:
            indices: (num,) integers, the architectures; repeats allowed.
            rewards: (num,) finite numbers, larger is better; in [0, 1] for the constants of the
                methods to fit.

        Raises:
            TypeError: Not integer tensors and numbers.
            ValueError: Shapes differ, an architecture is out of range, or a reward is not finite;
                the message gives the position.
        """
        indices, rewards = self._check_rewards(indices, rewards)
        if self.phase is Phase.UNIFORM:
            return
        self._record(indices, rewards)
        self._cumulative = None

    def reset(self) -> None:
        """Forget all rewards and begin anew."""
        self._load_statistics(
            {
                name: {key: torch.zeros_like(values) for key, values in found.items()}
                for name, found in self._statistics().items()
            }
        )
        self.set_progress(0.0)

    # --- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return progress and statistics: tensors and plain values, safe to load."""
        return {
            "version": _VERSION,
            "sampler": self.name,
            "num_architectures": self.num_architectures,
            "settings": self.settings(),
            "progress": self.progress,
            "statistics": self._statistics(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            ValueError: The state is of another sampler, of other settings, or of a newer version;
                the message names the difference.
        """
        try:
            version, statistics = state["version"], state["statistics"]
            progress = float(state["progress"])
            found = {name: state[name] for name in ("sampler", "num_architectures", "settings")}
        except (KeyError, TypeError) as error:
            raise ValueError(f"state is no state of a sampler: {error!r}") from error
        if type(version) is not int or not 1 <= version <= _VERSION:
            raise ValueError(
                f"state must be of version {_VERSION} or older; got version {version!r} (it comes "
                "from a newer version of hotnas_torch, or is no sampler's state)"
            )
        own = self.state_dict()
        for name, value in found.items():
            if value != own[name]:
                raise ValueError(
                    f"state belongs to another sampler: its {name} is {value!r}, here it is "
                    f"{own[name]!r}"
                )
        self._load_statistics(statistics)
        self.set_progress(progress)

    # --- validation -------------------------------------------------------------------------------

    def _check_allowed(self, allowed: Tensor) -> None:
        if not isinstance(allowed, Tensor) or allowed.dtype != torch.bool:
            raise TypeError("allowed must be a bool tensor, an entry per architecture, or None")
        if allowed.shape != (self.num_architectures,):
            raise ValueError(
                f"allowed must have shape ({self.num_architectures},); got {tuple(allowed.shape)}"
            )
        if not allowed.any():
            raise ValueError("allowed must allow at least one architecture, it allows none")

    def _check_rewards(self, indices: Tensor, rewards: Tensor) -> tuple[Tensor, Tensor]:
        if not isinstance(indices, Tensor) or indices.is_floating_point():
            raise TypeError("indices must be a tensor of integers, one per reward")
        kind("rewards", rewards, Tensor)
        if indices.dim() != 1 or indices.shape != rewards.shape:
            raise ValueError(
                "indices and rewards must have one entry per reward; got shapes "
                f"{tuple(indices.shape)} and {tuple(rewards.shape)}"
            )
        indices = indices.detach().cpu().long()
        rewards = rewards.detach().cpu().double()
        outside = (indices < 0) | (indices >= self.num_architectures)
        for name, values, wrong, expected in (
            ("indices", indices, outside, f"in 0..{self.num_architectures - 1}"),
            ("rewards", rewards, ~rewards.isfinite(), "finite"),
        ):
            if wrong.any():
                place = int(wrong.nonzero()[0, 0])
                raise ValueError(f"{name}[{place}] must be {expected}; got {values[place].item()}")
        return indices, rewards

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({self.num_architectures} architectures; {settings})"
