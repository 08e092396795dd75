"""Installing where something is missing: what can be had is installed, and the reason is true."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

import pytest

from hotnas_torch import _ext

ROOT = Path(__file__).parent.parent
BUILDERS = ("scikit_build_core", "packaging", "pathspec", "cmake", "ninja", "pip")

pytest.importorskip("scikit_build_core")
pytest.importorskip("cmake")


def program(path: Path, text: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., tuple[subprocess.CompletedProcess[str], Path]]:
    """`pip install .` of a copy of the sources into a new environment that builds, without torch.

    Returns what pip said and the folder that the package is in.
    """
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("csrc", "tools", "hotnas_torch"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("*.so", "__pycache__")
        )
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    for name in BUILDERS:
        # Not `find_spec`: setuptools listens to it, and warns where distutils is imported already.
        spec = PathFinder.find_spec(name)
        if spec is not None and spec.origin is not None:
            (site / name).symlink_to(Path(spec.origin).parent)

    def run(*options: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HOTNAS_", "CMAKE_"))}
        command = [environment / "bin" / "python", "-m", "pip", "install", "--verbose"]
        command += ["--no-deps", "--no-index", "--no-build-isolation", *options, source]
        result = subprocess.run(
            command,
            env={**inherited, "HOTNAS_WITH_CUDA": "OFF", **variables},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return result, (source if options else site) / "hotnas_torch"

    return run


def give_torch(package: Path, version: str) -> None:
    """A torch of which only the version can be read."""
    torch = package.parent / "torch"
    torch.mkdir()
    (torch / "__init__.py").touch()
    (torch / "version.py").write_text(f"__version__ = '{version}'\n")


@pytest.mark.parametrize(
    ("variables", "torch", "reason"),
    [
        ({}, None, "torch is not installed for"),
        ({}, "2.12.1", "torch 2.12.1 is older than 2.13"),
        ({"CXX": "/nowhere/c++"}, None, "there is no C++ compiler"),
        ({"CMAKE_EXECUTABLE": "old"}, None, "Could not find CMake with version >=3.22"),
        ({"HOTNAS_NO_EXT": "1"}, None, "HOTNAS_NO_EXT was set when it was installed"),
    ],
    ids=["no torch", "an old torch", "no compiler", "an old CMake", "asked for"],
)
def test_without_what_it_takes_the_package_is_pure_python_and_says_why(
    install: Callable[..., tuple[subprocess.CompletedProcess[str], Path]],
    tmp_path: Path,
    variables: dict[str, str],
    torch: str | None,
    reason: str,
) -> None:
    old = program(
        tmp_path / "old" / "cmake",
        """echo '{"version":{"string":"3.10.2","major":3,"minor":10,"patch":2}}'""",
    )
    variables = {k: str(old) if v == "old" else v for k, v in variables.items()}
    if torch is not None:
        (site,) = tmp_path.glob("environment/lib/python*/site-packages")
        give_torch(site / "hotnas_torch", torch)
    result, package = install(**variables)
    assert result.returncode == 0, result.stdout
    assert not (package / "_C.so").exists()
    said = _ext._absence(package)
    assert reason in said
    assert "\n" not in said
    if "HOTNAS_NO_EXT" not in variables:
        required, _ = install(**variables, HOTNAS_REQUIRE_EXT="1")
        assert required.returncode != 0
        assert reason in required.stdout


def test_an_editable_install_without_a_compiler_says_why_as_well(
    install: Callable[..., tuple[subprocess.CompletedProcess[str], Path]],
) -> None:
    result, package = install("--editable", CXX="/nowhere/c++")
    assert result.returncode == 0, result.stdout
    assert "there is no C++ compiler" in _ext._absence(package)
    # What makes one in its place is named where nothing has failed.
    result, package = install("--editable", HOTNAS_NO_EXT="1")
    assert result.returncode == 0, result.stdout
    assert "`make ext`" in _ext._absence(package)


def configure(tmp_path: Path, **variables: str) -> tuple[int, str, str]:
    """Let CMake look around: its status, what it said, and why there are no CUDA kernels."""
    build = tmp_path / "build"
    cmake = importlib.util.find_spec("cmake")
    assert cmake is not None
    command = [sys.executable, "-m", "cmake"] if not shutil.which("cmake") else ["cmake"]
    result = subprocess.run(
        [*command, "-S", ROOT / "csrc", "-B", build, f"-DPython_EXECUTABLE={sys.executable}"],
        env={**{k: v for k, v in os.environ.items() if not k.startswith("HOTNAS_")}, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    note = build / "_no_cuda.txt"
    return result.returncode, result.stdout, note.read_text() if note.is_file() else ""


NVCCS = {
    "broken": ("echo 'no such licence' >&2; exit 3", "does not work (3): no such licence"),
    "old": (
        "echo 'Cuda compilation tools, release 11.8, V11.8.89'",
        "is version 11.8, older than 12.0",
    ),
    "without headers": (
        """case "$1" in --version) echo 'release 12.9, V12.9.1';;
        *) echo 'x.cu(2): fatal error: cuda_runtime.h: No such file' >&2; exit 1;; esac""",
        "cuda_runtime.h: No such file",
    ),
    "too old for an architecture": (
        """case "$*" in --version) echo 'release 12.8, V12.8.1';;
        *) echo "nvcc fatal   : Unsupported gpu architecture 'compute_80'" >&2; exit 1;; esac""",
        "Unsupported gpu architecture 'compute_80'",
    ),
}


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler to configure for")
@pytest.mark.parametrize("kind", NVCCS)
def test_trouble_with_nvcc_costs_the_cuda_kernels_alone(tmp_path: Path, kind: str) -> None:
    text, reason = NVCCS[kind]
    program(tmp_path / "cuda" / "bin" / "nvcc", text)
    status, output, problem = configure(tmp_path, CUDA_HOME=str(tmp_path / "cuda"))
    assert status == 0, output
    assert reason in problem
    assert str(tmp_path / "cuda" / "bin" / "nvcc") in problem


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler to configure for")
@pytest.mark.parametrize("architectures", ["75", "80;75", "ninety"])
def test_gpus_that_no_kernel_is_written_for_are_refused(tmp_path: Path, architectures: str) -> None:
    status, output, _ = configure(tmp_path, HOTNAS_CUDA_ARCHITECTURES=architectures)
    assert status != 0
    said = re.sub(r"\s+", " ", output)
    assert f"names '{architectures.split(';')[-1]}'" in said
    assert "older GPUs lack instructions" in said


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler to configure for")
def test_cuda_kernels_that_are_asked_for_are_not_left_out(tmp_path: Path) -> None:
    program(tmp_path / "cuda" / "bin" / "nvcc", NVCCS["old"][0])
    status, output, _ = configure(tmp_path, CUDA_HOME=str(tmp_path / "cuda"), HOTNAS_WITH_CUDA="ON")
    assert status != 0
    assert "HOTNAS_WITH_CUDA is ON, but" in re.sub(r"\s+", " ", output)


def packaged_nvcc(site: Path, *, torch_cuda: str | None, without: str = "") -> Path:
    """What installed packages of NVIDIA and torch look like, as far as it is looked at."""
    finder = _module(ROOT / "csrc" / "find_nvcc.py")
    for file in finder.PACKAGE_OF:
        if file != without:
            program(site / "nvidia" / "cu13" / file, NVCCS["old"][0])
    (site / "torch").mkdir()
    cuda = None if torch_cuda is None else torch_cuda
    (site / "torch" / "version.py").write_text(f"cuda: Optional[str] = {cuda!r}\n")
    (site / "torch" / "__init__.py").touch()
    return site / "nvidia" / "cu13" / "bin" / "nvcc"


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("torch_cuda", "without", "problem"),
    [
        ("13.0", "", ""),
        (None, "", ""),
        ("12.8", "", "is of CUDA 13 and torch of CUDA 12"),
        ("13.0", "lib/libcudart_static.a", "lacks pip install nvidia-cuda-runtime"),
        ("13.0", "bin/nvcc", ""),
    ],
)
def test_the_nvcc_of_packages_is_found_where_it_belongs_to_torch(
    tmp_path: Path, torch_cuda: str | None, without: str, problem: str
) -> None:
    nvcc = packaged_nvcc(tmp_path, torch_cuda=torch_cuda, without=without)
    found = subprocess.run(
        [sys.executable, "-S", ROOT / "csrc" / "find_nvcc.py"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert problem in found.stderr
    assert bool(problem) == bool(found.stderr.strip())
    assert found.stdout.strip() == ("" if problem or without else str(nvcc))


@pytest.mark.parametrize("torch_cuda", ["13.0", "12.8", None])
@pytest.mark.parametrize("kept_from", ["", "a GPU", "a CUDA toolkit", "HOTNAS_WITH_CUDA"])
def test_a_build_asks_for_an_nvcc_where_a_gpu_and_torch_can_use_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch_cuda: str | None, kept_from: str
) -> None:
    backend = _module(ROOT / "tools" / "build_backend.py")
    monkeypatch.setattr(backend, "_has_gpu", lambda: kept_from != "a GPU")
    at = {"nvcc": "/usr/bin/nvcc"} if kept_from == "a CUDA toolkit" else {}
    monkeypatch.setattr(backend.shutil, "which", lambda name, **_: at.get(name))
    monkeypatch.setenv("HOTNAS_WITH_CUDA", "OFF" if kept_from == "HOTNAS_WITH_CUDA" else "AUTO")
    major = "" if torch_cuda is None else torch_cuda.partition(".")[0]
    answer = subprocess.CompletedProcess([], 0, stdout=f"{major}\n")
    monkeypatch.setattr(backend.subprocess, "run", lambda *_, **__: answer)
    asked = backend.cuda_packages()
    assert bool(asked) == (torch_cuda == "13.0" and not kept_from)
    assert all(package.startswith("nvidia-") and package.endswith("==13.*") for package in asked)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            "-- Looking\nCMake Error at CMakeLists.txt:8 (message):\n  there is no C++ compiler\n"
            "  (set CXX)\n\n\n-- Configuring incomplete, errors occurred!\n",
            "there is no C++ compiler (set CXX)",
        ),
        (
            "[1/9] Building\nFAILED: a.o\nkernels.cpp:3:10: fatal error: concepts: No such file\n"
            "ninja: build stopped: subcommand failed.\n",
            "kernels.cpp:3:10: fatal error: concepts: No such file",
        ),
        (
            "nvcc fatal   : Unsupported gpu\nninja: build stopped\n",
            "nvcc fatal   : Unsupported gpu",
        ),
        ("one\n\nbuild.errors.CMakeNotFoundError: Could not find CMake\n", "Could not find CMake"),
        ("", "the build said nothing"),
    ],
)
def test_the_reason_is_found_in_what_the_build_said(output: str, reason: str) -> None:
    spec = importlib.util.spec_from_file_location("backend", ROOT / "tools" / "build_backend.py")
    assert spec is not None
    assert spec.loader is not None
    backend = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(backend)
    assert backend.reason_of(output) == reason
