"""A sync() taken out of the core is a race that the lanes' tests find."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "csrc"

pytestmark = [pytest.mark.ext, pytest.mark.slow]

# What precedes the sync() that goes missing; each must be found once.
SITES = {
    "transport.h": [
        r"num_rows = g_\.template append<T>\(fresh, i0, w_\.rows, num_rows\);\s*\}\s*",
        r"w_\.labelled\[i\] = 1;\s*\}\s*\}\s*g_\.sync\(\);\s*\}\s*",
    ],
    "sinkhorn.h": [r"w\.f\[i\] = w\.next\[i\];\s*"],
    "entropic_fgw.h": [r"if \(g\.leader\(\)\) \*w\.plan\.count = count;\s*"],
    "fgw.h": [
        r"scale \* change\);\s*\}\s*",
        r"if \(g_\.leader\(\)\) w_\.linear\[fresh\] = linear;\s*",
    ],
}


@pytest.fixture(scope="session")
def compiler(build_dir: Path) -> str:
    cache = (build_dir / "CMakeCache.txt").read_text()
    found = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.+)$", cache, re.MULTILINE)
    assert found is not None
    return found[1]


def races(tmp_path: Path, sources: Path, build_dir: Path, compiler: str, prefix: list[str]) -> str:
    """Compile two lanes from `sources` and return what ThreadSanitizer says about them."""
    objects = build_dir / "CMakeFiles"
    others = [
        objects / "lanes_thread_0.dir" / "testing" / "lanes_kernels.cpp.o",
        objects / "lanes_thread_simd.dir" / "cpu" / "kernels.cpp.o",
        objects / "lanes_main_thread.dir" / "testing" / "lanes_main.cpp.o",
    ]
    program = tmp_path / "lanes"
    flags = "-std=c++20 -O1 -g1 -fsanitize=thread -fno-math-errno -fno-trapping-math -pthread"
    subprocess.run(
        [
            compiler,
            *flags.split(),
            "-DHOTNAS_LANES=2",
            sources / "testing" / "lanes_kernels.cpp",
            *others,
            "-o",
            program,
        ],
        check=True,
    )
    done = subprocess.run(
        [*prefix, program, "lanes=2", "nodes=9", "every=2"],
        env={**os.environ, "TSAN_OPTIONS": "halt_on_error=1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("header", "before"), [(header, site) for header, sites in SITES.items() for site in sites]
)
def test_a_missing_sync_is_found(
    header: str,
    before: str,
    tmp_path: Path,
    build_dir: Path,
    built: Callable[[str], Path],
    compiler: str,
    fixed_addresses: list[str],
) -> None:
    built("lanes_main_thread")
    sources = tmp_path / "csrc"
    shutil.copytree(SOURCES, sources)
    path = sources / "core" / header
    text, count = re.subn(rf"({before})g_?\.sync\(\);", r"\1", path.read_text())
    assert count == 1, f"csrc/core/{header} has changed: choose another sync() for this test"
    path.write_text(text)
    said = races(tmp_path, sources, build_dir, compiler, fixed_addresses)
    assert "WARNING: ThreadSanitizer: data race" in said
    assert header in said


def test_nothing_is_found_where_nothing_is_missing(
    tmp_path: Path,
    build_dir: Path,
    built: Callable[[str], Path],
    compiler: str,
    fixed_addresses: list[str],
) -> None:
    built("lanes_main_thread")
    assert " comparisons, 0 differences" in races(
        tmp_path, SOURCES, build_dir, compiler, fixed_addresses
    )
