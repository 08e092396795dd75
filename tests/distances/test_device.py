"""Distances are computed where they are asked for, on a device that records what leaves it."""

import pickle

import pytest
import torch
from torch import Tensor

import hotnas_torch as ht
from hotnas_torch import _ext
from hotnas_torch.matrices.pairwise import Tiling
from tests.generators.far_device import FAR, far_device, near

CPU = torch.device("cpu")

pytestmark = pytest.mark.ext


@pytest.fixture(autouse=True)
def _compiled_for_the_far_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # there the torch text would have to look at the values for which a kernel needs no host
    monkeypatch.setattr(_ext, "serves", lambda device: bool(device))


@pytest.mark.parametrize("name", ["nasbench_macro", "nasbench201", "transnas_macro", "nasbench101"])
def test_only_flags_leave_the_device(name: str, rng: torch.Generator) -> None:
    space = ht.spaces.get(name)
    networks = space.sample(12, generator=rng)
    expected = ht.HOTNN(space=space)(networks)
    with far_device() as moved:
        distance = ht.HOTNN(space=space, device=FAR)
        square, part = distance(networks), distance(networks[:5], networks)
    assert square.device == part.device == FAR
    assert torch.equal(near(square), expected)
    assert torch.equal(near(part), expected[:5])
    assert {dtype for dtype, _ in moved} == {torch.bool}


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "transnas_macro"])
def test_a_tile_waits_four_times(name: str, rng: torch.Generator) -> None:
    space = ht.spaces.get(name)
    networks = space.sample(60, generator=rng, distinct=True)
    with far_device() as moved:
        prepared = ht.HOTNN(space=space, device=FAR)._compare(networks, None)
        cells, _ = prepared.cells()
        before = moved.waits
        prepared.cell_tables.block(cells, cells)
        assert moved.waits - before <= 2, "whatever sizes cells have"
        blocks = prepared.blocks(progress=False, stages=None, executor=None)
        first, second = torch.arange(len(prepared.tables.cells)).chunk(2)
        for chosen in ((first, first), (first, second)):
            before, sent = moved.waits, moved.sent
            blocks(*chosen)
            assert moved.waits - before <= 4
            assert moved.sent - sent < 1000 * len(networks)  # rows, not pairs


def test_gradients_stay_on_the_device(rng: torch.Generator) -> None:
    space = ht.spaces.NASBench201()
    networks = space.sample(8, generator=rng)

    def gradients(device: torch.device) -> list[Tensor]:
        lam, eta = (
            torch.tensor(value, dtype=torch.float64, device=device).requires_grad_()
            for value in (0.4, 0.6)
        )
        distance = ht.HOTNN(space=space, lam=lam, eta=eta, device=device, dtype=torch.float64)
        return list(torch.autograd.grad(distance(networks).sum(), [lam, eta]))

    expected = gradients(torch.device("cpu"))
    with far_device() as moved:
        found = gradients(FAR)
    assert [near(value) for value in found] == expected
    # lam and eta themselves are numbers of the host as well
    assert {count for dtype, count in moved if dtype.is_floating_point} == {1}


@pytest.mark.parametrize("budget", [2**20, 64])
def test_what_is_sent_to_a_cluster_lies_on_the_host(budget: int, rng: torch.Generator) -> None:
    cluster = pytest.importorskip("hotnas_torch.integrations.ray.cluster")
    space = ht.spaces.NASBench201()
    networks = space.sample(6, generator=rng, distinct=True)
    expected = ht.HOTNN(space=space)(networks)
    with far_device():
        metric = ht.HOTNN(space=space, device=FAR, memory_budget=budget)
        prepared = metric._compare(networks, None)
        blocks = prepared.blocks(progress=False, stages=None, executor=None)
        tiling = Tiling(prepared.row_items, None, 6)
        sent = cluster._packed(tiling, blocks, None)
    # Tensors of the far device cannot be written, like those of a GPU that is not there be read.
    received, solver = cluster._unpack((*pickle.loads(pickle.dumps(sent))[:2], CPU, sent[3]))
    found = torch.empty_like(expected)
    (tile,) = received.tiles
    found[received.where(tile)] = received.compute(tile, solver)
    assert torch.equal(found, expected)
    assert sent[2] == FAR
    with far_device():
        _, solver = cluster._unpack(sent)
        values = received.compute(tile, solver)
    assert values.device == FAR
    assert torch.equal(near(values), found[received.where(tile)])


def test_tensors_of_two_devices_are_refused() -> None:
    with far_device():
        there = torch.ones(3, device=FAR)
        with pytest.raises(RuntimeError, match="of two devices"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError, match="of two devices"):
            torch.ones(3)[torch.tensor([0, 1], device=FAR)]
        assert near(there[torch.tensor([0, 1])] + torch.tensor(2.0)).tolist() == [3.0, 3.0]


def test_what_leaves_is_recorded() -> None:
    with far_device() as moved:
        there = torch.ones(3, device=FAR)
        assert float(there.sum()) == 3.0
        assert bool((there > 0).all())
        there.cpu()
        torch.zeros(3).copy_(there)
    expected = [(torch.float32, 1), (torch.bool, 1), (torch.float32, 3), (torch.float32, 3)]
    assert moved == expected
