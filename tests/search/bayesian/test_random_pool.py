import torch

from hotnas_torch import spaces
from hotnas_torch.search import HOTNAS, RandomPool, RandomSearch
from hotnas_torch.testing.strategy import StrategyContract, toy_value


class TestRandomPool(StrategyContract):
    def make(self, space, generator):
        return RandomPool(
            space, generator=generator, num_initial=6, pool_size=20, random_fraction=0.0
        )


def seeded(kind, **settings):
    return kind(spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0), **settings)


def test_the_first_networks_are_random_search():
    assert seeded(RandomPool).ask(10) == seeded(RandomSearch).ask(10)


def test_what_is_not_among_the_best_has_no_children():
    strategy = seeded(RandomPool, num_initial=2, num_parents=2, random_fraction=0.0, pool_size=40)
    space = strategy.space
    texts = ("22222222", "22222221", "00000000", "00000001")
    strategy.tell([space.from_string(text) for text in texts], [1.0, 2.0, 8.0, 9.0])
    # A mutant draws each of the 8 layers anew with a small probability.
    kept = [8 - sum(digit != "2" for digit in net.spec) for net in strategy.ask(30)]
    assert sum(kept) / 30 > 5.0


def test_the_pool_is_that_of_hotnas():
    pools = []
    for kind, own in ((HOTNAS, {"model_options": {"learn": []}}), (RandomPool, {})):
        strategy = seeded(kind, num_initial=4, pool_size=30, **own)
        nets = strategy.ask(4)
        strategy.tell(nets, [1.0 + toy_value(net) for net in nets])
        build = strategy.pool
        strategy.pool = lambda *args, build=build: pools.append(build(*args)) or pools[-1]
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
    strategy.pool = lambda *_: [strategy.space.from_string(text) for text in pool]
    taken = {strategy.ask(1)[0].spec for _ in range(100)}
    assert taken == set(pool)
