import json
import os
import sys

import pytest
import torch

import hotnas_torch as ht
from hotnas_torch.errors import GramFileError
from hotnas_torch.matrices import GramStore
from hotnas_torch.matrices.gram_file import lock
from hotnas_torch.matrices.gram_store_writer import GramStoreWriter

zarr = pytest.importorskip("zarr")
numcodecs = pytest.importorskip("numcodecs")

SPACE = ht.spaces.NASBenchMacro()
# Tiles of 25 networks: 4 * 256 bytes per pair and a quarter of the budget.
BUDGET = 25 * 25 * 4 * 256


@pytest.fixture(scope="module")
def nets():
    found = SPACE.sample(70, generator=torch.Generator().manual_seed(0), distinct=True)
    # Some of them twice, and not in the order in which they are worked on.
    return found + found[10:20]


@pytest.fixture(scope="module")
def metric():
    return ht.HOTNN(space=SPACE, memory_budget=BUDGET)


@pytest.fixture(scope="module")
def expected(metric, nets):
    return metric(nets)


@pytest.fixture(scope="module")
def store(metric, nets, tmp_path_factory):
    return metric.gram_store(nets, tmp_path_factory.mktemp("store") / "gram.zarr", progress=False)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "gram.zarr"


def test_the_store_holds_the_matrix_to_the_bit(store, nets, expected):
    assert len(store) == len(nets) == 80
    assert torch.equal(store.tensor(), expected)
    assert store.dtype == expected.dtype
    assert store.networks == [SPACE.to_string(net) for net in nets]
    assert store.meta["settings"]["space"] == "nasbench_macro"


def test_only_the_upper_half_of_the_distinct_networks_is_there(store):
    chunks = sorted(
        path.parent.name + path.name for path in (store.folder / "distances/c").glob("*/*")
    )
    assert chunks == ["00", "01", "02", "11", "12", "22"]
    assert zarr.open_group(store.folder, mode="r")["distances"].shape == (70, 70)


def test_rows_and_blocks_read_only_their_tiles(store, expected, monkeypatch):
    read = []
    tile = GramStore._tile
    monkeypatch.setattr(
        GramStore, "_tile", lambda self, i, j: read.append((i, j)) or tile(self, i, j)
    )
    wanted = torch.tensor([79, 3, 3])
    assert torch.equal(store.rows(wanted), expected[wanted])
    assert len(read) <= 2 * 3
    read.clear()
    assert torch.equal(store.block([5], [6, 5]), expected[[5]][:, [6, 5]])
    assert len(read) <= 2


def test_neighbors_are_the_nearest_others(store, expected):
    without = expected.clone().fill_diagonal_(torch.inf)
    values, indices = without.sort(dim=1, stable=True)
    found = store.neighbors(range(80), 5)
    assert torch.equal(found.distances, values[:, :5])
    assert torch.equal(found.indices, indices[:, :5])
    # Equal networks are neighbours at distance 0.
    assert found.distances[10, 0] == 0.0
    assert found.indices[10, 0] == 70


def test_kernel_rows(store, expected):
    torch.testing.assert_close(
        store.kernel([4, 7], [1, 2, 3], lengthscale=0.3, outputscale=2.0),
        2.0 * torch.exp(-expected[[4, 7]][:, [1, 2, 3]] / 0.3),
        rtol=0.0,
        atol=0.0,
    )
    assert store.kernel([4], lengthscale=1.0).shape == (1, 80)


def test_what_cannot_be_answered_is_refused(store):
    with pytest.raises(IndexError, match="between 0 and 79; got 80"):
        store.rows([80])
    with pytest.raises(ValueError, match="k must be between 1 and 79"):
        store.neighbors([0], 80)
    with pytest.raises(ValueError, match="lengthscale must be positive"):
        store.kernel([0], lengthscale=0.0)


