import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.search import NASBOWL
from hotnas_torch.testing.strategy import StrategyContract


class TestNASBOWL(StrategyContract):
    least_rank_correlation = 0.5

    def make(self, space, generator):
        return NASBOWL(space, generator=generator, num_initial=6, pool_size=30)


def advanced(space, **settings):
    strategy = NASBOWL(
        space, generator=torch.Generator().manual_seed(0), **({"num_initial": 6} | settings)
    )
    for num in (6, 2, 2):
        nets = strategy.ask(num)
        strategy.tell(nets, [1.0 + sum(map(ord, net.spec)) % 17 for net in nets])
    return strategy


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "transnas_macro", "darts"])
def test_other_spaces_are_searched(name):
    strategy = advanced(spaces.get(name), pool_size=15)
    assert len(strategy.observations) == 10
    assert strategy.model.covar_module.level in strategy.model.levels


def test_the_model_gets_the_settings():
    strategy = advanced(
        spaces.NASBench201(), levels=[0, 2], aggregation="assignment", max_noise=0.1, pool_size=10
    )
    model = strategy.model
    assert model.levels == (0, 2)
    assert model.covar_module.aggregation == "assignment"
    assert model.noise_bounds == (1e-5, 0.1)
    assert strategy.settings()["levels"] == [0, 2]


def test_the_pool_of_nasbench201_is_all_mutants():
    generator = torch.Generator().manual_seed(0)
    assert NASBOWL(spaces.NASBench201(), generator=generator).random_fraction == 0.0
    assert NASBOWL(spaces.NASBench101(), generator=generator).random_fraction == 0.5
    assert (
        NASBOWL(spaces.NASBench201(), generator=generator, random_fraction=0.3).random_fraction
        == 0.3
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": ()}, "levels must hold at least one level"),
        ({"levels": (1, -2)}, r"levels\[1\] must be at least 0; got -2"),
        ({"aggregation": "mean"}, "aggregation must be one of"),
        ({"max_noise": 1e-6}, "max_noise must be finite and above 1e-05; got 1e-06"),
        ({"max_noise": float("nan")}, "max_noise must be finite and above 1e-05; got nan"),
        ({"num_parents": 0}, "num_parents must be at least 1"),
    ],
)
def test_settings_are_checked_at_once(settings, message):
    with pytest.raises(ValueError, match=message):
        NASBOWL(spaces.NASBenchMacro(), generator=torch.Generator(), **settings)
