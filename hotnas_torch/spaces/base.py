# Over 400 lines: one interface, most of it documentation.
"""What every search space can do: sample, mutate, list neighbours, read and write architectures."""

import dataclasses
import itertools
import math
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self, overload

import torch
from torch import Tensor

from hotnas_torch.arch import Cell, Network, OperationTree
from hotnas_torch.arguments import integer, kind, number, random_generator
from hotnas_torch.errors import ArchitectureError, SizeError
from hotnas_torch.spaces.families import flat_tree
from hotnas_torch.spaces.frames import frame_rows, is_frame

__all__ = [
    "Code",
    "SearchSpace",
    "check_space",
    "draw_index",
    "draw_integers",
    "draw_rank",
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
# Codes that `size` looks at one by one, and random ones without a valid one before drawing ends.
_MOST_COUNTED = 2**20
_MOST_DRAWS = 20_000
# A list of more networks takes gigabytes.
_MOST_LISTED = 2**22
# Draws in a row that meet known networks before a space of unknown size counts as drawn out.
_MOST_MISSES = 300
# Longer ones are beyond every number here, and beyond what int() reads.
_NUMBER = re.compile(r"-?[0-9]{1,9}", re.ASCII)


class SearchSpace(ABC):
    """A set of networks with random access, edits, official strings and encoded rows.

    A space is immutable; all randomness comes from the `torch.Generator` that the caller passes.
    A network of the space carries its official string in `spec`.

    A space of one's own says its `name`, `operations`, `max_nodes` and `state_scale`, calls this
    constructor, and defines `build_network`. A code of it is a tuple of integers, one per column.
    It may also define `fault_of` (which codes are none), how codes are listed, drawn and edited
    (`all_codes`, `draw_codes`, `neighbor_codes`, `mutate_code`), written (`format_code`,
    `parse_code`), counted (`size`), and which of them are the same (`canonical_code`). The tests of
    `hotnas_torch.testing.SearchSpaceContract` say what all of them have to keep.

    Args:
        columns: What each column of a code holds, and its values: a number of values, which count
            from 0, or a range with step 1.
        labels: Labels that cells of the space can carry.
        tree: Operation costs; None is `default_tree`.
        default_tree: The space's own; None takes a tree in which all labels are 2 apart.
        published_tree: What HOTNAS prints for these operations, where the space's own differs;
            None is `tree`.

    Raises:
        TypeError: `tree` is no OperationTree.
        ArchitectureError: It lacks a label.

    Attributes:
        name: Name that `hotnas_torch.spaces.get` knows.
        operations: Labels that are searched over.
        tree: Operation costs, by default the space's own; knows every label that a cell can carry.
        published_tree: Those of `preset="paper"`: as HOTNAS prints them, where that says more or
            else than the space's own.
        max_nodes: Largest number of nodes of a cell, input and output included.
        state_scale: Divisors that bring a cell's state, (log2 of its width relative to
            `input_channels`, log2 of its downsampling), into [0, 1].
        hyperparameters: What its networks have values of, by name; only `Joint` has any.
        repeats_one_cell: Whether every network repeats one searched cell on one fixed skeleton, so
            that positions and widths tell no two networks apart.
        nests_cells: Whether networks have cells of cells, of whose distances nothing is learned.
        operation_columns: Columns that hold the number of an operation in `operations` each, of
            which every filling is an architecture; another number is an empty place. Operation
            distributions are over them; without any there are none.
        values: Range of each column.
        dim: Number of columns d of an encoded row.

    Example:
        >>> class Depths(SearchSpace):
        ...     name, operations, max_nodes, state_scale = "depths", ("conv",), 3, (1.0, 1.0)
        ...     def __init__(self):
        ...         super().__init__({"depth": range(1, 9)}, labels=("conv",))
        ...     def build_network(self, code):
        ...         cell = Cell(("input", "conv", "output"), ((0, 1), (1, 2)))
        ...         return Network.chain((cell,) * code[0], (1,) * code[0], (1,) * code[0])
        >>> space = Depths()
        >>> space.size(), [net.spec for net in space.neighbors(space.from_string("7"))][-1]
        (8, '8')
    """

    name: str
    operations: tuple[str, ...]
    max_nodes: int
    state_scale: tuple[float, float]
    repeats_one_cell: bool = False
    nests_cells: bool = False
    hyperparameters: Mapping[str, Any] = MappingProxyType({})
    operation_columns: tuple[int, ...] = ()

    def __init__(
        self,
        columns: Mapping[str, int | range],
        labels: Iterable[str],
        *,
        tree: OperationTree | None = None,
        default_tree: OperationTree | None = None,
        published_tree: OperationTree | None = None,
    ) -> None:
        kind("tree", tree, OperationTree, optional=True)
        kind("columns", columns, Mapping, hint="pass {name: number of values}")
        if not columns:
            raise ValueError("columns must hold at least one column; got none")
        labels = tuple(labels)
        if tree is None:
            tree = default_tree or flat_tree(("input", *labels, "output"))
        self.tree = _knowing(tree, labels)
        self.published_tree = (
            self.tree if published_tree is None else _knowing(published_tree, labels)
        )
        self._columns = tuple(columns)
        self.values = tuple(_values(name, found) for name, found in columns.items())
        self._cells: dict[Hashable, Cell] = {}
        self._networks: dict[Code, Network] = {}
        self._known_codes: dict[str, Code] = {}
        self._counted: int | None = None

    # --- what a space defines ---------------------------------------------------------------------

    @abstractmethod
    def build_network(self, code: Code) -> Network:
        """Build the network of a valid code.

        The only method that a space has to define. Equal codes must give equal networks, always.
        `spec` may be left empty: it becomes `format_code(code)`.
        """

    def fault_of(self, code: Code) -> str | None:
        """Say why a code within the ranges of its columns is not of the space; None if it is.

        Default: every such code is.
        """
        del code
        return None

    def find_fault(self, rows: Tensor) -> tuple[int, str] | None:
        """Return the first row that is no code of the space, and what is wrong with it.

        Args:
            rows: (N, d) int64.

        Default: columns out of range, then `fault_of`. A space may check all rows at once instead.
        """
        if fault := out_of_range(rows, self.columns, self.values):
            return fault
        for row, code in enumerate(rows.tolist()):
            if reason := self.fault_of(tuple(code)):
                return row, reason
        return None

    def all_codes(self) -> Iterator[Code]:
        """Yield the code of every architecture once, in a fixed order.

        Default: every combination of values without a fault.
        """
        return (code for code in itertools.product(*self.values) if not self.fault_of(code))

    def draw_codes(self, num: int, generator: torch.Generator) -> list[Code]:
        """Draw valid codes independently.

        Default: each column uniformly, again while there is a fault.
        """
        sizes = torch.tensor([len(values) for values in self.values], dtype=torch.float64)
        first = torch.tensor([values.start for values in self.values])
        found: list[Code] = []
        misses = 0
        while len(found) < num:
            batch = (num - len(found), self.dim)
            uniform = torch.rand(
                batch, generator=generator, device=generator.device, dtype=torch.float64
            )
            drawn = first + (uniform.cpu() * sizes).long()
            valid = [code for code in map(tuple, drawn.tolist()) if not self.fault_of(code)]
            found += valid
            misses = 0 if valid else misses + len(drawn)
            if misses >= _MOST_DRAWS:
                raise ArchitectureError(
                    f"none of {misses:,} random codes is in {self!r} (define draw_codes, which "
                    "draws valid ones)"
                )
        return found

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        """Yield every valid code that is one edit away, in a fixed order, repeats allowed.

        Default: another value in one column.
        """
        for place, values in enumerate(self.values):
            for value in values:
                edited = (*code[:place], value, *code[place + 1 :])
                if value != code[place] and not self.fault_of(edited):
                    yield edited

    def mutate_code(self, code: Code, generator: torch.Generator) -> Code:
        """Draw a valid code near `code`, possibly `code` itself.

        Default: one of `neighbor_codes`.
        """
        around = list(self.neighbor_codes(code))
        return around[draw_index(len(around), generator)] if around else code

    def canonical_code(self, code: Code) -> Code:
        """Return the code that stands for all that the space counts as the same.

        Default: `code`, every code is an architecture of its own.
        """
        return code

    def format_code(self, code: Code) -> str:
        """Return the official string of a valid code.

        Default: its numbers between commas.
        """
        return ",".join(map(str, code))

    def parse_code(self, text: str) -> Code:
        """Return the code of an official string, or raise what `malformed` builds."""
        position = 0
        code = []
        for place, (name, values) in enumerate(zip(self.columns, self.values, strict=True)):
            if place:
                if text[position : position + 1] != ",":
                    raise self.malformed(text, position, "','")
                position += 1
            token = _NUMBER.match(text, position)
            if token is None or int(token.group()) not in values:
                expected = f"{name}, a number in {values[0]}..{values[-1]},"
                raise self.malformed(text, position, expected)
            code.append(int(token.group()))
            position = token.end()
        if position < len(text):
            raise self.malformed(text, position, "nothing after the last number")
        if reason := self.fault_of(tuple(code)):
            raise ArchitectureError(f"{text!r} is no {self.name} string: {reason}")
        return tuple(code)

    def size(self) -> int:
        """Return the number of architectures.

        Default: they are counted one by one, once.

        Raises:
            SizeError: There are too many codes to count them so; `size_bound` says how many.
        """
        if self._counted is None:
            bound = self._code_bound()
            if bound > _MOST_COUNTED:
                raise SizeError(
                    f"the size of {self!r} must be counted one by one, and there are {bound:,} "
                    f"codes to look at, more than {_MOST_COUNTED:,} (size_bound() returns that "
                    "number)"
                )
            self._counted = sum(1 for _ in self.all_codes())
        return self._counted

    def size_bound(self) -> int:
        """Return the number of architectures, or where `size` cannot count them a larger one."""
        try:
            return self.size()
        except SizeError:
            return self._code_bound()

    def _code_bound(self) -> int:
        """Return a number that the number of codes does not exceed."""
        return math.prod(map(len, self.values))

    def description(self) -> dict[str, str]:
        """Return what tells a space from others, for records: its name, its options, its members.

        Default: `name` and `repr`.
        """
        return {"name": self.name, "space": repr(self)}

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
            return [self.network_of(code) for code in self.draw_codes(num, generator)]
        size = self.size_bound()
        if num > size:
            raise ValueError(
                f"num must be at most {size} when distinct=True, the size of {self!r}; got {num} "
                "(ask for fewer, or pass distinct=False)"
            )
        found: dict[str, Network] = {}
        misses = 0
        # Beyond a half, draws would mostly meet networks that were drawn.
        while 2 * num <= size and len(found) < num and misses < _MOST_MISSES:
            before = len(found)
            for code in self.draw_codes(num - len(found), generator):
                net = self.network_of(code)
                found.setdefault(self.key(net), net)
            misses = 0 if len(found) > before else misses + num - before
        if len(found) == num:
            return list(found.values())
        if size > _MOST_COUNTED and misses:
            raise ValueError(
                f"num must be at most what {self!r} holds; got {num}, and {misses:,} draws "
                f"found nothing beyond {len(found)} distinct networks (ask for fewer)"
            )
        left = list(self.all_codes())
        if found:
            left = [code for code in left if self.key(self.network_of(code)) not in found]
        order = torch.randperm(len(left), generator=generator, device=generator.device).tolist()
        nets = [self.network_of(left[place]) for place in order[: num - len(found)]]
        if len(found) + len(nets) < num:
            raise ValueError(
                f"num must be at most {len(found) + len(left)} when distinct=True, the size of "
                f"{self!r}; got {num} (ask for fewer, or pass distinct=False)"
            )
        return [*found.values(), *nets]

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
        mutant = self._mutant(net, generator)
        if mutant is not None:
            return mutant
        nearby = self.neighbors(net)
        choices = [other for other in nearby if other.key != net.key] or nearby
        if not choices:
            raise ArchitectureError(f"net {net.spec!r} has no neighbour in {self!r} to mutate to")
        return choices[draw_index(len(choices), generator)]

    def _mutant(self, net: Network, generator: torch.Generator) -> Network | None:
        """Draw a mutant with another graph; None where many draws find none."""
        code = self.code_of(net)
        for _ in range(_MUTATION_DRAWS):
            candidate = self.network_of(self.mutate_code(code, generator))
            if candidate.key != net.key:
                return candidate
        return None

    def neighbors(self, net: Network) -> list[Network]:
        """Return all networks one edit away, with distinct `key`, without `net` itself.

        Raises:
            ArchitectureError: `net` is not of this space.
        """
        found: dict[str, Network] = {}
        for code in self.neighbor_codes(self.code_of(net)):
            other = self.network_of(code)
            found.setdefault(self.key(other), other)
        found.pop(self.key(net), None)
        return list(found.values())

    def __iter__(self) -> Iterator[Network]:
        """Yield every network once, lazily, in a fixed order."""
        return map(self._built, self.all_codes())

    def __length_hint__(self) -> int:
        """Refuse `list(space)` where it would not end, or not fit into memory.

        Raises:
            SizeError: There are too many networks.
        """
        if (bound := self.size_bound()) > _MOST_LISTED:
            raise SizeError(
                f"{self!r} has too many networks for a list, {bound:,} where {_MOST_LISTED:,} are "
                "the most (draw some with sample, or go through them one by one in a loop)"
            )
        return bound

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
        code = self.code_of(net)
        form = self.canonical_code(code)
        return net if form == code else self.network_of(form)

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
        return self.network_of(self.parse_code(text))

    def to_string(self, net: Network) -> str:
        """Return the official string of a network.

        Raises:
            TypeError: `net` is not a Network.
            ArchitectureError: `net` is not of this space.
        """
        self.code_of(net)
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
        codes = [self.code_of(net, f"nets[{place}]") for place, net in enumerate(nets)]
        return torch.tensor(codes, dtype=torch.float64).reshape(len(codes), self.dim)

    def decode(self, X: Tensor) -> list[Network]:
        """Return the networks that `encode` described.

        Args:
            X: (N, d) tensor, any floating or integer dtype, any device; or a DataFrame of pandas,
                whose columns are found by the names in `columns`, or which has one of strings.

        Raises:
            TypeError: `X` is neither, or a column of the DataFrame holds no numbers.
            ValueError: Wrong shape, or a column is missing.
            ArchitectureError: A row is not finite, not whole, or describes no network of this
                space; the message gives the row, the column and what was expected.
        """
        return [self.network_of(tuple(code)) for code in self._check_rows(X).tolist()]

    def _check_rows(self, X: Tensor) -> Tensor:
        if is_frame(X):
            X = frame_rows("X", X, self)
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
        fault = self.find_fault(rows)
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
        largest = self.tree.largest_cost().item()
        longest = 1.0 if normalize else self.max_nodes - 1.0
        return eps * largest + (1 - eps) * longest

    # --- for spaces of one's own ------------------------------------------------------------------

    def network_of(self, code: Code) -> Network:
        """Return the network of a valid code, one object for all who ask."""
        net = self._networks.get(code)
        if net is None:
            if len(self._networks) >= _MAX_SHARED_NETWORKS:
                self._networks.clear()
                self._known_codes.clear()
            net = self._networks[code] = self._built(code)
            self._known_codes[net.spec] = code
        return net

    def code_of(self, net: Network, argument: str = "net") -> Code:
        """Return the code of a network of this space.

        Args:
            net: The network.
            argument: What the message calls it.

        Raises:
            TypeError: `net` is not a Network.
            ArchitectureError: `net` is not of this space.
        """
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

    def shared_cell(self, key: Hashable, make: Callable[[Any], Cell]) -> Cell:
        """Return the cell of `key`, made once; equal cells are one object, whatever their keys.

        Args:
            key: What the cell depends on.
            make: Builds it from the key.
        """
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = self._interned(make(key))
        return cell

    def block_of(self, code: Code) -> Any:
        """Return what a space that has this one at a place builds with; default: the network."""
        return self.network_of(code)

    def malformed(self, text: str, position: int, expected: str) -> ArchitectureError:
        """Build the error for an official string that is wrong at `position`."""
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        got = repr(text[position : position + 20]) if position < len(text) else "the end"
        return ArchitectureError(
            f"{shown!r} is no {self.name} string: expected {expected} at position {position}; "
            f"got {got}"
        )

    def _built(self, code: Code) -> Network:
        net = self.build_network(code)
        cells = tuple([self._interned(cell) for cell in net.cells])
        if net.spec and all(map(operator.is_, cells, net.cells)):
            return net
        return dataclasses.replace(net, cells=cells, spec=net.spec or self.format_code(code))

    def _interned(self, cell: Cell) -> Cell:
        if len(self._cells) + 2 > _MAX_SHARED_CELLS:
            self._cells.clear()
        return self._cells.setdefault(cell, cell)

    def _find_code(self, net: Network) -> Code | None:
        code = self._known_codes.get(net.spec)
        if code is None:
            try:
                code = self.parse_code(net.spec)
            except ArchitectureError:
                return None
        found = self.network_of(code)
        return code if found is net or found == net else None

    def __getstate__(self) -> dict[str, Any]:
        # Copies start with an empty table of cells: it is a cache, and may be large.
        return {**self.__dict__, "_cells": {}, "_networks": {}, "_known_codes": {}}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _knowing(tree: OperationTree, labels: Iterable[str]) -> OperationTree:
    """Return the tree with a row for each label, or raise for one that it lacks."""
    rows = dict.fromkeys(tree.labels)
    for label in labels:
        tree.check(label)
        rows[label] = None
    return tree.with_labels(rows) if len(rows) > len(tree.labels) else tree


def _values(name: str, given: int | range) -> range:
    values = given if isinstance(given, range) else range(integer(f"columns[{name!r}]", given))
    if not values or values.step != 1:
        raise ValueError(
            f"columns[{name!r}] must be a number of values >= 1 or a range with step 1; got {given}"
        )
    return values


def out_of_range(
    rows: Tensor, columns: Sequence[str], values: Sequence[range]
) -> tuple[int, str] | None:
    """Find the first row with an entry that is not a value of its column.

    Args:
        rows: (N, d) int64.
        columns: d names for the message.
        values: d ranges, with step 1.
    """
    least = torch.tensor([found.start for found in values])
    most = torch.tensor([found.stop - 1 for found in values])
    wrong = (rows < least) | (rows > most)
    if not wrong.any():
        return None
    row, column = wrong.nonzero()[0].tolist()
    allowed = f"{values[column].start}..{values[column].stop - 1}"
    return row, f"{columns[column]} (column {column}) must be in {allowed}"


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


def draw_rank(size: int, generator: torch.Generator) -> int:
    """Draw one integer from 0..size-1, log-uniformly: 0, 1-2, 3-6, ... are equally likely."""
    uniform = torch.rand((), generator=generator, device=generator.device).item()
    return int((size + 1) ** uniform) - 1


def check_space(space: object) -> SearchSpace:
    """Return `space` if it is a search space.

    Raises:
        TypeError: It is none.
    """
    hint = "hotnas_torch.spaces.get(name) makes one"
    return kind("space", space, SearchSpace, hint=hint)
