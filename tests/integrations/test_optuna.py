import math
import pickle

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.search import ParetoEvolution, RandomSearch, RegularizedEvolution
from hotnas_torch.testing.strategy import toy_value

optuna = pytest.importorskip("optuna")
integration = pytest.importorskip("hotnas_torch.integrations.optuna")
suites = pytest.importorskip("optuna.testing.pytest_samplers")

SPACE = spaces.NASBenchMacro()


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def strategy(seed=0, space=SPACE):
    return RegularizedEvolution(
        space, generator=torch.Generator().manual_seed(seed), population=4, tournament=2
    )


def value(trial):
    return toy_value(SPACE.from_string(trial.user_attrs["architecture"]))


def decisions(net):
    return {f"layer{place}": int(digit) for place, digit in enumerate(net.spec)}


def test_trials_are_what_the_strategy_asks_one_by_one():
    chosen = strategy()
    study = optuna.create_study(sampler=integration.StrategySampler(chosen))
    study.optimize(value, n_trials=12)
    expected = strategy()
    for trial in study.trials:
        (net,) = expected.ask()
        assert trial.user_attrs["architecture"] == net.spec
        expected.tell([net], [toy_value(net)])
    assert chosen.observations == expected.observations
    assert chosen.pending == ()
    assert study.best_value == chosen.best.value


def test_an_objective_that_suggests_its_decisions_stays_as_it_is():
    def objective(trial):
        digits = [trial.suggest_int(f"layer{place}", 0, 2) for place in range(8)]
        rate = trial.suggest_float("rate", 1e-3, 1.0, log=True)
        assert "".join(map(str, digits)) == trial.user_attrs["architecture"]
        return sum(digits) + rate

    def run():
        sampler = integration.StrategySampler(strategy(), parameters=decisions)
        study = optuna.create_study(sampler=sampler)
        study.optimize(objective, n_trials=6)
        return [trial.params for trial in study.trials]

    params = run()
    assert len({trial["rate"] for trial in params}) == 6
    assert run() == params


def test_the_string_is_a_suggestion_too():
    nets = SPACE.sample(5, generator=torch.Generator().manual_seed(0), distinct=True)
    subset = spaces.Subset(SPACE, nets)
    chosen = RandomSearch(subset, generator=torch.Generator().manual_seed(0))
    study = optuna.create_study(sampler=integration.StrategySampler(chosen), direction="maximize")
    specs = [net.spec for net in nets]
    study.optimize(
        lambda trial: specs.index(trial.suggest_categorical("architecture", specs)), n_trials=5
    )
    assert sorted(trial.params["architecture"] for trial in study.trials) == sorted(specs)
    assert chosen.best.network.spec == study.best_params["architecture"] == specs[-1]
    with pytest.raises(RuntimeError, match="no network that was not tried"):
        study.optimize(lambda _: 0.0, n_trials=1)


def test_a_value_that_the_objective_does_not_allow_is_named():
    sampler = integration.StrategySampler(strategy(), parameters=lambda _: {"width": 5})
    study = optuna.create_study(sampler=sampler)
    with pytest.raises(ValueError, match=r"width: .* does not hold 5"):
        study.optimize(lambda trial: trial.suggest_int("width", 0, 2), n_trials=1)


def test_failed_and_pruned_trials_are_told():
    chosen = strategy()

    def objective(trial):
        if trial.number == 0:
            raise RuntimeError("no memory left")
        if trial.number == 1:
            trial.report(7.0, 0)
            trial.report(5.0, 1)
            raise optuna.TrialPruned
        return math.nan if trial.number == 2 else 1.0

    study = optuna.create_study(sampler=integration.StrategySampler(chosen))
    study.optimize(objective, n_trials=4, catch=(RuntimeError,))
    values = [found.value for found in chosen.observations]
    assert [math.isnan(found) for found in values] == [True, False, True, False]
    assert values[1] == 5.0
    assert chosen.pending == ()


def test_a_study_goes_on_with_what_is_known_and_what_is_running():
    storage = optuna.storages.InMemoryStorage()
    first = strategy()
    study = optuna.create_study(
        storage=storage, study_name="s", sampler=integration.StrategySampler(first)
    )
    study.optimize(value, n_trials=3)
    running = study.ask()
    # Another process, seeded alike: it must not propose the same again.
    second = strategy()
    again = optuna.load_study(
        storage=storage, study_name="s", sampler=integration.StrategySampler(second)
    )
    begun = again.ask()
    assert second.observations == first.observations
    assert {net.spec for net in second.pending} == {
        running.user_attrs["architecture"],
        begun.user_attrs["architecture"],
    }
    study.tell(running, 1.0)
    again.optimize(value, n_trials=1)
    assert len(second.observations) == 5
    assert [net.spec for net in second.pending] == [begun.user_attrs["architecture"]]


