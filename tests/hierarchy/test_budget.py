import pytest
import torch

from hotnas_torch.hierarchy import (
    Boltzmann,
    Budgeted,
    Schedule,
    TreeSampler,
    Uniform,
    random_tree,
)

COST = torch.arange(20).double()
COLD = Schedule(warm_up=0.0, start=0.2, end=0.2)


def test_without_a_tree_it_is_drawing_until_one_fits(rng):
    inner = Boltzmann(20, beta=0.5, schedule=COLD)
    sampler = Budgeted(inner, COST, 9.0, least=5.0)
    sampler.update(torch.arange(20), torch.rand(20, generator=rng))
    p = inner.log_probabilities().exp()
    p[(COST < 5) | (COST > 9)] = 0.0
    torch.testing.assert_close(sampler.log_probabilities().exp(), p / p.sum())


def test_in_a_tree_branches_that_fit_nowhere_are_left_out(rng):
    tree = random_tree(20, generator=rng)
    sampler = Budgeted(TreeSampler(tree, schedule=COLD), COST, 3.0)
    for _ in range(60):
        drawn = sampler.sample(1, generator=rng)
        assert int(drawn) <= 3
        sampler.update(drawn, COST[drawn] / 4)
    assert int(sampler.best(1, generator=rng)) == 3
    # Unvisited branches have an infinite bonus, but not those in which nothing fits.
    assert int((sampler.sampler.visits[tree.leaf] > 0).sum()) == 4


def test_progress_reaches_the_sampler_inside():
    inner = Boltzmann(20, schedule=Schedule(warm_up=0.5))
    sampler = Budgeted(inner, COST, 9.0)
    sampler.set_progress(0.75)
    assert inner.progress == 0.75
    assert sampler.temperature == inner.temperature


def test_wrong_arguments_are_refused():
    inner = Uniform(20)
    for arguments, kind, message in (
        ((3, COST, 1.0), TypeError, "sampler must be a Sampler; got 3"),
        ((inner, COST.tolist(), 1.0), TypeError, "cost must be a torch Tensor; got list"),
        ((inner, COST[:3], 1.0), ValueError, r"cost must have shape \(20,\).*got \(3,\)"),
        ((inner, COST * torch.nan, 1.0), ValueError, r"cost\[0\] is NaN"),
        ((inner, COST + 5, 1.0), ValueError, "none costs between 0 and 1, they cost 5 to 24"),
    ):
        with pytest.raises(kind, match=message):
            Budgeted(*arguments)
