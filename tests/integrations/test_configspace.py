import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.integrations.configspace import hyperparameters, joint
from hotnas_torch.search import HOTNAS

cs = pytest.importorskip("ConfigSpace")


def whole():
    space = cs.ConfigurationSpace()
    space.add(
        cs.Float("lr", (1e-4, 1.0), log=True),
        cs.Float("momentum", (0, 1)),
        cs.Integer("layers", (1, 8)),
        cs.Integer("width", (1, 1024), log=True),
        cs.OrdinalHyperparameter("batch", [64, 32, 16]),
        cs.Categorical("optimizer", ["sgd", "adam"], default="adam"),
        cs.Categorical("nesterov", [True, False]),
    )
    return space


def test_every_kind_becomes_ours():
    assert hyperparameters(whole()) == {
        "lr": spaces.Log(1e-4, 1.0),
        "momentum": spaces.Float(0.0, 1.0),
        "layers": spaces.Integer(1, 8),
        "width": spaces.Integer(1, 1024, log=True),
        "batch": spaces.Ordered((64, 32, 16)),
        "optimizer": spaces.Categorical(("sgd", "adam")),
        "nesterov": spaces.Categorical((True, False)),
    }


def test_pairs_are_configurations_of_theirs():
    configurations = whole()
    space = joint(spaces.NASBenchMacro(), configurations)
    for point in space.sample(20, generator=torch.Generator().manual_seed(0)):
        found = cs.Configuration(configurations, values=dict(point.values))
        # ConfigSpace keeps twelve digits of a number.
        assert dict(space.configure(point.network, dict(found)).values) == pytest.approx(
            dict(point.values)
        )
    for found in configurations.sample_configuration(20):
        network = space.space.sample_one(generator=torch.Generator().manual_seed(1))
        assert dict(space.configure(network, dict(found)).values) == pytest.approx(dict(found))


def test_it_is_searched():
    space = joint(spaces.NASBenchMacro(), whole())
    strategy = HOTNAS(
        space, generator=torch.Generator().manual_seed(0), num_initial=5, pool_size=20
    )
    for num in (5, 3):
        points = strategy.ask(num)
        strategy.tell(points, [point.values["lr"] + point.spec.count("0") for point in points])
    assert len(strategy.observations) == 8


def one(given):
    space = cs.ConfigurationSpace()
    space.add(given)
    return space


def conditional():
    space = cs.ConfigurationSpace({"a": ["x", "y"], "b": (0.0, 1.0)})
    space.add(cs.EqualsCondition(space["b"], space["a"], "x"))
    return space


def forbidden():
    space = cs.ConfigurationSpace({"a": ["x", "y"], "b": (0.0, 1.0)})
    space.add(cs.ForbiddenEqualsClause(space["a"], "y"))
    return space


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (conditional, "space must have no conditions; got b | a == 'x'"),
        (forbidden, "space must have no forbidden clauses; got "),
        (lambda: one(cs.Constant("c", 3)), r"space\['c'\] must have more than one value; got the"),
        (
            lambda: one(cs.Categorical("o", ["a", "b"], weights=[1, 2])),
            r"space\['o'\] must have equal weights",
        ),
        (
            lambda: one(cs.Float("x", (0, 1), distribution=cs.Normal(0.5, 0.1))),
            r"space\['x'\] must be uniform, ordinal or categorical; got NormalFloat",
        ),
    ],
)
def test_what_would_be_ignored_is_refused(make, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        hyperparameters(make())


def test_what_is_no_space_is_refused():
    with pytest.raises(TypeError, match="space must be a ConfigSpace ConfigurationSpace; got dict"):
        hyperparameters({"lr": (1e-4, 1.0)})
