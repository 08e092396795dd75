"""What is known before a search: told, enqueued, found by earlier ones."""

import math

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.errors import StopSearch, StorageError
from hotnas_torch.objectives import Evaluation, Table
from hotnas_torch.plot.report import read_search, write_report
from hotnas_torch.search import (
    ParetoEvolution,
    RandomSearch,
    RegularizedEvolution,
    SearchResult,
    Storage,
    run,
)
from hotnas_torch.testing.strategy import toy_value
from tests.search import programs

SPACE = spaces.NASBenchMacro()


def made(kind=RandomSearch, seed=0, **settings):
    return kind(SPACE, generator=torch.Generator().manual_seed(seed), **settings)


def networks(num):
    return SPACE.sample(num, generator=torch.Generator().manual_seed(9), distinct=True)


def search(strategy, budget=4, **options):
    return run(strategy, programs.value, budget=budget, progress=False, **options)


def two(net):
    return {"error": toy_value(net), "size": float(net.spec.count("2"))}


# --- told -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_what_was_told_is_in_the_result_and_in_the_file(tmp_path, shared):
    path = tmp_path / "s.sqlite"
    nets = networks(3)
    strategy = made()
    strategy.tell(nets, [-5.0, math.nan, 3.0], [0.25, None, None])
    result = search(strategy, storage=path, shared=shared)
    assert [trial.network for trial in result.earlier] == nets
    assert [trial.earlier for trial in (*result.earlier, *result.trials)] == [True] * 3 + [
        False
    ] * 4
    assert result.earlier[0].outcome.metrics == {"value_variance": 0.25}
    assert result.earlier[1].failed
    assert len(result.trials) == 4  # the budget is of evaluations
    assert result.best == result.earlier[0]
    assert result.best_so_far.tolist() == [-5.0] * 4
    with Storage(path, read_only=True) as store:
        assert repr(store.earlier(SPACE)) == repr(result.earlier)
    _, read = read_search(path)
    assert read.best == result.best
    write_report(path, tmp_path / "s.html")
    assert "<dd>known before</dd>" in (tmp_path / "s.html").read_text()
    # A fresh strategy knows it from the file.
    later = made()
    again = search(later, budget=6, storage=path, shared=shared)
    assert repr(again.earlier) == repr(result.earlier)
    assert later.best.value == -5.0
    assert again.trials[:4] == result.trials


def test_what_was_told_is_on_the_front(tmp_path):
    goal = {"objectives": ("error", "size"), "population": 4}
    net = networks(1)[0]
    strategy = made(ParetoEvolution, **goal)
    strategy.tell([net], [{"error": -1.0, "size": -1.0}])
    path = tmp_path / "s.sqlite"
    result = run(strategy, two, budget=5, storage=path, progress=False)
    assert [trial.network for trial in result.front] == [net]
    assert len(result.hypervolume_so_far([20.0, 9.0])) == 5
    assert result.hypervolume([20.0, 9.0]) == pytest.approx(210.0)
    _, read = read_search(path)
    assert read.front == result.front


def test_what_is_told_later_is_refused(tmp_path):
    path = tmp_path / "s.sqlite"
    search(made(), storage=path)
    strategy = made()
    strategy.tell(networks(1), [1.0])
    with pytest.raises(StorageError, match="does not know"):
        search(strategy, budget=6, storage=path)


# --- earlier searches -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["file", "result", "list"])
@pytest.mark.parametrize("shared", [False, True])
def test_another_search_is_prior_data(tmp_path, form, shared):
    earlier, path = tmp_path / "earlier.sqlite", tmp_path / "s.sqlite"
    first = search(made(seed=1), storage=earlier)
    prior = {"file": earlier, "result": first, "list": [earlier, str(earlier)]}[form]
    strategy = made()
    result = search(strategy, storage=path, prior=prior, shared=shared)
    assert [(t.network, repr(t.value)) for t in result.earlier] == [
        (t.network, repr(t.value)) for t in first.trials
    ]
    assert len(strategy.observations) == 8
    assert not {t.network.spec for t in first.trials} & {t.network.spec for t in result.trials}
    again = search(made(), budget=6, storage=path, prior=prior, shared=shared)
    assert repr(again.earlier) == repr(result.earlier)
    # What an earlier search was told is passed on.
    third = search(made(seed=3), prior=path)
    assert len(third.earlier) == 10


def test_the_same_search_with_prior_data_goes_on_as_if_uninterrupted(tmp_path):
    earlier = search(made(seed=1))
    settings = {"population": 5, "tournament": 3}
    whole = search(made(RegularizedEvolution, **settings), budget=12, prior=earlier)
    path = tmp_path / "s.sqlite"
    for budget in (7, 12):
        found = search(
            made(RegularizedEvolution, **settings), budget=budget, storage=path, prior=earlier
        )
    assert [t.network for t in found.trials] == [t.network for t in whole.trials]


