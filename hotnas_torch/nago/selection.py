"""How a multi-objective search chooses its next points."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

import torch
from botorch.acquisition.multi_objective.logei import (
    qLogNoisyExpectedHypervolumeImprovement,
)
from botorch.models.gpytorch import GPyTorchModel
from botorch.models.model import Model
from botorch.optim.optimize import optimize_acqf
from botorch.posteriors.posterior import Posterior
from botorch.posteriors.torch import TorchPosterior
from botorch.sampling.get_sampler import get_sampler
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

from hotnas_torch.arguments import boolean, integer
from hotnas_torch.nago.box import Box, distinct_from
from hotnas_torch.nago.nsga import domination_ranks, nsga2
from hotnas_torch.search.bayesian.acquisition import Acquisition, AcquisitionInputs, LogEI
from hotnas_torch.search.randomness import draw_seed, seeded

__all__ = [
    "HypervolumeImprovement",
    "RandomChoice",
    "Selection",
    "SelectionInputs",
    "UncertainPareto",
    "local_penalty",
]

# Exponent of the smooth minimum of 1 and the cone around a pending point.
_CONE_EXPONENT = 5.0
_SMALLEST = 1e-12
# Points at which slopes of the posterior mean are taken.
_NUM_SLOPES = 256


@dataclass
class SelectionInputs:
    """What points are chosen by.

    Attributes:
        space: What is searched.
        X: Rows of the observations that have values, (n, d) float64.
        Y: Their values, larger is better, (n, m).
        known: All rows that were observed or are pending; none of them is to be chosen again.
        pending: Rows that are pending, (p, d).
        generator: Source of randomness.
        fit: Fits the surrogate to `X` and `Y`.
    """

    space: Box
    X: Tensor
    Y: Tensor
    known: Tensor
    pending: Tensor
    generator: torch.Generator
    fit: Callable[[], Model] = field(repr=False)

    @cached_property
    def model(self) -> Model:
        """The surrogate, fitted when it is first asked for."""
        return self.fit()


Selection = Callable[[SelectionInputs, int], Tensor]
"""Chooses up to a number of points, rows (k, d), distinct and not known."""


@dataclass(frozen=True, slots=True)
class RandomChoice:
    """Draw points from the space; the surrogate is not fitted."""

    def __call__(self, inputs: SelectionInputs, num: int) -> Tensor:
        """Choose points."""
        rows = inputs.space.sample(num, generator=inputs.generator)
        return rows[distinct_from(rows, inputs.known)]


@dataclass(frozen=True, slots=True)
class UncertainPareto:
    r"""The most uncertain of the best compromises between the objectives' acquisition functions.

    NSGA-II finds points at which no acquisition function can be larger without another one being
    smaller. Of them the one with the largest uncertainty is chosen, the volume
    :math:`\prod_m \sigma_m(x)` of the predicted intervals (that of USeMO but for factors which all
    points share). Each further point of a batch is chosen by that volume times
    `local_penalty` around what is pending or already chosen. Where the front has too few
    points, those of the last generation's next fronts follow.

    Attributes:
        acquisition: Of every single objective.
        observation_noise: Whether sigma is that of an observation, as in NAGO's Eq. 1, or of the
            average only; for surrogates that know the difference.
        population: Points per generation, >= 2.
        generations: Of NSGA-II after the first, >= 0.
        penalize: Whether to spread batches; without it the most uncertain points are taken.

    Complexity: `population * (generations + 1)` predictions and acquisition values.

    Reference: Belakaria et al., USeMO, AAAI 2020; Alvi et al., Asynchronous Batch Bayesian
        Optimisation with Improved Local Penalisation, ICML 2019.
    """

    acquisition: Acquisition = field(default_factory=LogEI)
    observation_noise: bool = True
    population: int = 50
    generations: int = 49
    penalize: bool = True

    def __post_init__(self) -> None:
        if not callable(self.acquisition):
            raise TypeError(f"acquisition must be callable; got {self.acquisition!r}")
        for name in ("observation_noise", "penalize"):
            object.__setattr__(self, name, boolean(name, getattr(self, name)))
        for name, least in (("population", 2), ("generations", 0)):
            object.__setattr__(self, name, integer(name, getattr(self, name), least=least))

    def __call__(self, inputs: SelectionInputs, num: int) -> Tensor:
        """Choose points."""
        model, space = inputs.model, inputs.space
        num_objectives = inputs.Y.shape[1]
        acquisitions = []
        for output in range(num_objectives):
            single = model.subset_output([output])
            with torch.no_grad():
                best = float(_moments(single.posterior(inputs.X))[0].max())
            acquisitions.append(
                self.acquisition(
                    single, AcquisitionInputs(inputs.X, best, inputs.pending, len(inputs.X))
                )
            )

        def values(rows: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.stack([one(rows[:, None]) for one in acquisitions], dim=1)

        # The best points so far are good parents, too.
        ranks = domination_ranks(inputs.Y)
        parents = inputs.X[ranks.argsort(stable=True)[: self.population // 2]]
        drawn = space.sample(self.population - len(parents), generator=inputs.generator)
        rows, found = nsga2(
            values,
            torch.cat([parents, drawn]),
            generations=self.generations,
            generator=inputs.generator,
            move=space.round,
        )
        new = distinct_from(rows, inputs.known)
        return self._most_uncertain(rows[new], found[new], inputs, num)

    def _most_uncertain(
        self, rows: Tensor, values: Tensor, inputs: SelectionInputs, num: int
    ) -> Tensor:
        if len(rows) == 0:
            return rows
        ranks = domination_ranks(values)
        with torch.no_grad():
            posterior = inputs.model.posterior(rows, observation_noise=self.observation_noise)
            volume = _moments(posterior)[1].log().sum(dim=1).mul(0.5).exp()
        slopes = largest_slopes(inputs) if self.penalize else None
        chosen: list[int] = []
        while len(chosen) < min(num, len(rows)):
            score = volume
            if slopes is not None:
                centres = torch.cat([inputs.pending, rows[chosen]])
                score = score * local_penalty(inputs.model, rows, centres, inputs.Y, slopes)
            # The first front that has points left, whatever the others' scores.
            left = ranks.index_fill(0, torch.tensor(chosen, dtype=torch.int64), len(rows))
            front = (left == left.min()).nonzero().squeeze(1)
            chosen.append(int(front[score[front].argmax()]))
        return rows[chosen]


@dataclass(frozen=True, slots=True)
class HypervolumeImprovement:
    """The largest expected gain of dominated volume: BoTorch's qLogNEHVI, point after point.

    Attributes:
        num_samples: Draws from the posterior, >= 1.
        raw_samples: Random points that are compared first, >= 1.
        num_restarts: How many of the best of them climb by gradient, >= 1.
        max_iter: Steps of L-BFGS.

    Reference: Ament et al., Unexpected Improvements to Expected Improvement for Bayesian
        Optimization, NeurIPS 2023; Daulton, Balandat and Bakshy, Parallel Bayesian Optimization of
        Multiple Noisy Objectives with Expected Hypervolume Improvement, NeurIPS 2021.
    """

    num_samples: int = 64
    raw_samples: int = 128
    num_restarts: int = 4
    max_iter: int = 50

    def __post_init__(self) -> None:
        for name in ("num_samples", "raw_samples", "num_restarts", "max_iter"):
            object.__setattr__(self, name, integer(name, getattr(self, name), least=1))

    def __call__(self, inputs: SelectionInputs, num: int) -> Tensor:
        """Choose points."""
        model, space = inputs.model, inputs.space
        seed = draw_seed(inputs.generator)
        reference = infer_reference_point(inputs.Y[is_non_dominated(inputs.Y)])
        chosen = inputs.X[:0]
        for _ in range(num):
            raw = space.sample(self.raw_samples, generator=inputs.generator)
            pending = torch.cat([inputs.pending, chosen])
            with seeded(seed), _jitter_allowed():
                posterior = cast(TorchPosterior, model.posterior(inputs.X[:1]))
                sampler = get_sampler(posterior, torch.Size([self.num_samples]), seed=seed)
                acquisition = qLogNoisyExpectedHypervolumeImprovement(
                    model,
                    ref_point=reference,
                    X_baseline=inputs.X,
                    sampler=sampler,
                    prune_baseline=True,
                    X_pending=pending if len(pending) else None,
                    cache_root=isinstance(model, GPyTorchModel),
                )
                with torch.no_grad():
                    order = acquisition(raw[:, None]).argsort(descending=True)
                climbed, _ = optimize_acqf(
                    acquisition,
                    bounds=torch.tensor([[0.0], [1.0]]).to(raw).expand(2, space.dim),
                    q=1,
                    num_restarts=self.num_restarts,
                    batch_initial_conditions=raw[order[: self.num_restarts]][:, None],
                    options={"maxiter": self.max_iter},
                    return_best_only=False,
                )
                # Rounding moves points, so what has climbed competes with the others again.
                rows = torch.cat([space.round(climbed[:, 0].detach()), raw])
                rows = rows[distinct_from(rows, torch.cat([inputs.known, chosen]))]
                if len(rows) == 0:
                    return chosen
                with torch.no_grad():
                    best = acquisition(rows[:, None]).argmax()
            chosen = torch.cat([chosen, rows[best : best + 1]])
        return chosen


@contextmanager
def _jitter_allowed() -> Iterator[None]:
    """Silence that covariances of close points need a little on their diagonal."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A not p.d.")
        yield


