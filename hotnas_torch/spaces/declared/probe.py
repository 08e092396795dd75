"""What the networks of a space have in common, read from some of them."""

import math
from collections.abc import Iterable, Sequence

from hotnas_torch.arch import Cell, NestedCell, Network, OperationTree
from hotnas_torch.arguments import divisors, integer, kind, shown
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces import NAMES
from hotnas_torch.spaces.families import flat_tree, weighing_numbers

__all__ = ["Probe", "checked_labels", "labels_of", "own_name"]

_ENDS = ("input", "output")


class Probe:
    """Operations, their costs, and the sizes that a space says of its networks.

    Args:
        networks: Some networks of the space, at least one.
        operations: Labels of operations; None is those of the networks.
        tree: Operation costs; None takes those of `default_tree`, with weights of all numbers.
        max_nodes: Most nodes of a cell; None is the most of the networks.
        state_scale: Divisors of the state; None is the largest of the networks.
        default_tree: Costs of kinds; None puts all kinds 2 apart.

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: A number out of range.
        ArchitectureError: A network has an operation or a cell beyond what is said.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        *,
        operations: Sequence[str] | None,
        tree: OperationTree | None,
        max_nodes: int | None,
        state_scale: tuple[float, float] | None,
        default_tree: OperationTree | None = None,
    ) -> None:
        kind("tree", tree, OperationTree, optional=True)
        self.operations = labels_of(networks)
        if operations is not None:
            self.operations = checked_labels(operations)
        labels = (_ENDS[0], *self.operations, _ENDS[1])
        if tree is None:
            known = flat_tree(labels) if default_tree is None else default_tree
            tree = weighing_numbers(known, labels)
        self.tree = tree
        self.max_nodes = _largest_cell(networks)
        if max_nodes is not None:
            self.max_nodes = integer("max_nodes", max_nodes, least=2)
        self.nests_cells = any(isinstance(c, NestedCell) for net in networks for c in net.cells)
        self.state_scale = _largest_state(networks)
        if state_scale is not None:
            self.state_scale = divisors("state_scale", state_scale)
        self._known: set[str] = set()
        for network in networks:
            self.check(network, network.spec or "an example")

    def check(self, network: Network, described: str) -> None:
        """Check that a network of the space is as the space says.

        Args:
            network: The network.
            described: How messages call it.

        Raises:
            ArchitectureError: It has an operation or a cell beyond that.
        """
        for label in (*_ENDS, *labels_of([network])):
            if label in self._known:
                continue
            try:
                self.tree.check(label)
            except ArchitectureError as error:
                raise ArchitectureError(
                    f"the network of {described} has the operation {label!r}, which the space does "
                    f"not know: {error} (name all that there are with operations= or tree=)"
                ) from None
            self._known.add(label)
        if (largest := _largest_cell([network])) > self.max_nodes:
            raise ArchitectureError(
                f"the network of {described} has a cell of {largest} nodes, more than max_nodes = "
                f"{self.max_nodes} (say with max_nodes= how many there can be)"
            )


def own_name(name: object) -> str:
    """Return the name of a space that is not one of the library's.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty, or the name of a space of the library.
    """
    kind("name", name, str)
    if not name or not str(name).isprintable() or name in NAMES:
        reason = "not the name of a space of the library" if name in NAMES else "printable"
        reason = reason if name else "not empty"
        raise ValueError(f"name must be {reason}; got {name!r}")
    return str(name)


def labels_of(networks: Iterable[Network]) -> tuple[str, ...]:
    """Return the labels of all operations, also within nested cells, in the order found."""
    found: dict[str, None] = {}
    left = list(dict.fromkeys(cell for network in networks for cell in network.cells))
    for cell in left:  # grows while it is read
        graphs = cell.graphs if isinstance(cell, NestedCell) else (None,) * cell.num_nodes
        for label, graph in zip(cell.ops, graphs, strict=True):
            if graph is None:
                found[label] = None
            else:
                left.append(graph)
    return tuple(label for label in found if label not in _ENDS)


def _largest_cell(networks: Iterable[Network]) -> int:
    """Return the largest number of nodes of a cell, at any level."""

    def nodes(cell: Cell) -> int:
        graphs = cell.graphs if isinstance(cell, NestedCell) else ()
        return max([cell.num_nodes, *(nodes(graph) for graph in set(graphs) if graph is not None)])

    return max(nodes(cell) for network in networks for cell in set(network.cells))


def _largest_state(networks: Sequence[Network]) -> tuple[float, float]:
    """Return the largest log2 of relative widths and of resolutions, 1 where that is 0."""
    widths = (
        abs(math.log2(width / net.input_channels)) for net in networks for width in net.channels
    )
    resolutions = (math.log2(divisor) for net in networks for divisor in net.downsampling)
    return max(widths) or 1.0, max(resolutions) or 1.0


def checked_labels(operations: object) -> tuple[str, ...]:
    """Return the labels of operations, which have to be different and none of the two ends.

    Raises:
        TypeError: No list of texts.
        ValueError: There is none, or one repeats or cannot be used.
    """
    if isinstance(operations, str) or not isinstance(operations, Sequence):
        raise TypeError(f"operations must be a list or tuple of labels; got {shown(operations)}")
    for place, label in enumerate(operations):
        kind(f"operations[{place}]", label, str)
        if not label or label in _ENDS or operations.index(label) != place:
            reason = "named once" if label and label not in _ENDS else "an operation"
            raise ValueError(f"operations[{place}] must be {reason}; got {label!r}")
    if not operations:
        raise ValueError("operations must hold at least one label; got none")
    return tuple(operations)
