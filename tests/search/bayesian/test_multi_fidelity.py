import json
import math
import pickle
from datetime import timedelta

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.objectives import Evaluation, Fidelities, Repeated
from hotnas_torch.search import (
    Fidelity,
    FullTrainings,
    HOTNNSurrogate,
    MultiFidelityHOTNAS,
    MutantPool,
    RandomSearch,
    run,
)
from hotnas_torch.search.bayesian.levels import aligned
from hotnas_torch.testing.strategy import StrategyContract, toy_value

SPACE = spaces.NASBenchMacro()


def network(point):
    return getattr(point, "network", point)


def make(space=SPACE, levels=(1, 3), seed=0, **settings):
    settings = {"num_initial": 6, "pool": MutantPool(30)} | settings
    generator = torch.Generator().manual_seed(seed)
    return MultiFidelityHOTNAS(space, Fidelity(levels), generator=generator, **settings)


def error(point):
    """Low levels have another unit, and an error of their own that depends on the network."""
    net, values = point
    whole = 1.0 + toy_value(net)
    if values["epochs"] == 3:
        return whole
    return 10.0 + 3.0 * whole + (sum(map(ord, net.spec)) * 7 % 11) / 5.0


def level(point):
    return point.values["epochs"]


class TestMultiFidelityHOTNAS(StrategyContract):
    least_rank_correlation = 0.5

    def make(self, space, generator):
        return MultiFidelityHOTNAS(
            space, Fidelity([1, 3]), generator=generator, num_initial=6, pool=MutantPool(30)
        )

    def value(self, net):
        return toy_value(network(net))

    def test_asks_for_every_network_of_a_small_space_and_then_for_none(self):
        nets = spaces.Pooling().sample(5, generator=torch.Generator().manual_seed(3), distinct=True)
        strategy = make(spaces.Subset(spaces.Pooling(), nets))
        asked = []
        while points := strategy.ask(2):
            asked += points
            strategy.tell(points, [float(sum(point.downsampling)) for point in points])
        specs = {(network(one).spec, level(one)) for one in asked}
        assert len(specs) == len(asked)
        assert {(net.spec, 3) for net in nets} <= specs

    def test_values_may_come_in_any_order_and_in_parts(self):
        strategy = self.strategy()
        points = strategy.ask(6)
        strategy.tell(points[4:], torch.tensor([self.value(one) for one in points[4:]]))
        strategy.tell(points[:4][::-1], [self.value(one) for one in points[:4][::-1]])
        assert len(strategy.observations) == 6
        whole = [one for one in points if level(one) == 3]
        assert strategy.best.value == pytest.approx(min(self.value(one) for one in whole))

    def test_refuses_what_is_wrong_and_keeps_what_it_has(self):
        strategy = self.strategy()
        points = strategy.ask(3)
        strategy.tell(points[:1], [1.0])
        state = json.dumps(strategy.state_dict())
        for told, values, kind, message in (
            (points, [1.0, 2.0], ValueError, "one number per network, 3"),
            (points[1:], [1.0, math.inf], ValueError, r"values\[1\]\['value'\] must be finite"),
            (points[:1], [2.0], ValueError, "observed already"),
            ([network(points[1])], [1.0], ValueError, r"nets\[0\] must be a network of Joint"),
            (points[1:2], ["a"], TypeError, r"values\[0\]\['value'\] must be a number"),
            (points[1:2], [{"value": 1.0, "epochs": 3}], ValueError, "known"),
        ):
            with pytest.raises(kind, match=message):
                strategy.tell(told, values)
        assert json.dumps(strategy.state_dict()) == state

    def test_refuses_the_state_of_another_search(self):
        strategy = self.strategy()
        self.step(strategy, 3)
        for other, message in (
            (make(spaces.Pooling()), "another space"),
            (make(levels=(1, 4)), "another strategy"),
        ):
            with pytest.raises(ValueError, match=message):
                other.load_state_dict(strategy.state_dict())


def played(strategy, num):
    for _ in range(num):
        (point,) = strategy.ask()
        strategy.tell([point], [error(point)])
    return strategy


def test_slots_are_those_of_hyperbands_brackets():
    strategy = played(make(), 12)
    assert [level(found.network) for found in strategy.observations] == [1, 1, 1, 3, 3, 3] * 2


