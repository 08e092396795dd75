# Over 400 lines: one space, its points and its strings.
"""Architectures together with the hyperparameters that they are trained with."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import kind, random_generator, shown
from hotnas_torch.errors import ArchitectureError, SizeError
from hotnas_torch.spaces.base import Code, SearchSpace, draw_index
from hotnas_torch.spaces.frames import frame_rows, is_frame
from hotnas_torch.spaces.hyperparameters import (
    Hyperparameter,
    Value,
    described,
    hyperparameter,
)

__all__ = [
    "ConfiguredNetwork",
    "Joint",
    "check_architectures",
    "check_free_name",
    "network_space",
]

_NONE: Mapping[str, Value] = MappingProxyType({})
# What a mutation changes, each as often: the network, the hyperparameters, or both.
_KINDS_OF_MUTATION = 3


@dataclass(frozen=True, slots=True)
class ConfiguredNetwork(Network):
    """A network with the values of hyperparameters, a point of a `Joint` space.

    It is the network wherever one is wanted, and unpacks as a pair: `network, values = point`.

    Args:
        values: Values by the names of the hyperparameters, in the order of the space.
        network_spec: The network's official string in the space of networks; `spec` is that of the
            pair.
    """

    values: Mapping[str, Value] = field(default_factory=lambda: _NONE)
    network_spec: str = ""

    def __post_init__(self) -> None:
        Network.__post_init__(self)
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    @property
    def network(self) -> Network:
        """The network alone, as its own space has it."""
        fields = (*Network._fields(self)[:-1], self.network_spec)
        return Network(*fields)

    def __iter__(self) -> Iterator[Any]:
        """Yield the network and the values."""
        return iter((self.network, self.values))

    def to_json(self) -> dict[str, Any]:
        """Return a description ready for `json.dumps`: the network's, `values`, `network_spec`."""
        own = {"values": dict(self.values), "network_spec": self.network_spec}
        return Network.to_json(self) | own

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the pair that `to_json` described; errors as for `Network.from_json`."""
        if not isinstance(data, Mapping):
            raise TypeError(f"a configured network must be a mapping; got {shown(data)}")
        rest = dict(data)
        values, spec = rest.pop("values", None), rest.pop("network_spec", None)
        if not isinstance(values, Mapping) or not isinstance(spec, str):
            raise ArchitectureError(
                "a configured network must hold 'values', an object, and 'network_spec', a string"
                f"; got {shown(values)} and {shown(spec)}"
            )
        fields = (*Network.from_json(rest)._fields(), values, spec)
        return cls(*fields)

    def __hash__(self) -> int:
        return Network.__hash__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (*Network._fields(self), dict(self.values), self.network_spec)
        return (ConfiguredNetwork, fields)


class Joint(SearchSpace):
    """The pairs of a network and values of hyperparameters, to be searched together.

    A point is a `ConfiguredNetwork`, and an objective gets it as its one argument::

        space = ht.spaces.Joint(
            ht.spaces.NASBench201(),
            {"lr": Log(1e-4, 1.0), "batch": [32, 64, 128], "optimizer": ["sgd", "adam"]},
        )
        run(HOTNAS(space, generator=...), lambda net: train(net.network, **net.values), budget=60)

    The official string is the values as JSON and the network's string,
    `{"lr": 0.1, "batch": 64, "optimizer": "sgd"} |nor_conv_3x3~0|+...`. An encoded row is the
    network's, followed by a column per hyperparameter: a number itself, an option by its place.

    A sample draws both independently. A mutation changes the network, the hyperparameters (each
    with probability 1 / their number, at least one) or both, each case as often. Neighbours differ
    in an edit of the network or in one hyperparameter: the next integers and options in an order,
    numbers 1 % and 10 % of the range away, all other options without an order.

    Models multiply a kernel between networks with one between values: Matern-5/2 with a lengthscale
    each for numbers and ordered options (logarithms where the scale is one), exp(-differences) for
    options without an order.

    Args:
        space: Space of the networks.
        hyperparameters: By name, `Float`, `Log`, `Integer`, `Ordered` or `Categorical`; or a list
            of values, which stands for `Ordered` where it holds numbers from small to large, and
            for `Categorical` otherwise.

    Attributes:
        space: As passed.
        hyperparameters: By name, lists replaced by what they stand for.

    Raises:
        TypeError: `space` is no SearchSpace, `hyperparameters` no mapping, or an entry is none.
        ValueError: `space` has hyperparameters already, there is none, or a name is empty or
            unprintable.

    Example:
        >>> from hotnas_torch.spaces import Log, Pooling
        >>> space = Joint(Pooling(), {"lr": Log(1e-4, 1.0), "batch": [32, 64]})
        >>> point = space.from_string('{"lr": 0.1, "batch": 64} [7,1,2]')
        >>> network, values = point
        >>> network.spec, dict(values)
        ('[7,1,2]', {'lr': 0.1, 'batch': 64})
        >>> space.encode([point]).tolist()
        [[7.0, 1.0, 2.0, 0.1, 1.0]]
    """

    name = "joint"

    def __init__(self, space: SearchSpace, hyperparameters: Mapping[str, Any]) -> None:
        kind("space", space, SearchSpace)
        if isinstance(space, Joint):
            raise ValueError(
                f"space must be one of networks alone; got {space!r} (name all hyperparameters at "
                "once, beside its .space)"
            )
        given: object = hyperparameters
        if not isinstance(given, Mapping):
            raise TypeError(
                f"hyperparameters must be a mapping of them by name; got {shown(given)}"
            )
        if not given:
            raise ValueError("hyperparameters must hold at least one; got none (search in space)")
        found: dict[str, Hyperparameter] = {}
        for name, one in given.items():
            if not isinstance(name, str):
                raise TypeError(f"names of hyperparameters must be str; got {shown(name)}")
            if not name or not name.isprintable():
                raise ValueError(
                    f"names of hyperparameters must be printable and not empty; got {name!r}"
                )
            found[name] = hyperparameter(f"hyperparameters[{name!r}]", one)
        # Codes hold the values themselves; ranges of their columns are nobody's business.
        columns = dict(zip(space.columns, space.values, strict=True)) | dict.fromkeys(found, 1)
        if len(columns) < space.dim + len(found):
            name = next(name for name in found if name in space.columns)
            raise ValueError(
                f"hyperparameters must not be called as a column of {space!r}; got {name!r}"
            )
        super().__init__(columns, labels=(), tree=space.tree, published_tree=space.published_tree)
        self.space = space
        self.hyperparameters: Mapping[str, Hyperparameter] = MappingProxyType(found)
        self.operations = space.operations
        self.max_nodes = space.max_nodes
        self.state_scale = space.state_scale
        self.repeats_one_cell = space.repeats_one_cell
        self.nests_cells = space.nests_cells

    def size(self) -> int:
        """Return the number of pairs.

        Raises:
            SizeError: A hyperparameter is continuous, or the networks cannot be counted.
        """
        for name, one in self.hyperparameters.items():
            if math.isinf(one.size):
                raise SizeError(f"{self!r} has infinitely many pairs: {name!r} is continuous")
        return self.space.size() * self._num_values()

    def size_bound(self) -> int:
        """Return the number of pairs, or a larger one; `math.inf` with continuous numbers."""
        number = self._num_values()
        return number if number == math.inf else self.space.size_bound() * number

    def _num_values(self) -> int:
        number = math.prod(one.size for one in self.hyperparameters.values())
        return math.inf if math.isinf(number) else int(number)  # type: ignore[return-value]

    def description(self) -> dict[str, str]:
        """Return what every space does, and what its space of networks does, as JSON."""
        networks = json.dumps(self.space.description(), sort_keys=True)
        return super().description() | {"networks": networks}

    def configure(self, network: Network, values: Mapping[str, Any]) -> ConfiguredNetwork:
        """Return the pair of a network and values.

        Args:
            network: A network of `space`.
            values: A value per hyperparameter; numbers of NumPy and torch count as such.

        Raises:
            TypeError: `network` is no Network, `values` no mapping, or a value of another kind.
            ArchitectureError: `network` is not of `space`.
            ValueError: A hyperparameter is missing or unknown, or a value out of range; the message
                names it.
        """
        inner = self.space.code_of(network, "network")
        return self._configured((*inner, *self._checked(values)))

    def canonical_code(self, code: Code) -> Code:
        """Return the code of the pair whose network stands for all that its space counts as one."""
        inner, values = self._parts(code)
        return (*self.space.canonical_code(inner), *values)

    def mutate(self, net: Network, *, generator: torch.Generator | None = None) -> Network:
        """Draw a pair near `net`: another network, other values, or both."""
        generator = random_generator(generator)
        return self._configured(self.mutate_code(self.code_of(net), generator))

    def neighbors(self, net: Network) -> list[Network]:
        """Return all pairs that differ in an edit of the network or in one hyperparameter."""
        return [self._configured(code) for code in self.neighbor_codes(self.code_of(net))]

    def encode(self, nets: Sequence[Network]) -> Tensor:
        """Return one row per pair, (N, d) float64; arguments and errors as for every space."""
        if isinstance(nets, Network):
            raise TypeError("nets must be a sequence of Network; got a single one (pass [net])")
        codes = [self.code_of(net, f"nets[{place}]") for place, net in enumerate(nets)]
        rows = [[*inner, *self._entries(values)] for inner, values in map(self._parts, codes)]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), self.dim)

    def decode(self, X: Tensor) -> list[Network]:
        """Return the pairs that `encode` described; arguments and errors as for every space."""
        rows = self._check_rows(X).tolist()
        found: list[Network] = []
        for row in rows:
            entries = zip(self.hyperparameters.values(), row[self.space.dim :], strict=True)
            values: list[Any] = [one.from_column(entry) for one, entry in entries]
            found.append(self._configured((*map(int, row[: self.space.dim]), *values)))
        return found

    def scaled(self, rows: Tensor) -> Tensor:
        """Return the hyperparameters of rows as a kernel sees them.

        Args:
            rows: Rows of this space, (..., d).

        Returns:
            (..., h), a column per hyperparameter: in [0, 1], on a logarithmic scale where it has
            one; places of options without an order.
        """
        columns = zip(
            self.hyperparameters.values(), rows[..., self.space.dim :].unbind(-1), strict=True
        )
        return torch.stack([one.scaled(column) for one, column in columns], dim=-1)

    # --- what a space defines ---------------------------------------------------------------------

    def all_codes(self) -> Iterator[Code]:
        for name, one in self.hyperparameters.items():
            if math.isinf(one.size):
                raise ArchitectureError(
                    f"{self!r} cannot be enumerated: {name!r} is continuous (draw with sample)"
                )
        values: list[list[Any]] = [list(one.values()) for one in self.hyperparameters.values()]
        for inner in self.space.all_codes():
            yield from ((*inner, *chosen) for chosen in itertools.product(*values))

    def parse_code(self, text: str) -> Code:
        if not text.startswith("{"):
            raise self.malformed(text, 0, "'{' before the values of the hyperparameters")
        try:
            found, end = json.JSONDecoder().raw_decode(text)
        except json.JSONDecodeError as error:
            raise self.malformed(text, error.pos, "the values as JSON") from error
        except (ValueError, RecursionError) as error:
            raise self.malformed(text, 0, "the values as JSON") from error
        if not text.startswith(" ", end):
            raise self.malformed(text, end, "a space before the network's string")
        try:
            values = self._checked(found)
        except (TypeError, ValueError) as error:
            raise ArchitectureError(
                f"{_short(text)!r} is no {self.name} string: {error}"
            ) from error
        code: Code = (*self.space.parse_code(text[end + 1 :]), *values)
        if (expected := self.format_code(code)) != text:
            place = next(
                (n for n, (a, b) in enumerate(zip(expected, text, strict=False)) if a != b),
                min(len(expected), len(text)),
            )
            raise self.malformed(text, place, repr(expected[place : place + 20] or "the end"))
        return code

    def format_code(self, code: Code) -> str:
        inner, values = self._parts(code)
        named = dict(zip(self.hyperparameters, values, strict=True))
        return f"{json.dumps(named)} {self.space.format_code(inner)}"

    def build_network(self, code: Code) -> Network:
        inner, values = self._parts(code)
        network = self.space.network_of(inner)
        named = dict(zip(self.hyperparameters, values, strict=True))
        fields = (*network._fields()[:-1], self.format_code(code), named, network.spec)
        return ConfiguredNetwork(*fields)

    def draw_codes(self, num: int, generator: torch.Generator) -> list[Code]:
        drawn: list[Code] = []
        for network in self.space.sample(num, generator=generator):
            values: list[Any] = [one.draw(generator) for one in self.hyperparameters.values()]
            drawn.append((*self.space.code_of(network), *values))
        return drawn

    def mutate_code(self, code: Code, generator: torch.Generator) -> Code:
        inner, values = self._parts(code)
        kind_of = draw_index(_KINDS_OF_MUTATION, generator)
        alone = self.space.size_bound() == 1
        if kind_of != 0 or alone:
            values = self._changed(values, generator)
        if kind_of != 1 and not alone:
            network = self.space.network_of(inner)
            inner = self.space.code_of(self.space.mutate(network, generator=generator))
        return (*inner, *values)

    def _changed(self, values: tuple[Any, ...], generator: torch.Generator) -> tuple[Any, ...]:
        number = len(values)
        first = draw_index(number, generator)
        return tuple(
            one.mutate(value, generator)
            if place == first or draw_index(number, generator) == 0
            else value
            for place, (one, value) in enumerate(
                zip(self.hyperparameters.values(), values, strict=True)
            )
        )

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        inner, values = self._parts(code)
        for network in self.space.neighbors(self.space.network_of(inner)):
            yield (*self.space.code_of(network), *values)
        for place, one in enumerate(self.hyperparameters.values()):
            others: list[Any] = one.neighbors(values[place])
            for other in others:
                yield (*inner, *values[:place], other, *values[place + 1 :])

    def find_fault(self, rows: Tensor) -> tuple[int, str] | None:
        for place, (name, one) in enumerate(self.hyperparameters.items(), self.space.dim):
            for row, entry in enumerate(rows[:, place].tolist()):
                try:
                    one.from_column(entry)
                except ValueError as error:
                    return row, f"{name} (column {place}) must be {error}"
        return None

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
        self._check_all(torch.isfinite(values), values, "finite")
        networks = self.space._check_rows(values[:, : self.space.dim])
        if (fault := self.find_fault(values)) is not None:
            row, reason = fault
            raise ArchitectureError(
                f"X[{row}] = {values[row].tolist()} describes no network of {self!r}: {reason} "
                "(rows come from this space's encode)"
            )
        return torch.cat([networks.double(), values[:, self.space.dim :]], dim=1)

    # --- parts ------------------------------------------------------------------------------------

    def _configured(self, code: Code) -> ConfiguredNetwork:
        found = self.network_of(code)
        assert isinstance(found, ConfiguredNetwork)
        return found

    def _parts(self, code: Code) -> tuple[Code, tuple[Any, ...]]:
        """Split the code of a pair into that of the network and the values."""
        return code[: self.space.dim], code[self.space.dim :]

    def _entries(self, values: tuple[Any, ...]) -> list[float]:
        pairs = zip(self.hyperparameters.values(), values, strict=True)
        return [one.to_column(value) for one, value in pairs]

    def _checked(self, values: object) -> tuple[Any, ...]:
        if not isinstance(values, Mapping):
            raise TypeError(f"values must be a mapping by name; got {shown(values)}")
        wanted = ", ".join(map(repr, self.hyperparameters))
        for name in self.hyperparameters:
            if name not in values:
                raise ValueError(f"values must hold {wanted}; got none for {name!r}")
        for name in values:
            if name not in self.hyperparameters:
                raise ValueError(f"values must hold {wanted}; got {name!r} as well")
        return tuple(
            one.checked(f"values[{name!r}]", values[name])
            for name, one in self.hyperparameters.items()
        )

    def __getstate__(self) -> dict[str, Any]:
        # A read-only view of a dict cannot be sent to other processes.
        return super().__getstate__() | {"hyperparameters": dict(self.hyperparameters)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        view = MappingProxyType(state["hyperparameters"])
        self.__dict__.update(state | {"hyperparameters": view})

    def __repr__(self) -> str:
        return f"Joint({self.space!r}, {described(self.hyperparameters)})"


def network_space(space: SearchSpace) -> SearchSpace:
    """Return the space of networks: that of a `Joint` space, or the space itself."""
    return space.space if isinstance(space, Joint) else space


def check_architectures(who: str, space: SearchSpace) -> None:
    """Refuse hyperparameters where they would be ignored.

    Raises:
        ValueError: `space` is a `Joint` space.
    """
    if isinstance(space, Joint):
        raise ValueError(
            f"{who} sees networks alone, and would ignore the hyperparameters of {space!r} (pass "
            "its .space to leave them out; HOTNAS, CombinedBO, NASBOWL, NASBOT, BOTW, BOEdit,"
            " evolution, local and random search take both)"
        )


def check_free_name(argument: str, name: str, space: SearchSpace) -> None:
    """Refuse a name for the architecture that is also one of a hyperparameter.

    Raises:
        ValueError: It is.
    """
    if name in space.hyperparameters:
        raise ValueError(
            f"{argument}: {name!r} is what the architecture's string is called, and a "
            f"hyperparameter of {space!r} (call one of them something else)"
        )


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
