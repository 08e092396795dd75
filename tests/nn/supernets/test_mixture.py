import pytest
import torch

from hotnas_torch.hierarchy import Mixture, Schedule
from hotnas_torch.nn import (
    CostTable,
    PoolingSupernet,
    SupernetMixture,
    SupernetSearch,
    SupernetSettings,
    digits,
)

DATA = digits(generator=torch.Generator().manual_seed(0), num_train=80, num_validation=80)


def make(generator):
    return PoolingSupernet(width=0.125, input_channels=1, generator=generator)


def mixture(num_models=2):
    return SupernetMixture(make, num_models, generator=torch.Generator().manual_seed(0))


def test_a_step_trains_one_of_the_supernets(rng):
    supernet = mixture()
    net = supernet.space.sample_one(generator=rng)
    images = torch.randn(4, 1, 8, 8, generator=rng)
    first, second = supernet.outputs(images, [net, net])
    assert not torch.equal(first, second)
    for place, logits in enumerate((first, second)):
        torch.testing.assert_close(supernet.models[place](images, net), logits)
    path = supernet.paths([net, net])[1].tolist()
    supernet.follow(images, path).sum().backward()
    assert all(weight.grad is None for weight in supernet.models[0].parameters())
    assert any(weight.grad is not None for weight in supernet.models[1].parameters())
    with pytest.raises(ValueError, match="at most 2 times"):
        supernet.paths([net] * 3)


def test_costs_are_those_of_one_of_the_supernets():
    with pytest.raises(ValueError, match="supernet must be a single one"):
        CostTable(mixture(), image_size=8)


def test_networks_are_searched_in_several_supernets():
    supernet = mixture()
    nets = list(supernet.space) * 2
    search = SupernetSearch(
        supernet,
        nets,
        Mixture(36, 2, schedule=Schedule(warm_up=0.25)),
        DATA,
        SupernetSettings(epochs=3, batch_size=40),
        generator=torch.Generator().manual_seed(0),
    )
    result = search.run(progress=False)
    assert result.network in supernet.space
    assert search.accuracies().shape == (72,)
    assert 0.0 <= result.accuracy <= 1.0
