"""Landmarks: few items that stand for many, chosen by distances alone.

A kernel on a million architectures has no full matrix. With m landmarks it needs the distances of
all to these, and the features of `hotnas_torch.gp.psd` do the rest. Distances here may be those of
any items: a function of row and column numbers, such as `GramStore.block`, gives them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Landmarks", "farthest_points", "k_medoids"]

Block = Callable[[Tensor, Tensor], Tensor]
"""Distances, shape (r, c), between items of the given numbers, (r,) and (c,), int64."""


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Chosen items, and how far the others are from them.

    Attributes:
        indices: The landmarks in the order of choice, shape (m,), int64.
        assigned: Place among the landmarks of each item's nearest one, shape (X,), int64.
        distances: Distance of each item to its nearest landmark, shape (X,).
    """

    indices: Tensor
    assigned: Tensor
    distances: Tensor

    @property
    def radius(self) -> float:
        """Largest distance of an item to its nearest landmark."""
        return float(self.distances.max())


def farthest_points(
    block: Block, num_items: int, num: int, *, generator: torch.Generator
) -> Landmarks:
    """Start anywhere, then always add the item that is farthest from what is there.

    Args:
        block: Distances.
        num_items: Items X, numbered from 0.
        num: Landmarks m, 1 <= m <= X; fewer are chosen if no other item is at a distance > 0.
        generator: Chooses the first one.

    Raises:
        ValueError: `num` out of range.

    Complexity: m X distances. The radius is at most twice the smallest possible.

    Reference: Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.
    """
    return _grow(block, num_items, num, generator, lambda distances: int(distances.argmax()))


def k_medoids(
    block: Block,
    num_items: int,
    num: int,
    *,
    generator: torch.Generator,
    max_iter: int = 10,
    sample: int = 512,
) -> Landmarks:
    """k-means where only distances are known: centres are items.

    Seeds are drawn one after the other with probability proportional to the squared distance from
    those before (k-means++). Then items go to their nearest centre and centres to the item of
    their cluster with the least sum of squared distances, until nothing changes.

    Args:
        block: Distances.
        num_items: Items X, numbered from 0.
        num: Landmarks m, 1 <= m <= X; fewer are chosen if no other item is at a distance > 0.
        generator: Source of all randomness.
        max_iter: Most rounds after the seeds, >= 0.
        sample: Of larger clusters, as many items are compared with as many others.

    Raises:
        ValueError: An argument out of range.

    Complexity: m X distances for the seeds, and in each round again, with up to
        X min(sample, X / m) within clusters.

    Reference: Arthur and Vassilvitskii, "k-means++", SODA 2007; Park and Jun, "A simple and fast
        algorithm for K-medoids clustering", 2009.
    """
    if max_iter < 0 or sample < 1:
        raise ValueError(
            f"max_iter must be >= 0 and sample >= 1; got max_iter={max_iter}, sample={sample}"
        )

    def draw(distances: Tensor) -> int:
        weights = distances.double().square()
        # torch.multinomial takes at most 2^24 weights; a threshold in the running sum has no limit.
        total = weights.cumsum(0)
        at = torch.rand((), dtype=torch.float64, generator=generator) * total[-1]
        return int(torch.searchsorted(total, at, right=True).clamp_max(len(total) - 1))

    found = _grow(block, num_items, num, generator, draw)
    everyone = torch.arange(num_items)
    for _ in range(max_iter):
        moved = found.indices.clone()
        for place in range(len(moved)):
            members = torch.nonzero(found.assigned == place).squeeze(1)
            moved[place] = _centre(block, members, sample, generator)
        if torch.equal(moved, found.indices):
            break
        distances, assigned = _nearest(block, everyone, moved)
        if float(distances.square().sum()) >= float(found.distances.square().sum()):
            break
        found = Landmarks(moved, assigned, distances)
    return found


def _grow(
    block: Block,
    num_items: int,
    num: int,
    generator: torch.Generator,
    choose: Callable[[Tensor], int],
) -> Landmarks:
    """Add landmarks one by one, the next chosen by all distances to the nearest so far."""
    if not 1 <= num <= num_items:
        raise ValueError(f"num must be between 1 and the {num_items} items; got {num}")
    everyone = torch.arange(num_items)
    chosen = [int(torch.randint(num_items, (), generator=generator))]
    distances = block(torch.tensor(chosen), everyone)[0].clone()
    assigned = torch.zeros(num_items, dtype=torch.int64)
    while len(chosen) < num and bool(distances.max() > 0):
        chosen.append(choose(distances))
        new = block(torch.tensor(chosen[-1:]), everyone)[0]
        nearer = new < distances
        assigned[nearer] = len(chosen) - 1
        distances = torch.where(nearer, new, distances)
    return Landmarks(torch.tensor(chosen), assigned, distances)


def _centre(block: Block, members: Tensor, sample: int, generator: torch.Generator) -> int:
    """Return the member with the least squared distances to the others, of a sample if many."""
    candidates = others = members
    if len(members) > sample:
        candidates, others = (
            members[torch.randperm(len(members), generator=generator)[:sample]].sort().values
            for _ in range(2)
        )
    sums = block(candidates, others).square().sum(1)
    return int(candidates[int(sums.argmin())])


def _nearest(block: Block, items: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to and place of the nearest landmark of each item."""
    best = block(landmarks[:1], items)[0].clone()
    place = torch.zeros(len(items), dtype=torch.int64)
    for index in range(1, len(landmarks)):
        new = block(landmarks[index : index + 1], items)[0]
        nearer = new < best
        place[nearer] = index
        best = torch.where(nearer, new, best)
    return best, place
