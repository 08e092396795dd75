"""One dialect: how docstrings, messages, names and modules of the package are written."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hotnas_torch"
MOST_LINES = 400
REASON = "# Over 400 lines: "
MOST_PARAMETERS = 10
# The field says: reference implementation, observed, pending.
WORDS = (
    r"torch texts?\b|both texts|two texts|\bfertile\b|\bawaited\b"
    r"|\b(?:the|all|its|what was|newly) told\b|\btold (?:networks?|values?|points?|observations?)\b"
)
ROLE = r":(?:py:)?(?:class|func|meth|attr|mod|data|exc|obj|ref|doc):`"
SEE = r"^\s+\*{0,2}\w+(?:, \*{0,2}\w+)*: See `"


def modules() -> list[Path]:
    """All that speak the dialect."""
    return sorted(PACKAGE.rglob("*.py"))


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, those of attributes too."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            value = getattr(statement, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant):
                yield statement.lineno, str(value.value)


def written(node: ast.expr) -> str | None:
    """A literal text with {} for what is put into it; None if it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [written(node.left), written(node.right)]
        return "".join("{}" if part is None else part for part in parts)
    return None


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of what is raised, also where it was given a name first."""
    named = {
        (target.id, node.lineno): text
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and (text := written(node.value)) is not None
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
            continue
        for argument in node.exc.args:
            text = written(argument)
            if text is not None:
                yield node.lineno, text
            elif isinstance(argument, ast.Name):
                above = [key for key in named if key[0] == argument.id and key[1] <= node.lineno]
                if above:
                    yield node.lineno, named[max(above, key=lambda key: key[1])]


def names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of what a module itself names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr


def faults(source: str) -> list[str]:
    """What is not the dialect in a module."""
    tree, lines = ast.parse(source), source.splitlines()
    found = []
    for line, text in docstrings(tree):
        found += [f"{line}: double backticks: {w}" for w in re.findall(r"``[^`]+``?", text)]
        found += [f"{line}: a role of Sphinx: {w}" for w in re.findall(ROLE + r"[^`]+`", text)]
        found += [f"{line}: say it here: {w.strip()}" for w in re.findall(SEE, text, re.MULTILINE)]
    for line, text in messages(tree):
        if text.endswith(".") and not text.endswith("..."):
            found.append(f"{line}: a message ends without a full stop: {text}")
        if re.search(r",\s+got\b", text):
            found.append(f'{line}: "; got", not ", got": {text}')
    for number, line in enumerate(lines, 1):
        found += [f"{number}: not our word: {word}" for word in re.findall(WORDS, line)]
    for line, name in names(tree):
        if re.search(r"(?:^|_)(?:told|awaited|fertile)(?:_|$)", name, re.IGNORECASE):
            found.append(f"{line}: not our word: {name}")
    # Annotations of what an optional package would define cannot be evaluated without it.
    optional = "except ImportError" in source
    if not optional and re.search(r"^from __future__ import annotations", source, re.MULTILINE):
        found.append("1: annotations are evaluated; quote what is defined later, or use Self")
    if len(lines) > MOST_LINES and not source.startswith(REASON):
        found.append(f"1: {len(lines)} lines, and no first line {REASON!r} with the reason")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    taken = method.args
                    count = len(taken.posonlyargs + taken.args + taken.kwonlyargs) - 1
                    if count > MOST_PARAMETERS:
                        found.append(f"{method.lineno}: {node.name} has {count} parameters")
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_speaks_the_dialect(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


def test_docstrings_begin_in_the_imperative() -> None:
    """Functions do something: "Return ...", not "Returns ..." and no noun alone."""
    try:
        import ruff as _  # noqa: F401
    except ImportError:
        pytest.skip("ruff is not installed")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "D401"]
    paths = list(map(str, modules()))
    result = subprocess.run([*command, *paths], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('"""Of ``x``."""', "double backticks: ``x``"),
        ('def f():\n    """As :class:`X` is."""', "a role of Sphinx: :class:`X`"),
        ('x = 1\n"""Of ``x``."""', "double backticks: ``x``"),
        ('class A:\n    """A.\n\n    Args:\n        x, y: See `B`.\n    """', "say it here"),
        ('raise ValueError("n is bad.")', "without a full stop"),
        ('raise ValueError(f"n must be 1, got {n}")', '"; got"'),
        ('def f():\n    msg = f"n {n}" + " is bad."\n    raise ValueError(msg)', "full stop"),
        ("# as the torch text does", "not our word: torch text"),
        ("def told_networks(): pass", "not our word: told_networks"),
        ("self._awaited = 1", "not our word: _awaited"),
        ("from __future__ import annotations", "annotations are evaluated"),
        ("\n" * 401, "401 lines"),
        (
            "class A:\n    def __init__(self, a, b, c, d, e, f, *, g, h, i, j, k): pass",
            "A has 11 parameters",
        ),
    ],
)
def test_a_fault_is_found(source: str, fault: str) -> None:
    (found,) = faults(source)
    assert fault in found


def test_what_is_right_passes() -> None:
    source = (
        '"""A module that is told things, `x` among them."""\n'
        'raise ValueError(f"x must be 1; got {x} (pass 1), and so on ...")\n'
        "class _A:\n    def __init__(self, a, b, c, d, e, f, *, g, h, i, j, k): pass\n"
    )
    assert faults(source) == []
    assert faults(f"{REASON}one table.\n" + "\n" * 500) == []
