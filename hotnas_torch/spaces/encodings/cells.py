"""Which cells of a network are encoded, and by which labels."""

from collections.abc import Sequence

import torch

from hotnas_torch.arch import Cell, Network, Operation
from hotnas_torch.arguments import integer, kind
from hotnas_torch.spaces.base import SearchSpace
from hotnas_torch.spaces.joint import check_architectures

__all__ = ["NO_OPERATIONS", "EncodedCells", "some_networks"]

NO_OPERATIONS = frozenset(("input", "output", "add"))
"""Labels of nodes that compute nothing that is chosen."""
_SAMPLE = 256


class EncodedCells:
    """The cells of a network that an encoding shows.

    Where networks repeat one cell, that cell; in DARTS the normal and the reduction cell; elsewhere
    all cells, one after the other.

    Args:
        encoding: What messages call the encoding.
        space: Search space of the networks.
        num_places: How many cells are encoded where each has its own place; cells beyond are left
            out. None takes the most that any of 256 networks has.

    Attributes:
        space: As passed.
        alphabet: Labels of operations.
        by_role: Whether the cells are a normal and a reduction cell.
        num_places: Most cells of a network that are encoded.
        most_cells: Most cells of any of 256 networks.

    Raises:
        TypeError: `space` is no search space.
        ValueError: `num_places` below 1.
    """

    def __init__(self, encoding: str, space: SearchSpace, num_places: int | None = None) -> None:
        kind("space", space, SearchSpace)
        check_architectures(encoding, space)
        if num_places is not None:
            integer("num_places", num_places, least=1)
        self.space = space
        self.alphabet = tuple(label for label in space.tree.labels if label not in NO_OPERATIONS)
        self.by_role = space.name == "darts"
        self.most_cells = max(net.num_cells for net in some_networks(space))
        if space.repeats_one_cell:
            num_places = 1
        elif self.by_role:
            num_places = 2
        elif num_places is None:
            num_places = self.most_cells
        self.num_places = num_places

    def __call__(self, net: Network) -> Sequence[Cell]:
        """Return the cells of a network that are encoded, by place."""
        if not self.by_role:
            return net.cells[: self.num_places]
        reduction = next(place for place, divisor in enumerate(net.downsampling) if divisor > 1)
        return net.cells[0], net.cells[reduction]

    def known(self, label: str) -> str:
        """Return the label, or its kind where no network that was looked at has its numbers."""
        return label if label in self.alphabet else Operation.parse(label).kind


def some_networks(space: SearchSpace) -> list[Network]:
    """Return always the same networks, which show what the space holds."""
    return space.sample(_SAMPLE, generator=torch.Generator().manual_seed(0))
