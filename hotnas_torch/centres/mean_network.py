"""The mean of networks under a distance: the network of their space in the middle of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import choice, integer, kind
from hotnas_torch.centres.cell_barycenter import cell_barycenter, checked_weights
from hotnas_torch.distances import HOTNN, NetworkDistance

__all__ = ["MeanNetwork", "Within", "mean_network"]

Within = Literal["space", "given"]

_BARYCENTER_STARTS = 3
_DECODED = 3
"""Networks near a barycenter whose objective is computed."""

_RELAXED_STEPS = 40
_ROUNDED_EVERY = 8
_RELAXED_RATE = 0.3
_SOFT = 0.3
"""Share of the start that is spread over all values of a decision: zeros have no gradient."""


@dataclass(frozen=True, slots=True)
class MeanNetwork:
    """What `mean_network` found.

    Attributes:
        network: The network in the middle.
        objective: Weighted mean of the powers of its distances to the networks.
        distances: Its distances to them, shape (S,).
        medoid: Which of the given networks has the least objective among themselves.
    """

    network: Network
    objective: float
    distances: Tensor
    medoid: int


def mean_network(
    nets: Sequence[Network],
    *,
    metric: NetworkDistance,
    weights: Tensor | Sequence[float] | None = None,
    power: Literal[1, 2] = 2,
    within: Within = "space",
    num_starts: int = 4,
    max_steps: int = 50,
) -> MeanNetwork:
    r"""Find the network with the least weighted mean power of distances to some networks.

    .. math:: \min_x \; \sum_s w_s \, d(x, x_s)^p

    With p = 2 this is the Frechet mean, with p = 1 the median. Candidates are the given networks;
    in a space whose networks repeat one searched cell, those and neighbours of those that are
    nearest to the barycenter of the cells under iFGW (`cell_barycenter`); in a space with a
    relaxation, what a descent by gradient through relaxed architectures rounds to. From the best
    of each, steps to the best neighbour in the space follow while they lower the objective. So
    what is found is never worse than the medoid, and, within `max_steps`, no neighbour of it is
    better; the problem is not convex, and another network may be.

    Args:
        nets: S >= 1 networks.
        metric: Any distance.
        weights: S weights >= 0, not all of them 0; they are divided by their sum. None for equal
            ones.
        power: p, 1 or 2.
        within: `"space"` searches the metric's space; `"given"` returns the medoid.
        num_starts: From how many of the given networks steps are made, the best of them.
        max_steps: Most steps from each.

    Raises:
        TypeError: An argument of the wrong kind; the message names the index.
        ValueError: No networks, wrong weights, an option that is out of range, or a space without
            neighbours to search.
        ArchitectureError: A network of another space; the message names the index.

    Complexity: S^2 distances for the medoid, S times the number of neighbours for each step.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBench201()
        >>> nets = space.sample(4, generator=torch.Generator().manual_seed(0))
        >>> metric = ht.HOTNN(space=space)
        >>> found = ht.centres.mean_network(nets, metric=metric)
        >>> found.objective <= float(metric(nets).square().mean(1).min())
        True
    """
    kind("metric", metric, NetworkDistance)
    choice("power", power, (1, 2))
    choice("within", within, ("space", "given"))
    num_starts = integer("num_starts", num_starts, least=1)
    max_steps = integer("max_steps", max_steps, least=1)
    with torch.no_grad():
        checked = metric._check("nets", nets)
        shares = checked_weights(weights, len(checked))
        if within == "space":
            check_searched(metric, checked[0])
        search = _Search(metric, checked, shares, power)
        search.score(checked)
        values = torch.tensor([_value(search.scored_as(net)) for net in checked])
        if within == "space":
            starts = search.best(num_starts)
            for proposed in (_near_barycenter(search), _rounded(search)):
                search.score(proposed)
                starts += sorted(map(search.scored_as, proposed), key=_value)[:1]
            for start in starts:
                search.descend(start, max_steps)
        objective, network = search.best(1)[0]
        distances = metric([network], checked)[0]
    return MeanNetwork(network, objective, distances, int(values.argmin()))


def check_searched(metric: NetworkDistance, net: Network) -> None:
    """Raise unless the metric's space lists the neighbours of its networks."""
    remedy = "pass within='given' for the medoid"
    if metric.space is None:
        raise ValueError(f"metric must have a space to search in ({remedy}, or space= to it)")
    try:
        metric.space.neighbors(net)
    except ValueError as error:
        raise ValueError(f"the space of metric cannot be searched: {error} ({remedy})") from error


