import json
import math

import pytest
import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.monte_carlo import qUpperConfidenceBound
from botorch.models import SingleTaskGP
from botorch.models.transforms import Normalize
from botorch.sampling.normal import SobolQMCNormalSampler

from hotnas_torch import spaces
from hotnas_torch.gp import HOTNNGP, AveragedGP, CombinedGP
from hotnas_torch.objectives import NASBenchMacroTable
from hotnas_torch.search import HOTNAS, UCB, AcquisitionInputs, LogEI, RandomSearch, run
from hotnas_torch.search.bayesian.acquisition import name_of
from hotnas_torch.testing.strategy import StrategyContract, toy_value

FIXED = {"learn": []}


def hotnas(space=None, seed=0, **settings):
    settings = {"num_initial": 4, "pool_size": 20, "model_options": FIXED, **settings}
    return HOTNAS(
        space or spaces.NASBenchMacro(), generator=torch.Generator().manual_seed(seed), **settings
    )


def advance(strategy, *sizes):
    for num in sizes:
        nets = strategy.ask(num)
        strategy.tell(nets, [1.0 + toy_value(net) for net in nets])
    return strategy


class TestHOTNAS(StrategyContract):
    least_rank_correlation = 0.5

    def make(self, space, generator):
        return HOTNAS(space, generator=generator, num_initial=6, pool_size=30)


class TestHOTNNAlone(StrategyContract):
    least_rank_correlation = 0.5

    def make(self, space, generator):
        return HOTNAS(
            space,
            generator=generator,
            num_initial=6,
            pool_size=30,
            model_options={"learn": [], "num_starts": 1},
        )


# --- the parts of a choice ------------------------------------------------------------------------


def test_the_first_networks_are_random_search():
    strategy = hotnas(num_initial=10)
    random = RandomSearch(strategy.space, generator=torch.Generator().manual_seed(0))
    assert advance(strategy, 6).ask(4) == random.ask(10)[6:]


def recording(seen, acquisition):
    def build(model, inputs):
        function = acquisition(model, inputs)

        def evaluate(rows):
            values = function(rows)
            seen.append((model, inputs, rows, values))
            return values

        return evaluate

    return build


def test_the_candidate_with_the_largest_acquisition_value_is_taken():
    seen = []
    strategy = advance(hotnas(acquisition=recording(seen, LogEI())), 4, 1)
    _, inputs, rows, values = seen[0]
    assert rows.shape == (20, 1, strategy.space.dim)
    (best,) = strategy.space.decode(rows[values.argmax()])
    assert strategy.observations[4].network == best
    assert inputs.X.shape == (4, strategy.space.dim)
    assert inputs.pending.shape == (0, strategy.space.dim)


def test_the_distance_is_learned_once_there_are_enough_observations():
    strategy = advance(hotnas(learn_from=6, model_options={}), 4, 1)
    assert strategy.model.architecture_kernels[0].learned == frozenset()
    advance(strategy, 1, 1)
    assert "eps" in strategy.model.architecture_kernels[0].learned
    assert strategy.settings()["learn_from"] == 6


def test_the_pool_holds_mutants_of_the_best_and_random_networks():
    seen = []
    settings = {"pool_size": 40, "num_parents": 2, "acquisition": recording(seen, LogEI())}
    strategy = hotnas(**settings, random_fraction=0.25)
    space = strategy.space
    good = [space.from_string(text) for text in ("22222222", "22222221")]
    bad = [space.from_string(text) for text in ("00000000", "00000001", "10000000")]
    strategy.tell(good + bad, [1.0, 2.0, 8.0, 8.5, 9.0])
    strategy.ask(1)
    pool = space.decode(seen[0][2][:, 0])
    assert len({net.spec for net in pool}) == 40
    assert not {net.spec for net in pool} & {net.spec for net in good + bad}
    # A mutant draws each of the 8 layers anew with a small probability.
    twos = torch.tensor([float(net.spec.count("2")) for net in pool])
    assert twos[:30].mean() > 6.0
    assert twos[30:].mean() < 4.0


