import json
import math

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.errors import StorageError
from hotnas_torch.search import RandomSearch, RegularizedEvolution
from hotnas_torch.testing.strategy import toy_value

tune = pytest.importorskip("ray.tune")
integration = pytest.importorskip("hotnas_torch.integrations.ray.tune")

SPACE = spaces.NASBenchMacro()


def strategy(seed=0):
    return RegularizedEvolution(
        SPACE, generator=torch.Generator().manual_seed(seed), population=4, tournament=2
    )


def searcher(**options):
    return integration.StrategySearcher(
        strategy(), **({"metric": "error", "mode": "min"} | options)
    )


def test_trials_are_what_the_strategy_asks():
    found, expected = searcher(), strategy()
    for number in range(8):
        config = found.suggest(f"t{number}")
        (net,) = expected.ask()
        assert config == {"architecture": net.spec}
        assert found.strategy.pending == (net,)
        found.on_trial_complete(f"t{number}", {"error": toy_value(net), "other": 1})
        expected.tell([net], [toy_value(net)])
    assert found.strategy.observations == expected.observations


def test_tune_says_what_the_metric_is_and_adds_constants():
    found = integration.StrategySearcher(strategy(), parameter="arch")
    with pytest.raises(ValueError, match="metric and mode"):
        found.suggest("a")
    assert found.set_search_properties("accuracy", "max", {"epochs": 3, "data": {"name": "x"}})
    config = found.suggest("a")
    assert config.keys() == {"epochs", "data", "arch"}
    found.on_trial_complete("a", {"accuracy": 90.0})
    assert found.strategy.best.value == 90.0
    assert found.strategy.goal.direction == "maximize"


def test_several_objectives_are_reported_by_name():
    several = RandomSearch(
        SPACE,
        generator=torch.Generator().manual_seed(0),
        objectives={"error": "minimize", "accuracy": "maximize"},
        constraints=["latency <= 5"],
    )
    found = integration.StrategySearcher(several)
    found.set_search_properties(None, None, {})
    for number, latency in enumerate((4.0, 6.0, None)):
        found.suggest(f"t{number}")
        found.on_trial_complete(
            f"t{number}", {"error": 2.0, "accuracy": 0.5, "latency": latency, "other": 1}
        )
    assert several.values[:2].tolist() == [[2.0, 0.5, 4.0], [2.0, 0.5, 6.0]]
    assert several.values[2].isnan().all()
    assert len(several.front) == 1


def test_lists_name_metrics_and_modes_of_several_objectives():
    several = RandomSearch(
        SPACE, generator=torch.Generator().manual_seed(0), objectives=("error", "speed")
    )
    found = integration.StrategySearcher(several, metric=["err", "spd"], mode=["min", "max"])
    found.suggest("a")
    found.on_trial_complete("a", {"err": 1.0, "spd": 2.0})
    assert several.values.tolist() == [[1.0, 2.0]]
    assert several.goal.directions == ("minimize", "maximize")


@pytest.mark.parametrize("mode", ["min", "max"])
def test_what_an_earlier_version_saved_goes_on(tmp_path, mode):
    """Its values were negated where large ones are good."""
    found = searcher(mode=mode)
    for number in range(3):
        found.suggest(f"t{number}")
        found.on_trial_complete(f"t{number}", {"error": float(number)})
    path = str(tmp_path / "state.json")
    found.save(path)
    state = json.loads((tmp_path / "state.json").read_text())
    old = state["strategy"]
    if mode == "max":
        del old["config"]["goal"]
        old["observations"] = [[spec, -value] for spec, value in old["observations"]]
    (tmp_path / "state.json").write_text(
        json.dumps({"version": 1, "strategy": old, "trials": state["trials"]})
    )
    again = searcher(mode=mode)
    again.restore(path)
    assert again.strategy.observations == found.strategy.observations
    assert again.suggest("next") == found.suggest("next")
    with pytest.raises(StorageError, match="does not say its mode"):
        integration.StrategySearcher(strategy()).restore(path)


def test_hyperparameters_are_in_the_configuration():
    space = spaces.Joint(SPACE, {"lr": spaces.Log(1e-4, 1.0), "batch": [32, 64]})
    chosen = RandomSearch(space, generator=torch.Generator().manual_seed(0))
    found = integration.StrategySearcher(chosen, metric="error", mode="min")
    assert found.set_search_properties(None, None, {"epochs": 3})
    config = found.suggest("a")
    point = space.from_string(config["architecture"])
    assert config == {"epochs": 3, "architecture": point.spec, **point.values}
    json.dumps(config)
    found.on_trial_complete("a", {"error": 1.0})
    assert chosen.best.network == point
    with pytest.raises(ValueError, match="param_space must not hold 'lr', which the strategy"):
        found.set_search_properties(None, None, {"lr": 0.1})
    with pytest.raises(ValueError, match="'lr' is what the architecture's string is called"):
        integration.StrategySearcher(chosen, parameter="lr")


