"""Install torch into the environment that runs this, without CUDA where there is no GPU to use it.

On Linux the default torch on the package index is a CUDA build: with its NVIDIA packages several
gigabytes, all of them idle on a machine without a GPU. So this asks pip what it would install,
before anything is downloaded, and turns to PyTorch's CPU builds
(https://pytorch.org/get-started/locally/) when the answer is CUDA and no NVIDIA GPU is there. A
torch that is installed already, of whatever kind, is kept if it is new enough.

Usage: python tools/install_torch.py [--dry-run] [REQUIREMENT]
"""

import argparse
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

OLDEST = (2, 13)
REQUIREMENT = "torch==2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_PREFIXES = ("nvidia-", "cuda-")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def installed() -> str | None:
    """Return the version of the installed torch, or None when there is none or it is too old."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
    major, minor = version.split(".")[:2]
    return version if (int(major), int(minor)) >= OLDEST else None


def has_nvidia_gpu() -> bool:
    """Return whether the driver knows a GPU: by nvidia-smi, or by /proc without it."""
    if shutil.which("nvidia-smi"):
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        if listing.returncode == 0 and "GPU" in listing.stdout:
            return True
    gpus = Path("/proc/driver/nvidia/gpus")
    return gpus.is_dir() and any(gpus.iterdir())


def planned(requirement: str) -> list[str]:
    """Return names of the packages that pip would install; it downloads metadata only.

    Raises:
        subprocess.CalledProcessError: pip finds no solution; it has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [*PIP, "install", "--quiet", "--dry-run", "--report", str(report), requirement]
        subprocess.run(command, check=True)
        plan = json.loads(report.read_text(encoding="utf-8"))
    return [item["metadata"]["name"].lower().replace("_", "-") for item in plan["install"]]


def main() -> int:
    """Install torch and say which build and why; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("requirement", nargs="?", default=REQUIREMENT, help="default: %(default)s")
    parser.add_argument("--dry-run", action="store_true", help="say what would be installed")
    arguments = parser.parse_args()

    version = installed()
    if version is not None:
        print(f"torch {version} is installed already and is kept")
        return 0
    gpu = has_nvidia_gpu()
    command = [*PIP, "install", arguments.requirement]
    if gpu:
        print(f"an NVIDIA GPU is present: installing {arguments.requirement} as the index has it")
    else:
        try:
            cuda = [
                name for name in planned(arguments.requirement) if name.startswith(CUDA_PREFIXES)
            ]
        except subprocess.CalledProcessError as error:
            print(f"pip cannot install {arguments.requirement}; see above", file=sys.stderr)
            return error.returncode
        if cuda:
            print(
                f"no NVIDIA GPU here, and {arguments.requirement} would bring {len(cuda)} CUDA"
                f" packages: installing the CPU build from {CPU_INDEX} instead"
            )
            command += ["--index-url", CPU_INDEX]
        else:
            print(f"installing {arguments.requirement} (no CUDA packages come with it)")
    if arguments.dry_run:
        return 0
    status = subprocess.run(command, check=False).returncode
    if status != 0:
        print(
            f"torch could not be installed. Install any build of torch >= {OLDEST[0]}.{OLDEST[1]}"
            f" with {sys.executable} -m pip by hand and run make again: it will be kept.",
            file=sys.stderr,
        )
    return status


if __name__ == "__main__":
    raise SystemExit(main())
