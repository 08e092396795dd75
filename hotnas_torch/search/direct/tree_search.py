"""Samplers of architectures as search strategies, tree search above all."""

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, number, takes
from hotnas_torch.distances import HOTNN
from hotnas_torch.hierarchy import (
    ArchitectureTree,
    Sampler,
    Schedule,
    TreeSampler,
    cluster,
    encoding_distances,
    layer_operations,
    layer_tree,
    layer_vectors,
    prefix_distances,
    random_tree,
)
from hotnas_torch.search.base import Strategy
from hotnas_torch.search.goal import GOAL
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space
from hotnas_torch.spaces.joint import check_architectures

__all__ = ["SamplerSearch", "TreeSearch", "accuracy_rewards", "rank_rewards"]

Hierarchy = Literal["hotnn", "hotnn_prefix", "encoding", "layers", "random"]

_MAX_ARCHITECTURES = 20_000


def rank_rewards(values: Tensor) -> Tensor:
    """Return the share of values that are worse, equal ones counted half; in [0, 1].

    Args:
        values: (n,), smaller is better.

    Example:
        >>> rank_rewards(torch.tensor([3.0, 1.0, 2.0, 2.0]))
        tensor([0.1250, 0.8750, 0.5000, 0.5000], dtype=torch.float64)
    """
    ordered = values.sort().values
    not_better = len(values) - torch.searchsorted(ordered, values)
    worse = len(values) - torch.searchsorted(ordered, values, right=True)
    return (not_better + worse).double() / (2 * max(len(values), 1))


def accuracy_rewards(values: Tensor) -> Tensor:
    """Return accuracies in [0, 1] of errors in percent, the rewards of the paper.

    Args:
        values: (n,), errors in percent.
    """
    return 1.0 - values.double() / 100.0


class SamplerSearch(Strategy):
    """Propose what a sampler draws, each network at most once.

    Networks that were proposed or observed before are ruled out in the sampler itself, so that its
    distribution is that of a draw repeated until something new comes; in a tree, branches that are
    used up are left out of every choice. The sampler's phases and temperature follow the share of
    `budget` that was proposed or observed; beyond the budget they stay at their end.

    Before each question the rewards of everything observed so far are computed anew and given to
    the sampler in the order of observing, without failed evaluations.

    Args:
        space: What is searched; its networks are the sampler's architectures 0..N-1 in the order in
            which the space lists them.
        sampler: What draws. It belongs to this strategy from here on.
        generator: Source of all randomness.
        budget: Number of evaluations that the schedule spans, >= 1.
        rewards: Turns the (n,) values observed so far, smaller is better, into (n,) rewards, larger
            is better. Default: `rank_rewards`, which needs no scale.

    Attributes:
        sampler: As passed.
        **goal: Settings of `Goal`, such as `direction="maximize"`.

    Raises:
        TypeError: `sampler` is no sampler.
        ValueError: The space has another number of networks than the sampler has architectures, or
            `budget` is below 1.

    Complexity: O(N) per proposal.

    Example:
        >>> import hotnas_torch as ht
        >>> from hotnas_torch.hierarchy import Uniform
        >>> strategy = SamplerSearch(
        ...     ht.spaces.Pooling(), Uniform(36), generator=torch.Generator().manual_seed(0)
        ... )
        >>> len({net.spec for net in strategy.ask(36)})
        36
    """

    name = "sampler"

    @takes(*GOAL)
    def __init__(
        self,
        space: SearchSpace,
        sampler: Sampler,
        *,
        generator: torch.Generator | None,
        budget: int = 100,
        rewards: Callable[[Tensor], Tensor] = rank_rewards,
        **goal: Any,
    ) -> None:
        super().__init__(space, generator=generator, **goal)
        if not isinstance(sampler, Sampler):
            raise TypeError(f"sampler must be a Sampler; got {type(sampler).__name__}")
        budget = integer("budget", budget, least=1)
        if not callable(rewards):
            raise TypeError(f"rewards must be callable; got {rewards!r}")
        self._nets = enumerated(space)
        if sampler.num_architectures != len(self._nets):
            raise ValueError(
                f"sampler must have one architecture per network of {space!r}, {len(self._nets)}; "
                f"got {sampler.num_architectures}"
            )
        self._place = {space.key(net): place for place, net in enumerate(self._nets)}
        self.sampler = sampler
        self.budget = budget
        self.rewards = rewards

    def settings(self) -> dict[str, Any]:
        """Return the sampler with its settings, the schedule, the budget and the rewards' name."""
        return {
            "sampler": self.sampler.name,
            **{k: v for k, v in self.sampler.settings().items() if k != "tree"},
            "schedule": asdict(self.sampler.schedule),
            "budget": self.budget,
            "rewards": getattr(self.rewards, "__name__", repr(self.rewards)),
        }

    def _propose(self, num: int) -> list[Network]:
        taken = [self._place[key] for key in self._taken()]
        allowed = torch.ones(len(self._nets), dtype=torch.bool)
        allowed[taken] = False
        self._learn()
        proposed: list[Network] = []
        while len(proposed) < min(num, len(self._nets) - len(taken)):
            self.sampler.set_progress(min((len(taken) + len(proposed)) / self.budget, 1.0))
            drawn = self.sampler.sample(1, generator=self._generator, allowed=allowed)
            allowed[drawn] = False
            proposed.append(self._nets[int(drawn)])
        return proposed

    def _learn(self) -> None:
        observed = self._finite()
        self.sampler.reset()
        self.sampler.set_progress(1.0)
        values = torch.tensor([value for _, value in observed], dtype=torch.float64)
        places = [self._place[self.space.key(net)] for net, _ in observed]
        self.sampler.update(torch.tensor(places, dtype=torch.int64), self.rewards(values))


