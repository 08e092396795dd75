"""Every operator on a GPU against the same operator on the CPU."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import hotnas_torch as ht
from hotnas_torch import _ext
from hotnas_torch.gp import HOTNNGP
from hotnas_torch.matrices import DeviceExecutor
from hotnas_torch.ot._operators import (
    cell_distances,
    entropic_fgw,
    entropic_transport,
    fgw,
    fgw_backward,
    fgw_lower_bound,
    kl_transport,
    network_distances,
    partial_fgw,
    partial_transport,
    semirelaxed_fgw,
    sinkhorn,
    transport,
    unbalanced_sinkhorn,
)
from tests.generators.problems import Graphs, graphs

pytestmark = [pytest.mark.cuda, pytest.mark.ext]

SIZES = [(1, 1), (7, 8), (8, 8), (9, 7), (16, 16), (17, 5), (31, 33), (32, 32), (40, 40)]


@pytest.fixture(autouse=True)
def _compiled_for_cuda() -> None:
    if not _ext.cuda_architectures():
        pytest.fail("a GPU is here, but the compiled core has no CUDA kernels (make cuda)")


def calls(p: Graphs) -> dict[str, Callable[..., Any]]:
    """Each op with arguments made of `p`; the objective or what else is unique comes first."""
    none = p.cost.new_empty(0)
    batch, n, m = p.cost.shape
    to = {"device": p.cost.device}
    index = torch.arange(batch, **to)
    labels_x = (torch.arange(batch * n, **to) % 3).view(batch, n)
    labels_y = (torch.arange(batch * m, **to) % 3).view(batch, m)
    label_cost = 1 - torch.eye(3, dtype=p.cost.dtype, **to)
    x, y = p.a[:, :, None].contiguous(), p.b[:, :, None].contiguous()
    plan = (p.a[:, :, None] * p.b[:, None, :]).contiguous()
    barred = p.cost.clone()
    barred[:, 1:, :1] = torch.inf
    return {
        "transport": lambda: transport(p.cost, p.a, p.b, backend="ext")[1],
        "sinkhorn": lambda: sinkhorn(p.cost, p.a, p.b, 0.1, 1e-4, 100, backend="ext")[2:3],
        "entropic_transport": lambda: entropic_transport(
            p.cost, p.a, p.b, 0.1, 1e-4, 100, backend="ext"
        )[:6],
        "fgw": lambda: fgw(*p.tensors(), none, none, 0, 1, 3, 1e-4, 100, backend="ext")[1],
        "partial_transport": lambda: partial_transport(
            barred, p.a, p.b, 0.5 + 0 * p.alpha, backend="ext"
        )[1],
        "partial_fgw": lambda: partial_fgw(
            *p.tensors(), 0.5 + 0 * p.alpha, none, none, 0, 1, 3, 1e-4, 100, backend="ext"
        )[1],
        "semirelaxed_fgw": lambda: semirelaxed_fgw(
            *p.tensors(), none, none, 0, 1, 2, 1e-4, 100, backend="ext"
        )[1],
        "unbalanced_sinkhorn": lambda: unbalanced_sinkhorn(
            p.cost, p.a, p.b, 0.1, 0.3, 0.5, 0, 1e-4, 100, backend="ext"
        )[:2],
        "kl_transport": lambda: kl_transport(
            p.cost, p.a, p.b, 0.3, 0.5, 1e-6, 1000, backend="ext"
        )[1],
        "fgw_backward": lambda: fgw_backward(
            plan, p.struct_x, p.struct_y, p.alpha, 1, 0, backend="ext"
        ),
        "entropic_fgw": lambda: entropic_fgw(
            *p.tensors(), none, 0.2, 1, 0, 0, 1e-4, 20, 1e-4, 50, backend="ext"
        )[0].exp(),
        "fgw_lower_bound": lambda: fgw_lower_bound(*p.tensors(), 0, 1, backend="ext"),
        "cell_distances": lambda: cell_distances(
            labels_x, x, p.struct_x, p.a, labels_y, y, p.struct_y, p.b, label_cost, index,
            index.flip(0), 0.5, 0, 1, 0, 3, none, 1e-4, 100, backend="ext",
        )[0],
        "network_distances": lambda: network_distances(
            label_cost, labels_x, p.a, x, labels_y, p.b, y, index, index.flip(0), backend="ext"
        ),
    }  # fmt: skip


def there(p: Graphs) -> Graphs:
    return Graphs(*(tensor.cuda() for tensor in p.tensors()))


STOP = 1e-4
"""Where descents end: rounding decides at which of two couplings that far apart."""
DESCENTS = ("fgw", "cell_distances")


def assert_close(
    found: Any, expected: Any, dtype: torch.dtype, tolerance: float | None = None
) -> None:
    if isinstance(found, Tensor):
        found, expected = (found,), (expected,)
    tolerance = tolerance or (1e-4 if dtype == torch.float32 else 1e-9)
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got.cpu(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("name", list(calls(graphs(torch.Generator(), 1, 1, 1))))
def test_as_on_the_cpu(name: str, n: int, m: int, rng: torch.Generator, dtype: torch.dtype) -> None:
    if name == "fgw_lower_bound" and n * m > 400:
        pytest.skip("n m transports of size n x m")
    p = graphs(rng, 20, n, m).to(dtype)
    tolerance = STOP if name in DESCENTS else None
    assert_close(calls(there(p))[name](), calls(p)[name](), dtype, tolerance)


def fail_on_waits(*, switched_on: bool) -> None:
    """Turn every wait for the GPU into an error, or not; that torch's mode is young is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error" if switched_on else "default")


