import gzip
import os

import pytest

from hotnas_torch import spaces
from hotnas_torch.errors import TableError
from hotnas_torch.objectives import Table

SPACE = spaces.Pooling()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(
        "name,network,score,loss,empty\n"
        'first,"[7,1,2]",0.5,3.0,\n'
        'second,"[1,1,8]",-1.5,4.0,\n'
        'third,"[2, 2, 6]",,5.0,\n',
        encoding="utf-8",
    )
    return path


def table(path, column="score", **arguments):
    return Table(path, column, space=SPACE, architecture="network", **arguments)


def test_a_table_of_ones_own(path):
    own = table(path)
    assert own(SPACE.from_string("[7,1,2]")).value == -0.5
    assert own(SPACE.from_string("[1,1,8]")).value == 1.5
    assert own(SPACE.from_string("[7,1,2]")).metrics == {"score": 0.5, "loss": 3.0}
    assert (len(own), own.best_value) == (2, -0.5)
    assert [net.spec for net in own.space] == ["[7,1,2]", "[1,1,8]"]
    assert own.columns == ("score", "loss", "empty")  # text is left out
    assert own.describe()["kind"] == "table"


def test_smaller_may_be_better(path):
    own = table(path, "loss", goal="min")
    assert own.values.tolist() == [3.0, 4.0, 5.0]
    # A string in another spelling is the same architecture.
    assert own(SPACE.from_string("[2,2,6]")).value == 5.0


@pytest.mark.parametrize(
    ("column", "arguments", "kind", "message"),
    [
        ("accuracy", {}, TableError, "no column 'accuracy' with numbers .it has 'score', 'loss'"),
        ("name", {}, TableError, "line 2: column 'name' must hold numbers; got 'first'"),
        ("empty", {}, TableError, "column 'empty' is empty"),
        ("score", {"architecture": "arch"}, TableError, "no column 'arch' .it has 'name', 'net"),
        ("score", {"goal": "most"}, ValueError, "goal must be one of 'max', 'min'"),
        ("score", {"space": "pooling"}, TypeError, "space must be a SearchSpace"),
        ("score", {"space": spaces.NASBench201()}, TableError, "line 2: .* is no nasbench201"),
    ],
)
def test_what_is_wrong_is_named(path, column, arguments, kind, message):
    arguments = {"space": SPACE, "architecture": "network", **arguments}
    with pytest.raises(kind, match=message):
        Table(path, column, **arguments)


def test_a_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hotnas_torch.objectives.table._MOST_BYTES", 2**20)
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"0" * 2**24))
    assert path.stat().st_size < 2**20
    with pytest.raises(TableError, match=r"bomb.csv.gz is damaged .* more than 1,048,576 bytes"):
        Table(path, "acc", space=spaces.Pooling())
    path.write_bytes(b"0" * (2**20 + 1))
    with pytest.raises(TableError, match=r"cannot read .* larger than 1,048,576 bytes"):
        Table(path, "acc", space=spaces.Pooling())
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(TableError, match="no ordinary file"):
        Table(path, "acc", space=spaces.Pooling())
