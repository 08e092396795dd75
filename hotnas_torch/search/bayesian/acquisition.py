"""How a model's predictions become a wish: acquisition functions for HOTNAS."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.acquisition.analytic import LogExpectedImprovement, UpperConfidenceBound
from botorch.models.model import Model
from torch import Tensor

from hotnas_torch.arguments import number

__all__ = ["UCB", "Acquisition", "AcquisitionInputs", "LogEI", "name_of"]


@dataclass(frozen=True, slots=True)
class AcquisitionInputs:
    """What an acquisition function may need besides the model.

    Attributes:
        X: Rows of the observed networks, (n, d) float64.
        best: Largest posterior mean at ``X``, in the units of the model's targets: the incumbent.
        pending: Rows of the networks whose values are awaited, those chosen for the same batch
            included, (p, d), p >= 0.
        step: Number of the choice after the initial networks, from 1.
    """

    X: Tensor
    best: float
    pending: Tensor
    step: int


Acquisition = Callable[[Model, AcquisitionInputs], AcquisitionFunction]
"""Builds a BoTorch acquisition function, larger is better, evaluated on rows (N, 1, d)."""


@dataclass(frozen=True, slots=True)
class UCB:
    """Upper confidence bound mean + sqrt(beta) * standard deviation of the negated value.

    Args:
        beta: Constant weight, >= 0; None takes the schedule sqrt(beta_t) = 3 * sqrt(ln(2t + 1) / 2)
            with t the number of the choice, from 1.

    Raises:
        ValueError: ``beta`` is negative.

    Reference: Srinivas et al., Gaussian Process Optimization in the Bandit Setting, ICML 2010; the
        schedule is that of NAS-BOWL (Ru et al., ICLR 2021).
    """

    beta: float | None = None

    def __post_init__(self) -> None:
        if self.beta is not None and not 0.0 <= number("beta", self.beta) < math.inf:
            raise ValueError(f"beta must be >= 0 and finite, or None; got {self.beta}.")

    def weight(self, step: int) -> float:
        """Returns beta at a step."""
        return 4.5 * math.log(2 * step + 1) if self.beta is None else self.beta

    def __call__(self, model: Model, inputs: AcquisitionInputs) -> AcquisitionFunction:
        """Builds the acquisition function."""
        return UpperConfidenceBound(model, beta=self.weight(inputs.step))


@dataclass(frozen=True, slots=True)
class LogEI:
    """Logarithm of the expected improvement over the incumbent.

    Reference: Ament et al., Unexpected Improvements to Expected Improvement for Bayesian
        Optimization, NeurIPS 2023.
    """

    def __call__(self, model: Model, inputs: AcquisitionInputs) -> AcquisitionFunction:
        """Builds the acquisition function."""
        return LogExpectedImprovement(model, best_f=inputs.best)


def name_of(function: Callable[..., object]) -> str:
    """Returns what a factory is called in records: its settings, or its qualified name."""
    if isinstance(function, UCB | LogEI):
        return repr(function)
    return str(getattr(function, "__qualname__", repr(function)))
