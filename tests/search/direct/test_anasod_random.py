import math

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.search import ANASODRandomSearch
from hotnas_torch.testing.strategy import StrategyContract


class TestANASODRandomSearch(StrategyContract):
    model_free = True

    def make(self, space, generator):
        return ANASODRandomSearch(space, generator=generator)


class TestBiasedRandomSearch(StrategyContract):
    def make(self, space, generator):
        return ANASODRandomSearch(space, generator=generator, bias=8.0, budget=20)


def strategy_of(space, seed=0, **settings):
    return ANASODRandomSearch(space, generator=torch.Generator().manual_seed(seed), **settings)


def test_encodings_and_not_architectures_are_uniform():
    strategy = strategy_of(spaces.NASBenchMacro())
    asked = strategy.encoding.encode(strategy.ask(400))
    uniform = strategy.space.sample(400, generator=torch.Generator().manual_seed(0), distinct=True)
    # The sum of squared shares is 1/2 on average over the simplex, and 5/12 over strings.
    assert 0.46 < float(asked.square().sum(dim=1).mean()) < 0.52
    assert float(strategy.encoding.encode(uniform).square().sum(dim=1).mean()) < 0.44


def test_the_bias_grows_linearly_to_its_end():
    space = spaces.NASBench201()
    strategy = strategy_of(space, bias=2.0, budget=300)
    assert strategy.concentration(100).tolist() == [1.0] * 5
    best = space.from_string(
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
    )
    worse = space.sample(1, generator=torch.Generator().manual_seed(3))
    strategy.tell([best, *worse], [1.0, 2.0])
    share = torch.tensor([2, 1, 1, 2, 0], dtype=torch.float64) / 6
    for step, beta in ((0, 0.0), (75, 0.5), (300, 2.0), (1000, 2.0)):
        assert torch.allclose(strategy.concentration(step), 1.0 + 5 * beta * share)


def test_the_mode_of_the_distribution_is_the_best_encoding():
    strategy = strategy_of(spaces.NASBenchMacro(), bias=20.0, budget=1)
    best = strategy.space.from_string("11122222")
    strategy.tell([best], [0.0])
    nets = strategy.ask(40)
    mean = strategy.encoding.encode(nets).mean(dim=0)
    assert torch.allclose(mean, torch.tensor([0, 3, 5]).double() / 8, atol=0.12)


def test_a_bias_beats_none_where_the_encoding_decides():
    def value(net):
        return 0.5 + abs(net.spec.count("nor_conv_3x3") - 4) + abs(net.spec.count("skip") - 2)

    wins = 0
    for seed in range(4):
        best = []
        for bias in (0.0, 6.0):
            strategy = strategy_of(spaces.NASBench201(), seed, bias=bias, budget=60)
            found = []
            for _ in range(60):
                (net,) = strategy.ask()
                found.append(value(net))
                strategy.tell([net], found[-1:])
            best.append(sum(found) / len(found))
        wins += best[1] < best[0]
    assert wins == 4


def test_settings_are_checked():
    with pytest.raises(ValueError, match="bias must be finite and >= 0; got -1"):
        strategy_of(spaces.NASBenchMacro(), bias=-1.0)
    with pytest.raises(ValueError, match="bias must be finite"):
        strategy_of(spaces.NASBenchMacro(), bias=math.inf)
    with pytest.raises(ValueError, match="budget must be at least 1"):
        strategy_of(spaces.NASBenchMacro(), budget=0)
