import math
import re
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.errors import StorageError
from hotnas_torch.objectives import Evaluation, Function
from hotnas_torch.search import HOTNAS, Goal, RandomSearch, Storage, run
from hotnas_torch.search.running.checks import CATCH
from hotnas_torch.search.running.workers import InProcess
from tests.search import programs

ROOT = Path(__file__).parents[2]


def search(name="evolution", *, objective=programs.value, seed=0, **arguments):
    defaults = {"budget": programs.BUDGET, "batch_size": programs.BATCH, "progress": False}
    return run(programs.strategy(name, seed), objective, **(defaults | arguments))


def record(result):
    return [
        (trial.number, trial.network.spec, repr(trial.value), trial.outcome.error)
        for trial in result.trials
    ]


# --- budget and result ----------------------------------------------------------------------------


def test_the_budget_counts_evaluations():
    result = search()
    assert [trial.number for trial in result.trials] == list(range(programs.BUDGET))
    assert result.reason == "evaluations"
    assert all(repr(trial.value) == repr(programs.value(trial.network)) for trial in result.trials)
    values = [trial.value for trial in result.trials if not trial.failed]
    assert 0 < len(values) < programs.BUDGET
    assert result.best.value == min(values)
    elapsed = [trial.elapsed for trial in result.trials]
    assert elapsed == sorted(elapsed)


def test_the_best_so_far_passes_over_failures():
    values = torch.tensor([math.nan, 3.0, math.nan, 1.0, 2.0], dtype=torch.float64)[:, None]
    best = Goal().best_so_far(values)
    assert best.tolist()[1:] == [3.0, 3.0, 1.0, 1.0]
    assert best[0].isnan()
    result = search()
    assert result.best_so_far[-1] == result.best.value


def test_a_time_budget_ends_between_batches():
    def objective(net):
        time.sleep(0.02)
        return 0.0

    result = search(objective=objective, budget=timedelta(seconds=0.25))
    assert result.reason == "time"
    assert len(result.trials) % programs.BATCH == 0
    assert 3 <= len(result.trials) <= 15
    assert result.trials[-1].elapsed >= 0.25
    assert result.trials[-1 - programs.BATCH].elapsed < 0.25


def test_an_exhausted_space_ends_the_search():
    strategy = RandomSearch(spaces.Pooling(), generator=torch.Generator().manual_seed(0))
    result = run(strategy, lambda _: 1.0, budget=50, batch_size=8, progress=False)
    assert (len(result.trials), result.reason) == (36, "exhausted")


def test_the_outcome_of_an_evaluation_is_kept():
    def objective(net):
        return Evaluation(1.5, {"accuracy": 0.75}, cost=12.0)

    outcome = search(objective=objective, budget=1).trials[0].outcome
    assert (outcome.value, dict(outcome.metrics), outcome.cost) == (1.5, {"accuracy": 0.75}, 12.0)


def test_a_number_of_any_kind_is_a_value_and_its_time_the_cost():
    def objective(net):
        time.sleep(0.01)
        return torch.tensor(2.5)

    outcome = search(objective=objective, budget=1).trials[0].outcome
    assert outcome.value == 2.5
    assert 0.01 <= outcome.cost < 1.0


@pytest.mark.parametrize(
    ("objective", "error"),
    [
        (lambda _: math.nan, "NaN"),
        (lambda _: math.inf, "inf"),
        (lambda _: Evaluation.failure("out of patience"), "out of patience"),
        (lambda _: torch.zeros(2) @ torch.zeros(3), "RuntimeError: .*"),
        (lambda _: 1 / 0, "ZeroDivisionError: .*"),
    ],
)
def test_a_failed_evaluation_is_recorded_with_its_reason(objective, error):
    result = search(objective=objective, budget=4)
    assert result.best is None
    for trial in result.trials:
        assert trial.failed
        assert re.search(error, trial.outcome.error)


