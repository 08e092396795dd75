"""Several processes at one search in one file."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.errors import StorageError
from hotnas_torch.search import RandomSearch, RegularizedEvolution, Storage, run
from hotnas_torch.search.running.sharing import Membership
from hotnas_torch.search.running.trial import Outcome
from hotnas_torch.testing.strategy import toy_value
from tests.search import programs

ROOT = Path(__file__).parents[3]
SPACE = spaces.NASBenchMacro()
IDENTITY = {"space": {}, "run": {"shared": True}}


def made(kind=RandomSearch, seed=0, **settings):
    return kind(SPACE, generator=torch.Generator().manual_seed(seed), **settings)


def specs(result):
    return [trial.network.spec for trial in result.trials]


def networks(num):
    return SPACE.sample(num, generator=torch.Generator().manual_seed(9), distinct=True)


@pytest.fixture
def members(tmp_path):
    """Make memberships of one file, each on a connection of its own."""
    with ExitStack() as stack:

        def member(patience=60.0):
            store = stack.enter_context(Storage(tmp_path / "s.sqlite"))
            store.begin(IDENTITY, shared=True)
            return stack.enter_context(Membership(store, SPACE, patience))

        yield member


def test_one_process_alone_asks_what_it_would_ask_by_itself(tmp_path):
    alone = run(made(), programs.value, budget=8, asynchronous=True, progress=False)
    path = tmp_path / "s.sqlite"
    shared = run(made(), programs.value, budget=8, storage=path, shared=True, progress=False)
    assert specs(shared) == specs(alone)
    assert shared.reason == "evaluations"


def test_a_shared_search_goes_on_and_knows_its_own_results(tmp_path):
    path = tmp_path / "s.sqlite"
    first = run(made(), programs.value, budget=5, storage=path, shared=True, progress=False)
    strategy = made()
    again = run(strategy, programs.value, budget=9, storage=path, shared=True, progress=False)
    assert again.trials[:5] == first.trials
    assert len(set(specs(again))) == 9
    assert [found.network.spec for found in strategy.observations] == specs(again)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(RandomSearch, {}), (RegularizedEvolution, {"population": 6, "tournament": 3})],
)
def test_searches_side_by_side_evaluate_nothing_twice_and_learn_from_each_other(
    tmp_path, kind, settings
):
    path, begun, both = tmp_path / "s.sqlite", [], threading.Barrier(2, timeout=60)

    def objective(net):
        begun.append(net.spec)
        if len(begun) <= 2:
            both.wait()  # nobody does it all
        return toy_value(net)

    strategies = [made(kind, **settings) for _ in range(2)]
    results = []

    def search(strategy):
        results.append(
            run(strategy, objective, budget=9, storage=path, shared=True, progress=False)
        )

    threads = [threading.Thread(target=search, args=[strategy]) for strategy in strategies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = results
    assert first.trials == second.trials
    assert sorted(begun) == sorted(specs(first))
    assert len(set(begun)) == 9
    for strategy in strategies:
        assert {found.network.spec for found in strategy.observations} == set(begun)
        assert strategy.pending == ()
    with sqlite3.connect(path) as connection:
        left = [name for (name,) in connection.execute("SELECT name FROM meta")]
    assert not [name for name in left if name.startswith(("beat", "holds"))]


def test_nobody_takes_what_another_one_has_begun(members):
    one, other = members(), members()
    (net, another) = networks(2)
    assert one.place == 0
    assert other.place == 1
    taken = one.add(net, None)
    assert other.add(net, None) is None
    assert other.news() == ([net], [])
    assert other.add(another, 1) is None  # there is one already
    assert other.orphan() is None
    assert one.finish(taken.number, Outcome(2.0), 1.0)
    begun, (finished,) = other.news()
    assert (begun, finished.network, finished.value) == ([], net, 2.0)
    assert not other.waiting


def test_what_a_silent_process_was_evaluating_is_taken_over_and_its_late_result_dropped(members):
    silent, other = members(), members(patience=0.2)
    silent._leaving.set()  # no sign of life from here on
    taken = silent.add(networks(1)[0], None)
    assert other.orphan() is None
    time.sleep(0.3)
    orphan = other.orphan()
    assert (orphan.number, orphan.network) == (taken.number, taken.network)
    assert not silent.finish(taken.number, Outcome(1.0), 1.0)
    assert other.finish(orphan.number, Outcome(2.0), 1.0)
    assert not silent.finish(taken.number, Outcome(1.0), 1.0)
    (_, (trial,)) = silent.news()
    assert trial.value == 2.0


def test_a_process_that_shows_life_keeps_what_it_evaluates(members):
    slow, other = members(patience=0.2), members(patience=0.5)
    slow.add(networks(1)[0], None)
    for _ in range(4):
        assert other.orphan() is None
        time.sleep(0.2)


def test_what_a_process_leaves_behind_is_taken_at_once(members, tmp_path):
    other = members()
    with Storage(tmp_path / "s.sqlite") as store:
        store.begin(IDENTITY, shared=True)
        with Membership(store, SPACE, 60.0) as leaving:
            taken = leaving.add(networks(1)[0], None)
            assert other.orphan() is None
    assert other.orphan().number == taken.number


def test_a_file_is_shared_by_all_or_by_none(tmp_path):
    shared, alone = tmp_path / "shared.sqlite", tmp_path / "alone.sqlite"
    run(made(), programs.value, budget=2, storage=shared, shared=True, progress=False)
    run(made(), programs.value, budget=2, storage=alone, progress=False)
    with pytest.raises(StorageError, match="pass shared=True to join it"):
        run(made(), programs.value, budget=3, storage=shared, progress=False)
    with pytest.raises(StorageError, match="leave shared out"):
        run(made(), programs.value, budget=3, storage=alone, shared=True, progress=False)
    with pytest.raises(StorageError, match="belongs to another strategy"):
        run(
            made(RegularizedEvolution),
            programs.value,
            budget=3,
            storage=shared,
            shared=True,
            progress=False,
        )


def test_a_shared_file_cannot_be_claimed_for_one_alone(members, tmp_path):
    members()
    with Storage(tmp_path / "s.sqlite") as store, pytest.raises(StorageError, match="writing to"):
        store.begin(IDENTITY)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shared": 1}, TypeError, "shared must be a bool or a datetime.timedelta; got 1"),
        ({"shared": timedelta(0)}, ValueError, "shared must be a positive time"),
        ({"shared": True, "storage": None}, ValueError, "shared needs a storage"),
        ({"shared": True, "batch_size": 2}, ValueError, "batch_size is for searches in batches"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_work(tmp_path, options, error, message):
    path = tmp_path / "s.sqlite"
    with pytest.raises(error, match=message):
        run(made(), programs.value, budget=2, progress=False, **({"storage": path} | options))
    assert not path.exists()


@pytest.mark.slow
def test_four_processes_one_of_which_is_killed_every_ten_evaluations_evaluate_all_once(tmp_path):
    path, log = tmp_path / "s.sqlite", tmp_path / "log"

    def start():
        return subprocess.Popen(
            [sys.executable, "-m", "tests.search.programs", "random", str(path), "shared"],
            cwd=ROOT,
            env=os.environ | {"LOG": str(log), "OMP_NUM_THREADS": "1"},
        )

    def finished():
        try:
            with Storage(path, read_only=True) as store:
                return len(store.trials(SPACE))
        except StorageError:
            return 0  # not there yet

    processes = [start() for _ in range(4)]
    kills = 0
    try:
        deadline = time.monotonic() + 300
        while kills < 3:
            assert time.monotonic() < deadline
            if finished() >= 10 * (kills + 1):
                processes[kills].kill()
                processes.append(start())
                kills += 1
            time.sleep(0.05)
        for process in processes[kills:]:
            assert process.wait(timeout=300) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    with Storage(path, read_only=True) as store:
        trials = store.trials(SPACE)
        assert store.num_trials == len(trials) == 40
    assert len({trial.network.spec for trial in trials}) == 40
    assert all(trial.value == toy_value(trial.network) for trial in trials)
    lines = Counter(log.read_text().splitlines())
    begun = [lines[f"begins {trial.network.spec}"] for trial in trials]
    # Only what was running when its process was killed was begun again.
    assert min(begun) == 1
    assert sum(begun) - 40 <= kills
    assert sum(lines.values()) - sum(begun) - 40 <= kills


def test_a_full_disk_ends_a_shared_search_in_one_sentence_and_it_goes_on(tmp_path, monkeypatch):
    path, begun = tmp_path / "s.sqlite", []
    finish = Membership.finish

    def objective(net):
        begun.append(net.spec)
        return toy_value(net)

    def on_a_full_disk(self, number, outcome, seconds):
        if number == 3:
            connection = self._store._connection
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
            outcome = Outcome(outcome.value, {}, 0.0, "no " * 9000)
        return finish(self, number, outcome, seconds)

    settings = {"budget": 6, "storage": path, "shared": True, "progress": False}
    with monkeypatch.context() as patch:
        patch.setattr(Membership, "finish", on_a_full_disk)
        with pytest.raises(StorageError, match=r"disk is full.*make room.*goes on from there"):
            run(made(), objective, **settings)
    found = specs(run(made(), objective, **settings))
    assert len(set(found)) == 6
    assert Counter(begun) == Counter(found) + Counter([found[3]])


def test_a_file_that_another_program_locks_is_said_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "s.sqlite"
    settings = {"storage": path, "shared": True, "progress": False}
    first = run(made(), programs.value, budget=3, **settings)
    begin = Storage.begin

    def locked(self, *args, **options):
        begin(self, *args, **options)
        self._connection.execute("PRAGMA busy_timeout = 50")

    with sqlite3.connect(path, isolation_level=None) as other, monkeypatch.context() as patch:
        patch.setattr(Storage, "begin", locked)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="another program keeps it locked"):
            run(made(), programs.value, budget=6, **settings)
        other.execute("ROLLBACK")
    found = run(made(), programs.value, budget=6, **settings)
    assert specs(found)[:3] == specs(first)
    assert len(set(specs(found))) == 6