class TreeSearch(SamplerSearch):
    """Monte-Carlo tree search over a hierarchy of the space's networks, learned or given.

    Args:
        space: What is searched, at most 20,000 networks; larger spaces by a `Subset`.
        generator: Source of all randomness.
        hierarchy: `"hotnn"`: Ward linkage of HOTNN distances, which needs no training;
            `"hotnn_prefix"`: the same of `prefix_distances`;
            `"encoding"`: average linkage of exponentially weighted distances of the networks'
            vectors; `"layers"`: the default tree, layer by layer; `"random"`: a balanced binary
            tree over a random order that `generator`'s seed decides; or a tree over the networks
            in the space's order.
        num_initial: Networks drawn uniformly before the tree decides, >= 0.
        budget: Number of evaluations over which the temperature falls, > `num_initial`.
        temperature: T after the initial networks and at the end of the budget, for rewards in
            [0, 1].
        exploration: lambda of Eq. 3.
        beta: Smoothing of the rewards, see `TreeSampler`. A node's
            value starts from nothing, as 100 evaluations are too few to forget an initial one.
        regularization: Weight of the node communication; trees of layers only.
        rewards: Turns the (n,) values observed so far, smaller is better, into (n,) rewards, larger
            is better.
        **goal: Settings of `Goal`, such as `direction="maximize"`.

    Raises:
        ValueError: An argument out of range, an unknown hierarchy, or a space that is too large.

    Reference: "Neural Architecture Search by Learning a Hierarchical Search Space", 2025; the
        hierarchy from HOTNN distances, rewards by rank and the constants for them are ours.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = TreeSearch(
        ...     ht.spaces.Pooling(),
        ...     generator=torch.Generator().manual_seed(0),
        ...     num_initial=4,
        ...     budget=16,
        ... )
        >>> for _ in range(16):
        ...     nets = strategy.ask()
        ...     strategy.tell(nets, [sum(nets[0].downsampling)])
        >>> strategy.best.value  # of [8,1,1], the smallest there is
        14.0
    """

    name = "tree_search"

    @takes(*GOAL)
    def __init__(
        self,
        space: SearchSpace,
        *,
        generator: torch.Generator | None,
        hierarchy: Hierarchy | ArchitectureTree = "hotnn",
        num_initial: int = 10,
        budget: int = 100,
        temperature: tuple[float, float] = (0.03, 0.01),
        exploration: float = 0.3,
        beta: float = 0.95,
        regularization: float = 0.0,
        rewards: Callable[[Tensor], Tensor] = rank_rewards,
        **goal: Any,
    ) -> None:
        num_initial, budget = integer("num_initial", num_initial), integer("budget", budget)
        try:
            start, end = temperature
        except (TypeError, ValueError):
            raise TypeError(
                f"temperature must be two numbers, of start and end; got {temperature!r}"
            ) from None
        start, end = number("temperature[0]", start), number("temperature[1]", end)
        exploration, beta = number("exploration", exploration), number("beta", beta)
        regularization = number("regularization", regularization)
        for name, value in (
            ("temperature[0]", start),
            ("temperature[1]", end),
            ("exploration", exploration),
            ("beta", beta),
            ("regularization", regularization),
        ):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite; got {value}")
        if not 0 <= num_initial < budget:
            raise ValueError(
                f"num_initial must be at least 0 and below budget = {budget}; got {num_initial}"
            )
        if isinstance(hierarchy, ArchitectureTree):
            self.hierarchy, tree = f"tree {hierarchy.digest()}", hierarchy
        else:
            check_space(space)
            if not isinstance(hierarchy, str):
                raise TypeError(
                    f"hierarchy must be a str or an ArchitectureTree; got {hierarchy!r}"
                )
            # Only a random tree depends on the seed; all others are shared between searches.
            seed = 0
            if hierarchy == "random" and isinstance(generator, torch.Generator):
                seed = generator.initial_seed()
            self.hierarchy, tree = str(hierarchy), _build(space, hierarchy, seed)
        sampler = TreeSampler(
            tree,
            beta=beta,
            exploration=exploration,
            initial=None,
            regularization=regularization,
            schedule=Schedule(warm_up=num_initial / budget, start=start, end=end),
        )
        super().__init__(
            space, sampler, generator=generator, budget=budget, rewards=rewards, **goal
        )

    def settings(self) -> dict[str, Any]:
        """Return the hierarchy's name, or the digest of a given one, and all other settings."""
        return {"hierarchy": self.hierarchy, **super().settings()}


