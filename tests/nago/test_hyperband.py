import json
import math

import numpy as np
import pytest
import torch

from hotnas_torch.nago import Hyperband, Job, UnitBox
from hotnas_torch.search.brackets import brackets_of


def make(seed: int = 0, **settings: object) -> Hyperband:
    options = {"min_budget": 1, "max_budget": 9, "eta": 3} | settings
    return Hyperband(UnitBox(2), generator=torch.Generator().manual_seed(seed), **options)


def value(job: Job) -> float:
    return sum(job.row) + 1.0 / job.budget


def run(search: Hyperband, num: int) -> list[Job]:
    jobs = []
    for _ in range(num):
        jobs.append(search.ask())
        search.tell(jobs[-1], value(jobs[-1]))
    return jobs


# --- brackets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budgets", "eta", "sizes"),
    [
        # What HpBandSter starts with the settings of NAGO, and with those of its own paper.
        ((30, 120), 2, [(4, 2, 1), (2, 1), (3,)]),
        ((100, 400), 2, [(4, 2, 1), (2, 1), (3,)]),
        ((1, 81), 3, [(81, 27, 9, 3, 1), (27, 9, 3, 1), (9, 3, 1), (6, 2), (5,)]),
        ((1, 243), 3, [(243, 81, 27, 9, 3, 1), (81, 27, 9, 3, 1), (27, 9, 3, 1), (18, 6, 2),
                       (9, 3), (6,)]),
        ((5, 5), 3, [(1,)]),
    ],
)  # fmt: skip
def test_bracket_sizes_are_the_published_ones(
    budgets: tuple[float, float], eta: float, sizes: list[tuple[int, ...]]
) -> None:
    assert [bracket.sizes for bracket in brackets_of(*budgets, eta)] == sizes


@pytest.mark.parametrize("ratio", [2.0, 7.3, 30.0, 200.0])
@pytest.mark.parametrize("eta", [2.0, 2.5, 3.0, 4.0])
def test_budgets_are_a_geometric_series_that_ends_at_the_largest(ratio: float, eta: float) -> None:
    brackets = brackets_of(100.0 / ratio, 100.0, eta)
    levels = len(brackets[0].budgets)
    expected = 100.0 * np.power(eta, -np.linspace(levels - 1, 0, levels))
    assert expected[0] >= 100.0 / ratio * (1 - 1e-9) > expected[0] / eta
    for last, bracket in zip(reversed(range(levels)), brackets, strict=True):
        np.testing.assert_allclose(bracket.budgets, expected[-last - 1 :])
        # HpBandSter's formula.
        start = np.ceil(np.floor(levels / (last + 1)) * eta**last)
        assert list(bracket.sizes) == [max(int(start * eta**-i), 1) for i in range(last + 1)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"min_budget": 0}, "min_budget must be positive"),
        ({"min_budget": 10}, "at least min_budget, 10; got 9"),
        ({"eta": 1}, "eta must be finite and greater than 1"),
        ({"num_brackets": 0}, "num_brackets must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(given: dict[str, float], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make(**given)


def test_what_is_no_box_or_no_generator_is_refused() -> None:
    with pytest.raises(TypeError, match="space must be a Box, with dim, sample"):
        Hyperband(3, min_budget=1, max_budget=2, generator=torch.Generator())
    with pytest.raises(ValueError, match="generator must be given"):
        Hyperband(UnitBox(1), min_budget=1, max_budget=2, generator=None)


# --- promotions -----------------------------------------------------------------------------------


def test_the_best_of_a_rung_get_the_next_budget() -> None:
    search = make()
    first = run(search, 9)
    assert {job.budget for job in first} == {1.0}
    second = run(search, 3)
    ranked = sorted(first, key=value)
    assert [job.parent for job in second] == [job.number for job in ranked[:3]]
    assert [job.row for job in second] == [job.row for job in ranked[:3]]
    (last,) = run(search, 1)
    assert (last.budget, last.row) == (9.0, min(second, key=value).row)
    assert run(search, 1)[0].bracket == 1


def test_brackets_repeat_with_their_sizes_and_budgets() -> None:
    search = make(num_brackets=4)
    while (job := search.ask()) is not None:
        search.tell(job, value(job))
    counts = {}
    for result in search.results:
        place = (result.job.bracket, result.job.budget)
        counts[place] = counts.get(place, 0) + 1
    assert counts == {
        (0, 1.0): 9, (0, 3.0): 3, (0, 9.0): 1, (1, 3.0): 3, (1, 9.0): 1, (2, 9.0): 3,
        (3, 1.0): 9, (3, 3.0): 3, (3, 9.0): 1,
    }  # fmt: skip
    assert search.spent == 27 + 18 + 27 + 27


def test_workers_that_wait_for_a_rung_begin_the_next_bracket() -> None:
    search = make()
    jobs = [search.ask() for _ in range(13)]
    assert [job.bracket for job in jobs] == [0] * 9 + [1] * 3 + [2]
    assert search.pending == tuple(jobs)
    for job in jobs[:9]:
        search.tell(job, value(job))
    assert search.ask().parent == min(jobs[:9], key=value).number


def test_asynchronously_a_point_is_promoted_before_its_rung_is_complete() -> None:
    search = make(asynchronous=True)
    jobs = [search.ask() for _ in range(9)]
    for place, worth in enumerate([5.0, 4.0]):
        search.tell(jobs[place], worth)
    assert search.ask().parent is None
    search.tell(jobs[2], 6.0)
    assert search.ask().parent == 1
    # A late better one is promoted, too, and the rung above never grows beyond its size.
    for place in range(3, 9):
        search.tell(jobs[place], 3.0 - 0.1 * place)
    parents = [search.ask().parent for _ in range(3)]
    assert parents == [8, 7, None]


def test_a_bracket_has_the_same_sizes_asynchronously() -> None:
    search = make(asynchronous=True, num_brackets=3)
    order = torch.Generator().manual_seed(1)
    while True:
        while len(search.pending) < 4 and search.ask() is not None:
            pass
        if not search.pending:
            break
        pick = int(torch.randint(len(search.pending), (), generator=order))
        search.tell(search.pending[pick], float(torch.rand((), generator=order)))
    rungs = [(result.job.bracket, result.job.rung) for result in search.results]
    assert [rungs.count(place) for place in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)]] == [
        9, 3, 1, 3, 1, 3,
    ]  # fmt: skip


