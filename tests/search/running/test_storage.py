import json
import math
import os
import sqlite3
import subprocess
import sys

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


def test_a_second_writer_is_refused_until_it_takes_over(path, nets):
    with Storage(path) as earlier, Storage(path) as later:
        earlier.begin(IDENTITY)
        earlier.add_batch(nets[:2], {})
        with pytest.raises(StorageError, match=rf"process {os.getpid()} on .* take_over=True"):
            later.begin(IDENTITY)
        earlier.add_outcome(1, Outcome(1.0), 0.0)
        later.begin(IDENTITY, take_over=True)
        with pytest.raises(StorageError, match="taken over by another process"):
            earlier.add_outcome(0, Outcome(1.0), 0.0)
        with pytest.raises(StorageError, match="taken over by another process"):
            earlier.add_batch(nets[2:], {})
        earlier.close()
        with Storage(path) as third, pytest.raises(StorageError, match="another search is writing"):
            third.begin(IDENTITY)
        later.add_outcome(0, Outcome(2.0), 0.0)
        assert [trial.value for trial in later.trials(SPACE)] == [2.0, 1.0]
    assert os.listdir(path.parent) == [path.name]


def test_a_link_to_the_file_is_the_file(path):
    link = path.with_name("link.sqlite")
    with Storage(path) as first:
        first.begin(IDENTITY)
        link.symlink_to(path)
        with Storage(link) as second, pytest.raises(StorageError, match="another search is writ"):
            second.begin(IDENTITY)


