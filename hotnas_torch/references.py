"""Objects of somebody else's modules, by the place where they are: `package.module:name`."""

import importlib
import sys
from pathlib import Path
from typing import Any

__all__ = ["referenced"]


def referenced(reference: str) -> Any:
    """Return what a reference names, after importing its module.

    Args:
        reference: `package.module:name` of a module that Python finds, or `folder/file.py:name`;
            `name` may have dots. The folder of a file is then searched for modules, as when Python
            runs the file, so that worker processes find it, too.

    Raises:
        ValueError: There is no such thing, or its module cannot be imported; the message says why.
    """
    where, _, name = reference.rpartition(":")
    try:
        found: Any = _module(where)
        for part in name.split("."):
            found = getattr(found, part)
    # Somebody's own module, which may fail in any way.
    except Exception as error:
        raise ValueError(f"cannot find {reference}: {type(error).__name__}: {error}") from error
    return found


def _module(where: str) -> Any:
    if not where.endswith(".py"):
        return importlib.import_module(where)
    path = Path(where).resolve(strict=True)
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found = importlib.import_module(path.stem)
    if Path(str(found.__file__)).resolve() != path:
        raise ImportError(
            f"another module is called {path.stem}: {found.__file__} (give the file another name)"
        )
    return found
