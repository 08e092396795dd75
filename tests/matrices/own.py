"""A distance of one's own, in one class."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hotnas_torch.arch import Network
from hotnas_torch.distances import NetworkDistance
from hotnas_torch.spaces import SearchSpace, TransNASMacro

SPACE = TransNASMacro()


class Widths(NetworkDistance):
    """Differences of the widths of the cells, added up to some power."""

    name = "widths"

    def __init__(self, space: SearchSpace, *, power: float = 0.5) -> None:
        super().__init__(space)
        self.power = power

    def config(self) -> dict[str, Any]:
        return super().config() | {"power": self.power}

    def _tables(self, nets: Sequence[Network]) -> Tensor:
        longest = max(net.num_cells for net in nets)
        rows = [[*net.channels, *([0] * (longest - net.num_cells))] for net in nets]
        return torch.tensor(rows).double()

    def _values(self, tables: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (tables[i] - tables[j]).abs().pow(self.power).sum(1)[None]
