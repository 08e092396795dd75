from dataclasses import FrozenInstanceError

import pytest
import torch

import hotnas_torch.ot as ot
from hotnas_torch.errors import SolverError
from tests.generators.problems import graphs, uniform


def results(rng: torch.Generator) -> list[object]:
    arguments = graphs(rng, 2, 3, 4).tensors()[:3]
    return [
        ot.transport(arguments[0]),
        ot.sinkhorn(arguments[0], epsilon=0.2),
        ot.fgw(*arguments),
        ot.fgw(*arguments, bound=True),
        ot.entropic_fgw(*arguments, epsilon=0.2),
    ]


def test_results_are_frozen_trees_of_tensors(rng: torch.Generator) -> None:
    for result in results(rng):
        leaves, structure = torch.utils._pytree.tree_flatten(result)
        assert len(leaves) >= 6
        assert all(isinstance(leaf, torch.Tensor) for leaf in leaves)
        again = torch.utils._pytree.tree_unflatten(leaves, structure)
        assert torch.equal(again.plan, result.plan)
        with pytest.raises(FrozenInstanceError):
            result.status = result.status


def test_detach_cuts_the_graph(rng: torch.Generator) -> None:
    result = ot.transport(uniform(rng, 2, 3, 3).requires_grad_())
    assert result.objective.requires_grad
    detached = result.detach()
    assert not detached.objective.requires_grad
    assert torch.equal(detached.objective, result.objective)


def test_status_codes_have_messages_with_a_remedy() -> None:
    assert [status.value for status in ot.SolveStatus] == [0, 1, 2, 3]
    assert len({status.message for status in ot.SolveStatus}) == 4
    assert "raise max_iter" in ot.SolveStatus.MAX_ITER.message
    assert ot.SolveStatus.MAX_ITER == 1


def test_failures_are_counted_and_named(rng: torch.Generator) -> None:
    masses = torch.full((2, 3, 2), 0.5, dtype=torch.float64)
    cost = uniform(rng, 2, 3, 2, 2)
    masses[1, 0] = 1
    masses[1, 2] = 1
    cost[0, 1, 0, 0] = torch.nan
    result = ot.transport(cost, masses, validate=False)
    with pytest.raises(SolverError) as caught:
        result.raise_if_failed()
    message = str(caught.value)
    assert "transport: 1 of 6 items NONFINITE, item (0, 1) first (" in message
    assert "; 2 of 6 items INFEASIBLE, item (1, 0) first (the masses" in message
    with pytest.raises(SolverError, match=r"^transport: the masses are negative or differ in sum"):
        ot.transport(cost[1, 0], masses[1, 0], validate=False).raise_if_failed()