def test_what_a_killed_writer_leaves_stops_nobody(path):
    program = (
        "import os, sys; from hotnas_torch.search import Storage;"
        f"store = Storage({str(path)!r}); store.begin({IDENTITY!r}); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert path.with_name("search.sqlite.lock").exists()
    with Storage(path) as store:
        store.begin(IDENTITY)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("take_over", [True, False])
def test_a_file_that_has_the_name_of_the_lock_is_left_alone(path, take_over):
    other = path.with_name("search.sqlite.lock")
    other.write_text("thesis")
    with Storage(path) as store, pytest.raises(StorageError, match="file of something else"):
        store.begin(IDENTITY, take_over=take_over)
    assert other.read_text() == "thesis"


def test_a_full_disk_is_one_sentence_and_loses_nothing(path, nets):
    with Storage(path) as store:
        store.begin(IDENTITY)
        store.add_batch(nets, {"step": 1})
        store.add_outcome(0, Outcome(1.0), 0.5)
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        long = Outcome(math.nan, {}, 0.0, "no " * 9000)
        with pytest.raises(StorageError, match=r"disk is full.*make room.*goes on from there"):
            store.add_outcome(1, long, 1.0)
        with pytest.raises(StorageError, match="disk is full"):
            store.add_batch(nets[:0], {"step": "x" * 9000})
        assert (len(store.trials(SPACE)), store.state) == (1, {"step": 1})
        store._connection.execute(f"PRAGMA max_page_count = {pages + 100}")
        store.add_outcome(1, long, 1.0)
    with Storage(path) as store:
        store.begin(IDENTITY)
        assert [trial.outcome.error for trial in store.trials(SPACE)] == ["", "no " * 9000]


def test_texts_that_are_no_unicode_are_recorded(path, nets):
    with Storage(path) as store:
        store.begin(IDENTITY)
        store.add_batch(nets, {})
        error = b"cannot read \xff.png".decode("utf-8", "surrogateescape")
        store.add_outcome(0, Outcome(math.nan, {"\ud800": 1.0}, 0.0, error), 0.0)
        (trial,) = store.trials(SPACE)
        assert trial.outcome.error == r"cannot read \udcff.png"
        assert trial.outcome.metrics == {r"\ud800": 1.0}


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


def test_every_bit_is_checked(path, nets):
    """Of 8 bits in each of many bytes: read as written, or refused."""
    with Storage(path) as store:
        store.begin(IDENTITY)
        store.add_batch(nets, {"pending": [net.spec for net in nets]})
        for place in range(4):
            store.add_outcome(place, Outcome(place / 7, {"a": 1.5}, 0.25), place + 0.5)
    whole = path.read_bytes()

    def content():
        with Storage(path, read_only=True) as store:
            return repr((store.identity, store.state, store.elapsed, store.num_trials)) + repr(
                (store.trials(SPACE), store.open_trials(SPACE))
            )

    expected = content()
    generator = torch.Generator().manual_seed(0)
    used = [place for place, byte in enumerate(whole) if byte]
    refused = 0
    for place in torch.randint(len(used), (300,), generator=generator).tolist():
        bit = 1 << int(torch.randint(8, (), generator=generator))
        path.write_bytes(bytes(b ^ bit if i == used[place] else b for i, b in enumerate(whole)))
        try:
            assert content() == expected
        except StorageError:
            refused += 1
    assert refused > 150


def test_missing_trials_are_noticed(path, nets):
    with Storage(path) as store:
        store.begin(IDENTITY)
        store.add_batch(nets, {})
    for number in (4, 2):
        with sqlite3.connect(path) as connection:
            connection.execute("DELETE FROM trial WHERE number = ?", (number,))
        connection.close()
        with pytest.raises(StorageError, match=rf"damaged: trial {number} is missing"):
            Storage(path)


def of_version_1(path, nets):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(
        """
        CREATE TABLE meta (name TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
        CREATE TABLE trial (number INTEGER PRIMARY KEY, batch INTEGER NOT NULL,
            architecture TEXT NOT NULL UNIQUE, finished INTEGER NOT NULL DEFAULT 0, value REAL,
            metrics TEXT NOT NULL DEFAULT '{}', cost REAL NOT NULL DEFAULT 0,
            error TEXT NOT NULL DEFAULT '', elapsed REAL);
        PRAGMA application_id = 1752134766;
        PRAGMA user_version = 1;
        """
    )
    described = IDENTITY | {"objective": {"kind": "function", "name": "f"}}
    connection.execute("INSERT INTO meta VALUES ('identity', ?)", (json.dumps(described),))
    connection.execute("INSERT INTO meta VALUES ('state', '{}')")
    for number, net in enumerate(nets):
        connection.execute(
            "INSERT INTO trial (number, batch, architecture) VALUES (?, 0, ?)", (number, net.spec)
        )
    connection.execute("UPDATE trial SET finished = 1, value = 2, elapsed = 0 WHERE number = 0")
    connection.close()


def test_files_without_checksums_are_read_and_go_on_with_them(path, nets):
    of_version_1(path, nets)
    with Storage(path, read_only=True) as store:
        assert [trial.value for trial in store.trials(SPACE)] == [2.0]
    now = IDENTITY | {"objective": {"kind": "function", "name": "f", "code": "1"}}
    with Storage(path) as store:
        store.begin(now)
        store.add_outcome(1, Outcome(3.0), 1.0)
    with Storage(path) as store:
        assert [trial.value for trial in store.trials(SPACE)] == [2.0, 3.0]
        other = {"kind": "function", "name": "f", "code": "2"}
        with pytest.raises(StorageError, match=r"its 'code' is '1', here it is '2'.*accept_obj"):
            store.begin(now | {"objective": other})
        store.begin(now | {"objective": other}, accept=["objective"])
        assert store.identity["objective"] == other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (f"number = {-(2**63)} WHERE number = 1", "trial 0 is missing"),
        (f"number = {2**63 - 1} WHERE number = 1", "trial 1 is missing"),
        ("elapsed = 'soon'", "trial 0 took 'soon', expected seconds"),
        ("elapsed = -1", "trial 0 took -1.0, expected seconds"),
    ],
)
def test_counts_in_files_without_checksums_are_checked(path, nets, change, message):
    of_version_1(path, nets)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE trial SET {change}")
    connection.close()
    with pytest.raises(StorageError, match=f"is damaged: {message}"):
        Storage(path)


