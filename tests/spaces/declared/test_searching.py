"""Declared spaces are searched like any other: strategies, storage, resume, workers, reports."""

import pickle
from functools import partial

import pytest
import torch

from hotnas_torch import Cell, Network, distances, spaces
from hotnas_torch.integrations.optuna import StrategySampler
from hotnas_torch.plot.report import write_report
from hotnas_torch.search import (
    HOTNAS,
    NASBOWL,
    ANASODLocalSearch,
    LocalSearch,
    RandomSearch,
    RegularizedEvolution,
    run,
)
from hotnas_torch.spaces import Block, Cells, Choice, Choices, Finite


def mobile(chosen):
    cells, channels = [], []
    for stage in range(2):
        label = f"mb[expansion={chosen[f'expansion{stage}']},kernel={chosen[f'kernel{stage}']}]"
        cells += [Cell(("input", label, "output"), ((0, 1), (1, 2)))] * chosen[f"depth{stage}"]
        channels += [chosen[f"width{stage}"]] * chosen[f"depth{stage}"]
    return Network.chain(cells, channels, (1,) * len(cells), input_channels=16)


OPTIONS = {"kernel": [3, 5, 7], "expansion": [3, 6], "width": [16, 32, 64], "depth": [1, 2, 3]}


def chain_space():
    choices = {f"{name}{stage}": OPTIONS[name] for stage in range(2) for name in OPTIONS}
    return Choices(choices, mobile, constraint=lambda chosen: chosen["width0"] <= chosen["width1"])


def cell_space():
    return Cells(["conv[kernel=1]", "conv[kernel=3]", "pool"], max_nodes=6, skeleton=[(2, 16)])


def hierarchy():
    cells = Cells(["conv", "pool"], max_nodes=5)
    stage = Block({"cell": cells, "repeats": [1, 2, 3]})
    choices = {"first": stage, "more": [True, False], "second": Choice(stage, when={"more": True})}
    return Choices(choices, stages)


def stages(chosen):
    found = [chosen["first"], *([chosen["second"]] if chosen["more"] else [])]
    cells = [one["cell"] for one in found for _ in range(one["repeats"])]
    return Network.chain(cells, (16,) * len(cells), (1,) * len(cells))


def zoo():
    generator = torch.Generator().manual_seed(1)
    return Finite(spaces.NASBenchMacro().sample(60, generator=generator, distinct=True))


SPACES = {"choices": chain_space, "cells": cell_space, "hierarchy": hierarchy, "finite": zoo}
STRATEGIES = {
    "hotnas": partial(HOTNAS, num_initial=5, pool_size=20),
    "evolution": partial(RegularizedEvolution, population=5, tournament=2),
    "nas_bowl": partial(NASBOWL, num_initial=5, pool_size=20),
    "random": RandomSearch,
    "local": LocalSearch,
}


def size(net):
    return float(sum(net.channels)) + 7.0 * abs(net.num_cells - 3) + len(net.cells[0].ops)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("space", SPACES)
def test_searches_go_on_from_their_storage(space, strategy, tmp_path):
    def search(path, budget):
        made = SPACES[space]()
        found = STRATEGIES[strategy](made, generator=torch.Generator().manual_seed(0))
        result = run(found, size, budget=budget, storage=path, progress=False)
        return [(trial.network.spec, trial.value) for trial in result.trials]

    whole = search(tmp_path / "whole.sqlite", 15)
    assert len(whole) == len({text for text, _ in whole}) == 15
    assert search(tmp_path / "parts.sqlite", 9) == whole[:9]
    assert search(tmp_path / "parts.sqlite", 15) == whole


def test_cells_have_operation_distributions():
    space = cell_space()
    strategy = ANASODLocalSearch(space, generator=torch.Generator().manual_seed(0))
    result = run(strategy, size, budget=15, progress=False)
    assert len({trial.network.spec for trial in result.trials}) == 15


def test_a_storage_of_another_space_is_refused(tmp_path):
    path = tmp_path / "search.sqlite"

    def search(space):
        strategy = RandomSearch(space, generator=torch.Generator().manual_seed(0))
        return run(strategy, size, budget=3, storage=path, progress=False)

    search(chain_space())
    other = Choices({"kernel0": [3, 5]}, lambda chosen: mobile({**default(), **chosen}))
    with pytest.raises(ValueError, match="another"):
        search(other)


def default():
    return {f"{name}{stage}": OPTIONS[name][0] for stage in range(2) for name in OPTIONS}


def test_workers_need_no_build_function(tmp_path):
    space = Choices(
        {"width0": [16, 32, 64], "width1": [16, 32]},
        lambda chosen: mobile({**default(), **chosen}),
    )
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(space)
    strategy = RandomSearch(space, generator=torch.Generator().manual_seed(0))
    result = run(strategy, size, budget=4, workers=2, progress=False)
    assert [trial.failed for trial in result.trials] == [False] * 4


def test_an_optuna_objective_suggests_the_choices_itself():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = chain_space()
    strategy = RandomSearch(space, generator=torch.Generator().manual_seed(0))

    def objective(trial):
        names = [f"{name}{stage}" for stage in range(2) for name in OPTIONS]
        chosen = {name: trial.suggest_categorical(name, OPTIONS[name[:-1]]) for name in names}
        return size(mobile(chosen))

    study = optuna.create_study(sampler=StrategySampler(strategy, parameters=space.to_choices))
    study.optimize(objective, n_trials=6)
    assert study.best_value == strategy.best.value
    assert space.from_choices(study.best_params) == strategy.best.network


