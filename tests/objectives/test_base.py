import json
import math

import numpy as np
import pytest
import torch

from hotnas_torch import objectives, spaces
from hotnas_torch.objectives import Evaluation, Function, Objective
from hotnas_torch.search import RandomSearch, run

NET = spaces.Pooling().from_string("[7,1,2]")


def test_an_evaluation_holds_plain_numbers():
    found = Evaluation(torch.tensor(1.5), {"accuracy": torch.tensor(0.5)}, cost=2)
    assert (found.value, found.metrics, found.cost) == (1.5, {"accuracy": 0.5}, 2.0)
    assert type(found.value) is float
    assert not found.failed
    failure = Evaluation.failure("too large", cost=3.0)
    assert failure.failed
    assert (failure.error, failure.cost) == ("too large", 3.0)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"value": math.inf}, ValueError, "value must be finite"),
        ({"value": "good"}, TypeError, "value must be a number"),
        ({"value": 1.0, "cost": -1.0}, ValueError, "cost must be finite and >= 0"),
        ({"value": 1.0, "cost": math.nan}, ValueError, "cost must be finite"),
        ({"value": 1.0, "metrics": {"accuracy": None}}, TypeError, r"metrics\['accuracy'\]"),
        ({"value": 1.0, "metrics": {3: 1.0}}, TypeError, "named by str"),
    ],
)
def test_an_evaluation_is_checked(arguments, kind, message):
    with pytest.raises(kind, match=message):
        Evaluation(**arguments)


def test_a_function_is_measured():
    found = Function(lambda net: net.num_cells)(NET)
    assert found.value == 10.0
    assert 0.0 < found.cost < 1.0
    own = Function(lambda _: Evaluation(1.0, {"a": 2.0}, cost=9.0))(NET)
    assert (own.value, own.metrics, own.cost) == (1.0, {"a": 2.0}, 9.0)
    assert Function(lambda _: Evaluation(1.0))(NET).cost > 0.0
    assert Function(lambda _: math.nan)(NET).failed


@pytest.mark.parametrize(
    "several",
    [{"a": 1.0, "b": 2.0}, [1.0, 2.0], (1.0, 2.0), np.array([1.0, 2.0]), torch.tensor([1.0, 2.0])],
)
def test_several_numbers_of_a_function_are_left_to_the_search(several):
    assert Function(lambda _: several)(NET) is several
    found = run(
        RandomSearch(
            spaces.Pooling(), generator=torch.Generator().manual_seed(0), objectives=["a", "b"]
        ),
        Function(lambda _: several),
        budget=1,
        progress=False,
    )
    assert found.values.tolist() == [[1.0, 2.0]]
    assert found.trials[0].outcome.cost < 1.0


@pytest.mark.parametrize("wrapped", [Function, objectives.Repeated])
def test_the_one_number_of_a_function_may_have_a_name(wrapped):
    generator = torch.Generator().manual_seed(0)
    strategy = RandomSearch(spaces.Pooling(), generator=generator, objectives=["depth"])
    found = run(strategy, wrapped(depth), budget=2, progress=False)
    assert found.values.flatten().tolist() == [depth(trial.network) for trial in found.trials]
    assert ("depth_variance" in found.trials[0].outcome.metrics) == (wrapped is not Function)
    generator = torch.Generator().manual_seed(0)
    two = RandomSearch(spaces.Pooling(), generator=generator, objectives=["depth", "size"])
    with pytest.raises(TypeError, match="a mapping or an Evaluation with 'depth', 'size'"):
        run(two, wrapped(depth), budget=1, progress=False)


def depth(net):
    return float(net.num_cells)


def test_a_mapping_where_one_value_counts_is_refused_with_the_remedy():
    strategy = RandomSearch(spaces.Pooling(), generator=torch.Generator().manual_seed(0))
    with pytest.raises(TypeError, match="objectives= or constraints= takes numbers by name"):
        run(strategy, Function(lambda _: {"depth": 1.0}), budget=1, progress=False)


def test_a_function_is_known_by_its_name():
    assert Function(math.fsum).describe() == {"kind": "function", "name": "fsum"}
    assert Function(math.fsum, name="sum").describe()["name"] == "sum"


def test_what_is_no_function_or_no_value_is_refused():
    with pytest.raises(TypeError, match="function must be callable"):
        Function(3)
    with pytest.raises(TypeError, match="value must be a number; got 'good'"):
        Function(lambda _: "good")(NET)
    with pytest.raises(ValueError, match="value must be finite"):
        Function(lambda _: -math.inf)(NET)


def test_all_objectives_keep_the_protocol(data_dir):
    pooling = data_dir / "pooling-cifar10-resnet20" / "pooling36.csv"
    for objective in (
        Function(math.fsum),
        objectives.PoolingTable(pooling),
        objectives.Training(),
    ):
        assert isinstance(objective, Objective)
        assert json.loads(json.dumps(objective.describe())) == objective.describe()
