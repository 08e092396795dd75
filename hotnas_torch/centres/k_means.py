"""k-means of architectures: clusters under any distance, whose centres are networks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import choice, integer, kind, random_generator
from hotnas_torch.centres.mean_network import Within, check_searched, mean_network
from hotnas_torch.distances import NetworkDistance
from hotnas_torch.matrices import k_medoids

__all__ = ["Clusters", "k_means"]


@dataclass(frozen=True, slots=True)
class Clusters:
    """What `k_means` found.

    Attributes:
        networks: The k centres, distinct; `space.encode(clusters.networks)` are landmarks for a
            kernel.
        assigned: Which centre is nearest to each network, shape (N,), int64.
        distances: Distance of each network to its centre, shape (N,).
        objective: Sum of their squares.
        iterations: Rounds in which centres moved.
    """

    networks: list[Network]
    assigned: Tensor
    distances: Tensor
    objective: float
    iterations: int


def k_means(
    nets: Sequence[Network],
    num: int,
    *,
    metric: NetworkDistance,
    generator: torch.Generator,
    within: Within = "space",
    max_iter: int = 10,
) -> Clusters:
    r"""Divide networks into clusters, each around a network in its middle.

    .. math:: \min_{c_1 \dots c_k} \; \sum_s \min_j d(c_j, x_s)^2

    Seeds and first clusters are those of `hotnas_torch.matrices.k_medoids`, whose centres are among
    the networks. Then, with `within="space"`, centres become the mean networks of their clusters
    and networks go to their nearest centre, in turns. The objective never rises; where it ends is a
    local optimum.

    Args:
        nets: N >= 1 networks.
        num: Clusters k, 1 <= k <= N; there are fewer where fewer networks are distinct, or a
            cluster runs empty.
        metric: Any distance.
        generator: Source of all randomness.
        within: Where centres come from: the metric's space, or the networks given.
        max_iter: Most rounds of each kind.

    Raises:
        TypeError: An argument of the wrong kind; the message names the index.
        ValueError: No networks, `num` or an option out of range, or a space that cannot be
            searched.
        ArchitectureError: A network of another space; the message names the index.

    Complexity: N^2 / 2 distances once, and per round a `mean_network` of each cluster that changed.
        Of more networks than a matrix can hold, `hotnas_torch.matrices.k_medoids` finds medoids.

    Example:
        >>> import hotnas_torch as ht
        >>> space = ht.spaces.NASBenchMacro()
        >>> generator = torch.Generator().manual_seed(0)
        >>> nets = space.sample(30, generator=generator)
        >>> metric = ht.HOTNN(space=space)
        >>> found = ht.centres.k_means(nets, 4, metric=metric, generator=generator)
        >>> kernel = ht.gp.DistanceKernel(metric, landmarks=space.encode(found.networks))
        >>> kernel.landmarks.shape
        torch.Size([4, 8])
    """
    kind("metric", metric, NetworkDistance)
    choice("within", within, ("space", "given"))
    num = integer("num", num, least=1)
    max_iter = integer("max_iter", max_iter, least=0)
    generator = random_generator(generator)
    checked = metric._check("nets", nets)
    if num > len(checked):
        raise ValueError(f"num must be at most the {len(checked)} networks; got {num}")
    if within == "space":
        check_searched(metric, checked[0])
    with torch.no_grad():
        between = metric(checked).cpu()
        seeds = k_medoids(
            lambda rows, cols: between[rows[:, None], cols],
            len(checked),
            num,
            generator=generator,
            max_iter=max_iter,
        )
        centres = [checked[place] for place in seeds.indices.tolist()]
        found = _clusters(centres, seeds.distances, seeds.assigned, 0)
        if within == "given":
            return found
        settled: set[tuple[int, ...]] = set()
        for round_number in range(1, max_iter + 1):
            moved = [
                _centre(checked, found, place, metric, settled)
                for place in range(len(found.networks))
            ]
            if all(new is old for new, old in zip(moved, found.networks, strict=True)):
                break
            distances, assigned = metric(checked, moved).cpu().min(dim=1)
            better = _clusters(moved, distances, assigned, round_number)
            if not better.objective < found.objective:
                break
            found = better
    return found


def _centre(
    nets: list[Network],
    found: Clusters,
    place: int,
    metric: NetworkDistance,
    settled: set[tuple[int, ...]],
) -> Network:
    """Return the mean network of a cluster, or its centre where that is no worse."""
    members = (found.assigned == place).nonzero().squeeze(1)
    name = tuple(members.tolist())
    if name in settled:
        return found.networks[place]
    settled.add(name)
    mean = mean_network([nets[item] for item in name], metric=metric)
    least = float(found.distances[members].double().square().mean())
    return mean.network if mean.objective < least else found.networks[place]


def _clusters(
    networks: list[Network], distances: Tensor, assigned: Tensor, iterations: int
) -> Clusters:
    """Return clusters without the empty ones."""
    used, places = torch.unique(assigned, return_inverse=True)
    kept = [networks[place] for place in used.tolist()]
    return Clusters(kept, places, distances, float(distances.double().square().sum()), iterations)
