"""What `import hotnas_torch as ht` shows, what it costs, and that the pages name nothing else."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import hotnas_torch as ht

PACKAGE = Path(ht.__file__).parent
PAGES = [PACKAGE.parent / "README.md", *sorted((PACKAGE.parent / "docs").glob("*.md"))]
# Nothing of these before a part is touched that needs them.
HEAVY = (
    *("botorch", "gpytorch", "linear_operator", "matplotlib", "networkx", "optuna", "ray", "scipy"),
    *("sklearn", "torch._dynamo", "zarr"),
)
# In CPU seconds of torch and the core. 1.0 today; it was 1.9 with all of `ot` and `distances`.
MOST = 1.3


def processor_seconds(program: str) -> float:
    """What a fresh process takes to run a program, of all its threads."""
    timed = f"import time\n{program}\nprint(time.process_time())"
    done = subprocess.run([sys.executable, "-c", timed], check=True, capture_output=True, text=True)
    return float(done.stdout)


def test_the_import_costs_what_torch_and_the_core_cost() -> None:
    alone = "import torch"
    core = importlib.util.find_spec("hotnas_torch._C")
    if core is not None and core.origin is not None:
        alone += f"\ntorch.ops.load_library({core.origin!r})"
    pairs = [(processor_seconds(alone), processor_seconds("import hotnas_torch")) for _ in range(2)]
    assert min(ours for _, ours in pairs) <= MOST * min(least for least, _ in pairs), pairs


def test_the_import_loads_no_heavy_library() -> None:
    program = f"import sys, hotnas_torch; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_every_part_resolves_in_a_fresh_process() -> None:
    program = (
        "import hotnas_torch as ht\n"
        "for name in ht.__all__: getattr(ht, name)\n"
        "ht.gp.HOTNNGP, ht.search.run, ht.integrations.ray.RayExecutor\n"
        "ht.integrations.ray.tune.StrategySearcher, ht.integrations.optuna.StrategySampler\n"
        "ht.testing.strategy.StrategyContract, ht.testing.StrategyContract\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_no_public_package_is_left_out() -> None:
    packages = {
        module.name
        for module in pkgutil.iter_modules(ht.__path__)
        if module.ispkg and not module.name.startswith("_")
    }
    assert packages <= set(ht.__all__)


def shown_packages() -> list[ModuleType]:
    """All packages, private ones too."""
    names = [ht.__name__] + [
        module.name
        for module in pkgutil.walk_packages(ht.__path__, f"{ht.__name__}.")
        if module.ispkg
    ]
    return [importlib.import_module(name) for name in names]


@pytest.mark.parametrize("package", shown_packages(), ids=lambda package: package.__name__)
def test_a_package_lists_what_it_shows(package: ModuleType) -> None:
    names = getattr(package, "__all__", [])
    assert len(set(names)) == len(names)
    assert set(names) <= set(dir(package))
    for name in names:
        assert getattr(package, name) is not None


@pytest.mark.parametrize("package", shown_packages(), ids=lambda package: package.__name__)
def test_type_checkers_see_what_is_imported_when_it_is_touched(package: ModuleType) -> None:
    """They read the imports under `if TYPE_CHECKING`, which have to name the same things."""
    source = Path(str(package.__file__)).read_text(encoding="utf-8")
    if "lazily(" not in source:
        return
    known = {name for name in package.__all__ if not name.startswith("__")}
    imported = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert known <= imported


def test_an_unknown_name_is_an_attribute_error_and_no_import() -> None:
    with pytest.raises(AttributeError, match="module 'hotnas_torch' has no attribute 'serach'"):
        ht.serach  # noqa: B018
    assert not hasattr(ht, "lazily_")
    with pytest.raises(ImportError, match="cannot import name 'HOTTN'"):
        exec("from hotnas_torch import HOTTN")


# --- what pages and docstrings name ---------------------------------------------------------------


def texts() -> list[tuple[str, str]]:
    """Name and text of all pages and of all docstrings of the package, by module."""
    found = [(page.name, page.read_text(encoding="utf-8")) for page in PAGES]
    for path in sorted(PACKAGE.rglob("*.py")):
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        docstrings = [
            ast.get_docstring(node)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, documented)
        ]
        text = "\n\n".join(filter(None, docstrings))
        if re.search(r"\bht\.|hotnas_torch", text):
            found.append((str(path.relative_to(PACKAGE)), text))
    return found


def unresolved(text: str) -> list[str]:
    """What a text names as if it were in the library, and is not."""
    wrong = []
    for chain in re.findall(r"(?<![\w.])ht((?:\.[A-Za-z]\w*)+)", text):
        found: object = ht
        for name in chain[1:].split("."):
            known = dir(found) if not isinstance(found, ModuleType) else found.__all__
            if name not in known:
                wrong.append(f"ht{chain}")
                break
            found = getattr(found, name)
            if not isinstance(found, ModuleType | type):  # what a call returns is not followed
                break
    for chain in re.findall(r"(?<![\w./$-])(hotnas_torch(?:\.[A-Za-z_]\w*)+)(?![\w/])", text):
        try:
            pkgutil.resolve_name(chain)
        except (ImportError, AttributeError):
            wrong.append(chain)
    imports = r"from (hotnas_torch[\w.]*) import (?:\(([^)]*)\)|(.*))"
    for module, several, line in re.findall(imports, text):
        names = re.sub(r"\s+as\s+\w+", "", several or line.partition("#")[0])
        for name in re.findall(r"\w+(?=\s*(?:,|$|#))", names):
            try:
                pkgutil.resolve_name(f"{module}.{name}")
            except (ImportError, AttributeError):
                wrong.append(f"{module}.{name}")
    return wrong


TEXTS = dict(texts())  # once: every test process reads all sources for it


@pytest.mark.parametrize("where", TEXTS)
def test_what_is_named_is_there(where: str) -> None:
    assert unresolved(TEXTS[where]) == [], where


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`ht.gp.HOTNGP`", "ht.gp.HOTNGP"),
        ("ht.HOTNN(space=ht.space.Pooling())", "ht.space.Pooling"),
        ("ht.search.bayesian.base", "ht.search.bayesian.base"),
        ("from hotnas_torch.gp import HOTNNGP, HOTNGP", "hotnas_torch.gp.HOTNGP"),
        ("from hotnas_torch.gp import (\n    HOTNGP,\n)", "hotnas_torch.gp.HOTNGP"),
        ("see `hotnas_torch.gp.models`", "hotnas_torch.gp.models"),
    ],
)
def test_a_wrong_name_is_found(text: str, wrong: str) -> None:
    assert unresolved(text) == [wrong]


def test_a_right_name_is_let_through() -> None:
    text = (
        "ht.HOTNN(space=space).gram_store and ht.ot.fgw(x).plan, ht.__version__, hotnas_torch/x.py"
    )
    assert unresolved(text) == []
    assert inspect.isfunction(ht.show_config)
