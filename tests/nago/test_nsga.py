import math

import pytest
import torch
from botorch.test_functions.multi_objective import ZDT1
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

from hotnas_torch.nago import hypervolume
from hotnas_torch.nago.nsga import crowding_distances, domination_ranks, nsga2


@pytest.mark.parametrize("num_objectives", [2, 3])
def test_fronts_are_peeled_off_one_after_the_other(
    num_objectives: int, rng: torch.Generator
) -> None:
    # Few different values, so that there are ties.
    values = torch.randint(6, (60, num_objectives), generator=rng).double()
    ranks = domination_ranks(values)
    left = torch.arange(60)
    front = 0
    while len(left):
        free = is_non_dominated(values[left], deduplicate=False)
        assert torch.equal(ranks[left[free]], torch.full((int(free.sum()),), front))
        left = left[~free]
        front += 1
    assert front > 3


def test_crowding_is_what_the_paper_defines() -> None:
    values = torch.tensor([[0.0, 4.0], [4.0, 0.0], [1.0, 3.0], [3.0, 1.0]], dtype=torch.float64)
    expected = [math.inf, math.inf, 3 / 4 + 3 / 4, 3 / 4 + 3 / 4]
    assert crowding_distances(values).tolist() == expected
    assert crowding_distances(values[:2]).tolist() == [math.inf] * 2
    # All equal in one objective: it tells nothing.
    flat = torch.tensor([[0.0, 1.0], [1.0, 1.0], [3.0, 1.0]], dtype=torch.float64)
    assert crowding_distances(flat)[1] == 1.0


def test_it_finds_the_front_of_zdt1(rng: torch.Generator) -> None:
    function = ZDT1(dim=6).to(torch.float64)
    first = torch.rand(40, 6, generator=rng, dtype=torch.float64)
    rows, values = nsga2(lambda X: -function(X), first, generations=100, generator=rng)
    assert ((rows >= 0.0) & (rows <= 1.0)).all()
    torch.testing.assert_close(values, -function(rows))
    found = hypervolume(-values, torch.tensor([1.1, 1.1]))
    # The front is f2 = 1 - sqrt(f1).
    largest = 1.1 * 1.1 - (1.0 - 2.0 / 3.0)
    assert 0.97 * largest < found <= largest
    assert found > 2.0 * hypervolume(function(first), torch.tensor([1.1, 1.1]))


def test_the_first_front_comes_first_and_moves_apply(rng: torch.Generator) -> None:
    def function(X: Tensor) -> Tensor:
        return torch.stack([X.sum(1), (X * X.new_tensor([1.0, -1.0])).sum(1)], dim=1)

    def move(X: Tensor) -> Tensor:
        return (X * 4).round() / 4

    first = move(torch.rand(12, 2, generator=rng, dtype=torch.float64))
    rows, values = nsga2(function, first, generations=5, generator=rng, move=move)
    assert torch.equal(rows, move(rows))
    ranks = domination_ranks(values)
    assert torch.equal(ranks, ranks.sort().values)


def test_the_generator_decides(rng: torch.Generator) -> None:
    first = torch.rand(10, 3, generator=rng, dtype=torch.float64)
    rows = [
        nsga2(
            lambda X: torch.stack([X[:, 0], -X.sum(1)], dim=1),
            first,
            generations=3,
            generator=torch.Generator().manual_seed(seed),
        )[0]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
