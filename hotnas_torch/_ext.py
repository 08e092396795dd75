"""Loads the compiled core, or says why there is none.

The core is one library of torch operators (namespace `hotnas`), without Python symbols.
Everything it computes also exists as torch code in `hotnas_torch.ot._reference`, so its absence
costs speed and never a feature. The first use without it says so once (`MissingExtensionWarning`).

Three environment variables steer it:

- `HOTNAS_NO_EXT=1` at install time: do not compile it.
- `HOTNAS_DISABLE_EXT=1` at run time: do not load it, and do not warn either.
- `HOTNAS_REQUIRE_EXT=1`: its absence is an error, at install time and at import.
"""

import functools
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType

import torch

from hotnas_torch.errors import HotnasError

__all__ = [
    "ISA_NAMES",
    "MissingExtensionError",
    "MissingExtensionWarning",
    "cuda_architectures",
    "cuda_reason",
    "instruction_set",
    "loaded",
    "path",
    "raise_pending",
    "reason",
    "serves",
    "warn_of_absence",
]

ISA_NAMES = ("baseline", "avx2", "avx512")
"""Names of the instruction sets by the code that `torch.ops.hotnas.cpu_isa()` returns."""

_TRUTHY = frozenset({"1", "true", "on", "yes", "y", "t"})


class MissingExtensionError(HotnasError, ImportError):
    """The compiled core is required by `HOTNAS_REQUIRE_EXT` and was not loaded."""


class MissingExtensionWarning(UserWarning):
    """An operator runs as torch code, many times slower, for want of compiled kernels."""


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() in _TRUTHY


def _absence(package: Path) -> str:
    """Why the installed package holds no library: the installer's own note when it left one."""
    note = package / "_no_ext.txt"
    if note.is_file():
        return f"hotnas_torch/_C.so is not installed: {note.read_text(encoding='utf-8').strip()}"
    return (
        "hotnas_torch/_C.so is not installed: it was not compiled (in a source checkout:"
        " `make ext`; elsewhere: reinstall with HOTNAS_REQUIRE_EXT=1 to see what fails)"
    )


def _load() -> tuple[Path | None, str]:
    """Load the library and return its path, or None and the reason."""
    # By the import system and not beside __file__: an editable install keeps the library elsewhere.
    spec = importlib.util.find_spec("hotnas_torch._C")
    if spec is not None:
        # It has no Python symbol: who imports every module of the package finds this instead.
        stand_in = ModuleType(spec.name, "The compiled core, a library of torch operators.")
        stand_in.__spec__, stand_in.__file__ = spec, spec.origin
        sys.modules.setdefault(spec.name, stand_in)
    if _is_set("HOTNAS_DISABLE_EXT"):
        return None, "HOTNAS_DISABLE_EXT is set"
    if spec is None or spec.origin is None:
        return None, _absence(Path(__file__).parent)
    try:
        torch.ops.load_library(spec.origin)
    except (OSError, RuntimeError) as error:
        return None, (
            f"{spec.origin} does not load with torch {torch.__version__}: {error}"
            " (it needs torch >= 2.13, and that it is compiled for this operating system and"
            " processor: install hotnas_torch again beside the torch that is there)"
        )
    return Path(spec.origin), ""


path, reason = _load()
"""Path of the loaded library or None; the reason, which is empty when it is loaded."""

loaded = path is not None
"""Whether `torch.ops.hotnas` has the compiled operators."""

if not loaded and _is_set("HOTNAS_REQUIRE_EXT"):
    raise MissingExtensionError(
        f"HOTNAS_REQUIRE_EXT is set but the compiled core of hotnas_torch is not there: {reason}"
    )


def instruction_set() -> str | None:
    """Name the vector instructions that the compiled core chose on this processor.

    Returns:
        One of `ISA_NAMES`, or None without the compiled core (or with one too old to tell).
    """
    if not loaded or not hasattr(torch.ops.hotnas, "cpu_isa"):
        return None
    return ISA_NAMES[int(torch.ops.hotnas.cpu_isa())]


