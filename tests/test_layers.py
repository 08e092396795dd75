"""Who may import whom: dependencies inside the package point one way."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hotnas_torch"

# What each part may import of the package, besides itself. A part that is not named here fails the
# test: say where it belongs.
BASE = {"arguments", "errors", "_version", "_ext", "files", "notebook"}
SEARCH = {"arguments", "search.randomness", "search.asking", "search.draws", "search.goal"}
SEARCH |= {"search.base", "search.goal_settings", "search.brackets", "search.fidelity"}
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "arguments": {"errors"},
    "_lazy": set(),
    "_version": set(),
    "files": set(),
    "callables": set(),
    "references": set(),
    "segments": {"arguments"},
    "notebook": set(),
    "_ext": {"errors"},
    "_show_config": BASE,
    "ot._reference": set(),
    "ot._operators": BASE | {"ot._reference"},
    "ot": BASE | {"ot._operators"},
    "arch": {"errors", "arguments", "notebook"},
    "importing": {"errors", "arguments", "arch"},
    "spaces": {"_lazy", "errors", "arguments", "references", "arch"},
    "spaces.encodings": {"errors", "arguments", "arch", "spaces"},
    "spaces.declared": {"errors", "arguments", "arch", "importing", "spaces", "distances"},
    "matrices": BASE | {"ot", "arch", "spaces"},
    "distances": BASE
    | {"references", "segments", "ot", "ot._operators", "arch", "spaces", "matrices"},
    "hierarchy": BASE | {"segments", "arch", "spaces", "distances"},
    "nn": BASE | {"ot", "arch", "spaces", "spaces.encodings", "hierarchy"},
    "objectives": {"errors", "arguments", "files", "callables", "arch", "spaces", "nn"},
    "gp": BASE
    | {"ot", "ot._operators", "arch", "spaces", "spaces.encodings", "distances", "matrices"},
    "centres": {
        "arguments",
        "errors",
        "ot",
        "ot._operators",
        "arch",
        "distances",
        "matrices",
        "gp",
    },
    "search.randomness": {"arguments", "errors"},
    "search.asking": {"arguments", "search.randomness"},
    "search.draws": {"arch", "spaces", "spaces.encodings"},
    "search.fronts": set(),
    "search.measured": set(),
    "search.brackets": {"arguments"},
    "search.fidelity": {"arguments", "arch", "spaces", "search.brackets", "search.goal_settings"},
    "search.goal_settings": {"arch"},
    "search.goal": {"arguments", "arch", "search.fronts", "search.goal_settings"},
    "search.base": {"errors", "arguments", "arch", "spaces"}
    | {"search.asking", "search.draws", "search.goal", "search.goal_settings", "search.measured"},
    "search.direct": BASE | {"arch", "spaces", "distances", "hierarchy", *SEARCH},
    "search.bayesian": {"errors", "arch", "spaces", "spaces.encodings", "distances", "gp", *SEARCH},
    "search.running": {"errors", "arguments", "files", "notebook", "callables", "arch", "spaces"}
    | {"objectives"}
    | {"search.asking", "search.base", "search.fidelity", "search.goal", "search.goal_settings"},
    "search": {*SEARCH, "search.direct", "search.bayesian", "search.running"},
    "nago": {"errors", "arguments", "files", "arch", "spaces", "distances", "matrices"}
    | {"nn", "objectives", "gp", "search", "search.bayesian", "search.running", *SEARCH},
    "comparison.tpe": {"arguments", "arch", "spaces", "search", "search.goal"},
    "comparison": BASE | {"arch", "spaces", "objectives", "hierarchy", "search", "comparison.tpe"},
    "testing": {"_lazy", "arguments", "errors", "arch", "spaces", "search"},
    "integrations.ray": BASE
    | {
        "_lazy",
        "arch",
        "spaces",
        "distances",
        "matrices",
        "search",
        "search.goal_settings",
        "search.running",
    },
    "integrations.pot": {"errors", "ot"},
    "integrations": {"_lazy", "arguments", "errors", "files", "arch", "spaces", "search"}
    | {"integrations.pot", "integrations.ray", "search.goal_settings", "distances", "gp"},
    "plot": BASE | {"_lazy", "ot", "arch", "spaces", "distances", "matrices", "hierarchy"},
    "plot.report": {"_version", "arguments", "errors", "files", "arch", "spaces", "distances"}
    | {"plot", "search", "search.fidelity", "search.goal", "search.goal_settings"}
    | {"search.running"},
    "plot.results": {"plot", "search.running"},
    "cli": BASE
    | {
        "references",
        "importing",
        "_show_config",
        "ot",
        "arch",
        "spaces",
        "distances",
        "matrices",
        "nn",
        "objectives",
    }
    | {"search", "comparison", "integrations.ray", "plot", "plot.report", "plot.results"},
    "__main__": {"cli"},
    "__init__": BASE
    | {
        "_lazy",
        "_show_config",
        "arch",
        "centres",
        "cli",
        "comparison",
        "distances",
        "gp",
        "hierarchy",
    }
    | {
        "importing",
        "integrations",
        "matrices",
        "nago",
        "nn",
        "objectives",
        "ot",
        "plot",
        "search",
        "spaces",
    }
    | {"testing"},
}
# Third-party packages that only some parts may import.
CONFINED = {
    "gpytorch": {"gp", "search.bayesian", "nago", "integrations"},
    "botorch": {"gp", "search.bayesian", "nago", "integrations"},
    "linear_operator": {"gp", "nago"},
    "matplotlib": {"plot", "plot.report", "plot.results"},
    "jinja2": {"plot.report"},
    "markupsafe": {"plot.report"},
    "networkx": {"plot"},
    "ray": {"integrations", "integrations.ray"},
    "optuna": {"integrations", "comparison.tpe"},
    "ConfigSpace": {"integrations"},
    "ax": {"integrations"},
    "torch_scatter": {"segments"},
    "zarr": {"matrices"},
    "sklearn": {"nn", "integrations"},
    "PIL": {"nn"},
    "onnx": {"importing"},
    "tqdm": {"comparison", "matrices", "distances", "nn", "search.running", "nago", "cli"},
}
# Unpickling runs whatever a file says; `random` is global state; both have no place here.
FORBIDDEN = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "random"}
# Workers are handed their objective by the process that starts them; no file is read.
PICKLERS = {"search.running.workers": {"pickle", "cloudpickle"}}
# The reference is the specification: torch code that stands on nothing else.
REFERENCE_IMPORTS = {"torch"} | sys.stdlib_module_names


def part_of(module: str) -> str:
    """The key of LAYERS that a dotted module name below the package belongs to."""
    if module == "":
        return "__init__"
    candidates = [part for part in LAYERS if module == part or module.startswith(part + ".")]
    return max(candidates, key=len, default=module.split(".")[0])


def module_name(path: Path) -> str:
    """Dotted name below the package, "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str) -> list[tuple[int, str]]:
    """Line and dotted name of everything imported anywhere, also inside functions.

    `from hotnas_torch.a import b` counts as `hotnas_torch.a.b`, which may be a module. What a
    package shows lazily is imported by whoever touches it: type checkers alone read that here.
    """
    found = []
    tree = ast.parse(source)
    if "lazily(" in source:
        tree.body = [node for node in tree.body if not is_for_type_checkers(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            base = node.module or ""
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def is_for_type_checkers(node: ast.stmt) -> bool:
    """Whether this is `if TYPE_CHECKING:`; with `else`, where names are shown."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def violations(module: str, source: str) -> list[str]:
    """What a module imports and must not."""
    part = part_of(module)
    if part not in LAYERS:
        return [f"{module}: {part} has no place in LAYERS"]
    found = []
    for line, name in imported(source):
        top, _, below = name.partition(".")
        if top == "hotnas_torch":
            target = part_of(below)
            if target not in LAYERS[part] and target != part:
                found.append(f"{module}:{line}: {part} must not import {target} ({name})")
        elif top in FORBIDDEN and top not in PICKLERS.get(module, ()):
            found.append(f"{module}:{line}: {top} has no place in this library")
        elif top in CONFINED and part not in CONFINED[top]:
            found.append(f"{module}:{line}: {part} must not import {top}")
        elif part == "ot._reference" and top not in REFERENCE_IMPORTS:
            found.append(f"{module}:{line}: the reference imports torch alone, not {top}")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_name)
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    assert violations(module_name(path), path.read_text(encoding="utf-8")) == []


def test_no_module_is_a_drawer_of_odds_and_ends() -> None:
    stems = {path.stem.strip("_") for path in PACKAGE.rglob("*.py")}
    assert stems.isdisjoint({"utils", "util", "helpers", "misc", "common"})


def test_the_layers_have_no_cycle() -> None:
    done: set[str] = set()
    while len(done) < len(LAYERS):
        ready = {part for part, below in LAYERS.items() if part not in done and below <= done}
        assert ready, f"a cycle among {sorted(set(LAYERS) - done)}"
        done |= ready


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("arch.cell", "from hotnas_torch.ot import fgw", "arch must not import ot"),
        (
            "arch.cell",
            "def f():\n    import hotnas_torch.ot._operators.fgw",
            "arch must not import ot._operators",
        ),
        ("ot.fgw", "from hotnas_torch import distances", "ot must not import distances"),
        (
            "ot._reference.fgw",
            "from hotnas_torch.ot._operators import fgw",
            "must not import ot._operators ",
        ),
        ("ot._reference.fgw", "import numpy as np", "torch alone"),
        ("ot._reference.fgw", "from hotnas_torch.errors import SolverError", "import errors"),
        ("ot.fgw", "from hotnas_torch import HOTNN", "ot must not import HOTNN"),
        ("ot.fgw", "import hotnas_torch", "ot must not import __init__"),
        ("distances.hotnn", "import matplotlib.pyplot as plt", "must not import matplotlib"),
        ("matrices.gram_file", "import pickle", "no place"),
        ("search.running.storage", "import pickle", "no place"),
        ("search.running.workers", "import random", "no place"),
        ("search.running.runner", "import cloudpickle", "no place"),
        ("helpers", "", "no place in LAYERS"),
        (
            "arch",
            "import hotnas_torch.ot\nif TYPE_CHECKING: import hotnas_torch.gp\nelse: lazily(1)",
            "arch must not import ot",
        ),
        ("arch.cell", "if TYPE_CHECKING:\n    import hotnas_torch.ot", "arch must not import ot"),
    ],
)
def test_a_violation_is_found(module: str, source: str, expected: str) -> None:
    (found,) = violations(module, source)
    assert expected in found


def test_what_is_allowed_passes() -> None:
    source = (
        "import torch\nfrom hotnas_torch import _ext\nfrom hotnas_torch.ot._reference import fgw"
    )
    assert violations("ot._operators.fgw", source) == []
    assert (
        violations("ot._reference.fgw", "from hotnas_torch.ot._reference.transport import solve")
        == []
    )
