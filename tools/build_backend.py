"""The build backend: scikit-build-core, and what it falls back to where compiling fails.

What can be installed is installed, in this order: the compiled core with CUDA kernels, the core
without them, pure torch. Why something is missing is written beside it, and
`hotnas_torch.show_config()` says so. `HOTNAS_REQUIRE_EXT=1` ends the build instead of leaving
the core out, `HOTNAS_WITH_CUDA=ON` instead of leaving the CUDA kernels out, and
`HOTNAS_NO_EXT=1` does not compile at all. Where there is a GPU, and a torch for it, but no nvcc,
the build asks for NVIDIA's packages of it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# What does not build is the frontend's business: the same functions, unchanged.
from scikit_build_core import build as scikit
from scikit_build_core.build import build_sdist, get_requires_for_build_sdist

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

Settings = dict[str, Any] | None

# Where pyproject.toml expects the text that is installed as hotnas_torch/_no_ext.txt.
_NOTE = Path("build") / "no_ext.txt"
# An editable install takes the package from the source tree, and its text as well.
_ROOT = Path(__file__).parent.parent
_NOTE_IN_PLACE = Path("hotnas_torch") / "_no_ext.txt"
_TRUE = frozenset({"1", "true", "on", "yes", "y", "t"})
_ERROR = re.compile(r"(?:.*: )?(?:fatal )?error\b ?:|.*\bfatal\s+:|ninja: error", re.IGNORECASE)


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Build a wheel with as much of the compiled core as this machine allows."""
    return _build("build_wheel", wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Build an editable wheel with as much of the compiled core as this machine allows."""
    _NOTE_IN_PLACE.unlink(missing_ok=True)
    return _build("build_editable", wheel_directory, config_settings, metadata_directory)


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """Name what a wheel is built with."""
    return [*scikit.get_requires_for_build_wheel(config_settings), *cuda_packages()]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """Name what an editable wheel is built with."""
    return [*scikit.get_requires_for_build_editable(config_settings), *cuda_packages()]


def cuda_packages() -> list[str]:
    """Name packages with an nvcc, where it would be of use and is not there."""
    if _is_set("HOTNAS_NO_EXT") or _is_set("HOTNAS_WITH_CUDA", {"off", "0", "no", "false"}):
        return []
    homes = [Path(os.environ[name], "bin") for name in ("CUDA_HOME",) if os.environ.get(name)]
    places = os.pathsep.join(map(str, [*homes, "/usr/local/cuda/bin", os.environ.get("PATH", "")]))
    if shutil.which("nvcc", path=places) or not _has_gpu():
        return []
    # -I: of the environment around an isolated build.
    command = [sys.executable, "-I", str(_ROOT / "csrc" / "find_nvcc.py"), "--torch"]
    torch = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages: list[str] = project["optional-dependencies"]["cuda"]
    return packages if packages[0].endswith(f"=={torch}.*") else []


def _has_gpu() -> bool:
    gpus = Path("/proc/driver/nvidia/gpus")
    return shutil.which("nvidia-smi") is not None or gpus.is_dir()


def reason_of(output: str) -> str:
    """Find what a failed build complains of: CMake's first error, else the compiler's."""
    lines = output.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("CMake Error"):
            # The text is indented and ends where a line is not; empty lines part paragraphs.
            text = []
            for below in lines[number + 1 :]:
                if below and not below.startswith(" "):
                    break
                text.append(below.strip())
            return " ".join(" ".join(text).split()) or line.partition(":")[2].strip() or line
    for line in lines:
        if _ERROR.match(line):
            return line.strip()
    said = [line.strip() for line in lines if line.strip()]
    return re.sub(r"^[\w.]+Error: ", "", said[-1]) if said else "the build said nothing"


def _is_set(variable: str, values: Iterable[str] = _TRUE) -> bool:
    return os.environ.get(variable, "").strip().lower() in values


def _build(hook: str, folder: str, settings: Settings, metadata: str | None) -> str:
    arguments = [folder, settings, metadata]
    if _is_set("HOTNAS_NO_EXT"):
        return _without_core(hook, arguments, "HOTNAS_NO_EXT was set when it was installed")
    name, output = _attempt(hook, arguments)
    if name is None and not _is_set("HOTNAS_WITH_CUDA", _TRUE | {"off", "0", "no", "false"}):
        # Whether CUDA was to blame is not asked: without it there is less that can fail, and CMake
        # says within a second what else is wrong.
        problem = f"compiling them failed when it was installed: {reason_of(output)}"
        _say("compiling failed; once more without CUDA kernels")
        without = {"HOTNAS_WITH_CUDA": "OFF", "HOTNAS_CUDA_PROBLEM": problem}
        name, output = _attempt(hook, arguments, without)
    if name is not None:
        return name
    reason = reason_of(output)
    if _is_set("HOTNAS_REQUIRE_EXT"):
        _say(f"HOTNAS_REQUIRE_EXT is set, and the core cannot be compiled: {reason}")
        raise SystemExit(1)
    if _is_set("HOTNAS_WITH_CUDA"):
        _say(f"HOTNAS_WITH_CUDA asks for CUDA kernels, and the core cannot be compiled: {reason}")
        raise SystemExit(1)
    _say(f"installing without the compiled core: {reason}")
    note = f"compiling it failed when it was installed: {reason}"
    name = _without_core(hook, arguments, note)
    if hook == "build_editable":
        _NOTE_IN_PLACE.write_text(note + "\n", encoding="utf-8")
    return name


def _without_core(hook: str, arguments: list[Any], note: str) -> str:
    _NOTE.parent.mkdir(exist_ok=True)
    _NOTE.write_text(note.replace("$", "$$") + "\n", encoding="utf-8")  # a string.Template
    name, output = _attempt(hook, arguments, {"HOTNAS_NO_EXT": "1"})
    if name is None:
        _say(f"the package cannot be built: {reason_of(output)}")
        raise SystemExit(1)
    return name


def _attempt(
    hook: str, arguments: list[Any], variables: dict[str, str] | None = None
) -> tuple[str | None, str]:
    """Run a hook of scikit-build-core in a process of its own: the wheel's name, and the output.

    A process, as the output of CMake and the compilers is where the reason is, and a failed build
    leaves nothing behind in this one.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "name"
        program = (
            "import json, sys; from pathlib import Path; from scikit_build_core import build;"
            " hook, arguments, answer = json.loads(sys.argv[1]);"
            " Path(answer).write_text(getattr(build, hook)(*arguments), encoding='utf-8')"
        )
        request = json.dumps([hook, arguments, str(answer)])
        process = subprocess.Popen(
            [sys.executable, "-c", program, request],
            env={**os.environ, **(variables or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.append(line)
        done = process.wait() == 0 and answer.is_file()
        return answer.read_text(encoding="utf-8") if done else None, "".join(lines)


def _say(message: str) -> None:
    print(f"*** hotnas-torch: {message}", file=sys.stderr, flush=True)