def largest_slopes(inputs: SelectionInputs) -> Tensor:
    """Largest norm of the gradient of each objective's posterior mean, (m,).

    It is taken over the observations and 256 random points: an estimate of the Lipschitz constant.
    """
    drawn = inputs.space.sample(_NUM_SLOPES, generator=inputs.generator)
    with torch.enable_grad():
        rows = torch.cat([inputs.X, drawn]).requires_grad_()
        means = _moments(inputs.model.posterior(rows[:, None]))[0].squeeze(1)
        norms = [
            torch.autograd.grad(column.sum(), rows, retain_graph=True)[0].norm(dim=1).max()
            for column in means.unbind(dim=1)
        ]
    return torch.stack(norms)


def local_penalty(model: Model, rows: Tensor, centres: Tensor, Y: Tensor, slopes: Tensor) -> Tensor:
    r"""How far points are from all of some others, as a factor in [0, 1].

    Around a pending point :math:`x_j` and for objective m, with the best value :math:`M_m` and a
    Lipschitz constant :math:`L_m`, no value as good as the best is expected within
    :math:`r_{jm} = (|\mu_m(x_j) - M_m| + \sigma_m(x_j)) / L_m`. The factor is the product over j
    and m of a smooth minimum of 1 and the cone :math:`\lVert x - x_j \rVert / r_{jm}`, which is
    their p-norm with p = -5.

    Args:
        model: Model of m outputs, larger is better.
        rows: Points x, (N, d).
        centres: Pending points, (p, d).
        Y: Values observed so far, (n, m).
        slopes: Lipschitz constants, (m,), see `largest_slopes`.

    Returns:
        (N,); 0 at the pending points, 1 far from all of them or without any.

    Reference: Alvi et al., ICML 2019, Eqs. 9-10, there with one objective.
    """
    if len(centres) == 0:
        return rows.new_ones(len(rows))
    with torch.no_grad():
        mean, variance = _moments(model.posterior(centres))
        radius = ((mean - Y.amax(dim=0)).abs() + variance.sqrt()) / slopes.clamp_min(_SMALLEST)
    cone = torch.cdist(rows, centres)[..., None] / radius.clamp_min(_SMALLEST)
    factors: Tensor = (1.0 + cone**-_CONE_EXPONENT) ** (-1.0 / _CONE_EXPONENT)
    return factors.prod(dim=-1).prod(dim=-1)


def _moments(posterior: Posterior) -> tuple[Tensor, Tensor]:
    """Mean and variance, (..., q, m) each."""
    variance: Tensor = posterior.variance.clamp_min(_SMALLEST**2)  # type: ignore[attr-defined]
    return posterior.mean, variance  # type: ignore[attr-defined]