def test_a_ray_tune_searcher_names_networks_of_declared_spaces():
    tune = pytest.importorskip("hotnas_torch.integrations.ray.tune")
    space = hierarchy()
    strategy = RandomSearch(space, generator=torch.Generator().manual_seed(0))
    searcher = tune.StrategySearcher(strategy, metric="loss", mode="min")
    config = searcher.suggest("first")
    net = space.from_string(config["architecture"])
    searcher.on_trial_complete("first", {"loss": size(net)})
    assert strategy.best.network == net


def test_reports_show_declared_spaces(tmp_path):
    space = chain_space()
    strategy = RandomSearch(space, generator=torch.Generator().manual_seed(0))
    run(strategy, size, budget=6, storage=tmp_path / "own.sqlite", progress=False)
    write_report(tmp_path / "own.sqlite", tmp_path / "own.html", space=space)
    assert "kernel0=" in (tmp_path / "own.html").read_text(encoding="utf-8")


KINDS = {name: distances.OperationKind(name, 1, "conv") for name in ("mb", "conv", "pool")}


@pytest.mark.parametrize("name", distances.NAMES)
@pytest.mark.parametrize("space", SPACES)
def test_every_distance_compares_them(space, name):
    made = SPACES[space]()
    nets = made.sample(5, generator=torch.Generator().manual_seed(0), distinct=True)
    # What OTMANN charges depends on what operations are; it does not guess.
    options = {"kinds": KINDS} if name == "otmann" else {}
    matrix = distances.get(name, space=made, **options)(nets)
    assert matrix.shape == (5, 5)
    assert bool(torch.isfinite(matrix).all())
    assert float(matrix.max()) > 0.0


def test_neighbours_in_a_list_are_the_nearest():
    space = zoo()
    nets = list(space)
    matrix = distances.get("hotnn", space=space)(nets)
    for place in (0, 7, 30):
        order = matrix[place].argsort(stable=True).tolist()
        order.remove(place)
        assert space.neighbors(nets[place], num=5) == [nets[other] for other in order[:5]]
    given = Finite(nets, matrix.tolist())
    assert given.neighbors(given.from_string(nets[3].spec)) == space.neighbors(nets[3])


@pytest.mark.parametrize(
    ("networks", "options", "error", "message"),
    [
        ([], {}, ValueError, "networks must hold at least one"),
        ("abc", {}, TypeError, "networks must be a list"),
        ([3], {}, TypeError, r"networks\[0\] must be a Network"),
        ({"": mobile(default())}, {}, ValueError, "names of networks must be"),
        ({"a": 3}, {}, TypeError, r"networks\['a'\] must be a Network"),
        ({3: mobile(default())}, {}, ValueError, "names of networks must be"),
        ({"a": mobile(default())}, {"distance": [[1.0, 2.0]]}, ValueError, r"shape \(1, 1\)"),
        ({"a": mobile(default())}, {"distance": [[-1.0]]}, ValueError, r"distance\[0, 0\] must be"),
        ({"a": mobile(default())}, {"distance": "hotnn"}, TypeError, "distance must be a distance"),
        ({"a": mobile(default())}, {"num_neighbors": 0}, ValueError, "num_neighbors must be"),
        ({"a": mobile(default())}, {"name": "pooling"}, ValueError, "name must be not the name"),
    ],
)
def test_what_is_no_list_of_networks_is_refused(networks, options, error, message):
    with pytest.raises(error, match=message):
        Finite(networks, **options)


def test_names_of_a_list_are_specs_or_places():
    net = mobile(default())
    assert Finite([net, net]).names == ("0", "1")
    nets = spaces.Pooling().sample(3, generator=torch.Generator().manual_seed(0), distinct=True)
    assert Finite(nets).names == tuple(net.spec for net in nets)
    with pytest.raises(ValueError, match=r"the spec .* of networks\[1\] is repeated"):
        Finite([nets[0], nets[0]])
    with pytest.raises(ValueError, match=r"the spec '' of networks\[1\] is empty"):
        Finite([nets[0], net])


TWO = {name: mobile(default() | {"kernel0": kernel}) for name, kernel in (("a", 3), ("b", 5))}


@pytest.mark.parametrize(
    ("matrix", "error", "message"),
    [
        ([[1.0, 0.2], [0.2, 1.0]], ValueError, r"distance\[0, 0\] must be 0.*a similarity is none"),
        ([[0.0, 1.0], [2.0, 0.0]], ValueError, r"distance must be symmetric; distance\[0, 1\] = 1"),
        ([[0, 1j], [1j, 0]], TypeError, "distance must hold real numbers; got torch.complex"),
        ([[False, True], [True, False]], TypeError, "distance must hold real numbers"),
    ],
)
def test_what_is_no_matrix_of_distances_is_refused(matrix, error, message):
    with pytest.raises(error, match=message):
        Finite(TWO, matrix)


def test_a_matrix_may_be_symmetric_but_for_rounding():
    space = Finite(TWO, [[1e-8, 1.0], [1.0 + 1e-7, 0.0]])
    assert [net.spec for net in space.neighbors(space.from_string("a"))] == ["b"]


@pytest.mark.parametrize("name", ["a\nb", "\ud800", "a\0"])
def test_names_that_cannot_be_printed_are_refused(name):
    with pytest.raises(ValueError, match="names of networks must be printable"):
        Finite({name: TWO["a"]})
    with pytest.raises(ValueError, match="names of hyperparameters must be printable"):
        spaces.Joint(zoo(), {name: [1, 2]})
