"""Networks as vectors of zeros and ones, for models that take nothing else."""

import itertools
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from hotnas_torch.arch import Cell, Network
from hotnas_torch.arguments import integer, kind
from hotnas_torch.spaces.base import SearchSpace
from hotnas_torch.spaces.encodings.cells import NO_OPERATIONS, EncodedCells, some_networks
from hotnas_torch.spaces.joint import check_architectures

__all__ = ["AdjacencyEncoding", "PathEncoding"]

_MAX_LENGTHS = {"nasbench101": 3, "nasbench201": 2}
"""By the name of a space: BANANAS keeps 40 paths of NAS-Bench-101, 30 of NAS-Bench-201."""
_DEFAULT_MAX_LENGTH = 3
# There are as many columns as sequences of operations, and a row holds all of them.
_MOST_LENGTH = 64
_MOST_COLUMNS = 2**22


class PathEncoding:
    """Which sequences of operations lead from the input of a cell to its output.

    Entry p of a cell is 1 where the operations of sequence p, in this order, are those of a path
    from input to output. Sequences are ordered by length and cut off at `max_length`: longer paths
    are left out. Additions are no operations.

    Where networks repeat one cell, that cell is encoded. DARTS networks are encoded by their normal
    and their reduction cell and their depth. Elsewhere the cells are encoded one after the other,
    each in the columns of its place, zeros where a network has fewer.

    Args:
        space: Search space of the networks.
        max_length: Most operations of a path that is encoded, 0 to 64; None takes 3 on
            NAS-Bench-101 and 2 on NAS-Bench-201, as BANANAS does, otherwise 3.
        num_places: How many cells are encoded where each has its own columns; cells beyond are left
            out. None takes the most that any of 256 networks has.

    Attributes:
        alphabet: Operations that a sequence may hold.
        max_length: As passed, or the default.
        num_columns: Length P of an encoded network.

    Raises:
        TypeError: `space` is no search space.
        ValueError: `max_length` is negative or `num_places` below 1.

    Complexity: O(paths of at most `max_length` operations) per distinct cell.

    Reference: White, Neiswanger and Savani, "BANANAS: Bayesian Optimization with Neural
        Architectures for Neural Architecture Search", AAAI 2021, Section 4.

    Example:
        >>> from hotnas_torch.spaces import NASBench101
        >>> encoding = PathEncoding(NASBench101())
        >>> encoding.num_columns
        40
        >>> net = NASBench101().from_string("4,110011,20")
        >>> [encoding.names[place] for place in encoding([net])[0].nonzero().flatten()]
        [('conv3x3-bn-relu',), ('maxpool3x3',)]
    """

    def __init__(
        self, space: SearchSpace, *, max_length: int | None = None, num_places: int | None = None
    ) -> None:
        self._encoded = EncodedCells("PathEncoding", space, num_places)
        if max_length is None:
            max_length = _MAX_LENGTHS.get(space.name, _DEFAULT_MAX_LENGTH)
        max_length = integer("max_length", max_length, least=0, most=_MOST_LENGTH)
        self.space = space
        self.max_length = max_length
        self.alphabet = self._encoded.alphabet
        num_places = self._encoded.num_places
        base = len(self.alphabet)
        # Sequences of length l, read as numbers of l digits, follow all that are shorter.
        self._starts = list(
            itertools.accumulate((base**length for length in range(max_length + 1)), initial=0)
        )
        self.num_columns = num_places * self._starts[-1] + self._encoded.by_role
        if self.num_columns > _MOST_COLUMNS:
            raise ValueError(
                f"max_length must be small enough for {_MOST_COLUMNS:,} columns; got {max_length}, "
                f"which takes {self.num_columns:,} for {base} operations at {num_places} places"
            )
        self._cells: dict[Cell, list[int]] = {}

    @cached_property
    def names(self) -> list[tuple[str, ...]]:
        """The sequence that each column of one cell stands for."""
        lengths = range(self.max_length + 1)
        products = (itertools.product(self.alphabet, repeat=length) for length in lengths)
        return list(itertools.chain.from_iterable(products))

    def __call__(self, nets: Sequence[Network]) -> Tensor:
        """Encode networks of the space as (N, P) float64."""
        encoded = torch.zeros(len(nets), self.num_columns, dtype=torch.float64)
        places = [
            (row, slot * self._starts[-1] + column)
            for row, net in enumerate(nets)
            for slot, cell in enumerate(self._encoded(net))
            for column in self._paths(cell)
        ]
        if places:
            rows, columns = torch.tensor(places).unbind(1)
            encoded[rows, columns] = 1.0
        if self._encoded.by_role:
            depths = torch.tensor([net.num_cells for net in nets], dtype=torch.float64)
            encoded[:, -1] = depths / self._encoded.most_cells
        return encoded

    def _paths(self, cell: Cell) -> list[int]:
        """Columns of the sequences of a cell."""
        if cell not in self._cells:
            digit = {label: place for place, label in enumerate(self.alphabet)}
            base = len(self.alphabet)
            # Per node: (length, number) of each sequence that leads to it, its own label included.
            leading: list[set[tuple[int, int]]] = [{(0, 0)}]
            for node in range(1, cell.num_nodes):
                found = set[tuple[int, int]]().union(
                    *(leading[before] for before in cell.predecessors(node))
                )
                label = cell.ops[node]
                if label not in NO_OPERATIONS:
                    found = {
                        (length + 1, number * base + digit[self._encoded.known(label)])
                        for length, number in found
                        if length < self.max_length
                    }
                leading.append(found)
            self._cells[cell] = sorted(
                self._starts[length] + number for length, number in leading[-1]
            )
        return self._cells[cell]


class AdjacencyEncoding:
    """The columns of a space's own rows, one-hot where they hold more than 0 or 1.

    On NAS-Bench-101 these are the 21 entries of the adjacency matrix and the 5 operations.

    Args:
        space: Search space of the networks.

    Attributes:
        num_columns: Length P of an encoded network.

    Raises:
        TypeError: `space` is no search space.

    Reference: White, Neiswanger and Savani, "BANANAS: Bayesian Optimization with Neural
        Architectures for Neural Architecture Search", AAAI 2021, Section 4.

    Example:
        >>> from hotnas_torch.spaces import NASBench201
        >>> AdjacencyEncoding(NASBench201()).num_columns  # 6 edges, 5 operations each
        30
    """

    def __init__(self, space: SearchSpace) -> None:
        kind("space", space, SearchSpace)
        check_architectures("AdjacencyEncoding", space)
        self.space = space
        rows = space.encode(some_networks(space)).long()
        columns, values = [], []
        for column, (low, high) in enumerate(zip(rows.amin(0), rows.amax(0), strict=True)):
            # Of two values one is enough; a column that never varied here may elsewhere.
            kept = range(int(low) + (high - low <= 1), max(int(high), int(low) + 1) + 1)
            columns += [column] * len(kept)
            values += list(kept)
        self._columns = torch.tensor(columns, dtype=torch.int64)
        self._values = torch.tensor(values, dtype=torch.float64)
        self.num_columns = len(columns)

    def __call__(self, nets: Sequence[Network]) -> Tensor:
        """Encode networks of the space as (N, P) float64."""
        return (self.space.encode(nets)[:, self._columns] == self._values).double()