def test_a_mistake_in_the_objective_is_raised_and_nothing_is_lost(tmp_path):
    def objective(net):
        if len(calls) == 7:
            raise KeyError("misspelt")
        calls.append(net)
        return programs.value(net)

    calls = []
    storage = tmp_path / "search.sqlite"
    with pytest.raises(KeyError, match="misspelt"):
        search(objective=objective, storage=storage)
    with Storage(storage, read_only=True) as store:
        assert len(store.trials(spaces.NASBenchMacro())) == 7
    assert record(search(storage=storage, accept_objective=True)) == record(search())


def test_an_objective_that_returns_no_value_is_refused():
    with pytest.raises(TypeError, match="must return a number or an Evaluation; got 'good'"):
        search(objective=lambda _: "good")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"budget": 0}, ValueError, "budget must be at least 1"),
        ({"budget": 2.5}, TypeError, "budget must be an int .* got 2.5"),
        ({"budget": timedelta(0)}, ValueError, "budget must be a positive time"),
        ({"workers": 0}, ValueError, "workers must be at least 1"),
        ({"batch_size": 1.0}, TypeError, "batch_size must be an int"),
        ({"objective": 3}, TypeError, "objective must be callable"),
    ],
)
def test_arguments_are_checked(arguments, kind, message):
    with pytest.raises(kind, match=message):
        search(**arguments)


def test_progress_shows_the_best_so_far(capsys):
    run(programs.strategy("random"), programs.value, budget=12)
    shown = capsys.readouterr().err
    result = search("random", budget=12, batch_size=1)
    assert f"best {result.best.value:.6g}" in shown
    assert "12/12" in shown
    assert f"{sum(trial.failed for trial in result.trials)} failed" in shown


def test_progress_may_be_a_function():
    seen = []
    result = run(programs.strategy("random"), programs.value, budget=5, progress=seen.append)
    assert [trial.number for trial in seen] == [trial.number for trial in result.trials]


@pytest.mark.parametrize("objective", [Function(programs.infinite), lambda _: Evaluation(math.inf)])
def test_an_infinite_value_is_a_failed_evaluation_whoever_says_so(objective):
    for catch in (CATCH, ()):
        trials = search(objective=objective, budget=2, catch=catch).trials
        assert [trial.failed for trial in trials] == [True, True]
        assert "got inf" in trials[0].outcome.error


def test_an_error_that_ends_the_search_says_how_to_go_on():
    def objective(net):
        raise KeyError("misspelt")

    with pytest.raises(KeyError, match="misspelt") as caught:
        search(objective=objective)
    (note,) = caught.value.__notes__
    assert "catch=(..., KeyError)" in note
    assert "begins with the same evaluation" in note


@pytest.mark.parametrize(
    "value",
    [
        4,
        np.float32(4.0),
        np.int64(4),
        np.array(4.0),
        np.array([4.0]),
        np.array([[4]]),
        torch.tensor(4.0),
        torch.tensor([4], dtype=torch.float16),
        torch.tensor(4.0, requires_grad=True),
        Fraction(4),
        Decimal(4),
    ],
    ids=repr,
)
def test_numbers_of_all_kinds_are_values(value):
    assert search(objective=lambda _: value, budget=1).trials[0].value == 4.0
    assert search(objective=lambda _: Evaluation(value), budget=1).trials[0].value == 4.0
    assert search(objective=Function(lambda _: value), budget=1).trials[0].value == 4.0
    strategy = programs.strategy("random")
    strategy.tell(strategy.ask(), [value])
    assert strategy.best.value == 4.0


