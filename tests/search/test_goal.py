import math

import numpy as np
import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.errors import NonFiniteValueError
from hotnas_torch.search import Goal

SPACE = spaces.NASBenchMacro()
NET = SPACE.from_string("01201201")


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_one_value_to_minimise_is_the_default():
    goal = Goal()
    assert (goal.plain, goal.several, goal.names, goal.describe()) == (True, False, ("value",), {})
    assert goal.best(rows([3.0], [1.0], [math.nan], [1.0])) == 1


def test_the_largest_is_the_best_where_values_are_maximised():
    goal = Goal(direction="maximize")
    values = rows([3.0], [math.nan], [7.0], [7.0], [5.0])
    assert goal.best(values) == 2
    assert goal.best_so_far(values).tolist() == [3.0, 3.0, 7.0, 7.0, 7.0]
    assert goal.losses(values).nan_to_num(nan=0.5).tolist() == [-3.0, 0.5, -7.0, -7.0, -5.0]


def test_several_objectives_may_go_different_ways():
    goal = Goal(objectives={"accuracy": "maximize", "size": "minimize"})
    values = rows([0.9, 5.0], [0.8, 6.0], [0.7, 1.0], [math.nan, math.nan], [0.9, 4.0])
    assert goal.front(values) == [2, 4]
    losses = goal.losses(values)
    assert losses[3].isnan()
    assert set(losses[[2, 4]].tolist()) == {0.0, 1.0}
    assert losses[1] == 3.0  # dominated by all of the front but one, and by what was on the second
    assert goal.hypervolume(values, [0.5, 10.0]) == pytest.approx(0.2 * 9 + 0.2 * 6)
    with pytest.raises(ValueError, match="have no best; front holds"):
        goal.best(values)


def test_what_breaks_a_bound_is_never_the_best_and_comes_last():
    goal = Goal(direction="maximize", constraints=["latency <= 5", "size >= 2"])
    values = rows([9.0, 6.0, 3.0], [1.0, 5.0, 2.0], [2.0, 4.0, 9.0], [8.0, 50.0, 3.0])
    assert goal.feasible(values).tolist() == [False, True, True, False]
    assert goal.best(values) == 2
    assert goal.losses(values).argsort().tolist() == [2, 1, 0, 3]
    assert goal.best(values[[0, 3]]) is None
    assert goal.best_so_far(values).nan_to_num(nan=-1.0).tolist() == [-1.0, 1.0, 2.0, 2.0]


def test_a_bound_on_an_objective_needs_no_number_of_its_own():
    goal = Goal(objectives=("error", "size"), constraints=["error <= 10", "time <= 2.5"])
    assert goal.names == ("error", "size", "time")
    assert goal.front(rows([11.0, 1.0, 1.0], [9.0, 2.0, 3.0], [9.0, 3.0, 1.0])) == [2]


def test_the_hypervolume_so_far_never_falls():
    goal = Goal(objectives=("a", "b"))
    values = torch.rand(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = goal.hypervolume_so_far(values)
    assert (found.diff() >= 0).all()
    assert found[-1] == goal.hypervolume(values) > 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"a": 1, "b": 2.0, "other": 7}, (1.0, 2.0)),
        ({"b": 2.0, "a": np.float32(1)}, (1.0, 2.0)),
        ([1, 2], (1.0, 2.0)),
        (torch.tensor([1.0, 2.0]), (1.0, 2.0)),
        (np.array([1.0, 2.0]), (1.0, 2.0)),
    ],
)
def test_numbers_are_read_by_name_or_in_order(given, expected):
    assert Goal(objectives=("a", "b")).row("values[0]", NET, given) == expected


def test_one_nan_is_a_failed_evaluation():
    goal = Goal(objectives=("a", "b"))
    for given in ({"a": math.nan, "b": 1.0}, [1.0, math.nan], math.nan):
        assert all(map(math.isnan, goal.row("values[0]", NET, given)))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"a": 1.0}, ValueError, "values\\[0\\] must have 'a', 'b'; got no 'b'"),
        ([1.0, 2.0, 3.0], ValueError, "must hold 2 numbers, a, b; got 3"),
        ([1.0], ValueError, "must hold 2 numbers, a, b; got 1"),
        (1.0, TypeError, "must be a mapping or a sequence of a, b; got 1.0"),
        ("12", TypeError, "must be a mapping or a sequence"),
        (None, TypeError, "must be a mapping or a sequence"),
        ({"a": "x", "b": 1.0}, TypeError, "values\\[0\\]\\['a'\\] must be a number"),
        ({"a": [1.0, 2.0], "b": 1.0}, TypeError, "values\\[0\\]\\['a'\\] must be"),
        ({"a": True, "b": 1.0}, TypeError, "must be a number; got True"),
        ({"a": math.inf, "b": 1.0}, NonFiniteValueError, "must be finite"),
    ],
)
def test_other_numbers_are_refused_by_name(given, error, message):
    with pytest.raises(error, match=message):
        Goal(objectives=("a", "b")).row("values[0]", NET, given)


