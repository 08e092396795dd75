"""What searches over operation distributions share."""

from typing import Any

import torch
from torch import Tensor

from hotnas_torch.search.base import Strategy
from hotnas_torch.search.draws import EncodingDraws
from hotnas_torch.spaces import SearchSpace

__all__ = ["EncodingStrategy"]


class EncodingStrategy(Strategy):
    """A strategy that thinks in encodings: random networks are those of random encodings.

    Args:
        space: What is searched.
        generator: Source of all randomness.

    Raises:
        ValueError: The space has no operation encoding, see `encoding_of`.

    Attributes:
        encoding: The map between networks and encodings.
    """

    def __init__(
        self, space: SearchSpace, *, generator: torch.Generator | None, **goal: Any
    ) -> None:
        super().__init__(space, generator=generator, **goal)
        self._draws: EncodingDraws = EncodingDraws(space, self._generator)
        self.encoding = self._draws.encoding

    @property
    def best_encoding(self) -> Tensor | None:
        """The encoding of the best network so far, (k,) float64; None without a value."""
        best = self._leading()
        return None if best is None else self.encoding.encode([best.network])[0]