def test_threads_do_not_disturb_each_other():
    chosen = strategy()
    study = optuna.create_study(sampler=integration.StrategySampler(chosen))
    study.optimize(value, n_trials=16, n_jobs=4)
    assert len({trial.user_attrs["architecture"] for trial in study.trials}) == 16
    assert len(chosen.observations) == 16


def test_enqueued_trials_are_respected():
    chosen = strategy()
    study = optuna.create_study(sampler=integration.StrategySampler(chosen))
    study.enqueue_trial({"architecture": "01201201"})
    study.enqueue_trial({"rate": 0.5})

    def objective(trial):
        if trial.number == 1:
            assert "architecture" not in trial.user_attrs
            return trial.suggest_float("rate", 0.0, 1.0)
        return toy_value(SPACE.from_string(trial.user_attrs["architecture"]))

    study.optimize(objective, n_trials=3)
    assert chosen.observations[0].network.spec == "01201201"
    assert len(chosen.observations) == 2


def test_a_study_may_maximise_and_have_several_objectives():
    chosen = ParetoEvolution(
        SPACE,
        generator=torch.Generator().manual_seed(0),
        population=4,
        objectives=("error", "ones"),
        constraints=["latency <= 5"],
    )
    sampler = integration.StrategySampler(chosen)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)

    def objective(trial):
        spec = trial.user_attrs["architecture"]
        if trial.number == 2:
            return math.nan, 1.0
        if trial.number != 3:
            trial.set_user_attr("latency", float(int(spec[0]) * 3))
        return value(trial), spec.count("1")

    study.optimize(objective, n_trials=12)
    assert chosen.goal.directions == ("minimize", "maximize")
    failed = [place for place, one in enumerate(chosen.observations) if math.isnan(one.value)]
    assert failed == [2, 3]
    kept = {
        trial.user_attrs["architecture"]
        for trial in study.best_trials
        if trial.user_attrs.get("latency", 9.0) <= 5.0
    }
    assert kept <= {found.network.spec for found in chosen.front}
    for trial, row in zip(study.trials, chosen.values.tolist(), strict=True):
        if trial.number not in (2, 3):
            assert row == [*trial.values, trial.user_attrs["latency"]]


def test_values_of_a_study_that_maximises_are_the_strategys():
    chosen = strategy()
    study = optuna.create_study(direction="maximize", sampler=integration.StrategySampler(chosen))
    study.optimize(value, n_trials=6)
    assert chosen.best.value == study.best_value
    assert [found.value for found in chosen.observations] == [one.value for one in study.trials]


def test_a_direction_that_the_strategy_contradicts_is_refused():
    chosen = RandomSearch(SPACE, generator=torch.Generator().manual_seed(0), direction="minimize")
    study = optuna.create_study(direction="maximize", sampler=integration.StrategySampler(chosen))
    with pytest.raises(ValueError, match="direction must be minimize, as the strategy says"):
        study.ask()


def test_a_sampler_serves_one_study():
    sampler = integration.StrategySampler(strategy())
    first = optuna.create_study(sampler=sampler, study_name="first")
    first.optimize(value, n_trials=2)
    other = optuna.create_study(sampler=sampler, study_name="other", direction="maximize")
    with pytest.raises(ValueError, match="belongs to the study 'first'; got 'other'"):
        other.ask()
    first.optimize(value, n_trials=1)
    assert len(sampler.strategy.observations) == 3


@pytest.mark.parametrize("text", ["nonsense", "|none~0|", 5, ["a"], "\ud800"])
@pytest.mark.parametrize("enqueued", [True, False])
def test_an_architecture_of_another_space_is_named_with_its_trial(text, enqueued):
    study = optuna.create_study(sampler=integration.StrategySampler(strategy()))
    if enqueued:
        study.enqueue_trial({"architecture": text})
    else:
        study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={"architecture": text}))
    with pytest.raises(ValueError, match=r"trial 0 has the architecture .*none of NASBenchMacro"):
        study.ask()


def test_parameters_that_are_none_are_refused():
    with pytest.raises(TypeError, match="parameters must be callable or None; got 3"):
        integration.StrategySampler(strategy(), parameters=3)
    for returned in (None, ["width"]):
        sampler = integration.StrategySampler(strategy(), parameters=lambda _, r=returned: r)
        study = optuna.create_study(sampler=sampler)
        with pytest.raises(TypeError, match="parameters must return a mapping"):
            study.optimize(lambda trial: trial.suggest_int("width", 0, 2), n_trials=1)


