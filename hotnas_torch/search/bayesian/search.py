"""Bayesian optimisation over a pool of candidates, composed of frozen parts."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from botorch.models.model import Model
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, takes
from hotnas_torch.errors import NoiseWarning
from hotnas_torch.search.base import Observation, Strategy
from hotnas_torch.search.bayesian.acquisition import (
    Acquisition,
    AcquisitionName,
    acquisition_of,
    name_of,
)
from hotnas_torch.search.bayesian.batches import Batch, Believer
from hotnas_torch.search.bayesian.choice import Choice
from hotnas_torch.search.bayesian.outcomes import (
    ConstantValue,
    KnownModel,
    Outcome,
    OutcomeModels,
    outcomes_of,
    slack_variances,
    slacks,
)
from hotnas_torch.search.bayesian.pools import MutantPool, Pool
from hotnas_torch.search.bayesian.surrogates import Fit, FunctionSurrogate, Surrogate
from hotnas_torch.search.bayesian.targets import (
    explained_share,
    target_variances,
    targets,
    unexplained,
)
from hotnas_torch.search.goal import GOAL
from hotnas_torch.search.goal_settings import Direction
from hotnas_torch.search.randomness import draw_seed, seeded
from hotnas_torch.spaces import SearchSpace

__all__ = ["BayesianSearch"]

# Observations from which on a model that explains nothing is worth a warning.
_ENOUGH = 20
# Share of the variance up to which predictions say nothing.
_NOTHING = 0.02
# Known noise below this share of the targets' variance is no noise to Gaussian processes.
_LEAST_NOISE = 1e-5
# Fits of a model without the outliers of the fit before.
_ROUNDS = 3


class BayesianSearch(Strategy):
    """Fit a model, draw a pool of candidates, take the most promising.

    The first `num_initial` networks are random. After them, each `ask` fits the surrogate to
    everything observed, draws a pool of unseen networks, and takes from it by the batch rule those
    with the largest acquisition values. HOTNAS, NASBOT and the others are this class with parts
    chosen; any other combination is a method, too.

    A few wild values do not blind the model: bad tails are cut off, and a Gaussian process is
    fitted again without observations that are far worse than all the others say. They stay
    observed. Noise that is known, see `tell`, reaches models on distances. Where it swallows what
    tells networks apart, a `NoiseWarning` says so, once.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        surrogate: The model: a `Surrogate` such as `HOTNNSurrogate()`, or a callable that builds
            and fits a BoTorch model of rows (n, d) and targets (n, 1), larger being better. None
            fits nothing, for batch rules that need no model.
        pool: Where candidates come from.
        acquisition: `"log_ei"`, `"ucb"`, `"its"` (independent Thompson sampling); for several
            objectives `"log_nehvi"` or `"log_nparego"`; or a callable that builds a BoTorch
            acquisition function, see `Acquisition`. None takes the first of these.
        batch: How networks are taken from the pool, and what pending ones count for.
        num_initial: Random networks at the start, >= 2.
        transform: `"log"`: the model sees the logarithm of the values, when all of them are
            positive (errors and losses are); `"none"`: the values themselves.
        name: What the method is called in records; None keeps the class's.
        **goal: Settings of `Goal`, such as `direction="maximize"`.

    Attributes:
        model: The model that the last choice was made with, fitted; None before that.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range.

    Example:
        >>> import hotnas_torch as ht
        >>> from hotnas_torch.search import BayesianSearch, DistanceSurrogate, MutantPool
        >>> space = ht.spaces.NASBenchMacro()
        >>> strategy = BayesianSearch(
        ...     space,
        ...     generator=torch.Generator().manual_seed(0),
        ...     surrogate=DistanceSurrogate(ht.distances.TreeWasserstein(space)),
        ...     pool=MutantPool(pool_size=50, random_fraction=0.2),
        ...     num_initial=5,
        ...     name="mine",
        ... )
        >>> for num in (5, 3):
        ...     nets = strategy.ask(num)
        ...     strategy.tell(nets, [1.0 + net.spec.count("0") for net in nets])
        >>> strategy.settings()["pool"]["pool_size"]
        50
    """

    name = "bayesian"
    pursues_several = True

    @takes(*GOAL)
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        surrogate: Surrogate | Callable[[Tensor, Tensor], Model] | None,
        pool: Pool = MutantPool(),  # noqa: B008 - frozen
        acquisition: AcquisitionName | Acquisition | None = None,
        batch: Batch = Believer(),  # noqa: B008 - frozen
        num_initial: int = 10,
        transform: Literal["none", "log"] = "log",
        name: str | None = None,
        **goal: Any,
    ) -> None:
        super().__init__(space, generator=generator, **goal)
        if not (surrogate is None or isinstance(surrogate, Surrogate)):
            surrogate = FunctionSurrogate(surrogate)
        if not isinstance(pool, Pool):
            raise TypeError(f"pool must be a Pool such as MutantPool(); got {pool!r}")
        if not isinstance(batch, Batch):
            raise TypeError(f"batch must be a Batch such as Believer(); got {batch!r}")
        if surrogate is None and batch.needs_model:
            raise ValueError(f"surrogate must be given: {batch!r} asks for the model; got None")
        if not isinstance(transform, str) or transform not in ("none", "log"):
            raise ValueError(f"transform must be 'none' or 'log'; got {transform!r}")
        if not isinstance(name, str | None):
            raise TypeError(f"name must be a str or None; got {name!r}")
        self.surrogate = surrogate
        self.pool = pool
        self.acquisition = acquisition_of(acquisition, self.goal)
        if batch.one_outcome and not self._one_outcome:
            raise ValueError(
                "batch must be a rule such as Believer() for several objectives or constraints; got"
                f" {batch!r}"
            )
        self.batch = batch
        self.num_initial = integer("num_initial", num_initial, least=2)
        self.transform: Literal["none", "log"] = transform
        self.name = self.name if name is None else name
        self.model: Model | None = None
        self._draws = pool.draws(space, self._generator)
        self._warned = False
        self._bind()

    def _bind(self) -> None:
        self._outcomes = outcomes_of(self.goal)
        # One for each outcome that is not known: what fits may remember.
        self._fits: dict[str, Fit] = {}
        if self.surrogate is not None:
            for outcome in self._outcomes:
                if outcome.function is None:
                    self._fits[outcome.name] = self.surrogate.bind(self.space, self._generator)

    @property
    def _one_outcome(self) -> bool:
        return not (self.goal.several or self.goal.constraints)

    def aim(self, direction: Direction | Sequence[Direction]) -> None:
        """Say which values are good, see `Strategy`."""
        before = self.goal.directions
        super().aim(direction)
        if self.goal.directions != before:
            self._bind()

    def __getstate__(self) -> dict[str, Any]:
        # What fits is bound to this search's generator; what it remembers can be found again.
        return {name: value for name, value in self.__dict__.items() if name != "_fits"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bind()

    def settings(self) -> dict[str, Any]:
        """Return all settings; each part by the name of its kind, a callable by its own."""
        return {
            "num_initial": self.num_initial,
            "acquisition": name_of(self.acquisition),
            "transform": self.transform,
            "surrogate": _described(self.surrogate),
            "pool": _described(self.pool),
            "batch": _described(self.batch),
        }

    # --- proposing --------------------------------------------------------------------------------

    def _propose(self, num: int) -> list[Network]:
        taken = self._taken()
        proposed = self._draws.sample(max(0, min(num, self.num_initial - len(taken))), taken)
        # Values that are all the same say nothing.
        if len(proposed) < num and self._differ():
            with seeded(draw_seed(self._generator, below=2**62)):
                choice = self._choice(proposed)
                pool = self.pool(choice, num - len(proposed), taken)
                rows = self.space.encode(pool)
                chosen = self.batch(choice, rows, num - len(proposed))
            proposed += [pool[place] for place in chosen]
        # Fewer were chosen where the pool is small.
        taken = self._taken() | {self.space.key(net) for net in proposed}
        return proposed + self._draws.sample(num - len(proposed), taken)

    def _differ(self) -> bool:
        """Whether observed values are not all the same."""
        rows = self._rows_of(self._finite())
        return bool((rows != rows[:1]).any())

    def _choice(self, proposed: Sequence[Network] = ()) -> Choice:
        """Fit the model, and return all that networks are chosen by."""
        observed = self._finite()
        X = self.space.encode([found.network for found in observed])
        rows = self._rows_of(observed)
        Y = self._targets(rows)
        self.model = self._fitted(X, Y, rows)
        return Choice(
            draws=self._draws,
            history=list(self._judged().values()),
            observed=observed,
            X=X,
            Y=Y,
            surrogate=self.model,
            acquisition=self.acquisition,
            pending=self.space.encode([*self._pending.values(), *proposed]),
            num_initial=self.num_initial,
            step=max(1, len(self._taken()) + len(proposed) - self.num_initial + 1),
        )

    def _rows_of(self, observed: Sequence[Observation]) -> Tensor:
        """Return all numbers that count of observed networks, (n, len(goal.names))."""
        rows = [self._rows[self.space.key(found.network)] for found in observed]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(self.goal.names))

    def _targets(self, rows: Tensor) -> Tensor:
        """Return what the models are to maximise, (n, number of outcomes)."""
        return torch.stack([self._target(outcome, rows) for outcome in self._outcomes], dim=1)

    def _target(self, outcome: Outcome, rows: Tensor) -> Tensor:
        found = outcome.losses(self.goal, rows)
        if outcome.function is not None:
            return -found
        if outcome.constraint is not None:
            return slacks(found)
        first = max(2, self._num_learned(len(found)))
        return targets(found, transform=self.transform, num_reference=first)

    def _num_learned(self, num: int) -> int:
        if self.surrogate is None:
            return num
        return self.surrogate.num_learned(num, self.num_initial)

    def _fitted(self, X: Tensor, Y: Tensor, rows: Tensor) -> Model | None:
        """Fit a model of each outcome; of one objective, and nothing else, that of it."""
        if self.surrogate is None:
            return None
        models = [
            self._outcome_model(outcome, X, Y[:, place : place + 1], rows)
            for place, outcome in enumerate(self._outcomes)
        ]
        if self._one_outcome:
            return models[0]
        count = len(self.goal.objectives)
        kept = self.goal.feasible(rows)
        best = Y[kept if bool(kept.any()) else slice(None), :count]
        reference = infer_reference_point(best[is_non_dominated(best)])
        return OutcomeModels(models, num_objectives=count, reference=reference)

    def _outcome_model(self, outcome: Outcome, X: Tensor, Y: Tensor, rows: Tensor) -> Model:
        if outcome.function is not None:
            return KnownModel(self.space, outcome.function)
        fit = self._fits[outcome.name]
        if bool((Y[0] == Y).all()):
            return KnownModel(self.space, ConstantValue(float(Y[0])))
        noise = self._noise_of(outcome, Y, rows)
        if outcome.constraint is not None:
            return fit(X, Y, self._num_learned(len(X)), noise)
        return self._fit_explained(fit, X, Y, noise)

    def _noise_of(self, outcome: Outcome, Y: Tensor, rows: Tensor) -> Tensor | None:
        """Return the variances of targets' noise, (n, 1); None where nothing is known of it."""
        keys = [self.space.key(found.network) for found in self._finite()]
        place = self.goal.names.index(outcome.number(self.goal))
        variances = self._variances(keys, place)
        if variances is None:
            return None
        found = outcome.losses(self.goal, rows)
        if outcome.constraint is not None:
            noise = slack_variances(variances, found)
        else:
            first = max(2, self._num_learned(len(found)))
            noise = target_variances(
                variances, found, transform=self.transform, num_reference=first
            )
        return noise.unsqueeze(-1).clamp_min(_LEAST_NOISE * float(Y.var()))

    def _fit_explained(self, fit: Fit, X: Tensor, Y: Tensor, noise: Tensor | None) -> Model:
        """Fit a model, and again without what it says are trainings that went wrong.

        These are few: at least half of the observations stay.
        """
        model = fit(X, Y, self._num_learned(len(X)), noise)
        kept = torch.arange(len(X))
        for _ in range(_ROUNDS):
            outliers = unexplained(model)
            if outliers is None or not bool(outliers.any()):
                break
            kept = kept[~outliers.cpu()]
            if 2 * len(kept) < len(X) or bool((Y[kept] == Y[kept[0]]).all()):
                break
            known = None if noise is None else noise[kept]
            model = fit(X[kept], Y[kept], self._num_learned(len(kept)), known)
        self._warn_of_noise(model, len(kept))
        return model

    def _warn_of_noise(self, model: Model, num: int) -> None:
        """Say once that a model predicts nothing."""
        if self._warned or num < _ENOUGH:
            return
        # Not the fitted variance of the noise: short lengthscales explain noise as well.
        share = explained_share(model)
        if share is None or share > _NOTHING:
            return
        self._warned = True
        warnings.warn(
            f"noise swallows what tells networks apart: after {num} values the model predicts each "
            f"of them from the others no better than their mean does ({max(0.0, share):.0%} of "
            "their variance); the search goes on much as a random one (evaluate each network "
            "several times with objectives.Repeated, and return NaN for trainings that fail)",
            NoiseWarning,
            stacklevel=2,
        )


def _described(part: Surrogate | Pool | Batch | None) -> dict[str, Any] | None:
    return None if part is None else {"name": type(part).__name__, **part.settings()}
