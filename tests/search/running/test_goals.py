"""Runs that maximise, that have several objectives, or bounds."""

import json
import math
import sqlite3

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.errors import StorageError
from hotnas_torch.objectives import Evaluation
from hotnas_torch.plot.report import read_search, write_report
from hotnas_torch.search import (
    HOTNAS,
    ANASODLocalSearch,
    ANASODRandomSearch,
    LocalSearch,
    MutationSearch,
    ParetoEvolution,
    RandomSearch,
    RegularizedEvolution,
    TreeSearch,
    run,
)
from hotnas_torch.testing.strategy import toy_value
from tests.search import programs

SPACE = spaces.NASBenchMacro()
FAST = {"num_initial": 5, "pool_size": 30, "model_options": {"learn": []}}


def made(kind, seed=0, space=SPACE, **settings):
    return kind(space, generator=torch.Generator().manual_seed(seed), **settings)


def hotnas(seed=0, **settings):
    return made(HOTNAS, seed, **FAST, **settings)


def size(net):
    return float(sum(map(int, net.spec)))


def two(net):
    return {"error": toy_value(net), "size": size(net)}


def specs(result):
    return [trial.network.spec for trial in result.trials]


# --- maximising -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (HOTNAS, FAST | {"transform": "none"}),
        (RegularizedEvolution, {"population": 5, "tournament": 3}),
        (ParetoEvolution, {"population": 5}),
        (MutationSearch, {"num_initial": 5}),
        (LocalSearch, {"num_initial": 3}),
        (ANASODLocalSearch, {"num_initial": 3}),
        (ANASODRandomSearch, {}),
    ],
)
def test_maximising_asks_what_minimising_the_negative_asks(kind, settings):
    negated = run(
        made(kind, **settings), lambda net: -programs.value(net), budget=10, progress=False
    )
    # Said to the strategy or, as far as a few evaluations, to the search.
    strategy = made(kind, **settings, direction="maximize")
    result = run(strategy, programs.value, budget=10, progress=False)
    assert specs(result) == specs(negated)
    said = run(
        made(kind, **settings), programs.value, budget=7, progress=False, direction="maximize"
    )
    assert specs(said) == specs(negated)[:7]
    assert result.best.value == -negated.best.value == strategy.best.value
    values = [trial.value for trial in result.trials if not trial.failed]
    assert result.best.value == max(values)
    assert torch.equal(result.best_so_far.nan_to_num(), -negated.best_so_far.nan_to_num())


def test_a_tree_maximises_too():
    space = spaces.Pooling()
    settings = {"space": space, "num_initial": 4, "budget": 36}
    found = run(
        made(TreeSearch, **settings, direction="maximize"),
        lambda net: sum(net.downsampling),
        budget=36,
        progress=False,
    )
    assert found.best.value == max(sum(net.downsampling) for net in space)


def test_a_file_remembers_the_direction(tmp_path):
    path = tmp_path / "search.sqlite"
    first = run(
        made(MutationSearch),
        programs.value,
        budget=6,
        storage=path,
        progress=False,
        direction="maximize",
    )
    with pytest.raises(StorageError, match=r"'goal' is \{'objectives': \{'value': 'maximize'"):
        run(made(MutationSearch), programs.value, budget=9, storage=path, progress=False)
    again = run(
        made(MutationSearch, direction="maximize"),
        programs.value,
        budget=9,
        storage=path,
        progress=False,
    )
    assert again.trials[:6] == first.trials
    _, read = read_search(path)
    assert read.goal.direction == "maximize"
    assert read.best == again.best


def test_a_file_of_one_value_to_minimise_holds_no_goal(tmp_path):
    path = tmp_path / "search.sqlite"
    run(made(RandomSearch), programs.value, budget=3, storage=path, progress=False)
    with sqlite3.connect(path) as connection:
        texts = [text for (text,) in connection.execute("SELECT content FROM meta")]
    assert not any('"goal"' in text for text in texts)


def test_a_direction_that_the_strategy_contradicts_is_refused_before_work():
    strategy = made(RandomSearch, direction="minimize")
    with pytest.raises(ValueError, match="as the strategy says; got maximize"):
        run(strategy, programs.value, budget=3, progress=False, direction="maximize")
    with pytest.raises(ValueError, match="direction must be 'minimize' or 'maximize'; got 'max'"):
        run(made(RandomSearch), programs.value, budget=3, progress=False, direction="max")
    assert strategy.pending == ()


