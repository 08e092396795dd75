"""Fixtures that every test module may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hotnas_torch import _ext

ROOT = Path(__file__).parent.parent


def _required(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


def missing(what: str, variable: str) -> None:
    """Skip the running test, or fail it where `variable` promises that nothing is missing."""
    if _required(variable):
        pytest.fail(f"{what} ({variable} is set, so this is no reason to skip)")
    pytest.skip(what)


def pytest_configure() -> None:
    # Test processes share the processors among themselves, one torch thread each.
    torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("ext") and not _ext.loaded:
        missing(f"no compiled core: {_ext.reason}", "HOTNAS_REQUIRE_EXT")
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        missing("no CUDA device", "HOTNAS_REQUIRE_CUDA")


@pytest.fixture(autouse=True)
def _global_randomness_untouched() -> Iterator[None]:
    """The library draws from generators that the caller passes; so do its tests."""
    before = torch.get_rng_state()
    yield
    if not torch.equal(before, torch.get_rng_state()):
        torch.set_rng_state(before)
        pytest.fail(
            "the test drew from torch's global random state: pass generator= (where other people's"
            " code draws, wrap it in torch.random.fork_rng())"
        )


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded generator on the CPU, fresh for each test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Both supported precisions."""
    return request.param


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and a CUDA device where there is one."""
    return torch.device(request.param)


@pytest.fixture(params=[pytest.param("ext", marks=pytest.mark.ext), "torch"])
def backend(request: pytest.FixtureRequest) -> str:
    """Both implementations of an operator: compiled and pure torch."""
    return request.param


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Published benchmark tables: ``$HOTNAS_DATA``, else ``shared/data`` beside the checkout."""
    named = os.environ.get("HOTNAS_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        missing(
            f"no benchmark tables: {folder} is no folder (set HOTNAS_DATA to where they are)",
            "HOTNAS_REQUIRE_DATA",
        )
    return folder


@pytest.fixture(scope="session")
def build_dir() -> Path:
    """Folder of a developer build (`make ext`): object files, test library, test programs."""
    folder = Path(os.environ.get("HOTNAS_BUILD_DIR", ROOT / "build" / "dev"))
    if not (folder / "CMakeCache.txt").is_file() or not _ext.loaded:
        missing(f"no developer build in {folder} (make ext)", "HOTNAS_REQUIRE_EXT")
    return folder
