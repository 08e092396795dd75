"""Matrices that grow: what an earlier result holds is taken from it, and the rest is computed."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hotnas_torch._version import __version__
from hotnas_torch.errors import GramFileError
from hotnas_torch.matrices.comparison import Comparison, Description
from hotnas_torch.matrices.gram_file import differing_settings, digest_of, load_gram
from hotnas_torch.matrices.gram_store import GramStore
from hotnas_torch.matrices.pairwise import Blocks, Executor, Stages
from hotnas_torch.matrices.progress import Progress
from hotnas_torch.matrices.solve_log import SolveLog

__all__ = ["GrownComparison", "KnownDistances", "new_networks"]

# It decides on the tiles alone.
_OF_NO_VALUE = ("memory_budget",)


@dataclass(frozen=True, slots=True)
class KnownDistances:
    """Distances of an earlier result, between some of the X networks of a new one.

    Attributes:
        path: The file or folder.
        numbers: Place there of each of the X networks, shape (X,), int64; -1 where it is new.
        num: Networks that the earlier result holds.
        between: Distances, shape (r, c), between networks of the given places, (r,) and (c,).
    """

    path: Path
    numbers: Tensor
    num: int
    between: Callable[[Tensor, Tensor], Tensor]

    @classmethod
    def open(cls, path: str | PathLike[str], description: Description) -> "KnownDistances":
        """Open the file or folder that a finished `gram` or `gram_store` left.

        Args:
            path: The file or folder.
            description: Settings and networks of the new matrix.

        Raises:
            FileNotFoundError: There is nothing.
            GramFileError: It is damaged, not finished, or of other settings; the message says how
                they differ. Or a name that a caller chose may be that of another network there.
        """
        path = Path(path)
        between: Callable[[Tensor, Tensor], Tensor]
        if path.is_dir():
            store = GramStore(path)
            meta, names, between = store.meta, store.networks, store.block
        else:
            gram = load_gram(path)
            meta, names = gram.meta, gram.networks
            between = _Part(gram.distances)
        settings: Mapping[str, Any] = description.settings | {"hotnas_torch": __version__}
        there = meta.get("settings")
        found = {
            name: value
            for name, value in (there if isinstance(there, dict) else {}).items()
            if name not in _OF_NO_VALUE
        }
        expected = {name: settings[name] for name in settings if name not in _OF_NO_VALUE}
        if "stored_as" not in found:  # it has all digits, and they are rounded when they are stored
            expected.pop("stored_as", None)
        if differences := list(differing_settings(found, expected)):
            raise GramFileError(
                f"known: {path} holds other distances: {'; '.join(differences)} (leave it out, or"
                " compute with the settings that it has)"
            )
        if description.named:
            _check_names(path, meta, names, description)
        place = {name: number for number, name in enumerate(names)}
        numbers = torch.tensor([place.get(name, -1) for name in description.names])
        return cls(path, numbers, len(place), between)

    def replaced_by(self, out: str | PathLike[str]) -> bool:
        """Whether the new matrix is to take the place of the earlier one.

        Raises:
            GramFileError: It would lack networks that the earlier one has.
        """
        if not (os.path.exists(out) and os.path.samefile(out, self.path)):
            return False
        kept = len(torch.unique(self.numbers[self.numbers >= 0]))
        if kept < self.num:
            raise GramFileError(
                f"known: {self.path} holds {self.num - kept} networks that are not among nets, and"
                " would be replaced (choose another file for out, or add them)"
            )
        return True


def _check_names(
    path: Path, meta: Mapping[str, Any], names: Sequence[str], description: Description
) -> None:
    """Refuse an earlier result if a name may be that of another network there than it is here."""
    keys: dict[str, str] = {}
    for name, key in zip(description.names, description.keys, strict=True):
        if keys.setdefault(name, key) != key:
            raise GramFileError(
                f"known: two networks are called {name!r}, so that it cannot be said which of them"
                f" {path} holds (give each a name of its own)"
            )
    # A network without a name goes by its key.
    if meta.get("networks_digest") == digest_of([keys.get(name, name) for name in names]):
        return
    missing = [name for name in names if name not in keys]
    why = (
        f"it also holds {', '.join(map(repr, missing[:3]))}, without which names cannot be checked"
        if missing
        else "one of its names was that of another network"
    )
    raise GramFileError(
        f"known: {path} cannot be shown to hold the networks of the same names: {why} (leave it"
        " out, or give networks that changed new names and keep the old ones among nets)"
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Chosen entries of a matrix; can be sent to another process."""

    distances: Tensor

    def __call__(self, rows: Tensor, cols: Tensor) -> Tensor:
        return self.distances[rows[:, None], cols]


