"""Architectures with hyperparameters beside them."""

import copy
import itertools
import json
import math
import pickle

import pytest
import torch

import hotnas_torch as ht
from hotnas_torch import spaces
from hotnas_torch.arch import Cell, Network
from hotnas_torch.errors import ArchitectureError, SizeError
from hotnas_torch.spaces import ConfiguredNetwork, Float, Integer, Joint, Log
from hotnas_torch.spaces.encodings import PathEncoding, encoding_of

VALUES = {
    "lr": Log(1e-4, 1.0),
    "batch": [32, 64, 128],
    "optimizer": ["sgd", "adam"],
    "layers": Integer(1, 8),
    "momentum": Float(0.0, 0.99),
}


def chain(choices):
    """A chain of convolutions."""
    cell = Cell(("input", "conv", "output"), ((0, 1), (1, 2)))
    depth = choices["depth"]
    return Network.chain((cell,) * depth, (choices["width"],) * depth, (1,) * depth)


FACTORIES = {
    "nasbench201": lambda: Joint(spaces.NASBench201(), VALUES),
    "darts": lambda: Joint(spaces.DARTS(), VALUES),
    "enas_macro": lambda: Joint(spaces.ENASMacro(), VALUES),
    "finite": lambda: Joint(spaces.Pooling(), {"batch": [32, 64], " {odd": ['a"} b', None]}),
    "choices": lambda: Joint(spaces.Choices({"depth": [1, 2, 4], "width": [8, 16]}, chain), VALUES),
    "subset": lambda: Joint(
        spaces.Subset(spaces.Pooling(), itertools.islice(spaces.Pooling(), 5)), {"on": [0, 1]}
    ),
}


@pytest.fixture(params=FACTORIES)
def space(request):
    return FACTORIES[request.param]()


@pytest.fixture
def points(space, rng):
    return space.sample(30, generator=rng)


def test_a_point_is_a_pair_and_a_network(space, points):
    for point in points:
        assert isinstance(point, ConfiguredNetwork)
        network, values = point
        assert network in space.space
        assert type(network) is Network
        assert set(values) == set(space.hyperparameters)
        assert space.configure(network, values) is point
        assert (point.cells, point.key) == (network.cells, network.key)
        assert point != network
        with pytest.raises(TypeError):
            values["batch"] = 1


def test_rows_and_strings_give_the_points_back(space, points):
    rows = space.encode(points)
    assert rows.shape == (30, space.dim)
    assert len(space.columns) == space.dim == space.space.dim + len(space.hyperparameters)
    assert torch.equal(rows[:, : space.space.dim], space.space.encode([p.network for p in points]))
    assert space.decode(rows) == points
    assert space.encode([]).shape == (0, space.dim)
    assert [space.from_string(space.to_string(point)) for point in points] == points


def test_copies_stay_in_the_space(space, points):
    for point in points[:5]:
        for twin in (copy.deepcopy(point), pickle.loads(pickle.dumps(point))):
            assert twin == point
            assert hash(twin) == hash(point)
            assert twin in space
        data = json.loads(json.dumps(point.to_json()))
        assert ConfiguredNetwork.from_json(data) == point
    assert pickle.loads(pickle.dumps(space)).decode(space.encode(points)) == points


def test_mutants_and_neighbors_are_others(space, points, rng):
    kinds = set()
    for point in points:
        mutant = space.mutate(point, generator=rng)
        assert mutant in space
        assert mutant != point
        kinds.add((mutant.network != point.network, dict(mutant.values) != dict(point.values)))
        around = space.neighbors(point)
        assert len({space.key(other) for other in around}) == len(around)
        assert point not in around
        for other in around:
            assert other in space
            changed = (space.encode([other]) != space.encode([point]))[0, space.space.dim :]
            assert int(changed.sum()) + (other.network != point.network) == 1
    assert kinds == {(True, False), (False, True), (True, True)}


def test_points_that_the_space_of_networks_counts_as_one_share_a_key(rng):
    space = Joint(spaces.NASBench101(), {"lr": Log(1e-3, 1.0)})
    first, second = (space.space.from_string(text) for text in ("4,110011,01", "4,110011,10"))
    assert space.space.key(first) == space.space.key(second)
    pair = [space.configure(net, {"lr": 0.1}) for net in (first, second)]
    assert pair[0] != pair[1]
    assert space.key(pair[0]) == space.key(pair[1])
    assert space.key(pair[0]) != space.key(space.configure(first, {"lr": 0.2}))


def test_finite_spaces_are_counted_and_listed():
    space = Joint(spaces.Pooling(), {"batch": [32, 64], "layers": Integer(1, 3)})
    everything = list(space)
    assert len({space.key(point) for point in everything}) == space.size() == 36 * 2 * 3
    drawn = space.sample(216, generator=torch.Generator().manual_seed(0), distinct=True)
    assert {point.spec for point in drawn} == {point.spec for point in everything}
    infinite = Joint(spaces.Pooling(), {"lr": Log(1e-4, 1.0)})
    assert infinite.size_bound() == math.inf
    with pytest.raises(SizeError, match="infinitely many pairs: 'lr' is continuous"):
        infinite.size()
    with pytest.raises(ArchitectureError, match="cannot be enumerated: 'lr' is continuous"):
        next(iter(infinite))
    with pytest.raises(SizeError, match="too many networks for a list, inf where"):
        list(infinite)
    assert len(infinite.sample(99, generator=torch.Generator().manual_seed(0), distinct=True)) == 99


