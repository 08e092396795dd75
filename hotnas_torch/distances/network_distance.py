"""What the distances have in common that kernels take: parts, matrices, chunks of pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hotnas_torch._checks import check_items
from hotnas_torch.arch import Network
from hotnas_torch.errors import ArchitectureError
from hotnas_torch.matrices.pairwise import distinct_pairs
from hotnas_torch.matrices.progress import Progress, progress_bar
from hotnas_torch.spaces import SearchSpace

__all__ = ["KernelTerm", "NetworkDistance"]

_CHUNK_BYTES = 2**23
"""Bytes that one chunk of pairs takes while it is worked on: about what a processor's cache holds.
"""


class KernelTerm(NamedTuple):
    """exp(-sum_k d_k^power / scale_k) over some parts of a distance.

    Attributes:
        parts: Which parts, by number.
        power: Power of each part.
        smallest: Smallest value of the scales.
        largest: Largest value of the scales.
    """

    parts: tuple[int, ...]
    power: int
    smallest: float
    largest: float


class NetworkDistance(ABC):
    """A distance between networks of a space, made of K parts.

    The matrix between lists of networks is computed from the pairs of networks that differ, each
    pair once, in chunks of a few megabytes. A pair has the same value, to the bit, whichever other
    networks it is computed with.

    Args:
        space: Space of the networks.

    Raises:
        TypeError: ``space`` is no SearchSpace.

    Attributes:
        parts: Names of the K parts.
        kernel_terms: The exponential kernel that goes with the distance: a sum of these terms.
        negative_definite: Whether every part is conditionally negative definite and enters the
            kernel in the first power, so that the kernel is positive semi-definite as it is.
    """

    parts: tuple[str, ...]
    kernel_terms: tuple[KernelTerm, ...]
    negative_definite: bool = False

    def __init__(self, space: SearchSpace) -> None:
        if not isinstance(space, SearchSpace):
            raise TypeError(
                f"space must be a SearchSpace; got {type(space).__name__}"
                " (hotnas_torch.spaces.get(name) makes one)"
            )
        self.space = space

    # --- for subclasses ---------------------------------------------------------------------------

    def _identity(self, net: Network) -> str:
        """A name that networks share only if they are at distance 0 in all parts."""
        return net.cells[0].key if self.space.repeats_one_cell else net.key

    @abstractmethod
    def _tables(self, nets: Sequence[Network]) -> Any:
        """What `_values` needs to know of distinct networks."""

    @abstractmethod
    def _values(self, tables: Any, i: Tensor, j: Tensor) -> Tensor:
        """Parts of the distances of pairs of numbers of networks, shape (K, P) from (P,)."""

    @abstractmethod
    def _pair_bytes(self, tables: Any) -> int:
        """Bytes that `_values` holds per pair."""

    @abstractmethod
    def _combine(self, parts: Tensor) -> Tensor:
        """The distance, shape (...), from its parts, shape (K, ...)."""

    # --- matrices ---------------------------------------------------------------------------------

    def __call__(
        self,
        nets_a: Sequence[Network],
        nets_b: Sequence[Network] | None = None,
        *,
        progress: Progress = False,
    ) -> Tensor:
        """Distances between networks.

        Args:
            nets_a: A >= 1 networks of the space.
            nets_b: B >= 1 networks; None stands for ``nets_a``, at half the work.
            progress: True shows a bar on stderr.

        Returns:
            Shape (A, B), float64.

        Raises:
            TypeError: Not a list of networks.
            ValueError: An empty list.
            ArchitectureError: A network of another space; the message gives its index.
        """
        return self._combine(self.part_distances(nets_a, nets_b, progress=progress))

    def part_distances(
        self,
        nets_a: Sequence[Network],
        nets_b: Sequence[Network] | None = None,
        *,
        progress: Progress = False,
    ) -> Tensor:
        """The parts of the distances, shape (K, A, B) float64; arguments and errors as for a call.

        Where ``nets_b`` is None, the matrices are symmetric to the bit.
        """
        rows = self._check("nets_a", nets_a)
        cols = rows if nets_b is None else self._check("nets_b", nets_b)
        names = sorted(dict((*rows, *cols)).items())
        number = {name: place for place, (name, _) in enumerate(names)}
        tables = self._tables([net for _, net in names])
        row_set, row_place = _numbers(rows, number)
        col_set, col_place = _numbers(cols, number)
        i, j, to_block = distinct_pairs(row_set, col_set, len(names))
        chunk = max(1, _CHUNK_BYTES // self._pair_bytes(tables))
        values = []
        with progress_bar(progress, type(self).__name__, len(i)) as advance:
            for small, large in zip(i.split(chunk), j.split(chunk), strict=True):
                values.append(self._values(tables, small, large))
                advance(len(small))
        found = torch.cat(values, dim=1)
        block = torch.stack([to_block(part) for part in found])
        return block[:, row_place[:, None], col_place]

    def _check(self, name: str, nets: Sequence[Network]) -> list[tuple[str, Network]]:
        checked = check_items(name, nets, Network)
        for place, net in enumerate(checked):
            if not self.space.contains(net):
                raise ArchitectureError(
                    f"{name}[{place}] with spec {net.spec!r} is not a network of {self.space!r}"
                    " (a distance compares networks of the space it was made for)"
                )
        return [(self._identity(net), net) for net in checked]


def _numbers(named: list[tuple[str, Network]], number: dict[str, int]) -> tuple[Tensor, Tensor]:
    """Sorted distinct numbers of networks, and which of them each network is."""
    numbers = torch.tensor([number[name] for name, _ in named])
    distinct, place = torch.unique(numbers, return_inverse=True)
    return distinct, place
