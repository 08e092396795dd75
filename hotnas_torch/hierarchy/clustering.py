"""Hierarchies by agglomerative clustering: architectures that are alike share a branch."""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from torch import Tensor

from hotnas_torch.arguments import choice, integer, kind
from hotnas_torch.hierarchy.balanced import halving_tree
from hotnas_torch.hierarchy.tree import ArchitectureTree

__all__ = ["Linkage", "cluster", "cluster_sample", "linkage_tree"]

Linkage = Literal["average", "complete", "single", "weighted", "ward"]

_CHECKED = 256
_TOLERANCE = 1e-6
_BLOCK = 2**24


def linkage_tree(links: npt.ArrayLike) -> ArchitectureTree:
    """Take a binary tree from scipy's linkage matrix, heights and order of leaves included.

    Args:
        links: (N - 1, 4), see `scipy.cluster.hierarchy.linkage`.

    Raises:
        ValueError: It is no valid linkage.

    Complexity: O(N log N).

    Example:
        >>> linkage_tree([[0, 1, 1.0, 2], [2, 3, 4.0, 3]]).path(2)
        [0, 1]
    """
    links = np.asarray(links, dtype=np.float64)
    hierarchy.is_valid_linkage(links, throw=True, name="links")
    num = len(links) + 1
    size = 2 * num - 1
    early = (links[:, :2] >= np.arange(num, size)[:, None]).any(axis=1)
    if early.any():
        raise ValueError(f"links[{early.argmax()}] must join two clusters that exist by then")
    parent = np.full(size, -1)
    parent[links[:, :2].astype(np.int64)] = np.arange(num, size)[:, None]
    # Children keep scipy's order: by the first leaf below them.
    place = np.empty(size, dtype=np.int64)
    place[hierarchy.leaves_list(links)] = np.arange(num)
    for merge, (left, right) in enumerate(links[:, :2].astype(np.int64)):
        place[num + merge] = min(place[left], place[right])
    order = np.argsort(place, kind="stable")
    number = np.empty(size, dtype=np.int64)
    number[order] = np.arange(size)
    above = parent[order]
    return ArchitectureTree.from_parents(
        np.where(above < 0, -1, number[above]),
        np.where(order < num, order, -1),
        height=np.concatenate([np.zeros(num), links[:, 2]])[order],
    )


def cluster(
    distances: Tensor, *, linkage: Linkage = "average", check_euclidean: bool = True
) -> ArchitectureTree:
    """Learn a binary tree from distances, by agglomerative clustering.

    Args:
        distances: (N, N), symmetric, finite, >= 0, zero diagonal; any dtype and device.
        linkage: Distance between clusters, as in `scipy.cluster.hierarchy.linkage`; `"ward"`
            is meant for Euclidean distances only.
        check_euclidean: Refuse to use `"ward"` where 256 architectures, evenly spaced, show that
            the distances are not Euclidean.

    Returns:
        The tree; the height of a node is the distance at which its two parts were joined.

    Raises:
        TypeError: `distances` is no tensor.
        ValueError: It is no such matrix, the linkage is unknown, or see `check_euclidean`.

    Complexity: O(N^2) time and memory on the CPU, in float64.

    Example:
        >>> points = torch.tensor([0.0, 1.0, 5.0])
        >>> tree = cluster((points[:, None] - points).abs())
        >>> [tree.below(child).tolist() for child in tree.children(0)], float(tree.height[0])
        ([[2], [0, 1]], 4.5)
    """
    choice("linkage", linkage, get_args(Linkage))
    matrix = _checked(distances)
    if linkage == "ward" and check_euclidean:
        _check_euclidean(matrix)
    if len(matrix) == 1:
        return halving_tree(torch.tensor([0]))
    return linkage_tree(hierarchy.linkage(squareform(matrix, checks=False), linkage))


