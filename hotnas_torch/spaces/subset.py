"""A search space restricted to a list of its networks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.arch import Cell, Network
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.spaces.base import Code, SearchSpace, draw_integers

__all__ = ["Subset"]

# Rows compared at once when distances to all members are computed; bounds the memory.
_CHUNK = 2**16
# How many nearest members a mutation draws from where the space's operator meets none.
_MUTATION_RANGE = 64


class Subset(SearchSpace):
    """The networks of a space that a list holds, for example a published table's.

    Samples, mutations, neighbours, strings and rows stay inside the list; costs and options are the
    space's. Networks that the space counts as one (its :meth:`key`) are one member: the first in
    the list, which :meth:`canonical` returns.

    A mutation is the space's own, repeated until it meets a member; where it meets none, one of the
    64 nearest members is drawn, near ones more often.

    Args:
        space: Any search space.
        networks: Networks of ``space``, at least one; repeats count once.

    Raises:
        TypeError: ``space`` is not a SearchSpace, or an entry not a Network.
        ArchitectureError: An entry is not of ``space``; the message gives its index.
        ValueError: ``networks`` is empty.

    Complexity: one :meth:`key` per network to build; :meth:`neighbors` takes the space's own plus
        O(members * d).

    Example:
        >>> from hotnas_torch.spaces import Pooling
        >>> space = Pooling()
        >>> subset = Subset(space, [space.from_string(text) for text in ("[7,1,2]", "[1,1,8]")])
        >>> subset.size(), subset.contains(space.from_string("[2,2,6]"))
        (2, False)
    """

    def __init__(self, space: SearchSpace, networks: Iterable[Network]) -> None:
        if not isinstance(space, SearchSpace):
            raise TypeError(f"space must be a SearchSpace, got {space!r}.")
        super().__init__(space.tree, space.tree, labels=(), columns=space.columns)
        self.space = space
        self.name = space.name
        self.operations = space.operations
        self.max_nodes = space.max_nodes
        self.state_scale = space.state_scale
        self.repeats_one_cell = space.repeats_one_cell
        self._members: list[Network] = []
        self._member_codes: list[Code] = []
        self._place: dict[str, int] = {}
        forms: list[Code] = []
        for place, net in enumerate(networks):
            code = space._code(net, f"networks[{place}]")
            form = space.canonical(net)
            if form.spec in self._place:
                continue
            self._place[form.spec] = len(self._members)
            self._members.append(net)
            self._member_codes.append(code)
            forms.append(space._parse(form.spec))
        if not self._members:
            raise ValueError("networks must hold at least one network, got none.")
        # Rows of canonical forms, so that distances do not depend on a numbering.
        self._rows = torch.tensor(forms, dtype=torch.int32)

    def size(self) -> int:
        """Returns the number of members."""
        return len(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def canonical(self, net: Network) -> Network:
        """Returns the member that the space counts as one with ``net``.

        Raises:
            ArchitectureError: ``net`` is not a member.
        """
        self._code(net)
        return self._members[self._place[self.space.key(net)]]

    def neighbors(self, net: Network, *, num: int | None = None) -> list[Network]:
        """Returns the nearest members, nearest first, without ``net`` itself.

        First come the members one edit away, then the others by the number of columns in which the
        rows of the canonical forms differ, and then by their place in the list.

        Args:
            net: A member.
            num: How many, >= 1; fewer if there are fewer members. Default: as many as ``net`` has
                neighbours in the whole space.

        Raises:
            ArchitectureError: ``net`` is not a member.
            ValueError: ``num`` is below 1.
        """
        if num is not None and num < 1:
            raise ValueError(f"num must be at least 1, got {num}.")
        place = self._place[self.space.key(self.canonical(net))]
        distances = torch.cat(
            [(chunk != self._rows[place]).sum(dim=1) for chunk in self._rows.split(_CHUNK)]
        )
        keys = [self.space.key(other) for other in self.space.neighbors(net)]
        edited = [self._place[key] for key in keys if key in self._place]
        distances[edited] = -1
        order = distances.argsort(stable=True).tolist()
        order.remove(place)
        return [self._members[other] for other in order[: len(keys) if num is None else num]]

    def _codes(self) -> Iterator[Code]:
        return iter(self._member_codes)

    def _parse(self, text: str) -> Code:
        code = self.space._parse(text)
        if not self._is_member(code):
            raise ArchitectureError(
                f"{text!r} is a network of {self.space!r}, but not among the {len(self)} of this "
                "subset (choose one of them, or use the space itself)."
            )
        return code

    def _format(self, code: Code) -> str:
        return self.space._format(code)

    def _network(self, code: Code) -> Network:
        return self.space._shared_network(code)

    def _make_cell(self, key: Any) -> Cell:
        return self.space._make_cell(key)

    def _draw(self, num: int, generator: torch.Generator) -> list[Code]:
        drawn = draw_integers(len(self), (num,), generator)
        return [self._member_codes[place] for place in drawn.tolist()]

    def _mutate(self, code: Code, generator: torch.Generator) -> Code:
        mutant = self.space._mutate(code, generator)
        place = self._place.get(self.space.key(self.space._shared_network(mutant)))
        return code if place is None else self._member_codes[place]

    def _nearby(self, net: Network) -> list[Network]:
        return self.neighbors(net, num=_MUTATION_RANGE)

    def _pick(self, num: int, generator: torch.Generator) -> int:
        # Nearest first: the rank is log-uniform, so ranks 1, 2-3, 4-7, ... are equally likely.
        uniform = torch.rand((), generator=generator, device=generator.device).item()
        return int((num + 1) ** uniform) - 1

    def _edits(self, code: Code) -> Iterator[Code]:
        return filter(self._is_member, self.space._edits(code))

    def _fault(self, rows: Tensor) -> tuple[int, str] | None:
        if fault := self.space._fault(rows):
            return fault
        for row, code in enumerate(rows.tolist()):
            if not self._is_member(tuple(code)):
                return row, f"it is not among the {len(self)} networks"
        return None

    def _is_member(self, code: Code) -> bool:
        return self.space.key(self.space._shared_network(code)) in self._place

    def __repr__(self) -> str:
        return f"Subset({self.space!r}, {len(self)} networks)"
