import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.search import MutationSearch, RandomSearch
from hotnas_torch.testing.strategy import StrategyContract


class TestMutationSearch(StrategyContract):
    def make(self, space, generator):
        return MutationSearch(space, generator=generator, num_initial=6, num_parents=3)


def seeded(kind, **settings):
    return kind(spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(0), **settings)


def test_the_first_networks_are_random_search():
    assert seeded(MutationSearch).ask(10) == seeded(RandomSearch).ask(10)


def test_what_is_not_among_the_best_has_no_children():
    strategy = seeded(MutationSearch, num_initial=2, num_parents=2)
    space = strategy.space
    texts = ("22222222", "22222221", "00000000", "00000001")
    strategy.tell([space.from_string(text) for text in texts], [1.0, 2.0, 8.0, 9.0])
    # A mutant draws each of the 8 layers anew with a small probability.
    kept = [8 - sum(digit != "2" for digit in net.spec) for net in strategy.ask(30)]
    assert sum(kept) / 30 > 5.0


@pytest.mark.parametrize("setting", ["num_initial", "num_parents"])
def test_settings_are_checked(setting):
    with pytest.raises(ValueError, match=f"{setting} must be at least 1"):
        seeded(MutationSearch, **{setting: 0})
