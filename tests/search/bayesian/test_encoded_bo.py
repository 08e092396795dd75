import pytest
import torch

from hotnas_torch import spaces
from hotnas_torch.search import EncodedBO, RandomSearch
from hotnas_torch.spaces.encodings import AdjacencyEncoding, PathEncoding
from hotnas_torch.testing.strategy import StrategyContract


class TestEncodedBO(StrategyContract):
    least_rank_correlation = 0.5

    def make(self, space, generator):
        return EncodedBO(
            space, generator=generator, num_initial=6, pool_size=40, random_fraction=0.3
        )


def searching(**settings):
    return EncodedBO(
        spaces.NASBench201(),
        generator=torch.Generator().manual_seed(0),
        **{"num_initial": 4, "pool_size": 30, **settings},
    )


@pytest.mark.parametrize(
    ("encoding", "reference"), [("adjacency", AdjacencyEncoding), ("path", PathEncoding)]
)
def test_the_model_sees_the_encoding(encoding, reference):
    strategy = searching(encoding=encoding)
    nets = strategy.ask(4)
    strategy.tell(nets, [1.0, 2.0, 3.0, 4.0])
    (asked,) = strategy.ask(1)
    rows = strategy.space.encode([*nets, asked])
    expected = reference(strategy.space)([*nets, asked])
    assert torch.equal(strategy.model.features(rows), expected)
    # Again, in another order and shape: from memory.
    assert torch.equal(strategy.model.features(rows.flip(0)[:, None]), expected.flip(0)[:, None])


def test_lengthscales_fit_the_spread_of_the_encodings():
    strategy = searching(encoding="adjacency")
    nets = [
        strategy.space.from_string(f"|{a}~0|+|{a}~0|{a}~1|+|{b}~0|{b}~1|{b}~2|")
        for a, b in (("none", "none"), ("none", "skip_connect"), ("avg_pool_3x3", "avg_pool_3x3"))
    ]
    strategy.tell(nets, [1.0, 2.0, 3.0])
    strategy.ask(2)
    constraint = strategy.model.covar_module.base_kernel.raw_lengthscale_constraint
    # Six other operations are sqrt(12) apart, sqrt(6) times as far as corners of the simplex.
    assert float(constraint.upper_bound) == pytest.approx(0.5 * 6**0.5)
    assert float(constraint.lower_bound) == pytest.approx(0.01 * 6**0.5)


def test_the_pool_is_random_by_default():
    strategy = searching(num_initial=2)
    random = RandomSearch(strategy.space, generator=torch.Generator().manual_seed(0))
    nets = strategy.ask(2)
    assert nets == random.ask(2)
    strategy.tell(nets, [1.0, 2.0])
    pool = strategy.pool(strategy._choice(), 300, strategy._taken())
    best = strategy.space.encode(nets[:1])
    changed = (strategy.space.encode(pool) != best).sum(dim=1).double().mean()
    assert float(changed) > 4.5


def test_settings_are_checked():
    with pytest.raises(ValueError, match="encoding must be 'path' or 'adjacency'"):
        searching(encoding="graph")
    with pytest.raises(ValueError, match="max_length is a setting of"):
        searching(max_length=2)
    assert searching(encoding="path", max_length=3).settings()["max_length"] == 3
