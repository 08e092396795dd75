"""How a model's predictions become a wish: acquisition functions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.acquisition.analytic import LogExpectedImprovement, UpperConfidenceBound
from botorch.models.model import Model
from torch import Tensor

from hotnas_torch.arguments import number

__all__ = [
    "UCB",
    "Acquisition",
    "AcquisitionInputs",
    "LogEI",
    "ThompsonSampling",
    "acquisition_of",
    "name_of",
]


@dataclass(frozen=True, slots=True)
class AcquisitionInputs:
    """What an acquisition function may need besides the model.

    Attributes:
        X: Rows of the observed networks, (n, d) float64.
        best: Largest posterior mean at `X`, in the units of the model's targets: the incumbent.
        pending: Rows of the networks that are pending, those chosen for the same batch
            included, (p, d), p >= 0.
        step: Number of the choice after the initial networks, from 1.
    """

    X: Tensor
    best: float
    pending: Tensor
    step: int


Acquisition = Callable[[Model, AcquisitionInputs], AcquisitionFunction]
"""Build a BoTorch acquisition function, larger is better, evaluated on rows (N, 1, d)."""


@dataclass(frozen=True, slots=True)
class UCB:
    """Upper confidence bound mean + sqrt(beta) * standard deviation of the negated value.

    Args:
        beta: Constant weight, >= 0; None takes the schedule sqrt(beta_t) = 3 * sqrt(ln(2t + 1) / 2)
            with t the number of the choice, from 1.

    Raises:
        ValueError: `beta` is negative.

    Reference: Srinivas et al., Gaussian Process Optimization in the Bandit Setting, ICML 2010; the
        schedule is that of NAS-BOWL (Ru et al., ICLR 2021).
    """

    beta: float | None = None

    def __post_init__(self) -> None:
        if self.beta is not None and not 0.0 <= number("beta", self.beta) < math.inf:
            raise ValueError(f"beta must be >= 0 and finite, or None; got {self.beta}")

    def weight(self, step: int) -> float:
        """Return beta at a step."""
        return 4.5 * math.log(2 * step + 1) if self.beta is None else self.beta

    def __call__(self, model: Model, inputs: AcquisitionInputs) -> AcquisitionFunction:
        """Build the acquisition function."""
        return UpperConfidenceBound(model, beta=self.weight(inputs.step))


@dataclass(frozen=True, slots=True)
class LogEI:
    """Logarithm of the expected improvement over the incumbent.

    Reference: Ament et al., Unexpected Improvements to Expected Improvement for Bayesian
        Optimization, NeurIPS 2023.
    """

    def __call__(self, model: Model, inputs: AcquisitionInputs) -> AcquisitionFunction:
        """Build the acquisition function."""
        return LogExpectedImprovement(model, best_f=inputs.best)


@dataclass(frozen=True, slots=True)
class ThompsonSampling:
    """Independent Thompson sampling: a draw from N(mean, variance) for each candidate by itself.

    The largest draw wins. Draws come from torch's global source, which `BayesianSearch` seeds for
    the time of a choice.
    """

    def __call__(self, model: Model, inputs: AcquisitionInputs) -> AcquisitionFunction:
        """Build the acquisition function."""
        del inputs
        return _Draw(model)


class _Draw(AcquisitionFunction):
    def forward(self, X: Tensor) -> Tensor:
        """Draw for rows (N, 1, d), (N,)."""
        posterior: Any = self.model.posterior(X)
        mean: Tensor = posterior.mean.flatten()
        deviation: Tensor = posterior.variance.sqrt().flatten()
        return mean + deviation * torch.randn_like(mean)


_BY_NAME: dict[str, Acquisition] = {"ucb": UCB(), "log_ei": LogEI(), "its": ThompsonSampling()}


def acquisition_of(given: str | Acquisition) -> Acquisition:
    """Return an acquisition function by its name, or as it was given.

    Raises:
        TypeError: It is neither a str nor callable.
        ValueError: There is none of this name.
    """
    if isinstance(given, str):
        if given not in _BY_NAME:
            raise ValueError(
                f"acquisition must be one of {', '.join(map(repr, _BY_NAME))} or a callable; got "
                f"{given!r}"
            )
        return _BY_NAME[given]
    if not callable(given):
        raise TypeError(f"acquisition must be a str or a callable; got {given!r}")
    return given


def name_of(function: Callable[..., object]) -> str:
    """Return what a factory is called in records: its settings, or its qualified name."""
    if isinstance(function, UCB | LogEI | ThompsonSampling):
        return repr(function)
    return str(getattr(function, "__qualname__", repr(function)))
