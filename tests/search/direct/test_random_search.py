import torch

from hotnas_torch import spaces
from hotnas_torch.search import RandomSearch
from hotnas_torch.testing.strategy import StrategyContract


class TestRandomSearch(StrategyContract):
    model_free = True

    def make(self, space, generator):
        return RandomSearch(space, generator=generator)


def test_the_draws_do_not_depend_on_the_batches():
    space = spaces.DARTS()
    at_once = RandomSearch(space, generator=torch.Generator().manual_seed(2)).ask(12)
    strategy = RandomSearch(space, generator=torch.Generator().manual_seed(2))
    assert [net for num in (5, 1, 6) for net in strategy.ask(num)] == at_once


def test_draws_are_uniform_over_what_is_left():
    space = spaces.Pooling()
    first = list(space)[:33]
    counts = dict.fromkeys((net.spec for net in list(space)[33:]), 0)
    for seed in range(300):
        strategy = RandomSearch(space, generator=torch.Generator().manual_seed(seed))
        strategy.tell(first, range(33))
        counts[strategy.ask()[0].spec] += 1
    # Three sigma of a binomial with 300 draws and probability 1/3.
    assert all(abs(count - 100) < 25 for count in counts.values())
