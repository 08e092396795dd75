from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from hotnas_torch.ot._operators import cell_distances, fgw, network_distances, transport
from tests.generators.problems import F64, Graphs, masses, uniform

NUM_LABELS = 4


@dataclass(frozen=True)
class Cells:
    labels: Tensor
    features: Tensor
    structure: Tensor
    masses: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        return self.labels, self.features, self.structure, self.masses


def cells(rng: torch.Generator, count: int, n: int, absent: float = 0.3) -> Cells:
    return Cells(
        torch.randint(0, NUM_LABELS, (count, n), generator=rng),
        uniform(rng, count, n, 3),
        uniform(rng, count, n, n),
        masses(rng, count, n, absent=absent),
    )


def all_pairs(x: int, y: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.cartesian_prod(torch.arange(x), torch.arange(y)).T)


def dense(
    x: Cells, y: Cells, label_cost: Tensor, i: int, j: int, literal: bool, alpha: float
) -> Graphs:
    """One pair as an FGW problem, by loops over its nodes."""
    n, m = x.masses.shape[1], y.masses.shape[1]
    cost = torch.zeros(1, n, m, dtype=F64)
    for s in range(n):
        for t in range(m):
            value = label_cost[x.labels[i, s], y.labels[j, t]]
            value = value + (x.features[i, s] - y.features[j, t]).abs().sum()
            if literal:
                after_s = int((x.masses[i, s + 1 :] > 0).sum())
                after_t = int((y.masses[j, t + 1 :] > 0).sum())
                value = value * after_s * after_t
            cost[0, s, t] = value
    return Graphs(
        cost,
        x.structure[i][None],
        y.structure[j][None],
        x.masses[i][None],
        y.masses[j][None],
        torch.tensor([alpha], dtype=F64),
    )


@pytest.mark.parametrize("literal", [0, 1])
@pytest.mark.parametrize(("loss", "pairs"), [(0, 1), (0, 2), (1, 0)])
def test_cell_distances_are_fgw_of_the_pairs(
    loss: int, pairs: int, literal: int, rng: torch.Generator, backend: str
) -> None:
    x, y = cells(rng, 3, 5), cells(rng, 4, 6)
    label_cost = uniform(rng, NUM_LABELS, NUM_LABELS)
    index_x, index_y = all_pairs(3, 4)
    start_costs = uniform(rng, 1, 5, 6)
    options = (2 + 2, start_costs, 1e-9, 1000)
    objective, gap, iterations, status = cell_distances(
        *x.tensors(), *y.tensors(), label_cost, index_x, index_y, 0.6, loss, pairs, literal,
        *options, backend=backend,
    )  # fmt: skip
    assert iterations.dtype == status.dtype == torch.int32
    none = torch.empty(0, dtype=F64)
    for p in range(12):
        problem = dense(x, y, label_cost, int(index_x[p]), int(index_y[p]), bool(literal), 0.6)
        expected = fgw(
            *problem.tensors(), none, start_costs, loss, pairs, 4, 1e-9, 1000, backend=backend
        )
        assert objective[p].item() == pytest.approx(expected[1].item(), abs=1e-8)
        assert gap[p] + 1e-15 >= 0
        assert gap[p].item() <= 1e-9 * objective[p].item() + 1e-13
        assert status[p] == expected[6]


def test_pairs_may_repeat_and_come_in_any_order(rng: torch.Generator, backend: str) -> None:
    x = cells(rng, 4, 5)
    label_cost = uniform(rng, NUM_LABELS, NUM_LABELS)
    index = torch.tensor([3, 0, 0, 2, 3]), torch.tensor([1, 1, 0, 2, 1])
    none = torch.empty(0, dtype=F64)
    objective, *_ = cell_distances(
        *x.tensors(), *x.tensors(), label_cost - label_cost.diag().diag(), *index, 0.5, 0, 1, 0, 2,
        none, 1e-9, 1000, backend=backend,
    )  # fmt: skip
    assert objective[0] == objective[4]
    assert objective[2] == 0
    assert objective[3] == 0
    assert objective[0] > 0


