"""What every distance gives for nothing: files, stores, resume, executors; one's own included."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import hotnas_torch as ht
from hotnas_torch.arch import Cell, Network
from hotnas_torch.distances import NAMES, NetworkDistance, sample_distances
from hotnas_torch.errors import ArchitectureError, GramFileError
from hotnas_torch.matrices import DeviceExecutor, GramStore, load_gram
from tests.matrices.own import Widths

SPACE = ht.spaces.TransNASMacro()
# Tiles of 7 networks: 4 * 256 bytes per pair and a quarter of the budget.
BUDGET = 7 * 7 * 4 * 256


def tiled(distance: NetworkDistance) -> NetworkDistance:
    distance.memory_budget = BUDGET
    return distance


DISTANCES: dict[str, Callable[[], NetworkDistance]] = {
    "hotnn": partial(ht.HOTNN, space=SPACE, memory_budget=BUDGET),
    # Too little for the table of the cells: tiles of networks compute what they need.
    "hotnn, cells in tiles": partial(ht.HOTNN, space=SPACE, memory_budget=64),
    "hotnn, paper": partial(ht.HOTNN, space=SPACE, memory_budget=BUDGET, preset="paper"),
    **{
        name: lambda name=name: tiled(ht.distances.get(name, space=SPACE))  # type: ignore[misc]
        for name in NAMES
        if name != "hotnn"
    },
    "own": lambda: tiled(Widths(SPACE)),
}

each = pytest.mark.parametrize("name", DISTANCES)


@pytest.fixture
def nets() -> list[Network]:
    found = SPACE.sample(24, generator=torch.Generator().manual_seed(0), distinct=True)
    # Some of them twice, and not in the order in which they are worked on.
    return found + found[5:9]


class Stop(Exception):
    pass


class Interrupting:
    """Computes some tiles, the last ones first, and then fails."""

    device = None

    def __init__(self, num: int) -> None:
        self.num, self.asked = num, 0

    def tiles(self, tiling: Any, blocks: Any, todo: Any) -> Any:
        self.asked += len(todo)
        # As if by another process.
        blocks = pickle.loads(pickle.dumps(blocks))
        for tile in reversed(todo):
            if self.num == 0:
                raise Stop
            self.num -= 1
            yield tile, tiling.compute(tile, blocks)


def test_every_distance_has_a_name_and_is_found_by_it() -> None:
    assert set(NAMES) <= set(DISTANCES)
    for name in NAMES:
        assert ht.distances.kind(name).name == name
    assert isinstance(ht.distances.get("tests.matrices.own:Widths", space=SPACE), Widths)
    for name, message in (
        ("edti", "did you mean 'edit'"),
        ("tests.matrices.own:SPACE", "must be a subclass of NetworkDistance"),
        ("tests.matrices.own:Absent", "cannot find tests.matrices.own:Absent: AttributeError"),
        ("no_such_module:Distance", "cannot find no_such_module:Distance: ModuleNotFoundError"),
    ):
        with pytest.raises(ValueError, match=message):
            ht.distances.get(name, space=SPACE)


@each
def test_a_matrix_is_symmetric_zero_between_equals_and_the_sum_of_nothing_else(
    name: str, nets: list[Network]
) -> None:
    distance = DISTANCES[name]()
    found = distance(nets)
    assert found.shape == (28, 28)
    assert found.dtype == distance.dtype
    assert torch.equal(found, found.T)
    assert (found.diagonal() == 0).all()
    assert (found[5:9, 24:].diagonal() == 0).all()
    assert bool((found > 0).any())
    assert torch.equal(distance(nets[:5], nets[3:]), found[:5, 3:])
    assert torch.equal(distance(nets[20:], nets[:4]), found[20:, :4])
    parts = distance.part_distances(nets)
    assert parts.shape == (len(distance.parts), 28, 28)
    assert parts.dtype == torch.float64
    torch.testing.assert_close(distance._combine(parts).to(found.dtype), found, rtol=1e-12, atol=0)


@each
def test_an_executor_changes_no_bit(name: str, nets: list[Network]) -> None:
    distance = DISTANCES[name]()
    expected = distance(nets)
    several = DeviceExecutor(["cpu", "cpu"])
    for executor in (several, Interrupting(1000)):
        assert torch.equal(distance(nets, executor=executor), expected)
        assert torch.equal(distance(nets[9:], nets[:12], executor=executor), expected[9:, :12])


@each
def test_an_interrupted_file_goes_on_and_ends_in_the_same_bytes(
    name: str, nets: list[Network], tmp_path: Path
) -> None:
    distance = DISTANCES[name]()
    whole, path = tmp_path / "whole.npz", tmp_path / "gram.npz"
    found = distance.gram(nets, out=whole, progress=False)
    assert torch.equal(found, distance(nets))
    everything = Interrupting(1000)
    distance.gram(nets, out=tmp_path / "other.npz", progress=False, executor=everything)
    stopped = Interrupting(everything.asked - 4)
    with pytest.raises(Stop):
        distance.gram(nets, out=path, progress=False, executor=stopped)
    assert not path.exists()
    rest = Interrupting(1000)
    again = DISTANCES[name]().gram(nets, out=path, progress=False, executor=rest)
    assert rest.asked == 4
    assert torch.equal(again, found)
    assert path.read_bytes() == whole.read_bytes()
    stored = load_gram(path)
    assert torch.equal(stored.distances, found)
    assert stored.networks == [SPACE.to_string(net) for net in nets]
    nothing = Interrupting(0)
    assert torch.equal(distance.gram(nets, out=path, progress=False, executor=nothing), found)


@each
def test_an_interrupted_store_goes_on_and_holds_the_same_bits(
    name: str, nets: list[Network], tmp_path: Path
) -> None:
    pytest.importorskip("zarr")
    distance, folder = DISTANCES[name](), tmp_path / "gram.zarr"
    found = distance(nets)
    with pytest.raises(Stop):
        distance.gram_store(nets, folder, progress=False, executor=Interrupting(4))
    with pytest.raises(GramFileError, match="holds an interrupted run"):
        GramStore(folder)
    store = DISTANCES[name]().gram_store(nets, folder, progress=False)
    assert torch.equal(store.tensor(), found)
    assert torch.equal(store.rows([27, 3]), found[[27, 3]])
    assert torch.equal(store.block([1, 25], [2, 8, 26]), found[[1, 25]][:, [2, 8, 26]])
    nothing = Interrupting(0)
    again = distance.gram_store(nets, folder, progress=False, executor=nothing)
    assert torch.equal(again.neighbors([0], 3).distances, store.neighbors([0], 3).distances)


@each
def test_what_an_earlier_result_holds_is_not_computed_again(
    name: str, nets: list[Network], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distance = DISTANCES[name]()
    earlier, whole, grown = (tmp_path / name for name in ("a.npz", "b.npz", "c.npz"))
    distance.gram(nets[:20], out=earlier, progress=False)
    found = distance.gram(nets, out=whole, progress=False)
    # In another order, and with one that is no longer wanted.
    distance.gram(nets[19:1:-1], out=tmp_path / "d.npz", progress=False)
    asked: list[int] = []
    compare = type(distance)._compare

    def counting(self: Any, rows: list[Network], cols: list[Network] | None) -> Any:
        asked.append(len(rows))
        return compare(self, rows, cols)

    monkeypatch.setattr(type(distance), "_compare", counting)
    for known in (earlier, tmp_path / "d.npz", whole):
        again = distance.gram(nets, out=grown, progress=False, known=known, overwrite=True)
        assert torch.equal(again, found)
        assert grown.read_bytes() == whole.read_bytes()
    assert asked == [4, 6, 1]  # repeated networks are known, and one row there must be
    for at_once in (0, 3, 1000):
        if at_once < 1000:
            with pytest.raises(Stop):
                distance.gram(
                    nets, out=earlier, progress=False, known=earlier, executor=Interrupting(at_once)
                )
            assert len(load_gram(earlier).networks) == 20
    distance.gram(nets, out=earlier, progress=False, known=earlier)
    assert earlier.read_bytes() == whole.read_bytes()
    with pytest.raises(GramFileError, match="holds 4 networks that are not among nets"):
        distance.gram(nets[:20], out=earlier, progress=False, known=earlier)
    assert earlier.read_bytes() == whole.read_bytes()
    store = tmp_path / "known.zarr"
    pytest.importorskip("zarr")
    distance.gram_store(nets[:20], store, progress=False)
    again = distance.gram(nets, out=grown, progress=False, known=store, overwrite=True)
    assert torch.equal(again, found)
    for known in (store, tmp_path / "d.npz"):
        kept = distance.gram_store(
            nets, tmp_path / "new.zarr", progress=False, known=known, overwrite=True
        )
        assert torch.equal(kept.tensor(), found)
    with pytest.raises(GramFileError, match="is the folder to write"):
        distance.gram_store(nets, store, progress=False, known=store)


@each
def test_an_earlier_result_of_other_settings_is_refused(
    name: str, nets: list[Network], tmp_path: Path
) -> None:
    distance, path = DISTANCES[name](), tmp_path / "gram.npz"
    Widths(SPACE, power=3.0).gram(nets, out=tmp_path / "other.npz", progress=False)
    with pytest.raises(GramFileError, match=r"known: .* holds other distances: .*distance is"):
        # What has no power says so, too.
        tiled(ht.distances.get("edit", space=SPACE)).gram(
            nets, out=path, progress=False, known=tmp_path / "other.npz"
        )
    with pytest.raises(GramFileError, match=r"power is 3\.0 there and 0\.5 here"):
        Widths(SPACE).gram(nets, out=path, progress=False, known=tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        distance.gram(nets, out=path, progress=False, known=tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(GramFileError, match="is not a readable Gram file"):
        distance.gram(nets, out=path, progress=False, known=tmp_path / "text.npz")
    assert not path.exists()
    assert not (tmp_path / "gram.npz.partial").exists()


@each
def test_the_nearest_neighbours_are_those_of_the_matrix(name: str, nets: list[Network]) -> None:
    distance = DISTANCES[name]()
    matrix = distance(nets)
    others = matrix.clone().fill_diagonal_(torch.inf)
    for k in (1, 4, len(nets) - 1):
        expected, places = others.sort(dim=1, stable=True)
        found = distance.neighbors(nets, k)
        assert torch.equal(found.distances, expected[:, :k])
        assert torch.equal(found.indices, places[:, :k])
    expected, places = matrix[:9, 4:].sort(dim=1, stable=True)
    found = distance.neighbors(nets[:9], 24, among=nets[4:])
    assert torch.equal(found.distances, expected)
    assert torch.equal(found.indices, places)
    for k, error in ((0, ValueError), (28, ValueError), (2.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="k must be"):
            distance.neighbors(nets, k)  # type: ignore[arg-type]


@each
def test_what_belongs_to_another_computation_is_refused_and_kept(
    name: str, nets: list[Network], tmp_path: Path
) -> None:
    distance, path = DISTANCES[name](), tmp_path / "gram.npz"
    distance.gram(nets, out=path, progress=False)
    content = path.read_bytes()
    other = Widths(SPACE, power=3.0)
    with pytest.raises(GramFileError, match="belongs to another computation"):
        other.gram(nets, out=path, progress=False)
    with pytest.raises(GramFileError, match="it holds 28 networks, this computation has 27"):
        distance.gram(nets[1:], out=path, progress=False)
    with pytest.raises(GramFileError, match="its networks are others, or in another order"):
        distance.gram(nets[::-1], out=path, progress=False)
    assert path.read_bytes() == content
    path.write_bytes(content[:-40])
    with pytest.raises(GramFileError, match="is not a readable Gram file"):
        distance.gram(nets, out=path, progress=False)
    distance.gram(nets, out=path, progress=False, overwrite=True)
    assert path.read_bytes() == content


@each
def test_a_damaged_unfinished_file_is_refused_and_kept(
    name: str, nets: list[Network], tmp_path: Path
) -> None:
    distance, path = DISTANCES[name](), tmp_path / "gram.npz"
    with pytest.raises(Stop):
        distance.gram(nets, out=path, progress=False, executor=Interrupting(3))
    part = tmp_path / "gram.npz.partial"
    content = bytearray(part.read_bytes())
    content[-3] ^= 0xFF
    part.write_bytes(content)
    with pytest.raises(GramFileError, match="a finished tile has a wrong checksum"):
        distance.gram(nets, out=path, progress=False)
    assert part.read_bytes() == content


@each
def test_foreign_networks_are_refused_by_their_place(
    name: str, nets: list[Network], tmp_path: Path
) -> None:
    distance = DISTANCES[name]()
    foreign = Network.chain([Cell(("input", "attention", "output"), ((0, 1), (1, 2)))], (8,), (1,))
    path = tmp_path / "gram"
    calls: list[tuple[str, Callable[[list[Any]], Any]]] = [
        ("nets_a", distance),
        ("nets_a", distance.part_distances),
        ("nets_b", lambda given: distance(nets[:2], given)),
        ("nets", lambda given: distance.gram(given, out=path, progress=False)),
        ("nets", lambda given: distance.gram_store(given, path, progress=False)),
        ("nets", lambda given: distance.neighbors(given, 1)),
        ("among", lambda given: distance.neighbors(nets[:2], 1, among=given)),
    ]
    for argument, call in calls:
        with pytest.raises((ArchitectureError, ValueError), match=rf"{argument}\[2\]"):
            call([*nets[:2], foreign])
        with pytest.raises(TypeError, match=rf"{argument}\[1\] must be a Network; got"):
            call([nets[0], "net"])
        with pytest.raises(ValueError, match=f"{argument} must hold at least one Network"):
            call([])
        with pytest.raises(TypeError, match=rf"{argument} must be a list or tuple of Network"):
            call(nets[0])  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@each
def test_progress_ends_at_all_pairs(name: str, nets: list[Network], tmp_path: Path) -> None:
    distance = DISTANCES[name]()
    for call in (distance, partial(distance.gram, out=tmp_path / "gram.npz")):
        seen: list[tuple[str, int, int]] = []
        call(nets, progress=lambda *step, seen=seen: seen.append(step))  # type: ignore[misc]
        assert ("networks", 0) in [step[:2] for step in seen]
        stage, done, total = seen[-1]
        assert stage == "networks"
        assert done == total > 0


@each
def test_its_settings_are_shown_and_a_copy_is_the_same(name: str, nets: list[Network]) -> None:
    distance = DISTANCES[name]()
    assert distance.config()["space"] == SPACE.name
    assert repr(distance).startswith(f"{type(distance).__name__}(space='transnas_macro', ")
    copy = pickle.loads(pickle.dumps(distance))
    assert copy.config() == distance.config()
    assert torch.equal(copy(nets[:6]), distance(nets[:6]))


@each
def test_samples_of_networks_are_compared(name: str, nets: list[Network]) -> None:
    distance = DISTANCES[name]()
    samples = [nets[:3], nets[3:8], nets[2::-1]]
    found = sample_distances(distance, samples)
    assert found.dtype == distance.dtype
    assert found[0, 2] == 0.0
    assert torch.equal(found, found.T)
    best = distance(nets[:3], nets[3:8])
    assert best.min() <= found[0, 1] <= best.max()


@pytest.mark.slow  # by default HOTNN's is killed: tests/matrices/test_gram_file.py
@pytest.mark.parametrize("name", [*NAMES, "tests.matrices.own:Widths"])
def test_a_killed_process_is_gone_on_with_to_the_byte(name: str, tmp_path: Path) -> None:
    script = tmp_path / "compute.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            import torch
            import hotnas_torch as ht

            torch.set_num_threads(1)
            name, path, mode = sys.argv[1:]
            space = ht.spaces.TransNASMacro()
            nets = space.sample(24, generator=torch.Generator().manual_seed(0), distinct=True)

            def progress(stage, done, total):
                print(stage, flush=True)
                if mode == "slow" and stage == "networks":
                    time.sleep(0.2)

            settings = {"memory_budget": 49 * 1024} if name == "hotnn" else {}
            distance = ht.distances.get(name, space=space, **settings)
            distance.memory_budget = 49 * 1024
            distance.gram(nets, out=path, progress=progress)
            """
        )
    )
    root = Path(__file__).parents[2]
    whole, killed = tmp_path / "whole.npz", tmp_path / "killed.npz"

    def start(path: Path, mode: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(script), name, str(path), mode],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(root)},
        )

    victim = start(killed, "slow")
    assert victim.stdout is not None
    tiles = 0
    for line in victim.stdout:
        tiles += line.startswith("networks")
        if tiles == 5:
            victim.send_signal(signal.SIGKILL)
            break
    victim.stdout.close()
    assert victim.wait() == -signal.SIGKILL
    assert not killed.exists()
    assert (tmp_path / "killed.npz.partial").stat().st_size > 500
    for path in (whole, killed):
        process = start(path, "fast")
        process.communicate()
        assert process.returncode == 0
    assert killed.read_bytes() == whole.read_bytes()