def test_what_cannot_work_is_refused():
    with pytest.raises(TypeError, match="strategy must be a Strategy"):
        integration.StrategySampler(SPACE)
    study = optuna.create_study(
        directions=["minimize", "minimize"], sampler=integration.StrategySampler(strategy())
    )
    with pytest.raises(ValueError, match="as many objectives as the strategy, 1; got 2"):
        study.ask()
    trial = study._storage.get_trial(study._storage.create_new_trial(study._study_id))
    with pytest.raises(ValueError, match="as many objectives as the strategy, 1; got 2"):
        study.sampler.sample_independent(
            study, trial, "x", optuna.distributions.FloatDistribution(0, 1)
        )
    with pytest.raises(ValueError, match="as many objectives as the strategy, 1; got 2"):
        study.sampler.sample_relative(study, trial, {})


@pytest.mark.parametrize(
    "make",
    [
        lambda: optuna.samplers.GPSampler(seed=0, n_startup_trials=4, deterministic_objective=True),
        lambda: optuna.samplers.TPESampler(seed=0, n_startup_trials=4, multivariate=True),
        lambda: optuna.samplers.TPESampler(seed=0, n_startup_trials=4),
        lambda: optuna.samplers.QMCSampler(seed=0),
        lambda: cma(),
    ],
    ids=["gp", "multivariate tpe", "tpe", "qmc", "cma-es"],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_others_samples_as_it_would_alone(make):
    def bowl(trial):
        x, y = (trial.suggest_float(name, -1.0, 1.0) for name in "xy")
        return (x - 0.3) ** 2 + (x + y) ** 2

    def with_decisions(trial):
        for place in range(8):
            trial.suggest_int(f"layer{place}", 0, 2)
        return bowl(trial)

    alone = optuna.create_study(sampler=make())
    alone.optimize(bowl, n_trials=9)
    sampler = integration.StrategySampler(strategy(), parameters=decisions, others=make())
    study = optuna.create_study(sampler=sampler)
    study.optimize(with_decisions, n_trials=9)
    assert [trial.value for trial in study.trials] == [trial.value for trial in alone.trials]


def cma():
    pytest.importorskip("cmaes", reason="Optuna's CMA-ES needs the package cmaes")
    return optuna.samplers.CmaEsSampler(seed=0, n_startup_trials=3)


def test_a_study_can_be_pickled_and_goes_on():
    def study():
        made = optuna.create_study(sampler=integration.StrategySampler(strategy()))
        made.optimize(value, n_trials=6)
        return made

    expected = study()
    copied = pickle.loads(pickle.dumps(study()))
    for one in (expected, copied):
        one.optimize(value, n_trials=6)
    assert [t.user_attrs for t in copied.trials] == [t.user_attrs for t in expected.trials]


def test_others_that_are_no_sampler_are_refused():
    with pytest.raises(TypeError, match="others must be an optuna BaseSampler or None; got 'gp'"):
        integration.StrategySampler(strategy(), others="gp")


def test_hyperparameters_are_what_the_objective_suggests():
    space = spaces.Joint(SPACE, {"lr": spaces.Log(1e-4, 1.0), "batch": [32, 64]})

    def objective(trial):
        point = space.from_string(trial.user_attrs["architecture"])
        suggested = {
            "lr": trial.suggest_float("lr", 1e-4, 1.0, log=True),
            "batch": trial.suggest_categorical("batch", [32, 64]),
        }
        assert dict(point.values) == suggested
        assert trial.suggest_float("other", 0.0, 1.0) >= 0.0
        return toy_value(point.network) + suggested["lr"]

    chosen = strategy(space=space)
    study = optuna.create_study(sampler=integration.StrategySampler(chosen))
    study.optimize(objective, n_trials=10)
    assert study.best_value == chosen.best.value
    assert study.best_params["lr"] == chosen.best.network.values["lr"]
    clash = spaces.Joint(SPACE, {"architecture": [1, 2]})
    with pytest.raises(ValueError, match="'architecture' is what the architecture's string is"):
        integration.StrategySampler(strategy(space=clash))


def test_distributions_become_hyperparameters():
    made = optuna.distributions
    given = {
        "lr": made.FloatDistribution(1e-4, 1.0, log=True),
        "momentum": made.FloatDistribution(0.0, 1.0),
        "drop": made.FloatDistribution(0.0, 0.5, step=0.1),
        "layers": made.IntDistribution(1, 8),
        "width": made.IntDistribution(1, 512, log=True),
        "heads": made.IntDistribution(4, 16, step=4),
        "optimizer": made.CategoricalDistribution(["sgd", "adam", None]),
    }
    found = integration.hyperparameters(given)
    assert found == {
        "lr": spaces.Log(1e-4, 1.0),
        "momentum": spaces.Float(0.0, 1.0),
        "drop": spaces.Ordered((0.0, 0.1, 0.2, 0.3, 0.4, 0.5)),
        "layers": spaces.Integer(1, 8),
        "width": spaces.Integer(1, 512, log=True),
        "heads": spaces.Ordered((4, 8, 12, 16)),
        "optimizer": spaces.Categorical(("sgd", "adam", None)),
    }
    point = spaces.Joint(SPACE, found).sample_one(generator=torch.Generator().manual_seed(0))
    for name, value in point.values.items():
        assert given[name]._contains(given[name].to_internal_repr(value))
    for wrong, error, message in (
        ({"a": made.IntDistribution(3, 3)}, ValueError, r"distributions\['a'\] must have more"),
        ({"a": made.IntDistribution(0, 10**6, step=2)}, ValueError, "at most 10,000 steps"),
        ({"a": [1, 2]}, TypeError, r"distributions\['a'\] must be one of Optuna's; got list"),
        ([1], TypeError, "distributions must be a mapping of them by name; got list"),
    ):
        with pytest.raises(error, match=message):
            integration.hyperparameters(wrong)


class TestSingleOnly(suites.SingleOnlySamplerTestCase):
    """Optuna's own."""

    @pytest.fixture
    def sampler(self):
        return lambda: integration.StrategySampler(strategy())


# --- values from elsewhere ------------------------------------------------------------------------


def network(values):
    return "".join(str(values[f"layer{place}"]) for place in range(8))


def layers(trial):
    return sum(trial.suggest_int(f"layer{place}", 0, 2) for place in range(8))


def sampled(chosen, **options):
    return integration.StrategySampler(chosen, parameters=decisions, **options)


def imported(spec, value):
    net = SPACE.from_string(spec)
    domain = optuna.distributions.IntDistribution(0, 2)
    return optuna.trial.create_trial(
        params=decisions(net), distributions=dict.fromkeys(decisions(net), domain), value=value
    )


@pytest.mark.parametrize("form", [str, SPACE.from_string])
def test_imported_and_enqueued_decisions_reach_the_strategy(form):
    chosen = strategy()
    study = optuna.create_study(sampler=sampled(chosen, network=lambda v: form(network(v))))
    study.add_trial(imported("01201201", 3.0))
    study.enqueue_trial(decisions(SPACE.from_string("22222222")))
    study.enqueue_trial({"layer0": 1})  # says too little, until it has finished
    study.optimize(layers, n_trials=4)
    found = {one.network.spec: one.value for one in chosen.observations}
    assert found["01201201"] == 3.0
    assert found["22222222"] == 16.0
    assert study.trials[1].user_attrs["architecture"] == "22222222"
    assert study.trials[2].params["layer0"] == 1
    assert found[network(study.trials[2].params)] == study.trials[2].value
    assert len(found) == 5  # two of the strategy's own


def test_what_waits_in_the_queue_is_not_proposed_meanwhile():
    nets = SPACE.sample(3, generator=torch.Generator().manual_seed(0), distinct=True)
    subset = spaces.Subset(SPACE, nets)
    chosen = RandomSearch(subset, generator=torch.Generator().manual_seed(0))
    study = optuna.create_study(sampler=sampled(chosen, network=network))
    running = study.ask()
    for net in nets:
        if net.spec != running.user_attrs["architecture"]:
            study.enqueue_trial(decisions(net))
    study.tell(running, 1.0)
    study.optimize(layers, n_trials=2)
    assert {one.network.spec for one in chosen.observations} == {net.spec for net in nets}


def test_values_that_teach_nothing_are_said_once():
    study = optuna.create_study(sampler=sampled(strategy()))
    for spec in ("01201201", "22222222"):
        study.add_trial(imported(spec, 3.0))
    with pytest.warns(UserWarning, match=r"trial 0 does not say its architecture, .*network=") as w:
        study.optimize(layers, n_trials=2)
    assert len(w) == 1


def test_an_inverse_that_is_none_is_refused():
    with pytest.raises(TypeError, match="network must be callable or None; got 3"):
        integration.StrategySampler(strategy(), network=3)
