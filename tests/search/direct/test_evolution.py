import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.search import RandomSearch, RegularizedEvolution
from hotnas_torch.testing.strategy import StrategyContract, toy_value


class TestRegularizedEvolution(StrategyContract):
    def make(self, space, generator):
        return RegularizedEvolution(space, generator=generator, population=8, tournament=4)


def evolution(**settings):
    return RegularizedEvolution(
        spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0), **settings
    )


def test_the_first_population_is_random_search():
    strategy = evolution(population=10)
    random = RandomSearch(strategy.space, generator=torch.Generator().manual_seed(0))
    nets = strategy.ask(10)
    assert nets == random.ask(10)
    strategy.tell(nets, [toy_value(net) for net in nets])
    assert strategy.ask(1) != random.ask(1)


def test_the_oldest_retire_and_failures_never_enter():
    strategy = evolution(population=3, tournament=50)
    space = strategy.space
    old, *living = (
        space.from_string(text) for text in ("00000000", "11111111", "22222222", "12121212")
    )
    failed = space.from_string("20000002")
    # The best of all is too old to be a parent, and the failed one is none.
    strategy.tell([old, *living, failed], [0.0, 2.0, 1.0, 3.0, float("nan")])
    for child in strategy.ask(20):
        # With 50 draws out of three the winner is always the best of them; a mutant keeps most
        # of its layers.
        kept = sum(a == b for a, b in zip(child.spec, "22222222", strict=True))
        assert kept >= sum(a == b for a, b in zip(child.spec, "00000000", strict=True))


def test_a_winner_is_mutated():
    strategy = evolution(population=2, tournament=30)
    space = strategy.space
    nets = [space.from_string("22222222"), space.from_string("00000000")]
    strategy.tell(nets, [1.0, 0.0])
    before = strategy.state_dict()["generator"]
    (child,) = strategy.ask(1)
    assert child.spec.count("0") > child.spec.count("2")
    assert strategy.state_dict()["generator"] != before


@pytest.mark.parametrize("setting", ["population", "tournament"])
def test_settings_are_checked(setting):
    with pytest.raises(ValueError, match=f"{setting} must be at least 1"):
        evolution(**{setting: 0})
