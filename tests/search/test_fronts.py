import math

import pytest
import torch
from botorch.utils.multi_objective.hypervolume import Hypervolume, infer_reference_point
from botorch.utils.multi_objective.pareto import is_non_dominated

from hotnas_torch.search.fronts import (
    hypervolume,
    nondominated,
    nondominated_fronts,
    reference_point,
)


def points(seed, num, columns, *, ties=False):
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(num, columns, generator=generator, dtype=torch.float64)
    return (found * 4).round() / 4 if ties else found


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num", [1, 2, 40])
def test_the_front_is_what_botorch_finds(num, columns, ties):
    for seed in range(5):
        losses = points(seed, num, columns, ties=ties)
        expected = is_non_dominated(-losses, deduplicate=False)
        assert torch.equal(nondominated(losses), expected)
        assert sorted(nondominated_fronts(losses)[0]) == expected.nonzero().flatten().tolist()


def test_fronts_are_peeled_one_by_one_and_hold_every_point_once():
    losses = points(3, 30, 2)
    fronts = nondominated_fronts(losses)
    left = torch.ones(30, dtype=torch.bool)
    for front in fronts:
        places = left.nonzero().flatten()
        assert set(front) == set(places[is_non_dominated(-losses[places])].tolist())
        left[front] = False
    assert not left.any()
    assert len(fronts) > 2


def test_within_a_front_the_lonely_come_first():
    losses = torch.tensor([[0.0, 1.0], [0.1, 0.9], [0.12, 0.88], [0.6, 0.3], [1.0, 0.0]])
    (front,) = nondominated_fronts(losses)
    assert set(front[:2]) == {0, 4}
    assert front[2] == 3


@pytest.mark.parametrize("columns", [2, 3, 4])
@pytest.mark.parametrize("ties", [False, True])
def test_the_hypervolume_is_what_botorch_finds(columns, ties):
    for seed in range(4):
        losses = points(seed, 12, columns, ties=ties)
        reference = torch.full((columns,), 0.9, dtype=torch.float64)
        expected = Hypervolume(ref_point=-reference).compute(-losses[nondominated(losses)])
        assert math.isclose(hypervolume(losses, reference), expected, rel_tol=1e-9, abs_tol=1e-12)


def test_what_lies_beyond_the_reference_counts_for_nothing():
    reference = torch.ones(2, dtype=torch.float64)
    assert hypervolume(torch.tensor([[1.0, 0.0], [2.0, 3.0]]), reference) == 0.0
    assert hypervolume(torch.empty(0, 2), reference) == 0.0
    assert hypervolume(torch.tensor([[0.5, 0.5]]), reference) == 0.25


def test_the_reference_point_is_what_botorch_infers():
    for seed in range(5):
        losses = points(seed, 20, 2)
        front = losses[nondominated(losses)]
        assert torch.allclose(reference_point(front), -infer_reference_point(-front))


def test_a_front_of_one_point_has_a_reference_point_that_is_worse():
    for front in ([[3.0, -2.0]], [[0.0, 5.0]]):
        losses = torch.tensor(front, dtype=torch.float64)
        assert (reference_point(losses) > losses[0]).all()