def cluster_sample(
    num_architectures: int,
    distances: Callable[[Tensor, Tensor], Tensor],
    *,
    generator: torch.Generator,
    max_leaves: int = 20_000,
    linkage: Linkage = "average",
    check_euclidean: bool = True,
) -> ArchitectureTree:
    """Learn a tree of more architectures than a distance matrix can hold.

    Up to `max_leaves` architectures, all are clustered as by `cluster`. Of more,
    `max_leaves` are drawn at random and clustered. Every other architecture belongs to its
    nearest one of these (of equally near ones, to that of the lowest index), which it joins below
    the leaf: there the nearest one and all that belong to it are clustered among themselves.

    Args:
        num_architectures: Number N of architectures, >= 1.
        distances: Returns the distances (A, B) between the architectures of two index vectors (A,)
            and (B,), for example by `hotnn([nets[i] for i in a], [nets[j] for j in b])`.
        generator: Source of randomness; draws only where N exceeds `max_leaves`.
        max_leaves: How many are clustered at once, >= 2.
        linkage: Distance between clusters, as in `scipy.cluster.hierarchy.linkage`.
        check_euclidean: Refuse to use `"ward"` where samples show that the distances are not
            Euclidean.

    Returns:
        A tree of all N; the height of a node is at most that of the node above.

    Raises:
        ValueError: A number out of range, or an error of `cluster`.

    Complexity: O(N max_leaves) distances and O(max_leaves^2) memory.

    Example:
        >>> points = torch.tensor([0.0, 0.1, 5.0, 5.1, 9.0])
        >>> tree = cluster_sample(
        ...     5,
        ...     lambda a, b: (points[a][:, None] - points[b]).abs(),
        ...     generator=torch.Generator().manual_seed(0),
        ...     max_leaves=2,
        ... )
        >>> tree.num_architectures
        5
    """
    for argument, value, least in (
        ("num_architectures", num_architectures, 1),
        ("max_leaves", max_leaves, 2),
    ):
        integer(argument, value, least=least)
    everything = torch.arange(num_architectures)
    options = {"linkage": linkage, "check_euclidean": check_euclidean}

    def among(members: Tensor) -> ArchitectureTree:
        return cluster(distances(members, members), **options)  # type: ignore[arg-type]

    if num_architectures <= max_leaves:
        return among(everything)
    drawn = torch.randperm(num_architectures, generator=generator, device=generator.device).cpu()
    sample = drawn[:max_leaves].sort().values
    others = drawn[max_leaves:].sort().values
    nearest = torch.cat(
        [
            _first_nearest(distances(block, sample))
            for block in others.split(max(1, _BLOCK // max_leaves))
        ]
    )
    top = among(sample)
    architecture, height = top.architecture.clone(), top.height.clone()
    architecture[top.leaf] = sample
    parents, architectures, heights = [top.parent], [architecture], [height]
    num_nodes = top.num_nodes
    by_place = nearest.argsort(stable=True)
    places, counts = nearest[by_place].unique_consecutive(return_counts=True)
    for place, members in zip(
        places.tolist(), others[by_place].split(counts.tolist()), strict=True
    ):
        group = torch.cat([sample[place : place + 1], members])
        root = int(top.leaf[place])
        # A group that is a large share of everything is itself too large for one matrix.
        below = cluster_sample(
            len(group),
            lambda a, b, group=group: distances(group[a], group[b]),  # type: ignore[misc]
            generator=generator,
            max_leaves=max_leaves,
            **options,  # type: ignore[arg-type]
        )
        architecture[root] = -1
        height[root] = torch.minimum(below.height[0], height[top.parent[root]])
        number = torch.cat([torch.tensor([root]), num_nodes + torch.arange(below.num_nodes - 1)])
        parents.append(number[below.parent[1:]])
        leaves = below.architecture[1:]
        architectures.append(torch.where(leaves < 0, -1, group[leaves.clamp_min(0)]))
        heights.append(below.height[1:].minimum(height[root]))
        num_nodes += below.num_nodes - 1
    return ArchitectureTree.from_parents(
        torch.cat(parents), torch.cat(architectures), height=torch.cat(heights)
    )


def _first_nearest(distances: Tensor) -> Tensor:
    """Return the column of each row's smallest entry, the first of equal ones, on the CPU."""
    nearest = distances == distances.min(dim=1, keepdim=True).values
    return nearest.int().argmax(dim=1).cpu()


def _checked(distances: Tensor) -> npt.NDArray[np.float64]:
    kind("distances", distances, Tensor)
    if distances.dim() != 2 or distances.shape[0] != distances.shape[1] or not len(distances):
        raise ValueError(f"distances must have shape (N, N); got {tuple(distances.shape)}")
    matrix: npt.NDArray[np.float64] = distances.detach().cpu().double().numpy()
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        raise ValueError("distances must be finite and >= 0")
    scale = _TOLERANCE * max(float(matrix.max()), 1e-300)
    if np.abs(np.diagonal(matrix)).max() > scale:
        raise ValueError("distances must have a zero diagonal")
    if np.abs(matrix - matrix.T).max() > scale:
        raise ValueError("distances must be symmetric (pass (D + D.T) / 2)")
    return matrix


def _check_euclidean(matrix: npt.NDArray[np.float64]) -> None:
    shown = np.unique(np.linspace(0, len(matrix) - 1, _CHECKED).round().astype(np.int64))
    squared = matrix[np.ix_(shown, shown)] ** 2
    # Schoenberg: the doubly centred squares are positive semi-definite.
    gram = -0.5 * (squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean())
    spectrum = np.linalg.eigvalsh(gram)
    if spectrum[0] < -_TOLERANCE * spectrum[-1]:
        raise ValueError(
            "linkage='ward' is defined for Euclidean distances, and these are not (smallest over "
            f"largest eigenvalue {spectrum[0] / spectrum[-1]:.2g}); pass linkage='average', or "
            "check_euclidean=False to use it all the same"
        )
