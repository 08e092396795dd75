"""The published tables that benchmarks read, and networks and values drawn from them."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measuring.report import Unavailable
from hotnas_torch.arch import Network
from hotnas_torch.objectives import Table

__all__ = ["drawn", "logarithms", "published"]


def published(named: str | None) -> Path:
    """Find the folder of the published tables.

    Args:
        named: Its path; None takes `$HOTNAS_DATA`, else `shared/data` beside the checkout.

    Raises:
        Unavailable: It is not there.
    """
    named = named or os.environ.get("HOTNAS_DATA")
    folder = Path(named) if named else Path(__file__).parents[3] / "shared" / "data"
    if not folder.is_dir():
        raise Unavailable(
            f"{folder} is no folder (set HOTNAS_DATA to that of the published tables)"
        )
    return folder


def drawn(table: Table, num: int, *, seed: int) -> tuple[list[Network], Tensor]:
    """Draw distinct networks of a table's space.

    Args:
        table: The table, which has a row for each of them.
        num: How many.
        seed: Of the draw.

    Returns:
        The networks, and the logarithms of their errors, shape (num,), float64.
    """
    generator = torch.Generator().manual_seed(seed)
    nets = table.space.sample(num, generator=generator, distinct=True)
    return nets, logarithms(table, nets)


def logarithms(table: Table, nets: Sequence[Network]) -> Tensor:
    """Return the logarithms of the errors of networks, shape (N,), float64."""
    return torch.tensor([table(net).value for net in nets], dtype=torch.float64).log()