def test_a_pool_may_be_all_mutants():
    seen = []
    strategy = hotnas(num_parents=2, random_fraction=0.0, acquisition=recording(seen, LogEI()))
    space = strategy.space
    strategy.tell([space.from_string(text) for text in ("22222222", "22222221")], [1.0, 2.0])
    strategy.tell([space.from_string(text) for text in ("00000000", "11111111")], [3.0, 4.0])
    strategy.ask(1)
    pool = space.decode(seen[0][2][:, 0])
    assert min(net.spec.count("2") for net in pool) >= 3


def test_the_model_sees_logarithms_of_positive_values_only():
    def targets(values, **settings):
        strategy = hotnas(num_initial=2, **settings)
        nets = strategy.space.sample(
            len(values), generator=torch.Generator().manual_seed(1), distinct=True
        )
        strategy.tell(nets, values)
        strategy.ask(1)
        model = strategy.model
        with torch.no_grad():
            return model.outcome_transform.untransform(model.train_targets[:, None])[0][:, 0]

    values = torch.tensor([1.0, 4.0, 2.0, 9.0], dtype=torch.float64)
    assert torch.allclose(targets(values.tolist()), -values.log())
    assert torch.allclose(targets(values.tolist(), transform="none"), -values)
    assert torch.allclose(targets((values - 1.0).tolist()), 1.0 - values)


def test_failures_are_no_data_for_the_model():
    strategy = hotnas()
    nets = strategy.ask(4) + strategy.ask(2)
    strategy.tell(nets, [1.0, math.nan, 2.0, 3.0, math.nan, 4.0])
    strategy.ask(1)
    assert len(strategy.model.train_targets) == 4


# --- batches --------------------------------------------------------------------------------------


def test_a_batch_equals_single_choices_told_the_mean_of_the_model():
    """Kriging believer, one pool: the second choice is the first with the mean as a value."""
    seen = []
    strategy = hotnas(acquisition=recording(seen, UCB(4.0)))
    advance(strategy, 4)
    first, second = strategy.ask(2)
    (model, _, rows, values), (believer, inputs, left, others) = seen
    space = strategy.space
    assert space.encode([first]).equal(rows[values.argmax()])
    assert space.encode([second]).equal(left[others.argmax()])
    assert len(left) == len(rows) - 1
    assert inputs.pending.equal(space.encode([first]))
    with torch.no_grad():
        before, after = (m.posterior(space.encode([first])) for m in (model, believer))
    assert torch.allclose(before.mean, after.mean, atol=1e-6)
    assert after.variance < 0.5 * before.variance
    assert believer.train_inputs[0].shape[-2] == 5


def test_pending_networks_count_as_believed():
    seen = []
    strategy = advance(hotnas(acquisition=recording(seen, UCB(4.0))), 4)
    (pending,) = strategy.ask(1)
    seen.clear()
    strategy.ask(1)
    model, inputs, _, _ = seen[0]
    assert inputs.pending.equal(strategy.space.encode([pending]))
    assert model.train_inputs[0].shape[-2] == 5
    assert inputs.X.shape[-2] == 4


def test_acquisition_functions_may_take_the_pending_points_themselves():
    shapes = []

    def noisy(model, inputs):
        shapes.append((model.train_inputs[0].shape[-2], len(inputs.pending)))
        return qLogNoisyExpectedImprovement(
            model,
            X_baseline=inputs.X,
            X_pending=inputs.pending if len(inputs.pending) else None,
            sampler=SobolQMCNormalSampler(torch.Size([16])),
        )

    strategies = [advance(hotnas(acquisition=noisy, pending="acquisition"), 4) for _ in range(2)]
    asked = [strategy.ask(3) for strategy in strategies]
    assert asked[0] == asked[1]  # the samplers' seeds come from the strategy's generator
    assert shapes == [(4, 0), (4, 1), (4, 2)] * 2


