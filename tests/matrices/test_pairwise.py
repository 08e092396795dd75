from types import SimpleNamespace

import pytest
import torch

from hotnas_torch.errors import ConvergenceWarning, SolverError
from hotnas_torch.matrices.pairwise import (
    MEMORY_BUDGET,
    Tiling,
    distinct_pairs,
    fill,
    make_tiles,
    tile_edge,
)
from hotnas_torch.matrices.progress import progress_bar
from hotnas_torch.matrices.solve_log import SolveLog


@pytest.mark.parametrize("edge", [1, 3, 4, 7, 100])
@pytest.mark.parametrize(("rows", "cols"), [(7, 7), (1, 1)])
def test_symmetric_tiles_cover_every_pair_once(rows, cols, edge):
    covered = torch.zeros(rows, cols, dtype=torch.int64)
    tiles = make_tiles(rows, cols, edge, symmetric=True)
    for tile in tiles:
        covered[tile.rows, tile.cols] += 1
    assert (covered.triu() == torch.ones(rows, cols).triu()).all()
    assert sum(tile.num_pairs for tile in tiles) == rows * (rows - 1) // 2
    assert [tile.index for tile in tiles] == list(range(len(tiles)))


def test_rectangular_tiles_cover_every_entry_once():
    covered = torch.zeros(5, 8, dtype=torch.int64)
    tiles = make_tiles(5, 8, 3, symmetric=False)
    for tile in tiles:
        covered[tile.rows, tile.cols] += 1
    assert (covered == 1).all()
    assert sum(tile.num_pairs for tile in tiles) == 40


def test_a_smaller_budget_makes_smaller_tiles():
    edges = [tile_edge(budget, at_most=512) for budget in (1, 2**20, 2**26, 2**40)]
    assert edges[0] == 1
    assert edges == sorted(edges)
    assert edges[-1] == 512
    assert edges[2] ** 2 * 256 <= 2**26


