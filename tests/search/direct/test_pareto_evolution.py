import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.search import ParetoEvolution, RandomSearch, run
from hotnas_torch.testing.strategy import StrategyContract, toy_value

SPACE = spaces.NASBenchMacro()


class TestParetoEvolution(StrategyContract):
    def make(self, space, generator):
        return ParetoEvolution(space, generator=generator, population=6)


def two(net):
    return {"error": toy_value(net), "size": float(sum(map(int, net.spec)) ** 2)}


def volume(kind, seed, **options):
    strategy = kind(
        SPACE,
        generator=torch.Generator().manual_seed(seed),
        objectives=("error", "size"),
        **options,
    )
    result = run(strategy, two, budget=60, progress=False)
    return result.hypervolume([20.0, 300.0])


def test_fronts_grow_faster_than_by_chance():
    ours = [volume(ParetoEvolution, seed, population=10) for seed in range(4)]
    random = [volume(RandomSearch, seed) for seed in range(4)]
    assert sum(ours) > sum(random)


@pytest.mark.parametrize("settings", [{"population": 1}, {"tournament": 0}])
def test_sizes_out_of_range_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        ParetoEvolution(SPACE, generator=torch.Generator(), **settings)
