"""HOTNN and Weisfeiler-Lehman together: a surrogate that combines kernels, and a search with it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.arguments import number, takes
from hotnas_torch.distances import NetworkDistance
from hotnas_torch.gp import CombinedGP, FeatureMean, PairMemory
from hotnas_torch.gp.combined import Parts, check_mapping, chosen_parts, factors_of
from hotnas_torch.gp.feature_kernel import Features, check_features
from hotnas_torch.gp.memory import NumberedAnew
from hotnas_torch.search.bayesian.recipe import CHOICE, POOL, Recipe, SearchSettings
from hotnas_torch.search.bayesian.surrogates import (
    Fit,
    Surrogate,
    called,
    refitted,
    two_networks,
)
from hotnas_torch.spaces import SearchSpace

__all__ = ["CombinedBO", "CombinedSurrogate"]


@dataclass(frozen=True)
class CombinedSurrogate(Surrogate):
    """A Gaussian process whose kernel adds and multiplies several, `gp.CombinedGP`.

    Distances between networks are computed once in a search.

    Attributes:
        terms: What is added, for example `("hotnn", "hotnn * wl")`; None takes each part, and the
            product of all.
        parts: What is combined, see `gp.CombinedGP`; None takes HOTNN as `"hotnn"` and
            Weisfeiler-Lehman as `"wl"`.
        mean: Features that the prior mean is linear in, see `gp.FeatureMean`, for example scores of
            untrained networks (`nn.ZeroCost`); None for a constant mean.
        refit_growth: The model is fitted after the initial networks, and then whenever there are
            this many times as many observations, >= 1; it has the same parameters in between.

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.
    """

    terms: Sequence[str] | None = None
    parts: Parts | None = None
    mean: Features | None = None
    refit_growth: float = 1.0

    def __post_init__(self) -> None:
        if self.parts is not None:
            check_mapping(self.parts)
        if self.mean is not None:
            check_features(self.mean)
        names = ("hotnn", "wl") if self.parts is None else tuple(self.parts)
        if self.terms is not None:
            factors = factors_of(self.terms, names, all_parts=self.parts is not None)
            object.__setattr__(self, "terms", tuple(map(" * ".join, factors)))
        growth = number("refit_growth", self.refit_growth)
        if not 1.0 <= growth < math.inf:
            raise ValueError(f"refit_growth must be finite and at least 1; got {growth:g}")
        object.__setattr__(self, "refit_growth", growth)

    def num_learned(self, num: int, num_initial: int) -> int:
        """Return the number of observations at the last fit of the kernel."""
        # The first ones alone, so that a continued search has the same.
        if self.refit_growth == 1.0 or num <= num_initial:
            return num
        fits = int(math.log(num / num_initial) / math.log(self.refit_growth))
        return min(num, math.ceil(num_initial * float(self.refit_growth) ** fits))

    def bind(self, space: SearchSpace, generator: torch.Generator) -> Fit:
        """Return what fits the model, with one memory of each distance."""
        del generator
        parts, terms = chosen_parts(space, self.parts, self.terms)
        memories = {
            name: PairMemory(part)
            for name, part in parts.items()
            if isinstance(part, NetworkDistance)
        }

        def build(X: Tensor, Y: Tensor, noise: Tensor | None = None) -> CombinedGP:
            # Numbered by the model's own rows, so that a continued search has the same roundings.
            own = {name: NumberedAnew(memory) for name, memory in memories.items()}
            mean = None if self.mean is None else FeatureMean(self.mean, X)
            return CombinedGP(
                X, Y, noise, space=space, parts=parts, terms=terms, memories=own, mean_module=mean
            )

        # A model of any two networks says now what would be wrong later.
        X, Y = two_networks(space)
        if not X[0].equal(X[1]):
            build(X, Y)
        return refitted(build)

    def settings(self) -> dict[str, Any]:
        """Return all settings, a function by its name."""
        described = None
        if self.parts is not None:
            described = {
                name: {"name": type(part).__name__, **part.config()}
                if isinstance(part, NetworkDistance)
                else called(part)
                for name, part in self.parts.items()
            }
        return {
            "terms": None if self.terms is None else list(self.terms),
            "parts": described,
            "mean": None if self.mean is None else called(self.mean),
            # Records before there was any other lack it.
            **({} if self.refit_growth == 1.0 else {"refit_growth": self.refit_growth}),
        }


class CombinedBO(Recipe):
    """Bayesian optimisation with HOTNN and Weisfeiler-Lehman distances in one kernel.

    The Gaussian process adds the kernels of both distances and their product, with weights and
    lengthscales by marginal likelihood: what one of the two does not see, the other may.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        terms: What is added, for example `("hotnn", "hotnn * wl")`; None takes both distances, and
            their product.
        **settings: Fields of `SearchSettings`, all of which it has.

    Raises:
        TypeError, ValueError: A setting that is unknown, of the wrong kind or out of range.

    Complexity: one fit of the model per `ask`; one distance of each kind per pair of a candidate
        and an observation.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = CombinedBO(
        ...     ht.spaces.NASBenchMacro(),
        ...     generator=torch.Generator().manual_seed(0),
        ...     num_initial=4,
        ...     pool_size=20,
        ... )
        >>> for num in (4, 2):
        ...     nets = strategy.ask(num)
        ...     strategy.tell(nets, [1.0 + net.spec.count("0") for net in nets])
        >>> nets = strategy.ask(1)
        >>> strategy.model.kernel.factors
        (('hotnn',), ('wl',), ('hotnn', 'wl'))
    """

    name = "combined_bo"

    @takes(*CHOICE, *POOL, "pending")
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        terms: Sequence[str] | None = None,
        **settings: Any,
    ) -> None:
        surrogate = CombinedSurrogate(terms)
        super().__init__(
            space,
            SearchSettings.of(settings),
            surrogate,
            generator=generator,
            record={"terms": surrogate.settings()["terms"]},
        )
