"""Stores of distances while they are computed: a tile is written in one step, or computed again."""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from hotnas_torch.errors import GramFileError
from hotnas_torch.matrices.gram_file import check_same, describe_gram, lock
from hotnas_torch.matrices.gram_store import (
    ARRAYS,
    BYTES_PER_CHUNK,
    FORMAT,
    FORMAT_VERSION,
    description_of,
    import_zarr,
    open_group,
    readable,
    stored_array,
)
from hotnas_torch.matrices.pairwise import Tile

__all__ = ["GramStoreWriter"]

_STAGES = {"networks": "distances"}


class GramStoreWriter:
    """The folder behind one computation; a context manager.

    Args:
        folder: Folder to write.
        settings: Settings of the metric and of the tiles, JSON-ready.
        keys: Keys of the networks in order; with the settings they identify the computation.
        names: Architecture strings in order.
        items: Which distinct network each network is, shape (X,), int64.
        edge: Side of a tile of networks.
        dtypes: Type of the distances as they are computed, and the type that those between
            networks are rounded to.
        resume: Take over the tiles of an interrupted run of the same computation.
        overwrite: Discard what an earlier run left; other files in the folder stay.
        take_over: Go on with the folder of another process, which then stops.

    Attributes:
        complete: Whether there is nothing left to compute.

    Raises:
        GramFileError: The folder cannot be written, another process is writing it, or something is
            there already that must not be replaced.
        ImportError: zarr is not installed.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        settings: Mapping[str, Any],
        keys: Sequence[str],
        names: Sequence[str],
        items: Tensor,
        edge: int,
        dtypes: tuple[torch.dtype, torch.dtype],
        resume: bool,
        overwrite: bool,
        take_over: bool = False,
    ) -> None:
        self.folder = Path(folder)
        import_zarr()
        self._dtype, self._stored_as = dtypes
        description = describe_gram(settings, keys) | {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise GramFileError(
                f"cannot write the folder {self.folder}: {getattr(error, 'strerror', error)}"
                " (choose one that can be made or written)"
            ) from error
        self._lock = lock(self.folder, take_over=take_over)
        try:
            self._root = self._take_over(description, resume, overwrite)
            if self._root is None:
                with self._written():
                    self._root = self._begin(description, names, items, edge)
        except BaseException:
            self._lock.close()
            raise
        self.complete: bool = self._root.attrs["state"] == "complete"

    def _take_over(self, description: dict[str, Any], resume: bool, overwrite: bool) -> Any:
        """Return what an earlier run left, or None if nothing is there or to be kept."""
        if not any(self.folder.iterdir()):
            return None
        root = open_group(self.folder, "r+")
        found = description_of(self.folder, root)
        if overwrite or found["state"] == "begun":
            # The description goes first: what is left without it must not look like a store.
            with self._written():
                (self.folder / "zarr.json").unlink()
                for name in ARRAYS:
                    _remove_array(self.folder / name)
            return None
        if not resume:
            what = "a finished run" if found["state"] == "complete" else "an interrupted run"
            raise GramFileError(
                f"{self.folder} holds {what} (pass resume=True to go on with the same computation,"
                " or overwrite=True to replace it)"
            )
        check_same(self.folder, found, description, argument="folder")
        return root

    def _begin(
        self, description: dict[str, Any], names: Sequence[str], items: Tensor, edge: int
    ) -> Any:
        root = import_zarr().open_group(
            # Files of something else may lie there.
            self.folder,
            mode="a",
            attributes=description | {"state": "begun"},
        )
        text = np.frombuffer("\n".join(names).encode(), dtype=np.uint8)
        for name, data in (("networks", text), ("item", items.numpy())):
            chunk = min(len(data), BYTES_PER_CHUNK // data.itemsize)
            checked = [import_zarr().codecs.Crc32cCodec()]
            # All chunks are there, be they of nothing but zeros.
            whole = {"write_empty_chunks": True}
            root.create_array(name, data=data, chunks=(chunk,), compressors=checked, config=whole)
        self._make(root, "networks", int(items.max()) + 1, edge)
        root.attrs["state"] = "running"
        return root

    def _make(self, root: Any, stage: str, size: int, edge: int) -> Any:
        return root.create_array(
            _STAGES.get(stage, stage),
            shape=(size, size),
            chunks=(edge, edge),
            dtype=str(self._type_of(stage)).removeprefix("torch."),
            compressors=[import_zarr().codecs.Crc32cCodec()],
            fill_value=math.nan,
        )

    def _type_of(self, stage: str) -> torch.dtype:
        # What the distances between networks are computed from keeps its digits.
        return self._stored_as if stage == "networks" else self._dtype

    def stage(self, name: str, size: int, edge: int) -> "_Stage":
        """Return the tiles of one matrix.

        Args:
            name: `"networks"`, `"cells"`, or another name for what these need.
            size: Rows and columns of the matrix.
            edge: Side of a tile.
        """
        array = _STAGES.get(name, name)
        if array not in self._root:
            with self._written():
                return _Stage(self, self._make(self._root, name, size, edge))
        with readable(self.folder):
            found = stored_array(self._root, array, (self._type_of(name),), 2)
        if found.shape == (size, size) and found.chunks != (edge, edge):
            raise GramFileError(
                f"{self.folder} has tiles of {found.chunks[0]} a side in {array}, and this run"
                f" computes tiles of {edge} (go on with a GPU of that size, or compute"
                " it again with overwrite=True)"
            )
        if found.shape != (size, size):
            raise GramFileError(
                f"{self.folder} is damaged: {array} is not of {size} x {size} entries (compute it"
                " again with overwrite=True)"
            )
        return _Stage(self, found)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Write as long as nobody has taken the folder over."""
        if not self._lock.held:
            raise GramFileError(
                f"{self.folder} was taken over by another process, which goes on with it; this one"
                " stops"
            )
        try:
            yield
        except OSError as error:
            raise GramFileError(
                f"cannot write {self.folder}: {error.strerror or error}; the finished tiles stay"
                " there (make room and run again with resume=True)"
            ) from error

    def finish(self) -> None:
        """Mark the store as finished."""
        with self._written():
            self._root.attrs["state"] = "complete"
        self.complete = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.close()


