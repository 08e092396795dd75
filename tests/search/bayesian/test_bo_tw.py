import json

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.search import BOTW, UCB
from hotnas_torch.testing.strategy import StrategyContract, toy_value


def bo_tw(space=None, seed=0, **settings):
    settings = {"num_initial": 4, "pool_size": 20, **settings}
    return BOTW(
        space or spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(seed), **settings
    )


class TestBOTW(StrategyContract):
    least_rank_correlation = 0.5

    def make(self, space, generator):
        return BOTW(space, generator=generator, grams=2, num_initial=6, pool_size=16, num_parents=4)


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "transnas_macro", "darts"])
def test_it_searches_every_space(name, rng):
    strategy = bo_tw(spaces.get(name), grams=2)
    for num in (4, 3, 1):
        nets = strategy.ask(num)
        values = torch.rand(num, generator=rng).tolist()
        strategy.tell(nets, values)
    assert len(strategy.observations) == 8


def test_a_batch_is_more_diverse_than_the_best_few():
    strategy = bo_tw(num_initial=20, pool_size=60)
    nets = strategy.ask(20)
    strategy.tell(nets, [1.0 + toy_value(net) for net in nets])
    batch = strategy.ask(5)
    assert len({net.spec for net in batch}) == 5
    counts = {tuple(sorted(net.spec)) for net in batch}
    # The distance sees counts of operations; equal ones would add no volume.
    assert len(counts) >= 4


def test_pending_networks_change_the_batch():
    first, second = bo_tw(num_initial=8), bo_tw(num_initial=8)
    for strategy in (first, second):
        nets = strategy.ask(8)
        strategy.tell(nets, [1.0 + toy_value(net) for net in nets])
    asked = first.ask(3)
    again = first.ask(3)
    assert {net.spec for net in asked}.isdisjoint(net.spec for net in again)
    assert [net.spec for net in second.ask(3)] == [net.spec for net in asked]


def test_batches_may_be_chosen_one_by_one():
    strategy = bo_tw(batches="believer", num_initial=6)
    for num in (6, 3):
        nets = strategy.ask(num)
        strategy.tell(nets, [1.0 + toy_value(net) for net in nets])
    assert len({found.network.spec for found in strategy.observations}) == 9


def test_settings_are_recorded():
    strategy = bo_tw(grams=2, distance_options={"alpha": 0.05}, acquisition=UCB(1.0))
    settings = json.loads(json.dumps(strategy.settings()))
    assert settings["grams"] == 2
    assert settings["distance_options"] == {"alpha": 0.05}
    assert settings["acquisition"] == "UCB(beta=1.0)"
    assert strategy.distance.alpha == 0.05


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"batches": "greedy"}, ValueError, "batches must be 'kdpp' or 'believer'; got 'greedy'"),
        ({"grams": 0}, ValueError, "grams must be 1 or 2"),
        ({"distance_options": {"alpha": {1}}}, TypeError, "ready for json.dumps"),
        ({"pool_size": 0}, ValueError, "pool_size must be at least 1"),
    ],
)
def test_wrong_settings_are_named(settings, kind, message):
    with pytest.raises(kind, match=message):
        bo_tw(**settings)
