import copy
import inspect
import json
import pickle

import pytest
import torch
from botorch.models import SingleTaskGP
from botorch.models.transforms import Normalize

from hotnas_torch import distances, nago, search, spaces
from hotnas_torch.search import (
    ANASODBO,
    BANANAS,
    BayesianSearch,
    Believer,
    BredPool,
    Determinantal,
    DistanceSurrogate,
    EncodingPool,
    FeatureSurrogate,
    HOTNNSurrogate,
    MutantPool,
    PendingAware,
    RandomChoice,
)
from hotnas_torch.search.bayesian.surrogates import EnsembleSurrogate, WeisfeilerLehmanSurrogate
from hotnas_torch.spaces.encodings import PathEncoding, encoding_of
from hotnas_torch.testing.strategy import StrategyContract, toy_value

SPACE = spaces.NASBenchMacro()
ENCODING = encoding_of(SPACE)
SURROGATES = {
    "HOTNN": HOTNNSurrogate(model_options={"learn": [], "num_starts": 1}),
    "distance": DistanceSurrogate(distances.TreeWasserstein(SPACE), refit_every=4),
    "Weisfeiler-Lehman": WeisfeilerLehmanSurrogate(levels=[1]),
    "features": FeatureSurrogate(ENCODING.of_rows, on_simplex=True),
    "ensemble": EnsembleSurrogate(PathEncoding(SPACE), {"epochs": 5, "num_layers": 2}),
    "function": lambda X, Y: SingleTaskGP(X, Y, input_transform=Normalize(X.shape[-1])).eval(),
}
POOLS = {
    "mutants": MutantPool(20),
    "bred": BredPool(20),
    "encodings": EncodingPool(30),
    "own": None,
}
BATCHES = (Believer(), PendingAware(), Determinantal(), RandomChoice())


class FewEdits(search.Pool):
    """A pool of one's own: the neighbours of the best network."""

    def __call__(self, choice, num, taken):
        del num
        space = choice.draws.space
        around = {space.key(net): net for net in space.neighbors(choice.best(1)[0])}
        new = [net for key, net in around.items() if key not in taken]
        taken.update(map(space.key, new))
        return new

    def settings(self):
        return {}


def composed(seed=0, **parts):
    return BayesianSearch(
        SPACE,
        generator=torch.Generator().manual_seed(seed),
        **({"surrogate": SURROGATES["distance"], "pool": MutantPool(20), "num_initial": 4} | parts),
    )


def advance(strategy, *sizes):
    for num in sizes:
        nets = strategy.ask(num)
        strategy.tell(nets, [1.0 + toy_value(net) for net in nets])
    return strategy


class TestComposed(StrategyContract):
    least_rank_correlation = 0.5

    def make(self, space, generator):
        return BayesianSearch(
            space,
            generator=generator,
            surrogate=DistanceSurrogate(distances.TreeWasserstein(space), refit_every=5),
            pool=BredPool(20),
            batch=Determinantal(),
            acquisition="ucb",
            num_initial=6,
            name="bred_trees",
        )


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_every_surrogate_goes_with_every_pool(surrogate, pool):
    batch = PendingAware() if surrogate == "ensemble" else Believer()
    strategy = composed(
        surrogate=SURROGATES[surrogate], pool=POOLS[pool] or FewEdits(), batch=batch
    )
    advance(strategy, 6, 2, 1)
    assert len({found.network.spec for found in strategy.observations}) == 9
    assert strategy.model is not None


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: type(batch).__name__)
def test_every_batch_rule_goes_on_from_its_state(batch):
    whole = advance(composed(batch=batch, name="mine"), 5, 3)
    state = json.loads(json.dumps(whole.state_dict(), allow_nan=False))
    assert state["config"]["strategy"] == "mine"
    assert state["config"]["batch"]["name"] == type(batch).__name__
    resumed = composed(9, batch=batch, name="mine")
    resumed.load_state_dict(state)
    assert whole.ask(3) == resumed.ask(3)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize("surrogate", [name for name in SURROGATES if name != "function"])
def test_a_copy_goes_on_as_the_original_and_leaves_it_alone(surrogate, copied):
    def ask():
        twin = advance(copied(strategy), 2, 1)
        return [found.network for found in twin.observations]

    strategy = composed(surrogate=SURROGATES[surrogate], batch=PendingAware())
    advance(strategy, 5)
    assert ask() == ask()
    assert ask() == [found.network for found in advance(strategy, 2, 1).observations]


