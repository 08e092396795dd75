import math
import re

import numpy as np
import pytest
import torch

from hotnas_torch import nago, search, spaces
from hotnas_torch.nago.selection import HypervolumeImprovement, UncertainPareto
from hotnas_torch.nago.surrogates import BNNSurrogate
from hotnas_torch.search.bayesian.acquisition import UCB

SPACE = spaces.NASBench201()
BOX = nago.UnitBox(2)
BAYESIAN = (
    *("HOTNAS", "CombinedBO", "RandomPool", "BANANAS", "BOEdit", "BOTW", "NASBOWL", "EncodedBO"),
)
DIRECT = ("LocalSearch", "ANASODLocalSearch", "MutationSearch")


def make(name, **settings):
    generator = torch.Generator().manual_seed(0)
    if name in ("Hyperband", "BOHB"):
        settings = {"min_budget": 1, "max_budget": 9} | settings
    where = SPACE
    if name in ("Hyperband", "BOHB", "MOBO"):
        where = BOX
    elif name == "TreeSearch":
        where = spaces.Pooling()
    home = nago if where is BOX else search
    return getattr(home, name)(where, generator=generator, **settings)


NO_INTEGERS = (2.5, 3.0, "4", None, True, math.nan, np.array([2, 3]), [5])
NO_NUMBERS = ("0.5", None, True, [0.5], np.array([0.1, 0.2]), 1j)
INTEGERS = [
    *((name, "num_initial") for name in (*BAYESIAN, *DIRECT, "NASBOT", "ANASODBO", "TreeSearch")),
    *((name, setting) for name in BAYESIAN for setting in ("pool_size", "num_parents")),
    ("MutationSearch", "num_parents"),
    ("RegularizedEvolution", "population"),
    ("RegularizedEvolution", "tournament"),
    ("ANASODRandomSearch", "budget"),
    ("TreeSearch", "budget"),
    ("NASBOT", "pool_size"),
    ("NASBOT", "max_pool_size"),
    ("NASBOT", "refit_every"),
    ("BOEdit", "refit_every"),
    ("BOTW", "refit_every"),
    ("BOTW", "grams"),
    ("HOTNAS", "learn_from"),
    ("MOBO", "num_initial"),
    ("MOBO", "num_objectives"),
    ("BOHB", "num_samples"),
]
NUMBERS = [
    *((name, "random_fraction") for name in (*BAYESIAN, "BOHB") if name != "NASBOWL"),
    ("NASBOWL", "max_noise"),
    ("ANASODRandomSearch", "bias"),
    ("TreeSearch", "exploration"),
    ("TreeSearch", "beta"),
    ("TreeSearch", "regularization"),
    ("Hyperband", "min_budget"),
    ("Hyperband", "max_budget"),
    ("BOHB", "eta"),
    ("BOHB", "top_fraction"),
    ("BOHB", "bandwidth_factor"),
    ("BOHB", "min_bandwidth"),
]


@pytest.mark.parametrize(("name", "setting"), INTEGERS)
def test_a_count_that_is_none_is_refused_by_name(name, setting):
    for value in NO_INTEGERS:
        with pytest.raises(TypeError, match=f"^{setting} must be an integer.*; got "):
            make(name, **{setting: value})


@pytest.mark.parametrize(("name", "setting"), NUMBERS)
def test_a_number_that_is_none_is_refused_by_name(name, setting):
    optional = name in ("HOTNAS", "RandomPool") and setting == "random_fraction"
    for value in NO_NUMBERS:
        if optional and value is None:
            continue
        with pytest.raises(TypeError, match=f"^{setting} must be (a|one) number; got"):
            make(name, **{setting: value})
    for value in (math.nan, -math.inf):
        with pytest.raises(ValueError, match=setting.removeprefix("max_")):
            make(name, **{setting: value})


@pytest.mark.parametrize("name", ["LocalSearch", "ANASODLocalSearch", "Hyperband", "BOHB"])
def test_a_switch_that_is_none_is_refused_by_name(name):
    setting = "asynchronous" if name in ("Hyperband", "BOHB") else "full_neighborhood"
    for value in (1, "yes", None):
        with pytest.raises(TypeError, match=f"^{setting} must be True or False; got {value!r}"):
            make(name, **{setting: value})