class _Stage:
    """Tiles of one matrix in a `GramStoreWriter`."""

    def __init__(self, writer: GramStoreWriter, array: Any) -> None:
        self._writer, self._array = writer, array

    def load(self, tile: Tile) -> Tensor | None:
        """Return the block of a tile, or None if it is not there whole."""
        try:
            values = torch.from_numpy(np.asarray(self._array[tile.rows, tile.cols]))
        except (ValueError, RuntimeError):
            # The checksum of the chunk: power went off before it was on the disk.
            return None
        return None if bool(values.isnan().any()) else values

    def save(self, tile: Tile, values: Tensor) -> None:
        """Write the block of a finished tile.

        Raises:
            GramFileError: A distance is no number, or above what the type in which they are stored
                can say.
        """
        values = values.cpu()
        if bool(values.isnan().any()):
            place = int(tile.rows.start), int(tile.cols.start)
            raise GramFileError(
                f"{self._writer.folder}: distances of the tile at {place} are NaN, which a store"
                " does not hold (call the distance on these networks to see which, and mend it)"
            )
        rounded = values.to(getattr(torch, str(self._array.dtype)))
        over = rounded.isinf() & values.isfinite()
        if bool(over.any()):
            raise GramFileError(
                f"{self._writer.folder}: {rounded.dtype} cannot say the distance"
                f" {float(values[over].max()):.6g}: its largest number is"
                f" {torch.finfo(rounded.dtype).max:.6g} (choose a wider type for stored_as, with"
                " overwrite=True)"
            )
        with self._writer._written():
            self._array[tile.rows, tile.cols] = rounded.numpy()


def _remove_array(folder: Path) -> None:
    """Delete the files of an array, and the folders that are empty then, nothing else."""
    if folder.is_symlink() or not folder.is_dir():
        return
    chunks = folder / "c"
    for place, folders, files in os.walk(chunks, topdown=False):
        for name in filter(str.isdigit, files):
            Path(place, name).unlink()
        for name in filter(str.isdigit, folders):
            with contextlib.suppress(OSError):  # not empty, or a link
                Path(place, name).rmdir()
    (folder / "zarr.json").unlink(missing_ok=True)
    for path in (chunks, folder):
        with contextlib.suppress(OSError):
            path.rmdir()
