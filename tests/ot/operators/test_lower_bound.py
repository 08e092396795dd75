import itertools

import pytest
import torch

from hotnas_torch.ot._operators import fgw, fgw_lower_bound
from tests.generators.oracles import fgw_objective
from tests.generators.problems import F64, Graphs, graphs

TERMS = [(loss, pairs) for loss in (0, 1) for pairs in (0, 1, 2)]


@pytest.mark.parametrize(("loss", "pairs"), TERMS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_is_below_every_coupling_and_meets_the_linear_case(
    loss: int, pairs: int, alpha: float, rng: torch.Generator, backend: str
) -> None:
    problem = graphs(rng, 6, 4, 5, alpha=alpha)
    bound = fgw_lower_bound(*problem.tensors(), loss, pairs, backend=backend)
    none = torch.empty(0, dtype=F64)
    best = fgw(*problem.tensors(), none, none, loss, pairs, 3, 1e-6, 1000, backend=backend)[1]
    assert (bound <= best + 1e-12).all()
    if alpha == 0:
        assert torch.allclose(bound, best, atol=1e-12)
    elif pairs == 2 and alpha == 1:
        assert torch.allclose(bound, torch.zeros_like(bound), atol=1e-12)  # reversal pays nothing
    else:
        assert (bound > 0.1 * best).all()


@pytest.mark.parametrize(("loss", "pairs"), TERMS)
def test_is_below_the_best_permutation(
    loss: int, pairs: int, rng: torch.Generator, backend: str
) -> None:
    problem = graphs(rng, 4, 4, 4, even=True)
    cost, struct_x, struct_y, _, _, alpha = problem.tensors()
    values = []
    for order in itertools.permutations(range(4)):
        plan = torch.eye(4, dtype=F64)[list(order)].expand(4, 4, 4) / 4
        values.append(fgw_objective(plan, cost, struct_x, struct_y, alpha, loss, pairs))
    bound = fgw_lower_bound(*problem.tensors(), loss, pairs, backend=backend)
    assert (bound <= torch.stack(values).amin(0) + 1e-12).all()


def test_absent_nodes_change_nothing(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 3, 3, 4)
    rows, columns = torch.tensor([1, 2, 4]), torch.tensor([0, 2, 3, 4])
    padded = Graphs(
        *(
            torch.full((3, *shape), torch.nan, dtype=F64)
            for shape in [(5, 6), (5, 5), (6, 6), (5,), (6,)]
        ),
        problem.alpha,
    )
    padded.cost[:, rows[:, None], columns] = problem.cost
    padded.struct_x[:, rows[:, None], rows] = problem.struct_x
    padded.struct_y[:, columns[:, None], columns] = problem.struct_y
    padded.a[:], padded.b[:] = 0, 0
    padded.a[:, rows], padded.b[:, columns] = problem.a, problem.b
    small = fgw_lower_bound(*problem.tensors(), 0, 1, backend=backend)
    large = fgw_lower_bound(*padded.tensors(), 0, 1, backend=backend)
    assert torch.allclose(small, large, atol=1e-14)


def test_bad_items_are_nan_and_harm_no_other(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 4, 3, 3)
    expected = fgw_lower_bound(*problem.tensors(), 0, 1, backend=backend)
    problem.cost[0, 0, 0] = torch.nan
    problem.struct_y[1, 0, 1] = torch.inf
    problem.a[2] *= 2
    bound = fgw_lower_bound(*problem.tensors(), 0, 1, backend=backend)
    assert bound.isnan().tolist() == [True, True, True, False]
    assert bound[3] == expected[3]


def test_an_empty_batch(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 1, 3, 4).items(slice(0, 0))
    assert fgw_lower_bound(*problem.tensors(), 0, 1, backend=backend).shape == (0,)


def test_a_backward_pass_raises(rng: torch.Generator, backend: str) -> None:
    problem = graphs(rng, 2, 3, 3)
    problem.cost.requires_grad_()
    bound = fgw_lower_bound(*problem.tensors(), 0, 1, backend=backend)
    with pytest.raises(RuntimeError, match="fgw_lower_bound is not differentiable"):
        bound.sum().backward()


@pytest.mark.ext
@pytest.mark.parametrize(("loss", "pairs"), TERMS)
def test_both_texts_agree(loss: int, pairs: int, rng: torch.Generator) -> None:
    problem = graphs(rng, 8, 5, 6, absent=0.2)
    found = fgw_lower_bound(*problem.tensors(), loss, pairs, backend="ext")
    expected = fgw_lower_bound(*problem.tensors(), loss, pairs, backend="torch")
    assert torch.allclose(found, expected, atol=1e-13)


@pytest.mark.ext
def test_opcheck(rng: torch.Generator, dtype: torch.dtype) -> None:
    problem = graphs(rng, 2, 3, 4).to(dtype)
    torch.library.opcheck(torch.ops.hotnas.fgw_lower_bound.default, (*problem.tensors(), 0, 1))