@pytest.mark.parametrize(
    "value",
    [
        "0.3",
        b"1",
        True,
        np.bool_(True),
        torch.tensor(True),
        None,
        [4.0],
        np.array([1.0, 2.0]),
        4j,
        torch.zeros(2),
        torch.zeros(0),
        np.array(["1"]),
    ],
    ids=repr,
)
def test_what_is_no_number_is_no_value(value):
    with pytest.raises(TypeError, match="the objective must return a number or an Evaluation; got"):
        search(objective=lambda _: value, budget=1)
    with pytest.raises(TypeError, match="value must be"):
        Evaluation(value)
    strategy = programs.strategy("random")
    nets = strategy.ask(2)
    with pytest.raises(TypeError, match=r"values\[1\] must be"):
        strategy.tell(nets, [1.0, value])
    assert strategy.observations == ()


def test_a_value_that_no_float_can_hold_is_infinite():
    assert search(objective=lambda _: 10**400, budget=1).trials[0].failed


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_search_within_another_mode_of_torch_is_the_same(mode):
    def objective(net):
        modes.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
        return programs.value(net)

    def start():
        return record(search("hotnas", objective=objective, budget=8, batch_size=2))

    modes = []
    expected = start()
    with mode():
        assert start() == expected
    assert set(modes) == {(False, True)}


@pytest.mark.parametrize("name", ["hotnas", "evolution"])
def test_a_strategy_made_in_inference_mode_is_the_same(name):
    with torch.inference_mode():
        made = programs.strategy(name)
    found = run(made, programs.value, budget=8, batch_size=2, progress=False)
    assert record(found) == record(search(name, budget=8, batch_size=2))


def test_a_search_interrupted_while_asking_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    storage = tmp_path / "search.sqlite"
    expected = record(search("hotnas", budget=12, batch_size=2))
    choose = HOTNAS._fit_explained
    calls = []

    def interrupted(strategy, *arguments):
        calls.append(None)
        model = choose(strategy, *arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return model

    monkeypatch.setattr(HOTNAS, "_fit_explained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search("hotnas", budget=12, batch_size=2, storage=storage)
    assert record(search("hotnas", budget=12, batch_size=2, storage=storage)) == expected


def test_counts_of_numpy_are_counts():
    result = search(budget=np.int64(4), workers=np.int32(1), batch_size=np.int64(2))
    assert len(result.trials) == 4


def test_what_hangs_does_not_hold_up_the_search():
    def objective(net):
        if net.spec.startswith("0"):
            time.sleep(600)
        return programs.value(net)

    result = search(objective=objective, budget=9, timeout=0.3)
    assert len(result.trials) == 9
    hung = [trial for trial in result.trials if trial.network.spec.startswith("0")]
    assert hung
    for trial in hung:
        assert trial.failed
        assert "timeout 0.3 s" in trial.outcome.error


@pytest.mark.parametrize("schedule", [{}, {"asynchronous": True, "batch_size": None}])
def test_a_time_budget_ends_what_hangs(tmp_path, schedule):
    storage = tmp_path / "search.sqlite"
    started = time.monotonic()
    result = search(
        objective=lambda _: time.sleep(600),
        budget=timedelta(seconds=0.5),
        storage=storage,
        **schedule,
    )
    assert result.reason == "time"
    assert time.monotonic() - started < 300.0  # on a busy machine, too
    (trial,) = result.trials
    assert "the time of the search was over" in trial.outcome.error
    # The rest of its batch had not begun, and is evaluated when there is time again.
    resumed = search(
        objective=lambda _: 1.0, budget=3, storage=storage, accept_objective=True, **schedule
    )
    assert [trial.failed for trial in resumed.trials] == [True, False, False]


@pytest.mark.slow
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_time_budget_ends_workers_that_hang(tmp_path, monkeypatch, asynchronous):
    monkeypatch.setenv("HANGING", str(tmp_path))
    result = search(
        objective=programs.hangs,
        budget=timedelta(seconds=8),
        workers=2,
        batch_size=None,
        asynchronous=asynchronous,
    )
    assert result.reason == "time"
    assert [trial.failed for trial in result.trials] == [True, True]
    assert "the time of the search was over" in result.trials[0].outcome.error


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"timeout": 0}, ValueError, "timeout must be positive"),
        ({"timeout": math.nan}, ValueError, "timeout must be positive and finite; got nan"),
        ({"timeout": "1"}, TypeError, "timeout must be a number; got '1'"),
        ({"timeout": True}, TypeError, "timeout must be a number; got True"),
        ({"workers": 2.0}, TypeError, "workers must be an integer.*; got 2.0"),
        ({"budget": True}, TypeError, "budget must be an int .* got True"),
        ({"budget": "4"}, TypeError, "budget must be an int .* got '4'"),
    ],
)
def test_settings_of_a_run_are_checked(arguments, kind, message):
    with pytest.raises(kind, match=message):
        search(**arguments)


