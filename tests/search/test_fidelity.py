import math

import pytest

from hotnas_torch import spaces
from hotnas_torch.objectives import Evaluation, Fidelities
from hotnas_torch.search import Fidelity
from hotnas_torch.search.brackets import brackets_between, brackets_of

SPACE = spaces.Pooling()


@pytest.mark.parametrize(("low", "high", "eta"), [(1, 81, 3), (30, 120, 2), (3, 200, 3), (2, 9, 4)])
def test_brackets_between_levels_are_those_of_hyperband(low, high, eta):
    brackets = brackets_of(low, high, eta)
    assert brackets_between(brackets[0].budgets) == brackets


def test_points_go_on_as_budgets_grow():
    assert [one.sizes for one in brackets_between([12, 200])] == [(17, 1), (2,)]
    assert [one.sizes for one in brackets_between([10, 20, 200])] == [(20, 10, 1), (10, 1), (3,)]


def test_slots_repeat():
    fidelity = Fidelity([1, 3])
    slots = [tuple(fidelity.slot(place)) for place in range(8)]
    assert slots == [
        *[(0, True)] * 3,
        (1, False),
        *[(1, True)] * 2,
        *[(0, True)] * 2,
    ]


def test_a_round_of_any_size_takes_no_memory():
    fidelity = Fidelity([1, 10**12])
    assert tuple(fidelity.slot(10**12 - 1)) == (0, True)
    assert tuple(fidelity.slot(10**12)) == (1, False)
    assert tuple(fidelity.slot(10**12 + 1)) == (1, True)


def test_levels_between_ends_are_whole_where_these_are():
    assert Fidelity.between(3, 200).levels == (7, 22, 67, 200)
    assert Fidelity.between(0.1, 0.9, name="share").levels == pytest.approx((0.1, 0.3, 0.9))


def test_a_pair_has_its_level_and_its_cost():
    fidelity = Fidelity([5, 50])
    pairs = fidelity.joined(SPACE)
    net = SPACE.from_string("[7,1,2]")
    point = fidelity.point(pairs, net, 0)
    assert fidelity.network(SPACE, point) == net
    assert (fidelity.level(point), fidelity.cost(point), fidelity.place(point)) == (5, 0.1, 0)
    with pytest.raises(TypeError, match="point must be a pair"):
        fidelity.cost(net)


@pytest.mark.parametrize(
    ("levels", "name", "kind", "message"),
    [
        ([12], "epochs", ValueError, "levels must be at least two numbers"),
        ([], "epochs", ValueError, "levels must be at least two numbers"),
        ([200, 12], "epochs", ValueError, "from small to large"),
        ([12, 12], "epochs", ValueError, "from small to large"),
        ([0, 12], "epochs", ValueError, r"levels\[0\] must be positive and finite; got 0"),
        ([1, math.inf], "epochs", ValueError, r"levels\[1\] must be positive and finite"),
        ([1, math.nan], "epochs", ValueError, r"levels\[1\] must be positive and finite"),
        (["1", 2], "epochs", TypeError, r"levels\[0\] must be a number"),
        ("12", "epochs", TypeError, "levels must be a sequence of numbers"),
        (200, "epochs", TypeError, "levels must be a sequence of numbers"),
        ([1, 2], "", ValueError, "name must be printable"),
        ([1, 2], "value", ValueError, "name must not be that of a value"),
        ([1, 2], "lr_variance", ValueError, "name must not be that of a value"),
        ([1, 2], 3, TypeError, "name must be a str"),
    ],
)
def test_bad_fidelities_are_refused(levels, name, kind, message):
    with pytest.raises(kind, match=message):
        Fidelity(levels, name)


def test_room_for_one_level_is_none():
    with pytest.raises(ValueError, match="at least two numbers"):
        Fidelity.between(100, 200)


def test_an_objective_per_level_evaluates_pairs():
    pairs = Fidelity([1, 9]).joined(SPACE)
    net = SPACE.from_string("[7,1,2]")
    objective = Fidelities({1: lambda _: 8.0, 9: lambda _: Evaluation(5.0)})
    assert objective(pairs.configure(net, {"epochs": 1})) == 8.0
    assert objective(pairs.configure(net, {"epochs": 9})).value == 5.0
    assert list(objective.describe()["objectives"]) == ["1", "9"]
    with pytest.raises(TypeError, match="net must be a pair of a network and 'epochs'"):
        objective(net)
    other = Fidelity([2, 9]).joined(SPACE).configure(net, {"epochs": 2})
    with pytest.raises(ValueError, match="epochs must be one of 1, 9; got 2"):
        objective(other)


@pytest.mark.parametrize(
    ("objectives", "kind", "message"),
    [
        ([len], TypeError, "objectives must be a mapping"),
        ({}, ValueError, "objectives must hold one"),
        ({0: len}, ValueError, "levels must be positive"),
        ({1: 5.0}, TypeError, r"objectives\[1\] must be callable"),
    ],
)
def test_bad_objectives_of_levels_are_refused(objectives, kind, message):
    with pytest.raises(kind, match=message):
        Fidelities(objectives)
