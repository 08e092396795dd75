"""Operation distributions of architectures: encoding, rounding, decoding."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.arguments import choice, kind
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.encodings.grid import (
    check_simplex,
    draw_dirichlet,
    grid_neighbors,
    num_encodings,
    round_to_grid,
)
from hotnas_torch.spaces.encodings.slots import Slots, operation_slots
from hotnas_torch.spaces.joint import check_architectures

__all__ = ["MemberEncoding", "OperationEncoding", "SlotEncoding", "encoding_of"]

# More networks than this are not enumerated to find those of an encoding.
_MOST_MEMBERS = 2**17


class OperationEncoding(ABC):
    r"""The map between architectures and distributions over operations.

    .. math:: \tilde p_i = n(o_i) / N

    is the share of operation i among the operations of an architecture. Many architectures have
    the same encoding; decoding draws one of them.

    Attributes:
        space: Search space of the architectures.
        operations: Names of the k operations.
        total: N, number of places that hold an operation.

    Reference: Wan et al., Approximate Neural Architecture Search via Operation Distribution
        Learning (ANASOD), CVPR 2022, Section 3.1.
    """

    space: SearchSpace
    operations: tuple[str, ...]
    total: int

    @property
    def num_operations(self) -> int:
        """Number of operations k."""
        return len(self.operations)

    # --- from architectures -----------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the encoding: it does not change, and its tables may be large."""
        del memo
        return self

    @abstractmethod
    def of_rows(self, X: Tensor) -> Tensor:
        """Return the encodings of rows that `space.encode` returned.

        Args:
            X: (..., d), any dtype.

        Returns:
            (..., k) in the dtype of `X`, each summing to 1.
        """

    def encode(self, nets: Sequence[Network]) -> Tensor:
        """Return the encodings of networks, (n, k) float64.

        Raises:
            TypeError, ArchitectureError: As `space.encode`.
        """
        return self.of_rows(self.space.encode(nets))

    # --- to architectures -------------------------------------------------------------------------

    @abstractmethod
    def snap(self, points: Tensor) -> Tensor:
        """Return for each point (n, k) the nearest encoding that has architectures, (n, k).

        Raises:
            ValueError: A point is off the simplex.
        """

    @abstractmethod
    def neighbors(self, point: Tensor) -> Tensor:
        """Return the encodings next to an encoding (k,), as (m, k)."""

    @abstractmethod
    def decode(self, points: Tensor, *, generator: torch.Generator) -> list[Network]:
        """Draw one architecture for each point, after rounding it.

        Operations are placed in random order, the rest (the wiring) is drawn as the space draws it.

        Args:
            points: (n, k), on the simplex.
            generator: Source of randomness.

        Raises:
            ValueError: A point is off the simplex.
        """

    def key(self, point: Tensor) -> tuple[float, ...]:
        """Return what is equal for two points (k,) exactly when they are the same encoding."""
        return tuple(check_simplex(point).mul(1e6).round().tolist())

    def draw(
        self, num: int, *, generator: torch.Generator, concentration: Tensor | None = None
    ) -> Tensor:
        """Draw points of the simplex from a Dirichlet distribution, not rounded.

        Args:
            num: How many.
            generator: Source of randomness.
            concentration: (k,); None draws uniformly from the simplex, which is not uniformly from
                the architectures: an encoding has N! / (n_1! ... n_k!) orders of its operations.

        Returns:
            (num, k) float64.
        """
        ones = torch.ones(self.num_operations, dtype=torch.float64)
        return draw_dirichlet(
            ones if concentration is None else concentration, num, generator=generator
        )