def test_the_bar_shows_the_largest_value(capsys):
    run(made(RandomSearch), size, budget=8, direction="maximize")
    result = run(made(RandomSearch), size, budget=8, direction="maximize", progress=False)
    assert f"best {result.best.value:g}" in capsys.readouterr().err


# --- several objectives ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("acquisition", ["log_nehvi", "log_nparego"])
def test_hotnas_beats_chance_on_two_objectives(acquisition):
    goal = {"objectives": ("error", "size"), "known": {"size": size}}

    def volume(strategy):
        return run(strategy, two, budget=30, progress=False).hypervolume([20.0, 20.0])

    ours = [volume(hotnas(seed, acquisition=acquisition, **goal)) for seed in range(2)]
    random = [volume(made(RandomSearch, seed, **goal)) for seed in range(2)]
    assert sum(ours) > sum(random)


@pytest.mark.parametrize(
    "goal",
    [
        pytest.param({"objectives": ("error", "size")}, marks=pytest.mark.slow),
        {"objectives": {"error": "minimize", "size": "maximize"}, "constraints": ["time <= 9"]},
        {"objectives": ("error", "size"), "known": {"size": size}, "constraints": ["size >= 3"]},
        pytest.param({"objectives": ("error", "size", "time")}, marks=pytest.mark.slow),
    ],
)
def test_a_search_goes_on_bit_by_bit(tmp_path, goal):
    def objective(net):
        found = two(net) | {"time": 1.0 + size(net) % 5}
        return math.nan if net.spec.endswith("00") else found

    def go(budget, **options):
        return run(
            hotnas(**goal), objective, budget=budget, batch_size=2, progress=False, **options
        )

    path = tmp_path / "search.sqlite"
    whole = go(8)
    go(6, storage=path)
    again = go(8, storage=path)
    assert specs(again) == specs(whole)
    assert torch.equal(again.values.nan_to_num(), whole.values.nan_to_num())
    assert [trial.number for trial in again.front] == [trial.number for trial in whole.front]
    result = write_report(path, tmp_path / "search.html")
    assert result.hypervolume() == again.hypervolume() > 0.0
    page = (tmp_path / "search.html").read_text(encoding="utf-8")
    assert f"{again.hypervolume():.6g}" in page
    assert "<h2>Front</h2>" in page
    assert all(trial.network.spec in page for trial in again.front)


def test_asynchronous_searches_in_processes_have_several_objectives():
    result = run(
        made(ParetoEvolution, population=4, objectives=("error", "size")),
        programs.two,
        budget=8,
        workers=2,
        asynchronous=True,
        progress=False,
    )
    assert len(result.trials) == 8
    assert result.front
    assert result.values.shape == (8, 2)


@pytest.mark.parametrize(
    "answer",
    [
        lambda net: (toy_value(net), size(net)),
        lambda net: torch.tensor([toy_value(net), size(net)], dtype=torch.float64),
        lambda net: Evaluation(1.0, two(net)),
        two,
    ],
)
def test_objectives_answer_by_name_or_in_order(answer):
    result = run(made(RandomSearch, objectives=("error", "size")), answer, budget=4, progress=False)
    for trial in result.trials:
        assert trial.value == toy_value(trial.network)
        assert trial.outcome.metrics == two(trial.network)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda _: 1.0, "expected 2 numbers, error, size"),
        (lambda _: (1.0, 2.0, 3.0), "expected 2 numbers, error, size"),
        (lambda _: {"error": 1.0}, "there is no 'size' among 'error'"),
        (lambda _: Evaluation(1.0, {"error": 1.0}), "there is no 'size' among"),
        (lambda _: {"error": "1", "size": 2.0}, "error must be a number"),
        (lambda _: {"error": [1.0, 2.0], "size": 2.0}, "error must be a number"),
        (lambda _: "text", "expected 2 numbers"),
        (lambda _: None, "expected 2 numbers"),
    ],
)
def test_another_answer_ends_the_search_and_loses_nothing(tmp_path, answer, message):
    path = tmp_path / "search.sqlite"
    numbers = iter(range(100))

    def objective(net):
        return two(net) if next(numbers) < 3 else answer(net)

    def go(objective):
        strategy = made(RandomSearch, objectives=("error", "size"))
        return run(
            strategy, objective, budget=6, storage=path, progress=False, accept_objective=True
        )

    with pytest.raises(TypeError, match=message) as caught:
        go(objective)
    assert "must return a mapping or an Evaluation with 'error', 'size'" in str(caught.value)
    assert len(go(two).trials) == 6


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_a_failed_evaluation(wrong):
    def objective(net):
        return two(net) | ({"size": wrong} if net.spec < "1" else {})

    result = run(
        made(RandomSearch, objectives=("error", "size")), objective, budget=10, progress=False
    )
    failed = [trial for trial in result.trials if trial.failed]
    assert 0 < len(failed) < 10
    assert {trial.outcome.error for trial in failed} == {
        f"size was {'NaN' if math.isnan(wrong) else wrong}"
    }
    assert not any(trial.failed for trial in result.front)