def test_a_time_limit_that_could_not_be_kept_is_refused():
    with pytest.raises(ValueError, match="timeout is for evaluations on this machine"):
        search(timeout=1.0, executor=Overtaking(1), workers=1)
    errors = []

    def elsewhere():
        with pytest.raises(ValueError, match=r"needs worker processes here \(pass workers=2\)"):
            search(timeout=1.0)
        errors.append("as expected")

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert errors == ["as expected"]


# --- storage and resuming -------------------------------------------------------------------------


def test_a_finished_search_is_read_back_and_can_be_extended(tmp_path):
    storage = tmp_path / "search.sqlite"
    first = search(budget=9, storage=storage)

    def refuse(net):
        raise AssertionError(net)

    again = search(budget=9, storage=storage, objective=refuse, accept_objective=True)
    assert record(again) == record(first)
    assert [trial.elapsed for trial in again.trials] == [trial.elapsed for trial in first.trials]
    extended = search(storage=storage, batch_size=None, accept_objective=True)
    assert record(extended) == record(search())
    assert extended.trials[9].elapsed > first.trials[-1].elapsed


# In the middle of a batch, all.
@pytest.mark.parametrize(
    ("name", "ends"),
    [("evolution", [11]), pytest.param("hotnas", [4, 11], marks=pytest.mark.slow)],
)
def test_a_search_that_is_killed_resumes_as_if_it_had_not_been(tmp_path, name, ends):
    storage = tmp_path / "search.sqlite"
    finished = 0
    for wanted in ends:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.search.programs", name, str(storage), "0.05"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        try:
            deadline = time.monotonic() + 60
            while (finished := num_finished(storage)) < wanted:
                assert child.poll() is None, child.stderr.read().decode()
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            child.kill()  # signal 9
            child.wait()
            child.stderr.close()
        assert child.returncode == -9
        assert wanted <= finished < programs.BUDGET
    found = search(name, storage=storage, accept_objective=True)
    assert record(found) == record(search(name))


def num_finished(storage):
    if not storage.exists():
        return 0
    try:
        with Storage(storage, read_only=True) as store:
            return len(store.trials(spaces.NASBenchMacro()))
    except StorageError:  # killed or looked at before the tables were written
        return 0


def test_what_was_finished_is_not_evaluated_again(tmp_path):
    storage = tmp_path / "search.sqlite"
    evaluated, interrupted = [], []

    def objective(net):
        if len(evaluated) == 10 and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        evaluated.append(net.spec)
        return programs.value(net)

    with pytest.raises(KeyboardInterrupt):
        search(objective=objective, storage=storage)
    result = search(objective=objective, storage=storage)
    assert evaluated == [trial.network.spec for trial in result.trials]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "another strategy: its 'seed' is 0, here it is 1"),
        (
            {"name": "random"},
            "another strategy: its 'strategy' is 'evolution', here it is 'random'",
        ),
        ({"batch_size": 4}, "another run: its 'batch_size' is 3, here it is 4"),
        ({"objective": math.fsum}, "another objective: its 'name' is 'value'"),
    ],
)
def test_a_storage_of_another_search_is_refused(tmp_path, changes, message):
    storage = tmp_path / "search.sqlite"
    search(budget=4, storage=storage)
    before = storage.read_bytes()
    with pytest.raises(StorageError, match=message):
        search(storage=storage, **changes)
    assert storage.read_bytes() == before


