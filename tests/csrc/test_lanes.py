"""The core on lanes that are threads: the device's lane pattern, held to the plain scalar program.

`lanes_main` compares every algorithm of csrc/core on 1, 2, 8, 16 and 32 threads per problem with
one lane; it also runs under ThreadSanitizer and AddressSanitizer, which see a missing sync()
and a read past the end where results do not.
"""

import subprocess
from pathlib import Path

import pytest

KERNELS = (
    "transport,sinkhorn,fgw,fgw_backward,entropic_fgw,fgw_lower_bound,"
    "cell_distances,network_distances"
)

pytestmark = pytest.mark.ext


def run(build_dir: Path, program: str, *choice: str) -> None:
    path = build_dir / program
    if not path.exists():
        pytest.skip(f"{program} is not built (make lanes builds it)")
    done = subprocess.run(
        [str(path), f"kernels={KERNELS}", *choice],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert " comparisons, 0 differences" in done.stdout
    assert not done.stdout.startswith("0 comparisons")


@pytest.mark.parametrize("lanes", ["1,2", "8", "32"])
def test_any_number_of_lanes_computes_what_one_does(build_dir: Path, lanes: str) -> None:
    run(build_dir, "lanes_main", f"lanes={lanes}", "nodes=9", "every=4")


@pytest.mark.slow
def test_sizes_at_the_edges_of_a_lane_group(build_dir: Path) -> None:
    run(build_dir, "lanes_main", "lanes=1,2,8,16,32", "nodes=33", "every=7")


@pytest.mark.parametrize("lanes", ["2", "8"])
def test_lanes_do_not_race(build_dir: Path, lanes: str) -> None:
    run(build_dir, "lanes_main_thread", f"lanes={lanes}", "nodes=9", "every=9")


def test_lanes_stay_inside_their_memory(build_dir: Path) -> None:
    run(build_dir, "lanes_main_address", "lanes=2,8", "nodes=9", "every=6")
