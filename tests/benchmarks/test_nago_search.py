import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import nago_search
from benchmarks.nago_search import QUICK, Settings, Trainings, run, search_budgets, search_front
from hotnas_torch.nago import BNNSurrogate, Sampling, UncertainPareto


class Fake:
    """In place of trainings: quick, and the longer the better."""

    def __init__(self, *_: object, **__: object) -> None:
        self.count = 0

    def __call__(self, theta: object, *, epochs: int) -> SimpleNamespace:
        self.count += 1
        nodes = theta.top.num_nodes * theta.bottom.num_nodes
        value = 100.0 * theta.top.rewiring / epochs
        return SimpleNamespace(
            failed=nodes == 18, value=value, metrics={"memory": 1000.0 * nodes}, cost=1.0
        )

    def describe(self) -> dict[str, str]:
        return {"kind": "fake"}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nago_search, "GeneratorTraining", Fake)
    few = BNNSurrogate(sampling=Sampling(2, 2, num_burn_in=20, thinning=2, num_descent=10))
    quick = UncertainPareto(population=10, generations=2)
    methods = {
        "random": nago_search.MULTI["random"],
        "pareto_bnn": ("pareto", lambda: (quick, few)),
    }
    monkeypatch.setattr(nago_search, "MULTI", methods)


def test_trainings_are_made_once(fake: None, tmp_path: Path) -> None:
    trainings = Trainings("hnag", QUICK, tmp_path)
    row = trainings.space.sample(1, generator=torch.Generator().manual_seed(0))[0].tolist()
    assert trainings(row, 2) == trainings(row, 2)
    assert trainings(row, 4)[0] == trainings(row, 2)[0] / 2
    again = Trainings("hnag", QUICK, tmp_path)
    again(row, 4)
    assert (trainings._objective.count, again._objective.count) == (2, 0)


def test_budgets_are_spent_and_errors_are_those_of_full_trainings(
    fake: None, tmp_path: Path
) -> None:
    settings = Settings(epochs=8, rounds=2)
    trainings = Trainings("hnag", settings, tmp_path)
    runs = {name: search_budgets(name, trainings, settings, 0) for name in nago_search.SINGLE}
    # One round: 4 * 2 + 2 * 4 + 8, 2 * 4 + 8, and 3 * 8 epochs.
    total = 2 * (24 + 16 + 24)
    for found in runs.values():
        assert found["cost"] == sorted(found["cost"])
        assert found["error"] == sorted(found["error"], reverse=True)
        # Trainings that fail cost as much, and have no error.
        assert total - 32 < found["cost"][-1] <= total
    assert len(runs["random"]["cost"]) <= 16
    assert runs["hyperband"]["cost"][0] == 24.0


def test_fronts_take_the_evaluations_that_they_are_given(fake: None, tmp_path: Path) -> None:
    settings = Settings(evaluations=9, initial=4, batch=2)
    trainings = Trainings("hnag", settings, tmp_path)
    found = search_front("pareto_bnn", trainings, settings, 0)["values"]
    assert len(found) == 9
    same = search_front("random", trainings, settings, 0)["values"]
    assert json.dumps(found[:4]) == json.dumps(same[:4])


def test_an_interrupted_comparison_goes_on_and_reports_what_is_there(
    fake: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(QUICK, cases=("hnag",), seeds=1, storage=str(tmp_path))
    first = run(settings)
    before = (tmp_path / "searches.jsonl").read_text()
    assert len(before.split("\n{")) == 5

    def forbidden(*_: object) -> None:
        raise AssertionError("this search was finished")

    with monkeypatch.context() as patch:
        patch.setattr(nago_search, "search_budgets", forbidden)
        patch.setattr(nago_search, "search_front", forbidden)
        assert run(settings).tables == first.tables
        # As many seeds as are finished, of those that are asked for.
        finished = run(replace(settings, seeds=2, finished=True))
    text = finished.markdown()
    assert text.count(" of 1)") == 3
    assert "| BOHB " in text
    assert list(finished.figures) == ["progress", "fronts"]
    assert run(replace(settings, seeds=2)).markdown().count(" of 2)") == 3
    assert (tmp_path / "searches.jsonl").read_text().startswith(before)


def test_volumes_are_shares_of_what_was_met() -> None:
    low, high = torch.tensor([0.0, 10.0]), torch.tensor([100.0, 20.0])
    values = torch.tensor([[50.0, 15.0]])
    assert nago_search._share(values, low, high) == pytest.approx(0.25)
    assert nago_search._share(torch.tensor([[0.0, 10.0]]), low, high) == pytest.approx(1.0)
    failed = {"values": [[1.0, 2.0], [math.nan, math.nan]]}
    assert nago_search._values(failed).tolist() == [[1.0, 2.0]]
