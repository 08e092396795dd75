import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from hotnas_torch.files import WriteLock, check_writable, is_locked, read_bytes, write_text


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "one\n")
    write_text(path, "zwei\r\nü")
    assert path.read_bytes() == "zwei\r\nü".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    monkeypatch.setattr(os, "replace", Mock(side_effect=OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_names_in_use_are_not_used(tmp_path):
    path, other = tmp_path / "a.txt", tmp_path / "a.txt.tmp"
    other.write_text("mine")
    write_text(path, "x")
    assert other.read_text() == "mine"
    long = tmp_path / ("n" * 250)
    write_text(long, "x")
    assert long.read_text() == "x"


def test_what_cannot_be_written_is_said_without_a_trace(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nothing")
    for path in (file, link, tmp_path / "new"):
        check_writable(path)
    before = sorted(os.listdir(tmp_path))
    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "absent" / "a", "does not exist"),
        (file / "a", "[Nn]o(t a directory| folder)"),
        (tmp_path / ("n" * 300), "name too long"),
        (Path("/dev/null"), "no ordinary file"),
        (Path("a\0b"), "null byte"),
    ):
        with pytest.raises(OSError, match=message):
            check_writable(path)
    assert sorted(os.listdir(tmp_path)) == before
    assert link.is_symlink()
    assert file.read_text() == "old"


def test_reading_is_bounded(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bytes(path, most=5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_bytes(path, most=4)
    with pytest.raises(OSError, match="no ordinary file"):
        read_bytes(Path("/dev/zero"), most=5)


@pytest.mark.parametrize("take_over", [False, True])
def test_a_pipe_is_no_lock(tmp_path, take_over):
    os.mkfifo(tmp_path / "a.lock")
    with pytest.raises(OSError, match="file of something else"):
        WriteLock(tmp_path / "a", take_over=take_over)


@pytest.mark.parametrize("shared", [False, True])
def test_a_lock_is_seen_without_being_taken(tmp_path, shared):
    path = tmp_path / "a"
    assert not is_locked(path)
    lock = WriteLock(path, shared=shared)
    assert is_locked(path)
    assert lock.held
    if shared:
        WriteLock(path, shared=True).close()
    lock.close()
    assert not is_locked(path)
    (tmp_path / "a.lock").write_bytes(b"hotnas-lock left behind")
    assert not is_locked(path)
    WriteLock(path).close()
