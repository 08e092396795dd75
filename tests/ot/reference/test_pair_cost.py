import pytest
import torch

from hotnas_torch.ot._reference.pair_cost import (
    dense_pair_cost,
    pair_cost,
    pair_cost_gradient,
    pair_cost_kernel,
    pair_cost_matrix,
    signature_distance,
)
from hotnas_torch.ot._reference.transport import transport
from tests.generators.oracles import pair_tensor
from tests.generators.problems import F64, graphs

TERMS = [(loss, pairs) for loss in (0, 1) for pairs in (0, 1, 2)]


@pytest.mark.parametrize(("loss", "pairs"), TERMS)
@pytest.mark.parametrize("sparse", [True, False])
def test_pair_cost_is_the_gradient_of_the_fourfold_sum(
    loss: int, pairs: int, sparse: bool, rng: torch.Generator
) -> None:
    problem = graphs(rng, 3, 4, 5)
    plan = problem.a[:, :, None] * problem.b[:, None, :]
    if sparse:
        plan = transport(problem.cost, problem.a, problem.b)[0]
    plan.requires_grad_()
    terms = pair_tensor(problem.struct_x, problem.struct_y, loss, pairs)
    value = torch.einsum("bij,bkl,bijkl->b", plan, plan, terms)
    (expected,) = torch.autograd.grad(value.sum(), plan)
    plan = plan.detach()
    found = pair_cost(plan, problem.struct_x, problem.struct_y, loss, pairs)
    assert torch.allclose(found, expected, atol=1e-14)
    assert torch.allclose(0.5 * (found * plan).sum((1, 2)), value, atol=1e-14)


@pytest.mark.parametrize(("loss", "pairs"), TERMS)
def test_kernel_rows_give_the_same_pair_cost(loss: int, pairs: int, rng: torch.Generator) -> None:
    problem = graphs(rng, 2, 4, 3)
    plan = problem.a[:, :, None] * problem.b[:, None, :]
    expected = pair_cost(plan, problem.struct_x, problem.struct_y, loss, pairs)
    for i in range(4):
        kernel = pair_cost_kernel(problem.struct_x, problem.struct_y, i, loss, pairs)
        found = (kernel * plan[:, None]).sum((2, 3))
        assert torch.allclose(found, expected[:, i], atol=1e-14)
    dense = dense_pair_cost(plan, problem.struct_x, problem.struct_y, loss, pairs)
    assert torch.allclose(dense, expected, atol=1e-14)
    matrix = pair_cost_matrix(problem.struct_x, problem.struct_y, loss, pairs)
    assert torch.allclose((matrix @ plan.reshape(2, 12, 1)).reshape(2, 4, 3), expected, atol=1e-14)
    assert torch.allclose(matrix, matrix.mT, atol=1e-15)


@pytest.mark.parametrize(("loss", "pairs"), TERMS)
def test_gradient_in_the_structures(loss: int, pairs: int, rng: torch.Generator) -> None:
    problem = graphs(rng, 3, 4, 5)
    plan = problem.a[:, :, None] * problem.b[:, None, :]
    struct_x, struct_y = problem.struct_x.requires_grad_(), problem.struct_y.requires_grad_()
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    terms = pair_tensor(struct_x, struct_y, loss, pairs)
    value = (weight * torch.einsum("bij,bkl,bijkl->b", plan, plan, terms)).sum()
    expected = torch.autograd.grad(value, (struct_x, struct_y))
    found = pair_cost_gradient(plan, struct_x.detach(), struct_y.detach(), weight, loss, pairs)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-14)


def test_the_l1_gradient_is_0_at_ties() -> None:
    same = torch.tensor([[[0.0, 1.0], [2.0, 0.0]]], dtype=F64)
    identity = torch.eye(2, dtype=F64)[None] / 2
    for gradient in pair_cost_gradient(identity, same, same, torch.ones(1, dtype=F64), 0, 1):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("pairs", [0, 1, 2])
@pytest.mark.parametrize("loss", [0, 1])
def test_signatures_are_means_over_the_pair_set(
    loss: int, pairs: int, rng: torch.Generator
) -> None:
    problem = graphs(rng, 1, 4, 3)
    found = signature_distance(
        problem.struct_x, problem.struct_y, problem.a, problem.b, loss, pairs
    )[0]

    def means(structure: torch.Tensor, masses: torch.Tensor, i: int) -> tuple[float, float]:
        leaving = entering = 0.0
        for k in range(len(masses)):
            if pairs == 0 or (pairs == 1 and k != i) or (pairs == 2 and k > i):
                leaving += float(masses[k] * structure[i, k])
            if pairs == 0 or (pairs == 1 and k != i) or (pairs == 2 and k < i):
                entering += float(masses[k] * structure[k, i])
        return leaving, entering

    for i in range(4):
        for j in range(3):
            x = means(problem.struct_x[0], problem.a[0], i)
            y = means(problem.struct_y[0], problem.b[0], j)
            expected = sum(abs(p - q) ** (1 + loss) for p, q in zip(x, y, strict=True)) / 2
            assert found[i, j].item() == pytest.approx(expected, abs=1e-14)
