"""A record knows the code that made it."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from hotnas_torch._version import __version__
from hotnas_torch.comparison import code, compare
from hotnas_torch.comparison.run import search_once
from hotnas_torch.errors import StorageError


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a part of the package whose modules can be changed, and which alone counts."""
    target = tmp_path / "package"
    shutil.copytree(
        code._PACKAGE / "search", target / "search", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(code, "_PACKAGE", target)
    assert "search" in code._DECIDING
    monkeypatch.setattr(code, "_DECIDING", ("search",))  # to parse all of it takes seconds
    return target


def digest() -> str:
    code.code_version.cache_clear()
    try:
        return code.code_version()["digest"]
    finally:
        code.code_version.cache_clear()


def test_the_digest_changes_with_what_the_code_does_and_not_with_what_it_says(copy: Path) -> None:
    before = digest()
    module = copy / "search" / "bayesian" / "targets.py"
    source = module.read_text(encoding="utf-8")
    module.write_text("# a remark\n" + source.replace('"""', '"""Once more. ', 1), encoding="utf-8")
    assert digest() == before
    assert "_WORST = 6.0" in source
    module.write_text(source.replace("_WORST = 6.0", "_WORST = 5.0"), encoding="utf-8")
    assert digest() != before
    module.write_text(source, encoding="utf-8")
    assert digest() == before
    module.rename(module.with_name("aims.py"))
    assert digest() != before


def test_code_that_is_gone_has_no_digest(copy: Path) -> None:
    shutil.rmtree(copy / "search")
    with pytest.raises(FileNotFoundError, match=r"package/search holds no modules"):
        digest()


def test_the_digest_is_that_of_the_code_that_ran(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def version() -> dict[str, str]:
        asked.append("version")
        return {"package": __version__, "digest": "0" * 16}

    def build(*arguments: object) -> None:
        asked.append("search")
        raise LookupError

    monkeypatch.setattr("hotnas_torch.comparison.run.code_version", version)
    monkeypatch.setattr(
        "hotnas_torch.comparison.run.METHODS", {"any": SimpleNamespace(build=build)}
    )
    with pytest.raises(LookupError):
        search_once(
            "nasbench_macro", "any", 0, data=data_dir, folder=tmp_path, num_initial=2,
            num_evaluations=2, batch=1,
        )  # fmt: skip
    assert asked == ["version", "search"]


def test_a_record_of_other_code_is_refused(
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def search() -> None:
        compare(
            ["nasbench_macro"], ["random"], data=data_dir, folder=tmp_path, num_seeds=1,
            num_evaluations=20, progress=False,
        )  # fmt: skip

    search()
    search()  # is read, not made again
    other = {"package": __version__, "digest": "0" * 16}
    monkeypatch.setattr("hotnas_torch.comparison.run.code_version", lambda: other)
    with pytest.raises(StorageError, match=r"was made with code = .*now it is .*0000"):
        search()
