"""How a model's predictions become a wish: acquisition functions."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.acquisition.analytic import LogExpectedImprovement, UpperConfidenceBound
from botorch.acquisition.multi_objective import logei
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
from botorch.acquisition.multi_objective.parego import qLogNParEGO
from botorch.models.model import Model
from botorch.posteriors.ensemble import EnsemblePosterior
from botorch.sampling.index_sampler import IndexSampler
from botorch.sampling.list_sampler import ListSampler
from botorch.sampling.normal import IIDNormalSampler
from torch import Tensor

from hotnas_torch.arguments import number
from hotnas_torch.search.bayesian.outcomes import OutcomeModels
from hotnas_torch.search.goal import Goal

__all__ = [
    "UCB",
    "Acquisition",
    "AcquisitionInputs",
    "AcquisitionName",
    "LogEI",
    "LogNEHVI",
    "LogNParEGO",
    "ThompsonSampling",
    "acquisition_of",
    "check_acquisition",
    "name_of",
]


# Draws from the posterior per candidate, of quasi-random numbers.
_SAMPLES = 128
# Of a slack that is known.
_LEAST_VARIANCE = 1e-12


@dataclass(frozen=True, slots=True)
class AcquisitionInputs:
    """What an acquisition function may need besides the model.

    Attributes:
        X: Rows of the observed networks, (n, d) float64.
        best: Largest posterior mean of the (first) objective at those rows of `X` that keep all
            bounds, in the units of the model's targets: the incumbent; -inf if none does.
        pending: Rows of the networks that are pending, those chosen for the same batch
            included, (p, d), p >= 0.
        step: Number of the choice after the initial networks, from 1.
    """

    X: Tensor
    best: float
    pending: Tensor
    step: int


Acquisition = Callable[[Model, AcquisitionInputs], AcquisitionFunction]
"""Build a BoTorch acquisition function, larger is better, evaluated on rows (N, 1, d). Of several
objectives or constraints the model is an `OutcomeModels`."""

AcquisitionName = Literal["log_ei", "ucb", "its", "log_nehvi", "log_nparego"]


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

    Where there are constraints, times the probability that they are kept; of that alone as long as
    nothing observed keeps them.

    Reference: Ament et al., Unexpected Improvements to Expected Improvement for Bayesian
        Optimization, NeurIPS 2023.
    """

    def __call__(self, model: Model, inputs: AcquisitionInputs) -> AcquisitionFunction:
        """Build the acquisition function."""
        if isinstance(model, OutcomeModels):
            return _FeasibleImprovement(model, inputs.best)
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


@dataclass(frozen=True, slots=True)
class LogNEHVI:
    """Logarithm of the noisy expected hypervolume improvement, for several objectives.

    Up to a reference point that is inferred from the front, in the units of the models' targets.
    Where there are constraints, only what keeps them counts. Pending networks count as if their
    values were known to the model.

    Reference: Daulton, Balandat and Bakshy, Parallel Bayesian Optimization of Multiple Noisy
        Objectives with Expected Hypervolume Improvement, NeurIPS 2021; Ament et al., NeurIPS 2023.
    """

    def __call__(self, model: Model, inputs: AcquisitionInputs) -> AcquisitionFunction:
        """Build the acquisition function."""
        models = _outcomes(model)
        with _nothing_compiled():
            return qLogNoisyExpectedHypervolumeImprovement(
                models,
                ref_point=models.reference,
                X_baseline=inputs.X,
                objective=_objectives_of(models),
                constraints=models.constraints or None,
                X_pending=inputs.pending if len(inputs.pending) else None,
                sampler=_sampler(models, inputs),
                prune_baseline=True,
                cache_root=False,
            )


@contextmanager
def _nothing_compiled() -> Iterator[None]:
    """Keep BoTorch from compiling its kernel of the hypervolume, which takes a compiler a minute.

    A process that was killed meanwhile leaves a lock behind, for which all later ones would wait
    for ever. A kernel that is loaded already is used.
    """
    attempted = getattr(logei, "_load_attempted", None)
    try:
        if attempted is False:
            logei._load_attempted = True
        yield
    finally:
        if attempted is False:
            logei._load_attempted = False


@dataclass(frozen=True, slots=True)
class LogNParEGO:
    """Logarithm of the noisy expected improvement of a random scalarisation of the objectives.

    Weights of the Chebyshev scalarisation are drawn for each network that is chosen, from torch's
    global source, which `BayesianSearch` seeds for the time of a choice.

    Reference: Knowles, ParEGO, IEEE Transactions on Evolutionary Computation, 2006; Daulton,
        Balandat and Bakshy, NeurIPS 2020; Ament et al., NeurIPS 2023.
    """

    def __call__(self, model: Model, inputs: AcquisitionInputs) -> AcquisitionFunction:
        """Build the acquisition function."""
        models = _outcomes(model)
        return qLogNParEGO(
            models,
            X_baseline=inputs.X,
            objective=_objectives_of(models),
            constraints=models.constraints or None,
            X_pending=inputs.pending if len(inputs.pending) else None,
            sampler=_sampler(models, inputs),
            prune_baseline=True,
            cache_root=False,
        )


