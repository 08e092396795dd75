"""What the networks of one question are chosen from, and by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.models.model import Model
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.search.base import Observation
from hotnas_torch.search.bayesian.acquisition import Acquisition, AcquisitionInputs
from hotnas_torch.search.bayesian.outcomes import OutcomeModels
from hotnas_torch.search.draws import Draws

__all__ = ["Choice", "mean_of"]


@dataclass(frozen=True)
class Choice:
    """What a pool and a batch rule may use.

    Attributes:
        draws: Draws unseen networks; it knows the space and the generator.
        history: Everything observed, in order; NaN is a failed evaluation.
        observed: The observations that have a value, which is a loss here as in `history`: smaller
            is better, a rank among several objectives.
        X: Their rows, (n, d) float64.
        Y: What the model maximises, (n, 1); of several objectives and constraints, a column each,
            of the latter >= 0 where they are kept.
        surrogate: The fitted model; None in a search without one.
        acquisition: Builds the acquisition function.
        pending: Rows of the networks that are pending, (p, d).
        num_initial: Random networks at the start.
        step: Number of the choice after the initial networks, from 1.
    """

    draws: Draws
    history: Sequence[Observation]
    observed: Sequence[Observation]
    X: Tensor
    Y: Tensor
    surrogate: Model | None
    acquisition: Acquisition
    pending: Tensor
    num_initial: int
    step: int

    @property
    def model(self) -> Model:
        """The fitted model.

        Raises:
            ValueError: The search has none.
        """
        if self.surrogate is None:
            raise ValueError("surrogate must be given: pool or batch ask for the model")
        return self.surrogate

    def best(self, num: int) -> list[Network]:
        """Return the observed networks with the smallest losses, the earliest of equals first."""
        return [
            found.network for found in sorted(self.observed, key=lambda found: found.value)[:num]
        ]

    def function(self, model: Model, *, pending: Tensor, step: int) -> AcquisitionFunction:
        """Build the acquisition function of a model, larger is better."""
        mean = mean_of(model, self.X)[:, 0]
        if isinstance(model, OutcomeModels):
            kept = (self.Y[:, model.num_objectives :] >= 0.0).all(dim=1)
            mean = mean.masked_fill(~kept, -math.inf)
        best = float(mean.max())
        return self.acquisition(model, AcquisitionInputs(self.X, best, pending, step))


def mean_of(model: Model, rows: Tensor) -> Tensor:
    """Return a model's mean at rows, without its graph."""
    with torch.no_grad():
        mean: Tensor = model.posterior(rows).mean  # type: ignore[attr-defined]
    return mean
