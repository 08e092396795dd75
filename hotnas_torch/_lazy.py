"""What a package shows, imported when it is touched first (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Sequence

__all__ = ["lazily"]


def lazily(
    package: str, **names: Sequence[str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make the `__getattr__` and `__dir__` of a package, which show what its `__all__` lists.

    Args:
        package: Its `__name__`.
        **names: What comes from a module within it, by the name of that module. Everything else
            in `__all__` is a module itself.
    """
    homes = {name: module for module, inside in names.items() for name in inside}

    def get(name: str) -> object:
        shown = sys.modules[package]
        if name not in shown.__all__:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}", name=name, obj=shown
            )
        found: object = importlib.import_module(f"{package}.{homes.get(name, name)}")
        if name in homes:
            found = getattr(found, name)
            setattr(shown, name, found)
        return found

    def listed() -> list[str]:
        shown = vars(sys.modules[package])
        return sorted({*shown["__all__"], *(name for name in shown if name.startswith("__"))})

    return get, listed
