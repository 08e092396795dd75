"""Default operation trees: operations grouped into families, similar ones close together."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from torch import Tensor

from hotnas_torch.arch import Operation, OperationTree
from hotnas_torch.errors import ArchitectureError

__all__ = ["SIMILAR_HEIGHT", "family_tree", "flat_tree", "weighing_numbers"]

SIMILAR_HEIGHT = 0.05
"""Half the cost of exchanging two similar operations: the HOTNAS poster prints Conv3-Conv1 0.1."""

_RELATED_HEIGHT = 0.2
_ROOT = "operation"
_ROOT_HEIGHT = 1.0

Families: TypeAlias = "Mapping[str, Families | None]"


def family_tree(families: Families) -> OperationTree:
    """Build the tree in which operations of one family are close and all others 2 apart.

    Every leaf is at depth 1 below the root, so the cost of exchanging two operations is twice the
    height of their lowest common ancestor: 0.1 inside a family (height 0.05), 0.4 between the
    sub-families of a family (height 0.2), 2 otherwise. These are path lengths in a tree, hence the
    operation cost D of HOTNAS, with the values of its poster.

    Args:
        families: Name -> None for an operation, or -> its members for a family; at most two levels
            of families. All names distinct.

    Example:
        >>> tree = family_tree({"conv": {"conv1": None, "conv3": None}, "skip": None})
        >>> tree.labels, round(tree.distance_matrix().max().item(), 6)
        (('conv1', 'conv3', 'skip'), 2.0)
    """
    parents: dict[str, str | None] = {_ROOT: None}
    lengths: dict[str, float] = {}

    def add(name: str, members: "Families | None", parent: str, parent_height: float) -> None:
        height = _height(members)
        parents[name] = parent
        lengths[name] = parent_height - height
        for member, below in (members or {}).items():
            add(member, below, name, height)

    for name, members in families.items():
        add(name, members, _ROOT, _ROOT_HEIGHT)
    return OperationTree(parents, lengths)


def flat_tree(labels: Iterable[str]) -> OperationTree:
    """Build the tree in which all kinds of operations are 2 apart.

    Numbers that labels carry (`arch.Operation`) add half a step each at most: they all have the
    weight 1.

    Args:
        labels: Labels of operations, repeats allowed.

    Example:
        >>> flat_tree(("input", "conv", "pool", "output")).distance_matrix()[1].tolist()
        [2.0, 0.0, 2.0, 2.0]
        >>> numbered = flat_tree(("input", "conv[kernel=1]", "conv[kernel=4]", "output"))
        >>> numbered.distance_matrix(["conv[kernel=1]", "conv[kernel=4]"])[0].tolist()
        [0.0, 0.5]
    """
    labels = tuple(labels)
    kinds = dict.fromkeys(found.kind if found else label for label, found in _read(labels))
    return weighing_numbers(family_tree(kinds), labels)


def weighing_numbers(tree: OperationTree, labels: Iterable[str]) -> OperationTree:
    """Return a tree that gives the weight 1 to numbers of labels that it gives none.

    Args:
        tree: Costs of kinds; its weights stay.
        labels: Labels of operations.
    """
    numbers: dict[str, float | Tensor] = {}
    for _, operation in _read(labels):
        numbers |= dict.fromkeys(operation.numbers if operation else (), 1.0)
    if set(numbers) <= set(tree.weights):
        return tree
    return OperationTree(
        tree.parents, tree.lengths, numbers | tree.weights, state_scale=tree.state_scale
    )


def _read(labels: Iterable[str]) -> Iterator[tuple[str, Operation | None]]:
    """Yield each label with its operation, None where its brackets mean something else."""
    for label in labels:
        try:
            yield label, Operation.parse(label)
        except ArchitectureError:
            yield label, None


def _height(members: "Families | None") -> float:
    if members is None:
        return 0.0
    return SIMILAR_HEIGHT if all(below is None for below in members.values()) else _RELATED_HEIGHT