@pytest.mark.parametrize(
    ("entry", "content"),
    [
        ("identity", "[1]"),
        ("identity", '{"space": 3}'),
        ("identity", "[" * 100_000),
        ("identity", "{"),
        ("state", "7"),
        ("metrics", "[]"),
        ("metrics", '{"a": "b"}'),
        ("cost", "'much'"),
        ("value", "'low'"),
        ("value", "x'00'"),
    ],
)
def test_what_holds_other_kinds_than_it_should_is_damaged(path, nets, entry, content):
    of_version_1(path, nets)
    with sqlite3.connect(path) as connection:
        if entry in ("identity", "state"):
            connection.execute("UPDATE meta SET content = ? WHERE name = ?", (content, entry))
        elif entry == "metrics":
            connection.execute("UPDATE trial SET metrics = ?", (content,))
        else:
            connection.execute(f"UPDATE trial SET {entry} = {content}")
    connection.close()
    with Storage(path, read_only=True) as store, pytest.raises(StorageError, match="damaged"):
        _ = store.identity, store.state, store.trials(SPACE)


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TRIGGER t AFTER UPDATE ON trial BEGIN UPDATE trial SET value = -9; END",
        "CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM trial; END",
        "ALTER TABLE trial RENAME TO moved; CREATE VIEW trial AS SELECT * FROM moved",
        "DROP TABLE trial; CREATE VIEW trial AS WITH RECURSIVE n(number) AS "
        "(SELECT 0 UNION ALL SELECT number + 1 FROM n) SELECT number, 0 batch FROM n",
        "DROP TABLE meta",
        "DROP TABLE trial",
        "CREATE TABLE other (name)",
        "CREATE INDEX i ON trial (abs(cost))",
        "ALTER TABLE meta ADD COLUMN more",
        "ALTER TABLE trial ADD COLUMN more AS (cost + 1)",
        "PRAGMA user_version = 1",
        "PRAGMA user_version = -1",
    ],
)
@pytest.mark.parametrize("read_only", [True, False])
def test_tables_of_another_form_are_refused(path, nets, change, read_only):
    with Storage(path) as store:
        store.begin(IDENTITY)
        store.add_batch(nets, {"pending": [net.spec for net in nets]})
    connection = sqlite3.connect(path)
    connection.executescript(change)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="is damaged: its tables are not those of version"):
        Storage(path, read_only=read_only)
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_nothing_but_files_lies_beside_it(tmp_path, path, suffix, kind):
    with Storage(path) as store:
        store.begin(IDENTITY)
    beside, other = tmp_path / f"{path.name}{suffix}", tmp_path / "other"
    other.write_text("mine")
    if kind == "pipe":
        os.mkfifo(beside)
    elif kind == "link":
        beside.symlink_to(other)
    else:
        beside.mkdir()
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    for name in (path, link):
        for read_only in (True, False):
            with pytest.raises(StorageError, match=f"{suffix}, which belongs to it, is no ordina"):
                Storage(name, read_only=read_only)
    assert other.read_text() == "mine"


def test_a_count_that_is_none_is_damaged(path, nets):
    with Storage(path) as store:
        store.begin(IDENTITY)
        store.add_batch(nets, {"pending": []})
        with store.writing():
            store.put("trials", "many")
    with pytest.raises(StorageError, match="is damaged: trial 5 is missing"):
        Storage(path)


def test_an_empty_file_is_a_new_storage(path):
    path.touch()
    with pytest.raises(StorageError, match="is empty: it holds no search yet"):
        Storage(path, read_only=True)
    with Storage(path) as store:
        store.begin(IDENTITY)
        assert store.identity == IDENTITY


def test_networks_of_another_space_are_named(path, nets):
    with Storage(path) as store:
        store.begin(IDENTITY)
        store.add_batch(nets, {"pending": [net.spec for net in nets]})
        with pytest.raises(StorageError, match=r"trial 0: .* belongs to another space"):
            store.open_trials(spaces.NASBench201())
