"""Random search over operation distributions, flat or biased towards the best so far."""

import math
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, number, takes
from hotnas_torch.search.direct.encoding_strategy import EncodingStrategy
from hotnas_torch.search.goal import GOAL
from hotnas_torch.spaces import SearchSpace

__all__ = ["ANASODRandomSearch"]

_DRAWS = 64


class ANASODRandomSearch(EncodingStrategy):
    r"""Draw encodings from a Dirichlet distribution and evaluate a network of each.

    .. math:: \tilde p_{t+1} \sim \mathrm{Dir}(\alpha), \quad
        \alpha_i = k \beta_t \tilde p^*_i + 1, \quad \beta_t = \beta_{max} \min(t / T, 1)

    with the encoding p* of the best network so far, which is the mode. With `bias` 0 the
    distribution stays flat.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        bias: beta_max >= 0; the paper's biased random search has 2.
        budget: T >= 1, the number of evaluations after which the bias has grown to `bias`.
        **goal: Settings of `Goal`, such as `direction="maximize"`.

    Raises:
        ValueError: An argument out of range.

    Reference: Wan et al., ANASOD, CVPR 2022, Eq. 3 and Appendix A.1.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = ANASODRandomSearch(
        ...     ht.spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0), bias=2.0
        ... )
        >>> nets = strategy.ask(3)
        >>> strategy.tell(nets, [net.spec.count("0") for net in nets])
        >>> len(strategy.ask(2))
        2
    """

    name = "anasod_random"

    @takes(*GOAL)
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        bias: float = 0.0,
        budget: int = 300,
        **goal: Any,
    ) -> None:
        super().__init__(space, generator=generator, **goal)
        bias = number("bias", bias)
        if not 0.0 <= bias < math.inf:
            raise ValueError(f"bias must be finite and >= 0; got {bias}")
        self.bias = bias
        self.budget = integer("budget", budget, least=1)

    def settings(self) -> dict[str, Any]:
        """Return bias and budget."""
        return {"bias": self.bias, "budget": self.budget}

    def concentration(self, step: int) -> Tensor:
        """Return the Dirichlet parameters after `step` evaluations, (k,) float64."""
        k = self.encoding.num_operations
        center = self.best_encoding
        if center is None:
            return torch.ones(k, dtype=torch.float64)
        return 1.0 + k * self.bias * min(step / self.budget, 1.0) * center

    def _propose(self, num: int) -> list[Network]:
        taken = self._taken()
        proposed: list[Network] = []
        for _ in range(num):
            found: list[Network] = []
            concentration = self.concentration(len(taken))
            for _ in range(_DRAWS):
                point = self.encoding.draw(
                    1, generator=self._generator, concentration=concentration
                )
                if found := self._draws.decode(point, taken, draws=1):
                    break
            proposed += found or self._sample_unseen(1, taken)
        return proposed
