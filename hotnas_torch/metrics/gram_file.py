"""Gram matrices on disk: written as they are computed, resumed after a kill, read back safely.

While a computation runs, its finished tiles are appended to ``<out>.partial``::

    magic line | length and checksum of the manifest | manifest (JSON) | record | record | ...

A record is a fixed header (stage, row and column range, checksum) and the raw values of one tile.
Appending is the only way in which the file changes, so a kill can damage nothing but the record
being written, which is recognised by its length and dropped. The finished file is an ordinary NumPy
``.npz`` archive that replaces `out` in one step. Neither file can hold Python objects.
"""

import contextlib
import hashlib
import json
import os
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hotnas_torch._version import __version__
from hotnas_torch.errors import GramFileError
from hotnas_torch.metrics.pairwise import Tile

if sys.platform != "win32":
    import fcntl

__all__ = [
    "Gram",
    "GramWriter",
    "check_same",
    "describe_gram",
    "finished_gram",
    "load_gram",
    "lock",
]

FORMAT = "hotnas-gram"
FORMAT_VERSION = 1

_MAGIC = b"hotnas-gram-partial 1\n"
_MANIFEST_HEADER = struct.Struct("<QI")
_RECORD_HEADER = struct.Struct("<8s4QQI")
_SECONDS_BETWEEN_SYNCS = 2.0
_NUMPY_DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype("<f4"),
    torch.float64: np.dtype("<f8"),
}


class Gram(NamedTuple):
    """Contents of a finished file.

    Attributes:
        distances: Symmetric matrix, shape (X, X), float32/float64, on the CPU.
        networks: X architecture strings (JSON for networks computed without a space).
        meta: ``"format"``, ``"format_version"``, ``"settings"`` (of the metric) and
            ``"fingerprint"`` (digest of settings and networks).
    """

    distances: Tensor
    networks: list[str]
    meta: dict[str, Any]


