import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from hotnas_torch.plot.report.charts import Axis, front_chart, map_chart, trace_chart

FINITE = st.floats(allow_nan=False, allow_infinity=False)
MEASURED = st.one_of(FINITE, st.just(math.nan))


def is_inside(chart):
    places = [(mark.x, mark.y) for mark in chart.marks] + list(chart.line)
    ticks = [at for axis in (chart.x, chart.y) if axis for at, _ in axis.ticks]
    return all(0.0 <= one <= 100.0 for place in places for one in place) and all(
        -1e-6 <= at <= 100.000001 for at in ticks
    )


def trace(values, *, sign=1.0, kept=None, **options):
    numbers = np.array(values)
    losses = np.fmin.accumulate(sign * numbers)
    return trace_chart(
        [f"trial-{place}" for place in range(len(values))],
        numbers,
        sign * losses,
        sign=sign,
        label="value",
        kept=np.ones(len(values), dtype=bool) if kept is None else np.array(kept),
        failed=np.isnan(numbers),
        num_initial=2,
        **options,
    )


@given(st.lists(MEASURED, min_size=1, max_size=12), st.sampled_from([1.0, -1.0]))
@example([1.7e308, -1.7e308, 0.0], 1.0)
@example([5e-324, 0.0], -1.0)
@example([math.nan, math.nan], 1.0)
@example([3.0, 3.0, 3.0], 1.0)
def test_any_values_are_drawn_within_the_chart(values, sign):
    chart = trace(values, sign=sign)
    assert is_inside(chart)
    failed = [mark.trial for mark in chart.marks if mark.kind == "failed"]
    assert failed == [f"trial-{k}" for k, one in enumerate(values) if math.isnan(one)]
    assert {mark.trial for mark in chart.marks} == {f"trial-{k}" for k in range(len(values))}


@given(
    st.lists(st.tuples(MEASURED, MEASURED), min_size=1, max_size=8),
    st.sampled_from([(1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)]),
)
def test_any_two_objectives_are_drawn_within_the_chart(points, signs):
    numbers = np.array(points)
    shown = np.isfinite(numbers).all(axis=1)
    chart = front_chart(
        [str(place) for place in range(len(points))],
        numbers,
        labels=("a", "b"),
        signs=signs,
        kept=shown,
        front=shown,
    )
    assert is_inside(chart)
    assert len(chart.marks) == shown.sum()


def test_better_values_are_lower_where_smaller_is_better_and_the_line_follows_the_best():
    chart = trace([5.0, 3.0, 4.0, math.nan, 1.0])
    ys = {mark.trial: mark.y for mark in chart.marks if mark.kind == "dot"}
    assert sorted(ys, key=ys.get) == ["trial-0", "trial-2", "trial-1", "trial-4"]
    (lead,) = [mark for mark in chart.marks if mark.kind == "lead"]
    assert lead.trial == "trial-4"
    heights = [y for _, y in chart.line]
    assert heights == sorted(heights)
    assert heights[-1] == lead.y


def test_values_far_off_are_counted_at_the_edge():
    chart = trace([1.0, 1.2, 1.1, 1.3, 1.4, 1e6])
    assert [mark.trial for mark in chart.marks if mark.kind == "beyond"] == ["trial-5"]
    assert chart.note == "1 value above, as far as 1e+06"
    assert trace([1.0, 1.2, 1.1, 1.3, 1.4, 1e6], clipped=False).note == ""


def test_a_map_keeps_the_proportions_of_its_distances():
    points = np.random.default_rng(0).normal(size=(30, 2)) * [3.0, 1.0]
    losses = np.arange(30.0)
    losses[7] = math.nan
    kept = np.ones(30, dtype=bool)
    kept[9] = False
    distances = squareform(pdist(points))
    names = [str(k) for k in range(30)]
    chart = map_chart(names, distances, losses, names, kept=kept, num_initial=4, label="value")
    assert is_inside(chart)
    kinds = {mark.trial: mark.kind for mark in chart.marks}
    assert (kinds["7"], kinds["9"], kinds["3"], kinds["4"]) == ("failed", "hollow", "square", "dot")
    places = {mark.trial: (mark.x * chart.ratio, mark.y) for mark in chart.marks}
    drawn = pdist(np.array([places[name] for name in names]))
    ratios = drawn / pdist(points)
    assert ratios.max() / ratios.min() == pytest.approx(1.0, abs=0.02)
    assert [text for _, _, text in chart.numbers] == ["1", "2", "3", "4", "5"]


def test_equal_networks_are_mapped_to_one_place():
    chart = map_chart(
        ["a", "b"],
        np.zeros((2, 2)),
        np.array([1.0, 2.0]),
        ["1", "2"],
        kept=np.ones(2, dtype=bool),
        num_initial=0,
        label="value",
    )
    assert [(mark.x, mark.y) for mark in chart.marks] == [(50.0, 50.0)] * 2


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (93.0, 93.03, ["93.00", "93.01", "93.02", "93.03"]),
        (0.0, 2e7, ["0", "5e+06", "1e+07", "1.5e+07", "2e+07"]),
        (4.0, 4.0, ["4"]),
    ],
)
def test_ticks_are_round_and_told_apart(low, high, texts):
    assert [text for _, text in Axis.over("x", low, high).ticks] == texts
