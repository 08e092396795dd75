"""Where candidates come from: frozen parts of a search."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, number
from hotnas_torch.gp import FeatureGP
from hotnas_torch.search.base import Observation
from hotnas_torch.search.bayesian.acquisition import LogEI
from hotnas_torch.search.bayesian.choice import Choice
from hotnas_torch.search.bayesian.surrogates import Surrogate, WeisfeilerLehmanSurrogate
from hotnas_torch.search.bayesian.trust_region import DirichletTrustRegion
from hotnas_torch.search.draws import Draws, EncodingDraws
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.encodings import MemberEncoding, SlotEncoding, ascend_simplex

__all__ = ["BredPool", "EncodingPool", "MutantPool", "Pool", "ScreenedPool"]

# NASBOT: evaluations of the acquisition over the square root of the step, min(5, d)^2 for networks'
# d = 3; how sharply good parents are preferred; children per epoch; chances of 1 to 5 edits.
_GROWTH = 9.0
_SHARPNESS = 2.0
_EPOCH = 50
_EDITS = (0.5, 0.25, 0.125, 0.075, 0.05)
# ANASOD-BO: candidates, and starts of the ascent, the most promising candidates.
_CANDIDATES_PER_OPERATION = 100
_MOST_CANDIDATES = 5000
_ASCENTS = 10


class Pool(ABC):
    """A rule that draws candidates."""

    def draws(self, space: SearchSpace, generator: torch.Generator) -> Draws:
        """Return what random networks of a search with this pool come from."""
        return Draws(space, generator)

    @abstractmethod
    def __call__(self, choice: Choice, num: int, taken: set[str]) -> list[Network]:
        """Draw distinct networks whose keys are not in `taken`, and add their keys to it.

        Args:
            choice: What they may depend on.
            num: How many are wanted at least; fewer where there are no more.
            taken: Keys of networks that were observed or are pending.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return all settings, ready for `json.dumps`."""


@dataclass(frozen=True)
class MutantPool(Pool):
    """Mutants of the best networks in turn, then random ones.

    Attributes:
        pool_size: Candidates per choice of a batch, >= 1.
        num_parents: How many of the best networks are mutated, >= 1.
        random_fraction: Share of the pool that is drawn at random, in [0, 1].

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.
    """

    pool_size: int = 500
    num_parents: int = 10
    random_fraction: float = 0.5

    def __post_init__(self) -> None:
        for name in ("pool_size", "num_parents"):
            object.__setattr__(self, name, integer(name, getattr(self, name), least=1))
        fraction = number("random_fraction", self.random_fraction)
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"random_fraction must lie in [0, 1]; got {fraction}")
        object.__setattr__(self, "random_fraction", fraction)

    def __call__(self, choice: Choice, num: int, taken: set[str]) -> list[Network]:
        """Draw candidates."""
        size = max(self.pool_size, num)
        parents = choice.best(self.num_parents)
        num_mutants = size - round(self.random_fraction * size)
        pool: list[Network] = []
        while parents and len(pool) < num_mutants:
            # Those that have no unseen mutants left are out of the turn.
            left = []
            for parent in parents:
                mutant = choice.draws.mutate(parent, taken) if len(pool) < num_mutants else None
                if mutant is not None:
                    pool.append(mutant)
                    left.append(parent)
            parents = left
        return pool + choice.draws.sample(size - len(pool), taken)

    def settings(self) -> dict[str, Any]:
        """Return all settings."""
        return asdict(self)


@dataclass(frozen=True)
class ScreenedPool(Pool):
    """The candidates of another pool that a cheaper model finds most promising.

    Where a distance is costly, a larger pool can be looked through this way: the cheap model is
    fitted to the same observations, and the search's own model then sees what is left. With several
    objectives or constraints, nothing is left out.

    Attributes:
        pool: Draws the candidates.
        surrogate: The cheap model.
        num_kept: How many candidates stay, >= 1.

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.
    """

    pool: Pool = MutantPool(pool_size=1000)
    surrogate: Surrogate = WeisfeilerLehmanSurrogate()  # noqa: RUF009 - frozen
    num_kept: int = 250

    def __post_init__(self) -> None:
        if not isinstance(self.pool, Pool):
            raise TypeError(f"pool must be a Pool such as MutantPool(); got {self.pool!r}")
        if not isinstance(self.surrogate, Surrogate):
            raise TypeError(
                "surrogate must be a Surrogate such as WeisfeilerLehmanSurrogate(); got"
                f" {self.surrogate!r}"
            )
        object.__setattr__(self, "num_kept", integer("num_kept", self.num_kept, least=1))

    def draws(self, space: SearchSpace, generator: torch.Generator) -> Draws:
        """Return what random networks of the other pool come from."""
        return self.pool.draws(space, generator)

    def __call__(self, choice: Choice, num: int, taken: set[str]) -> list[Network]:
        """Draw candidates, and leave out all but the most promising."""
        found = self.pool(choice, num, taken)
        size = max(self.num_kept, num)
        if len(found) <= size or choice.Y.shape[1] > 1:
            return found
        draws = choice.draws
        fit = self.surrogate.bind(draws.space, draws.generator)
        model = fit(choice.X, choice.Y, len(choice.X), None)
        with torch.no_grad():
            function = choice.function(model, pending=choice.pending, step=choice.step)
            values: Tensor = function(draws.space.encode(found).unsqueeze(1))
        order = values.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
        kept = set(order[:size].tolist())
        taken -= {draws.space.key(net) for n, net in enumerate(found) if n not in kept}
        return [net for n, net in enumerate(found) if n in kept]

    def settings(self) -> dict[str, Any]:
        """Return those of the other pool, and all of its own."""
        screen = {"name": type(self.surrogate).__name__, **self.surrogate.settings()}
        return self.pool.settings() | {"screen": screen, "num_kept": self.num_kept}


@dataclass(frozen=True)
class BredPool(Pool):
    """Candidates bred for the acquisition function, as NASBOT does.

    The population begins as everything observed; in epochs of 50, parents are drawn with
    probability proportional to exp(2 standardised acquisition) and mutated 1 to 5 times (with
    probabilities 0.5, 0.25, 0.125, 0.075, 0.05), and the children join the population. In the t-th
    step there are 9 sqrt(t) children, within the given limits. Parents are drawn without regard to
    what is pending, and by the expected improvement itself where its logarithm is maximised.

    Attributes:
        pool_size: Fewest children per step, >= 1.
        max_pool_size: Most children per step, >= `pool_size`.

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.

    Reference: Kandasamy, Neiswanger, Schneider, Poczos and Xing, Neural Architecture Search with
        Bayesian Optimisation and Optimal Transport, NeurIPS 2018; numbers as in its public code.

    Example:
        >>> [BredPool(pool_size=50, max_pool_size=100).evaluations(step) for step in (1, 64, 400)]
        [50, 72, 100]
    """

    pool_size: int = 50
    max_pool_size: int = 500

    def __post_init__(self) -> None:
        object.__setattr__(self, "pool_size", integer("pool_size", self.pool_size, least=1))
        most = integer("max_pool_size", self.max_pool_size)
        if most < self.pool_size:
            raise ValueError(
                f"max_pool_size must be at least pool_size, {self.pool_size}; got {most}"
            )
        object.__setattr__(self, "max_pool_size", most)

    def evaluations(self, step: int) -> int:
        """Return how often the acquisition is evaluated at a step, from 1."""
        return min(max(round(_GROWTH * math.sqrt(step)), self.pool_size), self.max_pool_size)

    def __call__(self, choice: Choice, num: int, taken: set[str]) -> list[Network]:
        """Breed candidates."""
        size = max(num, self.evaluations(choice.step))
        population = [found.network for found in choice.observed]
        fitness = self._fitness(choice, choice.X)
        pool: list[Network] = []
        while len(pool) < size:
            wanted = min(_EPOCH, size - len(pool))
            children = self._breed(choice.draws, population, fitness, wanted, taken)
            pool += children
            if len(children) < wanted:
                break
            population += children
            rows = choice.draws.space.encode(children)
            fitness = torch.cat([fitness, self._fitness(choice, rows)])
        return pool + choice.draws.sample(size - len(pool), taken)

    def settings(self) -> dict[str, Any]:
        """Return all settings."""
        return asdict(self)

    @staticmethod
    def _fitness(choice: Choice, rows: Tensor) -> Tensor:
        """Acquisition values of rows, (N,)."""
        with torch.no_grad():
            function = choice.function(choice.model, pending=choice.X[:0], step=choice.step)
            values: Tensor = function(rows.unsqueeze(1))
        if isinstance(choice.acquisition, LogEI):
            values = values.exp()
        return values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

    @staticmethod
    def _breed(
        draws: Draws, population: list[Network], fitness: Tensor, num: int, taken: set[str]
    ) -> list[Network]:
        """Draw up to `num` unseen children, and add their keys to `taken`."""
        space, generator = draws.space, draws.generator
        spread = fitness.std(correction=0).clamp_min(torch.finfo(fitness.dtype).tiny)
        weights = torch.softmax(_SHARPNESS * (fitness - fitness.mean()) / spread, dim=0)
        device = generator.device
        parents = torch.multinomial(weights.to(device), num, replacement=True, generator=generator)
        edits = torch.multinomial(
            torch.tensor(_EDITS, device=device), num, replacement=True, generator=generator
        )
        children = []
        for parent, extra in zip(parents.tolist(), edits.tolist(), strict=True):
            network = population[parent]
            for _ in range(extra if space.size_bound() > 1 else 0):
                network = space.mutate(network, generator=generator)
            child = draws.mutate(network, taken)
            if child is None:
                break  # few networks are left, and mutations hardly meet them
            children.append(child)
        return children


@dataclass(frozen=True)
class EncodingPool(Pool):
    """One network of each of many operation distributions around the best, as ANASOD-BO does.

    Random networks of the search, too, are of random distributions.

    Attributes:
        num_candidates: Encodings drawn per choice, >= 1; None takes min(100 k, 5000) for k
            operations.
        optimizer: `"sample"`: the candidates as they were drawn; `"gradient"`: the most promising
            of them also ascend the acquisition function by exponentiated gradients on the simplex
            before they are rounded, which takes a `FeatureSurrogate` on the encodings.
        trust_region: How closely candidates keep to the best; None draws them from the whole
            simplex at all times.
        encoding: The map between networks and encodings; None is the space's.

    Raises:
        TypeError, ValueError: A setting of the wrong kind or out of range.

    Reference: Wan et al., ANASOD, CVPR 2022, Algorithm 2 and Appendix A.1.
    """

    num_candidates: int | None = None
    optimizer: Literal["sample", "gradient"] = "sample"
    trust_region: DirichletTrustRegion | None = DirichletTrustRegion()  # noqa: RUF009 - frozen
    encoding: SlotEncoding | MemberEncoding | None = None

    def __post_init__(self) -> None:
        if self.num_candidates is not None:
            count = integer("num_candidates", self.num_candidates, least=1)
            object.__setattr__(self, "num_candidates", count)
        if self.optimizer not in ("sample", "gradient"):
            raise ValueError(f"optimizer must be 'sample' or 'gradient'; got {self.optimizer!r}")
        if not isinstance(self.trust_region, DirichletTrustRegion | None):
            raise TypeError(
                f"trust_region must be a DirichletTrustRegion or None; got {self.trust_region!r}"
            )
        if not isinstance(self.encoding, SlotEncoding | MemberEncoding | None):
            raise TypeError(
                f"encoding must be a SlotEncoding, a MemberEncoding or None; got {self.encoding!r}"
            )

    def draws(self, space: SearchSpace, generator: torch.Generator) -> EncodingDraws:
        """Return what draws networks of random encodings."""
        return EncodingDraws(space, generator, self.encoding)

    def size(self, num_operations: int) -> int:
        """Return the number of encodings that are drawn in a space of so many operations."""
        if self.num_candidates is not None:
            return self.num_candidates
        return min(_CANDIDATES_PER_OPERATION * num_operations, _MOST_CANDIDATES)

    def __call__(self, choice: Choice, num: int, taken: set[str]) -> list[Network]:
        """Draw an unseen network of each candidate encoding."""
        draws = choice.draws
        assert isinstance(draws, EncodingDraws)
        encoding = draws.encoding
        (center,) = encoding.encode(choice.best(1))
        beta = self.beta(choice.history, choice.num_initial)
        points = encoding.draw(
            max(self.size(encoding.num_operations), num),
            generator=draws.generator,
            concentration=1.0 + len(center) * beta * center,
        )
        if self.optimizer == "gradient":
            points = torch.cat([self.ascend(choice, points), points])
        return draws.decode(_distinct(encoding.snap(points)), taken)

    def beta(self, history: Sequence[Observation], num_initial: int) -> float:
        """Return how closely candidates keep to the best encoding; 0 is not at all."""
        if self.trust_region is None:
            return 0.0
        return self.trust_region.beta([found.value for found in history], num_initial=num_initial)

    def ascend(self, choice: Choice, points: Tensor) -> Tensor:
        """Move the most promising points up the acquisition function, over the simplex.

        Raises:
            TypeError: The model is no Gaussian process on the encodings.
        """
        if not isinstance(choice.model, FeatureGP):
            raise TypeError(
                "optimizer must be 'sample' unless the surrogate is a FeatureSurrogate; got "
                f"'gradient' with {type(choice.model).__name__}"
            )
        model = choice.model.on_features()
        with torch.no_grad():
            known = choice.model.features(choice.X)
        step = max(1, len(choice.observed) - choice.num_initial + 1)
        acquisition = replace(choice, X=known).function(model, pending=known[:0], step=step)

        def values(rows: Tensor) -> Tensor:
            result: Tensor = acquisition(rows.unsqueeze(1))
            return result

        with torch.no_grad():
            promising = values(points).nan_to_num(nan=-torch.inf).argsort(descending=True)
        return ascend_simplex(values, points[promising[:_ASCENTS]])

    def settings(self) -> dict[str, Any]:
        """Return all settings."""
        region = self.trust_region
        return {
            "num_candidates": self.num_candidates,
            "optimizer": self.optimizer,
            "trust_region": None if region is None else region.to_json(),
        }


def _distinct(points: Tensor) -> Tensor:
    """Drop repeated encodings, keeping the order."""
    first: dict[tuple[float, ...], int] = {}
    for place, point in enumerate(points.tolist()):
        first.setdefault(tuple(point), place)
    return points[list(first.values())]
