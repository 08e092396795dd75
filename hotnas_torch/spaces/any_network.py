"""All networks over an operation tree: what distances and models of a plain list stand on."""

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from hotnas_torch.arch import NestedCell, Network, OperationTree
from hotnas_torch.arguments import divisors, integer, kind
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces.base import SearchSpace

__all__ = ["AnyNetwork"]

_MOST_NETWORKS = 2**31


class AnyNetwork(SearchSpace):
    """Every network whose operations a tree knows, for networks that no search space describes.

    Distances and Gaussian processes take it where they ask for a space. A row holds one number, the
    place of a network among those that this object has encoded; networks that are equal up to
    renumbering share one. Rows therefore belong to the object that made them. Such networks
    cannot be drawn or edited, which raises a ValueError: there is nothing that bounds them.

    Args:
        tree: Operation costs.
        state_scale: Divisors of log2 relative width and of log2 downsampling, see `SearchSpace`;
            None takes the tree's, and where that has none leaves the state of cells out of HOTNN.
        max_nodes: Most nodes of a cell, for distances that ask for it, >= 2.

    Raises:
        TypeError: `tree` is no OperationTree, or another argument of the wrong kind.
        ValueError: A divisor that is not positive, or `max_nodes` below 2.

    Example:
        >>> import hotnas_torch as ht
        >>> tree = ht.OperationTree.from_matrix(
        ...     ["input", "output", "conv"], [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
        ... )
        >>> space = AnyNetwork(tree)
        >>> cell = ht.Cell(("input", "conv", "output"), ((0, 1), (1, 2)))
        >>> nets = [ht.Network.chain([cell] * n, (8,) * n, (1,) * n) for n in (1, 2, 1)]
        >>> space.encode(nets).tolist(), space.decode(space.encode(nets))[1] == nets[1]
        ([[0.0], [1.0], [0.0]], True)
    """

    name = "any_network"
    operations: tuple[str, ...] = ()
    state_scale: tuple[float, float] | None  # type: ignore[assignment]  # no scale is known

    def __init__(
        self,
        tree: OperationTree,
        *,
        state_scale: tuple[float, float] | None = None,
        max_nodes: int = 32,
    ) -> None:
        kind("tree", tree, OperationTree, hint="it says what operations cost")
        super().__init__({"network": range(_MOST_NETWORKS)}, labels=(), tree=tree)
        self.state_scale = tree.state_scale
        if state_scale is not None:
            self.state_scale = divisors("state_scale", state_scale)
        self.max_nodes = integer("max_nodes", max_nodes, least=2)
        self._listed: list[Network] = []
        self._places: dict[str, int] = {}
        self._accepted: set[str] = set()

    def contains(self, net: object) -> bool:
        """Return whether `net` is a network whose operations the tree knows."""
        if not isinstance(net, Network):
            return False
        try:
            self._check_network(net)
        except ArchitectureError:
            return False
        return True

    __contains__ = contains

    def canonical(self, net: Network) -> Network:
        """Return the network."""
        self._check_network(net)
        return net

    def key(self, net: Network) -> str:
        """Return `net.key`, equal for networks that are equal up to renumbering."""
        self._check_network(net)
        return net.key

    def encode(self, nets: Sequence[Network]) -> Tensor:
        """Return the number of each network, shape (N, 1) float64; new ones get the next.

        Raises:
            TypeError: `nets` is a single network, or an entry is not a Network.
            ArchitectureError: An operation that the tree does not know; the message names it and
                the entry.
        """
        if isinstance(nets, Network):
            raise TypeError("nets must be a sequence of Network; got a single one (pass [net])")
        for place, net in enumerate(nets):
            kind(f"nets[{place}]", net, Network)
            try:
                self._check_network(net)
            except ArchitectureError as error:
                raise ArchitectureError(f"nets[{place}]: {error}") from None
        places = []
        for net in nets:
            place = self._places.setdefault(net.key, len(self._listed))
            if place == len(self._listed):
                self._listed.append(net)
                self.nests_cells |= any(isinstance(cell, NestedCell) for cell in net.cells)
            places.append(place)
        return torch.tensor(places, dtype=torch.float64).reshape(len(places), 1)

    def decode(self, X: Tensor) -> list[Network]:
        """Return the networks of rows; arguments and errors as for every space."""
        return [self._listed[place] for place in self._check_rows(X).flatten().tolist()]

    def to_string(self, net: Network) -> str:
        """Return the name that the network carries in `spec`, else its key."""
        self._check_network(net)
        return net.spec or net.key

    def __repr__(self) -> str:
        return f"AnyNetwork({self.tree!r})"

    def _check_network(self, net: Network) -> None:
        for cell in net.cells:
            if cell.key not in self._accepted:
                for label in _labels(cell):
                    self.tree.check(label)
                self._accepted.add(cell.key)

    def find_fault(self, rows: Tensor) -> tuple[int, str] | None:
        wrong = ((rows < 0) | (rows >= len(self._listed))).any(1)
        if not bool(wrong.any()):
            return None
        return int(wrong.nonzero()[0]), f"it has encoded {len(self._listed)} networks"

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ValueError(
            f"{self!r} holds every network there is, which cannot be drawn, listed, edited or read"
            " from strings (declare a space, or take the Subset of one)"
        )

    _refused: Any = _refuse
    size = size_bound = build_network = all_codes = draw_codes = parse_code = format_code = _refused
    mutate_code = neighbor_codes = _refused
    neighbors = sample = sample_one = mutate = from_string = __iter__ = _refused


def _labels(cell: Any) -> set[str]:
    graphs = getattr(cell, "graphs", (None,) * cell.num_nodes)
    found = {label for label, graph in zip(cell.ops, graphs, strict=True) if graph is None}
    return found.union(*(_labels(graph) for graph in graphs if graph is not None))
