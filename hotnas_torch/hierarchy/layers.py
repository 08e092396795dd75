"""Architectures as choices per layer, and the tree that makes them one layer after the other."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.hierarchy.flat import check_codes
from hotnas_torch.hierarchy.tree import ArchitectureTree
from hotnas_torch.spaces import SearchSpace

__all__ = ["layer_operations", "layer_tree", "layer_vectors"]


def layer_operations(space: SearchSpace, nets: Sequence[Network]) -> Tensor:
    """Return which operation each network has in each layer.

    These are the columns of `space.encode`, except for pooling positions, where a layer's
    operation is to pool or not.

    Args:
        space: Search space of the networks.
        nets: N networks.

    Returns:
        (N, L) int64.

    Raises:
        ArchitectureError: A network is not of the space.

    Example:
        >>> from hotnas_torch.spaces import Pooling
        >>> space = Pooling()
        >>> layer_operations(space, [space.from_string("[7,1,2]")]).tolist()
        [[0, 0, 0, 0, 0, 0, 1, 1, 0]]
    """
    vectors = layer_vectors(space, nets)
    if space.name != "pooling":
        return vectors
    return vectors[:, 1:] - vectors[:, :-1]


def layer_vectors(space: SearchSpace, nets: Sequence[Network]) -> Tensor:
    """Return the categorical vector of each network, a number per layer.

    As `layer_operations`, except for pooling positions, where it holds how often each layer's
    resolution has been halved.

    Args:
        space: Search space of the networks.
        nets: N networks.

    Returns:
        (N, L) int64.

    Raises:
        ArchitectureError: A network is not of the space.

    Example:
        >>> from hotnas_torch.spaces import Pooling
        >>> space = Pooling()
        >>> layer_vectors(space, [space.from_string("[7,1,2]")]).tolist()
        [[0, 0, 0, 0, 0, 0, 0, 1, 2, 2]]
    """
    rows = space.encode(nets)
    if space.name != "pooling":
        return rows.long()
    return torch.tensor([net.downsampling for net in nets]).log2().round().long()


def layer_tree(codes: Tensor, *, order: Sequence[int] | None = None) -> ArchitectureTree:
    """Build the default tree: the first layer's choice first, then the second's, and so on.

    Where all architectures below a node agree on a layer, there is no choice and no node.
    Architectures with equal codes are leaves of one last node. Nodes of one `group` choose the
    same in the same layer.

    Args:
        codes: (N, L) integers, what each architecture chooses in each layer.
        order: In which order the layers branch, a permutation of 0..L-1; default as they stand.

    Raises:
        TypeError: `codes` holds no integers.
        ValueError: `codes` is no matrix, or `order` no permutation of its columns.

    Complexity: O(L N log N).

    Example:
        >>> tree = layer_tree(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]))
        >>> tree.architecture.tolist(), tree.group.tolist()
        ([-1, -1, -1, 0, 1, 2, 3], [-1, 0, 1, 2, 3, 2, 3])
    """
    codes = check_codes(codes)
    num, num_layers = codes.shape
    layers = list(range(num_layers)) if order is None else list(order)
    if sorted(layers) != list(range(num_layers)):
        raise ValueError(f"order must hold each of the {num_layers} layers once; got {layers}")
    parents, groups = [torch.tensor([-1])], [torch.tensor([-1])]
    num_nodes, num_groups = 1, 0
    node = torch.zeros(num, dtype=torch.int64)
    for layer in layers:
        values, choice = codes[:, layer].unique(return_inverse=True)
        # A branch is a node with one of its choices.
        branches, branch = (node * len(values) + choice).unique(return_inverse=True)
        above = branches // len(values)
        splits = torch.bincount(above, minlength=num_nodes)[above] > 1
        place = torch.where(splits, num_nodes - 1 + splits.cumsum(0), above)
        parents.append(above[splits])
        groups.append(num_groups + (branches % len(values))[splits])
        node = place[branch]
        num_nodes += int(splits.sum())
        num_groups += len(values)
    architecture = torch.full((num_nodes,), -1)
    alone = torch.bincount(node, minlength=num_nodes)[node] == 1
    architecture[node[alone]] = alone.nonzero().flatten()
    shared = node[~alone]
    return ArchitectureTree.from_parents(
        torch.cat([*parents, shared]),
        torch.cat([architecture, (~alone).nonzero().flatten()]),
        group=torch.cat([*groups, torch.full_like(shared, -1)]),
    )
