"""Checkpoints of searches that train: complete or absent, and of one search only."""

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hotnas_torch.errors import StorageError
from hotnas_torch.files import read_bytes, write_bytes

__all__ = ["applying", "read_checkpoint", "write_checkpoint"]

_VERSION = 1
_MOST_BYTES = 2**36
# The file is a zip archive that ends with a comment, whose length stands before it.
_MARK = b"hotnas sha256 "
_COMMENT_BYTES = len(_MARK) + 64
_LENGTH = struct.pack("<H", _COMMENT_BYTES)


def write_checkpoint(path: Path, identity: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a checkpoint in one step, with a checksum, and the folder it lies in.

    Args:
        path: The file.
        identity: What the search depends on, ready for `json.dumps`.
        state: Tensors, plain values and containers of them.

    Raises:
        OSError: The file cannot be written; an old one is then untouched.
    """
    buffer = io.BytesIO()
    torch.save({"version": _VERSION, "identity": json.dumps(identity), **state}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    # What torch writes ends with the length of an empty comment.
    content = buffer.getvalue()[: -len(_LENGTH)] + _LENGTH
    write_bytes(path, content + _MARK + hashlib.sha256(content).hexdigest().encode())


def read_checkpoint(
    path: Path, identity: Mapping[str, Any], *, kind: str, device: torch.device
) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote, without running anything that the file says.

    Args:
        path: The file.
        identity: Of the search that goes on.
        kind: What the search is called in messages.
        device: Where tensors go.

    Raises:
        StorageError: It is no checkpoint, damaged, of a newer version, or of another search; the
            message names the difference.
    """
    try:
        content = read_bytes(path, most=_MOST_BYTES)
        _check(content)
        state: dict[str, Any] = torch.load(
            io.BytesIO(content), map_location=device, weights_only=True
        )
        version, found = state["version"], dict(json.loads(state["identity"]))
        if type(version) is not int or version < 1:
            raise ValueError(f"its version is {version!r}, expected a whole number from 1 on")
    except Exception as error:  # whatever torch and zipfile raise for other content
        raise StorageError(
            f"{path} is no checkpoint of a {kind}: {error} (delete it to begin anew)"
        ) from error
    if version > _VERSION:
        raise StorageError(
            f"{path} was written by a newer version of hotnas_torch (update it, or choose another "
            "file)"
        )
    # Through JSON, as the other came from there.
    for name, value in json.loads(json.dumps(identity)).items():
        if found.get(name) != value:
            raise StorageError(
                f"{path} belongs to another search: its {name} is {found.get(name)!r}, here it "
                f"is {value!r} (choose another file)"
            )
    return state


@contextmanager
def applying(path: Path, kind: str) -> Iterator[None]:
    """Say of which file it is if parts of a checkpoint are missing or do not fit.

    Raises:
        StorageError: They are, or do not.
    """
    try:
        yield
    except Exception as error:
        raise StorageError(
            f"{path} does not fit this {kind}: {error!r} (delete it to begin anew)"
        ) from error


def _check(content: bytes) -> None:
    """Raise a ValueError if anything is not as it was written."""
    body, comment = content[:-_COMMENT_BYTES], content[-_COMMENT_BYTES:]
    if _MARK in content[-2 * _COMMENT_BYTES :] or body.endswith(_LENGTH):
        if comment != _MARK + hashlib.sha256(body).hexdigest().encode():
            raise ValueError("it is damaged: its checksum is another one")
        return
    # Without a checksum of the whole, as earlier versions wrote it: zip has one per entry.
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"it is damaged: {damaged} has another checksum")
