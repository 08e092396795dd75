import csv
import statistics

import pytest
import torch

from benchmarks import nago_data
from benchmarks.measuring.report import Unavailable
from benchmarks.nago_data import CASES, Settings, read_evaluations, run
from hotnas_torch.nn import TrainingSettings


@pytest.fixture
def small(monkeypatch):
    """One short epoch."""
    monkeypatch.setattr(nago_data, "SETTINGS", TrainingSettings(epochs=1, batch_size=250))
    monkeypatch.setattr(nago_data, "PARAMETER_LIMIT", 4_000)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def untimed(path):
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows(path)]


def test_an_interrupted_run_goes_on_where_it_was(small, tmp_path):
    settings = Settings(cases=("rnag",), thetas=2, samples=2, storage=str(tmp_path))
    run(settings)
    table = tmp_path / "rnag.csv"
    complete = untimed(table)
    assert [(row["theta"], row["sample"]) for row in complete] == [
        (theta, sample) for sample in "01" for theta in "01"
    ]
    assert len(rows(tmp_path / "rnag-epochs.csv")) == 4
    # As if it had been stopped after the epochs of the last evaluation, before its row.
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-1]))
    (row,) = run(settings).rows("generators")
    assert untimed(table) == complete
    assert table.read_text().startswith("".join(lines[:-1]))
    assert len(rows(tmp_path / "rnag-epochs.csv")) == 4
    assert (row["generator"], row["evaluations"]) == ("RNAG", 4)


def test_tables_read_back_as_points_of_the_cube(small, tmp_path):
    run(Settings(cases=("rnag",), thetas=2, samples=1, storage=str(tmp_path)))
    found = read_evaluations("rnag", tmp_path)
    space = CASES["rnag"].space
    drawn = space.sample(CASES["rnag"].num_thetas, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.X, drawn[:2], rtol=0, atol=1e-5)
    assert found.theta.tolist() == [0, 1]
    table = rows(tmp_path / "rnag.csv")
    assert found.error.tolist() == [float(row["error"]) for row in table]
    assert found.memory.tolist() == [float(row["memory"]) for row in table]


def test_tables_of_other_trainings_are_not_mixed(small, tmp_path, monkeypatch):
    settings = Settings(cases=("rnag",), thetas=1, samples=1, storage=str(tmp_path))
    run(settings)
    monkeypatch.setattr(nago_data, "PARAMETER_LIMIT", 5_000)
    with pytest.raises(Unavailable, match=r"rnag\.json describes other trainings"):
        run(settings)


def test_spread_is_split_into_between_and_within(tmp_path):
    errors = {0: [10.0, 14.0], 1: [20.0, 26.0]}
    lines = ["theta,sample,error,memory,operations,cpu_seconds"]
    lines += [
        f"{theta},{sample},{error},1000,9,2.0"
        for theta, group in errors.items()
        for sample, error in enumerate(group)
    ]
    (tmp_path / "hnag.csv").write_text("\n".join(lines) + "\n")
    (row,) = run(Settings(thetas=0, storage=str(tmp_path))).rows("generators")
    between = statistics.stdev([12.0, 23.0])
    within = statistics.fmean([8.0, 18.0]) ** 0.5
    assert (row["between"], row["within"]) == pytest.approx((between, within))
