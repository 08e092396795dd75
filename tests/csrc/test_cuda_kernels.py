"""The CUDA kernels as the compiler made them: no spills, and how many fit a multiprocessor."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_occupancy
from benchmarks.gpu_occupancy import (
    LIMITS,
    SAME_CODE,
    TILES,
    Settings,
    compiler,
    kernels,
    occupancy,
    parse_report,
    read_table,
    run,
    threads_of_block,
)
from benchmarks.measuring.report import Unavailable
from hotnas_torch import _ext

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN6hotnas6device49_GLOBAL__N__fd6d12dc_10_kernels_cu_b9102068_269465tilesINS0_13TransportItemIfEELi16EEEvNT_9ArgumentsElNS1_5SpaceEPc' for 'sm_90'
ptxas info    : Function properties for _ZN6hotnas6device5tiles
    176 bytes stack frame, 230 bytes spill stores, 600 bytes spill loads
ptxas info    : Used 64 registers, used 0 barriers, 176 bytes cumulative stack size
ptxas info    : Compiling entry function '_ZN6hotnas6device49_GLOBAL__N__fd6d12dc_10_kernels_cu_b9102068_269465blocksINS0_7FgwItemIdEEEEvNT_9ArgumentsElNS1_5SpaceEPc' for 'sm_80'
ptxas info    : Function properties for _ZN6hotnas6device6blocks
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 150 registers, used 1 barriers, 128 bytes smem
"""  # noqa: E501


@pytest.mark.parametrize(
    ("architecture", "threads", "registers", "shared", "expected"),
    [
        # NVIDIA's occupancy calculator
        ("sm_80", 256, 32, 0, 1.0),
        ("sm_80", 256, 64, 0, 0.5),
        ("sm_80", 128, 96, 0, 0.3125),
        ("sm_80", 1024, 65, 0, 0.0),  # does not launch
        ("sm_80", 256, 32, 48 * 1024, 0.375),
        ("sm_80", 32, 16, 0, 0.5),  # 32 blocks at most
        ("sm_90", 256, 64, 55 * 1024, 0.5),
        ("sm_90", 256, 64, 56 * 1024, 0.5),
        ("sm_90", 256, 64, 57 * 1024, 0.375),
        ("sm_90", 128, 255, 0, 0.125),
    ],
)
def test_occupancy(
    architecture: str, threads: int, registers: int, shared: int, expected: float
) -> None:
    found = occupancy(LIMITS[architecture], threads=threads, registers=registers, shared=shared)
    assert found == expected


def test_reports_are_read() -> None:
    tile, block = parse_report(REPORT)
    assert (tile.operator, tile.dtype, tile.nodes) == ("Transport", "float32", 16)
    assert (tile.architecture, tile.registers, tile.stack, tile.spills) == ("sm_90", 64, 176, 830)
    assert (block.operator, block.dtype, block.nodes) == ("Fgw", "float64", None)
    assert (block.registers, block.spills, block.shared) == (150, 0, 128)


@pytest.fixture(scope="module")
def folder(build_dir: Path) -> Path:
    if not _ext.cuda_architectures():
        pytest.skip("no CUDA kernels in this build (make cuda)")
    return build_dir / "cuda-report"


@pytest.fixture(scope="module")
def table(folder: Path) -> list[dict[str, str]]:
    return kernels(folder)


def small(table: list[dict[str, str]]) -> list[dict[str, str]]:
    """Those for problems of up to 64 nodes."""
    return [row for row in table if row["nodes"] != "more"]


@pytest.mark.ext
def test_every_kernel_is_there(table: list[dict[str, str]]) -> None:
    # operators, 2 types, 4 sizes and the blocks for large problems
    compiled = _ext.cuda_architectures()
    gpus = sum(1 + len(SAME_CODE.get(name, ())) for name in compiled)
    operators = len(torch.ops.hotnas.cuda_kernels().splitlines()) // (2 * len(TILES))
    assert len(table) == operators * 2 * (len(TILES) + 1) * gpus


@pytest.mark.ext
def test_no_kernel_spills(table: list[dict[str, str]]) -> None:
    assert not [row for row in small(table) if row["spills"] != "0" or row["stack"] != "0"]


