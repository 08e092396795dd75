"""What this installation consists of: the first thing to paste into a bug report."""

import importlib.metadata
import os
import platform
from dataclasses import dataclass

import torch

from hotnas_torch import _ext
from hotnas_torch._version import __version__

__all__ = ["Config", "show_config"]

_DEPENDENCIES = ("gpytorch", "botorch", "numpy", "scipy", "networkx")


@dataclass(frozen=True, slots=True, repr=False)
class Config:
    """Versions and capabilities of this installation; prints as a table.

    Attributes:
        versions: Version per package, `"not installed"` where there is none; includes Python.
        platform: Operating system and processor architecture.
        extension: Path of the compiled core, or None.
        extension_reason: Why there is no compiled core; empty when there is one.
        instruction_set: Vector instructions that the compiled core uses here (`"baseline"`,
            `"avx2"`, `"avx512"`), or None without it.
        num_threads: Threads that one torch operation uses.
        num_processors: Processors that the operating system reports, or None when it does not.
        cuda_built: CUDA version that torch was built for, or None for a CPU build.
        cuda_devices: Names of the CUDA devices that torch sees.
        cuda_kernels: GPU architectures that the compiled core has kernels for.
        cuda_kernels_reason: Why it has none; empty when it has some.
    """

    versions: dict[str, str]
    platform: str
    extension: str | None
    extension_reason: str
    instruction_set: str | None
    num_threads: int
    num_processors: int | None
    cuda_built: str | None
    cuda_devices: tuple[str, ...]
    cuda_kernels: tuple[str, ...]
    cuda_kernels_reason: str

    def __str__(self) -> str:
        core = f"loaded from {self.extension}" if self.extension else f"no: {self.extension_reason}"
        if self.cuda_built is None:
            cuda = "no: torch is a CPU build"
        elif not self.cuda_devices:
            cuda = f"no: torch is built for CUDA {self.cuda_built} but sees no device"
        else:
            cuda = f"CUDA {self.cuda_built}: {', '.join(self.cuda_devices)}"
        kernels = ", ".join(self.cuda_kernels) or (
            f"none, so that CUDA tensors take torch code: {self.cuda_kernels_reason}"
        )
        rows = [
            *self.versions.items(),
            ("platform", self.platform),
            ("compiled core", core),
            ("instructions", self.instruction_set or "-"),
            ("threads", f"{self.num_threads} of {self.num_processors or 'unknown'} processors"),
            ("cuda", cuda),
            ("cuda kernels", kernels),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    __repr__ = __str__


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def show_config() -> Config:
    """Describe this installation: versions, compiled core, instruction set, threads, CUDA.

    Returns:
        A `Config`, which an interactive session shows as a table; `print` it elsewhere.

    Example:
        >>> import hotnas_torch as ht
        >>> config = ht.show_config()
        >>> config.versions["hotnas_torch"] == ht.__version__
        True
        >>> (config.extension is None) == bool(config.extension_reason)
        True
    """
    devices = tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return Config(
        versions={
            "hotnas_torch": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{package: _version(package) for package in _DEPENDENCIES},
        },
        platform=f"{platform.system()} {platform.machine()}",
        extension=None if _ext.path is None else str(_ext.path),
        extension_reason=_ext.reason,
        instruction_set=_ext.instruction_set(),
        num_threads=torch.get_num_threads(),
        num_processors=os.cpu_count(),
        cuda_built=torch.version.cuda,
        cuda_devices=devices,
        cuda_kernels=_ext.cuda_architectures(),
        cuda_kernels_reason=_ext.cuda_reason(),
    )