def cuda_architectures() -> tuple[str, ...]:
    """Name the GPU architectures that the compiled core has kernels for, none without CUDA."""
    if not loaded or not hasattr(torch.ops.hotnas, "cuda_architectures"):
        return ()
    return tuple(f"sm_{name}" for name in torch.ops.hotnas.cuda_architectures().split(",") if name)


def cuda_reason() -> str:
    """Say why the compiled core has no CUDA kernels; empty when it has."""
    if path is None:
        return f"there is no compiled core: {reason}"
    if cuda_architectures():
        return ""
    note = path.with_name("_no_cuda.txt")
    said = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
    return said or "the compiled core was built without them"


def serves(device: torch.device) -> bool:
    """Tell whether the compiled core runs on tensors of this device."""
    if device.type == "cuda":
        return not _why_not_on(device)
    return loaded and device.type == "cpu"


def _why_not_on(device: torch.device) -> str:
    """Say why the kernels do not run on a GPU; empty where they do."""
    if not cuda_architectures():
        return cuda_reason()
    # Tensors without data may name a device that is not there.
    if not torch.cuda.is_available():
        return ""
    return _tried_on(torch.cuda.current_device() if device.index is None else device.index)


@functools.cache
def _tried_on(index: int) -> str:
    """Ask a GPU once: by its capability, and by a kernel, as its driver may be too old for one."""
    names = cuda_architectures()
    if not _runs_on(names, torch.cuda.get_device_capability(index)):
        return f"its CUDA kernels are for {', '.join(names)}, not for cuda:{index}"
    try:
        _launch_on(index)
    except RuntimeError as error:
        said = str(error).splitlines()[0]
        if "driver version is insufficient" in said:
            said += (
                f". The driver serves CUDA {_driver_version()}, and the kernels were compiled with"
                " a later one: update the NVIDIA driver (CUDA 13 needs 580), or compile"
                " hotnas_torch with the nvcc of an earlier CUDA"
            )
        return f"its CUDA kernels do not run on cuda:{index}: {said}"
    return ""


def _driver_version() -> str:
    ask = getattr(torch._C, "_cuda_getDriverVersion", None)  # CUDA builds have it
    number = 0 if ask is None else int(ask())
    return f"{number // 1000}.{number % 1000 // 10}" if number else "of an unknown version"


def _launch_on(index: int) -> None:
    one = torch.ones(1, 1, device=f"cuda:{index}")
    torch.ops.hotnas.transport(one[None], one, one)


@functools.cache
def _runs_on(architectures: tuple[str, ...], capability: tuple[int, int]) -> bool:
    """Whether code for these serves a GPU: its own generation's, or the last one's as PTX."""
    for name in architectures:
        digits = name.removeprefix("sm_").rstrip("af")
        major, minor = int(digits[:-1]), int(digits[-1])
        if (major == capability[0] and minor <= capability[1]) or (
            name == architectures[-1] and (major, minor) <= capability
        ):
            return True
    return False


_warned: set[str] = set()


def warn_of_absence(device: torch.device) -> None:
    """Warn, once in a process, that tensors of this device take torch code, and say why.

    Nothing is said where `HOTNAS_DISABLE_EXT` asks for torch code, and of devices that the core
    never has kernels for.
    """
    if (
        device.type in _warned
        or device.type not in ("cpu", "cuda")
        or _is_set("HOTNAS_DISABLE_EXT")
    ):
        return
    _warned.add(device.type)
    why = reason if device.type == "cpu" else _why_not_on(device)
    warnings.warn(
        f"hotnas_torch runs without its compiled core on {device.type} tensors, tens to hundreds of"
        f" times slower: {why}. Install hotnas_torch again once that is mended, or set"
        " HOTNAS_DISABLE_EXT=1 to hear no more of it.",
        MissingExtensionWarning,
        stacklevel=4,
    )


def raise_pending() -> None:
    """Raise what the handler of a signal raised while the compiled core worked, if one did.

    The core leaves it with the interpreter, which raises it as soon as it runs Python code again:
    that of this function.
    """