class _Interrupting:
    """Computes some tiles and then fails."""

    device = None

    def __init__(self, num):
        self.num = num
        self.asked = []

    def tiles(self, tiling, blocks, todo):
        self.asked.append((blocks, [tile.index for tile in todo]))
        # In another order than asked for, as tiles finish on a cluster.
        for tile in reversed(todo):
            if self.num == 0:
                raise KeyboardInterrupt
            self.num -= 1
            yield tile, tiling.compute(tile, blocks)


def test_an_interrupted_run_goes_on_where_it_was(metric, nets, folder, expected):
    with pytest.raises(KeyboardInterrupt):
        metric.gram_store(nets, folder, progress=False, executor=_Interrupting(3))
    with pytest.raises(GramFileError, match="holds an interrupted run"):
        GramStore(folder)
    rest = _Interrupting(100)
    store = metric.gram_store(nets, folder, progress=False, executor=rest)
    assert sum(len(indices) for _, indices in rest.asked) == 1 + 6 - 3
    assert torch.equal(store.tensor(), expected)
    nothing = _Interrupting(0)
    assert torch.equal(
        metric.gram_store(nets, folder, progress=False, executor=nothing).tensor(), expected
    )
    assert nothing.asked == []


def test_tiles_of_another_gpu_are_told_from_damage(metric, nets, folder, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        metric.gram_store(nets, folder, progress=False, executor=_Interrupting(3))
    for module in ("prepared_networks", "ifgw"):  # as where a GPU asks for larger ones
        monkeypatch.setattr(f"hotnas_torch.distances.{module}.tile_edge", lambda *_, **__: 64)
    with pytest.raises(GramFileError, match=r"has tiles of 25 a side .* tiles of 64 "):
        metric.gram_store(nets, folder, progress=False)


def test_a_tile_that_is_cut_off_is_computed_again(metric, nets, folder, expected):
    store = metric.gram_store(nets, folder, progress=False)
    (folder / "distances/c/1/1").unlink()
    with pytest.raises(GramFileError, match=r"lacks tile \(1, 1\)"):
        store.tensor()
    tile = folder / "distances/c/0/1"
    tile.write_bytes(tile.read_bytes()[:-5])
    with pytest.raises(GramFileError, match="is damaged"):
        store.tensor()
    attributes = json.loads((folder / "zarr.json").read_text())
    attributes["attributes"]["state"] = "running"
    (folder / "zarr.json").write_text(json.dumps(attributes))
    again = _Interrupting(100)
    store = metric.gram_store(nets, folder, progress=False, executor=again)
    assert [sorted(indices) for _, indices in again.asked] == [[1, 3]]
    assert torch.equal(store.tensor(), expected)


def test_a_store_is_replaced_only_when_told(metric, nets, folder, expected):
    metric.gram_store(nets[:5], folder, progress=False)
    with pytest.raises(GramFileError, match="holds 5 networks, this computation has 80"):
        metric.gram_store(nets, folder, progress=False)
    with pytest.raises(GramFileError, match=r"zeta is 0\.0 there and 0\.5 here"):
        ht.HOTNN(space=SPACE, memory_budget=BUDGET, zeta=0.5).gram_store(nets[:5], folder)
    with pytest.raises(GramFileError, match="holds a finished run"):
        metric.gram_store(nets[:5], folder, resume=False)
    assert len(GramStore(folder)) == 5
    store = metric.gram_store(nets, folder, progress=False, overwrite=True)
    assert torch.equal(store.tensor(), expected)


def test_a_folder_of_something_else_is_left_alone(metric, nets, folder):
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(GramFileError, match="not a Gram store"):
            metric.gram_store(nets, folder, overwrite=overwrite)
    zarr.open_group(folder / "other", mode="w-")
    with pytest.raises(GramFileError, match="not a Gram store"):
        metric.gram_store(nets, folder / "other", overwrite=True)
    with pytest.raises(GramFileError, match="not a Gram store"):
        GramStore(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(FileNotFoundError):
        GramStore(folder / "nothing")


def test_one_process_writes_at_a_time(metric, nets, folder):
    writer = {
        "settings": {},
        "keys": ["a"],
        "names": ["a"],
        "items": torch.tensor([0]),
        "edge": 4,
        "dtypes": (torch.float32, torch.float32),
        "resume": True,
        "overwrite": False,
    }
    with (
        GramStoreWriter(folder, **writer),
        pytest.raises(GramFileError, match="another process is writing"),
    ):
        GramStoreWriter(folder, **writer)
    GramStoreWriter(folder, **writer).__exit__(None, None, None)


def test_a_start_that_was_cut_off_is_begun_again(metric, nets, folder, expected, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(GramStoreWriter, "_make", killed)
        with pytest.raises(KeyboardInterrupt):
            metric.gram_store(nets, folder)
    assert (folder / "zarr.json").is_file()
    assert torch.equal(metric.gram_store(nets, folder, progress=False).tensor(), expected)


def test_a_folder_that_cannot_be_made_is_refused(metric, nets, folder):
    folder.write_text("a file")
    with pytest.raises(GramFileError, match="cannot write the folder"):
        metric.gram_store(nets, folder)


def test_cells_that_do_not_fit_are_computed_with_the_networks(nets, folder, expected):
    small = ht.HOTNN(space=SPACE, memory_budget=16)
    assert torch.equal(
        small.gram_store(nets[:12], folder, progress=False).tensor(), expected[:12, :12]
    )


def test_a_read_only_store_can_be_read(store, expected, monkeypatch):
    monkeypatch.setattr(os, "replace", None)
    assert torch.equal(GramStore(store.folder).rows([0]), expected[[0]])


def test_without_zarr_it_says_what_to_install(metric, nets, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"pip install 'hotnas-torch\[ray\]'"):
        metric.gram_store(nets, folder)
    assert not folder.exists()


def test_replacing_a_store_deletes_nothing_else(metric, nets, folder, expected):
    metric.gram_store(nets[:5], folder, progress=False)
    mine = [folder / "notes.txt", folder / "mine" / "a", folder / "distances" / "c" / "b.txt"]
    mine[1].parent.mkdir()
    for path in mine:
        path.write_text("mine")
    store = metric.gram_store(nets, folder, progress=False, overwrite=True)
    assert torch.equal(store.tensor(), expected)
    assert [path.read_text() for path in mine] == ["mine"] * 3


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("zarr.json", lambda found: found["attributes"].pop("state")),
        ("zarr.json", lambda found: found["attributes"].update(state=7)),
        ("zarr.json", lambda found: found.update(attributes=[1])),
        ("zarr.json", lambda found: found["attributes"].update(num_networks="many")),
        ("zarr.json", lambda found: found.update(zarr_format="3")),
        ("distances/zarr.json", lambda found: found.update(shape=[10**9, 10**9])),
        ("distances/zarr.json", lambda found: found.update(shape=[5])),
        ("distances/zarr.json", lambda found: found.update(data_type="int8")),
        ("distances/zarr.json", lambda found: found.update(codecs=[{"name": "pickle"}])),
        ("distances/zarr.json", lambda found: found.update(node_type="group")),
        ("item/zarr.json", lambda found: found.update(shape=[10**12])),
        ("item/zarr.json", lambda found: found.update(data_type="float64")),
        ("networks/zarr.json", lambda found: found.update(shape=[3])),
    ],
)
def test_a_store_with_a_damaged_description_is_refused(metric, nets, folder, member, change):
    metric.gram_store(nets[:9], folder, progress=False)
    path = folder / member
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(GramFileError, match=str(folder)):
        _ = GramStore(folder).networks
    path.write_text("[" * 100_000)
    with pytest.raises(GramFileError, match=str(folder)):
        GramStore(folder)


def compressed(folder, names, size=None):
    """Writes arrays again as earlier versions did."""
    root = zarr.open_group(folder, mode="r+")
    for name in names:
        data = root[name][:]
        del root[name]
        chunk = len(data) if size is None else size
        root.create_array(name, data=data, chunks=(chunk,))
        assert root[name].metadata.codecs[1].to_dict()["name"] == "zstd"


def test_a_store_of_an_earlier_version_is_read(metric, nets, folder, expected):
    metric.gram_store(nets, folder, progress=False)
    compressed(folder, ["item", "networks"])
    store = GramStore(folder)
    assert torch.equal(store.tensor(), expected)
    assert store.networks == GramStore(folder).networks != []


@pytest.mark.parametrize("name", ["item", "networks"])
def test_what_unpacks_to_more_than_it_should_is_not_unpacked(metric, nets, folder, name):
    metric.gram_store(nets, folder, progress=False)
    compressed(folder, [name])
    chunk = folder / name / "c" / "0"
    whole = chunk.read_bytes()
    huge = numcodecs.Zstd().encode(bytes(2**26))
    assert len(huge) < 10_000
    for content in (huge, b"", whole[:4], b"\x28\xb5\x2f\xfd" + bytes(20), b"0" * 100):
        chunk.write_bytes(content)
        with pytest.raises(GramFileError, match=r"does not hold [\d,]+ bytes"):
            _ = GramStore(folder).networks
    chunk.write_bytes(whole)
    path = folder / name / "zarr.json"
    described = json.loads(path.read_text())
    described["chunk_grid"]["configuration"]["chunk_shape"] = [2**30]
    path.write_text(json.dumps(described))
    with pytest.raises(GramFileError, match="has chunks of 1073741824 entries"):
        _ = GramStore(folder).networks


@pytest.mark.parametrize("name", ["distances", "item", "networks"])
@pytest.mark.parametrize("kind", ["missing", "pipe", "longer", "flipped"])
def test_a_chunk_that_is_not_as_it_was_written_is_refused(metric, nets, folder, name, kind):
    metric.gram_store(nets, folder, progress=False)
    chunk = folder / name / "c" / ("0/0" if name == "distances" else "0")
    whole = chunk.read_bytes()
    chunk.unlink()
    if kind == "pipe":
        os.mkfifo(chunk)
    elif kind == "longer":
        chunk.write_bytes(whole + b"0")
    elif kind == "flipped":
        chunk.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(GramFileError, match=r"is damaged|lacks tile \(0, 0\)"):
        _ = (store := GramStore(folder)).networks, store.tensor()


def test_a_store_says_its_version_in_a_whole_number(metric, nets, folder):
    metric.gram_store(nets, folder, progress=False)
    path = folder / "zarr.json"
    for version in (1.0, True, "1"):
        described = json.loads(path.read_text())
        described["attributes"]["format_version"] = version
        path.write_text(json.dumps(described))
        with pytest.raises(GramFileError, match=f"has Gram store version {version!r}"):
            GramStore(folder)


@pytest.mark.parametrize("member", ["zarr.json", "item/zarr.json"])
def test_a_pipe_in_a_store_makes_nobody_wait(metric, nets, folder, member):
    metric.gram_store(nets, folder, progress=False)
    (folder / member).unlink()
    os.mkfifo(folder / member)
    with pytest.raises(GramFileError, match="no ordinary file"):
        GramStore(folder)
    with pytest.raises(GramFileError, match="no ordinary file"):
        metric.gram_store(nets, folder, progress=False, resume=True)


def test_a_store_is_taken_over(metric, nets, folder, expected):
    locks = []

    def take_over(stage, done, total):
        if stage == "networks" and not locks:
            with pytest.raises(GramFileError, match="another process is writing"):
                metric.gram_store(nets, folder, progress=False)
            locks.append(lock(folder, take_over=True))

    with pytest.raises(GramFileError, match="was taken over by another process"):
        metric.gram_store(nets, folder, progress=take_over)
    metric.gram_store(nets, folder, progress=False, take_over=True)
    locks[0].close()
    assert torch.equal(GramStore(folder).tensor(), expected)


def test_a_store_of_rounded_distances_is_half_as_large(metric, nets, folder, store, expected):
    rounded = metric.gram_store(nets, folder, progress=False, stored_as=torch.float16)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded.tensor(), expected.half().float())
    assert ((rounded.tensor() - expected).abs() <= expected * 2**-11).all()
    sizes = [
        sum(path.stat().st_size for path in (found.folder / "distances/c").glob("*/*"))
        for found in (rounded, store)
    ]
    assert sizes[0] < 0.51 * sizes[1]
    # What they are computed from, and an interrupted run goes on from, keeps its digits.
    cells = zarr.open_group(folder, mode="r", zarr_format=3)["cells"]
    assert str(cells.dtype) == str(expected.dtype).removeprefix("torch.")
    again = metric.gram_store(nets, folder, progress=False, stored_as=torch.float16)
    assert torch.equal(again.tensor(), rounded.tensor())
    with pytest.raises(GramFileError, match="stored_as is 'float16' there and None here"):
        metric.gram_store(nets, folder, progress=False)


