"""Random rooted trees with architectures at their leaves."""

import torch

from hotnas_torch.hierarchy import ArchitectureTree


def random_parents(num_leaves: int, generator: torch.Generator) -> tuple[list[int], list[int]]:
    """Parents and architectures of a tree of 1 to 4 children per node, in no particular order."""

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    parent, leaves = [-1], [0]
    while len(leaves) < num_leaves:
        grown = leaves.pop(draw(len(leaves)))
        for _ in range(1 + draw(4)):
            leaves.append(len(parent))
            parent.append(grown)
    architecture = [-1] * len(parent)
    for leaf, place in zip(
        leaves, torch.randperm(len(leaves), generator=generator).tolist(), strict=True
    ):
        architecture[leaf] = place
    # Any numbering: nodes are shuffled.
    order = torch.randperm(len(parent), generator=generator).tolist()
    number = {old: new for new, old in enumerate(order)}
    return (
        [-1 if parent[old] < 0 else number[parent[old]] for old in order],
        [architecture[old] for old in order],
    )


def random_shape(num_leaves: int, generator: torch.Generator) -> ArchitectureTree:
    """A tree of random shape."""
    return ArchitectureTree.from_parents(*random_parents(num_leaves, generator))
