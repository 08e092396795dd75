import json
import math

import pytest
import torch

from hotnas_torch import objectives, spaces
from hotnas_torch.objectives import Evaluation, Function, Objective

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
