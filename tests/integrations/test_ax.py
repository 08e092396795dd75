import math

import pytest
import torch

import hotnas_torch as ht
from hotnas_torch.search import HOTNAS, RandomSearch

pytest.importorskip("ax", reason="Ax is not installed (the `ax` extra brings it)")
pytestmark = pytest.mark.filterwarnings("ignore")  # what Ax, its plots and its storage say

from ax.api.client import Client  # noqa: E402
from ax.exceptions.generation_strategy import GenerationStrategyCompleted  # noqa: E402

from hotnas_torch.integrations.ax import (  # noqa: E402
    StrategyNode,
    generation_strategy,
    network,
    parameters,
)

SPACE = ht.spaces.NASBench201()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def client_of(space, strategy, objective="accuracy"):
    client = Client()
    client.configure_experiment(parameters=parameters(space))
    client.configure_optimization(objective=objective)
    client.set_generation_strategy(generation_strategy(strategy))
    return client


def accuracy(net):
    return float(net.spec.count("3x3"))


def test_trials_are_what_the_strategy_asks_and_its_best_is_that_of_ax():
    strategy = HOTNAS(SPACE, generator=seeded(), num_initial=4)
    client = client_of(SPACE, strategy)
    expected = HOTNAS(SPACE, generator=seeded(), num_initial=4, direction="maximize")
    for _ in range(6):
        ((index, chosen),) = client.get_next_trials(max_trials=1).items()
        (net,) = expected.ask(1)
        assert network(SPACE, chosen) == net
        client.complete_trial(index, {"accuracy": accuracy(net)})
        expected.tell([net], [accuracy(net)])
    assert strategy.goal.direction == "maximize"
    assert [found.value for found in strategy.observations] == [
        found.value for found in expected.observations[:5]
    ]
    best, *_ = client.get_best_parameterization(use_model_predictions=False)
    assert accuracy(network(SPACE, best)) == expected.best.value


def test_trials_of_others_count_and_failures_are_failures():
    strategy = RandomSearch(SPACE, generator=seeded())
    client = client_of(SPACE, strategy, "-loss")
    nets = SPACE.sample(3, generator=seeded(9), distinct=True)
    for net in nets[:2]:
        row = SPACE.encode([net])[0].tolist()
        client.attach_trial(dict(zip(SPACE.columns, map(int, row), strict=True)))
    client.complete_trial(0, {"loss": 0.25})
    client.mark_trial_failed(1)
    ((index, _),) = client.get_next_trials(max_trials=1).items()
    client.get_next_trials(max_trials=2)
    assert strategy.goal.direction == "minimize"
    values = {found.network: found.value for found in strategy.observations}
    assert values[nets[0]] == 0.25
    assert math.isnan(values[nets[1]])
    assert len(values) == 2
    assert index == 2
    assert len(strategy.pending) == 3


def test_hyperparameters_and_several_objectives_go_through():
    joint = ht.spaces.Joint(
        SPACE,
        {"lr": ht.spaces.Log(1e-4, 1.0), "batch": [32, 64], "opt": ["sgd", "adam"]},
    )
    strategy = RandomSearch(
        joint, generator=seeded(), objectives=("accuracy", "cost"), constraints=["size <= 3"]
    )
    client = client_of(joint, strategy, "accuracy, -cost")
    for _ in range(3):
        for index, chosen in client.get_next_trials(max_trials=1).items():
            net = network(joint, chosen)
            assert dict(net.values) == {name: chosen[name] for name in joint.hyperparameters}
            data = {"accuracy": accuracy(net), "cost": net.values["lr"], "size": 2.0}
            client.complete_trial(index, data)
    client.get_next_trials(max_trials=1)
    assert strategy.goal.directions == ("maximize", "minimize")
    assert len(strategy.observations) == 3


def test_an_experiment_goes_on_with_a_new_node():
    first = RandomSearch(SPACE, generator=seeded())
    client = client_of(SPACE, first)
    for index, chosen in client.get_next_trials(max_trials=3).items():
        client.complete_trial(index, {"accuracy": accuracy(network(SPACE, chosen))})
    second = RandomSearch(SPACE, generator=seeded(5))
    client.set_generation_strategy(generation_strategy(second))
    client.get_next_trials(max_trials=1)
    assert len(second.observations) == 3


def test_a_space_that_is_drawn_out_ends_the_strategy():
    few = ht.spaces.Subset(SPACE, SPACE.sample(2, generator=seeded(), distinct=True))
    client = client_of(few, RandomSearch(few, generator=seeded()))
    for _ in range(2):
        client.get_next_trials(max_trials=1)
    with pytest.raises(GenerationStrategyCompleted, match="no network that was not tried"):
        client.get_next_trials(max_trials=1)


@pytest.mark.parametrize(
    ("objective", "message"),
    [("a + 2*b", "1 metrics, each of its own"), ("a, b", "1 metrics, each of its own")],
)
def test_an_objective_of_another_kind_is_refused(objective, message):
    client = client_of(SPACE, RandomSearch(SPACE, generator=seeded()), objective)
    with pytest.raises(ValueError, match=message):
        client.get_next_trials(max_trials=1)


def test_another_experiment_or_space_is_refused():
    other = ht.spaces.NASBenchMacro()
    node = generation_strategy(RandomSearch(SPACE, generator=seeded()))
    client = client_of(other, RandomSearch(other, generator=seeded()))
    client.set_generation_strategy(node)
    with pytest.raises(ValueError, match="must have the parameters of NASBench201"):
        client.get_next_trials(max_trials=1)
    one = client_of(SPACE, RandomSearch(SPACE, generator=seeded()))
    two = client_of(SPACE, RandomSearch(SPACE, generator=seeded()))
    shared = generation_strategy(RandomSearch(SPACE, generator=seeded()))
    for client in (one, two):
        client.set_generation_strategy(shared)
    one.get_next_trials(max_trials=1)
    with pytest.raises(ValueError, match="belongs to the experiment"):
        two.get_next_trials(max_trials=1)


def test_what_is_wrong_is_named():
    with pytest.raises(TypeError, match="strategy must be a Strategy"):
        StrategyNode(SPACE)
    with pytest.raises(ValueError, match="holds every network"):
        parameters(ht.spaces.AnyNetwork(SPACE.tree))
    with pytest.raises(ValueError, match="must have a value of 'operation 0->1'"):
        network(SPACE, {})
    with pytest.raises(ValueError, match="options of one type"):
        parameters(ht.spaces.Joint(SPACE, {"x": [1, "a"]}))
