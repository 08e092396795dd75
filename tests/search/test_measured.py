"""Repeated evaluations, known noise, and what models make of them."""

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood

from hotnas_torch import spaces
from hotnas_torch.errors import NoiseWarning
from hotnas_torch.gp import HOTNNGP
from hotnas_torch.objectives import Evaluation, Function, Repeated
from hotnas_torch.search import BOTW, HOTNAS, BayesianSearch, RandomSearch, run
from hotnas_torch.search.bayesian.targets import target_variances, targets
from hotnas_torch.testing.strategy import toy_value

SPACE = spaces.NASBenchMacro()
FAST = {"num_initial": 5, "pool_size": 20}


def made(kind=RandomSearch, seed=0, **settings):
    return kind(SPACE, generator=torch.Generator().manual_seed(seed), **settings)


def networks(num):
    return SPACE.sample(num, generator=torch.Generator().manual_seed(9), distinct=True)


# --- telling --------------------------------------------------------------------------------------


def test_a_network_that_is_told_again_has_the_mean_of_what_did_not_fail():
    one, other = networks(2)
    strategy = made()
    strategy.tell([one, other], [1.0, math.nan])
    strategy.tell([one, other, one], [2.0, 7.0, 6.0], again=True)
    assert [found.value for found in strategy.observations] == [3.0, 7.0]
    assert strategy.best.network == one
    with pytest.raises(
        ValueError, match=r"is observed already .* again=True, which takes their mean"
    ):
        strategy.tell([one], [1.0])
    assert strategy.values[:, 0].tolist() == [3.0, 7.0]


def test_means_of_known_noise_are_weighted_by_precision():
    (net,) = networks(1)
    strategy = made()
    strategy.tell([net], [1.0], [0.5])
    strategy.tell([net], [4.0], [0.25], again=True)
    assert strategy.best.value == pytest.approx(np.average([1.0, 4.0], weights=[2.0, 4.0]))
    assert float(strategy.variances) == pytest.approx(1.0 / 6.0)


def test_repetitions_and_noise_are_part_of_the_state():
    strategy = made()
    nets = networks(3)
    strategy.tell(nets, [1.0, 2.0, math.nan], [0.5, None, None])
    strategy.tell(nets[1:], [5.0, 1.0], again=True)
    state = json.loads(json.dumps(strategy.state_dict()))
    other = made()
    other.load_state_dict(state)
    assert other.state_dict() == strategy.state_dict()
    for one in (strategy, other):
        one.tell(nets, [3.0, 3.0, 3.0], again=True)
    assert other.observations == strategy.observations


def test_a_state_without_repetitions_is_as_it_was():
    strategy = made()
    strategy.tell(networks(2), [1.0, 2.0])
    assert set(strategy.state_dict()) == {
        *("version", "config", "space", "generator", "observations", "pending")
    }


@pytest.mark.parametrize(
    ("variances", "error", "message"),
    [
        ([-1.0], ValueError, r"variances\[0\] must be >= 0"),
        ([math.inf], ValueError, r"variances\[0\] .*finite"),
        (["1"], TypeError, r"variances\[0\] must be a number"),
        ([1.0, 2.0], ValueError, "variances must hold one number per network, 1; got 2"),
        (1.0, TypeError, "variances must be a sequence"),
        ("1", TypeError, "variances must be a sequence"),
    ],
)
def test_what_is_no_variance_is_refused_and_nothing_recorded(variances, error, message):
    strategy = made()
    with pytest.raises(error, match=message):
        strategy.tell(networks(1), [1.0], variances)
    assert strategy.observations == ()


def test_variances_of_several_numbers_are_by_name_or_in_order():
    nets = networks(3)
    strategy = made(objectives=("error", "size"), known={"size": lambda _: 1.0})
    values = [{"error": 2.0}] * 3
    strategy.tell(nets, values, [{"error": 0.5}, [0.25, 0.0], None])
    assert strategy.variances[:2, 0].tolist() == [0.5, 0.25]
    assert strategy.variances[2].isnan().all()
    with pytest.raises(ValueError, match=r"variances\[0\] must be of 'error', 'size'; got 'loss'"):
        strategy.tell(networks(4)[3:], [{"error": 1.0}], [{"loss": 1.0}])


# --- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [HOTNAS, BOTW])
def test_known_noise_reaches_the_model_in_its_units(kind):
    nets = networks(7)
    values = [toy_value(net) for net in nets]
    variances = [0.01 * (1 + place) for place in range(7)]
    strategy = made(kind, **FAST, transform="none")
    strategy.tell(nets, values, variances)
    strategy.ask(2)
    assert isinstance(strategy.model.likelihood, FixedNoiseGaussianLikelihood)
    expected = torch.tensor(variances, dtype=torch.float64) / np.var(values, ddof=1)
    assert torch.allclose(strategy.model.likelihood.noise, expected, rtol=1e-6)


def test_repetitions_say_what_the_noise_is():
    nets = networks(6)
    strategy = made(HOTNAS, **FAST, transform="none")
    means = [toy_value(net) for net in nets]
    for shift in (-0.3, 0.1, 0.2):
        strategy.tell(nets, [mean + shift for mean in means], again=True)
    assert [found.value for found in strategy.observations] == pytest.approx(means)
    strategy.ask(1)
    pooled = scipy.stats.tvar([-0.3, 0.1, 0.2])
    expected = torch.full((6,), pooled / 3 / np.var(means, ddof=1), dtype=torch.float64)
    assert torch.allclose(strategy.model.likelihood.noise, expected, rtol=1e-6)


