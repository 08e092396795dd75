"""NASBOT: Bayesian optimisation with OTMANN distances, acquisition by evolution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer
from hotnas_torch.distances import OTMANN
from hotnas_torch.search.base import Observation
from hotnas_torch.search.bayesian.acquisition import Acquisition, AcquisitionInputs, LogEI
from hotnas_torch.search.bayesian.distance_search import DistanceSearch, built
from hotnas_torch.spaces import SearchSpace

__all__ = ["NASBOT"]

_GROWTH = 9.0
"""Evaluations of the acquisition over the square root of the step: min(5, d)^2 for networks' d = 3.
"""

_SHARPNESS = 2.0
_EPOCH = 50
_EDITS = (0.5, 0.25, 0.125, 0.075, 0.05)


class NASBOT(DistanceSearch):
    """NASBOT: a Gaussian process on OTMANN distances, candidates bred for the acquisition.

    The kernel is that of `OTMANN`, fitted after every seventh observation. The acquisition function
    is optimised by evolution: the population begins as everything observed; in epochs of
    50, parents are drawn with probability proportional to exp(2 standardised acquisition) and
    mutated 1 to 5 times (with probabilities 0.5, 0.25, 0.125, 0.075, 0.05), and the children join
    the population. In the t-th step there are 9 sqrt(t) evaluations, within the given limits; the
    best child is the choice.

    NASBOT's own modifiers (changing widths and labels, wedging in, removing, branching and skipping
    layers) belong to networks of any form; here an edit is the space's own mutation.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        num_initial: Random networks at the start, >= 2, in place of NASBOT's fixed ones.
        acquisition: As for `BayesianSearch`. Parents are drawn by the expected improvement itself
            where it is its logarithm that is maximised.
        pool_size: Fewest evaluations of the acquisition per step, >= 1.
        max_pool_size: Most evaluations of the acquisition per step, >= ``pool_size``.
        transform: As for `BayesianSearch`.
        pending: As for `BayesianSearch`; parents are drawn without regard to what is pending.
        refit_every: Observations from one fit of the kernel to the next, >= 1.
        distance_options: Settings of `OTMANN` ready for ``json.dumps``, such as ``{"nu": [0.5]}``.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range.

    Reference: Kandasamy, Neiswanger, Schneider, Poczos and Xing, Neural Architecture Search with
        Bayesian Optimisation and Optimal Transport, NeurIPS 2018; numbers as in its public code.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = NASBOT(
        ...     ht.spaces.NASBench201(),
        ...     generator=torch.Generator().manual_seed(0),
        ...     num_initial=4,
        ...     pool_size=20,
        ... )
        >>> for num in (4, 1):
        ...     nets = strategy.ask(num)
        ...     strategy.tell(nets, [1.0 + net.spec.count("none") for net in nets])
        >>> len(strategy.observations)
        5
    """

    name = "nasbot"

    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        num_initial: int = 10,
        acquisition: Literal["log_ei", "ucb"] | Acquisition = "log_ei",
        pool_size: int = 50,
        max_pool_size: int = 500,
        transform: Literal["none", "log"] = "log",
        pending: Literal["believer", "acquisition"] = "believer",
        refit_every: int = 7,
        distance_options: Mapping[str, Any] | None = None,
    ) -> None:
        distance, self.distance_options = built(OTMANN, space, distance_options)
        super().__init__(
            space,
            distance,
            generator=generator,
            num_initial=num_initial,
            acquisition=acquisition,
            pool_size=pool_size,
            random_fraction=0.0,
            transform=transform,
            pending=pending,
            refit_every=refit_every,
        )
        max_pool_size = integer("max_pool_size", max_pool_size)
        if max_pool_size < self.pool_size:
            raise ValueError(
                f"max_pool_size must be at least pool_size, {pool_size}, got {max_pool_size}."
            )
        self.max_pool_size = max_pool_size

    def settings(self) -> dict[str, Any]:
        """Returns all settings."""
        settings = super().settings()
        del settings["num_parents"], settings["random_fraction"]
        return settings | {
            "max_pool_size": self.max_pool_size,
            "distance_options": self.distance_options,
        }

    def evaluations(self, step: int) -> int:
        """Returns how often the acquisition is evaluated at a step, from 1."""
        wanted = round(_GROWTH * math.sqrt(step))
        return min(max(wanted, self.pool_size), self.max_pool_size)

    def _pool(self, size: int, observed: list[Observation], taken: set[str]) -> list[Network]:
        """Breeds unseen networks for the acquisition."""
        step = max(1, len(taken) - self.num_initial + 1)
        size = max(size, self.evaluations(step))
        population = [found.network for found in observed]
        X = self.space.encode(population)
        fitness = self._fitness(X, X, step)
        pool: list[Network] = []
        while len(pool) < size:
            num = min(_EPOCH, size - len(pool))
            children = self._breed(population, fitness, num, taken)
            pool += children
            if len(children) < num:
                break
            population += children
            fitness = torch.cat([fitness, self._fitness(self.space.encode(children), X, step)])
        return pool + self._sample_unseen(size - len(pool), taken)

    def _fitness(self, rows: Tensor, X: Tensor, step: int) -> Tensor:
        """Acquisition values of rows, (N,)."""
        model: Any = self.model
        with torch.no_grad():
            best = float(model.posterior(X).mean.max())
            inputs = AcquisitionInputs(X=X, best=best, pending=X[:0], step=step)
            values: Tensor = self.acquisition(model, inputs)(rows.unsqueeze(1))
        if isinstance(self.acquisition, LogEI):
            values = values.exp()
        return values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

    def _breed(
        self, population: list[Network], fitness: Tensor, num: int, taken: set[str]
    ) -> list[Network]:
        """Draws up to ``num`` unseen children, and adds their keys to ``taken``."""
        spread = fitness.std(correction=0).clamp_min(torch.finfo(fitness.dtype).tiny)
        weights = torch.softmax(_SHARPNESS * (fitness - fitness.mean()) / spread, dim=0)
        device = self._generator.device
        parents = torch.multinomial(
            weights.to(device), num, replacement=True, generator=self._generator
        )
        edits = torch.multinomial(
            torch.tensor(_EDITS, device=device), num, replacement=True, generator=self._generator
        )
        children = []
        for parent, extra in zip(parents.tolist(), edits.tolist(), strict=True):
            network = population[parent]
            for _ in range(extra if self.space.size() > 1 else 0):
                network = self.space.mutate(network, generator=self._generator)
            child = self._mutate_unseen(network, taken)
            if child is None:
                break  # few networks are left, and mutations hardly meet them
            children.append(child)
        return children
