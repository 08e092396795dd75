"""What the tests of the lanes share: operators and programs of a developer build."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def built(build_dir: Path) -> Callable[[str], Path]:
    """Path of something that `make lanes` builds; skips where it has not been built."""

    def path(name: str) -> Path:
        if not (build_dir / name).exists():
            pytest.skip(f"{name} is not built (make lanes builds it)")
        return build_dir / name

    return path


@pytest.fixture(scope="session")
def fixed_addresses() -> list[str]:
    """Prefix of a command under ThreadSanitizer, which cannot place its shadow memory everywhere.

    Without it, a kernel that randomises addresses widely stops the program with "unexpected memory
    mapping"; where the prefix is not allowed, it is empty.
    """
    prefix = ["setarch", "-R"]
    if shutil.which("setarch") and subprocess.run([*prefix, "true"], check=False).returncode == 0:
        return prefix
    return []


@pytest.fixture(scope="session")
def testing_ops(built: Callable[[str], Path]) -> Any:
    """`torch.ops.hotnas_testing`: the operators of the core on lanes that the tests choose."""
    torch.ops.load_library(built("_C_testing.so"))
    return torch.ops.hotnas_testing


@pytest.fixture
def lanes(testing_ops: Any) -> Callable[..., Any]:
    """The operators on that many threads per problem, 0 for one plain lane."""

    def on(width: int, *, fill: int = 255, atoms: int = 0) -> Any:
        def operator(name: str) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                testing_ops.use_lanes(width, fill, atoms)
                return getattr(testing_ops, name)(*args)

            return call

        names = (
            "transport sinkhorn fgw fgw_backward entropic_fgw fgw_lower_bound cell_distances"
            " network_distances semirelaxed_fgw unbalanced_sinkhorn kl_transport entropic_transport"
        )
        return SimpleNamespace(**{name: operator(name) for name in names.split()})

    return on
