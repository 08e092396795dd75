"""Files that are complete or absent, of one writer, and read within bounds."""

import errno
import math
import os
import socket
import stat
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

if sys.platform != "win32":
    import fcntl

__all__ = [
    "InUseError",
    "WriteLock",
    "check_writable",
    "is_locked",
    "is_version",
    "open_ordinary",
    "read_array",
    "read_bytes",
    "replaced",
    "write_bytes",
    "write_text",
]

# A temporary file is readable by its owner alone; this one is like any other.
_MODE = 0o644
_LOCK_MAGIC = b"hotnas-lock "
# How long somebody holds a lock that only gives it back.
_LEAVING_SECONDS = 1.0
# How long a lock is tried again that may only have been looked at.
_LOOKING_SECONDS = 0.05
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


def write_text(path: Path, text: str) -> None:
    """Write a text file, replacing an old one, in one step.

    Args:
        path: The file; its folder must exist.
        text: Its content, written as UTF-8 with its line ends as they are.

    Raises:
        OSError: The file cannot be written; an old one is then untouched.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, replacing an old one, in one step; arguments and errors as `write_text`."""
    with replaced(path) as file:
        file.write(content)


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` in one step when the `with` ends well.

    Until then it has a name in the same folder that no other file has.

    Raises:
        OSError: The file cannot be written; an old one is then untouched.
    """
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name[:64]}.", delete=False
    ) as file:
        try:
            yield cast(BinaryIO, file)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(_MODE)
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def check_writable(path: Path) -> None:
    """Check that `replaced` can write a file, and leave no trace.

    Raises:
        OSError: The path is a folder or a device, its folder is missing or cannot be written;
            `strerror` says which.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        pass
    except ValueError as error:  # a name with a null byte
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    else:
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "it is protected against writing", str(path))
    folder = path.absolute().parent
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise NotADirectoryError(errno.ENOTDIR, f"the folder {path.parent} {what}", str(path))
    # The name itself is tried, which may be too long; the folder, which permissions do not tell.
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name[:64]}."):
        pass


def is_version(found: object, expected: int) -> bool:
    """Whether a file says that it has a version: 1.0 and true are no 1."""
    return type(found) is int and found == expected


def open_ordinary(path: Path) -> BinaryIO:
    """Open an ordinary file to read it.

    Raises:
        OSError: It cannot be read, or is no ordinary file; `strerror` says which.
    """
    # A pipe without a writer would make `open` wait.
    descriptor = os.open(path, os.O_RDONLY | _NONBLOCK | _BINARY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, *, most: int) -> bytes:
    """Read an ordinary file of bounded size.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        OSError: It cannot be read, is no ordinary file, or is larger; `strerror` says which.
    """
    with open_ordinary(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
        return file.read(size)


_BINARY = getattr(os, "O_BINARY", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


def read_array(
    archive: zipfile.ZipFile, name: str, *, most: int | None = None
) -> np.ndarray[Any, Any]:
    """Read an array of an `.npz` archive, of a size known before anything of it is read.

    The archive checks the bytes by their checksum.

    Args:
        archive: The archive.
        name: Of the array.
        most: Bytes that it may have when it is compressed; None takes no compressed array. One
            that is not has no more than the file.

    Raises:
        ValueError: It is larger, or no array of plain numbers or text of the size it says.
        KeyError: There is none of this name.
        zipfile.BadZipFile: Its checksum is another one.
    """
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED:
        if most is None:
            raise ValueError(f"{name} is compressed, which this library does not do")
        if entry.file_size > most:
            raise ValueError(f"{name} is larger than {most:,} bytes")
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADERS:
            raise ValueError(f"{name} has the unknown array version {version}")
        shape, fortran, dtype = _HEADERS[version](member)
        held = entry.file_size - member.tell()
        if dtype.hasobject or fortran:
            raise ValueError(f"{name} is not of plain numbers or text")
        if min(shape, default=0) < 0 or dtype.itemsize * math.prod(shape) != held:
            raise ValueError(f"{name} says shape {shape} and dtype {dtype}, but has {held} bytes")
        # Reading to the end checks the checksum.
        return np.frombuffer(bytearray(member.read()), dtype=dtype).reshape(shape)


_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class InUseError(OSError):
    """Another process holds the lock of a file; the message says which."""


class WriteLock:
    """Keeps other processes from writing a file, by a file `<name>.lock` beside it.

    The operating system lets go of it when the process ends, in whatever way: what a killed process
    leaves behind stops nobody.

    Args:
        path: The file that is to be written; it need not exist.
        shared: Let others hold it as well that say so, too.
        take_over: Take the lock away from its holder, whose `held` then says so.

    Raises:
        InUseError: Another process holds it.
        OSError: The lock cannot be written, or its name belongs to a file of something else.
    """

    def __init__(self, path: Path, *, shared: bool = False, take_over: bool = False) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._shared = shared
        self._descriptor = self._taken() if take_over else self._acquired()

    @property
    def held(self) -> bool:
        """Whether nobody has taken it over; who cleans a folder up does not."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path))
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Let go of it."""
        if self.held and not (self._shared and self._others()):
            with suppress(FileNotFoundError):
                self._path.unlink()
        os.close(self._descriptor)

    def _others(self) -> bool:
        """Whether somebody else holds it as well."""
        try:
            _flock(self._descriptor)
        except InUseError:
            return True
        return False

    def _acquired(self) -> int:
        patience = _LEAVING_SECONDS if self._shared else _LOOKING_SECONDS
        deadline = time.monotonic() + patience
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | _NOFOLLOW | _NONBLOCK, _MODE)
            try:
                self._check_ours(descriptor)
                _flock(descriptor, shared=self._shared)
                # It may have been given back, or taken over, between opening and locking it.
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), os.lstat(self._path)):
                        _sign(descriptor)
                        return descriptor
            except InUseError:
                os.close(descriptor)
                # The last of those that shared it may be on its way out, or `is_locked` looks.
                if time.monotonic() > deadline:
                    raise
                time.sleep(_LOOKING_SECONDS)
                continue
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _taken(self) -> int:
        if os.path.lexists(self._path):
            descriptor = os.open(self._path, os.O_RDONLY | _NOFOLLOW | _NONBLOCK)
            try:
                self._check_ours(descriptor)
            finally:
                os.close(descriptor)
        # A file of its own replaces that of the holder, who sees by this that the lock is gone.
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            _flock(descriptor, shared=self._shared)
            _sign(descriptor)
            os.replace(name, self._path)
        except BaseException:
            os.close(descriptor)
            Path(name).unlink(missing_ok=True)
            raise
        return descriptor

    def _check_ours(self, descriptor: int) -> None:
        ordinary = stat.S_ISREG(os.fstat(descriptor).st_mode)
        content = os.read(descriptor, len(_LOCK_MAGIC)) if ordinary else b""
        if not ordinary or (content and content != _LOCK_MAGIC):
            raise OSError(
                errno.EEXIST, "a file of something else has the name of the lock", str(self._path)
            )


def is_locked(path: Path) -> bool:
    """Whether somebody holds the `WriteLock` of a file; where there are no locks, nobody does."""
    try:
        lock = path.with_name(path.name + ".lock")
        descriptor = os.open(lock, os.O_RDONLY | _NOFOLLOW | _NONBLOCK)
    except OSError:
        return False
    try:
        _flock(descriptor)
    except InUseError:
        return True
    finally:
        os.close(descriptor)
    return False


def _flock(descriptor: int, *, shared: bool = False) -> None:
    if sys.platform == "win32":
        return
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.lseek(descriptor, 0, os.SEEK_SET)
        holder = os.read(descriptor, 256).removeprefix(_LOCK_MAGIC)
        raise InUseError(
            holder.decode("utf-8", "replace").strip() or "a process that has just begun"
        ) from error
    except OSError as error:
        # A file system without locks: the lock only guards against a mistake.
        if error.errno not in _NO_LOCKS:
            raise


def _sign(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(
        descriptor, _LOCK_MAGIC + f"process {os.getpid()} on {socket.gethostname()}\n".encode()
    )
