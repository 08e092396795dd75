import json

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.search import BOEdit
from hotnas_torch.testing.strategy import StrategyContract


def bo_edit(space=None, seed=0, **settings):
    settings = {"num_initial": 4, "pool_size": 20, **settings}
    return BOEdit(
        space or spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(seed), **settings
    )


class TestBOEdit(StrategyContract):
    least_rank_correlation = 0.5

    def make(self, space, generator):
        return BOEdit(
            space, generator=generator, num_initial=6, pool_size=30, num_parents=4, refit_every=5
        )


@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "transnas_macro", "darts"])
def test_it_searches_every_space(name, rng):
    strategy = bo_edit(spaces.get(name))
    for num in (4, 2):
        nets = strategy.ask(num)
        strategy.tell(nets, torch.rand(num, generator=rng).tolist())
    assert len(strategy.observations) == 6


def test_settings_are_recorded():
    strategy = bo_edit(distance_options={"edge_cost": 0.5, "method": "upper"})
    settings = json.loads(json.dumps(strategy.settings()))
    assert settings["distance_options"] == {"edge_cost": 0.5, "method": "upper"}
    assert strategy.distance.edge_cost == 0.5


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"random_fraction": 2.0}, ValueError, r"random_fraction must lie in \[0, 1\]"),
        ({"distance_options": {"node_cost": 0.1}}, ValueError, "node_cost must be at least half"),
        ({"distance_options": {"edge_cost": {1}}}, TypeError, "ready for json.dumps"),
    ],
)
def test_wrong_settings_are_named(settings, kind, message):
    with pytest.raises(kind, match=message):
        bo_edit(**settings)