@pytest.mark.ext
def test_many_warps_are_resident(table: list[dict[str, str]]) -> None:
    chosen = [
        row
        for row in table
        if (row["architecture"], row["dtype"]) == ("sm_90", "float32")
        and row["nodes"] in ("8", "16")
        and row["operator"] != "KlTransport"  # float64 inside, whatever it is given
    ]
    assert chosen
    # the fused solver has a structure in shared memory, whose loads it waited for
    least = {"Fgw": 35, "CellDistances": 35}
    assert not [
        row for row in chosen if int(row["occupancy"].rstrip("%")) < least.get(row["operator"], 50)
    ]


@pytest.mark.ext
def test_every_kernel_fits_every_gpu(table: list[dict[str, str]]) -> None:
    assert not [row for row in table if row["occupancy"] == "0%"]
    assert not [
        row for row in table if int(row["shared"]) > LIMITS[row["architecture"]].shared_of_block
    ]


@pytest.mark.parametrize("architecture", LIMITS)
def test_every_kernel_of_the_committed_table_can_be_launched(architecture: str) -> None:
    _, rows = read_table()
    here = [row for row in rows if row["architecture"] == architecture]
    sizes = [*map(str, TILES), "more"]
    found = sorted((row["operator"], row["dtype"], row["nodes"]) for row in here)
    operators = {row["operator"] for row in rows}
    assert len(operators) == 12
    assert found == sorted(itertools.product(operators, ("float32", "float64"), sizes))
    limits = LIMITS[architecture]
    for row in here:
        assert int(row["shared"]) <= limits.shared_of_block, row
        # registers are handed out in eights, to warps
        assert int(row["threads"]) * -(-int(row["registers"]) // 8) * 8 <= limits.registers, row
        assert row["occupancy"] != "0%", row
    assert not [row for row in small(here) if row["spills"] != "0" or row["stack"] != "0"]


@pytest.mark.parametrize("architecture", LIMITS)
def test_where_there_is_less_memory_a_block_has_fewer_problems(architecture: str) -> None:
    # Fgw in float64 with 9 to 16 nodes: 16 problems of 6,400 bytes each
    limits = LIMITS[architecture]
    found = threads_of_block(limits, threads=256, registers=96, lanes=16, near=6400)
    assert found // 16 * 6400 <= limits.shared_of_block

    def warps(threads: int) -> int:
        # by hand: 20 warps have registers, and every block costs another KiB of memory
        of_block = threads // 32
        return min(20 // of_block, limits.shared // (12800 * of_block + 1024)) * of_block

    assert warps(found) == max(map(warps, range(32, 257, 32)))


def test_a_block_is_as_large_as_no_memory_is_lost() -> None:
    # 2 blocks of 46,080 bytes would leave 8 KiB of 100; 4 of 23,040 bytes, 4: as many problems
    found = threads_of_block(LIMITS["sm_120"], threads=256, registers=64, lanes=8, near=1440)
    assert found == 256
    # one block of 54,272 bytes would leave half of it
    found = threads_of_block(LIMITS["sm_120"], threads=256, registers=64, lanes=16, near=3392)
    assert found == 224


@pytest.mark.ext
def test_as_in_the_committed_table(folder: Path, table: list[dict[str, str]]) -> None:
    name, rows = read_table()
    if compiler(folder) != name:
        pytest.skip(f"{compiler(folder)} allocates registers in its own way; the table is {name}'s")
    here = {row["architecture"] for row in table}
    assert [row for row in rows if row["architecture"] in here] == table, (
        f"python -m benchmarks gpu_occupancy --reports {folder} --output benchmarks/results"
        " writes the table anew"
    )


def test_tables_are_read_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"operator": "Fgw", "nodes": "8"}, {"operator": "Transport", "nodes": "more"}]
    monkeypatch.setattr(gpu_occupancy, "kernels", lambda _: rows)
    (tmp_path / "compiler.txt").write_text("nvcc 13.0.88\n")
    report = run(Settings(reports=str(tmp_path)))
    report.benchmark = "table"
    report.write(tmp_path)
    assert read_table(tmp_path / "table.json") == ("nvcc 13.0.88", rows)
    with pytest.raises(Unavailable, match=r"nothing has no reports"):
        run(Settings(reports=str(tmp_path / "nothing")))


@pytest.mark.ext
def test_the_library_loads_without_cuda() -> None:
    # The operators for CUDA tensors are there although torch may have no CUDA at all.
    if not _ext.cuda_architectures():
        pytest.skip("no CUDA kernels in this build (make cuda)")
    has: Callable[[str, str], bool] = torch._C._dispatch_has_kernel_for_dispatch_key
    for name in ("transport", "sinkhorn", "fgw", "fgw_backward", "entropic_fgw"):
        assert has(f"hotnas::{name}", "CUDA")