def test_cell_distances_in_chunks(rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = cells(rng, 3, 4), cells(rng, 3, 5)
    label_cost = uniform(rng, NUM_LABELS, NUM_LABELS)
    none = torch.empty(0, dtype=F64)
    arguments = (
        *x.tensors(), *y.tensors(), label_cost, *all_pairs(3, 3), 0.5, 0, 1, 0, 1, none, 1e-9, 1000,
    )  # fmt: skip
    whole = cell_distances(*arguments, backend="torch")
    monkeypatch.setattr("hotnas_torch.ot._reference.graph_tables._CHUNK_ELEMENTS", 1)
    for mine, theirs in zip(cell_distances(*arguments, backend="torch"), whole, strict=True):
        assert torch.equal(mine, theirs)


def test_network_distances_are_transport_of_the_cells(rng: torch.Generator, backend: str) -> None:
    cell_cost = uniform(rng, 5, 7)
    cells_x = torch.randint(0, 5, (3, 4), generator=rng)
    cells_y = torch.randint(0, 7, (2, 6), generator=rng)
    mass_x, mass_y = masses(rng, 3, 4, absent=0.3), masses(rng, 2, 6, absent=0.3)
    features_x, features_y = uniform(rng, 3, 4, 2), uniform(rng, 2, 6, 2)
    index_x, index_y = all_pairs(3, 2)
    found = network_distances(
        cell_cost, cells_x, mass_x, features_x, cells_y, mass_y, features_y, index_x, index_y,
        backend=backend,
    )  # fmt: skip
    for p in range(6):
        i, j = int(index_x[p]), int(index_y[p])
        cost = cell_cost[cells_x[i]][:, cells_y[j]]
        cost = cost + (features_x[i][:, None] - features_y[j][None]).abs().sum(2)
        expected = transport(cost[None], mass_x[i][None], mass_y[j][None], backend=backend)[1]
        assert found[p].item() == pytest.approx(expected.item(), abs=1e-14)


def test_no_pairs_and_no_features(rng: torch.Generator, backend: str) -> None:
    x = cells(rng, 2, 3, absent=0.0)
    x = replace(x, features=torch.zeros(2, 3, 0, dtype=F64))
    label_cost = uniform(rng, NUM_LABELS, NUM_LABELS)
    none = torch.empty(0, dtype=F64)
    nothing = torch.zeros(0, dtype=torch.int64)
    for index in (nothing, torch.tensor([1])):
        objective, *_ = cell_distances(
            *x.tensors(), *x.tensors(), label_cost, index, index, 0.0, 0, 1, 0, 1, none, 1e-6, 100,
            backend=backend,
        )  # fmt: skip
        assert objective.shape == index.shape
    networks = torch.zeros(2, 1, dtype=torch.int64)
    masses_, features = torch.ones(2, 1, dtype=F64), torch.zeros(2, 1, 0, dtype=F64)
    side = (networks, masses_, features)
    assert network_distances(label_cost, *side, *side, nothing, nothing, backend=backend).shape == (
        0,
    )
    found = network_distances(
        label_cost, *side, *side, torch.tensor([1]), torch.tensor([0]), backend=backend
    )
    assert found[0] == label_cost[0, 0]


def test_too_many_starts_are_refused(rng: torch.Generator, backend: str) -> None:
    x = cells(rng, 2, 3)
    index = torch.tensor([0])
    with pytest.raises(ValueError, match="num_starts must be between 1 and 3"):
        cell_distances(
            *x.tensors(), *x.tensors(), uniform(rng, NUM_LABELS, NUM_LABELS), index, index, 0.5, 0,
            1, 0, 4, torch.empty(0, dtype=F64), 1e-6, 100, backend=backend,
        )  # fmt: skip


def test_a_backward_pass_raises(rng: torch.Generator, backend: str) -> None:
    x = cells(rng, 2, 3)
    label_cost = uniform(rng, NUM_LABELS, NUM_LABELS).requires_grad_()
    index = torch.tensor([0, 1])
    objective, *_ = cell_distances(
        *x.tensors(), *x.tensors(), label_cost, index, index.flip(0), 0.5, 0, 1, 0, 1,
        torch.empty(0, dtype=F64), 1e-6, 100, backend=backend,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="cell_distances is not differentiable"):
        objective.sum().backward()


@pytest.mark.ext
def test_opcheck(rng: torch.Generator, dtype: torch.dtype) -> None:
    x = cells(rng, 2, 3)
    tensors = [t if t.dtype == torch.int64 else t.to(dtype) for t in x.tensors()]
    label_cost = uniform(rng, NUM_LABELS, NUM_LABELS).to(dtype)
    index = torch.tensor([0, 1])
    none = torch.empty(0, dtype=dtype)
    torch.library.opcheck(
        torch.ops.hotnas.cell_distances.default,
        (*tensors, *tensors, label_cost, index, index, 0.5, 0, 1, 0, 1, none, 1e-4, 100),
    )
    side = (
        torch.tensor([[0, 1], [2, 3]]),
        torch.full((2, 2), 0.5, dtype=dtype),
        uniform(rng, 2, 2, 1).to(dtype),
    )
    torch.library.opcheck(
        torch.ops.hotnas.network_distances.default, (label_cost, *side, *side, index, index)
    )
