"""Spaces by names: the library's, registered ones, those of somebody's modules and files."""

import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from hotnas_torch import spaces
from hotnas_torch.references import referenced


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A file with spaces of one's own."""
    monkeypatch.setattr("hotnas_torch.spaces.registry._registered", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "own_spaces_of_tests.py"
    path.write_text(
        "from hotnas_torch import spaces\n"
        "space = spaces.Pooling()\n"
        "def make(**options): return spaces.NASBench201(**options)\n"
        "def fail(): raise RuntimeError('no space today')\n"
        "nothing = 3\n"
    )
    yield path
    sys.modules.pop(path.stem, None)


def test_a_registered_name_is_known(own):
    spaces.register("short", lambda **options: spaces.DARTS(max_depth=8, **options))
    assert spaces.get("short", channels=4).channels == 4
    with pytest.raises(
        ValueError, match=r"'short', or 'package.module:name'; got 'shrt' \(did you"
    ):
        spaces.get("shrt")
    for name, factory, error, message in (
        ("darts", spaces.DARTS, ValueError, "name must be new; got 'darts'"),
        ("short", spaces.DARTS, ValueError, "name must be new; got 'short'"),
        ("", spaces.DARTS, ValueError, "without a colon"),
        ("a:b", spaces.DARTS, ValueError, "without a colon"),
        (3, spaces.DARTS, TypeError, "name must be a str"),
        ("new", spaces.Pooling(), TypeError, "pass lambda: space"),
    ):
        with pytest.raises(error, match=message):
            spaces.register(name, factory)


def test_a_file_and_a_module_name_spaces(own, monkeypatch):
    assert spaces.get(f"{own}:space").size() == 36
    assert spaces.get(f"{own}:make", contract_skip=True).contract_skip
    assert spaces.get(f"{own.stem}:space") is spaces.get(f"{own}:space")
    for name, error, message in (
        (f"{own}:none", ValueError, "cannot find .*has no attribute 'none'"),
        (f"{own}:fail", ValueError, "cannot find .*RuntimeError: no space today"),
        (f"{own}:nothing", TypeError, "must be a search space or make one; got 3"),
        ("nowhere:space", ValueError, "cannot find nowhere:space: ModuleNotFoundError"),
        ("nowhere.py:space", ValueError, "cannot find nowhere.py:space: FileNotFoundError"),
    ):
        with pytest.raises(error, match=message):
            spaces.get(name)
    with pytest.raises(TypeError, match="is a space, and takes no options; got depth"):
        spaces.get(f"{own}:space", depth=3)


def test_two_files_of_one_name_are_told_apart(own, tmp_path):
    referenced(f"{own}:space")
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / own.name
    twin.write_text("space = 3\n")
    with pytest.raises(ValueError, match="another module is called own_spaces_of_tests"):
        referenced(f"{twin}:space")


def test_packages_name_spaces_by_entry_points(own, monkeypatch):
    points = EntryPoints([EntryPoint("installed", f"{own.stem}:make", group="hotnas_torch.spaces")])
    monkeypatch.syspath_prepend(str(own.parent))
    monkeypatch.setattr(
        "hotnas_torch.spaces.registry.entry_points", lambda group: points.select(group=group)
    )
    assert spaces.get("installed").name == "nasbench201"
