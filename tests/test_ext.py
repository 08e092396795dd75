"""Loading of the compiled core: present, absent, disabled, required, broken; how it is built."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

import hotnas_torch as ht
from hotnas_torch import _ext

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _unsteered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests set the variables that steer loading themselves."""
    monkeypatch.delenv("HOTNAS_DISABLE_EXT", raising=False)
    monkeypatch.delenv("HOTNAS_REQUIRE_EXT", raising=False)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the loader looks, which holds only what the test puts there."""
    library = tmp_path / "_C.so"

    def find_spec(name: str) -> ModuleSpec | None:
        assert name == "hotnas_torch._C"
        return ModuleSpec(name, None, origin=str(library)) if library.exists() else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(_ext, "__file__", str(tmp_path / "_ext.py"))
    return tmp_path


def import_package(**variables: str) -> subprocess.CompletedProcess[str]:
    """Import the package in a fresh interpreter, where nothing has been loaded yet."""
    return subprocess.run(
        [sys.executable, "-c", "import hotnas_torch as ht; print(ht.show_config())"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.ext
def test_the_core_loads_and_names_its_instructions() -> None:
    assert _ext.path is not None
    assert _ext.path.name == "_C.so"
    assert _ext.reason == ""
    assert _ext.instruction_set() in _ext.ISA_NAMES


def test_absence_is_stated_with_the_remedy(package: Path) -> None:
    path, reason = _ext._load()
    assert path is None
    assert reason.startswith("hotnas_torch/_C.so is not installed")
    assert "make ext" in reason


def test_the_installers_reason_is_passed_on(package: Path) -> None:
    (package / "_no_ext.txt").write_text("the compiler was on holiday\n")
    assert _ext._load() == (
        None,
        "hotnas_torch/_C.so is not installed: the compiler was on holiday",
    )


def test_a_library_that_does_not_load_is_stated(package: Path) -> None:
    (package / "_C.so").write_bytes(b"no library")
    path, reason = _ext._load()
    assert path is None
    assert f"{package / '_C.so'} does not load with torch {torch.__version__}" in reason


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_disabling_is_honoured_and_stated(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HOTNAS_DISABLE_EXT", value)
    assert _ext._load() == (None, "HOTNAS_DISABLE_EXT is set")


@pytest.mark.ext
@pytest.mark.parametrize("value", ["", "0", "off"])
def test_a_false_value_does_not_disable(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HOTNAS_DISABLE_EXT", value)
    assert _ext._load() == (_ext.path, "")


def test_a_disabled_core_is_told_by_show_config() -> None:
    result = import_package(HOTNAS_DISABLE_EXT="1")
    assert "compiled core  no: HOTNAS_DISABLE_EXT is set" in result.stdout, result.stderr


FIRST_USES = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch, hotnas_torch as ht
    from hotnas_torch import _ext
    imported = sum(w.category is _ext.MissingExtensionWarning for w in caught)
    for size in (2, 3):
        ht.ot.transport(torch.rand(size, size))
        ht.ot.sinkhorn(torch.rand(size, size), epsilon=0.1)
print(imported, [str(w.message) for w in caught if w.category is _ext.MissingExtensionWarning])
"""


@pytest.mark.parametrize(
    ("absent", "variables", "expected"),
    [
        (True, {}, "0 ['hotnas_torch runs without its compiled core on cpu tensors, tens to"),
        (True, {"HOTNAS_DISABLE_EXT": "1"}, "0 []"),
        pytest.param(False, {}, "0 []", marks=pytest.mark.ext),
    ],
    ids=["absent", "disabled on purpose", "there"],
)
def test_the_first_use_without_the_core_warns_once(
    tmp_path: Path, absent: bool, variables: dict[str, str], expected: str
) -> None:
    shutil.copytree(ROOT / "hotnas_torch", tmp_path / "hotnas_torch")
    if absent:
        (tmp_path / "hotnas_torch" / "_C.so").unlink(missing_ok=True)
        (tmp_path / "hotnas_torch" / "_no_ext.txt").write_text("the compiler was on holiday")
    # -S: an editable install would put its own finder before the copy.
    site = Path(torch.__file__).parent.parent
    program = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(site)!r}]\n{FIRST_USES}"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.startswith(expected), result.stdout + result.stderr
    if absent and not variables:
        assert result.stdout.count("the compiler was on holiday") == 1


def test_code_for_a_gpu_serves_its_generation_and_the_last_one_those_to_come() -> None:
    ours = ("sm_80", "sm_90a", "sm_100")
    served = {gpu: _ext._runs_on(ours, gpu) for gpu in [(8, 0), (8, 9), (9, 0), (10, 3), (12, 0)]}
    assert served == dict.fromkeys(served, True)
    assert not _ext._runs_on(ours, (7, 5))
    assert not _ext._runs_on(("sm_86", "sm_90"), (8, 0))


