"""Spaces of one's own that are a list: a model zoo, a table."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.arch import Network, OperationTree
from hotnas_torch.arguments import integer, kind, random_generator, shown
from hotnas_torch.distances import HOTNN, NetworkDistance
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces.base import Code, SearchSpace, draw_integers, draw_rank
from hotnas_torch.spaces.declared.probe import Probe, own_name

__all__ = ["Finite"]

# A mutation draws one of so many nearest networks.
_MUTATION_RANGE = 64
_MOST_NEIGHBORS = 8
# Of the largest distance: what a matrix may be from symmetric, and its diagonal from 0.
_ROUNDING = 1e-5


class Finite(SearchSpace):
    """A search space that is a list of networks, each with a name.

    The string of a network is its name. Its neighbours are the nearest others by a distance,
    nearest first; a mutation is one of the 64 nearest, near ones more often: ranks 1, 2-3, 4-7, ...
    are equally likely. Networks that are equal but for their names are different members.

    Args:
        networks: Networks by their names; or a list, named by their `spec`, or where all of these
            are empty by their places: `"0"`, `"1"`, ...
        distance: What is near: a distance between networks, or a symmetric (N, N) matrix of numbers
            >= 0, 0 on its diagonal, in the order of `networks`. None is `HOTNN` with its defaults.
        num_neighbors: How many neighbours a network has; fewer if there are fewer networks.
        tree: Operation costs; None puts all operations 2 apart.
        name: Of the space, for records and reports.

    Raises:
        TypeError: An argument or a network of the wrong kind.
        ValueError: There is no network, a name is empty or repeats, or the matrix does not fit.
        ArchitectureError: A network has an operation that `tree` does not know.

    Complexity: one row of distances, N solves, per network whose neighbours or mutants are asked
        for; rows are kept.

    Example:
        >>> from hotnas_torch import Cell
        >>> def net(*operations):
        ...     edges = tuple((i, i + 1) for i in range(len(operations) + 1))
        ...     return Network((Cell(("input", *operations, "output"), edges),), (16,), (1,))
        >>> zoo = {"small": net("conv"), "large": net("conv", "conv"), "other": net("pool")}
        >>> space = Finite(zoo)
        >>> [other.spec for other in space.neighbors(space.from_string("large"))]
        ['small', 'other']
    """

    def __init__(
        self,
        networks: Mapping[str, Network] | Sequence[Network],
        distance: NetworkDistance | Tensor | Any = None,
        *,
        num_neighbors: int = _MOST_NEIGHBORS,
        tree: OperationTree | None = None,
        name: str = "finite",
    ) -> None:
        members = _named(networks)
        self.name = own_name(name)
        self.num_neighbors = integer("num_neighbors", num_neighbors, least=1)
        self._names = tuple(members)
        self._members = tuple(
            dataclasses.replace(net, spec=member) for member, net in members.items()
        )
        self._places = {member: place for place, member in enumerate(members)}
        self._distance: NetworkDistance | Tensor | None = distance
        if distance is not None and not isinstance(distance, NetworkDistance):
            self._distance = _checked_matrix(distance, len(members))
        self._nearest: dict[int, list[int]] = {}
        probe = Probe(self._members, operations=None, tree=tree, max_nodes=None, state_scale=None)
        self.operations = probe.operations
        self.max_nodes = probe.max_nodes
        self.state_scale = probe.state_scale
        self.nests_cells = probe.nests_cells
        super().__init__({"network": len(members)}, probe.operations, tree=probe.tree)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all networks, in their order."""
        return self._names

    def size(self) -> int:
        """Return the number of networks."""
        return len(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def neighbors(self, net: Network, *, num: int | None = None) -> list[Network]:
        """Return the nearest networks, nearest first, without `net` itself.

        Args:
            net: A network of the space.
            num: How many, >= 1; None is `num_neighbors`.

        Raises:
            ArchitectureError: `net` is not of this space.
            ValueError: `num` is below 1.
        """
        most = self.num_neighbors if num is None else integer("num", num, least=1)
        (place,) = self.code_of(net)
        return [self.network_of((other,)) for other in self._nearest_to(place)[:most]]

    def mutate(self, net: Network, *, generator: torch.Generator | None = None) -> Network:
        """Draw a network near `net`, see the class.

        Raises:
            ArchitectureError: `net` is not of this space, or the only one.
            TypeError, ValueError: As `sample`.
        """
        generator = random_generator(generator)
        code = self.code_of(net)
        if len(self) == 1:
            raise ArchitectureError(f"net {net.spec!r} has no neighbour in {self!r} to mutate to")
        return self.network_of(self.mutate_code(code, generator))

    def _nearest_to(self, place: int) -> list[int]:
        """Places of all others, nearest first and then by place."""
        if place not in self._nearest:
            if self._distance is None:
                self._distance = HOTNN(space=self)
            if isinstance(self._distance, Tensor):
                row = self._distance[place]
            else:
                with torch.no_grad():
                    row = self._distance([self._members[place]], self._members)[0].cpu()
            order: list[int] = row.argsort(stable=True).tolist()
            order.remove(place)
            self._nearest[place] = order
        return self._nearest[place]

    def build_network(self, code: Code) -> Network:
        return self._members[code[0]]

    def draw_codes(self, num: int, generator: torch.Generator) -> list[Code]:
        drawn = draw_integers(len(self), (num,), generator)
        return [(place,) for place in drawn.tolist()]

    def mutate_code(self, code: Code, generator: torch.Generator) -> Code:
        nearest = self._nearest_to(code[0])[:_MUTATION_RANGE]
        return (nearest[draw_rank(len(nearest), generator)],) if nearest else code

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        return ((other,) for other in self._nearest_to(code[0])[: self.num_neighbors])

    def format_code(self, code: Code) -> str:
        return self._names[code[0]]

    def parse_code(self, text: str) -> Code:
        if text not in self._places:
            near = difflib.get_close_matches(text, self._names, n=1)
            meant = f" (did you mean {near[0]!r}?)" if near else ""
            raise ArchitectureError(
                f"{text!r} is not the name of one of the {len(self)} networks of {self!r}{meant}"
            )
        return (self._places[text],)

    def description(self) -> dict[str, str]:
        """Return name, `repr` and a digest of the networks."""
        text = "\n".join(f"{net.key} {net.spec}" for net in self._members)
        digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return super().description() | {"networks": digest}

    def __repr__(self) -> str:
        return f"Finite({self.name!r}, {len(self)} networks)"


def _named(networks: object) -> dict[str, Network]:
    if isinstance(networks, Mapping):
        found = dict(networks)
    elif isinstance(networks, Sequence) and not isinstance(networks, str):
        nets = [kind(f"networks[{place}]", net, Network) for place, net in enumerate(networks)]
        by_place = not any(net.spec for net in nets)
        found = {}
        for place, net in enumerate(nets):
            name = str(place) if by_place else net.spec
            if name in found or not name:
                what = "is repeated" if name else "is empty"
                raise ValueError(
                    f"networks must have different names; the spec {name!r} of networks[{place}] "
                    f"{what} (pass a dict of networks by their names)"
                )
            found[name] = net
    else:
        raise TypeError(
            f"networks must be a list of Network or a dict of them by name; got {shown(networks)}"
        )
    if not found:
        raise ValueError("networks must hold at least one network; got none")
    for name, net in found.items():
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ValueError(
                f"names of networks must be printable texts that are not empty; got {name!r}"
            )
        kind(f"networks[{name!r}]", net, Network)
    return found


def _checked_matrix(given: Any, size: int) -> Tensor:
    try:
        matrix = torch.as_tensor(given).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"distance must be a distance between networks or a matrix; got {shown(given)}"
        ) from None
    if matrix.is_complex() or matrix.dtype == torch.bool:
        raise TypeError(f"distance must hold real numbers; got {matrix.dtype}")
    matrix = matrix.double()
    if matrix.shape != (size, size):
        raise ValueError(
            f"distance must have shape ({size}, {size}), a row and a column per network; got "
            f"{tuple(matrix.shape)}"
        )
    wrong = ~(torch.isfinite(matrix) & (matrix >= 0.0))
    if wrong.any():
        row, column = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"distance[{row}, {column}] must be finite and >= 0; got {matrix[row, column].item():g}"
        )
    # A similarity would have its nearest farthest.
    allowed = _ROUNDING * matrix.max()
    if (wrong := matrix.diagonal() > allowed).any():
        place = int(wrong.nonzero()[0].item())
        raise ValueError(
            f"distance[{place}, {place}] must be 0, of a network to itself; got "
            f"{matrix[place, place].item():g} (a similarity is none)"
        )
    if (wrong := (matrix - matrix.T).abs() > allowed).any():
        row, column = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"distance must be symmetric; distance[{row}, {column}] = {matrix[row, column]:g}, and "
            f"distance[{column}, {row}] = {matrix[column, row]:g} (pass (D + D.T) / 2)"
        )
    return matrix
