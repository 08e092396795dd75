"""Gram files while they are computed: appended to, resumed after a kill, finished in one step.

While a computation runs, its finished tiles are appended to `<out>.partial`::

    magic line | length and checksum of the manifest | manifest (JSON) | record | record | ...

A record is a fixed header (stage, row and column range, checksum of both) and the raw values of one
tile.
Appending is the only way in which the file changes, so a kill can damage nothing but the record
being written, which is recognised by its length and dropped. The finished file is an ordinary NumPy
`.npz` archive that replaces `out` in one step. Neither file can hold Python objects.
"""

import contextlib
import errno
import json
import math
import os
import stat
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from hotnas_torch.errors import GramFileError
from hotnas_torch.files import check_writable, replaced, write_bytes
from hotnas_torch.matrices.gram_file import NUMPY_DTYPES, check_same, describe_gram, lock
from hotnas_torch.matrices.pairwise import Tile

__all__ = ["GramWriter"]

_MAGIC = b"hotnas-gram-partial 2\n"
# There the checksum of a record does not cover its header.
_MAGIC_1 = b"hotnas-gram-partial 1\n"
_MANIFEST_HEADER = struct.Struct("<QI")
_RECORD_HEADER = struct.Struct("<8s4QQI")
_SECONDS_BETWEEN_SYNCS = 2.0


