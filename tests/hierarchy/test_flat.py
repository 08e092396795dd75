import pytest
import torch

from hotnas_torch.hierarchy import Boltzmann, Independent, Schedule

HOT = Schedule(warm_up=0.0, start=0.5, end=0.5)


def test_boltzmann_is_the_softmax_of_smoothed_rewards(rng):
    sampler = Boltzmann(5, beta=0.8, initial=1.0, schedule=HOT)
    values = [1.0] * 5
    for _ in range(30):
        place = int(torch.randint(4, (), generator=rng))
        reward = float(torch.rand((), generator=rng))
        sampler.update(torch.tensor([place]), torch.tensor([reward], dtype=torch.float64))
        values[place] = 0.8 * values[place] + 0.2 * reward
    expected = torch.tensor(values, dtype=torch.float64).div(0.5).log_softmax(0)
    torch.testing.assert_close(sampler.log_probabilities(), expected)


def test_independent_layers_factorise_over_all_combinations(rng):
    codes = torch.cartesian_prod(torch.arange(2), torch.arange(3))
    sampler = Independent(codes, beta=0.5, schedule=HOT)
    drawn = torch.randint(6, (50,), generator=rng)
    sampler.update(drawn, torch.rand(50, generator=rng))
    p = sampler.log_probabilities().exp().reshape(2, 3)
    torch.testing.assert_close(p, p.sum(1, keepdim=True) * p.sum(0))
    assert p.std() > 0.01


def test_independent_learns_from_architectures_that_share_a_choice():
    codes = torch.tensor([[7, 5], [7, 6], [8, 5], [8, 6]])
    sampler = Independent(codes, beta=0.5, schedule=HOT)
    sampler.update(torch.tensor([0]), torch.tensor([0.0]))
    p = sampler.log_probabilities()
    assert p[0] < p[1] == p[2] < p[3]


def test_independent_normalises_over_the_combinations_that_there_are():
    codes = torch.tensor([[0, 0], [1, 1]])
    sampler = Independent(codes, beta=0.0, schedule=HOT)
    sampler.update(torch.tensor([0]), torch.tensor([0.5]))
    p = sampler.log_probabilities()
    assert float(p[1] - p[0]) == pytest.approx(2 * 0.5 / 0.5)


def test_codes_that_are_no_matrix_of_integers_are_refused():
    with pytest.raises(TypeError, match="codes must be a tensor of integers"):
        Independent(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"codes must have shape \(N, L\).*got \(3,\)"):
        Independent(torch.arange(3))
