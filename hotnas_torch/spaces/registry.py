"""Search spaces by their names."""

import difflib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from hotnas_torch.arguments import shown
from hotnas_torch.references import referenced
from hotnas_torch.spaces.base import SearchSpace
from hotnas_torch.spaces.darts import DARTS
from hotnas_torch.spaces.enas_macro import ENASMacro
from hotnas_torch.spaces.mobilenet_v2 import MobileNetV2
from hotnas_torch.spaces.nasbench101 import NASBench101
from hotnas_torch.spaces.nasbench201 import NASBench201
from hotnas_torch.spaces.nasbench_macro import NASBenchMacro
from hotnas_torch.spaces.pooling import Pooling
from hotnas_torch.spaces.transnas_macro import TransNASMacro
from hotnas_torch.spaces.transnas_micro import TransNASMicro

__all__ = ["NAMES", "get", "register"]

_SPACES: dict[str, type[SearchSpace]] = {
    space.name: space
    for space in (
        NASBench101,
        NASBench201,
        TransNASMacro,
        DARTS,
        NASBenchMacro,
        Pooling,
        MobileNetV2,
        TransNASMicro,
        ENASMacro,
    )
}
_GROUP = "hotnas_torch.spaces"

NAMES = tuple(_SPACES)
"""Names of the library's own spaces."""

# Declared spaces lie above this module.
_DECLARED = {
    "hierarchical_nasbench201": "hotnas_torch.spaces.declared:hierarchical_nasbench201",
}

_registered: dict[str, Callable[..., SearchSpace]] = {}


def register(name: str, factory: Callable[..., SearchSpace]) -> None:
    """Let `get`, the command line and reports know a space of one's own by a name.

    A package can do the same without being imported, by an entry point of the group
    `hotnas_torch.spaces`. Where the space's own `name` is this name, too, its reports find it.

    Args:
        name: A new name, without a colon.
        factory: Makes the space, from options if it has any; a class, for example.

    Raises:
        TypeError: `name` is no text, or `factory` cannot be called.
        ValueError: The name is empty, taken, or has a colon.

    Example:
        >>> register("short_darts", lambda: DARTS(max_depth=8))
        >>> get("short_darts")
        DARTS(min_depth=5, max_depth=8, channels=36, contract_skip=False)
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a str; got {shown(name)}")
    if not callable(factory):
        raise TypeError(
            f"factory must be a function that makes a space; got {shown(factory)} (pass lambda: "
            "space)"
        )
    if not name or ":" in name:
        raise ValueError(f"name must be a text without a colon; got {name!r}")
    if name in _SPACES or name in _DECLARED or _registered.get(name, factory) is not factory:
        raise ValueError(f"name must be new; got {name!r}, which is taken")
    _registered[name] = factory


def get(name: str, **options: Any) -> SearchSpace:
    """Build a search space by its name.

    Args:
        name: `"nasbench101"`, `"nasbench201"`, `"transnas_macro"`, `"darts"`, `"nasbench_macro"`,
            `"pooling"`, `"mobilenet_v2"` or `"hierarchical_nasbench201"`; a name that was
            registered; or `"package.module:name"` or `"folder/file.py:name"` of a space of one's
            own, or of a function that makes it.
        **options: The space's own options, for example `contract_skip=True`.

    Raises:
        ValueError: Unknown name; the message lists the known ones. Or one's own space cannot be
            imported or made; the message says why.
        TypeError: An option that the space does not have, or something that is no space.

    Example:
        >>> get("pooling").size()
        36
    """
    found = _found(name)
    if isinstance(found, SearchSpace):
        if options:
            raise TypeError(f"{name} is a space, and takes no options; got {', '.join(options)}")
        return found
    if callable(found):
        try:
            found = found(**options)
        # Somebody's own function, which may fail in any way.
        except Exception as error:
            if name in _SPACES or name in _DECLARED:
                raise
            raise ValueError(f"cannot find {name}: {type(error).__name__}: {error}") from error
    if not isinstance(found, SearchSpace):
        raise TypeError(f"{name} must be a search space or make one; got {shown(found)}")
    return found


def _found(name: str) -> Any:
    if not isinstance(name, str):
        raise TypeError(f"name must be a str; got {shown(name)}")
    if name in _SPACES:
        return _SPACES[name]
    if name in _registered:
        return _registered[name]
    if name in _DECLARED:
        return referenced(_DECLARED[name])
    if ":" in name:
        return referenced(name)
    installed = entry_points(group=_GROUP)
    if name in installed.names:
        return referenced(installed[name].value)
    known = [*NAMES, *_DECLARED, *_registered, *sorted(installed.names)]
    near = difflib.get_close_matches(name, known, n=1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(
        f"name must be one of {', '.join(map(repr, known))}, or 'package.module:name'; got "
        f"{name!r}{meant}"
    )
