import io
import json
import math
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import textwrap
import zipfile
import zlib

import numpy as np
import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.distances import HOTNN
from hotnas_torch.errors import GramFileError
from hotnas_torch.matrices import load_gram
from hotnas_torch.matrices.gram_file import lock
from hotnas_torch.matrices.gram_writer import GramWriter
from hotnas_torch.matrices.pairwise import make_tiles


@pytest.fixture
def metric(tree):
    # Tiles of one or two networks, so that there are many of them.
    return HOTNN(tree=tree, memory_budget=4000)


class Stop(Exception):
    pass


def interrupt(metric, networks, path, stage="networks", after=3):
    """Leave an unfinished run behind."""
    calls = 0

    def progress(name, done, total):
        nonlocal calls
        calls += name == stage
        if calls > after:
            raise Stop

    with pytest.raises(Stop):
        metric.gram(networks, out=path, progress=progress)
    assert not path.exists()
    assert partial(path).exists()


def partial(path):
    return path.with_name(path.name + ".partial")


def computed_pairs(metric, networks, path, **options):
    """Run and count the pairs of networks that were solved and not taken from the file."""
    solved = []
    from hotnas_torch.distances import hotnn

    class Counting(hotnn.NetworkTables):
        def block(self, rows, cols, costs):
            solved.append(len(rows) * len(cols))
            return super().block(rows, cols, costs)

    original = hotnn.NetworkTables
    hotnn.NetworkTables = Counting
    try:
        result = metric.gram(networks, out=path, progress=False, **options)
    finally:
        hotnn.NetworkTables = original
    return result, sum(solved)


def test_a_resumed_run_continues_and_gives_the_same_bytes(metric, networks, tmp_path):
    whole, stopped = tmp_path / "whole.npz", tmp_path / "stopped.npz"
    _, all_pairs = computed_pairs(metric, networks, whole)
    for stage, after in (("cells", 1), ("networks", 2), ("networks", 5)):
        stopped.unlink(missing_ok=True)
        interrupt(metric, networks, stopped, stage, after)
        result, pairs = computed_pairs(metric, networks, stopped)
        assert torch.equal(result, load_gram(whole).distances)
        assert stopped.read_bytes() == whole.read_bytes()
        assert not partial(stopped).exists()
        if stage == "networks":
            assert pairs < all_pairs


def test_a_record_cut_off_by_a_kill_is_computed_again(metric, networks, tmp_path):
    whole, stopped = tmp_path / "whole.npz", tmp_path / "stopped.npz"
    metric.gram(networks, out=whole, progress=False)
    interrupt(metric, networks, stopped)
    content = partial(stopped).read_bytes()
    for lost in (1, 5, 30, 60):
        partial(stopped).write_bytes(content[:-lost])
        metric.gram(networks, out=stopped, progress=False)
        assert stopped.read_bytes() == whole.read_bytes()
        stopped.unlink()


