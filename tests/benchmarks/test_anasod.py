import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import dnas, spread
from benchmarks.anasod import GROUPS, Settings, run, tabulate
from benchmarks.measuring.report import Unavailable
from hotnas_torch.comparison import METHODS, Record


def record(method, seed, values, task="nb201_cifar10"):
    best = 5.0
    reported = np.fmin.accumulate(values).tolist()
    return Record(
        task=task,
        method=method,
        seed=seed,
        identity={},
        networks=tuple(map(str, range(len(values)))),
        values=tuple(values),
        seconds=(0.0,) * len(values),
        reported=tuple(reported),
        best_value=best,
        better=tuple(0 if value == best else 3 for value in reported),
    )


def test_a_row_is_the_mean_of_what_the_seeds_found():
    records = [
        record("random", 0, [9.0, math.nan, 7.0]),
        record("random", 1, [8.0, 6.0, 6.5]),
        record("local_first", 0, [5.0, 9.0, 9.0]),
    ]
    second, first = tabulate(records, GROUPS["queries300"])
    assert first["method"] == "random"
    assert first["error"] == 6.5
    assert first["standard_error"] == statistics.stdev([7.0, 6.0]) / math.sqrt(2)
    assert first["regret"] == 1.5
    assert (first["seeds"], first["better"]) == (2, 3)
    assert (second["error"], second["better"], second["seeds"]) == (5.0, 0, 1)
    assert second["standard_error"] is None
    early = tabulate(records, GROUPS["queries300"], evaluations=2)[1]
    assert (early["evaluations"], early["error"]) == (2, 7.5)


def test_every_method_of_a_group_can_be_compared():
    for group in GROUPS.values():
        assert set(group.methods) <= set(METHODS)


def test_searches_are_run_once_and_tabulated(tmp_path, data_dir):
    settings = Settings(
        tasks=("nasbench301",),
        groups=("queries300",),
        methods=("random",),
        seeds=1,
        data=str(data_dir),
        storage=str(tmp_path),
    )
    with pytest.raises(Unavailable, match="has no finished searches"):
        run(replace(settings, processes=0))
    found = run(settings)
    files = list(tmp_path.glob("queries300/*/*/*.json"))
    assert len(files) == 1
    before = files[0].stat().st_mtime_ns
    again = run(replace(settings, processes=0, data="/nowhere"))
    assert files[0].stat().st_mtime_ns == before
    assert again.tables == found.tables
    ((table,),) = [report.tables for report in (found,)]
    assert "| random search | NB301" in table.markdown()
    assert list(found.figures) == ["queries300"]


def test_the_share_of_variance_between_groups(rng):
    place = torch.randint(6, (400,), generator=rng)
    values = torch.randn(400, generator=rng, dtype=torch.float64) + place
    groups = [values[place == group] for group in range(6)]
    within = sum(float((group - group.mean()).square().sum()) for group in groups)
    total = float((values - values.mean()).square().sum())
    assert spread._explained(values, place) == pytest.approx(1.0 - within / total)


@pytest.mark.slow
def test_dnas_is_measured_and_resumed(tmp_path):
    settings = dnas.Settings(seeds=1, epochs=2, every=1, storage=str(tmp_path))
    rows = dnas.run(settings).rows("searches")
    assert [row["method"] for row in rows] == ["ANASOD-DNAS", "GAEA-DARTS", "DARTS"]
    for row in rows:
        assert len(row["curves"][0]) == 2
        assert 10.0 < row["accuracy"] <= 100.0
    assert dnas.run(settings).rows("searches") == rows
    assert dnas.draw(dnas.run(settings)).axes
