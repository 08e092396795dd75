"""The simulated queue: no group waits while there is work, and the real cells are counted."""

import numpy as np
import pytest

from benchmarks.gpu_queue import Settings, makespans, resident_groups, run


def test_even_work_is_done_at_once() -> None:
    assert set(makespans(np.ones(64), 16, 4).values()) == {1.0}


def test_a_long_item_holds_up_its_group_alone() -> None:
    work = np.ones(64)
    work[0] = 13.0  # of 76 in all: 4.75 a group
    found = makespans(work, 16, 4)
    assert found["turns"] == pytest.approx(16 / 4.75)
    assert found["queue"] == pytest.approx(13 / 4.75)
    # its warp of four groups takes 13 in place of 1, and three rounds of 1 after it
    assert found["turns_together"] == pytest.approx(16 / 4.75)
    assert found["queue_together"] == pytest.approx(13 / 4.75)


def test_a_warp_waits_for_its_slowest_group() -> None:
    work = np.tile([1.0, 1.0, 1.0, 5.0], 8)
    found = makespans(work, 8, 4)
    assert found["queue_together"] == found["turns_together"] == pytest.approx(20 / 8)
    assert found["queue"] < found["turns"] == pytest.approx(20 / 8)


@pytest.mark.ext
def test_cells_are_counted() -> None:
    report = run(Settings(spaces=("nasbench101",), sides=(12,)))
    (row,) = report.tables[0].rows
    assert row["pairs"] == 144
    assert 1 < row["spread"] < 20
    assert row["queue"] >= row["pairs"] / resident_groups("H100")
