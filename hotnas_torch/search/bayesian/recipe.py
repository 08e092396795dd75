"""Methods by name: a search whose parts are chosen, with their settings by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from botorch.models.model import Model
from torch import Tensor

from hotnas_torch.arguments import checked_options, integer, known_settings, refused_by
from hotnas_torch.distances import NetworkDistance
from hotnas_torch.search.bayesian.acquisition import Acquisition, AcquisitionName, name_of
from hotnas_torch.search.bayesian.batches import Batch, Believer, PendingAware
from hotnas_torch.search.bayesian.pools import MutantPool, Pool
from hotnas_torch.search.bayesian.search import BayesianSearch
from hotnas_torch.search.bayesian.surrogates import Surrogate
from hotnas_torch.search.goal import GOAL
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.encodings import AdjacencyEncoding, PathEncoding
from hotnas_torch.spaces.joint import network_space

__all__ = ["CHOICE", "POOL", "Recipe", "SearchSettings", "distance_of", "network_encoding"]

CHOICE = ("num_initial", "acquisition", "transform", *GOAL)
"""Settings that every method with a model has."""

POOL = ("pool_size", "num_parents", "random_fraction")
"""Settings of methods whose pool is mutants and random networks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Settings that methods share; each method says which of them it has, and its defaults.

    Attributes:
        num_initial: Random networks at the start, >= 2.
        acquisition: `"log_ei"`, `"ucb"`, `"its"` (independent Thompson sampling); for several
            objectives `"log_nehvi"` or `"log_nparego"`; or a callable that builds a BoTorch
            acquisition function, see `Acquisition`. None takes the first of these.
        transform: `"log"`: the model sees the logarithm of the values, when all of them are
            positive (errors and losses are); `"none"`: the values themselves.
        pool_size: Candidates per choice of a batch, >= 1.
        num_parents: How many of the best networks are mutated for the pool, >= 1.
        random_fraction: Share of the pool that is drawn at random, in [0, 1].
        pending: What networks that are pending count for. `"believer"`: the model observes its own
            mean there; `"acquisition"`: the acquisition function gets their rows, for those of
            BoTorch that take `X_pending`.
        goal: Settings of `Goal`, such as `direction` and `objectives`, which methods take by name.
    """

    num_initial: int = 10
    acquisition: AcquisitionName | Acquisition | None = None
    transform: Literal["none", "log"] = "log"
    pool_size: int = 500
    num_parents: int = 10
    random_fraction: float = 0.5
    pending: Literal["believer", "acquisition"] = "believer"
    goal: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Read settings by name, those of `Goal` among them."""
        goal = {name: value for name, value in settings.items() if name in GOAL}
        own = {name: value for name, value in settings.items() if name not in GOAL}
        return cls(**own, goal=goal)

    def mutants(self) -> MutantPool:
        """Return the pool."""
        return MutantPool(self.pool_size, self.num_parents, self.random_fraction)

    def rule(self) -> Batch:
        """Return the batch rule.

        Raises:
            ValueError: `pending` is neither of the two.
        """
        if self.pending == "believer":
            return Believer()
        if self.pending == "acquisition":
            return PendingAware()
        raise ValueError(f"pending must be 'believer' or 'acquisition'; got {self.pending!r}")


class Recipe(BayesianSearch):
    """A `BayesianSearch` with a name, whose settings are a flat record.

    What the record holds can be read as attributes, too: `strategy.pool_size`.

    Args:
        space: What is searched.
        settings: What it shares with other methods.
        surrogate: The model.
        generator: Source of all randomness.
        pool: Where candidates come from; None: mutants and random networks.
        batch: How networks are taken from the pool; None: as `settings.pending` says.
        record: Settings of its own, for records.
    """

    def __init__(
        self,
        space: SearchSpace,
        settings: SearchSettings,
        surrogate: Surrogate | Callable[[Tensor, Tensor], Model] | None,
        *,
        generator: torch.Generator | None,
        pool: Pool | None = None,
        batch: Batch | None = None,
        record: Mapping[str, Any],
    ) -> None:
        super().__init__(
            space,
            generator=generator,
            surrogate=surrogate,
            pool=settings.mutants() if pool is None else pool,
            acquisition=settings.acquisition,
            batch=settings.rule() if batch is None else batch,
            num_initial=settings.num_initial,
            transform=settings.transform,
            **settings.goal,
        )
        self._record = {
            "num_initial": self.num_initial,
            "acquisition": name_of(self.acquisition),
            "transform": self.transform,
            **self.pool.settings(),
            **self.batch.settings(),
            **record,
        }

    def settings(self) -> dict[str, Any]:
        """Return all settings; a callable by its name."""
        return dict(self._record)

    def __getattr__(self, name: str) -> Any:
        record = self.__dict__.get("_record", {})
        if name in record:
            return record[name]
        raise AttributeError(
            f"{type(self).__name__!r} has no attribute {name!r}; its settings are "
            f"{', '.join(record)}"
        )


def distance_of(
    kind: Callable[..., NetworkDistance],
    space: SearchSpace,
    options: Mapping[str, Any] | None,
    **own: Any,
) -> tuple[NetworkDistance, dict[str, Any]]:
    """Return a distance with a caller's settings, and these as a dict.

    Args:
        kind: The class of the distance.
        space: What is searched; of a `Joint` space, the distance is one between its networks.
        options: The caller's `distance_options`.
        **own: Settings that are the search's.

    Raises:
        TypeError, ValueError: A setting that is not known, not ready for `json.dumps`, of the wrong
            kind or out of range.
    """
    known = known_settings(kind, without=("space", *own))
    found = checked_options("distance_options", options, known)
    with refused_by("distance_options", found):
        return kind(network_space(space), **own, **found), found


def network_encoding(
    space: SearchSpace, encoding: str, max_length: int | None
) -> PathEncoding | AdjacencyEncoding:
    """Return the encoding of a name.

    Args:
        space: Of the networks.
        encoding: `"path"` or `"adjacency"`.
        max_length: Most operations of an encoded path; None takes what `PathEncoding` does.

    Raises:
        TypeError, ValueError: Another name, or a `max_length` out of range or not for paths.
    """
    if encoding not in ("path", "adjacency"):
        raise ValueError(f"encoding must be 'path' or 'adjacency'; got {encoding!r}")
    if max_length is not None:
        max_length = integer("max_length", max_length, least=1)
    if encoding == "path":
        return PathEncoding(space, max_length=max_length)
    if max_length is not None:
        raise ValueError("max_length is a setting of encoding='path'; leave it out")
    return AdjacencyEncoding(space)
