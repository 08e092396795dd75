import pytest

from hotnas_torch.hierarchy import Schedule
from hotnas_torch.hierarchy.schedule import Phase


def test_the_default_is_25_of_the_60_percent_that_follow_the_pre_training():
    schedule = Schedule()
    assert schedule.phase(0.0) is schedule.phase(0.416) is Phase.WARM_UP
    assert schedule.phase(25 / 60) is schedule.phase(1.0) is Phase.SEARCH
    # Pooling: 400 epochs of search, macro: 120.
    assert round(400 * schedule.warm_up) == 167
    assert round(120 * schedule.warm_up) == 50


def test_the_other_reading_has_all_three_phases():
    schedule = Schedule.inside_search(start=0.01)
    phases = [schedule.phase(step / 100) for step in range(100)]
    assert [phases.count(phase) for phase in Phase] == [40, 25, 35]
    assert schedule.temperature(0.5) == schedule.temperature(0.65) == 0.01


def test_the_temperature_falls_linearly_after_the_warm_up():
    schedule = Schedule(warm_up=0.5, start=0.02, end=0.01)
    for progress, expected in ((0.0, 0.02), (0.5, 0.02), (0.75, 0.015), (1.0, 0.01)):
        assert schedule.temperature(progress) == pytest.approx(expected)
    assert Schedule(warm_up=1.0).temperature(1.0) == 0.0025


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warm_up": -0.1}, "warm_up must be in"),
        ({"uniform": 1.1}, "uniform must be in"),
        ({"uniform": 0.8, "warm_up": 0.3}, "sum to at most 1"),
        ({"start": 0.0}, "start must be a temperature"),
        ({"end": float("inf")}, "end must be a temperature"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**settings)