def test_monte_carlo_acquisition_and_another_model():
    def matern(X, Y):
        return SingleTaskGP(X, Y, input_transform=Normalize(X.shape[-1])).eval()

    strategy = hotnas(
        acquisition=lambda model, _: qUpperConfidenceBound(
            model, beta=4.0, sampler=SobolQMCNormalSampler(torch.Size([16]))
        ),
        model=matern,
        model_options=None,
    )
    advance(strategy, 4, 2)
    assert isinstance(strategy.model, SingleTaskGP)
    assert strategy.settings()["model"].endswith("matern")


# --- acquisition ----------------------------------------------------------------------------------


def test_the_schedule_of_ucb():
    # sqrt(beta) = 3 sqrt(ln(2 t + 1) / 2)
    for step in (1, 7, 80):
        expected = 3.0 * math.sqrt(0.5 * math.log(2 * step + 1))
        assert math.sqrt(UCB().weight(step)) == pytest.approx(expected)
    assert UCB(2.5).weight(9) == 2.5
    with pytest.raises(ValueError, match="beta must be >= 0"):
        UCB(-1.0)


def test_ucb_and_ei_are_their_formulas():
    space = spaces.NASBenchMacro()
    nets = space.sample(6, generator=torch.Generator().manual_seed(0), distinct=True)
    X = space.encode(nets) / 2.0
    model = SingleTaskGP(X, X.sum(dim=1, keepdim=True)).eval()
    inputs = AcquisitionInputs(X=X, best=3.0, pending=X[:0], step=2)
    rows = X[:, None] + 0.1
    with torch.no_grad():
        posterior = model.posterior(rows)
        mean, deviation = posterior.mean.flatten(), posterior.variance.sqrt().flatten()
        ucb = UCB()(model, inputs)(rows)
        ei = LogEI()(model, inputs)(rows).exp()
    assert torch.allclose(ucb, mean + 3.0 * math.sqrt(0.5 * math.log(5)) * deviation)
    normal = torch.distributions.Normal(0.0, 1.0)
    z = (mean - 3.0) / deviation
    assert torch.allclose(ei, deviation * (z * normal.cdf(z) + normal.log_prob(z).exp()))


def test_the_step_counts_choices_after_the_initial_networks():
    steps = []

    def build(model, inputs):
        steps.append(inputs.step)
        return UCB()(model, inputs)

    strategy = advance(hotnas(acquisition=build), 4, 1, 1)
    strategy.ask(1)
    strategy.ask(2)  # while one is pending
    assert steps == [1, 2, 3, 4, 5]


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kind", "alone"),
    [
        ({}, AveragedGP, False),
        ({"acquisition": "ucb"}, AveragedGP, False),
        ({"preset": "hotnn"}, HOTNNGP, True),
        ({"preset": "distribution"}, HOTNNGP, True),
        ({"learn_from": 50}, HOTNNGP, True),
        ({"model_options": {}}, HOTNNGP, True),
    ],
)
def test_settings_of_the_model_of_hotnn_alone_choose_it(settings, kind, alone):
    strategy = advance(hotnas(**{"model_options": None, **settings}), 4, 1)
    assert isinstance(strategy.model, kind)
    assert strategy.settings()["model"] == (None if alone else "averaged")
    assert ("learn_from" in strategy.settings()) is alone


def test_known_noise_and_hyperparameters_take_the_most_likely_kernel():
    strategy = hotnas(model_options=None)
    nets = strategy.ask(4)
    strategy.tell(nets, [toy_value(net) for net in nets], [0.1] * 4)
    strategy.ask(1)
    assert isinstance(strategy.model, CombinedGP)
    joint = spaces.Joint(spaces.NASBenchMacro(), {"lr": [0.1, 0.2]})
    strategy = HOTNAS(joint, generator=torch.Generator().manual_seed(0), num_initial=4, pool_size=9)
    nets = strategy.ask(4)
    strategy.tell(nets, [toy_value(network) + values["lr"] for network, values in nets])
    strategy.ask(1)
    assert isinstance(strategy.model, CombinedGP)


