"""What HOTNAS fits by default: kernels of HOTNN and Weisfeiler-Lehman, averaged."""

from dataclasses import dataclass
from typing import Any

import torch
from botorch.models.model import Model
from torch import Tensor

from hotnas_torch.gp import AveragedGP, NetworkPairs
from hotnas_torch.search.bayesian.combined import CombinedSurrogate
from hotnas_torch.search.bayesian.surrogates import Fit, Surrogate
from hotnas_torch.spaces import Joint, SearchSpace

__all__ = ["AveragedSurrogate"]


@dataclass(frozen=True)
class AveragedSurrogate(Surrogate):
    """Kernels of HOTNN and Weisfeiler-Lehman, averaged by their evidence, `gp.AveragedGP`.

    Pairs of networks are compared once in a search. In a `Joint` space, and where the variances of
    the values' noise are known, the most likely of such kernels is taken (`CombinedSurrogate`).
    """

    def bind(self, space: SearchSpace, generator: torch.Generator) -> Fit:
        """Return what builds the model, with one memory of pairs."""
        likely = CombinedSurrogate(("hotnn", "wl")).bind(space, generator)
        if isinstance(space, Joint):
            return likely
        pairs = NetworkPairs(space)

        def fit(X: Tensor, Y: Tensor, num_learned: int, noise: Tensor | None) -> Model:
            if noise is not None:
                return likely(X, Y, num_learned, noise)
            return AveragedGP(X, Y, space=space, pairs=pairs)

        return fit

    def settings(self) -> dict[str, Any]:
        """Return that there are none."""
        return {}