def test_what_is_known_is_computed_and_must_agree():
    goal = Goal(objectives=("error", "zeros"), known={"zeros": lambda net: net.spec.count("0")})
    assert goal.measured == ("error",)
    assert goal.row("values[0]", NET, {"error": 5.0}) == (5.0, 3.0)
    assert goal.row("values[0]", NET, 5.0) == (5.0, 3.0)
    assert goal.row("values[0]", NET, [5.0, 3.0]) == (5.0, 3.0)
    with pytest.raises(ValueError, match="must be what known\\['zeros'\\] says, 3; got 4"):
        goal.row("values[0]", NET, [5.0, 4.0])
    broken = Goal(objectives=("error", "zeros"), known={"zeros": lambda _: math.inf})
    with pytest.raises(ValueError, match="known\\['zeros'\\] must be finite; got inf"):
        broken.row("values[0]", NET, 5.0)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"direction": "up"}, ValueError, "direction must be 'minimize' or 'maximize'; got 'up'"),
        ({"direction": 1}, ValueError, "direction must be"),
        ({"direction": ["minimize"] * 2}, ValueError, "one per objective, 1; got 2"),
        ({"objectives": "error"}, TypeError, "objectives must be a sequence of names"),
        ({"objectives": ()}, ValueError, "at least one name"),
        ({"objectives": ("a", "a")}, ValueError, "different names; got 'a' twice"),
        ({"objectives": ("a", 3)}, TypeError, "objectives\\[1\\] must be a name; got 3"),
        ({"objectives": {"a": "up"}}, ValueError, "objectives\\['a'\\] must be 'minimize'"),
        (
            {"objectives": {"a": "minimize"}, "direction": "minimize"},
            ValueError,
            "direction must be left out",
        ),
        ({"constraints": "a <= 5"}, TypeError, "constraints must be a sequence of texts"),
        ({"constraints": ["a < 5"]}, ValueError, "constraints\\[0\\] must be a text such as"),
        ({"constraints": ["a <= five"]}, ValueError, "constraints\\[0\\] must be a text such as"),
        ({"constraints": ["a <= nan"]}, ValueError, "constraints\\[0\\] must be a text such as"),
        ({"constraints": ["<= 5"]}, ValueError, "constraints\\[0\\] must be a text such as"),
        ({"constraints": [5]}, TypeError, "constraints\\[0\\] must be a text such as"),
        ({"known": {"size": len}}, ValueError, "known must be objectives or have a constraint"),
        ({"known": {"value": len}}, ValueError, "known must leave something to evaluate"),
        ({"constraints": ["a <= 1"], "known": {"a": 3}}, TypeError, "must be a function"),
        ({"known": [len]}, TypeError, "known must be a mapping"),
        ({"objective": ("a",)}, TypeError, "no setting 'objective' .did you mean 'objectives'"),
    ],
)
def test_goals_that_make_no_sense_are_refused_in_words(settings, error, message):
    with pytest.raises(error, match=message):
        Goal.of(settings)


def test_a_direction_is_said_once():
    assert Goal().toward("maximize").direction == "maximize"
    assert Goal(direction="maximize").toward("maximize").direction == "maximize"
    with pytest.raises(ValueError, match="direction must be minimize, as the strategy says"):
        Goal(direction="minimize").toward("maximize")
    several = Goal(objectives=("a", "b"))
    assert several.toward(["minimize", "maximize"]).directions == ("minimize", "maximize")
    with pytest.raises(ValueError, match="one per objective, 2; got 1"):
        several.toward("maximize")


def test_a_goal_survives_its_description():
    goal = Goal(
        objectives={"a": "maximize", "b": "minimize"},
        constraints=["c >= -1.5e-3", "b <= 0.1"],
        known={"b": lambda _: 0.0},
    )
    again = Goal.read(goal.describe())
    assert (again.objectives, again.directions) == (goal.objectives, goal.directions)
    assert again.constraints == goal.constraints
    assert Goal.read(None).plain


def test_a_reference_point_of_another_kind_is_refused():
    goal = Goal(objectives=("a", "b"))
    values = rows([1.0, 2.0])
    with pytest.raises(ValueError, match="reference must be 2 finite numbers, for a, b"):
        goal.hypervolume(values, [1.0])
    with pytest.raises(ValueError, match="reference must be 2 finite numbers"):
        goal.hypervolume(values, [1.0, math.inf])
    with pytest.raises(TypeError, match="reference must be one number per objective"):
        goal.hypervolume(values, 3.0)
    with pytest.raises(ValueError, match="keeps all bounds for a reference point"):
        goal.reference_point(rows([math.nan, math.nan]))
    assert goal.hypervolume(rows([math.nan, math.nan])) == 0.0
