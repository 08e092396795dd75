import hashlib
import math

import pytest
import torch
from botorch.fit import fit_gpytorch_mll
from gpytorch.mlls import ExactMarginalLogLikelihood

from hotnas_torch import spaces
from hotnas_torch.gp import HOTNNGP
from hotnas_torch.search import HOTNAS
from hotnas_torch.search.bayesian.targets import targets, unexplained
from hotnas_torch.testing.strategy import toy_value


def of(values, **settings):
    return targets(torch.tensor(values, dtype=torch.float64), **settings)


def test_ordinary_values_are_left_as_they_are():
    values = torch.linspace(5.0, 60.0, 40, dtype=torch.float64)
    assert torch.equal(targets(values), -values)
    assert torch.equal(targets(values, transform="log"), -values.log())


@pytest.mark.parametrize("bad", [1e4, 1e9, 1e30, 1e300])
def test_how_bad_a_bad_value_is_does_not_matter(bad):
    others = [-95.0, -94.0, -93.5, -95.5, -92.0, -94.5]
    found = of([*others, bad])
    assert torch.allclose(found[:-1], -torch.tensor(others, dtype=torch.float64))
    assert float(found[-1]) == pytest.approx(float(of([*others, 1e3])[-1]))
    assert float(found[-1]) < float(found[:-1].min())


def test_good_values_keep_their_order():
    found = of([-1e300, -1e200, -1e9, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 9.5, 9.7])
    assert bool((found.diff() < 0).all())
    assert float(found.std()) < 1e4


@pytest.mark.parametrize("transform", ["none", "log"])
def test_values_of_all_sizes_become_finite_in_their_order(transform):
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor(
        [0.0, 1.0, -1.0, 1e300, -1e300, 1e-300, -1e-300, 1.7e308, -1.7e308, 5e-324, 3.0, 1e9],
        dtype=torch.float64,
    )
    for num in range(2, 14):
        for _ in range(100):
            values = sizes[torch.randint(len(sizes), (num,), generator=generator)]
            found = targets(values, transform=transform)
            assert bool(found.isfinite().all())
            assert bool((found[values.argsort()].diff() <= 0.0).all())
            if len(values.unique()) > 1:
                # No smaller than what BoTorch's standardisation takes for nothing.
                assert 1e-8 < float(found.std()) < math.inf


def test_units_do_not_matter():
    values = [3.0, 5.0, 4.0, 9.0, 30.0, 4.5]
    expected = of(values)
    for power in (-900, -40, 40, 900):
        found = of([value * 2.0**power for value in values])
        ratio = (found - found[0]) / (expected - expected[0])
        assert torch.allclose(ratio[1:], ratio[1].expand(5), rtol=1e-12)


@pytest.mark.parametrize(
    "values",
    [
        [2.3026, 2.3026 + 1e-6, 2.3026 - 1e-6, 2.3026 + 3e-7, 2.3026 + 2e-6],
        [1e9, 1e9 + 1.0, 1e9 - 1.0, 1e9 + 0.5, 1e9 + 2.0],
        [1e-12, 2e-12, 3e-12, 5e-12, 4e-12],
        [2.0, 2.0, 2.0, 2.0, 2.0 + 1e-9],
    ],
)
@pytest.mark.parametrize("transform", ["none", "log"])
def test_small_differences_are_of_size_one(values, transform):
    found = of(values, transform=transform)
    assert 0.1 < float(found.std()) < 10.0
    assert float(found.abs().max()) < 100.0
    ordered = found[torch.tensor(values, dtype=torch.float64).argsort()]
    assert bool((ordered.diff() <= 0.0).all())
    assert len(found.unique()) == len(set(values))


def test_later_values_do_not_move_earlier_ones_within_a_reference():
    values = [3.0, 5.0, 4.0, 9.0, 30.0, 4.5]
    more = of([*values, 1e6, -3.0], num_reference=6)
    assert torch.equal(more[:6], of(values))


SPACE = spaces.NASBenchMacro()


def model_of(values):
    nets = SPACE.sample(len(values), generator=torch.Generator().manual_seed(1), distinct=True)
    Y = torch.tensor(values, dtype=torch.float64)[:, None]
    model = HOTNNGP(SPACE.encode(nets), -Y, space=SPACE, learn=[])
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model.eval()


def test_what_is_not_explained_is_what_the_others_contradict():
    nets = SPACE.sample(30, generator=torch.Generator().manual_seed(1), distinct=True)
    values = [toy_value(net) for net in nets]
    values[7], values[19] = 40.0, -40.0
    model = model_of(values)
    outliers = unexplained(model)
    # Only what is too bad: what is too good is what a search is for.
    assert outliers.nonzero().flatten().tolist() == [7]
    assert not model.training


def test_predictions_by_the_others_equal_those_of_models_without_one():
    values = [toy_value(net) for net in SPACE.sample(8, generator=torch.Generator().manual_seed(1))]
    values = [*values[:-1], 60.0]
    model = model_of(values)
    targets_ = model.train_targets
    joint = model.likelihood(model.forward(model.train_inputs[0])).covariance_matrix.detach()
    mean = model.mean_module(model.train_inputs[0]).detach()
    expected = []
    for out in range(len(targets_)):
        kept = [place for place in range(len(targets_)) if place != out]
        weights = torch.linalg.solve(joint[kept][:, kept], joint[kept][:, out])
        deviation = (joint[out, out] - weights @ joint[kept][:, out]).sqrt()
        predicted = mean[out] + weights @ (targets_[kept] - mean[kept])
        expected.append(bool((targets_[out] - predicted) / deviation < -2.5))
    assert unexplained(model).tolist() == expected


def test_other_models_explain_everything():
    assert unexplained(object()) is None


def went_wrong(net):
    """Eight of a hundred networks, each by itself."""
    return hashlib.sha256(net.spec.encode()).digest()[0] < 21


@pytest.mark.parametrize("bad", [100.0, 1e4, 1e6])
def test_evaluations_that_went_wrong_do_not_blind_a_search(bad):
    def proposals(value):
        strategy = HOTNAS(SPACE, generator=torch.Generator().manual_seed(2), pool_size=100)
        errors = []
        for _ in range(30):
            (net,) = strategy.ask()
            error = 5.0 + 55.0 * toy_value(net) / 16.8
            strategy.tell([net], [value if went_wrong(net) else error])
            errors.append(error)
        return sum(errors[-12:]) / 12

    # Random networks have 32 on average.
    assert proposals(bad) < 15.0
