"""The pages of the documentation: what they print can be pasted, and what they call is there.

Blocks with prompts are doctests, which pytest collects by itself; this is about the others.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hotnas_torch.cli import main as cli

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"])

# Where a block needs what a test has not.
ELSEWHERE = {
    "with RayExecutor(": "needs a cluster: tests/integrations/ray/test_pages.py runs it",
    "timedelta(hours=": "runs for hours",
}


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Line and text of the fenced blocks of a language."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text[: match.start()].count("\n") + 2, match[1]) for match in found]


PROGRAMS = [
    pytest.param(text, id=f"{page.name}:{line}")
    for page in PAGES
    for line, text in blocks(page, "python")
    if ">>>" not in text
]


def test_no_page_has_the_name_of_one_that_sphinx_writes_over() -> None:
    assert not {page.stem for page in PAGES} & {"search", "genindex", "py-modindex"}


@pytest.mark.slow
@pytest.mark.parametrize("text", PROGRAMS)
def test_a_program_runs_as_it_is_pasted(text: str, tmp_path: Path) -> None:
    for phrase, why in ELSEWHERE.items():
        if phrase in text:
            pytest.skip(why)
    program = tmp_path / "program.py"
    program.write_text(text, encoding="utf-8")
    # HOME: Tune keeps its results there. A local Ray, whatever else runs on this machine.
    variables = {"HOME": str(tmp_path), "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("text", PROGRAMS)
def test_a_program_brings_all_the_names_that_it_uses(text: str) -> None:
    """Without running it: ruff knows which names a module lacks."""
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,E9", "-"]
    try:
        import ruff as _  # noqa: F401
    except ImportError:
        pytest.skip("ruff is not installed")
    result = subprocess.run(ruff, input=text, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


COMMANDS = [
    pytest.param(line.partition("#")[0].strip(), id=f"{page.name}:{first + number}")
    for page in PAGES
    for first, text in blocks(page, "console")
    for number, line in enumerate(text.splitlines())
    if line.partition("#")[0].strip()
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_exists_and_knows_its_options(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in shlex.split(command) if not re.match(r"[A-Za-z_]+=", word)]
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= {*targets, "ext", "lanes"}
    elif words[0] == "hotnas":
        end = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
        names = ["bench", "search"] if words[1] == "bench" else [words[1]]
        assert words[1 : 1 + len(names)] == names
        assert end > len(names)
        with pytest.raises(SystemExit) as stop:
            cli.main([*names, "--help"])
        assert stop.value.code == 0
        known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known
    else:
        # Other people's programs; that they are the ones meant is what can be checked.
        assert words[0] in ("pip", "ray", "torchrun"), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    """Modules that are run, and files that are linked to."""
    text = page.read_text(encoding="utf-8")
    for module in re.findall(r"python -m ([\w.]+)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
