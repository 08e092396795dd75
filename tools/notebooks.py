"""Write the tutorials as notebooks, made of scripts of the gallery.

    python -m tools.notebooks [--out build/notebooks]

On the site every page of the gallery offers its notebook, made in the same way.
"""

import argparse
import contextlib
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

__all__ = ["FIRST_CELL", "TUTORIALS", "main", "write"]

ROOT = Path(__file__).resolve().parents[1]

TUTORIALS = (
    "solvers/plot_couplings.py",
    "models/plot_kernel.py",
    "spaces/plot_own_space.py",
    "search/plot_search.py",
)

FIRST_CELL = "%config InteractiveShell.ast_node_interactivity = 'last_expr_or_assign'"
"""Shows what a cell ends with, figures of `ht.plot` among it, also where it is given a name."""


def write(folder: Path, scripts: Sequence[Path]) -> list[Path]:
    """Write a notebook per script, without results.

    Args:
        folder: Made where missing; older notebooks of the same names are replaced.
        scripts: Scripts of the gallery.

    Returns:
        The notebooks.

    Raises:
        ImportError: sphinx-gallery, which converts them, is not installed.
    """
    try:
        from sphinx_gallery.notebook import python_to_jupyter_cli
    except ImportError as error:
        raise ImportError(
            f"notebooks need sphinx-gallery (pip install 'hotnas-torch[docs]'): {error}"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for script in scripts:
        # The converter writes beside the script.
        copied = folder / script.name
        shutil.copyfile(script, copied)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                settings = {"first_notebook_cell": FIRST_CELL}
                python_to_jupyter_cli([str(copied)], sphinx_gallery_conf=settings)
        finally:
            copied.unlink()
        written.append(copied.with_suffix(".ipynb"))
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "notebooks")
    out = parser.parse_args(arguments).out
    for path in write(out, [ROOT / "examples" / name for name in TUTORIALS]):
        print(path)


if __name__ == "__main__":
    main()
