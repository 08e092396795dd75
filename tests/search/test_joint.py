"""Searches over networks and their hyperparameters together."""

import math

import pytest
import torch

from hotnas_torch import search, spaces
from hotnas_torch.errors import StorageError
from hotnas_torch.plot.report import write_report
from hotnas_torch.search import HOTNAS, RandomSearch, run
from hotnas_torch.spaces import Integer, Joint, Log

SPACE = Joint(
    spaces.NASBenchMacro(),
    {"lr": Log(1e-4, 1.0), "batch": [32, 64, 128], "optimizer": ["sgd", "adam"]},
)
SETTINGS = {
    "HOTNAS": {"num_initial": 5, "pool_size": 40},
    "CombinedBO": {"num_initial": 5, "pool_size": 40},
    "NASBOWL": {"num_initial": 5, "pool_size": 40},
    "NASBOT": {"num_initial": 5, "pool_size": 20},
    "BOTW": {"num_initial": 5, "pool_size": 40},
    "BOEdit": {"num_initial": 5, "pool_size": 40},
    "RandomPool": {"num_initial": 5, "pool_size": 40},
    "RandomSearch": {},
    "RegularizedEvolution": {"population": 5},
    "MutationSearch": {},
    "LocalSearch": {"num_initial": 3},
}


def value(point):
    """The best learning rate depends on the network."""
    best = -3.0 + 0.25 * point.network_spec.count("2")
    return (
        1.0
        + (math.log10(point.values["lr"]) - best) ** 2
        + point.network_spec.count("0")
        + (point.values["optimizer"] == "sgd")
    )


def strategy(name, seed=0, space=SPACE):
    kind = getattr(search, name)
    return kind(space, generator=torch.Generator().manual_seed(seed), **SETTINGS.get(name, {}))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ("CombinedBO", "BOTW") else name
        for name in SETTINGS
    ],
)
def test_a_search_that_is_interrupted_ends_as_it_would_have(name, tmp_path):
    whole = run(strategy(name), value, budget=10, batch_size=2, progress=False)
    first = run(
        strategy(name), value, budget=8, batch_size=2, storage=tmp_path / "s.sqlite", progress=False
    )
    rest = run(strategy(name), value, budget=10, storage=tmp_path / "s.sqlite", progress=False)
    asked = [trial.network for trial in rest.trials]
    assert asked[:8] == [trial.network for trial in first.trials]
    assert asked == [trial.network for trial in whole.trials]
    assert all(net in SPACE for net in asked)
    assert len({SPACE.key(net) for net in asked}) == 10


def test_workers_get_the_values(tmp_path):
    found = run(strategy("RandomSearch"), value, budget=4, workers=2, progress=False)
    assert [trial.value for trial in found.trials] == [value(t.network) for t in found.trials]


def test_other_ranges_are_another_search(tmp_path):
    path = tmp_path / "s.sqlite"
    run(strategy("RandomSearch"), value, budget=2, storage=path, progress=False)
    for other in (
        Joint(SPACE.space, dict(SPACE.hyperparameters) | {"lr": Log(1e-3, 1.0)}),
        Joint(
            spaces.Subset(SPACE.space, [SPACE.space.from_string("0" * 8)]), SPACE.hyperparameters
        ),
        SPACE.space,
    ):
        with pytest.raises(StorageError):
            run(
                strategy("RandomSearch", space=other), value, budget=3, storage=path, progress=False
            )
    members = [spaces.Subset(SPACE.space, [SPACE.space.from_string(n * 8)]) for n in "01"]
    described = [Joint(one, SPACE.hyperparameters).description() for one in members]
    assert described[0] != described[1]


@pytest.mark.parametrize(
    "name",
    [
        *("BANANAS", "EncodedBO", "ANASODBO", "ANASODLocalSearch", "ANASODRandomSearch"),
        "TreeSearch",
    ],
)
def test_methods_that_would_ignore_hyperparameters_refuse(name):
    small = Joint(spaces.Pooling(), {"layers": Integer(1, 3)})
    for space in (SPACE, small):
        with pytest.raises(
            ValueError, match="networks alone, and would ignore the hyperparameters"
        ):
            strategy(name, space=space)


def test_the_small_space_is_searched_to_its_end():
    space = Joint(spaces.Pooling(), {"layers": Integer(1, 3)})
    for name in ("RandomSearch", "RegularizedEvolution", "LocalSearch"):
        found = run(
            strategy(name, space=space),
            lambda net: net.values["layers"] + net.num_cells,
            budget=200,
            batch_size=20,
            progress=False,
        )
        assert found.reason == "exhausted"
        assert len(found.trials) == 108


@pytest.mark.slow
def test_a_model_finds_what_depends_on_both_sooner_than_chance():
    ahead = 0
    for seed in range(3):
        results = [
            run(
                kind(SPACE, generator=torch.Generator().manual_seed(seed)),
                value,
                budget=40,
                batch_size=5,
                progress=False,
            ).best.value
            for kind in (HOTNAS, RandomSearch)
        ]
        ahead += results[0] < results[1]
    assert ahead == 3


def test_a_report_shows_the_values(tmp_path):
    path = tmp_path / "s.sqlite"
    result = run(strategy("RandomSearch"), value, budget=6, storage=path, progress=False)
    write_report(path, tmp_path / "s.html", space=SPACE)
    text = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert f"&#34;lr&#34;: {result.best.network.values['lr']}" in text