@pytest.mark.parametrize(
    "goal", [{"objectives": ("error", "size")}, {"constraints": ["size <= 5"]}]
)
def test_an_evaluation_that_failed_needs_no_numbers(goal):
    result = run(
        made(RandomSearch, **goal),
        lambda _: Evaluation.failure("no memory left"),
        budget=3,
        progress=False,
    )
    assert [trial.outcome.error for trial in result.trials] == ["no memory left"] * 3
    assert result.front == ()


def test_strategies_of_one_objective_say_who_takes_several():
    with pytest.raises(ValueError, match="objectives must be one for LocalSearch; got a, b"):
        made(LocalSearch, objectives=("a", "b"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": ("a", "b"), "acquisition": "log_ei"}, "acquisition must be 'log_nehvi'"),
        ({"acquisition": "log_nehvi"}, "acquisition must be one for a single objective"),
        ({"constraints": ["a <= 1"], "acquisition": "ucb"}, "acquisition must be 'log_ei'"),
        ({"objectives": ("a", "b"), "preset": "paper"}, "acquisition must be 'log_nehvi'"),
    ],
)
def test_an_acquisition_of_another_goal_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        hotnas(**settings)


# --- bounds ---------------------------------------------------------------------------------------


def early(net):
    return float(sum(map(int, net.spec[:4])))


@pytest.mark.slow
@pytest.mark.parametrize("known", [{}, {"early": early}])
def test_hotnas_finds_the_best_within_bounds_sooner_than_by_chance(known):
    def objective(net):
        return {"value": toy_value(net), "early": early(net)}

    def best(strategy):
        result = run(strategy, objective, budget=25, progress=False)
        kept = [trial.value for trial in result.trials if trial.outcome.metrics["early"] <= 3.0]
        assert result.best.value == min(kept) == strategy.best.value
        return result.best.value

    goal = {"constraints": ["early <= 3"], "known": known}
    ours = [best(hotnas(seed, **goal)) for seed in range(2)]
    random = [best(made(RandomSearch, seed, **goal)) for seed in range(2)]
    assert sum(ours) < sum(random)


def test_without_a_network_that_keeps_the_bounds_there_is_no_best():
    def objective(net):
        return {"value": 1.0 + size(net), "time": 5.0 + size(net)}

    result = run(hotnas(constraints=["time <= 1"]), objective, budget=9, progress=False)
    assert result.best is None
    assert result.best_so_far.isnan().all()
    # It looks for one all the same.
    later = [trial.outcome.metrics["time"] for trial in result.trials[5:]]
    assert sum(later) / 4 < sum(trial.outcome.metrics["time"] for trial in result.trials[:5]) / 5


def test_a_state_is_plain_json_and_checks_what_is_known():
    strategy = made(RandomSearch, objectives=("error", "size"), known={"size": size})
    nets = strategy.ask(3)
    strategy.tell(nets, [{"error": 1.0}, math.nan, [2.0, size(nets[2])]])
    state = json.loads(json.dumps(strategy.state_dict()))
    again = made(RandomSearch, objectives=("error", "size"), known={"size": size})
    again.load_state_dict(state)
    assert torch.equal(again.values.nan_to_num(), strategy.values.nan_to_num())
    assert again.observations[0] == strategy.observations[0]
    other = made(RandomSearch, objectives=("error", "size"), known={"size": lambda _: 77.0})
    with pytest.raises(ValueError, match="must be what known"):
        other.load_state_dict(state)
    assert other.observations == ()
