"""Networks: macro graphs of cells, the outer level of an architecture."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from hotnas_torch.arch._json import (
    check_keys,
    check_list,
    check_pairs,
    check_value,
    content_digest,
)
from hotnas_torch.arch.canonical import canonical_order
from hotnas_torch.arch.cell import Cell
from hotnas_torch.arch.dag import check_edges, longest_paths
from hotnas_torch.arch.nested import cell_from_json
from hotnas_torch.arguments import choice, shown
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.notebook import table_html

__all__ = ["Network"]


# What a notebook shows of a long network.
_MOST_RUNS = 40
_MOST_SHOWN = 6


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Network:
    """A directed acyclic macro graph whose nodes are cells, with the width and resolution of each.

    Networks are immutable and compare by value. `key` tells whether two networks are the same
    up to the numbering of nodes and cells.

    Args:
        cells: N >= 1 cells, nested or not, in a topological order of the macro graph. Repeated
            cells should be the same object: what is computed once per cell is then computed once.
        channels: Output channels of each cell, > 0.
        downsampling: Resolution divisor after each cell relative to the network's input, cumulative
            (1, 2, 4, ...), > 0.
        edges: Macro graph over node 0 (input), 1..N (cells) and N+1 (output): sorted pairs (i, j)
            with i < j, every node on a path from input to output. Empty (default): the chain.
        input_channels: Width that a cell's cumulative width is measured against, usually the
            stem's, > 0.
        spec: The architecture's official string in its search space, where it has one. Part of the
            network's identity, as two strings may give the same graph; not part of `key`.

    Raises:
        TypeError: An argument is of the wrong kind.
        ArchitectureError: Lengths differ, a count is not positive, or the macro graph is invalid.

    Example:
        >>> cell = Cell(("input", "conv3x3", "output"), ((0, 1), (1, 2)))
        >>> net = Network.chain((cell, cell), channels=(16, 48), downsampling=(1, 2))
        >>> net.masses(), net.positions()[0] == 1 / 3
        ((0.25, 0.75), True)
    """

    cells: tuple[Cell, ...]
    channels: tuple[int, ...]
    downsampling: tuple[int, ...]
    edges: tuple[tuple[int, int], ...] = ()
    input_channels: int = 1
    spec: str = ""
    _key: str | None = field(default=None, init=False, repr=False, compare=False)
    _hash: int | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.cells, tuple):
            raise TypeError(
                f"cells must be a tuple of Cell; got {type(self.cells).__name__} "
                "(pass tuple(cells))"
            )
        for position, cell in enumerate(self.cells):
            if not isinstance(cell, Cell):
                raise TypeError(f"cells[{position}] must be a Cell; got {cell!r}")
        num_cells = len(self.cells)
        if num_cells == 0:
            raise ArchitectureError("cells must hold at least one Cell; got none")
        _check_counts(self.channels, num_cells, "channels")
        _check_counts(self.downsampling, num_cells, "downsampling")
        _check_positive(self.input_channels, "input_channels")
        if not isinstance(self.spec, str):
            raise TypeError(f"spec must be a str; got {self.spec!r}")
        chain = _chain_edges(num_cells)
        if self.edges == () or self.edges == chain:
            # All chains of one length share one tuple.
            object.__setattr__(self, "edges", chain)
        else:
            names = ["input", *(f"cells[{s}]" for s in range(num_cells)), "output"]
            check_edges(self.edges, names)

    @classmethod
    def chain(
        cls,
        cells: Sequence[Cell],
        channels: Sequence[int],
        downsampling: Sequence[int],
        *,
        input_channels: int = 1,
        spec: str = "",
    ) -> "Network":
        """Build the network input -> cells[0] -> ... -> cells[N-1] -> output.

        Arguments and errors as for the class; any sequence is accepted.
        """
        return cls(
            tuple(cells),
            tuple(channels),
            tuple(downsampling),
            input_channels=input_channels,
            spec=spec,
        )

    @property
    def num_cells(self) -> int:
        """Number of cells N."""
        return len(self.cells)

    @property
    def is_chain(self) -> bool:
        """Whether every cell feeds the next one only."""
        return self.edges == _chain_edges(len(self.cells))

    def positions(self) -> tuple[float, ...]:
        """Return delta_s / delta per cell, in (0, 1), N floats.

        delta_s is the longest path from the input to cell s and delta the longest path from input
        to output, in macro edges; in a chain cell s = 1..N is at s / (N + 1).

        Reference: HOTNAS, Eq. 11 (relative position of a cell).
        """
        depth = longest_paths(len(self.cells) + 2, self.edges)
        return tuple(d / depth[-1] for d in depth[1:-1])

    def masses(self, mode: Literal["channels", "uniform"] = "channels") -> tuple[float, ...]:
        """Return the mass of each cell, N positive floats that sum to 1.

        Args:
            mode: `"channels"`: proportional to the output channels, as in the HOTNAS paper.
                `"uniform"`: 1/N.

        Raises:
            ValueError: Unknown mode.
        """
        if choice("mode", mode, ("channels", "uniform")) == "uniform":
            return (1.0 / len(self.cells),) * len(self.cells)
        total = sum(self.channels)
        return tuple(c / total for c in self.channels)

    @property
    def key(self) -> str:
        """Hex digest (32 digits) of the network up to renumbering, the same on every run.

        Equal exactly when a renumbering of the cells in the macro graph, and of the nodes in each
        cell, turns one network into the other with labels, channels and resolutions; `spec` has
        no part in it. (Exactly, up to collisions of a 128-bit digest.)
        """
        digest = self._key
        if digest is None:
            states = zip(self.cells, self.channels, self.downsampling, strict=True)
            labels = [f"{cell.key}:{width}:{divisor}" for cell, width, divisor in states]
            edges: Sequence[tuple[int, int]] = self.edges
            if not self.is_chain:
                order = canonical_order(["input", *labels, "output"], edges)
                new = {old: position for position, old in enumerate(order)}
                labels = [labels[old - 1] for old in order[1:-1]]
                edges = sorted((new[i], new[j]) for i, j in edges)
            digest = content_digest([labels, edges, self.input_channels])
            object.__setattr__(self, "_key", digest)
        return digest

    def to_json(self) -> dict[str, Any]:
        """Return a description ready for `json.dumps`; a repeated cell is written once.

        `{"cells": [distinct cells], "layout": [which of them, per position], "channels": [...],
        "downsampling": [...], "edges": [[i, j], ...], "input_channels": c, "spec": "..."}`.
        """
        distinct = {cell: place for place, cell in enumerate(dict.fromkeys(self.cells))}
        return {
            "cells": [cell.to_json() for cell in distinct],
            "layout": [distinct[cell] for cell in self.cells],
            "channels": list(self.channels),
            "downsampling": list(self.downsampling),
            "edges": [list(edge) for edge in self.edges],
            "input_channels": self.input_channels,
            "spec": self.spec,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Network":
        """Build the network that `to_json` described.

        The keys `edges`, `input_channels` and `spec` may be left out.

        Raises:
            TypeError: `data` is not a mapping.
            ArchitectureError: A key is missing or unknown, or a value is not what it should be; for
                a fault inside a cell the message starts with its place, as in `cells[2]:`.
        """
        check_keys(
            data,
            "a network",
            required=("cells", "layout", "channels", "downsampling"),
            optional=("edges", "input_channels", "spec"),
        )
        distinct = []
        for place, entry in enumerate(check_list(data["cells"], dict, "cells")):
            try:
                distinct.append(cell_from_json(entry))
            except ArchitectureError as error:
                raise ArchitectureError(f"cells[{place}]: {error}") from error
        layout = check_list(data["layout"], int, "layout")
        for position, place in enumerate(layout):
            if not 0 <= place < len(distinct):
                raise ArchitectureError(
                    f"layout[{position}] must be the place of a cell in 'cells', "
                    f"0..{len(distinct) - 1}; got {place}"
                )
        return cls(
            tuple(distinct[place] for place in layout),
            tuple(check_list(data["channels"], int, "channels")),
            tuple(check_list(data["downsampling"], int, "downsampling")),
            check_pairs(data.get("edges", []), "edges"),
            check_value(data.get("input_channels", 1), int, "input_channels"),
            check_value(data.get("spec", ""), str, "spec"),
        )

    def _repr_html_(self) -> str:
        """Show the cells as they repeat, in a chain, and each distinct one as a graph."""
        distinct = dict.fromkeys(self.cells)
        numbers = {cell: place for place, cell in enumerate(distinct, 1)}
        found = [
            (f"cell {numbers[cell]}", width, f"1/{divisor}")
            for cell, width, divisor in zip(
                self.cells, self.channels, self.downsampling, strict=True
            )
        ]
        runs = [(*row, len(list(same))) for row, same in itertools.groupby(found)]
        way = "a chain" if self.is_chain else "a graph"
        caption = f"Network: {way} of {self.num_cells} cells {self.spec}".strip()
        header = ("cell", "channels", "resolution", "times")
        drawn = [
            f"<p>cell {place}</p>{cell._repr_html_()}"
            for cell, place in numbers.items()
            if place <= _MOST_SHOWN
        ]
        hidden = len(distinct) - len(drawn)
        more = f"<p>and {hidden} other cells</p>" if hidden else ""
        return table_html(header, runs[:_MOST_RUNS], caption) + "".join(drawn) + more

    def __hash__(self) -> int:
        value = self._hash
        if value is None:
            value = hash(self._fields())
            object.__setattr__(self, "_hash", value)
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        # String hashes differ between processes, so the cached values must not travel.
        return (Network, self._fields())

    def _fields(self) -> tuple[Any, ...]:
        return (
            self.cells,
            self.channels,
            self.downsampling,
            self.edges,
            self.input_channels,
            self.spec,
        )


@lru_cache(maxsize=256)
def _chain_edges(num_cells: int) -> tuple[tuple[int, int], ...]:
    return tuple((s, s + 1) for s in range(num_cells + 1))


def _check_counts(values: object, num_cells: int, argument: str) -> None:
    if not isinstance(values, tuple):
        raise TypeError(
            f"{argument} must be a tuple of int; got {type(values).__name__} "
            f"(pass tuple({argument}))"
        )
    if len(values) != num_cells:
        raise ArchitectureError(
            f"{argument} must have one entry per cell, {num_cells}; got {len(values)}: {values}"
        )
    for position, value in enumerate(values):
        _check_positive(value, f"{argument}[{position}]")


def _check_positive(value: object, argument: str) -> None:
    if type(value) is not int:
        raise TypeError(f"{argument} must be an integer; got {shown(value)}")
    if value <= 0:
        raise ArchitectureError(f"{argument} must be positive; got {value}")