@pytest.mark.parametrize(
    ("multiprocessors", "memory", "edge"), [(40, 16, 512), (108, 80, 768), (132, 80, 1024)]
)
def test_a_larger_gpu_has_larger_tiles(
    multiprocessors: int, memory: int, edge: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = SimpleNamespace(multi_processor_count=multiprocessors, total_memory=memory * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    there = torch.device("cuda")
    assert tile_edge(MEMORY_BUDGET, at_most=512, device=there) == edge
    assert tile_edge(1, at_most=512, device=there) <= edge
    assert tile_edge(MEMORY_BUDGET, at_most=64, device=there) == edge // 8
    assert tile_edge(MEMORY_BUDGET, at_most=512) == 512
    assert (edge**2 * 256 * 4) <= memory * 2**30 / 16


@pytest.mark.parametrize(
    ("rows", "cols"),
    [
        ([0, 2, 5], [0, 2, 3]),
        ([0, 2], [3, 4, 5]),
        ([3, 4, 5], [0, 2]),
        ([1, 3, 4], [1, 3, 4]),
        ([2], [2]),
    ],
)
def test_distinct_pairs_lists_each_unordered_pair_once(rows, cols):
    small, large, expand = distinct_pairs(torch.tensor(rows), torch.tensor(cols), 6)
    pairs = list(zip(small.tolist(), large.tolist(), strict=True))
    assert all(x < y for x, y in pairs)
    assert sorted(pairs) == sorted({(min(x, y), max(x, y)) for x in rows for y in cols if x != y})
    block = expand((10 * small + large).double())
    expected = [[0 if x == y else 10 * min(x, y) + max(x, y) for y in cols] for x in rows]
    assert block.tolist() == expected


class _Recorder:
    def __init__(self):
        self.calls = []

    def __call__(self, rows, cols):
        self.calls.append((rows.tolist(), cols.tolist()))
        return (rows[:, None] - cols).abs().double()


def filled(tiling, block, **options):
    return fill(
        tiling, block, dtype=torch.float64, device=torch.device("cpu"), stage="test", **options
    )


@pytest.mark.parametrize("edge", [1, 2, 5, 50])
def test_fill_writes_the_whole_matrix(edge):
    items = torch.tensor([4, 1, 1, 9, 0, 4])
    out = filled(Tiling(items, None, edge), _Recorder())
    assert torch.equal(out, (items[:, None] - items).abs().double())
    others = torch.tensor([3, 9, 3])
    out = filled(Tiling(items, others, edge), _Recorder())
    assert torch.equal(out, (items[:, None] - others).abs().double())


def test_fill_asks_for_repeated_items_once():
    block = _Recorder()
    filled(Tiling(torch.tensor([7, 3] * 100), None, 100), block)
    assert sum(len(rows) * len(cols) for rows, cols in block.calls) == 3


class _Store:
    def __init__(self, saved):
        self.saved = saved

    def load(self, tile):
        return self.saved.get(tile.index)

    def save(self, tile, values):
        self.saved[tile.index] = values.clone()


def test_fill_takes_saved_tiles_instead_of_computing_them():
    items = torch.arange(6)
    saved = {}
    tiling = Tiling(items, None, 2)
    complete = filled(tiling, _Recorder(), store=_Store(saved))
    assert len(saved) == 6
    del saved[1], saved[5]
    block = _Recorder()
    again = filled(tiling, block, store=_Store(saved))
    assert len(block.calls) == 2
    assert torch.equal(again, complete)


class _Backwards:
    """Finishes the tiles in the opposite order."""

    device = None

    def tiles(self, tiling, blocks, todo):
        for tile in reversed(todo):
            yield tile, tiling.compute(tile, blocks)


def test_the_order_in_which_tiles_finish_does_not_matter():
    items = torch.tensor([4, 1, 1, 9, 0, 4])
    tiling = Tiling(items, None, 2)
    saved = {}
    out = filled(tiling, _Recorder(), executor=_Backwards(), store=_Store(saved))
    assert torch.equal(out, filled(tiling, _Recorder()))
    assert list(saved) == list(reversed(range(len(tiling.tiles))))


def test_progress_reaches_the_number_of_pairs():
    seen = []
    filled(Tiling(torch.arange(9), None, 4), _Recorder(), progress=lambda *c: seen.append(c))
    assert seen[0] == ("test", 0, 36)
    assert seen[-1] == ("test", 36, 36)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_the_bar_appears_only_when_asked_for(capsys):
    with progress_bar(False, "cells", 10) as advance:
        advance(10)
    assert capsys.readouterr().err == ""
    with progress_bar(True, "cells", 10) as advance:
        advance(10)
    assert "cells" in capsys.readouterr().err


def test_failures_raise_and_slow_items_warn_once():
    log = SolveLog(max_iter=7)
    ones = torch.ones(3)
    log.add(ones, 1e-5 * ones, torch.tensor([0, 0, 0]))
    log.warn()
    log.add(ones, torch.tensor([0.0, 0.5, 0.0]), torch.tensor([0, 1, 0]))
    with pytest.warns(ConvergenceWarning, match=r"1 of 6 .* max_iter=7 .* gap of up to 5.0e-01"):
        log.warn()
    with pytest.raises(SolverError, match="1 of 3 cell pairs ended without a finite value"):
        log.add(ones, ones, torch.tensor([0, 2, 0]))
    with pytest.raises(SolverError, match="1 of 3"):
        log.add(torch.tensor([1.0, torch.nan, 1.0]), ones, torch.tensor([0, 0, 0]))


def test_logs_of_several_processes_make_one():
    here, there = SolveLog(max_iter=7), SolveLog(max_iter=7)
    there.add(torch.ones(2), torch.tensor([0.1, 0.3]), torch.tensor([0, 1]))
    here.merge(there.taken())
    there.warn()
    with pytest.warns(ConvergenceWarning, match=r"1 of 2 .* gap of up to 3.0e-01"):
        here.warn()
