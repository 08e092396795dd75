"""The scripts of the gallery, and the pages of the reference."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hotnas_torch as ht

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*/plot_*.py"))


def test_the_gallery_is_there() -> None:
    assert len(SCRIPTS) >= 20
    for folder in {script.parent for script in SCRIPTS}:
        title, line = (folder / "README.rst").read_text(encoding="utf-8").splitlines()
        assert set(line) == {"-"}
        assert len(line) == len(title)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_begins_with_a_title(script: Path) -> None:
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))
    assert text is not None
    title, line, *rest = text.splitlines()
    assert line == "=" * len(title)
    assert rest[1], "a sentence says what it shows"


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_runs_by_itself(script: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_public_part_has_a_page_of_the_reference() -> None:
    tree = ast.parse((ROOT / "docs" / "reference.py").read_text(encoding="utf-8"))
    (parts,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PARTS"
    )
    shown = {name for name in dir(ht) if name.islower() and not name.startswith("_")}
    modules = {name for name in shown if type(getattr(ht, name)).__name__ == "module"}
    assert modules - {part.partition(".")[0] for part in parts} == {"cli"}  # commands, no names