def test_no_synchronisation_and_the_stream_of_the_caller(rng: torch.Generator) -> None:
    p = there(graphs(rng, 64, 8, 8).to(torch.float32))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    call = calls(p)["fgw"]
    expected = call()  # the first call on a device asks it whether it runs the kernels
    fail_on_waits(switched_on=True)
    try:
        with torch.cuda.stream(stream):
            found = call()
    finally:
        fail_on_waits(switched_on=False)
    stream.synchronize()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("items", [64, 100_000])  # of which the many are taken from a queue
def test_a_graph_replays(items: int, rng: torch.Generator) -> None:
    p = there(graphs(rng, items, 8, 8).to(torch.float32))
    call = calls(p)["fgw"]
    expected = call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call()
    for _ in range(2):
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(found, expected)
        found.zero_()


def test_the_last_device(rng: torch.Generator) -> None:
    p = graphs(rng, 8, 9, 9)
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    moved = Graphs(*(tensor.to(device) for tensor in p.tensors()))
    found = calls(moved)["transport"]()
    assert found.device == device
    assert_close(found, calls(p)["transport"](), torch.float64)


def test_an_index_outside_its_table_is_nan() -> None:
    p = there(graphs(torch.Generator().manual_seed(0), 2, 4, 4))
    cost = torch.zeros(3, 3, dtype=p.cost.dtype, device="cuda")
    cells = torch.zeros(2, 4, dtype=torch.int64, device="cuda")
    index = torch.tensor([0, 7], device="cuda")
    x, y = p.a[:, :, None].contiguous(), p.b[:, :, None].contiguous()
    found = network_distances(cost, cells, p.a, x, cells, p.b, y, index, index, backend="ext")
    assert torch.isfinite(found[0])
    assert torch.isnan(found[1])


def test_hotnn(rng: torch.Generator) -> None:
    space = ht.spaces.NASBench201()
    nets = space.sample(30, generator=rng)
    found = ht.HOTNN(space=space, device="cuda")(nets)
    assert found.is_cuda
    assert_close(found, ht.HOTNN(space=space)(nets), torch.float32)


def test_gradients(rng: torch.Generator) -> None:
    space = ht.spaces.NASBench201()
    nets = space.sample(12, generator=rng)

    def metric(device: str, lam: float | Tensor) -> ht.HOTNN:
        return ht.HOTNN(space=space, lam=lam, device=device, dtype=torch.float64)

    def slope(device: str) -> Tensor:
        lam = torch.tensor(0.4, dtype=torch.float64, device=device, requires_grad=True)
        return torch.autograd.grad(metric(device, lam)(nets).sum(), lam)[0]

    # of the couplings that were found there, by differences; then of those that the CPU finds
    held = metric("cuda", 0.4).couplings(nets)
    up, down = (held.distances(metric("cuda", 0.4 + step)).sum() for step in (1e-4, -1e-4))
    assert_close(slope("cuda"), ((up - down) / 2e-4).cpu(), torch.float64, 1e-6)
    assert_close(slope("cuda"), slope("cpu"), torch.float64, 10 * STOP)


def test_hotnngp(rng: torch.Generator) -> None:
    space = ht.spaces.NASBench201()
    X = space.encode(space.sample(20, generator=rng))
    Y = torch.rand(15, 1, dtype=torch.float64, generator=rng)

    def mean(device: str) -> Tensor:
        model = HOTNNGP(X[:15].to(device), Y.to(device), space=space).to(device)
        return model.posterior(X[15:].to(device)).mean.detach()

    assert_close(mean("cuda"), mean("cpu"), torch.float64, 10 * STOP)


def test_all_devices_of_the_machine(rng: torch.Generator) -> None:
    space = ht.spaces.NASBenchMacro()
    nets = space.sample(40, generator=rng)
    distance = ht.HOTNN(space=space, device="cuda", memory_budget=2**16)
    assert torch.equal(distance(nets, executor=DeviceExecutor()), distance(nets))


def test_more_elements_than_an_int_counts() -> None:
    # 2^31 costs and a few; the items on both sides of that index are as good as the others
    items, n = 2**31 // 64 + 2, 8
    # costs, plans, and what the comparisons below take beside them
    needed = 4 * items * 64 * 2 + 5 * 2**30
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"{needed / 2**30:.0f} GiB of free memory on the device are needed")
    cost = torch.full((items, n, n), 1.0, device="cuda")
    cost.diagonal(dim1=1, dim2=2).zero_()
    mass = torch.full((items, n), 1 / n, device="cuda")
    plan, objective, *_ = transport(cost, mass, mass, backend="ext")
    assert float(objective.abs().max()) == 0.0
    assert torch.equal(plan[-2:], torch.eye(n, device="cuda").expand(2, n, n) / n)