def test_parts_are_told_apart_in_records():
    state = advance(composed(name="mine"), 4).state_dict()
    for other, message in (
        ({"name": "yours"}, "its 'strategy' is 'mine'"),
        ({"name": "mine", "pool": BredPool(20)}, "its 'pool'"),
        ({"name": "mine", "surrogate": HOTNNSurrogate()}, "its 'surrogate'"),
        ({"name": "mine", "batch": PendingAware()}, "its 'batch'"),
        ({"name": "mine", "acquisition": "its"}, "its 'acquisition'"),
    ):
        with pytest.raises(ValueError, match=message):
            composed(**other).load_state_dict(state)


def test_a_recipe_is_the_class_with_its_parts():
    options = {"learn": []}
    named = search.HOTNAS(
        SPACE,
        generator=torch.Generator().manual_seed(0),
        num_initial=4,
        pool_size=20,
        model_options=options,
    )
    own = composed(surrogate=HOTNNSurrogate(model_options=options))
    assert isinstance(named, BayesianSearch)
    assert [found.network for found in advance(named, 4, 3, 1).observations] == [
        found.network for found in advance(own, 4, 3, 1).observations
    ]


@pytest.mark.parametrize(
    ("parts", "kind", "message"),
    [
        ({"surrogate": 3}, TypeError, "surrogate must be a Surrogate or a callable; got 3"),
        ({"surrogate": None}, ValueError, "surrogate must be given: Believer"),
        ({"pool": 3}, TypeError, "pool must be a Pool such as MutantPool"),
        ({"batch": "kdpp"}, TypeError, "batch must be a Batch such as Believer"),
        ({"name": 3}, TypeError, "name must be a str or None; got 3"),
        ({"num_initial": 1}, ValueError, "num_initial must be at least 2"),
        ({"transform": "rank"}, ValueError, "transform must be 'none' or 'log'"),
        ({"pol": MutantPool()}, TypeError, r"has no setting 'pol' \(did you mean 'pool'\?\)"),
    ],
)
def test_what_is_no_part_is_refused(parts, kind, message):
    with pytest.raises(kind, match=message):
        composed(**parts)


def test_a_pool_that_ascends_asks_for_a_model_on_encodings():
    strategy = advance(composed(pool=EncodingPool(20, "gradient")), 5)
    with pytest.raises(TypeError, match="optimizer must be 'sample' unless"):
        strategy.ask(1)


def test_no_constructor_has_more_than_ten_parameters():
    for home in (search, nago):
        for name in home.__all__:
            kind = getattr(home, name)
            if inspect.isclass(kind) and kind.__init__ is not object.__init__:
                named = inspect.signature(kind).parameters.values()
                assert sum(found.kind is not found.VAR_KEYWORD for found in named) <= 10, name


@pytest.mark.parametrize(
    ("part", "settings", "kind", "message"),
    [
        (
            Determinantal,
            {"single": "believer"},
            TypeError,
            "single must be a Batch; got 'believer'",
        ),
        (
            EncodingPool,
            {"encoding": "path"},
            TypeError,
            "encoding must be a SlotEncoding, a Member",
        ),
        (WeisfeilerLehmanSurrogate, {"aggregation": "sum"}, ValueError, "aggregation must be one"),
        (WeisfeilerLehmanSurrogate, {"levels": []}, ValueError, "levels must hold at least one"),
        (
            WeisfeilerLehmanSurrogate,
            {"levels": [-1]},
            ValueError,
            r"levels\[0\] must be at least 0",
        ),
    ],
)
def test_a_part_refuses_settings_when_it_is_made(part, settings, kind, message):
    with pytest.raises(kind, match=message):
        part(**settings)


@pytest.mark.parametrize("length", [0, -1, 65, 2**70, 40])
def test_lengths_of_paths_have_bounds(length):
    with pytest.raises(ValueError, match="max_length must be"):
        BANANAS(SPACE, generator=torch.Generator().manual_seed(0), max_length=length)


def test_operation_distributions_need_a_space():
    with pytest.raises(TypeError, match="space must be a SearchSpace; got 'darts'"):
        ANASODBO("darts", generator=torch.Generator().manual_seed(0))
