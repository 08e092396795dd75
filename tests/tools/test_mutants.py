"""The script that breaks lines: what it breaks, and that it tells a tested line from another."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools import mutants
from tools.mutants import Mutant, draw, is_program, targets

ROOT = Path(__file__).parents[2]

SOURCE = b'''\
"""A module of 1 < 2."""
import math

__all__ = ["f"]


def f(x: int | None, y: float = 2.0) -> float | None:
    """Say nothing of x + y."""
    if x is None and y < 1:
        raise ValueError(f"x must be {x + 1}")
    x += 1
    z = math.pow(x, -y)
    print("\xc3\xa9", x, sep="")
    return z + y
'''

HALVES = "def tested():\n    return 3 - 1\n\n\ndef other():\n    return 3 - 1\n"


def of(source: bytes) -> set[tuple[int, str, str, str]]:
    found = mutants.mutants("m.py", source)
    return {(one.line, one.kind, one.before, one.after) for one in found}


def test_each_kind_of_change_is_made_where_it_can_be() -> None:
    assert of(SOURCE) == {
        (7, "constant changed", "2.0", "4.0"),
        (9, "condition negated", "x is None and y < 1", "(not (x is None and y < 1))"),
        (9, "operator swapped", "x is None and y < 1", "(x is None or y < 1)"),
        (9, "comparison turned", "x is None", "(x is not None)"),
        (9, "comparison turned", "y < 1", "(y >= 1)"),
        (9, "constant changed", "1", "2"),
        (10, "statement removed", 'raise ValueError(f"x must be {x + 1}")', "pass"),
        (11, "statement removed", "x += 1", "pass"),
        (11, "constant changed", "1", "2"),
        (12, "argument dropped", "math.pow(x, -y)", "math.pow(x)"),
        (12, "operator dropped", "-y", "(y)"),
        (13, "statement removed", 'print("é", x, sep="")', "pass"),
        (13, "argument dropped", 'print("é", x, sep="")', "print('é', x)"),
        (14, "returned value lost", "return z + y", "return None"),
        (14, "operator swapped", "z + y", "(z - y)"),
    }


def test_every_mutant_is_another_program_of_as_many_lines() -> None:
    for mutant in mutants.mutants("m.py", SOURCE):
        broken = mutant.applied(SOURCE)
        assert is_program(mutant, SOURCE)
        assert ast.parse(broken)
        assert broken.count(b"\n") == SOURCE.count(b"\n")
    assert not is_program(
        Mutant("m.py", 11, "", "x += 1", "x +=  1", SOURCE.index(b"x += 1")), SOURCE
    )


def test_a_seed_draws_the_same_lines_once_each() -> None:
    first = draw(["hotnas_torch/gp"], 30, seed=1)
    assert first == draw(["hotnas_torch/gp"], 30, seed=1)
    assert first != draw(["hotnas_torch/gp"], 30, seed=2)
    assert len({(one.file, one.line) for one in first}) == 30
    assert len({one.kind for one in first}) > 4
    with pytest.raises(SystemExit, match="hotnas_torch/nowhere must be a folder or file"):
        draw(["hotnas_torch/nowhere"], 1, seed=0)


def test_the_mirrored_file_goes_first_and_the_package_last() -> None:
    assert targets("hotnas_torch/gp/psd.py") == [
        ["tests/gp/test_psd.py", "hotnas_torch/gp/psd.py"],
        ["tests/gp"],
    ]
    kdpp = "hotnas_torch/search/bayesian/kdpp.py"
    assert targets(kdpp) == [
        ["tests/search/bayesian/test_kdpp.py", kdpp],
        ["tests/search/bayesian"],
        ["tests/search", "--ignore=tests/search/bayesian"],
    ]
    inner = "hotnas_torch/distances/_nowhere/parts.py"
    assert targets(inner) == [[inner], ["tests/distances"]]


@pytest.mark.slow
@pytest.mark.ext
def test_a_tested_line_is_noticed_another_is_not_and_the_tree_stays_as_it_is(
    tmp_path: Path,
) -> None:
    """In a checkout whose only test tests half of its only module."""
    files = {
        "hotnas_torch/__init__.py": "",
        "hotnas_torch/part/__init__.py": "",
        "hotnas_torch/part/halves.py": HALVES,
        "tests/part/test_halves.py": "from hotnas_torch.part.halves import tested\n\n\n"
        "def test_it():\n    assert tested() == 2\n",
        "pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['.']\n"
        "addopts = ['--import-mode=importlib', '--doctest-modules', '-ra']\n",
    }
    for path in (ROOT / "tools").rglob("*.py"):
        files[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)

    def run() -> tuple[int, str]:
        command = [sys.executable, "-m", "tools.mutants", "hotnas_torch/part", "--workers", "1"]
        command += ["--record", str(tmp_path / "record.jsonl")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout

    code, text = run()
    assert code == 1  # half is less than 85 %
    assert "| hotnas_torch/part | 2 | 1 | 0 | 50% |" in text
    assert "- hotnas_torch/part/halves.py:6: " in text
    assert (tmp_path / "hotnas_torch/part/halves.py").read_text() == files[
        "hotnas_torch/part/halves.py"
    ]
    lines = (tmp_path / "record.jsonl").read_text().splitlines()
    assert {json.loads(line)["outcome"] for line in lines} == {"killed", "survived"}
    again, table = run()
    assert (again, (tmp_path / "record.jsonl").read_text().splitlines()) == (code, lines)
    assert table in text