def test_a_storage_of_another_space_is_refused(tmp_path):
    storage = tmp_path / "search.sqlite"
    space = spaces.NASBenchMacro()
    nets = space.sample(20, generator=torch.Generator().manual_seed(0), distinct=True)

    def start(searched, budget):
        strategy = RandomSearch(searched, generator=torch.Generator().manual_seed(0))
        return run(strategy, programs.value, budget=budget, storage=storage, progress=False)

    start(spaces.Subset(space, nets), 3)
    for other in (space, spaces.Pooling(), spaces.Subset(space, nets[1:])):
        with pytest.raises(StorageError, match="another space"):
            start(other, 6)
    assert len(start(spaces.Subset(space, nets), 6).trials) == 6


def test_a_strategy_that_knows_more_than_the_storage_is_refused(tmp_path):
    storage = tmp_path / "search.sqlite"
    search(budget=6, storage=storage)
    strategy = programs.strategy("evolution")
    run(strategy, programs.value, budget=9, batch_size=3, progress=False)
    with pytest.raises(StorageError, match="does not know"):
        run(strategy, programs.value, budget=9, storage=storage, batch_size=3, progress=False)


def test_the_state_lies_in_one_file(tmp_path):
    search(storage=tmp_path / "search.sqlite")
    assert [path.name for path in tmp_path.iterdir()] == ["search.sqlite"]
    with sqlite3.connect(tmp_path / "search.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


# --- worker processes -----------------------------------------------------------------------------


def test_workers_change_nothing_but_the_time():
    # A batch holds as many networks as there are workers unless it is said.
    finished = []
    shared = search(
        objective=programs.value_in_its_own_time,
        workers=2,
        batch_size=None,
        progress=finished.append,
    )
    alone = search(batch_size=2)
    assert record(shared) == record(alone)
    numbers = [trial.number for trial in finished]
    assert sorted(numbers) == list(range(programs.BUDGET))


# --- asynchronous ---------------------------------------------------------------------------------


class Overtaking(InProcess):
    """An evaluator of which several networks are on their way, and an executor that gives it.

    Of those, every other time the first and every other time the last one finishes.
    """

    def __init__(self, workers=3):
        self.workers = workers
        self.begun = []

    def evaluator(self, objective, workers, catch):
        assert workers == self.workers
        super().__init__(objective, catch)
        return self

    def __call__(self, networks):
        source = enumerate(networks)
        while True:
            while len(self.begun) < self.workers and (task := next(source, None)):
                self.begun.append(task)
            if not self.begun:
                return
            place, net = self.begun.pop(-(len(self.begun) % 2))
            ((_, outcome),) = super().__call__([net])
            yield place, outcome


def asynchronous(name="evolution", executor=None, **arguments):
    executor = Overtaking() if executor is None else executor
    options = {"workers": executor.workers, "batch_size": None, "asynchronous": True}
    return search(name, executor=executor, **(options | arguments))


def test_with_one_worker_each_value_is_told_before_the_next_question():
    expected = record(search(batch_size=1))
    assert record(search(batch_size=None, asynchronous=True)) == expected
    assert record(asynchronous(executor=Overtaking(1))) == expected


def test_workers_are_kept_busy_and_what_they_do_is_pending():
    strategy = programs.strategy("evolution")
    awaited = []

    def report(trial):
        # The one that has just finished is told after it is reported.
        awaited.append(len(strategy.pending))

    result = run(
        strategy,
        programs.value_in_its_own_time,
        budget=9,
        workers=2,
        asynchronous=True,
        progress=report,
    )
    assert [trial.number for trial in result.trials] == list(range(9))
    assert len({trial.network for trial in result.trials}) == 9
    assert awaited == [2] * 8 + [1]
    assert result.reason == "evaluations"
    assert strategy.pending == ()


@pytest.mark.parametrize("stop", [1, 4, 22])
def test_an_interrupted_asynchronous_search_loses_and_repeats_nothing(tmp_path, stop):
    storage = tmp_path / "search.sqlite"
    reported = []

    def report(trial):
        reported.append(trial)
        if len(reported) == stop:
            raise KeyboardInterrupt

    first = Overtaking()
    with pytest.raises(KeyboardInterrupt):
        asynchronous(executor=first, storage=storage, progress=report)
    second = Overtaking(2)
    second_begun = []
    result = asynchronous(
        executor=second, storage=storage, progress=lambda trial: second_begun.append(trial.number)
    )
    assert {trial.number: trial for trial in reported}.items() <= {
        trial.number: trial for trial in result.trials
    }.items()
    assert len({trial.network for trial in result.trials}) == len(result.trials) == programs.BUDGET
    # What was on its way comes first, and what was finished is not evaluated again.
    assert second_begun[0] in {place for place, _ in first.begun}
    assert len(second_begun) == programs.BUDGET - stop


def test_what_finished_after_the_last_question_is_told_before_the_next_one(tmp_path):
    storage = tmp_path / "search.sqlite"

    def interrupt(trial):
        if trial.number == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asynchronous(executor=Overtaking(1), storage=storage, progress=interrupt)
    with Storage(storage, read_only=True) as store:
        (left,) = store.open_trials(spaces.NASBenchMacro())
        assert (left.number, left.outcome is None) == (7, False)
    result = asynchronous(executor=Overtaking(1), storage=storage)
    assert record(result) == record(search(batch_size=1))


def test_the_two_kinds_of_search_are_not_mixed(tmp_path):
    storage = tmp_path / "search.sqlite"
    search(budget=4, storage=storage)
    with pytest.raises(StorageError, match="another run: its 'asynchronous' is None, here it is"):
        asynchronous(storage=storage)
    with pytest.raises(ValueError, match="batch_size is for searches in batches"):
        asynchronous(batch_size=3)


def test_an_asynchronous_search_ends_with_its_time_and_with_its_space():
    space = spaces.Pooling()
    strategy = RandomSearch(space, generator=torch.Generator().manual_seed(0))
    result = run(strategy, lambda _: 1.0, budget=1000, asynchronous=True, progress=False)
    assert (result.reason, len(result.trials)) == ("exhausted", space.size())

    def slow(net):
        time.sleep(0.02)
        return 1.0

    result = asynchronous(executor=Overtaking(1), objective=slow, budget=timedelta(seconds=0.1))
    assert result.reason == "time"
    assert result.trials[-1].elapsed >= 0.1


def scaled(net, scale):
    return scale * len(set(net.spec))


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        (lambda net: len(set(net.spec)), lambda net: -len(set(net.spec)), "'code'"),
        (partial(scaled, scale=1.0), partial(scaled, scale=2.0), r"'arguments'.*1\.0.*2\.0"),
    ],
)
def test_values_of_two_objectives_are_not_mixed(tmp_path, first, second, difference):
    storage = tmp_path / "search.sqlite"
    search(budget=3, storage=storage, objective=first)
    message = "another objective: its {}.*accept_objective=True"
    with pytest.raises(StorageError, match=message.format(difference)):
        search(budget=6, storage=storage, objective=second)
    result = search(budget=6, storage=storage, objective=second, accept_objective=True)
    assert len(result.trials) == 6
    with pytest.raises(StorageError, match=message.format("")):
        search(budget=9, storage=storage, objective=first)