def enumerated(space: SearchSpace) -> list[Network]:
    """Return the networks of a space in its order, each once up to its key.

    Raises:
        ValueError: There are more than 20,000, or they have hyperparameters.
    """
    check_architectures("a tree over networks", space)
    if (size := space.size_bound()) > _MAX_ARCHITECTURES:
        raise ValueError(
            f"space must have at most {_MAX_ARCHITECTURES} networks for a tree over all of them, "
            f"{space!r} has {size} (pass a Subset of them)"
        )
    found: dict[str, Network] = {}
    for net in space:
        found.setdefault(space.key(net), net)
    return list(found.values())


@lru_cache(maxsize=4)
def _build(space: SearchSpace, hierarchy: str, seed: int) -> ArchitectureTree:
    nets = enumerated(space)
    match hierarchy:
        # Not Euclidean, yet Ward's more even trees search better.
        case "hotnn":
            return cluster(HOTNN(space=space)(nets), linkage="ward", check_euclidean=False)
        case "hotnn_prefix":
            distances = prefix_distances(nets, HOTNN(space=space))
            return cluster(distances, linkage="ward", check_euclidean=False)
        case "encoding":
            codes = layer_vectors(space, nets)
            return cluster(encoding_distances(codes, "vector", weights="exponential"))
        case "layers":
            return layer_tree(layer_operations(space, nets))
        case "random":
            return random_tree(len(nets), generator=torch.Generator().manual_seed(seed))
    raise ValueError(
        "hierarchy must be 'hotnn', 'hotnn_prefix', 'encoding', 'layers', 'random' or an "
        f"ArchitectureTree; got {hierarchy!r}"
    )