def load_gram(path: str | PathLike[str]) -> Gram:
    """Read a finished Gram file.

    Args:
        path: File that `HOTNN.gram` or ``hotnas gram`` wrote.

    Returns:
        Distances, architecture strings and a description of how they were computed.

    Raises:
        FileNotFoundError: There is no such file.
        GramFileError: The file is truncated, damaged, or of another kind.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            distances, networks, meta = (
                archive[name] for name in ("distances", "networks", "meta")
            )
        description = json.loads(str(meta))
    except FileNotFoundError:
        raise
    except (
        AttributeError,
        EOFError,
        KeyError,
        OSError,
        TypeError,  # np.load gives a plain array for a .npy file, which is no context manager
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise GramFileError(
            f"{path} is not a readable Gram file ({error}); it is truncated, damaged, or was"
            " written by another program (compute it again with overwrite=True)"
        ) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise GramFileError(f"{path} is an .npz archive, but not a Gram file of this library")
    if description.get("format_version") != FORMAT_VERSION:
        raise GramFileError(
            f"{path} has Gram file version {description.get('format_version')!r}; this version of"
            f" hotnas_torch reads version {FORMAT_VERSION} (install the version that wrote it)"
        )
    size = len(networks)
    if distances.dtype not in _NUMPY_DTYPES.values() or distances.shape != (size, size):
        raise GramFileError(
            f"{path} holds distances of shape {distances.shape} and dtype {distances.dtype} for"
            f" {size} networks; expected ({size}, {size}) in float32 or float64"
        )
    return Gram(torch.from_numpy(distances), [str(name) for name in networks], description)


def finished_gram(
    path: str | PathLike[str], settings: Mapping[str, Any], keys: Sequence[str]
) -> Tensor | None:
    """Distances of a finished file, if it is there and of this computation.

    Args:
        path: Output path.
        settings: Settings of the metric, JSON-ready.
        keys: Keys of the networks in order.

    Returns:
        The distances, or None if there is no file.

    Raises:
        GramFileError: The file is damaged or of another computation.
    """
    path = Path(path)
    if not path.exists():
        return None
    gram = load_gram(path)
    check_same(path, gram.meta, describe_gram(settings, keys))
    return gram.distances


class GramWriter:
    """The file behind one Gram computation; a context manager.

    Args:
        path: Finished file.
        settings: Settings of the metric, JSON-ready.
        keys: Keys of the networks in order; with the settings they identify the computation.
        names: Architecture strings in order, stored for the reader.
        resume: Take over the tiles of an interrupted run of the same computation.
        overwrite: Discard what an earlier run left.

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
    ) -> None:
        self.path = Path(path)
        self._partial = _partial_path(self.path)
        self._names = list(names)
        self._description = describe_gram(settings, keys)
        self._records: dict[tuple[str, int, int, int, int], tuple[int, int]] = {}
        self._synced = time.monotonic()
        if self.path.is_dir():
            raise GramFileError(f"out: {self.path} is a folder; name a file")
        if self.path.exists() and not overwrite:
            raise GramFileError(
                f"out: {self.path} exists (pass resume=True to go on with the same computation, or"
                " overwrite=True to replace it)"
            )
        if self._partial.exists() and not (overwrite or resume):
            raise GramFileError(
                f"out: {self._partial} holds an interrupted run (pass resume=True to go on with it,"
                " or overwrite=True to discard it)"
            )
        self._file = self._open()
        try:
            lock(self._file.fileno(), self._partial)
            if overwrite or os.fstat(self._file.fileno()).st_size == 0:
                self._begin()
            else:
                self._take_over()
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> BinaryIO:
        try:
            # Neither truncates nor demands that the file exists.
            descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise GramFileError(
                f"out: cannot write {self._partial}: {error.strerror}"
                " (choose a file in a folder that exists and is writable)"
            ) from error
        return os.fdopen(descriptor, "r+b")

    def _begin(self) -> None:
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
        if file.read(len(_MAGIC)) != _MAGIC:
            raise GramFileError(f"out: {self._partial} was not written by this library {damaged}")
        header = file.read(_MANIFEST_HEADER.size)
        manifest = b""
        checksum = -1
        if len(header) == _MANIFEST_HEADER.size:
            length, checksum = _MANIFEST_HEADER.unpack(header)
            manifest = file.read(min(length, size))
        if zlib.crc32(manifest) != checksum:
            raise GramFileError(f"out: {self._partial} is truncated inside its header {damaged}")
        check_same(self._partial, json.loads(manifest), self._description)
        end = file.tell()
        while size - end >= _RECORD_HEADER.size:
            stage, row, row_stop, col, col_stop, length, checksum = _RECORD_HEADER.unpack(
                file.read(_RECORD_HEADER.size)
            )
            if length > size - file.tell():
                break
            start = file.tell()
            if zlib.crc32(file.read(length)) != checksum:
                raise GramFileError(
                    f"out: {self._partial} is damaged at byte {end}: a finished tile has a wrong"
                    f" checksum {damaged}"
                )
            name = stage.rstrip(b"\0").decode("ascii")
            self._records[name, row, row_stop, col, col_stop] = (start, length)
            end = file.tell()
        # What follows is the record that the interruption cut off.
        file.truncate(end)
        file.seek(end)

    def stage(self, name: str, dtype: torch.dtype) -> "_Stage":
        """The tiles of one matrix, at most 8 ASCII characters for its name."""
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
        """Append the raw values of a finished tile; they survive a kill from then on."""
        header = _RECORD_HEADER.pack(
            name.encode("ascii"), *_bounds(tile), len(values), zlib.crc32(values)
        )
        self._file.write(header)
        self._file.write(values)
        self._file.flush()
        # The page cache survives the process but not the machine: sync, though not at every tile.
        if time.monotonic() - self._synced > _SECONDS_BETWEEN_SYNCS:
            self._sync()

    def finish(self, distances: Tensor) -> None:
        """Write the finished file, put it in place in one step, and drop the partial one."""
        temporary = self.path.with_name(self.path.name + ".tmp")
        meta = json.dumps(self._description, sort_keys=True)
        try:
            with temporary.open("wb") as file:
                np.savez(
                    file,
                    allow_pickle=False,
                    distances=distances.cpu().numpy(),
                    networks=np.array(self._names),
                    meta=np.array(meta),
                )
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise GramFileError(
                f"out: cannot write {self.path}: {error.strerror or error}; the finished tiles"
                f" stay in {self._partial} (make room and run again with resume=True)"
            ) from error
        self._partial.unlink()

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
        with contextlib.suppress(OSError):
            self._sync()
        self._file.close()