@pytest.mark.parametrize("asynchronous", [False, True])
def test_failures_are_not_promoted_and_do_not_hold_up_the_bracket(asynchronous: bool) -> None:
    search = make(asynchronous=asynchronous, num_brackets=1)
    seen = []
    while (job := search.ask()) is not None:
        seen.append(job)
        # Two points work, and one of them fails with more budget.
        works = job.number in (1, 4) or job.parent == 4
        search.tell(job, float(job.number) if works else math.nan)
    promoted = [job.parent for job in seen if job.rung == 1]
    assert sorted(promoted) == [1, 4]
    (last,) = [job for job in seen if job.rung == 2]
    assert seen[last.parent].parent == 4
    assert search.best.job.budget == 3.0


def test_equal_budgets_are_random_search() -> None:
    search = make(min_budget=9)
    jobs = run(search, 5)
    assert [(job.bracket, job.budget, job.parent) for job in jobs] == [
        (number, 9.0, None) for number in range(5)
    ]


def test_the_best_has_the_largest_budget() -> None:
    search = make()
    assert search.best is None
    jobs = [search.ask() for _ in range(10)]
    search.tell(jobs[0], -5.0)
    search.tell(jobs[9], 7.0)
    assert jobs[9].budget == 3.0
    assert search.best.value == 7.0


# --- telling --------------------------------------------------------------------------------------


def test_wrong_answers_are_refused() -> None:
    search = make()
    job = search.ask()
    with pytest.raises(ValueError, match="must be one that ask"):
        search.tell(5, 1.0)
    with pytest.raises(ValueError, match="must be one that ask"):
        search.tell(Job(0, (0.0, 0.0), 1.0, 0, 0, None), 1.0)
    with pytest.raises(ValueError, match="finite"):
        search.tell(job, math.inf)
    search.tell(0, 1.0)
    with pytest.raises(ValueError, match="observed already"):
        search.tell(job, 1.0)


# --- state ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [0, 7, 14])
def test_a_resumed_search_asks_what_the_uninterrupted_one_does(done: int) -> None:
    whole = make()
    run(whole, done)
    whole.ask()
    resumed = make(seed=99)
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert resumed.pending == whole.pending
    for job in whole.pending:
        whole.tell(job, math.nan)
        resumed.tell(job, math.nan)
    assert run(resumed, 20) == run(whole, 20)
    assert json.dumps(resumed.state_dict()) == json.dumps(whole.state_dict())


def test_another_searchs_state_is_refused_and_changes_nothing() -> None:
    search = make()
    run(search, 3)
    before = search.state_dict()
    for state, expected in (
        (make(eta=2).state_dict(), "'eta'"),
        (before | {"version": 99}, "newer"),
        (before | {"jobs": 3}, "damaged"),
        (before | {"space": {"name": "UnitBox", "dim": 3, "levels": [0, 0, 0]}}, "'dim'"),
        (before | {"generator": {"device": "cpu", "state": "?"}}, "damaged"),
    ):
        with pytest.raises(ValueError, match=expected):
            search.load_state_dict(state)
        assert search.state_dict() == before
    with pytest.raises(TypeError, match="mapping"):
        search.load_state_dict([])
