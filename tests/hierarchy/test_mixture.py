import pytest
import torch

from hotnas_torch.hierarchy import Mixture, Schedule

COLD = Schedule(warm_up=0.0, start=0.05, end=0.05)


def test_architectures_are_uniform_and_models_balanced(rng):
    sampler = Mixture(12, 3, beta=0.5, schedule=COLD)
    # The first model is best for all, by far.
    rewards = torch.rand(3, 12, generator=rng, dtype=torch.float64) * 0.2
    rewards[0] += 0.7
    for _ in range(20):
        sampler.update(torch.arange(36), rewards.flatten())
    p = sampler.log_probabilities().exp().reshape(3, 12)
    torch.testing.assert_close(p.sum(0), torch.full((12,), 1 / 12, dtype=torch.float64))
    torch.testing.assert_close(
        p.sum(1), torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.02, rtol=0.0
    )
    # Within that, an architecture is where it is best compared with others.
    assert int(sampler.best(1, generator=rng)) == int(rewards.argmax())


def test_architectures_come_to_belong_to_models(rng):
    sampler = Mixture(4, 2, beta=0.5, schedule=COLD)
    rewards = torch.tensor([[0.9, 0.9, 0.3, 0.3], [0.3, 0.3, 0.9, 0.9]]).flatten()
    for _ in range(60):
        drawn = sampler.sample(4, generator=rng)
        sampler.update(drawn, rewards[drawn])
    owner = sampler.log_probabilities().exp().reshape(2, 4).argmax(0)
    assert owner.tolist() == [0, 0, 1, 1]
    other = Mixture(4, 2, beta=0.5, schedule=COLD)
    other.load_state_dict(sampler.state_dict())
    assert torch.equal(other.log_probabilities(), sampler.log_probabilities())


def test_sizes_are_checked():
    for arguments, name in (((0, 2), "num_architectures"), ((2, 0), "num_models")):
        with pytest.raises(ValueError, match=f"{name} must be at least 1"):
            Mixture(*arguments)