@pytest.mark.parametrize(
    ("capability", "problem", "why"),
    [
        ((9, 0), None, ""),
        ((7, 5), None, "its CUDA kernels are for sm_80, sm_90, not for cuda:0"),
        (
            (9, 0),
            "driver version is insufficient\nand a stack",
            "its CUDA kernels do not run on cuda:0: driver version is insufficient. The driver"
            " serves CUDA 12.8, and the kernels were compiled with a later one: update the NVIDIA",
        ),
    ],
)
def test_a_gpu_is_asked_once_whether_it_runs_the_kernels(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], problem: str | None, why: str
) -> None:
    asked = []

    def launch(index: int) -> None:
        asked.append(index)
        if problem is not None:
            raise RuntimeError(problem)

    monkeypatch.setattr(_ext, "cuda_architectures", lambda: ("sm_80", "sm_90"))
    monkeypatch.setattr(_ext, "_launch_on", launch)
    monkeypatch.setattr(_ext, "_warned", set())
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: 12080, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.delenv("HOTNAS_DISABLE_EXT", raising=False)
    _ext._tried_on.cache_clear()
    try:
        answers = {_ext.serves(torch.device("cuda", index)) for index in (0, None, 0)}
        assert answers == {not why}
        assert len(asked) == (capability == (9, 0))
        if why:
            with pytest.warns(_ext.MissingExtensionWarning, match=re.escape(why)):
                _ext.warn_of_absence(torch.device("cuda"))
            _ext.warn_of_absence(torch.device("cuda"))  # once
    finally:
        _ext._tried_on.cache_clear()


@pytest.mark.ext
@pytest.mark.parametrize("note", ["nvcc was on holiday\n", None])
def test_show_config_says_why_there_are_no_cuda_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, note: str | None
) -> None:
    monkeypatch.setattr(_ext, "path", tmp_path / "_C.so")
    monkeypatch.setattr(_ext, "cuda_architectures", lambda: ())
    if note:
        (tmp_path / "_no_cuda.txt").write_text(note)
    config = ht.show_config()
    assert (
        config.cuda_kernels_reason == (note or "the compiled core was built without them").strip()
    )
    assert f"none, so that CUDA tensors take torch code: {config.cuda_kernels_reason}" in str(
        config
    )


def test_a_required_core_that_is_absent_fails_the_import() -> None:
    result = import_package(HOTNAS_REQUIRE_EXT="1", HOTNAS_DISABLE_EXT="1")
    assert result.returncode == 1
    assert "MissingExtensionError: HOTNAS_REQUIRE_EXT is set" in result.stderr
    assert result.stderr.strip().endswith("HOTNAS_DISABLE_EXT is set")
    assert issubclass(_ext.MissingExtensionError, ImportError)


@pytest.mark.ext
def test_the_library_tells_nothing_about_where_it_was_built() -> None:
    assert _ext.path is not None
    assert str(ROOT).encode() not in _ext.path.read_bytes()


@pytest.mark.ext
def test_instruction_sets_share_no_function(build_dir: Path) -> None:
    # A weak symbol in the objects of two instruction sets is one function in the library: the
    # linker keeps whichever comes first, and a processor without AVX-512 may meet AVX-512 code.
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm (binutils) to read object files with")
    definitions: dict[str, set[str]] = {}
    for unit in ("kernels_baseline", "kernels_avx2", "kernels_avx512"):
        objects = list((build_dir / "CMakeFiles" / f"{unit}.dir").rglob("*.o"))
        if unit == "kernels_baseline":
            assert objects, f"no object files of {unit} in {build_dir}"
        for path in objects:
            listing = subprocess.run(
                [nm, "--defined-only", "--format=posix", str(path)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            # W: weak function, V: weak object, u: unique object; the rest are local or strong.
            for name, kind, *_ in (line.split() for line in listing.splitlines()):
                # DW.ref: a pointer to what C++ exceptions need, the same in each
                if kind in "WVu" and not name.startswith("DW.ref."):
                    definitions.setdefault(name, set()).add(unit)
    shared = sorted(name for name, units in definitions.items() if len(units) > 1)
    assert shared == []


def test_show_config_tells_what_is_there() -> None:
    config = ht.show_config()
    text = str(config)
    assert repr(config) == text
    assert config.versions["hotnas_torch"] == ht.__version__
    for name, version in config.versions.items():
        assert name in text
        assert version in text
    if _ext.loaded:
        assert config.extension == str(_ext.path)
        assert config.instruction_set in _ext.ISA_NAMES
    else:
        assert config.extension is None
        assert config.extension_reason in text


def test_torch_is_found_without_importing_it() -> None:
    """What CMake is told is the torch of this environment."""
    result = subprocess.run(
        [sys.executable, "-I", str(ROOT / "csrc" / "find_torch.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    version, include, library = result.stdout.strip().split(";")
    assert Path(include) == Path(torch.__file__).parent / "include"
    assert (Path(include) / "torch" / "csrc" / "stable" / "library.h").is_file()
    assert Path(library).is_dir()
    assert version == ht.show_config().versions["torch"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("__version__ = '2.12.1+cu126'\n", "torch 2.12.1+cu126 is older than 2.13"),
        ("version = 1\n", "does not state torch's version"),
        (None, "torch is not installed"),
    ],
)
def test_an_unsuitable_torch_is_refused(tmp_path: Path, content: str | None, expected: str) -> None:
    path = tmp_path / "site"
    path.mkdir()
    if content is not None:
        (path / "torch").mkdir()
        (path / "torch" / "__init__.py").write_text("")
        (path / "torch" / "version.py").write_text(content)
    result = subprocess.run(
        [sys.executable, "-S", str(ROOT / "csrc" / "find_torch.py")],
        env={"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert expected in result.stderr
