"""Files that are complete or absent: what others read is never half written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["write_bytes", "write_text"]

# A temporary file is readable by its owner alone; this one is like any other.
_MODE = 0o644


def write_text(path: Path, text: str) -> None:
    """Writes a text file, replacing an old one, in one step.

    Args:
        path: The file; its folder must exist.
        text: Its content, written as UTF-8 with its line ends as they are.

    Raises:
        OSError: The file cannot be written; an old one is then untouched.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, replacing an old one, in one step; arguments and errors as `write_text`."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(_MODE)
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
