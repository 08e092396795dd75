"""What searches over operation distributions share: random encodings, and networks of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.search.base import Strategy
from hotnas_torch.spaces import SearchSpace
from hotnas_torch.spaces.encodings import encoding_of

__all__ = ["EncodingStrategy"]

# Draws of a network that has not been seen from one encoding, and of encodings that have one.
_DECODINGS = 24
_ENCODINGS = 256


class EncodingStrategy(Strategy):
    """A strategy that thinks in encodings: what is random is uniform over the simplex.

    A random network is one of a random encoding, drawn from the flat Dirichlet distribution,
    rounded and decoded. An encoding may be asked for several times, with another network each time.

    Args:
        space: What is searched.
        generator: Source of all randomness.
        **settings: Those of the next class.

    Raises:
        ValueError: The space has no operation encoding, see
            :func:`~hotnas_torch.spaces.encodings.encoding_of`.

    Attributes:
        encoding: The map between networks and encodings.
    """

    def __init__(
        self, space: SearchSpace, *, generator: torch.Generator | None, **settings: Any
    ) -> None:
        super().__init__(space, generator=generator, **settings)
        self.encoding = encoding_of(space)

    @property
    def best_encoding(self) -> Tensor | None:
        """The encoding of the best network so far, (k,) float64; None without a value."""
        best = self.best
        return None if best is None else self.encoding.encode([best.network])[0]

    def _sample_unseen(self, num: int, taken: set[str]) -> list[Network]:
        found: list[Network] = []
        for _ in range(_ENCODINGS):
            if len(found) == num:
                return found
            # One at a time, as for every strategy: the batch changes nothing.
            point = self.encoding.draw(1, generator=self._generator)
            found += self._decode_unseen(point, taken, draws=1)
        return found + super()._sample_unseen(num - len(found), taken)

    def _decode_unseen(
        self, points: Tensor, taken: set[str], *, draws: int = _DECODINGS
    ) -> list[Network]:
        """Draws a network of each encoding whose key is not in ``taken``, and adds its key to it.

        Encodings of which no such network is found in so many draws are left out.

        Args:
            points: (n, k), on the simplex.
            taken: Keys of networks that are not wanted.
            draws: Networks drawn per encoding at most.
        """
        found: dict[int, Network] = {}
        left = list(range(len(points)))
        for _ in range(draws):
            if not left:
                break
            nets = self.encoding.decode(points[left], generator=self._generator)
            for place, net in zip(left, nets, strict=True):
                if (key := self.space.key(net)) not in taken:
                    taken.add(key)
                    found[place] = net
            left = [place for place in left if place not in found]
        return [found[place] for place in sorted(found)]