@dataclass(frozen=True, slots=True)
class GrownComparison:
    """A list with itself, of which some distances are known; a `Comparison`.

    Attributes:
        fresh: The networks that are new, as rows, and all as columns; one row at least.
        known: The known distances.
    """

    fresh: Comparison
    known: KnownDistances

    @property
    def row_items(self) -> Tensor:
        """Distinct network of every row, shape (X,), int64."""
        items = self.fresh.col_items
        assert items is not None
        return items

    @property
    def col_items(self) -> Tensor | None:
        """None: the rows are compared with themselves."""
        return None

    @property
    def edge(self) -> int:
        """Largest side of a tile."""
        return self.fresh.edge

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return self.fresh.dtype

    @property
    def device(self) -> torch.device:
        """Where the matrix lives."""
        return self.fresh.device

    @property
    def log(self) -> SolveLog:
        """What the solvers reported."""
        return self.fresh.log

    def blocks(
        self, *, progress: Progress, stages: Stages | None, executor: Executor | None
    ) -> "GrownBlocks":
        """Return what computes a tile.

        Smaller matrices that it needs are computed now, and not kept: they are not those of the
        whole list, which an interrupted run may have left.
        """
        del stages
        number = torch.full((int(self.row_items.max()) + 1,), -1)
        number[self.row_items] = self.known.numbers
        blocks = self.fresh.blocks(progress=progress, stages=None, executor=executor)
        return GrownBlocks(blocks, self.known.between, number)


@dataclass(frozen=True, slots=True)
class GrownBlocks:
    """Tiles of a symmetric matrix, of which only entries of new networks are computed.

    A pair has the same bits in any block and in either orientation, so it does not matter which
    part of a tile it is computed in.

    Attributes:
        fresh: Computes the rows of new networks.
        between: Known distances by place.
        number: Place there of each distinct network, shape (U,), int64; -1 where it is new.
    """

    fresh: Blocks
    between: Callable[[Tensor, Tensor], Tensor]
    number: Tensor

    @property
    def device(self) -> torch.device:
        """Where they are solved."""
        return self.fresh.device

    @property
    def log(self) -> SolveLog:
        """What the solvers reported."""
        return self.fresh.log

    def __call__(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Distances, shape (r, c), between sorted distinct networks (r,) and (c,)."""
        new_row, new_col = (self.number[items] < 0 for items in (rows, cols))
        old_row, old_col = rows[~new_row], cols[~new_col]
        known = self.between(self.number[old_row], self.number[old_col])
        parts = []
        if bool(new_row.any()):
            parts.append((new_row, torch.ones_like(new_col), self.fresh(rows[new_row], cols)))
        if bool(new_col.any()) and len(old_row):
            parts.append((~new_row, new_col, self.fresh(cols[new_col], old_row).mT))
        block = known.new_empty(len(rows), len(cols))
        if parts:
            block = parts[0][2].new_empty(len(rows), len(cols))
        for row, col, values in (*parts, (~new_row, ~new_col, known)):
            block[torch.outer(row, col)] = values.to(block).flatten()
        return block

    def to(self, device: torch.device) -> "GrownBlocks":
        """Return the same, solving on another device."""
        return GrownBlocks(self.fresh.to(device), self.between, self.number)


def new_networks(known: KnownDistances, nets: Sequence[Any]) -> list[Any]:
    """Return the networks that an earlier result lacks; the first one where it has all.

    A comparison has one row at least.
    """
    fresh = [net for net, number in zip(nets, known.numbers.tolist(), strict=True) if number < 0]
    return fresh or list(nets[:1])