def test_rounded_distances_grow_rounded_ones_alone(metric, nets, tmp_path, expected):
    half = {"progress": False, "stored_as": torch.float16}
    metric.gram_store(nets[:50], tmp_path / "half", **half)
    metric.gram_store(nets[:50], tmp_path / "whole", progress=False)
    for known in ("half", "whole"):
        grown = metric.gram_store(nets, tmp_path / f"{known}_grown", known=tmp_path / known, **half)
        assert torch.equal(grown.tensor(), expected.half().float())
    with pytest.raises(GramFileError, match="stored_as is 'float16' there and None here"):
        metric.gram(nets, out=tmp_path / "out.npz", known=tmp_path / "half", progress=False)


class Far(ht.distances.NetworkDistance):
    name = "far"

    def config(self):
        return super().config()

    def _tables(self, nets):
        return torch.arange(float(len(nets)))

    def _values(self, tables, i, j):
        return 1e5 * (tables[i] - tables[j]).abs()[None]


def test_what_a_type_cannot_say_is_refused(nets, folder, tmp_path):
    far = Far(SPACE)
    with pytest.raises(GramFileError, match=r"float16 cannot say the distance .* 65504"):
        far.gram_store(nets, folder, progress=False, stored_as=torch.float16)
    with pytest.raises(ValueError, match=r"stored_as must be one of .*; got torch.int8"):
        far.gram_store(nets, tmp_path / "other", progress=False, stored_as=torch.int8)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("count", [1, 2])