@pytest.mark.parametrize(
    ("prior", "error", "message"),
    [
        (3, TypeError, "prior must be files or results of earlier searches, or tables; got 3"),
        ({"arch": ["00000000"]}, TypeError, "prior must be files or results"),
        ([3], TypeError, r"prior\[0\] must be a file, a SearchResult, .*; got 3 \(networks and"),
        ([("00000000", 1.0)], TypeError, r"strategy\.tell\(networks, values\)"),
        ("nowhere.sqlite", StorageError, "there is no storage file nowhere.sqlite"),
        (
            SearchResult(spaces.Pooling(), (), "evaluations"),
            ValueError,
            r"prior\[0\] belongs to another space",
        ),
    ],
)
def test_what_is_no_prior_is_refused_before_work(tmp_path, prior, error, message):
    path = tmp_path / "s.sqlite"
    with pytest.raises(error, match=message):
        search(made(), storage=path, prior=prior)
    assert not path.exists()


def test_a_prior_of_another_space_or_without_a_number_that_counts_is_refused(tmp_path):
    path = tmp_path / "pooling.sqlite"
    pooling = RandomSearch(spaces.Pooling(), generator=torch.Generator().manual_seed(0))
    run(pooling, lambda _: 1.0, budget=2, storage=path, progress=False)
    with pytest.raises(StorageError, match="belongs to another space"):
        search(made(), prior=path)
    several = made(ParetoEvolution, objectives=("error", "size"), population=4)
    with pytest.raises(ValueError, match="must have 'error' of all its evaluations"):
        run(several, two, budget=4, prior=search(made()), progress=False)


@pytest.mark.parametrize("form", ["file", "result", "in_a_list"])
@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        ({}, {"direction": "maximize"}, "must maximize 'value', as this search does"),
        ({"direction": "maximize"}, {}, "must minimize 'value', as this search does"),
        (
            {"objectives": {"error": "minimize"}},
            {"objectives": {"error": "maximize"}},
            "must maximize 'error'",
        ),
        (
            {"objectives": ("error", "size")},
            {"objectives": {"size": "maximize", "error": "minimize"}},
            "must maximize 'size'",
        ),
        ({}, {"objectives": ["error"]}, "must have 'error' of all its evaluations"),
        ({"objectives": ["error"]}, {}, "must have 'value' of all .* got 'error', 'size' of"),
        ({"objectives": ["error"]}, {"constraints": ["size <= 3"]}, "must have 'value' of all"),
        ({"objectives": ["error"]}, {"objectives": ["loss"]}, "must have 'loss' of all"),
    ],
)
def test_other_directions_and_other_numbers_are_refused(tmp_path, form, theirs, ours, message):
    path = tmp_path / "p.sqlite"
    measure = two if "objectives" in theirs else programs.value
    first = run(made(seed=1, **theirs), measure, budget=4, storage=path, progress=False)
    prior = {"file": path, "result": first, "in_a_list": [first]}[form]
    strategy = made(**ours)
    with pytest.raises(StorageError if form == "file" else ValueError, match=message) as refused:
        run(strategy, measure, budget=4, storage=tmp_path / "s.sqlite", prior=prior)
    assert str(refused.value).startswith(f"prior {path}" if form == "file" else "prior[0]")
    assert not strategy.observations
    assert not (tmp_path / "s.sqlite").exists()


def test_a_direction_said_in_the_run_counts_for_what_is_known_before():
    first = search(made(seed=1), direction="maximize")
    with pytest.raises(ValueError, match="must minimize 'value'"):
        search(made(), prior=first)
    second = search(made(), direction="maximize", prior=first)
    assert second.best.value == max(t.value for t in (*second.earlier, *second.trials))


def test_what_was_observed_minimising_is_not_maximised_later():
    strategy = made()
    search(strategy)
    with pytest.raises(ValueError, match="direction must be minimize, as the strategy says"):
        search(strategy, budget=6, direction="maximize")


def test_the_value_is_the_number_that_counts_here():
    both = run(made(seed=1, objectives=("error", "size")), two, budget=5, progress=False)
    found = run(made(objectives=["size"]), two, budget=1, prior=both, progress=False)
    assert [t.value for t in found.earlier] == [t.outcome.metrics["size"] for t in both.trials]
    assert found.best.value == min(t.outcome.metrics["size"] for t in (*both.trials, *found.trials))


