"""Both searches of the reference find optimal vertices, whatever stands beside an item."""

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from hotnas_torch.ot._reference import chunks, shortest_paths
from hotnas_torch.ot._reference.fgw import fgw
from hotnas_torch.ot._reference.transport import CONVERGED, INFEASIBLE, transport
from tests.generators.operations import Counted


@pytest.fixture(params=["_Tree", "_Forest"])
def search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(shortest_paths, "_Tree", getattr(shortest_paths, request.param))
    return str(request.param)


def _draw(rng: torch.Generator, batch: int, n: int, m: int, kind: str) -> list[Tensor]:
    cost = torch.rand(batch, n, m, generator=rng, dtype=torch.float64)
    a = torch.rand(batch, n, generator=rng, dtype=torch.float64) + 0.05
    b = torch.rand(batch, m, generator=rng, dtype=torch.float64) + 0.05
    if kind == "ties":
        cost, a, b = (cost * 3).round(), torch.ones_like(a), torch.ones_like(b)
    if kind == "zero mass":
        a[:, 1::3], b[:, 2::3] = 0, 0
    if kind == "forbidden":
        cost[torch.rand(cost.shape, generator=rng) < 0.4] = torch.inf
    return [cost, a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)]


def _exact(cost: Tensor, a: Tensor, b: Tensor) -> float | None:
    n, m = cost.shape
    marginals = torch.cat([torch.eye(n).repeat_interleave(m, 1), torch.eye(m).repeat(1, n)])
    bounds = [(0, 0 if value == float("inf") else None) for value in cost.flatten().tolist()]
    numbers = torch.where(cost.isinf(), 0, cost).flatten().numpy()
    found = linprog(numbers, A_eq=marginals.numpy(), b_eq=torch.cat([a, b]).numpy(), bounds=bounds)
    return float(found.fun) if found.status == 0 else None


@pytest.mark.parametrize("kind", ["plain", "ties", "zero mass", "forbidden"])
@pytest.mark.parametrize("size", [(5, 5), (4, 9), (8, 3), (1, 4)])
def test_vertices_are_optimal_and_items_alone(
    search: str, kind: str, size: tuple[int, int], rng: torch.Generator
) -> None:
    cost, a, b = _draw(rng, 12, *size, kind)
    found = transport(cost, a, b)
    plan, objective, f, g, paths, status = found
    for item in range(len(cost)):
        expected = _exact(cost[item], a[item], b[item])
        assert int(status[item]) == (INFEASIBLE if expected is None else CONVERGED)
        if expected is not None:
            assert float(objective[item]) == pytest.approx(expected, abs=1e-12)
        alone = transport(cost[item : item + 1], a[item : item + 1], b[item : item + 1])
        for mine, theirs in zip(alone, found, strict=True):
            assert torch.equal(mine[0].nan_to_num(), theirs[item].nan_to_num())
    solved = status == CONVERGED
    assert torch.allclose(plan[solved].sum(2), a[solved], atol=1e-14)
    assert torch.allclose(plan[solved].sum(1), b[solved], atol=1e-14)
    assert ((f[:, :, None] + g[:, None, :] - cost)[solved] <= 1e-14).all()
    assert (paths[solved] <= 3 * sum(size)).all()
    # A forest has as many nodes more than edges as it has parts.
    for support in (plan[solved] > 0).double():
        degrees = torch.cat([support.sum(1), support.sum(0)])
        laplacian = torch.diag(degrees)
        laplacian[: size[0], size[0] :] = support
        laplacian[size[0] :, : size[0]] = support.T
        assert int(support.sum()) == int(torch.linalg.matrix_rank(laplacian))


def _cells(batch: int, n: int, rng: torch.Generator) -> list[Tensor]:
    structures = [(torch.rand(batch, n, n, generator=rng) < 0.4).float().triu(1) for _ in range(2)]
    masses = torch.full((batch, n), 1 / n)
    cost = torch.rand(batch, n, n, generator=rng)
    none = torch.empty(0)
    return [cost, *structures, masses, masses, torch.full((batch,), 0.5), none, none]


def test_chunks_change_no_bit(
    search: str, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = _cells(40, 6, rng)
    expected = fgw(*problem, 0, 1, 3, 1e-4, 200)
    monkeypatch.setattr(chunks, "_ON_CPU", 64 * 3 * 36 * 7)  # seven items
    monkeypatch.setattr(shortest_paths, "_WORTH_LEAVING", 0)
    found = fgw(*problem, 0, 1, 3, 1e-4, 200)
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


def test_a_device_is_asked_for_little(
    rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were steps made one by one, these would be 110,000 operations and 3,500 waits."""
    monkeypatch.setattr(shortest_paths, "_Tree", shortest_paths._Forest)
    problem = _cells(64, 8, rng)
    with Counted() as counted:
        *_, status = fgw(*problem, 0, 1, 3, 1e-4, 200)
    assert (status == CONVERGED).all()
    assert counted.operations < 24_000
    assert counted.waits < 180


def test_other_devices_search_forests() -> None:
    """Where calls are dear, as in `far_device`, whole forests are searched at once."""
    from tests.generators.far_device import FAR, far_device, near

    cost, a, b = _draw(torch.Generator().manual_seed(0), 5, 6, 7, "plain")
    expected = transport(cost, a, b)
    with far_device() as moved:
        found = transport(*(value.to(FAR) for value in (cost, a, b)))
    assert torch.allclose(near(found[1]), expected[1], atol=1e-14)
    assert all(count == 1 for _, count in moved)