class SlotEncoding(OperationEncoding):
    """The encoding of a space in which every placing of operations is an architecture.

    Args:
        space: NAS-Bench-201, DARTS, NAS-Bench-101, NAS-Bench-Macro, or any space whose `slots`
            are given.
        cells: For spaces with several searched cells. `"shared"`: all cells have one and the same
            encoding, as the paper has it, so N is the size of a cell; `"joint"`: operations are
            counted and placed over all cells together.
        slots: Which columns of a row hold operations; None takes those that are known.

    Raises:
        TypeError: `space` is not a SearchSpace.
        ValueError: It has no places that any operation may fill (see `MemberEncoding`), or
            `cells` is unknown.

    Complexity: O(n d) tensor operations for n rows, plus building n networks.

    Example:
        >>> import hotnas_torch as ht
        >>> encoding = SlotEncoding(ht.spaces.NASBench201())
        >>> point = torch.tensor([[0.0, 0.0, 1 / 3, 2 / 3, 0.0]], dtype=torch.float64)
        >>> (net,) = encoding.decode(point, generator=torch.Generator().manual_seed(0))
        >>> net.spec.count("nor_conv_3x3"), net.spec.count("nor_conv_1x1")
        (4, 2)
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        cells: Literal["shared", "joint"] = "shared",
        slots: Slots | None = None,
    ) -> None:
        kind("space", space, SearchSpace)
        check_architectures("SlotEncoding", space)
        choice("cells", cells, ("shared", "joint"))
        slots = operation_slots(space) if slots is None else slots
        if slots is None or not slots.free:
            raise ValueError(
                f"{space!r} has no places that any operation may fill (MemberEncoding finds the "
                "architectures of an encoding in a list)"
            )
        self.space = space
        self.cells = cells
        self.slots = slots.joined() if cells == "joint" else slots
        self.operations = slots.operations
        self.total = len(self.slots.blocks[0])

    def of_rows(self, X: Tensor) -> Tensor:
        """Return the encodings of rows (..., d), averaged over the cells of an architecture."""
        return self.slots.shares(X)

    def num_encodings(self) -> int:
        """Return the number of encodings, binomial(N + k - 1, k - 1)."""
        return num_encodings(self.total, self.num_operations)

    def snap(self, points: Tensor) -> Tensor:
        """Return the nearest grid points (Eq. 1), (n, k) float64."""
        return round_to_grid(points, self.total).double() / self.total

    def neighbors(self, point: Tensor) -> Tensor:
        """Return the grid points that exchange one operation for another, (m, k)."""
        counts = round_to_grid(point, self.total)
        return grid_neighbors(counts).double() / self.total

    def decode(self, points: Tensor, *, generator: torch.Generator) -> list[Network]:
        """Draw one architecture per point with exactly the rounded counts in every block.

        Where places may be empty (NAS-Bench-101), the wiring says how many are not, and the point
        is rounded to that many operations.
        """
        points = check_simplex(points)
        rows = self._wiring(len(points), generator)
        for block in self.slots.blocks:
            columns = list(block)
            filled = self.slots.present(rows, columns)
            operations = self.slots.first + self._arrange(points, filled, generator)
            rows[:, columns] = torch.where(filled, operations.double(), rows[:, columns])
        return self.space.decode(rows)

    def _arrange(self, points: Tensor, filled: Tensor, generator: torch.Generator) -> Tensor:
        """Shuffle each row's rounded operations over its filled places, (n, N) int64."""
        num, places = filled.shape
        sizes = filled.sum(dim=1)
        counts = torch.zeros(num, self.num_operations, dtype=torch.int64)
        for size in sizes.unique().tolist():
            counts[sizes == size] = round_to_grid(points[sizes == size], size)
        # What is left of a row's N places is filled up with a value that no place takes.
        padded = torch.cat([counts, (places - sizes)[:, None]], dim=1)
        operations = torch.arange(self.num_operations + 1).repeat(num)
        ordered = operations.repeat_interleave(padded.flatten()).reshape(num, places)
        # Filled places come first, in random order.
        order = (_random(filled.shape, generator) + ~filled).argsort(dim=1)
        return torch.empty_like(ordered).scatter_(1, order, ordered)

    def sample(self, points: Tensor, *, generator: torch.Generator) -> list[Network]:
        """Draw every operation independently from its point (Eq. 2), and the wiring.

        Args:
            points: (n, k), on the simplex; not rounded.
            generator: Source of randomness.

        Returns:
            n networks whose encodings equal the points in expectation.

        Raises:
            ValueError: A point is off the simplex.
        """
        points = check_simplex(points)
        rows = self._wiring(len(points), generator)
        columns = self.slots.columns
        present = self.slots.present(rows, columns)
        if len(points):
            drawn = torch.multinomial(
                points.to(generator.device), present.shape[1], replacement=True, generator=generator
            ).cpu()
            rows[:, columns] = torch.where(
                present, (self.slots.first + drawn).double(), rows[:, columns]
            )
        return self.space.decode(rows)

    def _wiring(self, num: int, generator: torch.Generator) -> Tensor:
        return self.space.encode(self.space.sample(num, generator=generator))

    def __repr__(self) -> str:
        return f"SlotEncoding({self.space!r}, cells={self.cells!r})"


