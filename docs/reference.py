"""Pages of the reference, one per public part, written from what the parts show."""

import inspect
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

# In the order of the menu.
PARTS = (
    "ot", "arch", "importing", "spaces", "distances", "matrices", "gp", "centres", "search",
    "objectives", "nn", "hierarchy", "nago", "comparison", "plot", "plot.report",
    "integrations.pot", "integrations.sklearn", "integrations.optuna", "integrations.ax",
    "integrations.configspace", "integrations.ray", "segments", "testing", "errors",
)  # fmt: skip


def write(folder: Path, parts: Sequence[str] = PARTS) -> list[Path]:
    """Write a page per part into a folder, and `index.rst`; pages that say the same stay.

    Args:
        folder: Made where missing.
        parts: Dotted names below the package.

    Returns:
        The pages.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pages = {f"{part}.rst": page(import_module(f"hotnas_torch.{part}")) for part in parts}
    pages["index.rst"] = index(parts)
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    return [folder / name for name in pages]


def index(parts: Sequence[str]) -> str:
    """Return the page that lists the parts, in reStructuredText."""
    lines = [*_title("Reference", "="), "``import hotnas_torch as ht`` shows all of it.", ""]
    lines += [".. list-table::", "   :widths: 25 75", ""]
    for part in parts:
        said = _first_line(import_module(f"hotnas_torch.{part}"))
        lines += [f"   * - :doc:`ht.{part} <{part}>`", f"     - {said}"]
    lines += ["", ".. toctree::", "   :hidden:", ""]
    lines += [f"   ht.{part} <{part}>" for part in parts]
    return "\n".join(lines) + "\n"


def page(part: ModuleType) -> str:
    """Return a part's page: what it is for, a table of its names, then each of them."""
    short = part.__name__.removeprefix("hotnas_torch.")
    lines = [*_title(f"ht.{short}", "="), *(inspect.getdoc(part) or "").splitlines(), ""]
    lines += [f".. currentmodule:: {part.__name__}", ""]
    names = [name for name in part.__all__ if not inspect.ismodule(getattr(part, name))]
    for title, chosen in (
        ("Functions", [name for name in names if inspect.isroutine(getattr(part, name))]),
        ("Classes", [name for name in names if inspect.isclass(getattr(part, name))]),
    ):
        if chosen:
            lines += [*_title(title, "-"), ".. autosummary::", "   :nosignatures:", ""]
            lines += [f"   {name}" for name in chosen] + [""]
        for name in chosen:
            kind = "autoclass" if title == "Classes" else "autofunction"
            kind = "autoexception" if _is_error(getattr(part, name)) else kind
            lines += [f".. {kind}:: {name}", ""]
    constants = [name for name in names if not callable(getattr(part, name))]
    if constants:
        lines += _title("Constants", "-")
        for name in constants:
            lines += [f".. py:data:: {name}", f"   :type: {type(getattr(part, name)).__name__}", ""]
    return "\n".join(lines).rstrip() + "\n"


def figures(_block: Any, variables: dict[str, Any], settings: dict[str, Any]) -> str:
    """Show figures that pyplot does not know, those of `ht.plot`, in the gallery.

    Args:
        variables: Of the gallery: what the script has defined, and where the next picture goes.
        settings: Of the gallery.

    Returns:
        What shows them, in reStructuredText.
    """
    found = variables["example_globals"].get("figure")
    if not isinstance(found, Figure) or hasattr(found, "number") or hasattr(found, "shown"):
        return ""
    path = next(variables["image_path_iterator"])
    found.savefig(path, dpi=100)
    found.shown = True  # type: ignore[attr-defined]
    return str(figure_rst([path], settings["src_dir"]))


def _title(text: str, mark: str) -> list[str]:
    return [text, mark * len(text), ""]


def _first_line(part: ModuleType) -> str:
    return (inspect.getdoc(part) or "").splitlines()[0]


def _is_error(what: object) -> bool:
    return inspect.isclass(what) and issubclass(what, BaseException)