def test_counts_of_numpy_and_torch_become_ints():
    strategy = make("HOTNAS", num_initial=np.int64(3), pool_size=torch.tensor(20))
    assert {type(strategy.settings()[name]) for name in ("num_initial", "pool_size")} == {int}
    assert make("HOTNAS", random_fraction=np.float32(0.5)).random_fraction == 0.5


@pytest.mark.parametrize(
    ("name", "argument", "options", "kind", "message"),
    [
        ("HOTNAS", "model_options", {"etta": 0.3}, TypeError, "'etta' (did you mean 'eta'?)"),
        ("HOTNAS", "model_options", {"num_stars": 3}, TypeError, "did you mean 'num_starts'?"),
        ("HOTNAS", "model_options", {"eta": 3.0}, ValueError, "{'eta': 3.0} cannot be used: eta"),
        ("HOTNAS", "model_options", {"eta": math.nan}, ValueError, "must hold finite numbers"),
        ("HOTNAS", "model_options", {"eta": "a"}, TypeError, "{'eta': 'a'} cannot be used"),
        ("HOTNAS", "model_options", {"learn": ["etta"]}, ValueError, "cannot be used: learn"),
        ("HOTNAS", "model_options", {"mass": "x"}, ValueError, "cannot be used: mass"),
        ("HOTNAS", "model_options", {"distribution": "x"}, ValueError, "cannot be used"),
        ("HOTNAS", "model_options", {"lam_prior": object()}, TypeError, "ready for json.dumps"),
        ("HOTNAS", "model_options", [("eta", 0.3)], TypeError, "must be a mapping"),
        ("BANANAS", "model_options", {"widht": 3}, TypeError, "did you mean 'width'?"),
        (
            "BANANAS",
            "model_options",
            {"width": 2.5},
            TypeError,
            "width must be an integer >= 1; got 2.5",
        ),
        (
            "BANANAS",
            "model_options",
            {"epochs": "9"},
            TypeError,
            "epochs must be an integer >= 0; got '9'",
        ),
        ("BANANAS", "model_options", {"learning_rate": -1.0}, ValueError, "learning_rate must be"),
        ("BOEdit", "distance_options", {"nod_cost": 1.0}, TypeError, "did you mean 'node_cost'?"),
        ("BOEdit", "distance_options", {"edge_cost": "a"}, TypeError, "{'edge_cost': 'a'} cannot"),
        ("BOTW", "distance_options", {"grams": 2}, TypeError, "'grams'"),
        ("BOTW", "distance_options", {"alhpa": 0.1}, TypeError, "did you mean 'alpha'?"),
        ("NASBOT", "distance_options", {"nu": ["a"]}, TypeError, "{'nu': ['a']} cannot be used"),
        (
            "NASBOT",
            "distance_options",
            3,
            TypeError,
            "must be a mapping of settings by name; got 3",
        ),
    ],
)
def test_settings_that_are_handed_on_are_checked_at_once(name, argument, options, kind, message):
    with pytest.raises(kind, match=f"^{argument}.*{re.escape(message)}"):
        make(name, **{argument: options})