def test_a_store_of_one_network_can_be_read(metric, nets, folder, count):
    store = metric.gram_store(nets[:1] * count, folder, progress=False)
    assert torch.equal(store.tensor(), torch.zeros(count, count, dtype=metric.dtype))


def test_a_type_that_rounds_nothing_changes_nothing(metric, nets, tmp_path, expected):
    wide = metric.gram_store(nets, tmp_path / "a", progress=False, stored_as=torch.float64)
    assert torch.equal(wide.tensor(), expected)
    again = metric.gram_store(nets, tmp_path / "a", progress=False, stored_as=metric.dtype)
    assert again.meta["fingerprint"] == wide.meta["fingerprint"]
    grown = metric.gram(nets, out=tmp_path / "b.npz", known=tmp_path / "a", progress=False)
    assert torch.equal(grown, expected)


def test_distances_that_are_no_numbers_are_not_stored(nets, folder):
    class Broken(Far):
        def _values(self, tables, i, j):
            return torch.where(j - i == 3, torch.nan, super()._values(tables, i, j))

    with pytest.raises(GramFileError, match=r"distances of the tile at \(0, 0\) are NaN"):
        Broken(SPACE).gram_store(nets, folder, progress=False)


def test_masks_and_fractions_are_no_numbers_of_networks(store):
    for wrong in (torch.tensor([False, True]), [2.9], torch.tensor([1.0])):
        with pytest.raises(TypeError, match="networks must be whole numbers"):
            store.rows(wrong)
    assert store.rows([]).shape == (0, len(store))