def _outcomes(model: Model) -> OutcomeModels:
    if not isinstance(model, OutcomeModels):
        raise TypeError(f"model must be of several outcomes; got {type(model).__name__}")
    return model


def _objectives_of(models: OutcomeModels) -> IdentityMCMultiOutputObjective:
    return IdentityMCMultiOutputObjective(outcomes=list(range(models.num_objectives)))


def _sampler(models: OutcomeModels, inputs: AcquisitionInputs) -> Any:
    """Return a sampler whose seed comes from torch's global source."""
    seed = int(torch.randint(2**31, ()))
    shape = torch.Size([_SAMPLES])
    with torch.no_grad():
        posterior = models.posterior(inputs.X[:2])
    # Of their own for each: BoTorch's would draw the same for all outcomes.
    return ListSampler(
        *(
            IndexSampler(shape, seed=seed + place)
            if isinstance(one, EnsemblePosterior)
            else IIDNormalSampler(shape, seed=seed + place)
            for place, one in enumerate(posterior.posteriors)
        )
    )


class _FeasibleImprovement(AcquisitionFunction):
    """Logarithm of the expected improvement times the probability that all bounds are kept."""

    def __init__(self, models: OutcomeModels, best: float) -> None:
        super().__init__(models)
        self._slacks = models.parts[models.num_objectives :]
        self._improvement: AcquisitionFunction | None = None
        if math.isfinite(best):
            self._improvement = LogExpectedImprovement(models.parts[0], best_f=best)

    def forward(self, X: Tensor) -> Tensor:
        """Return values of rows (N, 1, d), (N,)."""
        total = torch.zeros(len(X), dtype=X.dtype)
        if self._improvement is not None:
            total = total + self._improvement(X)
        for model in self._slacks:
            posterior: Any = model.posterior(X)
            mean, variance = posterior.mean.flatten(), posterior.variance.flatten()
            ratio = mean / variance.clamp_min(_LEAST_VARIANCE).sqrt()
            total = total + torch.special.log_ndtr(ratio)
        return total


_BY_NAME: dict[str, Acquisition] = {
    "ucb": UCB(),
    "log_ei": LogEI(),
    "its": ThompsonSampling(),
    "log_nehvi": LogNEHVI(),
    "log_nparego": LogNParEGO(),
}


def check_acquisition(found: Acquisition, goal: Goal) -> Acquisition:
    """Return the acquisition function, if it is one for such a goal.

    Raises:
        ValueError: It is for one objective and there are several, or the other way round, or knows
            no constraints.
    """
    of_several = isinstance(found, LogNEHVI | LogNParEGO)
    if goal.several and isinstance(found, UCB | LogEI | ThompsonSampling):
        raise ValueError(
            "acquisition must be 'log_nehvi', 'log_nparego' or a callable for several objectives; "
            f"got {found!r}"
        )
    if of_several and not goal.several:
        raise ValueError(f"acquisition must be one for a single objective; got {found!r}")
    if goal.constraints and isinstance(found, UCB | ThompsonSampling):
        raise ValueError(
            f"acquisition must be 'log_ei' or a callable where there are constraints; got {found!r}"
        )
    return found


def acquisition_of(given: str | Acquisition | None, goal: Goal) -> Acquisition:
    """Return an acquisition function by its name, or as it was given; None is the goal's own.

    Raises:
        TypeError: It is neither a str nor callable.
        ValueError: There is none of this name.
    """
    if given is None:
        given = "log_nehvi" if goal.several else "log_ei"
    if isinstance(given, str):
        if given not in _BY_NAME:
            raise ValueError(
                f"acquisition must be one of {', '.join(map(repr, _BY_NAME))} or a callable; got "
                f"{given!r}"
            )
        given = _BY_NAME[given]
    if not callable(given):
        raise TypeError(f"acquisition must be a str or a callable; got {given!r}")
    return check_acquisition(given, goal)


def name_of(function: Callable[..., object]) -> str:
    """Return what a factory is called in records: its settings, or its qualified name."""
    if isinstance(function, UCB | LogEI | ThompsonSampling | LogNEHVI | LogNParEGO):
        return repr(function)
    return str(getattr(function, "__qualname__", repr(function)))
