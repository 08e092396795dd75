import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.search import BANANAS, AcquisitionInputs, ThompsonSampling
from hotnas_torch.testing.strategy import StrategyContract

FAST = {"epochs": 15, "num_layers": 2}


class TestBANANAS(StrategyContract):
    least_rank_correlation = 0.5

    def make(self, space, generator):
        return BANANAS(space, generator=generator, num_initial=6, pool_size=30, model_options=FAST)


def advanced(space, **settings):
    strategy = BANANAS(
        space,
        generator=torch.Generator().manual_seed(0),
        **({"num_initial": 5, "pool_size": 12, "model_options": FAST} | settings),
    )
    for num in (5, 3):
        nets = strategy.ask(num)
        strategy.tell(nets, [1.0 + sum(map(ord, net.spec)) % 17 for net in nets])
    return strategy


@pytest.mark.parametrize("encoding", ["path", "adjacency"])
@pytest.mark.parametrize("name", ["nasbench101", "nasbench201", "transnas_macro", "darts"])
def test_other_spaces_are_searched(name, encoding):
    assert len(advanced(spaces.get(name), encoding=encoding).observations) == 8


@pytest.mark.parametrize("acquisition", ["ucb", "log_ei"])
def test_other_acquisition_functions_take_the_ensemble(acquisition):
    assert len(advanced(spaces.NASBenchMacro(), acquisition=acquisition).observations) == 8


def test_draws_are_normal_and_independent(rng):
    strategy = advanced(spaces.NASBenchMacro())
    model = strategy.model
    rows = strategy.space.encode(strategy.space.sample(5, generator=rng))
    inputs = AcquisitionInputs(X=rows, best=0.0, pending=rows[:0], step=1)
    function = ThompsonSampling()(model, inputs)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        draws = torch.stack([function(rows.unsqueeze(1)) for _ in range(4000)])
    posterior = model.posterior(rows)
    deviation = posterior.variance.flatten().sqrt()
    error = (draws.mean(0) - posterior.mean.flatten()) / deviation
    assert error.abs().max() < 5 / 4000**0.5
    assert torch.allclose(draws.std(0), deviation, rtol=0.06)
    assert (torch.corrcoef(draws.T) - torch.eye(5)).abs().max() < 0.08


def test_a_batch_is_chosen_with_one_ensemble_from_one_pool():
    strategy = advanced(spaces.NASBenchMacro())
    fits, pools = [], []
    fit, pool = strategy._fitted, strategy.pool
    strategy._fitted = lambda X, *rest: fits.append(len(X)) or fit(X, *rest)
    strategy.pool = lambda *args: pools.append(pool(*args)) or pools[-1]
    chosen = strategy.ask(10)
    assert fits == [8]
    assert len(pools) == 1
    assert {net.spec for net in chosen} <= {net.spec for net in pools[0]}


def test_the_pool_is_mutants_of_the_single_best():
    strategy = advanced(spaces.NASBenchMacro())
    best = strategy.best.network.spec
    pool = strategy.pool(strategy._choice(), 40, set())
    kept = [sum(a == b for a, b in zip(net.spec, best, strict=True)) for net in pool]
    assert sum(kept) / len(kept) > 5.0


def test_settings_are_recorded():
    settings = advanced(spaces.NASBenchMacro(), max_length=1).settings()
    assert settings["max_length"] == 1
    assert settings["model_options"] == FAST
    assert settings["acquisition"] == "ThompsonSampling()"


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"encoding": "graph"}, ValueError, "encoding must be 'path' or 'adjacency'"),
        ({"encoding": "adjacency", "max_length": 2}, ValueError, "max_length is a setting of"),
        ({"max_length": -1}, ValueError, "max_length must be at least 1"),
        ({"model_options": {"width": 0}}, ValueError, "width must be at least 1"),
        ({"model_options": {"depth": 3}}, TypeError, "depth"),
        ({"acquisition": "ts"}, ValueError, "acquisition must be one of"),
    ],
)
def test_settings_are_checked_at_once(settings, kind, message):
    with pytest.raises(kind, match=message):
        BANANAS(spaces.NASBenchMacro(), generator=torch.Generator(), **settings)
