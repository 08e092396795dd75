# Over 400 lines: one interface, most of it documentation.
"""What every search space can do: sample, mutate, list neighbours, read and write architectures."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self, overload

import torch
from torch import Tensor

from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.arguments import integer, kind, number, random_generator
from hotnas_torch.errors import ArchitectureError

__all__ = [
    "Code",
    "SearchSpace",
    "check_space",
    "draw_index",
    "draw_integers",
    "first_row",
    "out_of_range",
]

Code = tuple[int, ...]
"""An architecture as integers, one per column of its encoded row."""

# Cells are shared between networks so that work per distinct cell is done once. The table is
# emptied when it reaches this size, which bounds it in spaces with more cells than memory.
_MAX_SHARED_CELLS = 2**18
_MAX_SHARED_NETWORKS = 2**16
# Draws before a mutation that keeps landing on an isomorphic network is replaced by an edit.
_MUTATION_DRAWS = 64
_INTEGER_TOLERANCE = 1e-6


class SearchSpace(ABC):
    """A set of networks with random access, edits, official strings and encoded rows.

    A space is immutable; all randomness comes from the `torch.Generator` that the caller passes.
    A network of the space carries its official string in `spec`.

    Attributes:
        name: Name that `hotnas_torch.spaces.get` knows.
        operations: Labels that are searched over.
        tree: Operation costs, by default the space's own; knows every label that a cell can carry.
        max_nodes: Largest number of nodes of a cell, input and output included.
        state_scale: Divisors that bring a cell's state, (log2 of its width relative to
            `input_channels`, log2 of its downsampling), into [0, 1].
        hyperparameters: What its networks have values of, by name; only `Joint` has any.
        repeats_one_cell: Whether every network repeats one searched cell on one fixed skeleton, so
            that positions and widths tell no two networks apart.
        dim: Number of columns d of an encoded row.
    """

    name: str
    operations: tuple[str, ...]
    max_nodes: int
    state_scale: tuple[float, float]
    repeats_one_cell: bool = False
    hyperparameters: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        tree: OperationTree | None,
        default_tree: OperationTree,
        labels: Iterable[str],
        columns: Sequence[str],
    ) -> None:
        kind("tree", tree, OperationTree, optional=True)
        self.tree = default_tree if tree is None else tree
        for label in labels:
            self.tree.index(label)  # raises for a label that cells carry and the tree lacks
        self._columns = tuple(columns)
        self._cells: dict[Hashable, Cell] = {}
        self._networks: dict[Code, Network] = {}
        self._known_codes: dict[str, Code] = {}

    # --- what a space defines ---------------------------------------------------------------------

    @abstractmethod
    def size(self) -> int:
        """Return the number of architectures, counted from the definition of the space."""

    @abstractmethod
    def _codes(self) -> Iterator[Code]:
        """Yield the code of every architecture once."""

    @abstractmethod
    def _parse(self, text: str) -> Code:
        """Return the code of an official string, or raise what `_malformed` builds."""

    @abstractmethod
    def _format(self, code: Code) -> str:
        """Return the official string of a valid code."""

    @abstractmethod
    def _network(self, code: Code) -> Network:
        """Build the network of a valid code, its cells through `_cell`."""

    @abstractmethod
    def _make_cell(self, key: Any) -> Cell:
        """Build the cell that `_cell` was asked for."""

    @abstractmethod
    def _draw(self, num: int, generator: torch.Generator) -> list[Code]:
        """Draw valid codes independently."""

    @abstractmethod
    def _mutate(self, code: Code, generator: torch.Generator) -> Code:
        """Draw a valid code near `code`, possibly `code` itself."""

    @abstractmethod
    def _edits(self, code: Code) -> Iterator[Code]:
        """Yield every valid code that is one edit away, in a fixed order, repeats allowed."""

    def _mutation_draws(self, net: Network) -> int:
        """How often the space's own mutation is tried before one of `_nearby` is drawn."""
        del net
        return _MUTATION_DRAWS

    def _nearby(self, net: Network) -> list[Network]:
        """Return what a mutation may give when `_mutate` keeps finding nothing new."""
        return self.neighbors(net)

    def _pick(self, num: int, generator: torch.Generator) -> int:
        """Draw which of `num` networks from `_nearby` to take."""
        return draw_index(num, generator)

    @abstractmethod
    def _fault(self, rows: Tensor) -> tuple[int, str] | None:
        """Check codes, (N, d) int64; returns the first faulty row and what is wrong with it."""

    # --- random access and edits ------------------------------------------------------------------

    def sample(
        self, num: int, *, generator: torch.Generator | None = None, distinct: bool = False
    ) -> list[Network]:
        """Draw networks at random.

        Args:
            num: How many, >= 0.
            generator: Source of randomness, required.
            distinct: Draw networks with different `key`; otherwise draws are independent.

        Returns:
            `num` networks.

        Raises:
            TypeError: `num` is not an int or `generator` not a `torch.Generator`.
            ValueError: `generator` is missing, `num` is negative, or more distinct networks
                are asked for than there are.
        """
        generator = random_generator(generator)
        integer("num", num, least=0)
        if not distinct:
            return [self._shared_network(code) for code in self._draw(num, generator)]
        size = self.size()
        if num > size:
            raise ValueError(
                f"num must be at most {size} when distinct=True, the size of {self!r}; got {num} "
                "(ask for fewer, or pass distinct=False)"
            )
        if 2 * num > size:
            # Rejection would mostly meet networks it has seen.
            everything = list(self._codes())
            order = torch.randperm(size, generator=generator, device=generator.device).tolist()
            return [self._shared_network(everything[place]) for place in order[:num]]
        found: dict[str, Network] = {}
        while len(found) < num:
            for code in self._draw(num - len(found), generator):
                net = self._shared_network(code)
                found.setdefault(self.key(net), net)
        return list(found.values())

    def sample_one(self, *, generator: torch.Generator | None = None) -> Network:
        """Draw one network; arguments and errors as `sample`."""
        return self.sample(1, generator=generator)[0]

    def mutate(self, net: Network, *, generator: torch.Generator | None = None) -> Network:
        """Draw a network near `net`, by the operator that the space's benchmarks use.

        The result is a valid network with another graph; only where every edit gives an isomorphic
        graph is it another description of the same one.

        Args:
            net: A network of this space.
            generator: Source of randomness, required.

        Raises:
            ArchitectureError: `net` is not of this space, or the space has no other network.
            TypeError, ValueError: As `sample`.
        """
        generator = random_generator(generator)
        code = self._code(net)
        for _ in range(self._mutation_draws(net)):
            candidate = self._shared_network(self._mutate(code, generator))
            if candidate.key != net.key:
                return candidate
        nearby = self._nearby(net)
        choices = [other for other in nearby if other.key != net.key] or nearby
        if not choices:
            raise ArchitectureError(f"net {net.spec!r} has no neighbour in {self!r} to mutate to")
        return choices[self._pick(len(choices), generator)]

    def neighbors(self, net: Network) -> list[Network]:
        """Return all networks one edit away, with distinct `key`, without `net` itself.

        Raises:
            ArchitectureError: `net` is not of this space.
        """
        found: dict[str, Network] = {}
        for code in self._edits(self._code(net)):
            other = self._shared_network(code)
            found.setdefault(self.key(other), other)
        found.pop(self.key(net), None)
        return list(found.values())

    def __iter__(self) -> Iterator[Network]:
        """Yield every network once, lazily, in a fixed order."""
        return (self._network(code) for code in self._codes())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the space: it is immutable, and its tables are large."""
        del memo
        return self

    # --- identity ---------------------------------------------------------------------------------

    def canonical(self, net: Network) -> Network:
        """Return the one network that stands for all that the space counts as the same.

        In NAS-Bench-101 and DARTS these are the isomorphic ones; elsewhere each official string
        is an architecture of its own, even where two strings compute the same.

        Raises:
            ArchitectureError: `net` is not of this space.
        """
        self._code(net)
        return net

    def key(self, net: Network) -> str:
        """Return a string, equal for two networks exactly when the space counts them as one.

        Raises:
            ArchitectureError: `net` is not of this space.
        """
        return self.canonical(net).spec

    def contains(self, net: object) -> bool:
        """Return whether `net` is a network of this space, with this space's options."""
        return isinstance(net, Network) and self._find_code(net) is not None

    __contains__ = contains

    # --- strings and rows -------------------------------------------------------------------------

    def from_string(self, text: str) -> Network:
        """Build the network of an official string.

        Raises:
            TypeError: `text` is not a str.
            ArchitectureError: The string is malformed or outside the space; the message gives the
                string, the position and what was expected there.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a str; got {text!r} of type {type(text).__name__}")
        return self._shared_network(self._parse(text))

    def to_string(self, net: Network) -> str:
        """Return the official string of a network.

        Raises:
            TypeError: `net` is not a Network.
            ArchitectureError: `net` is not of this space.
        """
        self._code(net)
        return net.spec

    @property
    def dim(self) -> int:
        """Number of columns of an encoded row."""
        return len(self._columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """What each column of an encoded row holds."""
        return self._columns

    def encode(self, nets: Sequence[Network]) -> Tensor:
        """Return one self-contained row of numbers per network.

        Args:
            nets: N networks of this space.

        Returns:
            (N, d) float64 on the CPU; whole numbers, named by `columns`.

        Raises:
            TypeError: `nets` is a single network, or an entry is not a Network.
            ArchitectureError: An entry is not of this space; the message gives its index.
        """
        if isinstance(nets, Network):
            raise TypeError("nets must be a sequence of Network; got a single one (pass [net])")
        codes = [self._code(net, f"nets[{place}]") for place, net in enumerate(nets)]
        return torch.tensor(codes, dtype=torch.float64).reshape(len(codes), self.dim)

    def decode(self, X: Tensor) -> list[Network]:
        """Return the networks that `encode` described.

        Args:
            X: (N, d) tensor, any floating or integer dtype, any device.

        Raises:
            TypeError: `X` is not a tensor.
            ValueError: Wrong shape.
            ArchitectureError: A row is not finite, not whole, or describes no network of this
                space; the message gives the row, the column and what was expected.
        """
        return [self._shared_network(tuple(code)) for code in self._check_rows(X).tolist()]

    def _check_rows(self, X: Tensor) -> Tensor:
        kind("X", X, Tensor, hint="pass space.encode(nets)")
        if X.dim() != 2 or X.shape[1] != self.dim:
            raise ValueError(
                f"X must have shape (N, {self.dim}), one row of {self.name!r} per network; got "
                f"{tuple(X.shape)} (rows come from this space's encode)"
            )
        values = X.detach().to("cpu", torch.float64)
        rounded = values.round()
        self._check_all(torch.isfinite(values), values, "finite")
        self._check_all((values - rounded).abs() <= _INTEGER_TOLERANCE, values, "a whole number")
        # Anything beyond is out of range in every space, and int64 must not overflow.
        rows = rounded.clamp(-(2**31), 2**31).long()
        fault = self._fault(rows)
        if fault is not None:
            row, reason = fault
            raise ArchitectureError(
                f"X[{row}] = {rows[row].tolist()} describes no network of {self!r}: {reason} "
                "(rows come from this space's encode)"
            )
        return rows

    def _check_all(self, valid: Tensor, values: Tensor, expected: str) -> None:
        if not valid.all():
            row, column = (~valid).nonzero()[0].tolist()
            raise ArchitectureError(
                f"X[{row}, {column}] ({self._columns[column]}) must be {expected}; got "
                f"{values[row, column].item():g} (rows come from this space's encode)"
            )

    # --- costs ------------------------------------------------------------------------------------

    @overload
    def unreachable_cost(self, eps: float, *, normalize: bool = ...) -> float: ...
    @overload
    def unreachable_cost(self, eps: Tensor, *, normalize: bool = ...) -> Tensor: ...
    def unreachable_cost(self, eps: float | Tensor, *, normalize: bool = True) -> float | Tensor:
        """Return the pair cost that stands for "no path from i to k", one for the whole space.

        A constant that no finite pair cost in the space exceeds, eps * max D +
        (1 - eps) * max H, with max H = 1 for normalised path lengths and `max_nodes - 1` for raw
        ones. The printed infinity would make almost every two cells infinitely different.

        Args:
            eps: Weight of the operation cost, in [0, 1]; a tensor keeps its gradient.
            normalize: Whether path lengths are divided by the cell's longest path.

        Raises:
            ValueError: A float `eps` outside [0, 1].
        """
        if not isinstance(eps, Tensor):
            number("eps", eps, least=0.0, most=1.0)
        costs = self.tree.distance_matrix(dtype=torch.float64).detach()
        longest = 1.0 if normalize else self.max_nodes - 1.0
        return eps * costs.max().item() + (1 - eps) * longest

    # --- shared by the spaces ---------------------------------------------------------------------

    def _cell(self, key: Hashable) -> Cell:
        """Return the cell of `key`; equal cells are one object, whatever their keys."""
        cell = self._cells.get(key)
        if cell is None:
            if len(self._cells) + 2 > _MAX_SHARED_CELLS:
                self._cells.clear()
            made = self._make_cell(key)
            cell = self._cells[key] = self._cells.setdefault(made, made)
        return cell

    def _shared_network(self, code: Code) -> Network:
        """Return the network of `code`, one object for all who ask."""
        net = self._networks.get(code)
        if net is None:
            if len(self._networks) >= _MAX_SHARED_NETWORKS:
                self._networks.clear()
                self._known_codes.clear()
            net = self._networks[code] = self._network(code)
            self._known_codes[net.spec] = code
        return net

    def _find_code(self, net: Network) -> Code | None:
        code = self._known_codes.get(net.spec)
        if code is None:
            try:
                code = self._parse(net.spec)
            except ArchitectureError:
                return None
        found = self._shared_network(code)
        return code if found is net or found == net else None

    def _code(self, net: Network, argument: str = "net") -> Code:
        hint = "from_string builds one from text, decode from a row"
        kind(argument, net, Network, hint=hint)
        code = self._find_code(net)
        if code is None:
            raise ArchitectureError(
                f"{argument} with spec {net.spec!r} is not a network of {self!r} (networks come "
                "from this space's sample, from_string or decode; another space, or the same one "
                "with other options, builds other networks)"
            )
        return code

    def _malformed(self, text: str, position: int, expected: str) -> ArchitectureError:
        """Build the error for an official string that is wrong at `position`."""
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        got = repr(text[position : position + 20]) if position < len(text) else "the end"
        return ArchitectureError(
            f"{shown!r} is no {self.name} string: expected {expected} at position {position}; "
            f"got {got}"
        )

    def __getstate__(self) -> dict[str, Any]:
        # Copies start with an empty table of cells: it is a cache, and may be large.
        return {**self.__dict__, "_cells": {}, "_networks": {}, "_known_codes": {}}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def out_of_range(
    rows: Tensor, columns: Sequence[str], sizes: Sequence[int]
) -> tuple[int, str] | None:
    """Find the first row with an entry outside 0..size-1 of its column.

    Args:
        rows: (N, d) int64.
        columns: d names for the message.
        sizes: d numbers of values.
    """
    wrong = (rows < 0) | (rows >= torch.tensor(sizes))
    if not wrong.any():
        return None
    row, column = wrong.nonzero()[0].tolist()
    return row, f"{columns[column]} (column {column}) must be in 0..{sizes[column] - 1}"


def first_row(wrong: Tensor, reason: str) -> tuple[int, str] | None:
    """Return the first row marked in `wrong` (N,) with the reason, or None."""
    return (int(wrong.nonzero()[0].item()), reason) if wrong.any() else None


def draw_integers(high: int, size: Iterable[int], generator: torch.Generator) -> Tensor:
    """Draw integers uniformly from 0..high-1 on the generator's device, returned on the CPU."""
    drawn = torch.randint(high, tuple(size), generator=generator, device=generator.device)
    return drawn.cpu()


def draw_index(size: int, generator: torch.Generator) -> int:
    """Draw one integer uniformly from 0..size-1."""
    return int(draw_integers(size, (1,), generator).item())


def check_space(space: object) -> SearchSpace:
    """Return `space` if it is a search space.

    Raises:
        TypeError: It is none.
    """
    hint = "hotnas_torch.spaces.get(name) makes one"
    return kind("space", space, SearchSpace, hint=hint)
