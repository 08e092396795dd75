"""The programs of the documentation that need a cluster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent

PROGRAMS = [
    block.partition("```")[0]
    for block in (ROOT / "docs" / "ray.md").read_text(encoding="utf-8").split("```python\n")[1:]
    if "RayExecutor(" in block.partition("```")[0]
]


@pytest.mark.slow
@pytest.mark.parametrize("text", PROGRAMS, ids=["matrices", "search"])
def test_a_program_runs_as_it_is_pasted(text: str, cluster: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(text.replace("HOST:6379", cluster), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": cluster},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
