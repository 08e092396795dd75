"""The core on lanes that are threads: the device's lane pattern, held to the plain scalar program.

`lanes_main` compares every algorithm of csrc/core on 1, 2, 8, 16 and 32 threads per problem, and on
the vector kernels, with one lane. Its twins run under ThreadSanitizer, which sees a missing sync()
where results do not, and under AddressSanitizer, to which the work space is many arrays.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.ext


def run(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    summary = done.stdout.splitlines()[-1]
    assert summary.endswith(" comparisons, 0 differences")
    assert not summary.startswith("0 ")


def test_one_lane_and_vector_lanes_at_every_size(built: Callable[[str], Path]) -> None:
    run([built("lanes_main"), "lanes=serial,1,simd"])


@pytest.mark.parametrize(("lanes", "every"), [("2", 3), ("8", 6), ("16", 12), ("32", 50)])
def test_any_number_of_lanes(built: Callable[[str], Path], lanes: str, every: int) -> None:
    run([built("lanes_main"), f"lanes={lanes}", "nodes=9", f"every={every}"])


@pytest.mark.parametrize(("lanes", "every"), [("2", 3), ("8", 12)])
def test_lanes_do_not_race(
    built: Callable[[str], Path], fixed_addresses: list[str], lanes: str, every: int
) -> None:
    program = built("lanes_main_thread")
    run([*fixed_addresses, program, f"lanes={lanes}", "nodes=9", f"every={every}"])


def test_lanes_stay_inside_their_arrays(built: Callable[[str], Path]) -> None:
    run([built("lanes_main_address"), "lanes=serial,simd"])
    run([built("lanes_main_address"), "lanes=8", "nodes=9", "every=12"])


@pytest.mark.parametrize("problems", [1000, pytest.param(12_500, marks=pytest.mark.slow)])
def test_any_bits_stay_inside_their_arrays_and_lose_no_mass(
    built: Callable[[str], Path], problems: int
) -> None:
    # every kernel on each problem, of both types, on the vector kernels and on one lane
    command = [built("lanes_main_address"), "lanes=serial", f"wild={problems}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stdout.splitlines()[-1] == f"{4 * problems} problems, 0 false claims"


def test_nothing_is_read_that_was_never_written(built: Callable[[str], Path]) -> None:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        pytest.skip("no valgrind")
    program = built("lanes_main")
    # fill=-1 leaves the work space as allocated, so that valgrind knows what was written.
    run([valgrind, "-q", "--error-exitcode=9", program, "lanes=simd", "fill=-1", "every=8"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "lanes"),
    [("lanes_main", "2,8"), ("lanes_main_thread", "2,8"), ("lanes_main_address", "8")],
)
def test_more_columns_than_lanes(
    built: Callable[[str], Path], fixed_addresses: list[str], program: str, lanes: str
) -> None:
    prefix = fixed_addresses if program == "lanes_main_thread" else []
    run([*prefix, built(program), f"lanes={lanes}", "every=4"])
    if program == "lanes_main":
        run([built(program), "lanes=16", "every=8"])
        run([built(program), "lanes=32", "every=16"])


@pytest.mark.slow
def test_every_loss_and_pair_set_on_every_problem(built: Callable[[str], Path]) -> None:
    run([built("lanes_main"), "lanes=serial,1,simd", "terms=all"])
    run([built("lanes_main"), "lanes=2", "nodes=9", "terms=all"])
