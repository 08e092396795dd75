"""A search space restricted to a list of its networks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import integer, kind, random_generator
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces.base import Code, SearchSpace, draw_integers, draw_rank

__all__ = ["Subset"]

# Rows compared at once when distances to all members are computed; bounds the memory.
_CHUNK = 2**16
# How many nearest members a mutation draws from where the space's operator meets none.
_MUTATION_RANGE = 64


@dataclass(frozen=True, slots=True)
class _Vicinity:
    """Members around one of them.

    Attributes:
        has_neighbors: Whether any is one edit away.
        nearest: Places of the nearest ones, nearest first.
    """

    has_neighbors: bool
    nearest: list[int]


class Subset(SearchSpace):
    """The networks of a space that a list holds, for example a published table's.

    Samples, mutations, neighbours, strings and rows stay inside the list; costs and options are the
    space's. Networks that the space counts as one (its `key`) are one member: the first in
    the list, which `canonical` returns.

    A mutation is the space's own, repeated until it meets a member; where no member is one edit
    away or none is met, one of the 64 nearest members is drawn, near ones more often.

    Args:
        space: Any search space.
        networks: Networks of `space`, at least one; repeats count once.

    Raises:
        TypeError: `space` is not a SearchSpace, or an entry not a Network.
        ValueError: `space` has hyperparameters.
        ArchitectureError: An entry is not of `space`; the message gives its index.
        ValueError: `networks` is empty.

    Complexity: one `key` per network to build; `neighbors` takes the space's own plus
        O(members * d).

    Example:
        >>> from hotnas_torch.spaces import Pooling
        >>> space = Pooling()
        >>> subset = Subset(space, [space.from_string(text) for text in ("[7,1,2]", "[1,1,8]")])
        >>> subset.size(), subset.contains(space.from_string("[2,2,6]"))
        (2, False)
    """

    def __init__(self, space: SearchSpace, networks: Iterable[Network]) -> None:
        kind("space", space, SearchSpace)
        if space.hyperparameters:
            raise ValueError(
                f"space must be one of networks alone; got {space!r} (pass its .space here, and "
                "put the hyperparameters beside the subset)"
            )
        columns = dict(zip(space.columns, space.values, strict=True))
        super().__init__(columns, labels=(), tree=space.tree, published_tree=space.published_tree)
        self.space = space
        self.name = space.name
        self.operations = space.operations
        self.max_nodes = space.max_nodes
        self.state_scale = space.state_scale
        self.repeats_one_cell = space.repeats_one_cell
        self.nests_cells = space.nests_cells
        self._members: list[Network] = []
        self._member_codes: list[Code] = []
        self._place: dict[str, int] = {}
        self._vicinities: dict[int, _Vicinity] = {}
        forms: list[Code] = []
        for place, net in enumerate(networks):
            code = space.code_of(net, f"networks[{place}]")
            form = space.canonical(net)
            if form.spec in self._place:
                continue
            self._place[form.spec] = len(self._members)
            self._members.append(net)
            self._member_codes.append(code)
            forms.append(space.canonical_code(code))
        if not self._members:
            raise ValueError("networks must hold at least one network; got none")
        # Rows of canonical forms, so that distances do not depend on a numbering.
        self._rows = torch.tensor(forms, dtype=torch.int32)

    def size(self) -> int:
        """Return the number of members."""
        return len(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def canonical_code(self, code: Code) -> Code:
        """Return the code of the member that the space counts as one with the code's network."""
        return self._member_codes[self._place[self.space.key(self.space.network_of(code))]]

    def neighbors(self, net: Network, *, num: int | None = None) -> list[Network]:
        """Return the nearest members, nearest first, without `net` itself.

        First come the members one edit away, then the others by the number of columns in which the
        rows of the canonical forms differ, and then by their place in the list.

        Args:
            net: A member.
            num: How many, >= 1; fewer if there are fewer members. Default: as many as `net` has
                neighbours in the whole space.

        Raises:
            ArchitectureError: `net` is not a member.
            ValueError: `num` is below 1.
        """
        if num is not None:
            integer("num", num, least=1)
        self.code_of(net)
        place = self._place[self.space.key(net)]
        around = self.space.neighbors(net)
        order = self._nearest_first(place, self._places(around))
        return [self._members[other] for other in order[: len(around) if num is None else num]]

    def mutate(self, net: Network, *, generator: torch.Generator | None = None) -> Network:
        """Draw a member near `net`, see the class.

        Raises:
            ArchitectureError: `net` is not a member, or the only one.
            TypeError, ValueError: As `sample`.
        """
        generator = random_generator(generator)
        self.code_of(net)
        vicinity = self._vicinity(net)
        mutant = self._mutant(net, generator) if vicinity.has_neighbors else None
        if mutant is not None:
            return mutant
        nearest = [self._members[place] for place in vicinity.nearest]
        choices = [other for other in nearest if other.key != net.key] or nearest
        if not choices:
            raise ArchitectureError(f"net {net.spec!r} has no neighbour in {self!r} to mutate to")
        return choices[draw_rank(len(choices), generator)]

    def _places(self, networks: Iterable[Network]) -> list[int]:
        """Place of those that are members."""
        keys = map(self.space.key, networks)
        return [self._place[key] for key in keys if key in self._place]

    def _nearest_first(self, place: int, edited: list[int]) -> list[int]:
        """Place of all other members, first those that are one edit away."""
        distances = torch.cat(
            [(chunk != self._rows[place]).sum(dim=1) for chunk in self._rows.split(_CHUNK)]
        )
        distances[edited] = -1
        order: list[int] = distances.argsort(stable=True).tolist()
        order.remove(place)
        return order

    def _vicinity(self, net: Network) -> _Vicinity:
        """Return what mutations of a member can reach; searches mutate their best ones often."""
        place = self._place[self.space.key(net)]
        if place not in self._vicinities:
            edited = self._places(self.space.neighbors(net))
            nearest = self._nearest_first(place, edited)[:_MUTATION_RANGE]
            self._vicinities[place] = _Vicinity(bool(edited), nearest)
        return self._vicinities[place]

    def all_codes(self) -> Iterator[Code]:
        return iter(self._member_codes)

    def parse_code(self, text: str) -> Code:
        code = self.space.parse_code(text)
        if not self._is_member(code):
            raise ArchitectureError(
                f"{text!r} is a network of {self.space!r}, but not among the {len(self)} of this "
                "subset (choose one of them, or use the space itself)"
            )
        return code

    def format_code(self, code: Code) -> str:
        return self.space.format_code(code)

    def build_network(self, code: Code) -> Network:
        return self.space.network_of(code)

    def draw_codes(self, num: int, generator: torch.Generator) -> list[Code]:
        drawn = draw_integers(len(self), (num,), generator)
        return [self._member_codes[place] for place in drawn.tolist()]

    def mutate_code(self, code: Code, generator: torch.Generator) -> Code:
        mutant = self.space.mutate_code(code, generator)
        place = self._place.get(self.space.key(self.space.network_of(mutant)))
        return code if place is None else self._member_codes[place]

    def neighbor_codes(self, code: Code) -> Iterator[Code]:
        return filter(self._is_member, self.space.neighbor_codes(code))

    def find_fault(self, rows: Tensor) -> tuple[int, str] | None:
        if fault := self.space.find_fault(rows):
            return fault
        for row, code in enumerate(rows.tolist()):
            if not self._is_member(tuple(code)):
                return row, f"it is not among the {len(self)} networks"
        return None

    def _is_member(self, code: Code) -> bool:
        return self.space.key(self.space.network_of(code)) in self._place

    def description(self) -> dict[str, str]:
        """Return name, `repr` and a digest of the members."""
        members = "\n".join(sorted(net.spec for net in self))
        return super().description() | {"members": sha256(members.encode()).hexdigest()}

    def __repr__(self) -> str:
        return f"Subset({self.space!r}, {len(self)} networks)"
