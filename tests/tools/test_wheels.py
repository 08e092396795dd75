"""What is published: what a wheel must hold, and what it must not."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import wheels

NAME = "hotnas_torch-0.1.0-py3-none-manylinux_2_34_x86_64.whl"
CORE = b"\x7fELF $ORIGIN/../torch/lib"


def wheel(folder: Path, name: str = NAME, **members: bytes) -> Path:
    """A wheel of members by name; a double underscore is a slash, the first single one a dot."""
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hotnas_torch/__init__.py", "")
        for member, content in members.items():
            archive.writestr(member.replace("__", "/").replace("_so", ".so"), content)
    return path


def test_a_wheel_with_the_core_alone_is_right(tmp_path: Path) -> None:
    assert wheels.fault(wheel(tmp_path, hotnas_torch___C_so=CORE)) == ""


@pytest.mark.parametrize(
    ("name", "members", "fault"),
    [
        (NAME, {}, "lacks hotnas_torch/_C.so"),
        ("hotnas_torch-0.1.0-py3-none-linux_x86_64.whl", {"hotnas_torch___C_so": CORE}, "its name"),
        ("hotnas_torch-0.1.0-cp311-cp311-manylinux_2_34_x86_64.whl", {}, "its name"),
        (NAME, {"hotnas_torch___C_so": CORE, "libs__libgomp_so": b""}, "bundles libs/libgomp.so"),
        (NAME, {"hotnas_torch___C_so": b"\x7fELF"}, "torch beside itself"),
        (
            NAME,
            {"hotnas_torch___C_so": CORE + str(wheels.ROOT).encode()},
            "tells where it was built",
        ),
    ],
)
def test_what_is_wrong_with_a_wheel_is_said(
    tmp_path: Path, name: str, members: dict[str, bytes], fault: str
) -> None:
    assert fault in wheels.fault(wheel(tmp_path, name, **members))


def test_a_wheel_that_is_not_there_is_not_tried() -> None:
    command = [sys.executable, "-m", "tools.wheels", "--try", "no.whl"]
    result = subprocess.run(command, cwd=wheels.ROOT, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "no.whl" in result.stderr


@pytest.mark.slow
def test_the_source_distribution_builds_the_same_package(tmp_path: Path) -> None:
    """It holds what a build needs: here the package of pure torch, which takes no compiler."""
    for module in ("build", "scikit_build_core"):
        pytest.importorskip(module, reason=f"{module} is not installed (the `dev` extra has it)")
    wheels.run(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, HOTNAS_NO_EXT="1"
    )
    (built,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        found = {name for name in archive.namelist() if name.endswith(".py")}
    folder = wheels.ROOT / "hotnas_torch"
    expected = {str(path.relative_to(wheels.ROOT)) for path in folder.rglob("*.py")}
    assert found == expected
    shutil.unpack_archive(next(tmp_path.glob("*.tar.gz")), tmp_path / "source")
    assert list((tmp_path / "source").glob("*/csrc/CMakeLists.txt"))
