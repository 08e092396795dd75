"""Print the nvcc of NVIDIA's Python packages, where they are installed and belong to torch.

They hold the compiler, its headers and the static runtime, so that no CUDA toolkit is needed.
Nothing is printed where there are none, and to standard error why those that are there do not
serve. With the argument --torch, the CUDA major version that torch is built for is printed instead.
"""

import importlib.util
import re
import sys
from pathlib import Path

PACKAGE_OF = {
    "bin/nvcc": "nvidia-cuda-nvcc",
    "bin/ptxas": "nvidia-cuda-nvcc",
    "nvvm/bin/cicc": "nvidia-nvvm",
    "include/crt/host_config.h": "nvidia-cuda-crt",
    "include/cuda_runtime.h": "nvidia-cuda-runtime",
    "lib/libcudart_static.a": "nvidia-cuda-runtime",
    "include/cccl/nv/target": "nvidia-cuda-cccl",
}
"""Files below nvidia/cuXX, and the packages that have them."""


def locations(package: str) -> list[Path]:
    """Return the folders of a package, without importing it."""
    spec = importlib.util.find_spec(package)
    return [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]


def cuda_of_torch() -> str | None:
    """Return the CUDA major version that torch is built for, None for a CPU build or no torch."""
    for folder in locations("torch"):
        text = (folder / "version.py").read_text(encoding="utf-8")
        match = re.search(r"^cuda\b[^=]*= ['\"](\d+)", text, re.MULTILINE)
        return match[1] if match else None
    return None


def packaged() -> tuple[str | None, str]:
    """Return the path of nvcc, or None and what is wrong, which is empty where there is none."""
    wanted, problem = cuda_of_torch(), ""
    folders = [root for path in locations("nvidia") for root in path.glob("cu[0-9]*")]
    for root in sorted(folders, reverse=True):
        if not (root / "bin" / "nvcc").is_file():
            continue
        major = root.name.removeprefix("cu")
        missing = sorted({name for file, name in PACKAGE_OF.items() if not (root / file).is_file()})
        if wanted not in (None, major):
            problem = (
                f"that of the Python packages is of CUDA {major} and torch of CUDA {wanted}:"
                f" install a torch that is built for CUDA {major}, or a CUDA {wanted} toolkit"
            )
        elif missing:
            problem = f"that of the Python packages lacks pip install {' '.join(missing)}"
        else:
            return (root / "bin" / "nvcc").as_posix(), ""
    return None, problem


def main() -> int:
    """Write the answer to standard output, or what is wrong to standard error."""
    if sys.argv[1:] == ["--torch"]:
        return 0
    path, problem = packaged()
    print(problem or path or "", file=sys.stderr if problem else sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