class MemberEncoding(OperationEncoding):
    """The encodings of listed architectures, for spaces in which not every encoding has some.

    Made for the part of a space that a table holds (`Subset`) and for
    spaces with constraints. Points are rounded to the nearest encoding of a member, in l1. Where a
    space chooses no operations, all its networks share one encoding.

    Args:
        space: A space of at most 131,072 networks.

    Raises:
        TypeError: `space` is not a SearchSpace.
        ValueError: It has more networks.

    Complexity: one row per network to build; O(E k) per point with E distinct encodings.

    Example:
        >>> import hotnas_torch as ht
        >>> encoding = MemberEncoding(ht.spaces.TransNASMacro())
        >>> encoding.num_operations, encoding.num_encodings()
        (4, 79)
    """

    def __init__(self, space: SearchSpace) -> None:
        kind("space", space, SearchSpace)
        check_architectures("MemberEncoding", space)
        size = space.size_bound()
        if size > _MOST_MEMBERS:
            raise ValueError(
                f"space must have at most {_MOST_MEMBERS:,} networks to be enumerated; got "
                f"{size:,} of {space!r} (pass slots= to SlotEncoding)"
            )
        self.space = space
        self.slots = operation_slots(space)
        self.operations = ("network",) if self.slots is None else self.slots.operations
        self.total = 1 if self.slots is None else len(self.slots.columns)
        self._members = list(space)
        points = self.encode(self._members)
        self._points: Tensor
        self._points, place = torch.unique(points, dim=0, return_inverse=True)
        self._holders: list[list[int]] = [[] for _ in range(len(self._points))]
        for member, encoding in enumerate(place.tolist()):
            self._holders[encoding].append(member)

    def of_rows(self, X: Tensor) -> Tensor:
        """Return the encodings of rows (..., d); of empty places none counts."""
        if self.slots is None:
            return X.new_ones((*X.shape[:-1], 1))
        return self.slots.shares(X)

    def num_encodings(self) -> int:
        """Return the number of distinct encodings of members."""
        return len(self._points)

    def snap(self, points: Tensor) -> Tensor:
        """Return the nearest encodings of members, (n, k) float64, the first of equally near."""
        return self._points[self._nearest(points)]

    def neighbors(self, point: Tensor) -> Tensor:
        """Return the nearest other encodings, at most k (k - 1), nearest first."""
        own = self._nearest(point[None])
        distances = (self._points - self._points[own]).abs().sum(dim=1)
        order = distances.argsort(stable=True)
        num = self.num_operations * (self.num_operations - 1)
        return self._points[order[order != own][:num]]

    def decode(self, points: Tensor, *, generator: torch.Generator) -> list[Network]:
        """Draw one of the members of each point's nearest encoding."""
        nearest = self._nearest(points).tolist()
        chance = _random((len(nearest),), generator).tolist()
        holders = [self._holders[place] for place in nearest]
        return [
            self._members[among[int(share * len(among))]]
            for among, share in zip(holders, chance, strict=True)
        ]

    def _nearest(self, points: Tensor) -> Tensor:
        nearest: Tensor = torch.cdist(check_simplex(points), self._points, p=1.0).argmin(dim=1)
        return nearest

    def __repr__(self) -> str:
        return f"MemberEncoding({self.space!r})"


def encoding_of(space: SearchSpace) -> SlotEncoding | MemberEncoding:
    """Return the encoding of a space: by its slots where any operation fits, else by members.

    Raises:
        TypeError: `space` is not a SearchSpace.
        ValueError: It has constraints, or no operations, and too many networks to enumerate.
    """
    slots = operation_slots(space)
    return SlotEncoding(space) if slots is not None and slots.free else MemberEncoding(space)


def _random(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.rand(
        tuple(shape), generator=generator, device=generator.device, dtype=torch.float64
    ).cpu()