def test_two_searches_do_not_share_a_storage(tmp_path):
    storage = tmp_path / "search.sqlite"
    messages = []

    def start_another(trial):
        if trial.number == 2:
            with pytest.raises(StorageError, match="another search is writing"):
                search(storage=storage)
            other = search(budget=9, storage=storage, take_over=True)
            messages.append(len(other.trials))

    with pytest.raises(StorageError, match="taken over"):
        search(storage=storage, progress=start_another)
    assert messages == [9]
    assert record(search(storage=storage)) == record(search())


def test_an_error_that_is_no_unicode_does_not_end_the_search(tmp_path):
    def objective(net):
        raise RuntimeError(f"\ud800 {net.spec}")

    result = search(objective=objective, storage=tmp_path / "search.sqlite", budget=4)
    assert all(r"\ud800" in trial.outcome.error for trial in result.trials)


# --- what is passed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("catch", [ValueError]),
        ("catch", (KeyboardInterrupt,)),
        ("catch", ("ValueError",)),
        ("catch", None),
        ("asynchronous", "no"),
        ("take_over", "no"),
        ("accept_objective", 1),
        ("progress", "no"),
        ("executor", "ray"),
        ("storage", 5),
        ("storage", b"search.sqlite"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused_by_name(name, wrong):
    with pytest.raises(TypeError, match=f"^{name} must be"):
        search(**{name: wrong})


def test_one_kind_of_exception_can_be_caught():
    def fails(net):
        raise KeyError(net.spec)

    assert all(trial.failed for trial in search(objective=fails, catch=KeyError).trials)


@pytest.mark.parametrize("name", ["/dev/null", "x" * 300, "a\0b"])
def test_a_name_that_no_file_can_have_is_no_storage(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="storage"):
        search(storage=name)
    # SQLite would take what precedes the null byte for the name.
    assert list(tmp_path.iterdir()) == []


def test_a_time_limit_beyond_the_timers_of_the_system_is_none():
    assert len(search(timeout=1e300).trials) == programs.BUDGET


class Answer:
    def __init__(self, **differing):
        self.__dict__ |= {"value": 1.0, "metrics": {}, "cost": 0.0, "error": ""} | differing


@pytest.mark.parametrize(
    "answer",
    [
        Answer(cost=math.nan),
        Answer(cost=-1.0),
        Answer(cost=math.inf),
        Answer(metrics=None),
        Answer(metrics=[1]),
        Decimal("sNaN"),
    ],
)
def test_an_answer_that_cannot_be_recorded_is_refused_with_its_network(answer):
    with pytest.raises(TypeError, match=r"the objective must return .* for '"):
        search(objective=lambda _: answer)


class WordlessError(RuntimeError):
    def __str__(self):
        raise ValueError


def test_an_exception_without_a_text_is_a_failure_like_others():
    def fails(_):
        raise WordlessError

    trials = search(objective=fails).trials
    assert all("WordlessError" in trial.outcome.error for trial in trials)


def test_an_objective_that_raises_stop_iteration_does_not_end_the_networks():
    with pytest.raises(RuntimeError, match="the objective raised StopIteration"):
        search(objective=lambda _: next(iter(())))


class Described:
    def __init__(self, description):
        self._description = description

    def __call__(self, net):
        return programs.value(net)

    def describe(self):
        return self._description


@pytest.mark.parametrize("description", [None, "text", [("a", 1)], {"a": object()}, {(1, 2): 3}])
def test_a_description_that_no_file_can_hold_is_refused(tmp_path, description):
    with pytest.raises(TypeError, match=r"objective\.describe\(\) must return"):
        search(objective=Described(description), storage=tmp_path / "s.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_a_description_with_nan_is_equal_to_itself(tmp_path):
    objective = Described({"scale": math.nan, 1: [math.nan]})
    search(objective=objective, storage=tmp_path / "s.sqlite", budget=3)
    more = search(objective=objective, storage=tmp_path / "s.sqlite", budget=6)
    assert len(more.trials) == 6
