"""One model per number that counts: several objectives, and slacks of constraints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from botorch.models.deterministic import DeterministicModel
from botorch.models.model import Model, ModelList
from botorch.posteriors.ensemble import EnsemblePosterior
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from botorch.posteriors.posterior_list import PosteriorList
from gpytorch.distributions import MultivariateNormal
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.search.goal import Goal
from hotnas_torch.search.goal_settings import Constraint
from hotnas_torch.spaces import SearchSpace

__all__ = [
    "ConstantValue",
    "KnownModel",
    "Outcome",
    "OutcomeModels",
    "observed",
    "outcomes_of",
    "slack_variances",
    "slacks",
]


def slacks(excess: Tensor) -> Tensor:
    """Return what a model of a constraint is fitted to: >= 0 where the bound is kept.

    Args:
        excess: By how much values break the bound, (n,), <= 0 where they do not.

    Returns:
        (n,), without long tails on either side: how far away the bound is counts less and less.
    """
    return -torch.asinh(excess / _scale(excess))


def slack_variances(variances: Tensor, excess: Tensor) -> Tensor:
    """Return the variances of the noise of `slacks`, to first order, given those of numbers."""
    return variances / (_scale(excess).square() + excess.square())


def _scale(excess: Tensor) -> Tensor:
    scale = excess.abs().median()
    return scale if scale > 0.0 else torch.ones_like(scale)


# Added to variances, in those of the least certain network.
_JITTER = 1e-6


@dataclass(frozen=True)
class Outcome:
    """A number that models predict: an objective, or by how much a bound is broken.

    Attributes:
        name: Its own.
        place: Of an objective, among the objectives; of a bound, of its number among all.
        constraint: The bound; None for an objective.
        function: What a network is known to have, larger being better; None: it is learned.
    """

    name: str
    place: int
    constraint: Constraint | None
    function: Callable[[Network], float] | None

    def number(self, goal: Goal) -> str:
        """Return the name of the number that it is about."""
        return goal.objectives[self.place] if self.constraint is None else self.constraint.name

    def losses(self, goal: Goal, rows: Tensor) -> Tensor:
        """Return what is to be small, of rows (n, len(goal.names)), (n,)."""
        if self.constraint is None:
            return goal.signed(rows)[:, self.place]
        return self.constraint.excess(rows[:, self.place])


def outcomes_of(goal: Goal) -> list[Outcome]:
    """Return what is to be predicted, objectives first."""
    found = []
    for place, name in enumerate(goal.objectives):
        function: Callable[[Network], float] | None = None
        if name in goal.known:
            function = _KnownObjective(goal, place)
        found.append(Outcome(name, place, None, function))
    for constraint in goal.constraints:
        function = None
        if constraint.name in goal.known:
            function = _KnownSlack(constraint, goal.known[constraint.name])
        place = goal.names.index(constraint.name)
        found.append(Outcome(str(constraint), place, constraint, function))
    return found


@dataclass(frozen=True)
class _KnownObjective:
    goal: Goal
    place: int

    def __call__(self, net: Network) -> float:
        value = self.goal.known[self.goal.objectives[self.place]](net)
        row = torch.zeros(len(self.goal.objectives), dtype=torch.float64)
        row[self.place] = float(value)
        return -float(self.goal.signed(row)[self.place])


@dataclass(frozen=True)
class _KnownSlack:
    """Away from 0, where BoTorch is not sure whether a bound is kept."""

    constraint: Constraint
    function: Callable[[Network], float]

    def __call__(self, net: Network) -> float:
        value = torch.tensor(float(self.function(net)), dtype=torch.float64)
        excess = self.constraint.excess(value)
        return 1.0 if excess <= 0.0 else -1.0 - float(excess.log1p())


@dataclass(frozen=True)
class ConstantValue:
    """What is the same for all networks, as far as is known."""

    value: float

    def __call__(self, net: Network) -> float:
        """Return the value."""
        del net
        return self.value


class KnownModel(DeterministicModel):
    """What is known of each network, as a model: no uncertainty, nothing to learn.

    Args:
        space: What the rows are networks of.
        function: Takes a network and returns the number, larger is better.
    """

    def __init__(self, space: SearchSpace, function: Callable[[Network], float]) -> None:
        super().__init__()
        self._space = space
        self._function = function
        self._num_outputs = 1
        self._found: dict[bytes, float] = {}

    def forward(self, X: Tensor) -> Tensor:
        """Return the numbers of rows (..., d), (..., 1)."""
        rows = X.detach().reshape(-1, X.shape[-1]).cpu()
        keys = [row.tobytes() for row in rows.numpy()]
        new = {key: place for place, key in enumerate(keys) if key not in self._found}
        if new:
            nets = self._space.decode(rows[list(new.values())])
            self._found |= zip(new, map(self._function, nets), strict=True)
        found = torch.tensor([self._found[key] for key in keys], dtype=X.dtype)
        return found.reshape(*X.shape[:-1], 1)


class OutcomeModels(ModelList):
    """Independent models of the objectives, larger being better, then of slacks of constraints.

    An acquisition function asks for the same few networks beside each candidate of a pool. Here the
    models see each network once, and joint predictions are taken from one matrix.

    Args:
        models: One per number.
        num_objectives: How many of them are objectives.
        reference: A point that is worse than the front in all objectives, (num_objectives,), in the
            models' units.
    """

    def __init__(self, models: Sequence[Model], *, num_objectives: int, reference: Tensor) -> None:
        super().__init__(*models)
        self.parts = tuple(models)
        self.num_objectives = num_objectives
        self.reference = reference

    @property
    def constraints(self) -> list[Callable[[Tensor], Tensor]]:
        """What BoTorch calls outcome constraints: functions that are <= 0 where one is kept."""

        def broken(place: int) -> Callable[[Tensor], Tensor]:
            return lambda samples: -samples[..., place]

        return [broken(place) for place in range(self.num_objectives, len(self.parts))]

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: Callable[[PosteriorList], Posterior] | None = None,
    ) -> Any:
        """Predict rows (..., q, d) jointly, as `botorch.models.ModelList` does."""
        if X.ndim < 3 or observation_noise is not False:
            return super().posterior(X, output_indices, observation_noise, posterior_transform)
        rows, places = torch.unique(X.reshape(-1, X.shape[-1]), dim=0, return_inverse=True)
        places = places.reshape(X.shape[:-1])
        chosen = range(len(self.parts)) if output_indices is None else output_indices
        found = PosteriorList(*(_taken(self.parts[one].posterior(rows), places) for one in chosen))
        return found if posterior_transform is None else posterior_transform(found)

    def condition_on_observations(self, X: Tensor, Y: Tensor, **kwargs: Any) -> Self:
        """Return the models as if Y, (n, k), had been observed at rows (n, d) as well."""
        models = [
            observed(model, X, Y[..., place : place + 1], **kwargs)
            for place, model in enumerate(self.parts)
        ]
        return type(self)(models, num_objectives=self.num_objectives, reference=self.reference)


def observed(model: Model, X: Tensor, Y: Tensor, **options: Any) -> Model:
    """Return a model as if targets Y, (n, k), had been observed at rows X (n, d) as well.

    What is known is as before; where the noise of each observation is known, that of the new ones
    is the mean of it.
    """
    if isinstance(model, DeterministicModel):
        return model
    likelihood = getattr(model, "likelihood", None)
    if isinstance(likelihood, FixedNoiseGaussianLikelihood):
        # In the model's own units, as BoTorch expects it.
        options = {"noise": likelihood.noise.mean().expand(Y.shape)} | options
    return model.condition_on_observations(X, Y, **options)


def _taken(posterior: Any, places: Tensor) -> Any:
    """Return the joint predictions of sets of networks, (..., q), from that of all of them."""
    if isinstance(posterior, EnsemblePosterior):
        return EnsemblePosterior(posterior.mean[places].unsqueeze(-3))
    mean, covariance = posterior.mean.squeeze(-1), posterior.distribution.covariance_matrix
    # What was observed without noise is certain, and some networks are equals to the model.
    least = _JITTER * float(covariance.diagonal().max())
    covariance = covariance + least * torch.eye(len(covariance), dtype=covariance.dtype)
    joint = covariance[places.unsqueeze(-1), places.unsqueeze(-2)]
    return GPyTorchPosterior(MultivariateNormal(mean[places], joint))
