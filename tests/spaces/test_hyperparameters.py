import math
from collections import Counter

import numpy as np
import pytest
import torch

from hotnas_torch.spaces import Categorical, Float, Integer, Log, Ordered
from hotnas_torch.spaces.hyperparameters import hyperparameter

ALL = {
    "float": Float(-1.0, 3.0),
    "log": Log(1e-4, 1.0),
    "integer": Integer(1, 8),
    "wide": Integer(-1000, 5000),
    "log_integer": Integer(1, 1024, log=True),
    "ordered": Ordered((16, 32, 64, 128)),
    "categorical": Categorical(("sgd", "adam", None, True)),
}


@pytest.fixture(params=ALL)
def one(request):
    return ALL[request.param]


def test_everything_stays_among_the_values(one, rng):
    for _ in range(200):
        value = one.draw(rng)
        assert one.checked("x", value) == value
        assert one.from_column(one.to_column(value)) == value
        mutant = one.mutate(value, rng)
        assert one.checked("x", mutant) == mutant != value
        around = one.neighbors(value)
        assert len(around) == len(set(around)) > 0
        assert value not in around
        assert all(one.checked("x", other) == other for other in around)
        place = float(one.scaled(torch.tensor([one.to_column(value)], dtype=torch.float64)))
        assert one.categorical or -1e-12 <= place <= 1.0 + 1e-12


def test_finite_ones_list_their_values(one):
    if math.isinf(one.size):
        with pytest.raises(ValueError, match="infinitely many"):
            one.values()
        return
    values = list(one.values())
    assert len(values) == len(set(values)) == one.size


def test_draws_are_uniform_on_the_scale(rng):
    for one, at in ((Float(-1.0, 3.0), lambda v: (v + 1) / 4), (Log(1e-4, 1.0), _decades)):
        places = torch.tensor([at(one.draw(rng)) for _ in range(4000)])
        counts = torch.histc(places, bins=8, min=0.0, max=1.0)
        assert bool(((counts - 500).abs() < 6 * 500**0.5).all())
    counts = Counter(Integer(1, 8).draw(rng) for _ in range(4000))
    assert set(counts) == set(range(1, 9))
    assert all(abs(count - 500) < 6 * 500**0.5 for count in counts.values())


def _decades(value):
    return (math.log10(value) + 4) / 4


def test_integers_on_a_log_scale_have_a_share_in_proportion_to_their_logarithm(rng):
    counts = Counter(Integer(1, 8, log=True).draw(rng) for _ in range(6000))
    whole = math.log(8.5 / 0.5)
    for value in range(1, 9):
        expected = 6000 * math.log((value + 0.5) / (value - 0.5)) / whole
        assert abs(counts[value] - expected) < 6 * expected**0.5


def test_mutations_are_near_more_often_than_draws(rng):
    one = Log(1e-4, 1.0)
    steps = [abs(_decades(one.mutate(0.01, rng)) - 0.5) for _ in range(500)]
    assert sorted(steps)[250] < 0.1
    assert max(steps) > 0.2


def test_neighbors_are_the_next_ones():
    assert Ordered((1, 2, 4, 8)).neighbors(2) == [1, 4]
    assert Ordered((1, 2, 4, 8)).neighbors(8) == [4]
    assert Categorical(("a", "b", "c")).neighbors("b") == ["a", "c"]
    assert Integer(1, 8).neighbors(1) == [2]
    assert set(Integer(0, 100).neighbors(50)) == {40, 49, 51, 60}
    assert Float(0.0, 1.0).neighbors(0.0) == pytest.approx([0.01, 0.1])
    assert Float(1.0, math.nextafter(1.0, 2.0)).neighbors(1.0) == [math.nextafter(1.0, 2.0)]


def test_numbers_of_numpy_and_torch_are_numbers():
    assert Integer(1, 8).checked("x", np.int64(3)) == 3
    assert type(Integer(1, 8).checked("x", torch.tensor(3))) is int
    assert Float(0.0, 1.0).checked("x", np.float32(0.5)) == 0.5
    assert Ordered(np.array([16, 32]).tolist()).checked("x", np.int32(32)) == 32
    assert type(Categorical([np.int64(1), np.int64(2)]).options[0]) is int
    assert str(Float(-1.0, 1.0).checked("x", -0.0)) == "0.0"


def test_lists_stand_for_what_they_look_like():
    assert hyperparameter("x", [32, 64]) == Ordered((32, 64))
    assert hyperparameter("x", [0.1, 1, 2.5]) == Ordered((0.1, 1, 2.5))
    assert hyperparameter("x", [64, 32]) == Categorical((64, 32))
    assert hyperparameter("x", ["a", "b"]) == Categorical(("a", "b"))
    assert hyperparameter("x", [False, True]) == Categorical((False, True))
    assert hyperparameter("x", Log(1, 2)) == Log(1.0, 2.0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Float(1.0, 1.0), ValueError, "low < high, both finite; got low=1, high=1"),
        (lambda: Float(0.0, math.inf), ValueError, "both finite; got low=0, high=inf"),
        (lambda: Float(-1e308, 1.7e308), ValueError, "both finite"),
        (lambda: Float(math.nan, 1.0), ValueError, "got low=nan"),
        (lambda: Float("0", 1.0), TypeError, "low must be a number; got '0' of type str"),
        (lambda: Log(0.0, 1.0), ValueError, "0 < low < high, both finite; got low=0"),
        (lambda: Integer(3, 3), ValueError, "low must be below high; got 3 and 3"),
        (lambda: Integer(1.5, 3), TypeError, "low must be an integer"),
        (lambda: Integer(0, 3, log=True), ValueError, "low must be between 1"),
        (lambda: Integer(0, 3, log="yes"), TypeError, "log must be True or False"),
        (lambda: Integer(0, 2**60), ValueError, "high must be between"),
        (lambda: Categorical(["a"]), ValueError, r"at least two; got \['a'\]"),
        (lambda: Categorical([]), ValueError, r"at least two; got \[\]"),
        (lambda: Categorical(["a", "b", "a"]), ValueError, r"options\[2\] = 'a' repeats"),
        (lambda: Categorical([1, 1.0]), ValueError, r"options\[1\] = 1.0 repeats options\[0\]"),
        (lambda: Categorical([0, False]), ValueError, r"options\[1\] = False repeats"),
        (lambda: Categorical("ab"), TypeError, "options must be a list or tuple"),
        (lambda: Categorical([1, math.inf]), ValueError, r"options\[1\] must be finite"),
        (lambda: Categorical([(1,), (2,)]), TypeError, r"options\[0\] must be a str, a number"),
        (lambda: hyperparameter("x", 3), TypeError, "x must be a hyperparameter such as Log"),
        (lambda: hyperparameter("x", "ab"), TypeError, "x must be a hyperparameter"),
        (lambda: hyperparameter("x", [1]), ValueError, r"x: options must hold at least two"),
        (lambda: Log(1e-4, 1.0).checked("lr", 2.0), ValueError, r"lr must be in \[0.0001, 1\]"),
        (lambda: Integer(1, 8).checked("n", True), TypeError, "n must be an integer"),
        (lambda: Ordered((1, 2)).checked("n", True), ValueError, "n must be one of 1, 2; got True"),
        (lambda: Categorical(["a", "b"]).checked("n", []), ValueError, "n must be one of 'a'"),
    ],
)
def test_what_is_no_hyperparameter_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
