import pickle

import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.distances import HOTNN, TreeWasserstein
from hotnas_torch.gp import CombinedGP, FeatureMean, NetworkFeatures
from hotnas_torch.search import (
    BayesianSearch,
    CombinedBO,
    CombinedSurrogate,
    HOTNNSurrogate,
    MutantPool,
    ScreenedPool,
)
from hotnas_torch.spaces.encodings import LayerCosts
from hotnas_torch.testing.strategy import StrategyContract

SPACE = spaces.NASBench201()


class TestCombinedBO(StrategyContract):
    least_rank_correlation = 0.5

    def make(self, space, generator):
        return CombinedBO(space, generator=generator, num_initial=6, pool_size=30)


class TestScreenedPool(StrategyContract):
    least_rank_correlation = 0.5

    def make(self, space, generator):
        pool = ScreenedPool(MutantPool(pool_size=40), num_kept=12)
        return BayesianSearch(
            space,
            generator=generator,
            surrogate=HOTNNSurrogate(model_options={"learn": []}),  # the cheap one: of the pool
            pool=pool,
            num_initial=6,
            name="screened",
        )


def generator():
    return torch.Generator().manual_seed(0)


def value(net):
    return 1.0 + sum(map(ord, net.spec)) % 17


def advanced(strategy):
    for num in (6, 2, 2):
        nets = strategy.ask(num)
        strategy.tell(nets, [value(net) for net in nets])
    return strategy


@pytest.mark.parametrize("name", ["nasbench101", "transnas_macro", "darts"])
def test_other_spaces_are_searched(name):
    strategy = advanced(
        CombinedBO(spaces.get(name), generator=generator(), num_initial=6, pool_size=15)
    )
    assert len(strategy.observations) == 10
    assert isinstance(strategy.model, CombinedGP)


def test_terms_choose_among_the_parts():
    strategy = advanced(
        CombinedBO(SPACE, generator=generator(), terms=["wl"], num_initial=6, pool_size=15)
    )
    assert list(strategy.model.kernel.kernels) == ["wl"]
    assert strategy.terms == ["wl"]


def test_parts_of_all_kinds_are_combined():
    parts = {
        "hotnn": HOTNN(space=SPACE),
        "tw": TreeWasserstein(SPACE),
        "costs": NetworkFeatures(SPACE, LayerCosts(SPACE)),
    }
    surrogate = CombinedSurrogate(terms=["hotnn*costs", "tw"], parts=parts)
    strategy = advanced(
        BayesianSearch(SPACE, generator=generator(), surrogate=surrogate, num_initial=6)
    )
    assert strategy.model.kernel.factors == (("hotnn", "costs"), ("tw",))
    described = strategy.settings()["surrogate"]
    assert described["terms"] == ["hotnn * costs", "tw"]
    assert described["parts"]["costs"] == "NetworkFeatures"
    assert described["parts"]["tw"]["name"] == "TreeWasserstein"


def test_distances_of_a_search_are_computed_once(monkeypatch):
    asked = []
    of_pairs = TreeWasserstein.part_distances

    def counted(self, nets_a, nets_b=None):
        rows = [SPACE.key(net) for net in nets_a]
        cols = rows if nets_b is None else [SPACE.key(net) for net in nets_b]
        asked.extend(frozenset((row, col)) for row in rows for col in cols if row < col)
        return of_pairs(self, nets_a, nets_b)

    monkeypatch.setattr(TreeWasserstein, "part_distances", counted)
    surrogate = CombinedSurrogate(parts={"tw": TreeWasserstein(SPACE)})
    strategy = BayesianSearch(
        SPACE,
        generator=generator(),
        surrogate=surrogate,
        pool=MutantPool(pool_size=20),
        num_initial=6,
    )
    advanced(strategy)
    assert len(asked) == len(set(asked))


def test_a_screen_keeps_what_its_model_finds_promising():
    class Counting(MutantPool):
        def __call__(self, choice, num, taken):
            drawn.extend(super().__call__(choice, num, taken))
            return list(drawn)

    drawn = []
    pool = ScreenedPool(Counting(pool_size=60), num_kept=10)
    strategy = CombinedBO(SPACE, generator=generator(), num_initial=6)
    nets = strategy.ask(6)
    strategy.tell(nets, [value(net) for net in nets])
    choice = strategy._choice()
    taken = set(strategy._taken())
    kept = pool(choice, 2, taken)
    assert len(drawn) == 60
    assert len(kept) == 10
    assert {SPACE.key(net) for net in kept} <= taken
    assert not {SPACE.key(net) for net in drawn if net not in kept} & taken
    fit = pool.surrogate.bind(SPACE, generator())
    function = choice.function(fit(choice.X, choice.Y, 6), pending=choice.pending, step=choice.step)
    with torch.no_grad():
        of_kept, of_all = (function(SPACE.encode(some)[:, None]) for some in (kept, drawn))
    assert float(of_kept.min()) >= float(of_all.sort(descending=True).values[9])


def test_settings_tell_the_screen():
    found = ScreenedPool(MutantPool(pool_size=40), num_kept=12).settings()
    assert found["pool_size"] == 40
    assert found["num_kept"] == 12
    assert found["screen"]["name"] == "WeisfeilerLehmanSurrogate"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: CombinedSurrogate(terms="hotnn"), TypeError, "terms must be a sequence of str"),
        (lambda: CombinedSurrogate(terms=["edits"]), ValueError, "must multiply 'hotnn', 'wl'"),
        (
            lambda: CombinedSurrogate(parts=3),
            TypeError,
            "parts must be a mapping from names to distances",
        ),
        (lambda: ScreenedPool(pool=3), TypeError, "pool must be a Pool"),
        (lambda: ScreenedPool(surrogate=3), TypeError, "surrogate must be a Surrogate"),
        (lambda: ScreenedPool(num_kept=0), ValueError, "num_kept must be at least 1"),
        (
            lambda: CombinedSurrogate(
                ["tw"], {"tw": TreeWasserstein(SPACE), "o": LayerCosts(SPACE)}
            ),
            ValueError,
            "terms must use all parts",
        ),
    ],
)
def test_settings_are_checked_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_model_is_fitted_again_when_observations_have_grown():
    surrogate = CombinedSurrogate(refit_growth=1.5)
    counts = [surrogate.num_learned(num, 10) for num in (2, 10, 14, 15, 22, 23, 40)]
    assert counts == [2, 10, 10, 15, 15, 23, 34]
    assert CombinedSurrogate().num_learned(40, 10) == 40
    assert surrogate.settings()["refit_growth"] == 1.5
    assert "refit_growth" not in CombinedSurrogate().settings()


@pytest.mark.parametrize("growth", [0.9, float("inf"), float("nan")])
def test_observations_do_not_shrink(growth):
    with pytest.raises(ValueError, match="refit_growth must be finite and at least 1"):
        CombinedSurrogate(refit_growth=growth)


def test_a_prior_mean_can_be_pickled():
    mean = FeatureMean(first_column, torch.tensor([[0.0], [1.0], [2.0]]))
    assert torch.equal(
        pickle.loads(pickle.dumps(mean))(torch.tensor([[5.0]])), mean(torch.tensor([[5.0]]))
    )


def first_column(rows):
    return rows[..., :1]