def test_what_requires_gradients_is_computed_here(nets: list[Network]) -> None:
    class Never:
        device = None

        def tiles(self, *_: Any) -> Any:
            raise AssertionError("sent away")

    alpha = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    nu = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    tree = SPACE.tree
    lengths = tree.lengths_tensor(dtype=torch.float64).requires_grad_()
    for distance, parameter in (
        (ht.distances.TreeWasserstein(SPACE, alpha=alpha), alpha),
        (ht.distances.OTMANN(SPACE, nu=nu), nu),
        (ht.distances.EditDistance(SPACE, tree=tree.with_lengths(lengths)), lengths),
    ):
        (slope,) = torch.autograd.grad(distance(nets, executor=Never()).sum(), parameter)
        (expected,) = torch.autograd.grad(distance(nets).sum(), parameter)
        assert torch.equal(slope, expected)
        assert slope.abs().sum() > 0


def test_a_distance_of_processors_is_not_sent_to_another_kind_of_device(
    nets: list[Network],
) -> None:
    blocks = (
        ht.distances.EditDistance(SPACE)
        ._compare(nets, None)
        .blocks(progress=False, stages=None, executor=None)
    )
    assert blocks.to(torch.device("cpu")) is blocks
    with pytest.raises(ValueError, match="executor solves on 'cuda', and EditDistance is computed"):
        blocks.to(torch.device("cuda"))


def test_a_class_that_forgets_something_says_what(nets: list[Network], tmp_path: Path) -> None:
    class Nothing(NetworkDistance):
        name = "nothing"

    class Nameless(Widths):
        name = ""

    class Unsettled(NetworkDistance):
        name = "unsettled"
        _tables, _values = Widths._tables, Widths._values
        power = 1.0

    with pytest.raises(NotImplementedError, match="Nothing must define _tables"):
        Nothing(SPACE)(nets)
    for distance in (Nameless(SPACE), Unsettled(SPACE)):
        assert distance(nets).max() > 0
        with pytest.raises(NotImplementedError, match="must define name and config"):
            distance.gram(nets, out=tmp_path / "gram.npz")
        with pytest.raises(NotImplementedError, match="must define name and config"):
            distance.gram_store(nets, tmp_path / "gram.zarr")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError, match="space must be a SearchSpace; got 'darts'"):
        Nothing("darts")  # type: ignore[arg-type]