def test_what_is_known_of_a_network_is_filled_in():
    first = run(made(seed=1, objectives=["error"]), two, budget=3, progress=False)
    settings = {
        "objectives": ("error", "twos"),
        "known": {"twos": lambda net: float(net.spec.count("2"))},
    }
    found = run(made(**settings), two, budget=1, prior=first, progress=False)
    assert [t.outcome.metrics["twos"] for t in found.earlier] == [
        t.outcome.metrics["size"] for t in first.trials
    ]


@pytest.mark.parametrize("form", ["file", "result"])
def test_another_objective_is_said_once(tmp_path, form):
    def halved(net):
        return programs.value(net) / 2.0

    path = tmp_path / "p.sqlite"
    first = search(made(seed=1), storage=path)
    prior = [path, path] if form == "file" else [first, first]
    search(made(), prior=prior)  # the same objective, and no warning
    with pytest.warns(UserWarning, match="belongs to another objective: its 'name' is") as said:
        run(made(), halved, budget=1, prior=prior, progress=False)
    assert len(said) == 1


# --- parts of a space -----------------------------------------------------------------------------


def joint(space):
    return spaces.Joint(space, {"lr": spaces.Log(1e-4, 1.0), "batch": [32, 64]})


@pytest.mark.parametrize("form", ["file", "result"])
@pytest.mark.parametrize("paired", [False, True])
def test_a_search_of_a_subset_is_prior_data_of_the_space(tmp_path, form, paired):
    part = spaces.Subset(SPACE, networks(12))
    part = spaces.Subset(part, networks(9))
    theirs, ours = (joint(part), joint(SPACE)) if paired else (part, SPACE)
    path = tmp_path / "p.sqlite"
    generator = torch.Generator().manual_seed(1)
    first = run(
        RandomSearch(theirs, generator=generator), flat, budget=5, storage=path, progress=False
    )
    strategy = RandomSearch(ours, generator=torch.Generator().manual_seed(0))
    prior = path if form == "file" else first
    found = run(strategy, flat, budget=2, prior=prior, progress=False)
    assert [t.network.spec for t in found.earlier] == [t.network.spec for t in first.trials]
    # The other way, only what is in the part.
    again = RandomSearch(theirs, generator=torch.Generator().manual_seed(2))
    assert len(run(again, flat, budget=1, prior=first, progress=False).earlier) == 5
    again = RandomSearch(theirs, generator=torch.Generator().manual_seed(2))
    with pytest.raises(ValueError, match="must be of networks of"):
        run(again, flat, budget=1, prior=found, progress=False)


def flat(net):
    return float(len(net.spec))


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["frame", "csv", "text", "list"])
def test_a_table_of_the_numbers_that_count_is_prior_data(tmp_path, form):
    pandas = pytest.importorskip("pandas")
    nets = networks(3)
    frame = pandas.DataFrame(
        {"arch": [n.spec for n in nets], "accuracy": [0.5, 0.75, None], "seed": [1, 2, 3]}
    )
    path = tmp_path / "archs.csv"
    frame.to_csv(path, index=False)
    prior = {"frame": frame, "csv": path, "text": str(path), "list": [frame]}[form]
    strategy = made(objectives={"accuracy": "maximize"})
    found = search(strategy, budget=1, prior=prior)
    assert [(t.network, t.value) for t in found.earlier] == [(nets[0], 0.5), (nets[1], 0.75)]
    with pytest.raises(ValueError, match="no column 'value' with numbers") as refused:
        search(made(), prior=prior)
    assert "columns of their names, 'value' (objectives= names them)" in str(refused.value)
    plain = frame.rename(columns={"accuracy": "value"})
    assert search(made(), budget=1, direction="maximize", prior=plain).earlier[1].value == 0.75
    with pytest.raises(ValueError, match="average those of several seeds before"):
        search(made(), prior=pandas.concat([plain, plain]))


def test_the_trials_of_a_search_come_back_as_a_table():
    pytest.importorskip("pandas")
    first = run(made(seed=1, objectives=("error", "size")), two, budget=4, progress=False)
    found = run(
        made(objectives=("error", "size")), two, budget=1, prior=first.to_pandas(), progress=False
    )
    assert [(t.network, t.value) for t in found.earlier] == [
        (t.network, t.value) for t in first.trials
    ]


