"""Trees that look at no architecture: halves of an order, and a single node."""

import torch
from torch import Tensor

from hotnas_torch.arguments import integer
from hotnas_torch.hierarchy.tree import ArchitectureTree

__all__ = ["accuracy_tree", "flat_tree", "halving_tree", "random_tree"]


def halving_tree(order: Tensor) -> ArchitectureTree:
    """Build a balanced binary tree by halving an order again and again.

    Args:
        order: (N,) int64, a permutation of 0..N-1; of an odd number the first half is the larger.

    Raises:
        TypeError: `order` is no tensor of integers.
        ValueError: It is no permutation.

    Complexity: O(N log N).

    Example:
        >>> halving_tree(torch.tensor([2, 0, 1])).path(2)
        [0, 1, 3]
    """
    if not isinstance(order, Tensor) or order.is_floating_point():
        raise TypeError("order must be a tensor of integers")
    if order.dim() != 1 or not torch.equal(order.sort().values, torch.arange(len(order))):
        raise ValueError(f"order must hold each of 0..{len(order) - 1} once")
    parents, architectures = [torch.tensor([-1])], []
    num_nodes = 1
    # Per node of the present level its part of the order.
    node = torch.tensor([0])
    first, size = torch.tensor([0]), torch.tensor([len(order)])
    while len(node):
        inner = size > 1
        architectures.append(torch.where(inner, -1, order[first.clamp_max(len(order) - 1)]))
        node, first, size = node[inner], first[inner], size[inner]
        left = (size + 1) // 2
        parents.append(node.repeat_interleave(2))
        first = torch.stack([first, first + left], dim=1).flatten()
        size = torch.stack([left, size - left], dim=1).flatten()
        node = num_nodes + torch.arange(len(size))
        num_nodes += len(size)
    return ArchitectureTree.from_parents(torch.cat(parents), torch.cat(architectures))


def random_tree(num_architectures: int, *, generator: torch.Generator) -> ArchitectureTree:
    """Build a balanced binary tree over a random order.

    Args:
        num_architectures: Number N of leaves, >= 1.
        generator: Source of randomness.

    Raises:
        ValueError: `num_architectures` is below 1.
    """
    integer("num_architectures", num_architectures, least=1)
    order = torch.randperm(num_architectures, generator=generator, device=generator.device)
    return halving_tree(order.cpu())


def accuracy_tree(values: Tensor) -> ArchitectureTree:
    """Build a balanced binary tree that splits each node into its better and its worse half.

    With the accuracies of a supernet this is the partition that the paper compares with; with the
    true ones it is an oracle that no search has.

    Args:
        values: (N,) finite numbers, larger is better; of equal ones the first counts as better.

    Raises:
        ValueError: `values` is no vector of finite numbers.

    Reference: "Neural Architecture Search by Learning a Hierarchical Search Space", 2025,
        Section 5.2.

    Example:
        >>> accuracy_tree(torch.tensor([0.1, 0.9, 0.5])).order
        tensor([1, 2, 0])
    """
    if values.dim() != 1 or not len(values) or not values.isfinite().all():
        raise ValueError("values must be a vector of finite numbers, one per architecture")
    return halving_tree(values.cpu().argsort(descending=True, stable=True))


def flat_tree(num_architectures: int) -> ArchitectureTree:
    """Build the tree without a hierarchy: every architecture is a child of the root.

    Args:
        num_architectures: Number N of leaves, >= 1.

    Raises:
        ValueError: `num_architectures` is below 1.
    """
    integer("num_architectures", num_architectures, least=1)
    if num_architectures == 1:
        return halving_tree(torch.tensor([0]))
    parent = torch.zeros(num_architectures + 1, dtype=torch.int64)
    parent[0] = -1
    return ArchitectureTree.from_parents(parent, torch.arange(-1, num_architectures))
