"""Bayesian optimisation over a pool of candidates, whatever the model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from botorch.models.model import Model
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, number
from hotnas_torch.search.base import Observation, Strategy
from hotnas_torch.search.bayesian.acquisition import (
    UCB,
    Acquisition,
    AcquisitionInputs,
    LogEI,
    name_of,
)
from hotnas_torch.search.bayesian.targets import targets, unexplained
from hotnas_torch.spaces import SearchSpace

__all__ = ["BayesianSearch", "believe"]

# Fits of a model without the outliers of the fit before.
_ROUNDS = 3
_ACQUISITIONS: dict[str, Acquisition] = {"ucb": UCB(), "log_ei": LogEI()}


class BayesianSearch(Strategy):
    """Fit a model, build a pool around the best, take the most promising.

    The first ``num_initial`` networks are random. After them, each :meth:`ask` fits a model to
    everything told, draws a pool of unseen networks (mutants of the best ones, and random ones),
    and takes from it the network with the largest acquisition value. For a batch, and for networks
    that are pending, the model is told its own mean as if it had been observed (kriging believer),
    and the next network is taken.

    A few wild values do not blind the model: bad tails are cut off
    (:func:`~hotnas_torch.search.bayesian.targets.targets`), and a Gaussian process is fitted again
    without observations that are far worse than all the others say
    (:func:`~hotnas_torch.search.bayesian.targets.unexplained`). They stay observed.

    Subclasses say which model: they implement :meth:`_fit`, and may replace :meth:`_pool`.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        num_initial: Random networks at the start, >= 2.
        acquisition: ``"log_ei"``, ``"ucb"``, or a callable that builds a BoTorch acquisition
            function, see :data:`~hotnas_torch.search.bayesian.acquisition.Acquisition`.
        pool_size: Candidates per choice of a batch, >= 1.
        num_parents: How many of the best networks are mutated, >= 1.
        random_fraction: Share of the pool that is drawn at random, in [0, 1].
        transform: ``"log"``: the model sees the logarithm of the values, when all of them are
            positive (errors and losses are); ``"none"``: the values themselves.
        pending: ``"believer"``: see above; ``"acquisition"``: the model is left alone and the
            acquisition function gets the pending rows, for those of BoTorch that take
            ``X_pending``.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        num_initial: int = 10,
        acquisition: Literal["log_ei", "ucb"] | Acquisition = "log_ei",
        pool_size: int = 500,
        num_parents: int = 10,
        random_fraction: float = 0.5,
        transform: Literal["none", "log"] = "log",
        pending: Literal["believer", "acquisition"] = "believer",
    ) -> None:
        super().__init__(space, generator=generator)
        num_initial = integer("num_initial", num_initial, least=2)
        pool_size = integer("pool_size", pool_size, least=1)
        num_parents = integer("num_parents", num_parents, least=1)
        random_fraction = number("random_fraction", random_fraction)
        if not 0.0 <= random_fraction <= 1.0:
            raise ValueError(f"random_fraction must lie in [0, 1], got {random_fraction}.")
        if transform not in ("none", "log"):
            raise ValueError(f"transform must be 'none' or 'log', got {transform!r}.")
        if pending not in ("believer", "acquisition"):
            raise ValueError(f"pending must be 'believer' or 'acquisition', got {pending!r}.")
        self.num_initial = num_initial
        self.acquisition = _acquisition(acquisition)
        self.pool_size = pool_size
        self.num_parents = num_parents
        self.random_fraction = random_fraction
        self.transform: Literal["none", "log"] = transform
        self.pending_points: Literal["believer", "acquisition"] = pending
        self.model: Model | None = None
        """The model that the last choice was made with, fitted; None before that."""

    def settings(self) -> dict[str, Any]:
        """Returns all settings; a callable by its name."""
        return {
            "num_initial": self.num_initial,
            "acquisition": name_of(self.acquisition),
            "pool_size": self.pool_size,
            "num_parents": self.num_parents,
            "random_fraction": self.random_fraction,
            "transform": self.transform,
            "pending": self.pending_points,
        }

    # --- for subclasses ---------------------------------------------------------------------------

    @abstractmethod
    def _fit(self, X: Tensor, Y: Tensor) -> Model:
        """Returns a fitted model of rows (n, d) and targets (n, 1), larger being better."""

    # --- proposing --------------------------------------------------------------------------------

    def _propose(self, num: int) -> list[Network]:
        taken = self._taken()
        proposed = self._sample_unseen(max(0, min(num, self.num_initial - len(taken))), taken)
        num_left = num - len(proposed)
        if num_left == 0:
            return proposed
        observed = self._finite()
        if len({found.value for found in observed}) < 2:
            # Nothing to learn from yet.
            return proposed + self._sample_unseen(num_left, taken)
        with self._botorch_randomness():
            return proposed + self._choose(num_left, observed, proposed, taken)

    def _choose(
        self, num: int, observed: list[Observation], proposed: list[Network], taken: set[str]
    ) -> list[Network]:
        X = self.space.encode([found.network for found in observed])
        Y = self._targets(observed)
        self.model = model = self._fit_explained(X, Y)
        awaited = self.space.encode([*self._pending.values(), *proposed])
        if self.pending_points == "believer" and len(awaited):
            model = believe(model, awaited)
        pool = self._pool(max(self.pool_size, num), observed, set(taken))
        rows = self.space.encode(pool)
        left = list(range(len(pool)))
        chosen: list[int] = []
        while left and len(chosen) < num:
            inputs = AcquisitionInputs(
                X=X,
                best=float(_mean(model, X).max()),
                pending=torch.cat([awaited, rows[chosen]]),
                step=max(1, len(taken) - self.num_initial + len(chosen) + 1),
            )
            with torch.no_grad():
                values = self.acquisition(model, inputs)(rows[left].unsqueeze(1))
            place = left.pop(int(values.nan_to_num(nan=-torch.inf).argmax()))
            chosen.append(place)
            if self.pending_points == "believer" and len(chosen) < num:
                model = believe(model, rows[place : place + 1])
        return [pool[place] for place in chosen]

    def _pool(self, size: int, observed: list[Observation], taken: set[str]) -> list[Network]:
        """Draws distinct unseen networks: mutants of the best in turn, then random ones."""
        parents = [
            found.network
            for found in sorted(observed, key=lambda found: found.value)[: self.num_parents]
        ]
        num_mutants = size - round(self.random_fraction * size)
        pool: list[Network] = []
        while parents and len(pool) < num_mutants:
            # Those that have no unseen mutants left are out of the turn.
            fertile = []
            for parent in parents:
                mutant = self._mutate_unseen(parent, taken) if len(pool) < num_mutants else None
                if mutant is not None:
                    pool.append(mutant)
                    fertile.append(parent)
            parents = fertile
        return pool + self._sample_unseen(size - len(pool), taken)

    def _targets(self, observed: list[Observation]) -> Tensor:
        """Returns what the model is to maximise, (n, 1)."""
        values = torch.tensor([found.value for found in observed], dtype=torch.float64)
        return targets(values, transform=self.transform)[:, None]

    def _fit_explained(self, X: Tensor, Y: Tensor) -> Model:
        """Fits a model, and again without what it says are trainings that went wrong.

        These are few: at least half of the observations stay.
        """
        model = self._fit(X, Y)
        kept = torch.arange(len(X))
        for _ in range(_ROUNDS):
            outliers = unexplained(model)
            if outliers is None or not bool(outliers.any()):
                break
            kept = kept[~outliers.cpu()]
            if 2 * len(kept) < len(X) or bool((Y[kept] == Y[kept[0]]).all()):
                break
            model = self._fit(X[kept], Y[kept])
        return model

    @contextmanager
    def _botorch_randomness(self) -> Iterator[None]:
        """Seeds the global state, from which BoTorch's samplers draw, for the time of a choice."""
        seed = torch.randint(
            2**62, (), generator=self._generator, device=self._generator.device
        ).item()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed))
            yield


def _acquisition(given: str | Acquisition) -> Acquisition:
    if isinstance(given, str):
        if given not in _ACQUISITIONS:
            raise ValueError(
                f"acquisition must be one of {', '.join(map(repr, _ACQUISITIONS))} or a callable, "
                f"got {given!r}."
            )
        return _ACQUISITIONS[given]
    if not callable(given):
        raise TypeError(f"acquisition must be a str or a callable, got {given!r}.")
    return given


def _mean(model: Model, rows: Tensor) -> Tensor:
    with torch.no_grad():
        mean: Tensor = model.posterior(rows).mean  # type: ignore[attr-defined]
    return mean


def believe(model: Model, rows: Tensor) -> Model:
    """Returns the model as if its own mean had been observed at ``rows``."""
    with torch.no_grad():
        return model.condition_on_observations(rows, _mean(model, rows))
