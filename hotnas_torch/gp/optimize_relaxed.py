"""Acquisition by gradient: through relaxed architectures, and from network to network."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from botorch.acquisition.acquisition import AcquisitionFunction
from botorch.models.model import Model
from botorch.optim.optimize import optimize_acqf
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, kind, takes
from hotnas_torch.gp.model import HOTNNGP
from hotnas_torch.gp.relaxation import Relaxation
from hotnas_torch.gp.relaxed import RelaxedHOTNNGP

__all__ = ["RelaxedOptimum", "RelaxedSettings", "optimize_relaxed"]


@dataclass(frozen=True, slots=True)
class RelaxedOptimum:
    """What `optimize_relaxed` found.

    Attributes:
        networks: q networks, distinct and none to be avoided.
        value: Acquisition value of the networks together, from the model itself.
        num_evaluations: Architectures, relaxed or not, that acquisition functions were evaluated
            at.
    """

    networks: list[Network]
    value: float
    num_evaluations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaxedSettings:
    """How far `optimize_relaxed` searches.

    Attributes:
        raw_samples: Random networks that are scored first.
        num_restarts: Starts of L-BFGS; 0 leaves it out.
        max_iter: Iterations of L-BFGS.
        num_roundings: Networks drawn from each optimum of L-BFGS.
        num_climbs: Networks from which steps are made.
        num_neighbors: Changes that are scored per step.
        max_steps: Most steps of a climb, which ends earlier where no change is better.

    Raises:
        TypeError, ValueError: A number of the wrong kind or out of range.
    """

    raw_samples: int = 32
    num_restarts: int = 2
    max_iter: int = 5
    num_roundings: int = 4
    num_climbs: int = 3
    num_neighbors: int = 8
    max_steps: int = 10

    def __post_init__(self) -> None:
        for field in fields(self):
            needed = field.name in ("raw_samples", "max_iter", "num_neighbors")
            integer(field.name, getattr(self, field.name), least=int(needed))


@takes(*(field.name for field in fields(RelaxedSettings)))
def optimize_relaxed(
    model: HOTNNGP,
    acquisition: Callable[[Model], AcquisitionFunction],
    *,
    generator: torch.Generator,
    q: int = 1,
    avoid: Sequence[Network] = (),
    **settings: int,
) -> RelaxedOptimum:
    """Maximise an acquisition function by gradient over relaxed architectures, and round.

    Random networks are scored. From the best of them, softened towards all other values, L-BFGS
    climbs through the relaxation; what it finds is rounded to the most probable network and to
    networks drawn from its distribution. From the best of all these, steps follow between networks:
    the gradient at the network, slightly softened, says which changes of a single decision promise
    most, and the model itself scores those. Networks of a batch are found one after the other.

    Args:
        model: Fitted model of a space with a relaxation.
        acquisition: Builds the acquisition function for a model, as in `lambda m:
            qLogExpectedImprovement(m, best_f)`; called with `model` and with its relaxation.
        generator: Source of all randomness.
        q: Networks to find.
        avoid: Networks that are no answer, for example those evaluated already.
        **settings: `RelaxedSettings`, such as `raw_samples=64`.

    Returns:
        The networks with their acquisition value.

    Raises:
        TypeError, ValueError: The model or its space has no relaxation, see `RelaxedHOTNNGP`; a
            setting is unknown, of the wrong kind or out of range.

    Complexity: an evaluation costs one HOTNN distance per training network, relaxed or not.
    """
    kind("generator", generator, torch.Generator)
    integer("q", q, least=1)
    effort = RelaxedSettings(**settings)
    avoided = list(avoid)
    for net in avoided:
        kind("avoid", net, Network)
    relaxed = RelaxedHOTNNGP(model)
    search = _Search(
        model=model,
        relaxation=relaxed.relaxation,
        direct=acquisition(model),
        smooth=acquisition(relaxed),
        generator=generator,
    )
    search.seen.update(model.space.key(net) for net in avoided)
    chosen: list[Network] = []
    value = -torch.inf
    for _ in range(q):
        search.begin(chosen)
        search.score(model.space.sample(effort.raw_samples, generator=generator))
        if effort.num_restarts:
            search.score(search.ascend(effort.num_restarts, effort.max_iter, effort.num_roundings))
        for start in search.best(effort.num_climbs):
            search.climb(start, effort.num_neighbors, effort.max_steps)
        value, best = search.best(1)[0]
        chosen.append(best)
    return RelaxedOptimum(networks=chosen, value=value, num_evaluations=search.evaluations)


class _Search:
    """The state of `optimize_relaxed`: what has been scored, given what has been chosen.

    Args:
        model: The model of the networks.
        relaxation: Relaxation of its space.
        direct: Acquisition function of encoded rows.
        smooth: The same of relaxed rows.
        generator: Source of randomness.
    """

    def __init__(
        self,
        *,
        model: HOTNNGP,
        relaxation: Relaxation,
        direct: AcquisitionFunction,
        smooth: AcquisitionFunction,
        generator: torch.Generator,
    ) -> None:
        self.evaluations = 0
        self.seen: set[str] = set()
        self._model, self._relaxation = model, relaxation
        self._direct = direct
        self._smooth = _Pending(smooth)
        self._generator = generator
        self._scored: dict[str, tuple[float, Network]] = {}
        self._rows = model.train_inputs[0][:0]

    def begin(self, chosen: Sequence[Network]) -> None:
        """Start the search for another network beside those that are chosen."""
        space = self._model.space
        self.seen.update(space.key(net) for net in chosen)
        self._scored = {}
        self._rows = space.encode(chosen).to(self._rows)
        self._smooth.pending = self._relaxation.encode(chosen)

    def score(self, networks: Sequence[Network]) -> None:
        """Evaluate the acquisition function at networks that are new."""
        space = self._model.space
        by_key = {space.key(net): net for net in networks}
        known = self.seen | self._scored.keys()
        fresh = {key: net for key, net in by_key.items() if key not in known}
        if not fresh:
            return
        rows = space.encode(list(fresh.values())).to(self._rows).unsqueeze(1)
        pending = self._rows.expand(len(rows), *self._rows.shape)
        with torch.no_grad():
            values = self._direct(torch.cat([rows, pending], dim=1)).tolist()
        self.evaluations += len(fresh)
        for (key, net), value in zip(fresh.items(), values, strict=True):
            self._scored[key] = value, net

    def best(self, num: int) -> list[tuple[float, Network]]:
        """Return the best networks scored, with their values.

        Raises:
            ValueError: There is none: all that was met is to be avoided.
        """
        if not self._scored:
            raise ValueError(
                "every network that was met is to be avoided (raise raw_samples, or avoid less)"
            )
        return sorted(self._scored.values(), key=lambda entry: -entry[0])[:num]

    def ascend(self, num_restarts: int, max_iter: int, num_roundings: int) -> list[Network]:
        """Networks that L-BFGS through the relaxation leads to."""
        relaxation = self._relaxation
        starts = relaxation.encode([net for _, net in self.best(num_restarts)])
        with warnings.catch_warnings():
            # Where a distance jumps to another optimum a line search ends. What it has reached is
            # rounded, and judged by the model.
            warnings.filterwarnings("ignore", r"Optimization failed in `gen_candidates_scipy`")
            found, _ = optimize_acqf(
                self._smooth,
                bounds=relaxation.bounds,
                q=1,
                num_restarts=len(starts),
                batch_initial_conditions=_softened(relaxation, starts, 0.3).unsqueeze(1),
                options={"maxiter": max_iter},
                return_best_only=False,
            )
        self._count_smooth()
        rows = found.detach().squeeze(1)
        networks = relaxation.round(rows)
        for row in rows:
            networks += relaxation.sample(row, num_roundings, generator=self._generator)
        return networks

    def climb(self, start: tuple[float, Network], num_neighbors: int, max_steps: int) -> None:
        """Go from network to network, scoring the changes that the gradient recommends."""
        value, network = start
        for _ in range(max_steps):
            neighbors = self._promising(network, num_neighbors)
            self.score(neighbors)
            keys = {self._model.space.key(net) for net in neighbors}
            reached = [self._scored[key] for key in keys & self._scored.keys()]
            if not reached or max(reached, key=_value)[0] <= value:
                return
            value, network = max(reached, key=_value)

    def _promising(self, network: Network, num: int) -> list[Network]:
        """Networks one decision away, those first for which the slope is steepest."""
        relaxation = self._relaxation
        row = relaxation.encode([network])
        soft = _softened(relaxation, row, 0.1).requires_grad_()
        (slope,) = torch.autograd.grad(self._smooth(soft.unsqueeze(1)).sum(), soft)
        self._count_smooth()
        gains, changed = [], []
        first = 0
        for decision in relaxation.decisions:
            columns = range(first, first + decision.num_values)
            first += decision.num_values
            current = int(row[0, columns].argmax()) + columns.start
            for other in columns:
                if other != current:
                    gains.append(float(slope[0, other] - slope[0, current]))
                    changed.append((current, other))
        order = sorted(range(len(gains)), key=lambda place: -gains[place])[:num]
        rows = row.repeat(len(order), 1)
        for place, which in enumerate(order):
            current, other = changed[which]
            rows[place, current], rows[place, other] = 0.0, 1.0
        return relaxation.round(rows)

    def _count_smooth(self) -> None:
        self.evaluations += self._smooth.evaluations
        self._smooth.evaluations = 0


class _Pending(AcquisitionFunction):
    """An acquisition function of one row beside those that are chosen, with a count of rows."""

    def __init__(self, function: AcquisitionFunction) -> None:
        super().__init__(model=function.model)
        self.function = function
        self.pending: Tensor | None = None
        self.evaluations = 0

    def forward(self, X: Tensor) -> Tensor:
        self.evaluations += X.shape[:-2].numel()
        if self.pending is not None and len(self.pending):
            pending = self.pending.to(X).expand(*X.shape[:-2], *self.pending.shape)
            X = torch.cat([X, pending], dim=-2)
        values: Tensor = self.function(X)
        return values


def _value(scored: tuple[float, Network]) -> float:
    return scored[0]


def _softened(relaxation: Relaxation, rows: Tensor, share: float) -> Tensor:
    """Rows with a share of their weight spread evenly, which gives all values a gradient."""
    even = relaxation.probabilities(torch.ones_like(rows))
    return (1 - share) * rows + share * even