def test_strings_are_read_exactly():
    space = Joint(spaces.Pooling(), {"lr": Log(1e-4, 1.0), "batch": [32, 64]})
    text = '{"lr": 0.1, "batch": 64} [7,1,2]'
    assert space.from_string(text).spec == text
    for wrong, message in (
        ("[7,1,2]", "'{' before the values of the hyperparameters at position 0"),
        (text.replace("0.1", "0.10"), "at position 10; got '0, "),
        (text.replace('"lr": 0.1, ', ""), "values must hold 'lr', 'batch'; got none for 'lr'"),
        (text.replace("64", '64, "x": 1'), "got 'x' as well"),
        (text.replace("64", "65"), r"values\['batch'\] must be one of 32, 64; got 65"),
        (text.replace("0.1", "NaN"), r"values\['lr'\] must be in \[0.0001, 1\]; got nan"),
        (text.replace("0.1", "true"), r"values\['lr'\] must be a number"),
        (text.replace("} ", "}"), "a space before the network's string at position 24"),
        (text.replace("7", "8"), r"is no pooling string"),
        (text[:9], "the values as JSON at position"),
        ('{"lr": ' + "[" * 100_000, "the values as JSON"),
    ):
        with pytest.raises(ArchitectureError, match=message):
            space.from_string(wrong)


def test_rows_are_checked():
    space = Joint(spaces.Pooling(), {"lr": Log(1e-4, 1.0), "batch": [32, 64]})
    row = [7.0, 1.0, 2.0, 0.1, 1.0]
    for column, entry, message in (
        (3, 2.0, r"X\[0\] = .*: lr \(column 3\) must be in \[0.0001, 1\]"),
        (4, 0.5, r"batch \(column 4\) must be the place of an option, 0..1"),
        (4, math.nan, r"X\[0, 4\] \(batch\) must be finite"),
        (0, 0.5, r"X\[0, 0\] .* must be a whole number"),
        (0, 8.0, r"X\[0\]"),
    ):
        wrong = torch.tensor([row], dtype=torch.float64)
        wrong[0, column] = entry
        with pytest.raises(ArchitectureError, match=message):
            space.decode(wrong)
    with pytest.raises(ValueError, match=r"X must have shape \(N, 5\)"):
        space.decode(torch.zeros(1, 3))


def test_values_are_checked():
    space = Joint(spaces.Pooling(), {"lr": Log(1e-4, 1.0)})
    net = spaces.Pooling().from_string("[7,1,2]")
    with pytest.raises(ValueError, match=r"values\['lr'\] must be in"):
        space.configure(net, {"lr": 3})
    with pytest.raises(ValueError, match="got none for 'lr'"):
        space.configure(net, {})
    with pytest.raises(TypeError, match="values must be a mapping by name"):
        space.configure(net, [0.1])
    with pytest.raises(ArchitectureError, match=r"network with spec .* is not a network of"):
        space.configure(spaces.NASBenchMacro().from_string("0" * 8), {"lr": 0.1})
    assert net not in space


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, ValueError, "hyperparameters must hold at least one; got none"),
        ([("lr", [1, 2])], TypeError, "hyperparameters must be a mapping of them by name"),
        ({1: [1, 2]}, TypeError, "names of hyperparameters must be str; got 1"),
        ({"": [1, 2]}, ValueError, "printable and not empty"),
        (
            {"layers at 1/2 resolution": [1, 2]},
            ValueError,
            "not be called as a column of Pooling",
        ),
        ({"lr": (1e-4,)}, ValueError, r"hyperparameters\['lr'\]: options must hold at least two"),
        ({"lr": 0.1}, TypeError, r"hyperparameters\['lr'\] must be a hyperparameter such as"),
    ],
)
def test_what_is_no_mapping_of_hyperparameters_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        Joint(spaces.Pooling(), given)


def test_hyperparameters_are_nowhere_ignored():
    space = Joint(spaces.NASBench201(), {"lr": Log(1e-4, 1.0)})
    point = space.sample_one(generator=torch.Generator().manual_seed(0))
    for make in (
        lambda: ht.HOTNN(space=space),
        lambda: ht.IFGW(space=space),
        lambda: ht.distances.TreeWasserstein(space),
        lambda: ht.gp.HOTNNKernel(space),
        lambda: PathEncoding(space),
        lambda: encoding_of(space),
    ):
        with pytest.raises(ValueError, match="sees networks alone, and would ignore the hyperp"):
            make()
    with pytest.raises(ValueError, match="space must be one of networks alone"):
        spaces.Subset(space, [point])
    with pytest.raises(ValueError, match="name all hyperparameters at once"):
        Joint(space, {"batch": [1, 2]})
    with pytest.raises(TypeError, match="space must be a SearchSpace"):
        Joint("nasbench201", {"batch": [1, 2]})
    with pytest.raises(ArchitectureError, match="is no nasbench201 string"):
        ht.objectives.Training()(point)


def test_numbers_are_scaled_for_kernels():
    space = Joint(spaces.Pooling(), VALUES | {"log": Integer(1, 100, log=True)})
    net = spaces.Pooling().from_string("[7,1,2]")
    values = {"lr": 0.01, "batch": 128, "optimizer": "adam", "layers": 1, "momentum": 0.99}
    rows = space.encode([space.configure(net, values | {"log": 10})])
    assert space.scaled(rows)[0].tolist() == pytest.approx([0.5, 1.0, 1.0, 0.0, 1.0, 0.5])
