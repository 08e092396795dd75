import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotnas_torch.search import DirichletTrustRegion


def test_successes_widen_and_failures_narrow():
    region = DirichletTrustRegion(batch=2, successes=2, failures=3)
    better = [9.0, 8.9, 8.8, 8.7, 8.6, 8.5]
    assert region.beta([10.0, *better[:2]], num_initial=1) == 1.0
    assert region.beta([10.0, *better[:4]], num_initial=1) == 0.5
    worse = [11.0, 12.0]
    assert region.beta([10.0, *worse * 2], num_initial=1) == 1.0
    assert region.beta([10.0, *worse * 3], num_initial=1) == 2.0
    # An improvement in between begins the count of failures anew.
    assert region.beta([10.0, *worse * 2, 9.0, 11.0, *worse * 2], num_initial=1) == 1.0
    # A batch that is not complete counts for nothing yet.
    assert region.beta([10.0, *worse * 2, 11.0], num_initial=1) == 1.0


def test_an_improvement_below_the_threshold_is_a_failure():
    region = DirichletTrustRegion(batch=1, failures=2, threshold=1e-3)
    values = [10.0, 9.999, 9.998]
    assert region.beta(values, num_initial=1) == 2.0
    assert region.beta([10.0, 9.0, 8.0], num_initial=1) == 1.0


def test_zero_is_reached_and_left():
    region = DirichletTrustRegion(start=0.25, smallest=0.1, batch=1, successes=1, failures=2)
    values = [100.0, 90.0]
    assert region.beta(values, num_initial=1) == 0.125
    values.append(80.0)
    assert region.beta(values, num_initial=1) == 0.0
    values.append(70.0)
    assert region.beta(values, num_initial=1) == 0.0
    values += [75.0, 75.0]
    assert region.beta(values, num_initial=1) == 0.1
    values += [75.0, 75.0]
    assert region.beta(values, num_initial=1) == 0.2
    assert region.beta(values + [75.0] * 40, num_initial=1) == region.largest


@given(
    values=st.lists(st.one_of(st.just(math.nan), st.floats(0.0, 10.0)), max_size=80),
    num_initial=st.integers(0, 10),
)
@settings(max_examples=100, deadline=None)
def test_beta_stays_in_its_range_and_failures_always_move_it(values, num_initial):
    region = DirichletTrustRegion()
    beta = region.beta(values, num_initial=num_initial)
    assert beta == 0.0 or region.smallest <= beta <= region.largest
    fresh = len(values) + (-max(0, len(values) - num_initial)) % region.batch
    padded = values + [math.nan] * (fresh - len(values) + region.batch * region.failures)
    assert region.beta(padded, num_initial=num_initial) >= beta
    if beta < region.largest:
        more = padded + [math.nan] * region.batch * region.failures
        assert region.beta(more, num_initial=num_initial) > beta


def test_failed_evaluations_are_failures():
    region = DirichletTrustRegion(batch=1, failures=2)
    assert region.beta([math.nan, math.nan, math.nan], num_initial=1) == 2.0
    assert region.beta([math.nan, 5.0, math.nan], num_initial=1) == 1.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("start", 17.0),
        ("start", -1.0),
        ("smallest", 0.0),
        ("largest", 0.001),
        ("successes", 0),
        ("failures", 0),
        ("batch", 0),
        ("threshold", -0.1),
    ],
)
def test_settings_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        DirichletTrustRegion(**{name: value})
