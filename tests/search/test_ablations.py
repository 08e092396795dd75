import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.search import HOTNAS, MutationSearch, RandomPool, RandomSearch
from hotnas_torch.testing.strategy import StrategyContract, toy_value


class TestMutationSearch(StrategyContract):
    def make(self, space, generator):
        return MutationSearch(space, generator=generator, num_initial=6, num_parents=3)


class TestRandomPool(StrategyContract):
    def make(self, space, generator):
        return RandomPool(
            space, generator=generator, num_initial=6, pool_size=20, random_fraction=0.0
        )


def seeded(kind, **settings):
    return kind(spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0), **settings)


@pytest.mark.parametrize("kind", [MutationSearch, RandomPool])
def test_the_first_networks_are_random_search(kind):
    assert seeded(kind).ask(10) == seeded(RandomSearch).ask(10)


@pytest.mark.parametrize("kind", [MutationSearch, RandomPool])
def test_what_is_not_among_the_best_has_no_children(kind):
    settings = {"random_fraction": 0.0, "pool_size": 40} if kind is RandomPool else {}
    strategy = seeded(kind, num_initial=2, num_parents=2, **settings)
    space = strategy.space
    texts = ("22222222", "22222221", "00000000", "00000001")
    strategy.tell([space.from_string(text) for text in texts], [1.0, 2.0, 8.0, 9.0])
    # A mutant draws each of the 8 layers anew with a small probability.
    kept = [8 - sum(digit != "2" for digit in net.spec) for net in strategy.ask(30)]
    assert sum(kept) / 30 > 5.0


def test_the_pool_is_that_of_hotnas():
    pools = []
    for kind in (HOTNAS, RandomPool):
        strategy = seeded(kind, num_initial=4, pool_size=30, model_options={"learn": []})
        nets = strategy.ask(4)
        strategy.tell(nets, [1.0 + toy_value(net) for net in nets])
        build = strategy._pool
        strategy._pool = lambda *args, build=build: pools.append(build(*args)) or pools[-1]
        assert strategy.ask(1)[0] in pools[-1]
    assert pools[0] == pools[1]
    assert len(pools[0]) == 30


def test_every_member_of_the_pool_may_be_taken():
    strategy = seeded(RandomPool, num_initial=2, pool_size=8)
    nets = strategy.ask(2)
    strategy.tell(nets, [1.0, 2.0])
    pool = [
        net.spec for net in strategy.space.sample(8, generator=torch.Generator().manual_seed(1))
    ]
    strategy._pool = lambda *_: [strategy.space.from_string(text) for text in pool]
    taken = {strategy.ask(1)[0].spec for _ in range(100)}
    assert taken == set(pool)


@pytest.mark.parametrize("setting", ["num_initial", "num_parents"])
def test_settings_are_checked(setting):
    with pytest.raises(ValueError, match=f"{setting} must be at least 1, got 0"):
        seeded(MutationSearch, **{setting: 0})
