"""HOTNAS on evaluations that are cut short: Hyperband's slots, filled by a model of all levels."""

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Literal

import torch
from botorch.models.model import Model
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import kind, takes
from hotnas_torch.search.base import Observation
from hotnas_torch.search.bayesian.acquisition import AcquisitionInputs
from hotnas_torch.search.bayesian.batches import believe
from hotnas_torch.search.bayesian.choice import Choice, mean_of
from hotnas_torch.search.bayesian.combined import CombinedSurrogate
from hotnas_torch.search.bayesian.levels import Level, Offsets, aligned
from hotnas_torch.search.bayesian.pools import MutantPool
from hotnas_torch.search.bayesian.search import BayesianSearch
from hotnas_torch.search.bayesian.surrogates import Surrogate
from hotnas_torch.search.draws import Draws
from hotnas_torch.search.fidelity import Fidelity, Slot
from hotnas_torch.search.goal_settings import Constraint
from hotnas_torch.search.randomness import draw_seed, seeded
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.base import check_space

__all__ = ["MultiFidelityHOTNAS"]

# Known noise below this share of the targets' variance is no noise to Gaussian processes.
_LEAST_NOISE = 1e-5


class MultiFidelityHOTNAS(BayesianSearch):
    """Hyperband's evaluations, of networks that one model of all levels chooses.

    What is asked for are pairs of a network and a level, which an objective unpacks. Brackets say
    at which level the next evaluation is: many at low ones, few at the whole. The model says of
    which network. It is one Gaussian process over networks and levels, HOTNN and Weisfeiler-Lehman
    kernels times one between levels, with an offset of each level, and both low and full
    evaluations tell it of a network's value at the full level. There it judges, never by a low
    value itself:

    - On the first rung of a bracket, candidates are mutants of the networks that it holds for best,
      and random ones; on the rung of whole evaluations, also all that are known at lower levels.
    - On a later rung, candidates are all networks that are known at lower levels, of whichever
      bracket.

    What begins below the full level is the best of a draw from the posterior at the full level
    (Thompson sampling), which explores; what goes on, or is evaluated whole, has the largest
    expected improvement there. Nobody waits for a rung, so that any
    number of workers stays busy. `best` (of strategy and result) compares whole evaluations alone;
    `recommend` returns the one of these that the model holds for best, where values are noisy.

    Args:
        space: What is searched: networks, or a `spaces.Joint` space of these and hyperparameters.
        fidelity: The levels.
        generator: Source of all randomness.
        surrogate: The model of rows of the pairs; None takes a `CombinedSurrogate`.
        pool: Where new networks come from.
        num_initial: Random networks at the start, >= 2.
        transform: As for `BayesianSearch`.
        direction: `"minimize"` or `"maximize"`; None is minimising.

    Attributes:
        space: The pairs, a `spaces.Joint` space.
        networks: The space that was passed.

    Raises:
        TypeError, ValueError: An argument of the wrong kind or out of range.

    Complexity: one fit of the model whenever observations have grown by half; per `ask`, one
        distance of each kind per pair of a candidate and an observation, and O(n^3) of n
        observations.

    Reference: brackets are those of Li et al., Hyperband, JMLR 2018; that a model proposes as in
        Falkner, Klein and Hutter, BOHB, ICML 2018; one model of all levels as in Kandasamy et al.,
        Multi-fidelity Bayesian Optimisation with Continuous Approximations, ICML 2017.

    Example:
        >>> import hotnas_torch as ht
        >>> strategy = MultiFidelityHOTNAS(
        ...     ht.spaces.NASBenchMacro(),
        ...     Fidelity([1, 9]),
        ...     generator=torch.Generator().manual_seed(0),
        ...     num_initial=4,
        ...     pool=MutantPool(20),
        ... )
        >>> for _ in range(12):
        ...     (point,) = strategy.ask()
        ...     network, values = point
        ...     strategy.tell([point], [1.0 + network.spec.count("0") + 1 / values["epochs"]])
        >>> [strategy.fidelity.level(found.network) for found in strategy.observations][8:]
        [1.0, 9.0, 9.0, 9.0]
    """

    name = "multi_fidelity_hotnas"
    pursues_several = False

    @takes()
    def __init__(
        self,
        space: SearchSpace,
        fidelity: Fidelity,
        *,
        generator: torch.Generator | None,
        surrogate: Surrogate | None = None,
        pool: MutantPool = MutantPool(200),  # noqa: B008 - frozen
        num_initial: int = 10,
        transform: Literal["none", "log"] = "log",
        direction: Literal["minimize", "maximize"] | None = None,
    ) -> None:
        check_space(space)
        kind("fidelity", fidelity, Fidelity)
        kind("pool", pool, MutantPool)
        kind("surrogate", surrogate, Surrogate, optional=True)
        self.fidelity = fidelity
        self.networks = space
        self._pairs = fidelity.joined(space)
        super().__init__(
            self._pairs,
            generator=generator,
            surrogate=_default(fidelity) if surrogate is None else surrogate,
            pool=pool,
            num_initial=num_initial,
            transform=transform,
            direction=direction,
            constraints=[Constraint(fidelity.name, ">=", float(fidelity.full))],
            known={fidelity.name: Level(fidelity.name)},
        )
        self._new = Draws(space, self._generator)

    def cost(self, net: Network) -> float:
        """Return what the evaluation of a pair costs, in (0, 1]; a whole one costs 1."""
        return self.fidelity.cost(net)

    def settings(self) -> dict[str, Any]:
        """Return all settings."""
        return super().settings() | {"fidelity": self.fidelity.to_json()}

    def tell(
        self,
        nets: Sequence[Network],
        values: Sequence[Any] | Tensor,
        variances: Sequence[Any] | Tensor | None = None,
        *,
        again: bool = False,
    ) -> None:
        """Record values of pairs, one number each; see `Strategy`."""
        if isinstance(values, Tensor) and values.ndim == 1:
            values = values.tolist()
        if isinstance(variances, Tensor) and variances.ndim == 1:
            variances = variances.tolist()
        if variances is not None and not isinstance(variances, Tensor):
            variances = [
                {self.goal.objectives[0]: one} if isinstance(one, int | float) else one
                for one in variances
            ]
        super().tell(nets, values, variances, again=again)

    def recommend(self) -> Observation | None:
        """Return the whole evaluation whose network the model holds for best; None without one.

        Fits the model. `best` has the best value instead, which noise may have favoured.
        """
        whole = [one for one in self._valued() if self.fidelity.place(one.network) == self._top]
        known = self._known() if len(whole) > 1 else None
        if known is None:
            return self.best
        with torch.inference_mode(False), torch.enable_grad():
            model = self._model_of(*known)
        means = mean_of(model, self.space.encode([found.network for found in whole]))
        found = whole[int(means.flatten().argmax())]
        return self._observed[self.space.key(found.network)]

    # --- proposing --------------------------------------------------------------------------------

    def _propose(self, num: int) -> list[Network]:
        proposed: list[Network] = []
        known = self._known()
        if known is None or len(self._taken()) < self.num_initial:
            # As many random ones as the start still lacks, or all: there is nothing to learn from.
            lacking = num if known is None else self.num_initial - len(self._taken())
            proposed = self._random(min(num, lacking), proposed)
        if len(proposed) < num and known is not None:
            with seeded(draw_seed(self._generator, below=2**62)):
                self.model = self._model_of(*known)
                model = believe(self.model, self.space.encode([*self._pending.values(), *proposed]))
                while len(proposed) < num:
                    chosen = self._chosen(model, proposed, num - len(proposed))
                    if not chosen:
                        break
                    proposed += chosen
                    if len(proposed) < num:
                        model = believe(model, self.space.encode(chosen))
        return proposed

    def _random(self, num: int, proposed: list[Network]) -> list[Network]:
        """Draw new networks for the next slots; where there are none left, known ones go on."""
        found = list(proposed)
        for _ in range(num):
            slot = self.fidelity.slot(len(self._taken()) + len(found))
            ready = [] if slot.fresh else self._ready(slot.place, found)
            new = [] if ready else self._new.sample(1, self._begun(found))
            # Where a rung has no candidates, new networks begin.
            place = 0 if new and not slot.fresh else slot.place
            if not (ready or new):
                ready, place = self._ready(self._top, found), self._top
            if not (ready or new):
                break
            net = new[0] if new else ready[self._new.permutation(len(ready))[0]]
            found.append(self.fidelity.point(self._pairs, net, place))
        return found

    def _chosen(self, model: Model, proposed: list[Network], most: int) -> list[Network]:
        """Return what the model chooses for the next slots that are alike; none where none is."""
        slots = self._slots(len(proposed), most)
        # Where a rung has no candidates, new networks begin; where there are none, others go on.
        for place, fresh in (slots[0], (0, True), *((p, False) for p in range(1, self._top + 1))):
            nets = self._ready(place, proposed)
            if fresh:
                nets = nets + self._pool_of(model, self._begun(proposed))
            if nets:
                alike = sum(1 for _ in takewhile(slots[0].__eq__, slots))
                if fresh and place < self._top:
                    chosen = self._drawn(model, nets, alike)
                else:
                    chosen = [self._best_of(model, nets)]
                return [self.fidelity.point(self._pairs, net, place) for net in chosen]
        return []

    def _slots(self, begun: int, num: int) -> list[Slot]:
        first = len(self._taken()) + begun
        return [self.fidelity.slot(first + place) for place in range(num)]

    def _drawn(self, model: Model, nets: list[Network], num: int) -> list[Network]:
        """Choose networks that are the best of draws from the posterior at the full level."""
        with torch.no_grad():
            posterior: Any = model.posterior(self._rows_at_top(nets))
            variances, vectors = torch.linalg.eigh(posterior.distribution.covariance_matrix)
            normal = torch.randn(num, len(nets), dtype=variances.dtype)
            draws = normal * variances.clamp_min(0.0).sqrt() @ vectors.mT
            draws = (draws + posterior.mean.squeeze(-1)).nan_to_num(nan=-math.inf)
        chosen: list[int] = []
        for own in draws[: len(nets)]:
            own[chosen] = -math.inf
            chosen.append(int(own.argmax()))
        return [nets[place] for place in chosen]

    def _best_of(self, model: Model, nets: list[Network]) -> Network:
        """Choose by the acquisition function at the full level."""
        known = self.space.encode([found.network for found in self._valued()])
        step = max(1, len(self._taken()) - self.num_initial + 1)
        inputs = AcquisitionInputs(known, self._incumbent(model), known[:0], step)
        with torch.no_grad():
            rows = self._rows_at_top(nets).unsqueeze(1)
            values: Tensor = self.acquisition(model, inputs)(rows)
        return nets[int(values.nan_to_num(nan=-math.inf).argmax())]

    def _pool_of(self, model: Model, begun: set[str]) -> list[Network]:
        """Draw new networks: mutants of those that the model holds for best, and random ones."""
        nets = list(self._by_network())
        means = mean_of(model, self._rows_at_top(nets)).flatten().tolist()
        judged = [Observation(net, -mean) for net, mean in zip(nets, means, strict=True)]
        empty = torch.empty(0)
        choice = Choice(
            draws=self._new,
            history=judged,
            observed=judged,
            X=empty,
            Y=empty,
            surrogate=model,
            acquisition=self.acquisition,
            pending=empty,
            num_initial=self.num_initial,
            step=1,
        )
        return self.pool(choice, 1, begun)

    def _incumbent(self, model: Model) -> float:
        """Return the largest mean of what was evaluated whole, or else of all at the full level."""
        whole = {net: places for net, places in self._by_network().items() if self._top in places}
        return float(mean_of(model, self._rows_at_top(list(whole or self._by_network()))).max())

    # --- what is known ----------------------------------------------------------------------------

    @property
    def _top(self) -> int:
        return len(self.fidelity.levels) - 1

    def _valued(self) -> list[Observation]:
        """Return the pairs that have a value, with losses, in order."""
        losses = self.goal.signed(self.values)[:, 0].tolist()
        return [
            Observation(found.network, loss)
            for found, loss in zip(self.observations, losses, strict=True)
            if not math.isnan(loss)
        ]

    def _network(self, point: Network) -> Network:
        return self.fidelity.network(self.networks, point)

    def _by_network(self) -> dict[Network, set[int]]:
        """Return the places of the levels at which each network has a value."""
        found: dict[str, tuple[Network, set[int]]] = {}
        for observation in self._valued():
            net = self._network(observation.network)
            key = self.networks.key(net)
            found.setdefault(key, (net, set()))[1].add(self.fidelity.place(observation.network))
        return dict(found.values())

    def _asked(self, proposed: Sequence[Network]) -> list[Network]:
        observed = [found.network for found in self.observations]
        return [*observed, *self._pending.values(), *proposed]

    def _begun(self, proposed: Sequence[Network]) -> set[str]:
        """Return the keys of the networks that were asked for at any level."""
        return {self.networks.key(self._network(one)) for one in self._asked(proposed)}

    def _ready(self, place: int, proposed: Sequence[Network]) -> list[Network]:
        """Return the networks that have a value below a level and were not asked for there."""
        reached: dict[str, int] = {}
        for point in self._asked(proposed):
            key = self.networks.key(self._network(point))
            reached[key] = max(reached.get(key, 0), self.fidelity.place(point))
        return [
            net
            for net, places in self._by_network().items()
            if (most := reached[self.networks.key(net)]) < place and most in places
        ]

    def _rows_at_top(self, nets: Sequence[Network]) -> Tensor:
        points = [self.fidelity.point(self._pairs, net, self._top) for net in nets]
        return self.space.encode(points)

    def _known(self) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """Return rows, targets (n, 1) and variances of their noise; None: nothing to learn from."""
        observed = self._valued()
        if len(observed) < 2:
            return None
        losses = torch.tensor([found.value for found in observed], dtype=torch.float64)
        places = torch.tensor([self.fidelity.place(found.network) for found in observed])
        keys = [self.space.key(found.network) for found in observed]
        noise = self._variances(keys, 0)
        same = [self.networks.key(self._network(found.network)) for found in observed]
        first = max(2, self._num_learned(len(observed)))
        Y, variances = aligned(
            losses, places, same, transform=self.transform, noise=noise, num_reference=first
        )
        if bool((Y[0] == Y).all()):
            return None
        rows = self.space.encode([found.network for found in observed])
        if variances is not None:
            variances = variances[:, None].clamp_min(_LEAST_NOISE * float(Y.var()))
        return rows, Y[:, None], variances

    def _model_of(self, X: Tensor, Y: Tensor, noise: Tensor | None) -> Model:
        return self._fit_explained(self._fits[self.goal.objectives[0]], X, Y, noise)


def _default(fidelity: Fidelity) -> CombinedSurrogate:
    return CombinedSurrogate(mean=Offsets(len(fidelity.levels)), refit_growth=1.5)