@pytest.mark.parametrize(
    "result", [None, {}, {"error": None}, {"error": math.nan}, {"error": math.inf}]
)
def test_trials_without_a_value_count_as_failed(result):
    found = searcher()
    found.suggest("a")
    found.on_trial_complete("a", result)
    found.suggest("b")
    found.on_trial_complete("b", {"error": 1.0}, error=True)
    found.on_trial_complete("unknown", {"error": 1.0})
    assert [math.isnan(told.value) for told in found.strategy.observations] == [True, True]


@pytest.mark.parametrize("value", ["0.3", True, [1.0, 2.0], {}])
def test_a_metric_that_is_no_number_is_named_and_nothing_is_lost(value):
    found = searcher()
    found.suggest("a")
    with pytest.raises(TypeError, match=r"'error' of trial a must be (a|one) number"):
        found.on_trial_complete("a", {"error": value})
    assert len(found.strategy.pending) == 1
    found.on_trial_complete("a", {"error": 0.5})
    assert found.strategy.best.value == 0.5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rate": tune.uniform(0, 1)}, "param_space: rate must be values"),
        ({"a": {"b": tune.choice([1, 2])}}, "param_space: a/b must be values"),
        ({"rate": tune.grid_search([1, 2])}, "param_space: rate must be values"),
        ({"architecture": "x"}, "must not hold 'architecture'"),
    ],
)
def test_what_the_strategy_does_not_choose_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        searcher().set_search_properties("error", "min", config)


def test_a_space_that_is_used_up_ends_the_experiment():
    space = spaces.Pooling()
    small = RandomSearch(space, generator=torch.Generator().manual_seed(0))
    found = integration.StrategySearcher(small, metric="error", mode="min")
    configs = [found.suggest(str(number)) for number in range(space.size() + 1)]
    assert configs.pop() == found.FINISHED
    assert len({config["architecture"] for config in configs}) == space.size()


def test_a_state_is_saved_and_restored(tmp_path):
    path = str(tmp_path / "state.json")
    found = searcher()
    for trial in "abc":
        found.suggest(trial)
    found.on_trial_complete("b", {"error": 3.0})
    found.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]
    again = searcher()
    again.restore(path)
    for each in (found, again):
        each.on_trial_complete("a", {"error": 4.0})
    assert again.strategy.observations == found.strategy.observations
    assert again.suggest("d") == found.suggest("d")
    (tmp_path / "state.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(ValueError, match="has version 99"):
        again.restore(path)


def test_points_that_were_evaluated_elsewhere_are_told():
    found = searcher()
    chosen = found.strategy
    found.add_evaluated_point({"architecture": "01201201", "epochs": 5}, 3.0)
    found.add_evaluated_point({"architecture": "22222222"}, 1.0, error=True)
    found.add_evaluated_point(
        {"architecture": "11111111"}, None, pruned=True, intermediate_values=[4.0, 2.0]
    )
    assert [one.network.spec for one in chosen.observations] == [
        *("01201201", "22222222", "11111111")
    ]
    assert [repr(one.value) for one in chosen.observations] == ["3.0", "nan", "2.0"]
    for point, message in (
        ({}, "parameters must hold the architecture string as 'architecture'"),
        ({"architecture": "0"}, "0"),
        ({"architecture": "01201201"}, "is observed already"),
    ):
        with pytest.raises(ValueError, match=message):
            found.add_evaluated_point(point, 1.0)


def test_anything_but_a_strategy_is_refused():
    with pytest.raises(TypeError, match="strategy must be a Strategy"):
        integration.StrategySearcher(SPACE)


def trainable(config):
    tune.report({"error": toy_value(SPACE.from_string(config["architecture"]))})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("cluster")
def test_an_experiment_of_tune(tmp_path):
    found = integration.StrategySearcher(strategy())
    results = tune.Tuner(
        trainable,
        param_space={"epochs": 1},
        tune_config=tune.TuneConfig(
            search_alg=found, metric="error", mode="min", num_samples=5, max_concurrent_trials=2
        ),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert len(results) == 5
    specs = {result.config["architecture"] for result in results}
    assert len(specs) == 5
    assert results.get_best_result().metrics["error"] == min(
        toy_value(SPACE.from_string(spec)) for spec in specs
    )