def test_a_killed_process_is_resumed_bit_for_bit(tmp_path):
    script = tmp_path / "compute.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            import torch
            from hotnas_torch import spaces
            from hotnas_torch.distances import HOTNN

            torch.set_num_threads(1)
            space = spaces.get("pooling")
            networks = list(space)[:24]

            def progress(stage, done, total):
                print(stage, done, total, flush=True)
                if sys.argv[2] == "slow" and stage == "networks":
                    time.sleep(0.2)

            HOTNN(space=space, memory_budget=20000).gram(
                networks, out=sys.argv[1], progress=progress
            )
            """
        )
    )
    whole, killed = tmp_path / "whole.npz", tmp_path / "killed.npz"

    def start(path, mode):
        return subprocess.Popen(
            [sys.executable, str(script), str(path), mode], stdout=subprocess.PIPE, text=True
        )

    victim = start(killed, "slow")
    tiles = 0
    for line in victim.stdout:
        tiles += line.startswith("networks")
        if tiles == 6:
            victim.send_signal(signal.SIGKILL)
            break
    victim.stdout.close()
    assert victim.wait() == -signal.SIGKILL
    assert not killed.exists()
    size = partial(killed).stat().st_size
    assert size > 1000
    process = start(killed, "fast")
    process.communicate()
    assert process.returncode == 0
    space = spaces.get("pooling")
    HOTNN(space=space, memory_budget=20000).gram(list(space)[:24], out=whole, progress=False)
    assert killed.read_bytes() == whole.read_bytes()


def test_a_finished_file_is_returned_without_work(metric, networks, tmp_path):
    path = tmp_path / "gram.npz"
    first = metric.gram(networks, out=path, progress=False)
    again, pairs = computed_pairs(metric, networks, path)
    assert torch.equal(again, first)
    assert pairs == 0


def test_an_existing_file_needs_a_decision(metric, networks, tmp_path):
    path = tmp_path / "gram.npz"
    metric.gram(networks, out=path, progress=False)
    content = path.read_bytes()
    with pytest.raises(GramFileError, match=r"gram.npz exists .*resume=True.*overwrite=True"):
        metric.gram(networks, out=path, progress=False, resume=False)
    assert path.read_bytes() == content
    _, pairs = computed_pairs(metric, networks, path, overwrite=True)
    assert pairs > 0
    assert path.read_bytes() == content
    path.unlink()
    interrupt(metric, networks, path)
    with pytest.raises(GramFileError, match=r"holds an interrupted run .*resume=True"):
        metric.gram(networks, out=path, progress=False, resume=False)
    metric.gram(networks, out=path, progress=False, resume=False, overwrite=True)
    assert path.read_bytes() == content


@pytest.mark.parametrize("finished", [True, False])
def test_another_computation_is_refused_and_kept(metric, networks, tree, tmp_path, finished):
    path = tmp_path / "gram.npz"
    if finished:
        metric.gram(networks, out=path, progress=False)
        kept = path
    else:
        interrupt(metric, networks, path)
        kept = partial(path)
    content = kept.read_bytes()
    changed = HOTNN(tree=tree, lam=0.25, memory_budget=4000)
    other_tree = tree.with_lengths(tree.lengths_tensor(dtype=torch.float64) * 2)
    attempts = [
        (changed, networks, r"lam is 0.5 there and 0.25 here"),
        (HOTNN(tree=other_tree, unreachable=1.8), networks, "its operation tree differs"),
        (metric, networks[:-1], "it holds 7 networks, this computation has 6"),
        (metric, networks[::-1], "its networks are others, or in another order"),
    ]
    for other, others, message in attempts:
        with pytest.raises(GramFileError, match=message):
            other.gram(others, out=path, progress=False)
        assert kept.read_bytes() == content


def test_a_damaged_partial_file_is_refused_and_kept(metric, networks, tmp_path):
    path = tmp_path / "gram.npz"
    interrupt(metric, networks, path)
    content = partial(path).read_bytes()
    flipped = bytearray(content)
    flipped[-3] ^= 0xFF
    damages = [
        (bytes(flipped), "is damaged at byte .* wrong checksum"),
        (b"something else entirely", "was not written by this library"),
        (content[:30], "is truncated inside its header"),
        (content[:200], "is truncated inside its header"),
    ]
    for damaged, message in damages:
        partial(path).write_bytes(damaged)
        with pytest.raises(GramFileError, match=message):
            metric.gram(networks, out=path, progress=False)
        assert partial(path).read_bytes() == damaged
    metric.gram(networks, out=path, progress=False, overwrite=True)
    assert load_gram(path).distances.shape == (7, 7)


def test_a_damaged_finished_file_is_refused_and_kept(metric, networks, tmp_path):
    path = tmp_path / "gram.npz"
    metric.gram(networks, out=path, progress=False)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[200] ^= 0xFF
    for damaged in (content[:-30], content[: len(content) // 2], b"", bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(GramFileError, match="is not a readable Gram file"):
            load_gram(path)
        with pytest.raises(GramFileError, match="is not a readable Gram file"):
            metric.gram(networks, out=path, progress=False)
        assert path.read_bytes() == damaged


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        np.save(file, np.zeros((2, 2)))
    with pytest.raises(GramFileError, match="not a readable Gram file"):
        load_gram(path)
    with path.open("wb") as file:
        np.savez(file, distances=np.zeros((2, 2)))
    with pytest.raises(GramFileError, match="not a readable Gram file"):
        load_gram(path)

    def write(meta, distances, names):
        with path.open("wb") as file:
            np.savez(file, distances=distances, networks=np.array(names), meta=np.array(meta))

    good = json.dumps({"format": "hotnas-gram", "format_version": 1})
    write("{}", np.zeros((1, 1)), ["a"])
    with pytest.raises(GramFileError, match="not a Gram file of this library"):
        load_gram(path)
    write(good.replace("1}", "2}"), np.zeros((1, 1)), ["a"])
    with pytest.raises(GramFileError, match="has Gram file version 2"):
        load_gram(path)
    write(good, np.zeros((2, 3)), ["a", "b"])
    with pytest.raises(GramFileError, match=r"shape \(2, 3\).*for 2 networks"):
        load_gram(path)
    write(good, np.zeros((2, 2)), ["a", "b"])
    assert load_gram(path).networks == ["a", "b"]
    with pytest.raises(FileNotFoundError):
        load_gram(tmp_path / "absent")


class _Armed:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_no_file_runs_code(tmp_path):
    path = tmp_path / "gram.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("distances", "networks", "meta"):
            member = tmp_path / f"{name}.npy"
            array = np.empty((), dtype=object)
            array[()] = _Armed()
            with member.open("wb") as file:
                np.lib.format.write_array(file, array, allow_pickle=True)
            archive.write(member, f"{name}.npy")
    with pytest.raises(GramFileError, match="not a readable Gram file"):
        load_gram(path)
    path.write_bytes(pickle.dumps(_Armed()))
    with pytest.raises(GramFileError, match="not a readable Gram file"):
        load_gram(path)


def test_an_output_that_cannot_be_written_is_refused_first(metric, networks, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")

    def progress(*_):
        raise AssertionError("work began")

    for path in (tmp_path / "absent" / "gram.npz", blocker / "gram.npz"):
        with pytest.raises(GramFileError, match=r"out: cannot write .*gram.npz: "):
            metric.gram(networks, out=path, progress=progress)
    with pytest.raises(GramFileError, match="is a folder; name a file"):
        metric.gram(networks, out=tmp_path, progress=progress, overwrite=True)
    with pytest.raises(GramFileError, match="null byte"):
        metric.gram(networks, out="a\0b", progress=progress)


@pytest.mark.parametrize("suffix", ["", ".partial", ".lock"])
def test_a_pipe_makes_nobody_wait(metric, networks, tmp_path, suffix):
    path = tmp_path / "gram.npz"
    os.mkfifo(f"{path}{suffix}")
    for decision in ({"resume": True}, {"overwrite": True}, {"overwrite": True, "take_over": True}):
        with pytest.raises(GramFileError, match=r"no ordinary file|file of something else"):
            metric.gram(networks, out=path, progress=False, **decision)
    assert os.listdir(tmp_path) == [f"gram.npz{suffix}"]


def test_who_is_refused_leaves_nothing(metric, networks, tmp_path):
    path = tmp_path / "gram.npz"
    holder = lock(path)
    with pytest.raises(GramFileError, match="another process is writing"):
        metric.gram(networks, out=path, progress=False)
    holder.close()
    assert metric.gram(networks, out=path, progress=False).shape[0] == len(networks)


@pytest.mark.parametrize("version", [1.0, True, "1", None, 0])
def test_a_version_is_a_whole_number(tmp_path, version):
    path = tmp_path / "gram.npz"
    meta = json.dumps({"format": "hotnas-gram", "format_version": version})
    with path.open("wb") as file:
        np.savez(file, distances=np.zeros((1, 1)), networks=np.array(["a"]), meta=np.array(meta))
    with pytest.raises(GramFileError, match=f"has Gram file version {version!r}"):
        load_gram(path)


@pytest.mark.parametrize("distance", [math.nan, math.inf, -1.0])
def test_what_is_no_distance_is_refused(tmp_path, distance):
    path = tmp_path / "gram.npz"
    meta = json.dumps({"format": "hotnas-gram", "format_version": 1})
    distances = np.array([[0.0, distance], [distance, 0.0]])
    with path.open("wb") as file:
        np.savez(file, distances=distances, networks=np.array(["a", "b"]), meta=np.array(meta))
    with pytest.raises(GramFileError, match="negative or not finite"):
        load_gram(path)


def test_two_processes_do_not_write_one_file(tmp_path):
    options = {"settings": {}, "keys": ["a"], "names": ["a"], "resume": True, "overwrite": False}
    path = tmp_path / "gram.npz"
    with (
        GramWriter(path, **options),
        pytest.raises(GramFileError, match="another process is writing"),
    ):
        GramWriter(path, **options)
    with GramWriter(path, **options):
        pass


def test_a_tile_comes_back_with_its_bits_and_its_shape(tmp_path, dtype):
    options = {"settings": {}, "keys": ["a"], "names": ["a"], "resume": True, "overwrite": False}
    path = tmp_path / "gram.npz"
    first, second = make_tiles(5, 4, 3, symmetric=False)[:2]
    values = torch.tensor([[1 / 3], [2 / 3], [1e-30]], dtype=dtype)
    with GramWriter(path, **options) as writer:
        writer.stage("cells", dtype).save(second, values)
        assert writer.stage("cells", dtype).load(first) is None
    with GramWriter(path, **options) as writer:
        stage = writer.stage("cells", dtype)
        assert torch.equal(stage.load(second), values)
        assert stage.load(first) is None
        assert writer.stage("networks", dtype).load(second) is None


def test_no_file_of_the_user_is_touched(metric, networks, tmp_path):
    path = tmp_path / "gram.npz"
    mine, linked = tmp_path / "gram.npz.tmp", tmp_path / "linked"
    mine.write_text("mine")
    linked.write_text("mine as well")
    metric.gram(networks, out=path, progress=False)
    partial(path).symlink_to(linked)
    with pytest.raises(GramFileError, match="cannot write"):
        metric.gram(networks, out=path, progress=False, overwrite=True)
    partial(path).unlink()
    partial(path).write_text("my notes on a part")
    with pytest.raises(GramFileError, match="was not written by this library; it is left as it is"):
        metric.gram(networks, out=path, progress=False, overwrite=True)
    assert partial(path).read_text() == "my notes on a part"
    assert (mine.read_text(), linked.read_text()) == ("mine", "mine as well")


def test_a_tile_does_not_move_to_another_place(metric, networks, tmp_path):
    path = tmp_path / "gram.npz"
    interrupt(metric, networks, path)
    content = bytearray(partial(path).read_bytes())
    header = struct.Struct("<8s4QQI")
    start = content.rindex(b"networks")
    fields = list(header.unpack_from(content, start))
    header.pack_into(content, start, fields[0], fields[1] + 1, fields[2] + 1, *fields[3:])
    partial(path).write_bytes(content)
    with pytest.raises(GramFileError, match="wrong checksum"):
        metric.gram(networks, out=path, progress=False)


def test_an_interrupted_run_of_an_earlier_version_goes_on(metric, networks, tmp_path):
    whole, path = tmp_path / "whole.npz", tmp_path / "gram.npz"
    metric.gram(networks, out=whole, progress=False)
    interrupt(metric, networks, path)
    content = bytearray(partial(path).read_bytes())
    content[:22] = b"hotnas-gram-partial 1\n"
    header = struct.Struct("<8s4QQI")
    length, _ = struct.unpack_from("<QI", content, 22)
    place = 22 + 12 + length
    while place < len(content):
        fields = list(header.unpack_from(content, place))
        end = place + header.size + fields[5]
        fields[6] = zlib.crc32(content[place + header.size : end])
        header.pack_into(content, place, *fields)
        place = end
    partial(path).write_bytes(content)
    _, pairs = computed_pairs(metric, networks, path)
    assert path.read_bytes() == whole.read_bytes()
    assert pairs < computed_pairs(metric, networks, tmp_path / "other.npz")[1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("distances", "(1000000000, 1000000000)"),
        ("distances", "(-2, -2)"),
        ("distances", "(" * 300),
        ("networks", "(10,)"),
        ("meta", "(2,)"),
    ],
)
def test_an_archive_with_a_false_header_is_refused(tmp_path, name, content):
    path = tmp_path / "gram.npz"
    arrays = {"distances": np.zeros((2, 2)), "networks": np.array(["a", "b"])}
    arrays["meta"] = np.array(json.dumps({"format": "hotnas-gram", "format_version": 1}))
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in arrays.items():
            file = io.BytesIO()
            np.save(file, array)
            data = file.getvalue()
            if key == name:
                text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, "
                text += f"'shape': {content}, }}"
                text = text.ljust(117 + 64 * (len(text) // 64)) + "\n"
                data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
                data += array.tobytes()
            archive.writestr(f"{key}.npy", data)
    with pytest.raises(GramFileError, match="not a readable Gram file"):
        load_gram(path)


@pytest.mark.parametrize("meta", ["[" * 100_000, "[1]", "7", '{"format": []}', "1" * 5000])
def test_a_description_of_another_form_is_refused(tmp_path, meta):
    path = tmp_path / "gram.npz"
    with path.open("wb") as file:
        np.savez(file, distances=np.zeros((1, 1)), networks=np.array(["a"]), meta=np.array(meta))
    with pytest.raises(GramFileError, match=re.escape(str(path))):
        load_gram(path)


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    path = tmp_path / "gram.npz"
    with path.open("wb") as file:
        np.savez_compressed(file, distances=np.zeros((3000, 3000)), networks=1, meta=1)
    with pytest.raises(GramFileError, match="is compressed"):
        load_gram(path)


def test_a_computation_is_taken_over(metric, networks, tmp_path):
    path = tmp_path / "gram.npz"

    later = {**metric._description(networks, None)._asdict(), "resume": True}
    del later["named"]
    writers = []

    def take_over(stage, done, total):
        if stage == "networks" and not writers:
            with pytest.raises(GramFileError, match="another process is writing"):
                metric.gram(networks, out=path, progress=False)
            writers.append(GramWriter(path, **later, overwrite=False, take_over=True))

    with pytest.raises(GramFileError, match="was taken over by another process"):
        metric.gram(networks, out=path, progress=take_over)
    assert writers[0]._records
    with writers[0], pytest.raises(GramFileError, match="another process is writing"):
        metric.gram(networks, out=path, progress=False)
    metric.gram(networks, out=path, progress=False)
    assert torch.equal(load_gram(path).distances, metric(networks))
    assert [file.name for file in tmp_path.iterdir()] == ["gram.npz"]
