"""Numbers that describe graphs: operations counted, paths and degrees over sets of operations."""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations

import torch
from torch import Tensor

from hotnas_torch.arch import Cell, Network
from hotnas_torch.arguments import boolean
from hotnas_torch.spaces.base import SearchSpace
from hotnas_torch.spaces.encodings.cells import NO_OPERATIONS, EncodedCells, some_networks

__all__ = ["GraphFeatures"]

_MOST_OPERATIONS = 7
"""Of more, not all sets of operations are looked at, but those of one, of two, and of all."""


class GraphFeatures:
    """Numbers that describe the graphs of networks, for models that take nothing else.

    Of each encoded cell: how often each operation occurs; and over every set of operations, with
    all other operations left out, the fewest and the most operations on a path from the input to
    the output, the degrees of these two, and the mean numbers of predecessors and of successors of
    a node that are of the set. Where there is no path, the fewest is the most that any can have,
    and the most is 0. With more than seven operations, sets are those of one, of two, and of all.

    Where networks repeat one cell, that cell is encoded; of DARTS networks the normal and the
    reduction cell and the depth; elsewhere every cell, with the logarithms of its width and
    resolution, in columns of its place, zeros where a network has fewer.

    Args:
        space: Search space of the networks.
        scaled: Whether a column is scaled so that 256 networks of the space have the values 0 to 1,
            and left out where it is the same, or equals another one, in all of them.

    Attributes:
        names: What each column is.
        num_columns: Length P of encoded networks.

    Raises:
        TypeError: `space` is no search space, or `scaled` no bool.

    Complexity: O(sets * edges) per distinct cell.

    Reference: Kadlecova et al., Surprisingly Strong Performance Prediction with Neural Graph
        Features, ICML 2024 (GRAF).

    Example:
        >>> from hotnas_torch.spaces import NASBench201
        >>> space = NASBench201()
        >>> features = GraphFeatures(space, scaled=False)
        >>> net = space.from_string(
        ...     "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
        ... )
        >>> found = dict(zip(features.names, features([net])[0].tolist()))
        >>> found["0: number of nor_conv_3x3"], found["0: most of nor_conv_1x1, nor_conv_3x3"]
        (2.0, 3.0)
    """

    def __init__(self, space: SearchSpace, *, scaled: bool = True) -> None:
        boolean("scaled", scaled)
        self._encoded = EncodedCells("GraphFeatures", space)
        self.space = space
        labels = self._encoded.alphabet
        sizes = range(1, len(labels) + 1)
        if len(labels) > _MOST_OPERATIONS:
            sizes = range(1, 3)
        self._sets = list(chain.from_iterable(combinations(labels, size) for size in sizes))
        if len(labels) > _MOST_OPERATIONS:
            self._sets.append(labels)
        self._by_place = not (space.repeats_one_cell or self._encoded.by_role)
        self._cells: dict[Cell, list[float]] = {}
        self.names = list(self._all_names())
        self._kept = torch.arange(len(self.names))
        self._low = torch.zeros(len(self.names), dtype=torch.float64)
        self._range = torch.ones(len(self.names), dtype=torch.float64)
        if scaled:
            self._scale()
        self.num_columns = len(self.names)

    def _all_names(self) -> Iterator[str]:
        labels = self._encoded.alphabet
        for place in range(self._encoded.num_places):
            yield from (f"{place}: number of {label}" for label in labels)
            for one in self._sets:
                for what in ("fewest", "most", "input", "output", "before", "after"):
                    yield f"{place}: {what} of {', '.join(one)}"
            if self._by_place:
                yield from (f"{place}: log2 width", f"{place}: log2 downsampling")
        if self._encoded.by_role:
            yield "depth"

    def _scale(self) -> None:
        known = self._raw(some_networks(self.space))
        low, range_ = known.amin(0), known.amax(0) - known.amin(0)
        scaled = (known - low) / range_.masked_fill(range_ == 0.0, 1.0)
        first = {
            tuple(column): place
            for place, column in reversed(list(enumerate(scaled.T.tolist())))
            if float(range_[place]) > 0.0
        }
        self._kept = torch.tensor(sorted(first.values()), dtype=torch.int64)
        self._low, self._range = low[self._kept], range_[self._kept]
        self.names = [self.names[place] for place in self._kept.tolist()]

    def __call__(self, nets: Sequence[Network]) -> Tensor:
        """Encode networks of the space as (N, P) float64."""
        return (self._raw(nets)[:, self._kept] - self._low) / self._range

    def _raw(self, nets: Sequence[Network]) -> Tensor:
        rows = [self._row(net) for net in nets]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(nets), -1)

    def _row(self, net: Network) -> list[float]:
        row: list[float] = []
        cells = self._encoded(net)
        for place, cell in enumerate(cells):
            if cell not in self._cells:
                self._cells[cell] = self._of_cell(cell)
            row += self._cells[cell]
            if self._by_place:
                state = torch.tensor([net.channels[place], net.downsampling[place]]).double()
                row += state.log2().tolist()
        missing = self._encoded.num_places - len(cells)
        row += [0.0] * (missing * (len(row) // len(cells)))
        return [*row, float(net.num_cells)] if self._encoded.by_role else row

    def _of_cell(self, cell: Cell) -> list[float]:
        labels = [
            "" if label in NO_OPERATIONS else self._encoded.known(label) for label in cell.ops
        ]
        found = [float(labels.count(label)) for label in self._encoded.alphabet]
        for one in self._sets:
            found += self._of_set(cell, labels, frozenset(one))
        return found

    def _of_set(self, cell: Cell, labels: list[str], allowed: frozenset[str]) -> list[float]:
        last = cell.num_nodes - 1
        fewest: list[float | None] = [0.0, *[None] * last]
        most = [0.0] * (last + 1)
        for node in range(1, last + 1):
            step = float(labels[node] != "")
            before = [source for source in cell.predecessors(node) if fewest[source] is not None]
            if before and (not labels[node] or labels[node] in allowed):
                fewest[node] = step + min(float(fewest[source] or 0.0) for source in before)
                most[node] = step + max(most[source] for source in before)
        no_path = fewest[last] is None
        ends = [(labels[i] in allowed, labels[j] in allowed, i, j) for i, j in cell.edges]
        return [
            float(self.space.max_nodes - 1) if no_path else float(fewest[last] or 0.0),
            0.0 if no_path else most[last],
            float(sum(after for _, after, i, _ in ends if i == 0)),
            float(sum(before for before, _, _, j in ends if j == last)),
            sum(before for before, *_ in ends) / cell.num_nodes,
            sum(after for _, after, *_ in ends) / cell.num_nodes,
        ]
