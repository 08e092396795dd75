import math

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.search import LocalSearch, RandomSearch
from hotnas_torch.testing.strategy import StrategyContract


class TestLocalSearch(StrategyContract):
    def make(self, space, generator):
        return LocalSearch(space, generator=generator, num_initial=4)


def search(space=None, seed=0, **settings):
    space = space or spaces.NASBenchMacro()
    return LocalSearch(space, generator=torch.Generator().manual_seed(seed), **settings)


def tell(strategy, values):
    strategy.tell([strategy.space.from_string(text) for text in values], list(values.values()))


def distance(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


def test_a_climb_starts_with_random_search():
    strategy = search()
    random = RandomSearch(strategy.space, generator=torch.Generator().manual_seed(0))
    nets = strategy.ask(10)
    assert nets == random.ask(10)


def test_the_neighbours_of_the_best_are_asked_for_until_one_is_better():
    strategy = search(num_initial=2)
    tell(strategy, {"00000000": 5.0, "22222222": 4.0})
    first, second = strategy.ask(2)
    assert distance(first.spec, "22222222") == distance(second.spec, "22222222") == 1
    strategy.tell([first, second], [4.5, 3.0])
    (third,) = strategy.ask(1)
    assert distance(third.spec, second.spec) == 1
    # An equal value is no improvement.
    strategy.tell([third], [3.0])
    assert distance(strategy.ask(1)[0].spec, second.spec) == 1


def test_a_full_neighbourhood_is_evaluated_before_its_best_is_the_centre():
    strategy = search(num_initial=1, full_neighborhood=True)
    tell(strategy, {"11111111": 5.0})
    around = strategy.ask(10)
    strategy.tell(around, [4.0 - place / 10 for place in range(10)])
    rest = strategy.ask(6)
    assert {distance(net.spec, "11111111") for net in around + rest} == {1}
    strategy.tell(rest, [6.0] * 6)
    assert distance(strategy.ask(1)[0].spec, around[9].spec) == 1


@pytest.mark.parametrize("full_neighborhood", [False, True])
def test_a_local_minimum_ends_the_climb(full_neighborhood):
    strategy = search(num_initial=3, full_neighborhood=full_neighborhood)
    tell(strategy, {"00000000": 1.0, "01010101": 2.0, "10101010": 3.0})
    around = strategy.ask(16)
    assert {net.spec.count("0") for net in around} == {7}
    strategy.tell(around, [4.0] * 15 + [math.nan])
    # The next climb: random networks, then the neighbours of the best among these alone.
    starts = strategy.ask(3)
    assert min(distance(net.spec, "00000000") for net in starts) > 1
    strategy.tell(starts, [9.0, 8.0, 10.0])
    assert distance(strategy.ask(1)[0].spec, starts[1].spec) == 1


def test_a_batch_larger_than_the_neighbourhood_is_filled_with_random_networks():
    strategy = search(num_initial=1)
    tell(strategy, {"00000000": 1.0})
    specs = [net.spec for net in strategy.ask(20)]
    assert {distance(spec, "00000000") for spec in specs[:16]} == {1}
    assert len(set(specs)) == 20


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "transnas_macro", "darts"])
def test_other_spaces_are_searched(name):
    strategy = search(spaces.get(name), num_initial=2)
    for _ in range(6):
        nets = strategy.ask(2)
        strategy.tell(nets, [float(len(net.cells[0].edges)) for net in nets])
    assert len(strategy.observations) == 12


def test_settings_are_checked():
    with pytest.raises(ValueError, match="num_initial must be at least 1"):
        search(num_initial=0)
