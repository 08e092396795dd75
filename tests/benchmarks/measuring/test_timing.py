import time

import pytest

from benchmarks.measuring.timing import Contender, Rates, alternate


def busy(seconds: float) -> None:
    started = time.process_time()
    while time.process_time() - started < seconds:
        pass


def test_rates_count_problems_per_processor_second() -> None:
    rates = alternate([Contender("ten", lambda: busy(0.01), 10)], rounds=3, seconds=0.02)
    assert len(rates["ten"].values) == 3
    assert rates["ten"].median == pytest.approx(1000, rel=0.5)


def test_contenders_take_turns() -> None:
    calls: list[str] = []
    contenders = [
        Contender(name, lambda name=name: (calls.append(name), busy(0.001)), 1) for name in "ab"
    ]
    alternate(contenders, rounds=2, seconds=0.0)
    assert calls == list("ab" * 3)


def test_the_ratio_is_taken_within_rounds() -> None:
    ours, theirs = Rates((10.0, 20.0, 40.0)), Rates((1.0, 2.0, 1.0))
    assert ours.over(theirs) == 10.0
    assert ours.median == 20.0
