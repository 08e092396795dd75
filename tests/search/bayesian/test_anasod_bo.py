import pytest
import torch
from botorch.acquisition.analytic import LogExpectedImprovement

from hotnas_torch import spaces
from hotnas_torch.search import ANASODBO, ANASODRandomSearch, DirichletTrustRegion
from hotnas_torch.spaces.encodings import MemberEncoding
from hotnas_torch.testing.strategy import StrategyContract


class TestANASODBO(StrategyContract):
    least_rank_correlation = 0.5

    def make(self, space, generator):
        return ANASODBO(space, generator=generator, num_initial=6, num_candidates=40)


class TestEnsemble(StrategyContract):
    least_rank_correlation = 0.5

    def make(self, space, generator):
        return ANASODBO(
            space, generator=generator, num_initial=6, num_candidates=40, surrogate="ensemble"
        )


def searching(space=None, seed=0, **settings):
    return ANASODBO(
        space or spaces.NASBench201(),
        generator=torch.Generator().manual_seed(seed),
        **{"num_initial": 4, **settings},
    )


def value(net):
    """Smallest for four 3x3 convolutions and two skips, whatever their places."""
    return 0.5 + abs(net.spec.count("nor_conv_3x3") - 4) + abs(net.spec.count("skip") - 2)


def advance(strategy, *sizes, value=value):
    for num in sizes:
        nets = strategy.ask(num)
        strategy.tell(nets, [value(net) for net in nets])
    return strategy


@pytest.mark.parametrize("optimizer", ["sample", "gradient"])
def test_the_best_encoding_is_found_among_210(optimizer):
    strategy = advance(searching(optimizer=optimizer), 4, *[4] * 8)
    assert strategy.best.value == 0.5
    random = ANASODRandomSearch(strategy.space, generator=torch.Generator().manual_seed(0))
    assert advance(random, 4, *[4] * 8).best.value > 0.5


def test_the_first_networks_are_of_random_encodings():
    strategy = searching(num_initial=8)
    random = ANASODRandomSearch(strategy.space, generator=torch.Generator().manual_seed(0))
    assert strategy.ask(8) == random.ask(8)


def test_the_model_sees_encodings_alone():
    strategy = advance(searching(), 6)
    strategy.ask(1)
    found = strategy.encoding.decode(
        torch.tensor([[0, 0, 3, 3, 0]]).double().expand(5, -1) / 6,
        generator=torch.Generator().manual_seed(1),
    )
    rows = strategy.space.encode(found)
    assert len(rows.unique(dim=0)) > 1
    mean = strategy.model.posterior(rows).mean
    assert torch.allclose(mean, mean[:1].expand_as(mean))


def test_one_network_of_each_candidate_encoding_is_in_the_pool():
    strategy = advance(searching(), 6)
    pool = strategy.pool(strategy._choice(), 60, strategy._taken())
    keys = [strategy.encoding.key(point) for point in strategy.encoding.encode(pool)]
    assert 10 < len(set(keys)) == len(keys)
    assert not {strategy.space.key(net) for net in pool} & strategy._taken()


@pytest.mark.parametrize(("beta", "near"), [(0.0, False), (16.0, True)])
def test_the_trust_region_keeps_candidates_near_the_best(beta, near):
    strategy = searching(trust_region=DirichletTrustRegion(start=beta, largest=16.0))
    best = strategy.space.from_string(
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
    )
    worse = strategy.space.sample(3, generator=torch.Generator().manual_seed(0))
    strategy.tell([best, *worse], [1.0, 2.0, 3.0, 4.0])
    assert strategy.beta == beta
    pool = strategy.pool(strategy._choice(), 100, strategy._taken())
    points = strategy.encoding.encode(pool)
    distance = (points - strategy.best_encoding).abs().sum(dim=1).mean()
    assert (float(distance) < 0.7) == near


def test_a_gradient_step_does_not_lose_against_the_candidates():
    strategy = advance(searching(optimizer="gradient"), 12)
    choice = strategy._choice()
    points = strategy.encoding.draw(50, generator=torch.Generator().manual_seed(5))
    moved = strategy.pool.ascend(choice, points)
    with torch.no_grad():
        model = strategy.model.on_features()
        best = model.posterior(strategy.encoding.of_rows(choice.X)).mean.max()
        acquisition = LogExpectedImprovement(model, best_f=best)
        assert acquisition(moved[:, None]).max() >= acquisition(points[:, None]).max()
    assert torch.allclose(moved.sum(dim=1), torch.ones(len(moved), dtype=torch.float64))


def test_an_ensemble_sees_encodings_alone():
    strategy = advance(searching(surrogate="ensemble"), 12, 4)
    strategy.ask(1)
    X = strategy.space.encode([found.network for found in strategy.observations])
    (same,) = strategy.encoding.encode([strategy.best.network])
    others = strategy.encoding.decode(
        same.expand(4, -1), generator=torch.Generator().manual_seed(0)
    )
    mean = strategy.model.posterior(strategy.space.encode(others)).mean
    assert torch.allclose(mean, mean[:1].expand_as(mean))
    spread = strategy.model.posterior(X).mean
    assert float(spread.max() - spread.min()) > 0.1
    with pytest.raises(ValueError, match="'sample' with an ensemble"):
        searching(surrogate="ensemble", optimizer="gradient")


def test_a_table_is_searched_through_its_members():
    space = spaces.DARTS(min_depth=20)
    members = space.sample(60, generator=torch.Generator().manual_seed(0))
    strategy = searching(spaces.Subset(space, members))
    assert isinstance(strategy.encoding, MemberEncoding)
    advance(strategy, 4, 4, 4, value=lambda net: 1.0 + net.spec.count("pool"))
    assert len(strategy.observations) == 12


def test_more_is_asked_than_candidates_have_networks():
    strategy = advance(searching(num_candidates=2), 4)
    assert len(strategy.ask(12)) == 12


def test_settings_are_checked():
    for settings, message in (
        ({"optimizer": "adam"}, "optimizer must be 'sample' or 'gradient'"),
        ({"surrogate": "forest"}, "surrogate must be 'gp' or 'ensemble'"),
        ({"num_candidates": 0}, "num_candidates must be at least 1"),
        ({"num_initial": 1}, "num_initial must be at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            searching(**settings)
    with pytest.raises(TypeError, match="trust_region must be a DirichletTrustRegion"):
        searching(trust_region=1.0)


def test_without_a_trust_region_candidates_are_uniform_on_the_simplex():
    strategy = advance(searching(num_candidates=4000, trust_region=None), 6)
    drawn = []
    draw = type(strategy.encoding).draw

    def noted(*arguments, **options):
        drawn.append(draw(*arguments, **options))
        return drawn[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(strategy.encoding), "draw", noted)
        strategy.ask(1)
    points = max(drawn, key=len)
    k = points.shape[1]
    # second moments of Dirichlet(1, ..., 1)
    assert points.square().mean().item() == pytest.approx(2 / (k * (k + 1)), rel=0.05)
