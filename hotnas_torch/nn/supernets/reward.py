"""What the sampler of a supernet search is told of a step."""

import math
from dataclasses import dataclass
from typing import Literal

from hotnas_torch.arguments import boolean, choice, number

__all__ = ["Reward"]

_LARGEST_REWARD = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """What a sampler is told of a step, larger is better.

    - `"accuracy"`: the share of the images classified correctly; relative, that over its running
      mean over all steps so far.
    - `"loss"`: exp(-cross-entropy), the mean probability of the true class; relative, the running
      mean of the cross-entropy over the cross-entropy.

    Relative rewards are near 1 whatever the supernet has learned so far, so that early and late
    steps compare; no reward is above 2, what is divided by 0 included.

    Args:
        measure: `"accuracy"` or `"loss"`.
        images: `"validation"` or `"train"`: which batch of the step it is measured on. On training
            images it is of the pass that the weights descend from.
        relative: Whether it is relative to the steps before.
        beta: Smoothing of the running mean, in [0, 1).

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range.

    Reference: "Neural Architecture Search by Learning a Hierarchical Search Space", 2025, Table 7,
        which names five of these; relative ones after Su et al., Prioritized Architecture Sampling
        with Monto-Carlo Tree Search, CVPR 2021. The bound, and the form of absolute losses, are
        ours.
    """

    measure: Literal["accuracy", "loss"] = "accuracy"
    images: Literal["validation", "train"] = "validation"
    relative: bool = False
    beta: float = 0.95

    def __post_init__(self) -> None:
        choice("measure", self.measure, ("accuracy", "loss"))
        choice("images", self.images, ("validation", "train"))
        boolean("relative", self.relative)
        number("beta", self.beta, least=0.0, below=1.0)

    def of(self, accuracy: float, loss: float, mean: float | None) -> tuple[float, float | None]:
        """Return the reward of a step, and the running mean after it.

        Args:
            accuracy: In [0, 1].
            loss: Cross-entropy, finite.
            mean: The running mean before; None at the first step.
        """
        found = accuracy if self.measure == "accuracy" else loss
        if not self.relative:
            return (found if self.measure == "accuracy" else math.exp(-found)), None
        mean = found if mean is None else self.beta * mean + (1.0 - self.beta) * found
        above, below = (found, mean) if self.measure == "accuracy" else (mean, found)
        if below <= 0.0:
            return (1.0 if above <= 0.0 else _LARGEST_REWARD), mean
        return min(above / below, _LARGEST_REWARD), mean
