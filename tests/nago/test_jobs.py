import json
import math
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import pytest
import torch

from hotnas_torch.errors import StorageError
from hotnas_torch.nago import BOHB, Hyperband, Job, UnitBox, run_jobs
from hotnas_torch.search.running.trial import Outcome


def make(seed: int = 0, **settings: object) -> BOHB:
    options = {"min_budget": 1, "max_budget": 9} | settings
    return BOHB(UnitBox(2), generator=torch.Generator().manual_seed(seed), **options)


def total(job: Job) -> float:
    """At the top level, so that worker processes find it."""
    return sum(job.row) + 1.0 / job.budget


def test_it_ends_when_the_budget_is_spent() -> None:
    search = run_jobs(make(), total, budget=60, progress=False)
    assert search.spent >= 60 > search.spent - search.results[-1].job.budget
    assert not search.pending


def test_an_interrupted_search_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    file = tmp_path / "search.json"
    count = 0

    def breaking(job: Job) -> float:
        nonlocal count
        count += 1
        if count in (4, 20):
            raise KeyboardInterrupt
        return total(job)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_jobs(make(seed=0), breaking, budget=100, checkpoint=file, progress=False)
    resumed = run_jobs(make(seed=0), breaking, budget=100, checkpoint=file, progress=False)
    whole = run_jobs(make(), total, budget=100, progress=False)
    assert resumed.results == whole.results
    # Everything is there already, and a larger budget goes on.
    before = count
    run_jobs(make(), breaking, budget=100, checkpoint=file, progress=False)
    assert count == before
    longer = run_jobs(make(), breaking, budget=150, checkpoint=file, progress=False)
    assert longer.results[: len(whole.results)] == whole.results
    assert len(longer.results) > len(whole.results)


def test_failures_are_told_and_mistakes_raised() -> None:
    def failing(job: Job) -> float:
        if job.number == 2:
            raise RuntimeError("out of memory")
        return total(job)

    search = run_jobs(make(), failing, budget=30, progress=False)
    assert [math.isnan(result.value) for result in search.results[:4]] == [
        False,
        False,
        True,
        False,
    ]

    def mistaken(job: Job) -> float:
        raise KeyError("typo")

    with pytest.raises(KeyError):
        run_jobs(make(), mistaken, budget=30, progress=False)


class Backwards:
    """Has as many jobs at a time as workers, and finishes the latest first."""

    def evaluator(self, objective, workers, _catch):
        self.objective, self.workers = objective, workers
        return nullcontext(self.evaluate)

    def evaluate(self, jobs):
        source, busy = enumerate(jobs), []
        while True:
            busy += islice(source, self.workers - len(busy))
            if not busy:
                return
            place, job = busy.pop()
            yield place, Outcome(self.objective(job))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_results_that_arrive_in_another_order_keep_the_brackets(asynchronous: bool) -> None:
    search = run_jobs(
        make(asynchronous=asynchronous, num_brackets=3),
        total,
        budget=1e9,
        workers=3,
        executor=Backwards(),
        progress=False,
    )
    rungs = [(result.job.bracket, result.job.rung) for result in search.results]
    assert rungs != sorted(rungs)
    assert sorted(rungs) == [
        *([(0, 0)] * 9 + [(0, 1)] * 3 + [(0, 2)]),
        *([(1, 0)] * 3 + [(1, 1)]),
        *([(2, 0)] * 3),
    ]


@pytest.mark.slow
def test_worker_processes_keep_the_brackets() -> None:
    search = run_jobs(
        make(asynchronous=True, num_brackets=2), total, budget=1e9, workers=2, progress=False
    )
    rungs = [(result.job.bracket, result.job.rung) for result in search.results]
    assert sorted(rungs) == [(0, 0)] * 9 + [(0, 1)] * 3 + [(0, 2)] + [(1, 0)] * 3 + [(1, 1)]
    assert all(result.value == total(result.job) for result in search.results)


def test_what_cannot_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "search.json"
    with pytest.raises(TypeError, match="strategy must be a Hyperband"):
        run_jobs(3, total, budget=1)
    with pytest.raises(TypeError, match="objective must be callable"):
        run_jobs(make(), 3, budget=1)
    with pytest.raises(ValueError, match="budget must be positive"):
        run_jobs(make(), total, budget=0)
    with pytest.raises(ValueError, match="workers must be at least 1"):
        run_jobs(make(), total, budget=1, workers=0)
    plain = Hyperband(UnitBox(2), min_budget=1, max_budget=9, generator=torch.Generator())
    run_jobs(plain, total, budget=3, checkpoint=file, progress=False)
    with pytest.raises(StorageError, match="'strategy'"):
        run_jobs(make(), total, budget=3, checkpoint=file, progress=False)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(StorageError, match=r"search\.json"):
        run_jobs(make(), total, budget=3, checkpoint=file, progress=False)


def test_a_checkpoint_belongs_to_its_objective_and_to_one_writer(tmp_path: Path) -> None:
    file = tmp_path / "search.json"
    run_jobs(make(), total, budget=10, checkpoint=file, progress=False)
    with pytest.raises(StorageError, match="another objective"):
        run_jobs(make(), lambda job: -job.row[0], budget=20, checkpoint=file, progress=False)

    def second(_: Job) -> float:
        with pytest.raises(StorageError, match="another search is writing"):
            run_jobs(make(), total, budget=20, checkpoint=file, progress=False)
        return 1.0

    arguments = {"checkpoint": file, "progress": False, "accept_objective": True}
    assert run_jobs(make(), second, budget=20, **arguments).spent >= 20

    def overtaken(_: Job) -> float:
        arguments["take_over"] = True
        run_jobs(make(), total, budget=60, **arguments)
        return 1.0

    with pytest.raises(StorageError, match="has taken this search over"):
        run_jobs(make(), overtaken, budget=60, **arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["search.json"]


def test_a_damaged_checkpoint_is_refused_and_an_earlier_one_is_read(tmp_path: Path) -> None:
    file = tmp_path / "search.json"
    search = run_jobs(make(), total, budget=10, checkpoint=file, progress=False)
    text = file.read_text(encoding="utf-8")
    value = repr(search.results[0].value)
    assert value in text
    file.write_text(text.replace(value, value[:-1] + str((int(value[-1]) + 1) % 10), 1))
    with pytest.raises(StorageError, match="checksum"):
        run_jobs(make(), total, budget=20, checkpoint=file, progress=False)
    file.write_text(json.dumps(search.state_dict()), encoding="utf-8")
    resumed = run_jobs(make(), total, budget=10, checkpoint=file, progress=False)
    assert resumed.results == search.results
