"""Operation trees with a row for every label that occurs."""

from collections.abc import Iterable

from hotnas_torch.arch import Cell, NestedCell, OperationTree
from hotnas_torch.errors import ArchitectureError

__all__ = ["check_label", "with_rows_for"]

_ENDS = ("input", "output")


def check_label(tree: OperationTree, label: str, what: str) -> None:
    """Raise unless a tree knows a label; the message begins with `what`, which carries it.

    Raises:
        ArchitectureError: It does not, or the label is not written as it should be.
    """
    try:
        tree.check(label)
    except ArchitectureError as error:
        raise ArchitectureError(
            f"{what}, which the operation tree does not know: {error}"
        ) from None


def with_rows_for(tree: OperationTree, cells: Iterable[Cell]) -> OperationTree:
    """Return the tree with a row for every label in cells, and in the graphs inside them.

    A tree whose operations carry no numbers has a row for every label there is. Otherwise the
    labels that occur have one, and input and output.
    """
    if not tree.weights and tree.labels == tree.kinds:
        return tree
    labels, seen, waiting = set(_ENDS), set(), list(cells)
    while waiting:
        cell = waiting.pop()
        if id(cell) in seen:
            continue
        seen.add(id(cell))
        if isinstance(cell, NestedCell):
            pairs = zip(cell.ops, cell.graphs, strict=True)
            labels.update(label for label, graph in pairs if graph is None)
            waiting += [graph for graph in cell.graphs if graph is not None]
        else:
            labels.update(cell.ops)
    return tree.with_labels(sorted(labels))
