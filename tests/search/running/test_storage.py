import math
import sqlite3

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.errors import StorageError
from hotnas_torch.search import Outcome, Storage
from hotnas_torch.search.running.storage import SCHEMA_VERSION

SPACE = spaces.Pooling()
IDENTITY = {"space": {"name": "pooling"}, "strategy": {"seed": 0}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "search.sqlite"


@pytest.fixture
def nets():
    return SPACE.sample(5, generator=torch.Generator().manual_seed(0), distinct=True)


def test_trials_come_back_as_they_were_written(path, nets):
    outcomes = [
        Outcome(0.1 + 0.2, {"accuracy": 1 / 3}, 2.5),
        Outcome(math.nan, {}, 1.25, "no memory left"),
    ]
    with Storage(path) as store:
        store.begin(IDENTITY)
        opened = store.add_batch(nets[:2], {"step": 1})
        assert [trial.number for trial in opened] == [0, 1]
        store.add_outcome(1, outcomes[1], 3.0)
        store.add_outcome(0, outcomes[0], 4.0)
        store.add_batch(nets[2:], state := {"pending": [net.spec for net in nets[:0:-1]]})
        store.add_outcome(3, Outcome(2.0), 5.0)
    with Storage(path, read_only=True) as store:
        assert store.identity == IDENTITY
        assert store.state == state
        assert (store.num_trials, store.elapsed) == (5, 5.0)
        first, second, _ = store.trials(SPACE)
        assert [trial.network for trial in (first, second)] == nets[:2]
        assert (first.outcome, first.elapsed, second.elapsed) == (outcomes[0], 4.0, 3.0)
        assert second.failed
        assert second.outcome.error == "no memory left"
        opened = store.open_trials(SPACE)
        assert [(trial.number, trial.outcome, trial.elapsed) for trial in opened] == [
            (1, outcomes[1], 3.0),
            (2, None, math.inf),
            (3, Outcome(2.0), 5.0),
            (4, None, math.inf),
        ]
        assert [trial.network for trial in opened] == nets[1:]


def test_without_a_file_it_works_the_same(nets):
    with Storage(None) as store:
        assert store.identity is None
        assert store.state is None
        assert store.open_trials(SPACE) == []
        store.begin(IDENTITY)
        store.add_batch(nets, {})
        store.add_outcome(3, Outcome(1.0), 0.5)
        assert [trial.number for trial in store.trials(SPACE)] == [3]


def test_the_later_of_two_writers_goes_on(path, nets):
    with Storage(path) as earlier, Storage(path) as later:
        earlier.begin(IDENTITY)
        earlier.add_batch(nets[:2], {})
        later.begin(IDENTITY)
        with pytest.raises(StorageError, match="taken over by another process"):
            earlier.add_outcome(0, Outcome(1.0), 0.0)
        with pytest.raises(StorageError, match="taken over by another process"):
            earlier.add_batch(nets[2:], {})
        later.add_outcome(0, Outcome(2.0), 0.0)
        assert [trial.value for trial in later.trials(SPACE)] == [2.0]


def test_a_failed_transaction_leaves_nothing(path, nets):
    with Storage(path) as store:
        store.begin(IDENTITY)
        store.add_batch(nets[:2], {"step": 1})
        with pytest.raises(StorageError, match="UNIQUE"):
            store.add_batch(nets[1:3], {"step": 2})
        with pytest.raises(TypeError):
            store.add_batch(nets[2:], {"step": object()})
        assert (store.num_trials, store.state) == (2, {"step": 1})


def test_it_can_be_read_while_it_is_written(path, nets):
    with Storage(path) as writer:
        writer.begin(IDENTITY)
        writer.add_batch(nets, {})
        with Storage(path, read_only=True) as reader:
            assert reader.num_trials == 5
            assert reader.trials(SPACE) == ()
            writer.add_outcome(0, Outcome(1.0), 0.0)
            assert len(reader.trials(SPACE)) == 1
            with pytest.raises(StorageError, match="readonly"):
                reader.begin(IDENTITY)


def newer(path):
    Storage(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()


def foreign(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()


def no_database(path):
    path.write_text("name,value\n" * 100)


def cut_off(path):
    with Storage(path) as store:
        store.begin(IDENTITY)
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (newer, f"schema version {SCHEMA_VERSION + 1}, this hotnas_torch knows .*update"),
        (foreign, "SQLite file of something else"),
        (no_database, "file is not a database"),
        (cut_off, "malformed"),
    ],
)
@pytest.mark.parametrize("read_only", [True, False])
def test_other_files_are_refused_and_left_alone(path, spoil, message, read_only):
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=message):
        Storage(path, read_only=read_only).begin(IDENTITY)
    assert path.read_bytes() == before


def test_paths_that_cannot_be_used(tmp_path, path):
    with pytest.raises(StorageError, match="is a folder"):
        Storage(tmp_path)
    with pytest.raises(StorageError, match=r"unable to open .* writable"):
        Storage(tmp_path / "nowhere" / "search.sqlite")
    with pytest.raises(StorageError, match="there is no storage file"):
        Storage(path, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_a_new_storage(path):
    path.touch()
    with Storage(path) as store:
        store.begin(IDENTITY)
        assert store.identity == IDENTITY


def test_networks_of_another_space_are_named(path, nets):
    with Storage(path) as store:
        store.begin(IDENTITY)
        store.add_batch(nets, {"pending": [net.spec for net in nets]})
        with pytest.raises(StorageError, match=r"trial 0: .* belongs to another space"):
            store.open_trials(spaces.NASBench201())
