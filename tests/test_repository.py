"""What stands beside the code: the citation, the forms of issues, the checks before a commit."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from hotnas_torch import __version__

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (the `lint` extra brings it)")

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FORMS = [
    path for path in sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml")) if path.stem != "config"
]


def read(path: Path) -> Any:
    """A YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert (citation["version"], citation["license"]) == (__version__, PROJECT["license"])
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]
    assert {"title", "message", "abstract", "references"} <= citation.keys()


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_every_question_once(path: Path) -> None:
    form = read(path)
    assert all(form[key] for key in ("name", "description", "body"))
    names = [question["id"] for question in form["body"]]
    assert len(set(names)) == len(names)
    for question in form["body"]:
        assert question["type"] in ("checkboxes", "dropdown", "input", "textarea")
        assert question["attributes"]["label"]


def test_the_checks_before_a_commit_fetch_pinned_packages_alone() -> None:
    repositories = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert {repository["repo"] for repository in repositories} == {"local"}
    hooks = [hook for repository in repositories for hook in repository["hooks"]]
    assert "make lint" in {hook["entry"] for hook in hooks}
    packages = [name for hook in hooks for name in hook.get("additional_dependencies", [])]
    assert packages
    assert all("==" in name for name in packages)