@pytest.mark.parametrize(
    ("name", "settings", "kind", "message"),
    [
        ("HOTNAS", {"preset": ["paper"]}, ValueError, "preset must be one of"),
        ("HOTNAS", {"preset": None}, ValueError, "preset must be one of"),
        ("HOTNAS", {"model": 3}, TypeError, "model must be callable or None; got 3"),
        ("HOTNAS", {"transform": 0}, ValueError, "transform must be 'none' or 'log'; got 0"),
        ("HOTNAS", {"acquisition": ["ucb"]}, TypeError, "acquisition must be a str or a callable"),
        ("NASBOWL", {"levels": "12"}, TypeError, "levels must be a sequence of int"),
        ("NASBOWL", {"levels": [1, 0.5]}, TypeError, r"levels\[1\] must be an integer.*; got 0.5"),
        ("TreeSearch", {"temperature": 0.1}, TypeError, "temperature must be two numbers"),
        ("TreeSearch", {"temperature": ("a", 1)}, TypeError, r"temperature\[0\] must be a number"),
        ("TreeSearch", {"rewards": 3}, TypeError, "rewards must be callable[,;] got 3"),
        (
            "Hyperband",
            {"num_brackets": 1.5},
            TypeError,
            "num_brackets must be an integer.*; got 1.5",
        ),
        ("MOBO", {"selection": 3}, TypeError, "must be callable"),
    ],
)
def test_other_settings_are_checked(name, settings, kind, message):
    if name == "TreeSearch":
        settings = {"hierarchy": "layers"} | settings
    with pytest.raises(kind, match=message):
        make(name, **settings)


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: UCB("2"), TypeError, "beta must be a number; got '2'"),
        (lambda: UCB(math.nan), ValueError, "beta must be >= 0"),
        (lambda: search.DirichletTrustRegion(batch=1.5), TypeError, "batch must be an int"),
        (lambda: search.DirichletTrustRegion(start="1"), TypeError, "start must be a number"),
        (lambda: search.DirichletTrustRegion(start=math.nan), ValueError, "start must be"),
        (lambda: UncertainPareto(population=2.5), TypeError, "population must be an int"),
        (lambda: UncertainPareto(penalize="no"), TypeError, "penalize must be True or False"),
        (lambda: UncertainPareto(acquisition=3), TypeError, "acquisition must be callable"),
        (lambda: HypervolumeImprovement(raw_samples="9"), TypeError, "raw_samples must be an int"),
        (lambda: BNNSurrogate(noise="some"), ValueError, "noise must be 'heteroscedastic' or"),
        (lambda: BNNSurrogate(width=0.5), TypeError, "width must be an integer.*; got 0.5"),
        (lambda: nago.UnitBox(2.0), TypeError, "dim must be an integer.*; got 2.0"),
        (lambda: nago.UnitBox(1, levels=["a"]), TypeError, r"levels\[0\] must be an int"),
    ],
)
def test_settings_of_what_strategies_are_made_of_are_checked(build, kind, message):
    with pytest.raises(kind, match=message):
        build()


LACKING = {
    "RandomPool": ("acquisition", "transform", "pending", "learn_from", "model_options", "model"),
    "NASBOT": ("num_parents", "random_fraction", "batches", "levels"),
    "BOTW": ("max_pool_size", "learn_from", "model"),
    "BOEdit": ("batches", "max_pool_size", "encoding"),
    "NASBOWL": ("pending", "refit_every", "distance_options"),
    "BANANAS": ("pending", "refit_every", "preset"),
    "EncodedBO": ("pending", "model_options", "refit_every"),
    "ANASODBO": ("pool_size", "num_parents", "random_fraction", "pending", "encodings"),
    "HOTNAS": ("refit_every", "batches", "distance_options", "num_candidates"),
    "BayesianSearch": ("pool_size", "pending", "random_fraction"),
}


@pytest.mark.parametrize(
    ("name", "setting"), [(name, setting) for name, lacks in LACKING.items() for setting in lacks]
)
def test_a_setting_of_another_method_does_not_exist(name, setting):
    own = {"surrogate": search.HOTNNSurrogate()} if name == "BayesianSearch" else {}
    with pytest.raises(TypeError, match=f"{name} has no setting {setting!r}.*it knows"):
        make(name, **own, **{setting: 1})
    # Parts, the fitted model and pending networks are attributes of every search with a model.
    if setting not in ("acquisition", "transform", "model", "pending"):
        assert not hasattr(make(name, **own), setting)


@pytest.mark.parametrize("name", ["HOTNAS", "LocalSearch", "MOBO", "BOHB"])
def test_a_setting_that_does_not_exist_is_refused(name):
    with pytest.raises(TypeError, match="num_initail"):
        make(name, num_initail=3)


@pytest.mark.parametrize("name", ["RegularizedEvolution", *DIRECT, "TreeSearch"])
def test_a_setting_that_a_strategy_lacks_is_refused(name):
    with pytest.raises(TypeError, match=f"{name} has no setting 'poolsize'"):
        make(name, poolsize=3)