def test_without_repetitions_the_noise_is_learned():
    strategy = made(HOTNAS, **FAST)
    nets = networks(6)
    strategy.tell(nets, [toy_value(net) for net in nets])
    strategy.ask(1)
    likelihood = getattr(strategy.model, "likelihood", None)
    assert not isinstance(likelihood, FixedNoiseGaussianLikelihood)


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e12])
@pytest.mark.parametrize("transform", ["none", "log"])
def test_variances_of_targets_are_what_small_noise_does_to_them(scale, transform):
    values = scale * torch.tensor([3.0, 4.0, 5.0, 6.0, 7.5, 9.0], dtype=torch.float64)
    deviation = 1e-6 * scale
    # Of the last, which neither the median nor the spread depends on.
    moved = values + deviation * torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    options = {"transform": transform, "num_reference": 5}
    expected = (targets(moved, **options) - targets(values, **options))[-1] ** 2
    noise = torch.full((6,), deviation**2, dtype=torch.float64)
    found = target_variances(noise, values, **options)
    assert float(found[-1]) == pytest.approx(float(expected), rel=1e-3)


def test_a_search_says_once_when_noise_swallows_the_signal():
    strategy = made(HOTNAS, **FAST, model_options={"learn": []})
    nets = networks(26)
    generator = np.random.default_rng(0)
    strategy.tell(nets[:25], generator.normal(size=25))
    with pytest.warns(NoiseWarning, match="after 2. values .* objectives.Repeated"):
        strategy.ask(1)
    strategy.tell(nets[25:], [0.0])
    strategy.ask(1)  # a second warning would be an error


def test_what_can_be_learned_is_no_noise():
    strategy = made(HOTNAS, **FAST, model_options={"learn": []})
    nets = networks(25)
    strategy.tell(nets, [toy_value(net) for net in nets])
    strategy.ask(1)


def test_a_model_of_ones_own_sees_the_means():
    seen = []

    def surrogate(X, Y):
        seen.append(Y)
        return HOTNNGP(X, Y, space=SPACE, learn=[]).eval()

    strategy = made(BayesianSearch, surrogate=surrogate, num_initial=4, transform="none")
    nets = networks(4)
    strategy.tell(nets, [1.0, 2.0, 3.0, 4.0], [0.1] * 4)
    strategy.tell(nets, [3.0, 4.0, 5.0, 6.0], [0.1] * 4, again=True)
    strategy.ask(1)
    assert seen[0].flatten().tolist() == pytest.approx([-2.0, -3.0, -4.0, -5.0])


# --- objectives -----------------------------------------------------------------------------------


class Drifting:
    """Returns another number at each call."""

    def __init__(self, answer):
        self.calls = 0
        self.answer = answer

    def __call__(self, _):
        self.calls += 1
        return self.answer(float(self.calls))


def test_repeated_evaluations_give_mean_and_variance(tmp_path):
    objective = Repeated(Drifting(lambda n: n), times=4)
    strategy = made()
    result = run(strategy, objective, budget=2, progress=False, storage=tmp_path / "s.sqlite")
    expected = [scipy.stats.sem([1, 2, 3, 4]) ** 2, scipy.stats.sem([5, 6, 7, 8]) ** 2]
    assert [trial.value for trial in result.trials] == [2.5, 6.5]
    assert [t.outcome.metrics["value_variance"] for t in result.trials] == pytest.approx(expected)
    assert strategy.variances[:, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    "answer",
    [
        lambda n: {"error": n, "size": 7.0},
        lambda n: Evaluation(n, {"error": n, "size": 7.0}),
    ],
)
def test_several_objectives_are_repeated_together(answer):
    strategy = made(objectives=("error", "size"))
    run(strategy, Repeated(Drifting(answer), times=3), budget=1, progress=False)
    assert strategy.values.tolist() == [[2.0, 7.0]]
    assert strategy.variances.tolist() == [[pytest.approx(1.0 / 3.0), 0.0]]


def test_evaluations_that_fail_are_left_out_of_the_mean():
    (net,) = networks(1)
    some = Repeated(Drifting(lambda n: math.nan if n == 2 else n), times=3)(net)
    assert (some.value, some.metrics["value_variance"]) == (2.0, 1.0)
    one = Repeated(Drifting(lambda n: n if n == 2 else math.nan), times=3)(net)
    assert (one.value, dict(one.metrics)) == (2.0, {})
    none = Repeated(Drifting(lambda _: Evaluation.failure("no memory")), times=3)(net)
    assert (none.failed, none.error) == (True, "no memory")


def test_repeated_objectives_are_described_by_what_they_repeat():
    first, second = (Repeated(Function(len, name=name), times=3) for name in ("a", "b"))
    assert first.describe() != second.describe()
    assert first.describe() != Repeated(Function(len, name="a"), times=4).describe()


@pytest.mark.parametrize(
    ("arguments", "error"), [((3,), TypeError), ((len, 1), ValueError), ((len, 2.5), TypeError)]
)
def test_what_cannot_be_repeated_is_refused(arguments, error):
    with pytest.raises(error, match=r"objective|times"):
        Repeated(*arguments)


@pytest.mark.parametrize("variance", [-1.0, math.inf])
def test_an_evaluation_whose_variance_is_none_is_refused(variance):
    with pytest.raises(TypeError, match="value_variance must be finite and >= 0"):
        run(
            made(),
            lambda _: Evaluation(1.0, {"value_variance": variance}),
            budget=1,
            progress=False,
        )