class _Stage:
    """Tiles of one matrix in a `GramWriter`."""

    def __init__(self, writer: GramWriter, name: str, dtype: torch.dtype) -> None:
        self._writer, self._name, self._dtype = writer, name, dtype

    def load(self, tile: Tile) -> Tensor | None:
        """The block of a tile, or None if no earlier run finished it."""
        raw = self._writer.read(self._name, tile)
        if raw is None:
            return None
        shape = (tile.rows.stop - tile.rows.start, tile.cols.stop - tile.cols.start)
        values = np.frombuffer(raw, dtype=_NUMPY_DTYPES[self._dtype]).reshape(shape)
        return torch.from_numpy(values.copy())

    def save(self, tile: Tile, values: Tensor) -> None:
        """Append the block of a finished tile."""
        array = values.cpu().contiguous().numpy().astype(_NUMPY_DTYPES[self._dtype], copy=False)
        self._writer.append(self._name, tile, array.tobytes())


def lock(descriptor: int, path: Path) -> None:
    """Keep other processes from writing what is open, until it is closed.

    Args:
        descriptor: Of an open file or folder.
        path: Its name, for the error.

    Raises:
        GramFileError: Another process holds it.
    """
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise GramFileError(
            f"out: another process is writing {path} (wait for it, or choose another file)"
        ) from error
    except OSError:
        # A file system without locks: the lock only guards against a mistake.
        return


def _partial_path(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _bounds(tile: Tile) -> tuple[int, int, int, int]:
    return tile.rows.start, tile.rows.stop, tile.cols.start, tile.cols.stop


def describe_gram(settings: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """What a result file says about itself: settings, version, and a digest with the networks."""
    # The version counts: another one may round differently, and a file must not mix two.
    settings = {**settings, "hotnas_torch": __version__}
    networks = hashlib.sha256("\n".join(keys).encode()).hexdigest()
    text = json.dumps({"settings": settings, "networks": networks}, sort_keys=True)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "fingerprint": hashlib.sha256(text.encode()).hexdigest(),
        "num_networks": len(keys),
        "networks_digest": networks,
        "settings": settings,
    }


def check_same(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise a GramFileError that names the differences of two descriptions, if there are any."""
    if found.get("fingerprint") == expected["fingerprint"]:
        return
    differences = list(_differences(found, expected)) or ["it describes another computation"]
    raise GramFileError(
        f"out: {path} belongs to another computation: {'; '.join(differences)}"
        " (choose another file, or pass overwrite=True to replace it)"
    )


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    there, here = found.get("settings"), expected["settings"]
    if isinstance(there, Mapping):
        for name in here:
            if there.get(name) != here[name]:
                if name == "tree":
                    yield "its operation tree differs"
                else:
                    yield f"{name} is {there.get(name)!r} there and {here[name]!r} here"
    if found.get("num_networks") != expected["num_networks"]:
        yield (
            f"it holds {found.get('num_networks')} networks, this computation has"
            f" {expected['num_networks']}"
        )
    elif found.get("networks_digest") != expected["networks_digest"]:
        yield "its networks are others, or in another order"
