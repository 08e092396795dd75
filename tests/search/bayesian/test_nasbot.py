import json

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.search import NASBOT
from hotnas_torch.testing.strategy import StrategyContract, toy_value


def nasbot(space=None, seed=0, **settings):
    settings = {"num_initial": 4, "pool_size": 10, **settings}
    return NASBOT(
        space or spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(seed), **settings
    )


class TestNASBOT(StrategyContract):
    least_rank_correlation = 0.5

    def make(self, space, generator):
        return NASBOT(
            space, generator=generator, num_initial=6, pool_size=10, distance_options={"nu": [0.25]}
        )


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "transnas_macro", "darts"])
def test_it_searches_every_space(name, rng):
    strategy = nasbot(spaces.get(name))
    for num in (4, 2):
        nets = strategy.ask(num)
        strategy.tell(nets, torch.rand(num, generator=rng).tolist())
    assert len(strategy.observations) == 6


def test_the_number_of_evaluations_grows_within_its_limits():
    strategy = nasbot(pool_size=50, max_pool_size=100)
    assert [strategy.pool.evaluations(step) for step in (1, 30, 64, 400)] == [50, 50, 72, 100]


def test_the_pool_is_unseen_and_bred_from_the_best():
    space = spaces.NASBenchMacro()
    strategy = nasbot(space, num_initial=30)
    nets = strategy.ask(30)
    strategy.tell(nets, [1.0 + toy_value(net) for net in nets])
    strategy.ask(1)
    taken = strategy._taken()
    pool = strategy.pool(strategy._choice(), 200, set(taken))
    keys = {space.key(net) for net in pool}
    assert len(keys) == len(pool) == 200
    assert keys.isdisjoint(taken)
    drawn = space.sample(200, generator=torch.Generator().manual_seed(7))
    mean = [sum(toy_value(net) for net in some) / 200 for some in (pool, drawn)]
    assert mean[0] < mean[1] - 1.0


def test_the_kernel_is_fitted_every_so_often():
    strategy = nasbot(refit_every=3, num_initial=4)
    scales = []
    for num in (4, 1, 1, 1, 1):
        nets = strategy.ask(num)
        strategy.tell(nets, [1.0 + toy_value(net) for net in nets])
        if strategy.model is not None:
            assert len(strategy.model.train_targets) == len(strategy.observations) - 1
            scales.append(strategy.model.kernel.scales.tolist())
    # Fitted on 4 observations, three times in use, then on 7.
    assert scales[0] == scales[1] == scales[2] != scales[3]


def test_settings_are_recorded():
    strategy = nasbot(distance_options={"nu": [0.5], "penalty": 2.0})
    settings = json.loads(json.dumps(strategy.settings()))
    assert settings["distance_options"] == {"nu": [0.5], "penalty": 2.0}
    assert strategy.distance.penalty == 2.0
    assert "num_parents" not in settings
    assert not hasattr(strategy, "num_parents")


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"pool_size": 20, "max_pool_size": 10}, ValueError, "at least pool_size, 20; got 10"),
        ({"refit_every": 0}, ValueError, "refit_every must be at least 1; got 0"),
        ({"pool_size": 0}, ValueError, "pool_size must be at least 1"),
        ({"distance_options": {"nu": []}}, ValueError, "nu must hold at least one"),
        ({"distance_options": {"nu": {1}}}, TypeError, "ready for json.dumps"),
    ],
)
def test_wrong_settings_are_named(settings, kind, message):
    with pytest.raises(kind, match=message):
        nasbot(**settings)
