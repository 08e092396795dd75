"""Which code made a record: the modules that decide what a search proposes."""

import ast
import hashlib
from functools import cache
from pathlib import Path

from hotnas_torch._version import __version__

__all__ = ["code_version"]

_PACKAGE = Path(__file__).parents[1]
# Packages whose modules decide what is proposed and what it is worth.
_DECIDING = ("arch", "distances", "gp", "objectives", "ot", "search", "spaces")


@cache
def code_version(*packages: str) -> dict[str, str]:
    """Return what tells two versions of the code apart that may propose different networks.

    Args:
        *packages: Whose modules count, such as "nn"; none: `arch`, `distances`, `gp`, `objectives`,
            `ot`, `search` and `spaces`, which decide what a search proposes.

    Returns:
        `package`, the package's version, and `digest`, 16 hex digits that change with those
        modules, but not with what stands in their comments and docstrings.

    Raises:
        FileNotFoundError: The modules' sources are not where they were imported from.

    Complexity: parses these modules once in a process, about a second.
    """
    digest = hashlib.sha256()
    for package in packages or _DECIDING:
        paths = sorted((_PACKAGE / package).rglob("*.py"))
        if not paths:
            raise FileNotFoundError(
                f"the code that makes records has no digest: {_PACKAGE / package} holds no modules "
                "(it was moved or deleted while this process ran, or installed without sources)"
            )
        for path in paths:
            digest.update(path.relative_to(_PACKAGE).as_posix().encode())
            digest.update(_statements(path.read_text(encoding="utf-8")).encode())
    return {"package": __version__, "digest": digest.hexdigest()[:16]}


def _statements(source: str) -> str:
    """Return what a module does, as text: its syntax tree without docstrings and positions."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_text(statement)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