def test_an_objective_that_looks_up_is_prior_data(tmp_path):
    path = tmp_path / "archs.csv"
    path.write_text("arch,accuracy\n00000000,0.5\n11111111,0.75\n")
    table = Table(path, "accuracy", space=SPACE)
    with pytest.warns(UserWarning, match="another objective"):
        found = search(made(), budget=1, prior=table)
    assert [t.value for t in found.earlier] == [-0.5, -0.75]
    with pytest.raises(ValueError, match="must maximize 'value'"):
        search(made(direction="maximize"), prior=table)
    with pytest.warns(UserWarning, match="another objective"):
        found = search(made(objectives={"accuracy": "maximize"}), budget=1, prior=[table])
    assert [t.value for t in found.earlier] == [0.5, 0.75]


@pytest.mark.parametrize(
    ("nets", "message"),
    [
        (["00000000"], r"nets\[0\] must be .*; got '00000000' \(space.from_string reads"),
        ("00000000", r"must be a sequence of Network; got '00000000' \(pass \[space.from_string"),
    ],
)
def test_strings_that_are_told_are_refused_with_the_remedy(nets, message):
    with pytest.raises((TypeError, ValueError), match=message):
        made().tell(nets, [1.0])


def test_tables_and_repeats_that_are_told_are_refused_with_the_remedy():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"arch": ["00000000", "11111111"], "accuracy": [0.5, 0.75]})
    with pytest.raises(TypeError, match=r"got a DataFrame .*space.from_string"):
        made().tell(frame[["arch"]], [0.5, 0.75])
    net = networks(1)[0]
    with pytest.raises(ValueError, match="average several before, or pass again=True"):
        made().tell([net, net], [1.0, 2.0])
    strategy = made()
    strategy.tell(pandas.Series([net]), pandas.Series([1.0]))
    assert strategy.best.value == 1.0


# --- enqueued -------------------------------------------------------------------------------------


def test_enqueued_networks_go_first_in_their_order():
    nets = networks(3)
    strategy = made()
    strategy.enqueue(nets[:2])
    strategy.enqueue(nets[1:])
    assert strategy.enqueued == tuple(nets)
    result = search(strategy, budget=5, batch_size=2)
    assert [trial.network for trial in result.trials[:3]] == nets
    assert strategy.enqueued == ()


def test_what_is_known_or_pending_is_not_asked_again():
    nets = networks(3)
    strategy = made()
    strategy.tell(nets[:1], [1.0])
    strategy.expect(nets[1:2])
    strategy.enqueue(nets)
    assert strategy.ask(1) == nets[2:]
    assert strategy.enqueued == ()


def test_the_queue_survives_an_interruption(tmp_path):
    path, nets = tmp_path / "s.sqlite", networks(4)
    strategy = made()
    strategy.enqueue(nets[:3])
    state = strategy.state_dict()
    fresh = made()
    fresh.load_state_dict(state)
    assert fresh.enqueued == tuple(nets[:3])
    search(strategy, budget=2, storage=path)
    later = made()
    later.enqueue(nets)  # the same program again, and one network more
    result = search(later, budget=6, storage=path)
    assert [trial.network for trial in result.trials[:4]] == nets


@pytest.mark.parametrize("nets", [networks(1)[0], "01201201", 3, [3]])
def test_what_cannot_be_enqueued_is_refused(nets):
    strategy = made()
    with pytest.raises((TypeError, ValueError), match="nets"):
        strategy.enqueue(nets)
    assert strategy.enqueued == ()


def test_what_is_withdrawn_may_be_asked_again():
    strategy = made()
    nets = strategy.ask(2)
    strategy.withdraw(nets[:1])
    assert strategy.pending == tuple(nets[1:])
    strategy.enqueue(nets)
    assert strategy.ask(1) == nets[:1]


# --- stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "asynchronous"),
    [(1, False), (1, True), pytest.param(2, True, marks=pytest.mark.slow)],
)
def test_a_callback_can_stop_a_search_which_goes_on_later(tmp_path, workers, asynchronous):
    path, seen = tmp_path / "s.sqlite", []

    def stop(trial):
        seen.append(trial)
        if len(seen) == 3:
            raise StopSearch

    options = {"workers": workers, "asynchronous": asynchronous}
    result = run(made(), programs.value, budget=9, storage=path, progress=stop, **options)
    assert result.reason == "stopped"
    assert repr(result.trials) == repr(tuple(sorted(seen, key=lambda trial: trial.number)))
    again = search(made(), budget=5, storage=path, asynchronous=asynchronous)
    assert again.reason == "evaluations"
    assert len({trial.network.spec for trial in again.trials}) == 5


def test_an_objective_can_stop_a_search_whatever_is_caught():
    calls = []

    def objective(net):
        calls.append(net)
        if len(calls) == 3:
            raise StopSearch
        return Evaluation(1.0)

    result = run(made(), objective, budget=9, progress=False, catch=(Exception,))
    assert (result.reason, len(result.trials)) == ("stopped", 2)