def test_what_goes_on_is_what_the_model_holds_for_best_not_what_its_low_value_says():
    # Of two groups of networks, one is worse than it looks at the low level.
    def low(net):
        return 5.0 + net.spec.count("0") - 6.0 * (net.spec[0] == "1")

    def whole(net):
        return 5.0 + net.spec.count("0") + 6.0 * (net.spec[0] == "1")

    strategy = make(levels=(1, 9))
    nets = SPACE.sample(60, generator=torch.Generator().manual_seed(1), distinct=True)
    points = [strategy.fidelity.point(strategy.space, net, 0) for net in nets]
    strategy.tell(points, [low(net) for net in nets])
    known = nets[:16]
    points = [strategy.fidelity.point(strategy.space, net, 1) for net in known]
    strategy.tell(points, [whole(net) for net in known])
    left = [net for net in nets if net not in known]
    assert min(left, key=low).spec[0] == "1"
    asked = [network(one) for one in strategy.ask(10) if level(one) == 9]
    assert asked
    assert all(net.spec[0] != "1" for net in asked)


@pytest.mark.slow
def test_it_finds_better_networks_than_random_search_at_the_same_cost():
    wins = 0
    for seed in range(3):
        result = run(
            make(seed=seed, levels=(1, 9)),
            Fidelities({1: lambda net: 20.0 + 2.0 * toy_value(net), 9: toy_value}),
            budget=FullTrainings(12),
            progress=False,
        )
        random = RandomSearch(SPACE, generator=torch.Generator().manual_seed(seed))
        other = run(random, toy_value, budget=FullTrainings(12), progress=False)
        assert len(other.trials) == 12
        assert result.reason == other.reason == "cost"
        wins += result.best.value < other.best.value
    assert wins == 3


def test_a_result_compares_whole_evaluations_alone():
    objective = Fidelities({1: lambda _: -100.0, 3: toy_value})
    result = run(make(), objective, budget=8, progress=False)
    whole = [trial for trial in result.trials if level(trial.network) == 3]
    assert result.best.value == min(trial.value for trial in whole)
    assert [trial.outcome.metrics["epochs"] for trial in result.trials[:4]] == [1, 1, 1, 3]
    assert bool(result.best_so_far[:3].isnan().all())


@pytest.mark.parametrize("budget", [3.9, 4.0])
def test_a_cost_is_not_exceeded(budget):
    strategy = make()
    result = run(strategy, error, budget=FullTrainings(budget), progress=False)
    spent = sum(strategy.cost(trial.network) for trial in result.trials)
    assert result.reason == "cost"
    assert 3.0 <= spent <= budget
    if budget == 4.0:
        assert spent == pytest.approx(4.0)
    assert not strategy.pending


def test_an_interrupted_search_goes_on_to_the_same_end(tmp_path):
    def trials(result):
        return [(trial.network.spec, trial.value) for trial in result.trials]

    whole = run(make(), error, budget=FullTrainings(6), progress=False)
    file = tmp_path / "search.sqlite"

    count = 0

    def stopping(point):
        nonlocal count
        count += 1
        if count == 9:
            raise KeyboardInterrupt
        return error(point)

    with pytest.raises(KeyboardInterrupt):
        run(make(), stopping, budget=FullTrainings(6), storage=file, progress=False)
    again = run(
        make(),
        error,
        budget=FullTrainings(6),
        storage=file,
        progress=False,
        accept_objective=True,
    )
    assert trials(again) == trials(whole)


def test_a_network_that_fails_at_a_rung_does_not_go_on():
    def failing(point):
        return math.nan if network(point).spec[0] == "0" else error(point)

    result = run(make(), failing, budget=14, progress=False)
    failed = {network(one.network).spec for one in result.trials if one.failed}
    assert failed
    asked = [network(one.network).spec for one in result.trials]
    assert all(asked.count(spec) == 1 for spec in failed)


def test_curves_of_what_was_cut_are_recorded(tmp_path):
    def objective(point):
        epochs = int(level(point))
        curve = [toy_value(network(point)) + 1.0 / (1 + epoch) for epoch in range(epochs)]
        return Evaluation(curve[-1], {f"epoch_{n}": one for n, one in enumerate(curve)})

    result = run(make(), objective, budget=6, storage=tmp_path / "a.sqlite", progress=False)
    counts = [sum(name.startswith("epoch_") for name in t.outcome.metrics) for t in result.trials]
    assert counts == [1, 1, 1, 3, 3, 3]


@pytest.mark.slow
def test_large_values_may_be_good():
    strategy = make(direction="maximize")
    for _ in range(18):
        (point,) = strategy.ask()
        strategy.tell([point], [-error(point)])
    minimised = played(make(transform="none"), 18)
    assert strategy.best.value == max(
        found.value for found in strategy.observations if level(found.network) == 3
    )
    assert len(minimised.observations) == 18


