import numpy as np
import pytest
import torch

from benchmarks.measuring import solvers
from benchmarks.measuring.evaluate import marginal_error, objectives
from benchmarks.measuring.problems import random_problems


@pytest.mark.parametrize("pairs", ["directed", "ordered"])
def test_ours_and_pots_conditional_gradient_solve_the_same_problem(
    pairs: str, rng: torch.Generator
) -> None:
    problems = random_problems(6, 12, loss="l1", pairs=pairs, generator=rng)
    pot = objectives(problems, solvers.pot_conditional_gradient(problems).plans())
    job = solvers.ours(problems, start="product", tol=1e-6, dtype=torch.float64)
    ours = objectives(problems, job.plans())
    # From the same start most descents end in the same place.
    assert np.median(np.abs(ours / pot - 1)) < 1e-3
    assert ours.mean() == pytest.approx(pot.mean(), rel=0.02)


def test_pots_two_ways_agree_on_the_square_loss(rng: torch.Generator) -> None:
    problems = random_problems(6, 12, loss="l2", pairs="all", generator=rng)
    own = objectives(problems, solvers.pot_conditional_gradient(problems).plans())
    built_in = objectives(problems, solvers.pot_fused_gromov(problems).plans())
    assert np.allclose(own, built_in, rtol=1e-6)


def test_a_looser_stop_costs_objective(rng: torch.Generator) -> None:
    problems = random_problems(8, 10, loss="l1", pairs="directed", generator=rng)
    strict = objectives(problems, solvers.pot_conditional_gradient(problems).plans())
    loose = objectives(problems, solvers.pot_conditional_gradient(problems, stop=1e-2).plans())
    assert loose.mean() > strict.mean()


def test_every_solver_returns_a_plan_per_problem(rng: torch.Generator) -> None:
    problems = random_problems(5, 4, loss="l2", pairs="all", generator=rng)
    jobs = [solvers.ours(problems), solvers.ours_public(problems), solvers.pot_batch(problems)]
    if solvers.have_ott():
        jobs.append(solvers.ott_gromov(problems))
    for job in jobs:
        plans = job.plans()
        assert plans.shape == (4, 5, 5)
        assert plans.dtype == np.float64
        assert marginal_error(problems, plans).max() < 0.1
        assert job.problems % 4 == 0