def test_the_paper_preset():
    strategy = hotnas(preset="paper", model_options=None)
    settings = strategy.settings()
    assert (settings["random_fraction"], settings["transform"]) == (0.0, "none")
    assert settings["acquisition"] == name_of(UCB())
    advance(strategy, 4, 1)
    metric = strategy.model.metric.config()
    assert (metric["pairs"], metric["linear_term"], metric["zeta"]) == ("ordered", "literal", 0.0)
    assert (metric["normalize"], metric["mass"], metric["eta"]) == (False, "channels", 0.5)
    assert settings["model_options"] == {"preset": "paper", "learn": []}
    assert hotnas(preset="paper", random_fraction=0.5).random_fraction == 0.5


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"num_initial": 1}, ValueError, "num_initial must be at least 2"),
        ({"pool_size": 0}, ValueError, "pool_size must be at least 1"),
        ({"random_fraction": 1.5}, ValueError, "random_fraction must lie in"),
        ({"transform": "rank"}, ValueError, "transform must be"),
        ({"acquisition": "pi"}, ValueError, "acquisition must be one of 'ucb', 'log_ei'"),
        ({"acquisition": 3}, TypeError, "acquisition must be a str or a callable"),
        ({"preset": "best"}, ValueError, "preset must be one of default"),
        ({"pending": "ignore"}, ValueError, "pending must be"),
        ({"model": SingleTaskGP}, ValueError, "model_options are settings of HOTNNGP"),
        ({"learn_from": -1}, ValueError, "learn_from must be at least 0; got -1"),
        ({"model_options": {"learn": {1}}}, TypeError, "ready for json"),
    ],
)
def test_settings_are_checked(settings, kind, message):
    with pytest.raises(kind, match=message):
        hotnas(**settings)


def test_settings_are_part_of_the_state():
    state = advance(hotnas(), 4, 1).state_dict()
    with pytest.raises(ValueError, match="'pool_size' is 20, here it is 30"):
        hotnas(pool_size=30).load_state_dict(json.loads(json.dumps(state)))


# --- whole searches -------------------------------------------------------------------------------


def test_a_search_resumes_as_if_it_had_not_been_interrupted(tmp_path):
    def objective(net):
        if len(evaluated) in stops:
            stops.pop()  # what an objective changes is no part of its identity
            raise KeyboardInterrupt
        evaluated.append(net.spec)
        return math.nan if net.spec.endswith("00") else 1.0 + toy_value(net)

    def search(storage):
        return run(
            hotnas(),
            objective,
            budget=12,
            batch_size=3,
            storage=storage,
            progress=False,
        )

    def record(result):
        return [(trial.network.spec, repr(trial.value)) for trial in result.trials]

    evaluated, stops = [], []
    whole = search(None)
    for interruption in (5, 10):
        storage = tmp_path / f"{interruption}.sqlite"
        evaluated, stops = [], [interruption]
        with pytest.raises(KeyboardInterrupt):
            search(storage)
        assert record(search(storage)) == record(whole)
        assert evaluated == [spec for spec, _ in record(whole)]


@pytest.mark.slow
def test_hotnas_beats_random_search_on_a_published_table(data_dir):
    table = NASBenchMacroTable(data_dir / "nas-bench-macro" / "nas-bench-macro_cifar10.json")
    ranks = {"hotnas": [], "random": []}
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        for name, strategy in (
            ("hotnas", HOTNAS(table.space, generator=generator)),
            ("random", RandomSearch(table.space, generator=generator)),
        ):
            result = run(strategy, table, budget=40, progress=False)
            ranks[name].append(table.rank(result.best.value))
    assert sum(ranks["hotnas"]) < 0.25 * sum(ranks["random"])
