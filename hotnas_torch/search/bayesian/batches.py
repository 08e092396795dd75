"""How networks are chosen from a pool, one or several at a time: frozen parts of a search."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from botorch.models.model import Model
from torch import Tensor

from hotnas_torch.arguments import kind
from hotnas_torch.search.bayesian.choice import Choice, mean_of
from hotnas_torch.search.bayesian.kdpp import sample_kdpp
from hotnas_torch.search.bayesian.outcomes import observed

__all__ = ["Batch", "Believer", "Determinantal", "PendingAware", "RandomChoice", "believe"]

# Added to the covariance that sets are drawn by, so that equal networks do not lower its rank.
_JITTER = 1e-6


class Batch(ABC):
    """A rule that takes networks from a pool."""

    needs_model: bool = True
    """Whether the rule asks for the model."""

    one_outcome: bool = False
    """Whether the model must be of one objective without constraints."""

    @abstractmethod
    def __call__(self, choice: Choice, rows: Tensor, num: int) -> list[int]:
        """Choose networks.

        Args:
            choice: What they are chosen by.
            rows: Of the pool, (N, d).
            num: How many, >= 1.

        Returns:
            `num` different places in the pool, all of them where it has fewer.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the rule and its settings, ready for `json.dumps`."""


@dataclass(frozen=True)
class Believer(Batch):
    """One after the other; the model observes its own mean at what is pending or chosen already.

    Reference: Ginsbourger, Le Riche and Carraro, Kriging Is Well-Suited to Parallelize
        Optimization, 2010 (kriging believer).
    """

    def __call__(self, choice: Choice, rows: Tensor, num: int) -> list[int]:
        """Take the largest acquisition value, then believe the mean there."""
        model = believe(choice.model, choice.pending)
        return _one_by_one(choice, model, rows, num, believing=True)

    def settings(self) -> dict[str, Any]:
        """Return the name of the rule."""
        return {"pending": "believer"}


@dataclass(frozen=True)
class PendingAware(Batch):
    """One after the other; the acquisition function gets the rows that are pending or chosen.

    For those of BoTorch that take `X_pending`; with others, they count for nothing.
    """

    def __call__(self, choice: Choice, rows: Tensor, num: int) -> list[int]:
        """Take the largest acquisition value."""
        return _one_by_one(choice, choice.model, rows, num, believing=False)

    def settings(self) -> dict[str, Any]:
        """Return the name of the rule."""
        return {"pending": "acquisition"}


@dataclass(frozen=True)
class Determinantal(Batch):
    """A batch drawn together by a k-determinantal point process: good networks that differ.

    With L = q_x q_x' k(x, x' | data), k(. | data) being the posterior covariance and q = exp(mean),
    in units of the targets' standard deviation. At networks that are pending, the model first
    observes its own mean.

    Attributes:
        single: Rule for a single network.

    Raises:
        TypeError: `single` is no Batch.

    Reference: Nguyen, Le, Yamada and Osborne, Optimal Transport Kernels for Sequential and Parallel
        Neural Architecture Search, ICML 2021, Algorithm 2.
    """

    single: Batch = Believer()
    one_outcome = True

    def __post_init__(self) -> None:
        kind("single", self.single, Batch)

    def __call__(self, choice: Choice, rows: Tensor, num: int) -> list[int]:
        """Draw a set."""
        if num == 1:
            return self.single(choice, rows, num)
        if len(rows) <= num:
            return list(range(len(rows)))
        matrix = _quality_and_diversity(believe(choice.model, choice.pending), rows, choice.Y)
        return sample_kdpp(matrix, num, generator=choice.draws.generator)

    def settings(self) -> dict[str, Any]:
        """Return the rule and that for single networks."""
        return self.single.settings() | {"batches": "kdpp"}


@dataclass(frozen=True)
class RandomChoice(Batch):
    """Left to chance; there need be no model."""

    needs_model = False

    def __call__(self, choice: Choice, rows: Tensor, num: int) -> list[int]:
        """Draw places."""
        return choice.draws.permutation(len(rows))[:num]

    def settings(self) -> dict[str, Any]:
        """Return the name of the rule."""
        return {"batches": "random"}


def believe(model: Model, rows: Tensor) -> Model:
    """Return the model as if its own mean had been observed at some rows, perhaps none."""
    if len(rows) == 0:
        return model
    with torch.no_grad():
        return observed(model, rows, mean_of(model, rows))


def _one_by_one(
    choice: Choice, model: Model, rows: Tensor, num: int, *, believing: bool
) -> list[int]:
    left = list(range(len(rows)))
    chosen: list[int] = []
    while left and len(chosen) < num:
        pending = torch.cat([choice.pending, rows[chosen]])
        step = choice.step + len(chosen)
        with torch.no_grad():
            function = choice.function(model, pending=pending, step=step)
            values: Tensor = function(rows[left].unsqueeze(1))
        place = left.pop(int(values.nan_to_num(nan=-torch.inf).argmax()))
        chosen.append(place)
        if believing and len(chosen) < num:
            model = believe(model, rows[place : place + 1])
    return chosen


def _quality_and_diversity(model: Model, rows: Tensor, Y: Tensor) -> Tensor:
    """L of the candidates, (N, N): posterior covariance times the qualities of both."""
    with torch.no_grad():
        posterior: Any = model.posterior(rows)
        mean: Tensor = posterior.mean.squeeze(-1)
        covariance: Tensor = posterior.distribution.covariance_matrix
    spread = Y.std()
    quality = torch.exp((mean - mean.max()) / spread)
    covariance = covariance / spread**2
    covariance = covariance + _JITTER * torch.eye(len(rows), dtype=covariance.dtype)
    return quality[:, None] * quality * covariance