def test_hyperparameters_are_searched_as_well():
    space = spaces.Joint(SPACE, {"lr": spaces.Log(1e-3, 1.0)})
    strategy = make(space)

    result = run(strategy, lambda point: 1.0 + toy_value(point.network), budget=9, progress=False)
    assert {tuple(trial.network.values) for trial in result.trials} == {("lr", "epochs")}
    assert strategy.networks.contains(strategy.fidelity.network(space, result.best.network))


def test_what_is_recommended_is_a_whole_evaluation_that_the_model_believes():
    strategy = make()
    assert strategy.recommend() is None
    nets = SPACE.sample(40, generator=torch.Generator().manual_seed(1), distinct=True)
    strategy.tell(
        [strategy.fidelity.point(strategy.space, net, 1) for net in nets],
        [1.0 + toy_value(net) for net in nets],
    )
    worst = max(nets, key=toy_value)
    point = strategy.fidelity.point(strategy.space, worst, 1)
    strategy.tell([point], [0.5], again=True)
    found = strategy.recommend()
    assert level(found.network) == 3
    assert toy_value(network(found.network)) < toy_value(worst)


def test_known_noise_reaches_the_model():
    strategy = make(levels=(1, 3))
    points = strategy.ask(6)
    strategy.tell(points, [error(one) for one in points], [0.5] * 6)
    assert torch.equal(strategy.variances[:, 0], torch.full((6,), 0.5, dtype=torch.float64))
    played(strategy, 3)
    objective = Repeated(lambda point: error(point), times=2)
    assert len(run(make(), objective, budget=8, progress=False).trials) == 8


def test_other_models_serve():
    strategy = make(surrogate=HOTNNSurrogate(model_options={"learn": []}))
    assert len(played(strategy, 9).observations) == 9


def test_a_pickled_search_asks_the_same():
    strategy = played(make(), 8)
    copy = pickle.loads(pickle.dumps(strategy))
    assert [net.spec for net in copy.ask(2)] == [net.spec for net in strategy.ask(2)]


def test_settings_are_records():
    assert json.loads(json.dumps(make().config()))["fidelity"] == {
        "name": "epochs",
        "levels": [1, 3],
    }


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"fidelity": [1, 3]}, TypeError, "fidelity must be a Fidelity"),
        ({"pool": 30}, TypeError, "pool must be a MutantPool"),
        ({"surrogate": "hotnn"}, TypeError, "surrogate must be a Surrogate"),
        ({"num_initial": 1}, ValueError, "num_initial must be at least 2"),
        ({"space": "nasbench201"}, TypeError, "space must be"),
        ({"objectives": ["a", "b"]}, TypeError, "objectives"),
        ({"space": spaces.Joint(SPACE, {"epochs": [1, 2]})}, ValueError, "epochs"),
    ],
)
def test_bad_settings_are_refused(change, kind, message):
    arguments = {"space": SPACE, "fidelity": Fidelity([1, 3])} | change
    with pytest.raises(kind, match=message):
        MultiFidelityHOTNAS(**arguments, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("budget", "kind", "message"),
    [
        (FullTrainings(0), ValueError, "budget must be a positive number of full trainings; got 0"),
        (FullTrainings(math.nan), ValueError, "budget must be a positive number"),
        (FullTrainings("3"), TypeError, "budget must be a number; got '3'"),
    ],
)
def test_bad_costs_are_refused(budget, kind, message):
    with pytest.raises(kind, match=message):
        run(make(), error, budget=budget, progress=False)


def test_a_shared_search_has_no_cost(tmp_path):
    with pytest.raises(ValueError, match="for a shared search; got a cost"):
        run(
            make(),
            error,
            budget=FullTrainings(3),
            storage=tmp_path / "a.sqlite",
            shared=timedelta(seconds=60),
        )


def test_levels_are_brought_to_one_scale_although_the_better_half_went_on():
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(400, generator=generator, dtype=torch.float64)
    other = torch.randn(400, generator=generator, dtype=torch.float64)
    high = 7.0 + 2.0 * (0.8 * low + 0.6 * other)
    went_on = (low < low.median()).nonzero().flatten()
    losses = torch.cat([low, high[went_on]])
    places = torch.cat(
        [torch.zeros(400, dtype=torch.int64), torch.ones(len(went_on), dtype=torch.int64)]
    )
    names = [str(n) for n in [*range(400), *went_on.tolist()]]
    found, variances = aligned(losses, places, names, noise=torch.full_like(losses, 0.25))
    # As all of them would have been scaled.
    expected = -(high[went_on] - 7.0) / 2.0
    assert float((found[400:] - expected).abs().max()) < 0.3
    assert variances[0] == pytest.approx(0.25, rel=0.1)
    assert variances[-1] == pytest.approx(0.0625, rel=0.1)