class GramWriter:
    """The file behind one Gram computation; a context manager.

    Args:
        path: Finished file.
        settings: Settings of the metric, JSON-ready.
        keys: Keys of the networks in order; with the settings they identify the computation.
        names: Architecture strings in order, stored for the reader.
        resume: Take over the tiles of an interrupted run of the same computation.
        overwrite: Discard what an earlier run left.
        take_over: Go on with the file of another process, which then stops.
        grows: The finished file that is there is the one that this computation starts from; it is
            replaced in the end.

    Raises:
        GramFileError: The path cannot be written, another process is writing it, or something is
            there already that must not be replaced.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        settings: Mapping[str, Any],
        keys: Sequence[str],
        names: Sequence[str],
        resume: bool,
        overwrite: bool,
        take_over: bool = False,
        grows: bool = False,
    ) -> None:
        self.path = Path(path)
        self._partial = _partial_path(self.path)
        self._names = list(names)
        self._description = describe_gram(settings, keys)
        self._records: dict[tuple[str, int, int, int, int], tuple[int, int]] = {}
        self._synced = time.monotonic()
        try:
            check_writable(self.path)
        except IsADirectoryError as error:
            raise GramFileError(f"out: {self.path} is a folder; name a file") from error
        except OSError as error:
            raise GramFileError(
                f"out: cannot write {self.path}: {error.strerror}"
                " (choose a file in a folder that exists and is writable)"
            ) from error
        if self.path.exists() and not (overwrite or grows):
            raise GramFileError(
                f"out: {self.path} exists (pass resume=True to go on with the same computation, or"
                " overwrite=True to replace it)"
            )
        if self._partial.exists() and not (overwrite or resume):
            raise GramFileError(
                f"out: {self._partial} holds an interrupted run (pass resume=True to go on with it,"
                " or overwrite=True to discard it)"
            )
        self._lock = lock(self.path, take_over=take_over)
        try:
            self._file = self._open()
        except BaseException:
            self._lock.close()
            raise
        try:
            if take_over:
                self._file = self._apart()
            size = os.fstat(self._file.fileno()).st_size
            if overwrite and size:
                self._check_ours()
            if overwrite or size == 0:
                self._begin()
            else:
                self._take_over()
        except BaseException:
            self._file.close()
            self._lock.close()
            raise

    def _open(self) -> BinaryIO:
        try:
            # Neither truncates nor demands that the file exists, nor writes where a link leads.
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            descriptor = os.open(self._partial, flags, 0o666)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(errno.EINVAL, "it is no ordinary file")
        except OSError as error:
            raise GramFileError(
                f"out: cannot write {self._partial}: {error.strerror}"
                " (choose a file in a folder that exists and is writable)"
            ) from error
        return os.fdopen(descriptor, "r+b")

    def _apart(self) -> BinaryIO:
        """Return a copy in the place of the file, which its former writer may be writing to."""
        content = self._file.read()
        self._file.close()
        write_bytes(self._partial, content)
        return self._open()

    def _check_ours(self) -> None:
        self._file.seek(0)
        if self._file.read(len(_MAGIC)) not in (_MAGIC, _MAGIC_1):
            raise GramFileError(
                f"out: {self._partial} was not written by this library; it is left as it is (move"
                " it away, or choose another file)"
            )

    def _begin(self) -> None:
        self._magic = _MAGIC
        manifest = json.dumps(self._description, sort_keys=True).encode()
        self._file.truncate(0)
        self._file.seek(0)
        self._file.write(_MAGIC)
        self._file.write(_MANIFEST_HEADER.pack(len(manifest), zlib.crc32(manifest)))
        self._file.write(manifest)
        self._sync()

    def _take_over(self) -> None:
        damaged = f"(delete {self._partial} or pass overwrite=True to start again)"
        file, size = self._file, os.fstat(self._file.fileno()).st_size
        file.seek(0)
        self._magic = file.read(len(_MAGIC))
        if self._magic not in (_MAGIC, _MAGIC_1):
            raise GramFileError(f"out: {self._partial} was not written by this library {damaged}")
        header = file.read(_MANIFEST_HEADER.size)
        manifest = b""
        checksum = -1
        if len(header) == _MANIFEST_HEADER.size:
            length, checksum = _MANIFEST_HEADER.unpack(header)
            manifest = file.read(min(length, size))
        if zlib.crc32(manifest) != checksum:
            raise GramFileError(f"out: {self._partial} is truncated inside its header {damaged}")
        try:
            found = json.loads(manifest)
        except (ValueError, RecursionError) as error:
            raise GramFileError(f"out: {self._partial} has no JSON header {damaged}") from error
        check_same(self._partial, found, self._description)
        end = file.tell()
        while size - end >= _RECORD_HEADER.size:
            header = file.read(_RECORD_HEADER.size)
            stage, *bounds, length, checksum = _RECORD_HEADER.unpack(header)
            if length > size - file.tell():
                break
            start = file.tell()
            name = stage.rstrip(b"\0").decode("ascii", "replace")
            if self._checksum(name, bounds, file.read(length)) != checksum:
                raise GramFileError(
                    f"out: {self._partial} is damaged at byte {end}: a finished tile has a wrong"
                    f" checksum {damaged}"
                )
            row, row_stop, col, col_stop = bounds
            self._records[name, row, row_stop, col, col_stop] = (start, length)
            end = file.tell()
        # What follows is the record that the interruption cut off.
        file.truncate(end)
        file.seek(end)

    def stage(self, name: str, dtype: torch.dtype) -> "_Stage":
        """Return the tiles of one matrix, at most 8 ASCII characters for its name."""
        return _Stage(self, name, dtype)

    def read(self, name: str, tile: Tile) -> bytes | None:
        """Raw values of a finished tile, or None."""
        place = self._records.get((name, *_bounds(tile)))
        if place is None:
            return None
        start, length = place
        self._file.seek(start)
        values = self._file.read(length)
        self._file.seek(0, os.SEEK_END)
        return values

    def append(self, name: str, tile: Tile, values: bytes) -> None:
        """Append the raw values of a finished tile; they survive a kill from then on.

        Raises:
            GramFileError: They cannot be written, or another process has taken the file over.
        """
        self._check_held()
        bounds = _bounds(tile)
        checksum = self._checksum(name, bounds, values)
        header = _RECORD_HEADER.pack(name.encode("ascii"), *bounds, len(values), checksum)
        try:
            self._file.write(header)
            self._file.write(values)
            self._file.flush()
        except OSError as error:
            raise self._failure(self._partial, error) from error
        # The page cache survives the process but not the machine: sync, though not at every tile.
        if time.monotonic() - self._synced > _SECONDS_BETWEEN_SYNCS:
            self._sync()

    def finish(self, distances: Tensor) -> None:
        """Write the finished file, put it in place in one step, and drop the partial one."""
        self._check_held()
        meta = json.dumps(self._description, sort_keys=True)
        try:
            with replaced(self.path) as file:
                np.savez(
                    file,
                    allow_pickle=False,
                    distances=distances.cpu().numpy(),
                    networks=np.array(self._names),
                    meta=np.array(meta),
                )
        except OSError as error:
            raise self._failure(self.path, error) from error
        self._partial.unlink(missing_ok=True)

    def _failure(self, path: Path, error: OSError) -> GramFileError:
        return GramFileError(
            f"out: cannot write {path}: {error.strerror or error}; the finished tiles stay in"
            f" {self._partial} (make room and run again with resume=True)"
        )

    def _check_held(self) -> None:
        if not self._lock.held:
            raise GramFileError(
                f"out: {self.path} was taken over by another process, which goes on with it; this"
                " one stops"
            )

    def _checksum(self, name: str, bounds: Sequence[int], values: bytes) -> int:
        if self._magic == _MAGIC_1:
            return zlib.crc32(values)
        header = _RECORD_HEADER.pack(name.encode("ascii", "replace"), *bounds, len(values), 0)
        return zlib.crc32(values, zlib.crc32(header))

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def __enter__(self) -> "GramWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # What a full disk did not take is computed again.
        with contextlib.suppress(OSError):
            self._sync()
        with contextlib.suppress(OSError):
            self._file.close()
        self._lock.close()


class _Stage:
    """Tiles of one matrix in a `GramWriter`."""

    def __init__(self, writer: GramWriter, name: str, dtype: torch.dtype) -> None:
        self._writer, self._name, self._dtype = writer, name, dtype

    def load(self, tile: Tile) -> Tensor | None:
        """Return the block of a tile, or None if no earlier run finished it."""
        raw = self._writer.read(self._name, tile)
        if raw is None:
            return None
        shape = (tile.rows.stop - tile.rows.start, tile.cols.stop - tile.cols.start)
        values = np.frombuffer(raw, dtype=NUMPY_DTYPES[self._dtype])
        if values.size != math.prod(shape):  # of a whole run with other tiles
            return None
        values = values.reshape(shape)
        return torch.from_numpy(values.copy())

    def save(self, tile: Tile, values: Tensor) -> None:
        """Append the block of a finished tile."""
        array = values.cpu().contiguous().numpy().astype(NUMPY_DTYPES[self._dtype], copy=False)
        self._writer.append(self._name, tile, array.tobytes())


def _partial_path(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _bounds(tile: Tile) -> tuple[int, int, int, int]:
    return tile.rows.start, tile.rows.stop, tile.cols.start, tile.cols.stop
