from typing import get_args

import numpy as np
import pytest
import torch

from benchmarks.measuring.evaluate import marginal_error, objectives, onto_marginals
from benchmarks.measuring.problems import random_problems
from hotnas_torch.ot.terms import Loss, Pairs
from tests.generators.oracles import fgw_objective


@pytest.mark.parametrize("loss", get_args(Loss))
@pytest.mark.parametrize("pairs", get_args(Pairs))
def test_the_judge_computes_the_objective(loss: Loss, pairs: Pairs, rng: torch.Generator) -> None:
    problems = random_problems(5, 3, loss=loss, pairs=pairs, generator=rng)
    plans = problems.a[:, :, None] * problems.b[:, None, :]
    codes = get_args(Loss).index(loss), get_args(Pairs).index(pairs)
    alpha = torch.full((3,), problems.alpha, dtype=torch.float64)
    expected = fgw_objective(
        plans, problems.cost, problems.struct_x, problems.struct_y, alpha, *codes
    )
    assert np.allclose(objectives(problems, plans.numpy()), expected.numpy(), atol=1e-14)


def test_plans_are_rounded_onto_the_marginals(rng: torch.Generator) -> None:
    problems = random_problems(6, 4, loss="l1", pairs="all", generator=rng)
    off = torch.rand(4, 6, 6, generator=rng, dtype=torch.float64).numpy() / 36
    off[0, 2] = 0.0
    rounded = onto_marginals(off, problems.a.numpy(), problems.b.numpy())
    assert (rounded >= 0).all()
    assert marginal_error(problems, off).min() > 0.1
    assert marginal_error(problems, rounded).max() < 1e-14


def test_a_coupling_is_left_alone_and_so_is_padding(rng: torch.Generator) -> None:
    a = torch.tensor([[0.5, 0.0, 0.5]], dtype=torch.float64).numpy()
    b = torch.tensor([[0.0, 1.0]], dtype=torch.float64).numpy()
    plan = a[:, :, None] * b[:, None, :]
    assert np.array_equal(onto_marginals(plan, a, b), plan)