_Scored = tuple[float, Network]


def _value(scored: _Scored) -> float:
    return scored[0]


class _Search:
    """What a mean is sought with: the objective, and the networks that it is known of."""

    def __init__(
        self, metric: NetworkDistance, nets: list[Network], shares: Tensor, power: int
    ) -> None:
        some = shares > 0
        self.metric = metric
        self.nets = [net for net, kept in zip(nets, some.tolist(), strict=True) if kept]
        self.shares, self.power = shares[some], power
        self.scored: dict[str, _Scored] = {}

    def name(self, net: Network) -> str:
        """Return what equal networks share."""
        return net.key if self.metric.space is None else self.metric._identity(net)

    def values(self, nets: Sequence[Network]) -> Tensor:
        """Objectives of networks, shape (X,), float64."""
        distances = self.metric(nets, self.nets).double().cpu()
        return distances.pow(self.power) @ self.shares

    def score(self, nets: Sequence[Network]) -> None:
        """Evaluate networks that are new."""
        new = {self.name(net): net for net in nets if self.name(net) not in self.scored}
        if new:
            values = self.values(list(new.values())).tolist()
            self.scored |= dict(zip(new, zip(values, new.values(), strict=True), strict=True))

    def best(self, num: int) -> list[_Scored]:
        """Return the best networks so far, the earlier one of equal ones first."""
        return sorted(self.scored.values(), key=_value)[:num]

    def scored_as(self, net: Network) -> _Scored:
        """Return the objective of a network that has been scored, and the network."""
        return self.scored[self.name(net)]

    def descend(self, start: _Scored, max_steps: int) -> None:
        """Step to the best neighbour while that is better."""
        value, net = start
        for _ in range(max_steps):
            around = self.metric.space.neighbors(net)
            self.score(around)
            found = min(map(self.scored_as, around), key=_value, default=start)
            if not _value(found) < value:
                return
            value, net = found


def _near_barycenter(search: _Search) -> list[Network]:
    """Return the networks and neighbours of them nearest to the barycenter of their cells.

    One distance for each of them, not one for each of them and each network.
    """
    metric = search.metric
    if not isinstance(metric, HOTNN) or not metric.space.repeats_one_cell:
        return []
    try:
        middle = cell_barycenter(
            [net.cells[0] for net in search.nets],
            metric=metric.ifgw,
            weights=search.shares,
            num_starts=_BARYCENTER_STARTS,
        )
    except ValueError:  # costs along no tree, or pairs in an order
        return []
    space = metric.space
    around = [near for net in search.nets for near in (net, *space.neighbors(net))]
    distinct = list({space.key(net): net for net in around}.values())
    order = middle.distances([net.cells[0] for net in distinct]).argsort(stable=True)
    return [distinct[place] for place in order[:_DECODED].tolist()]


def _rounded(search: _Search) -> list[Network]:
    """Return what descent through relaxed architectures rounds to, if the space has any."""
    # Gaussian processes, which relaxations come with, are loaded when one is needed.
    from hotnas_torch.gp.relaxation import relaxation_of
    from hotnas_torch.gp.relaxed_distances import RelaxedDistances

    if not isinstance(search.metric, HOTNN):
        return []
    try:
        relaxation = relaxation_of(search.metric.space)
        distances = RelaxedDistances(search.metric, search.nets, relaxation)
    except (TypeError, ValueError):  # a space without a relaxation, or pairs in an order
        return []
    rows = relaxation.encode(search.nets)
    mean = (search.shares[:, None] * rows).sum(0, keepdim=True)
    sizes = [decision.num_values for decision in relaxation.decisions]
    even = torch.cat([torch.full((1, size), 1 / size) for size in sizes], dim=1)
    logits = ((1 - _SOFT) * mean + _SOFT * even).log().requires_grad_()
    shares = search.shares
    optimizer = torch.optim.Adam([logits], lr=_RELAXED_RATE)
    found = relaxation.round(logits.detach().exp())
    with torch.enable_grad():
        for step in range(1, _RELAXED_STEPS + 1):
            optimizer.zero_grad()
            row = torch.cat([part.softmax(-1) for part in logits.split(sizes, dim=1)], dim=1)
            loss = distances(row)[0].double().cpu().pow(search.power) @ shares
            loss.backward()
            optimizer.step()
            if step % _ROUNDED_EVERY == 0:
                found += relaxation.round(row.detach())
    return list({search.metric.space.key(net): net for net in found}.values())
