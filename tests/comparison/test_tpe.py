import pytest
import torch

import hotnas_torch as ht
from hotnas_torch.comparison.tpe import TPE
from hotnas_torch.search import RandomSearch

pytest.importorskip("optuna", reason="TPE is Optuna's (the extra `optuna`)")

SPACE = ht.spaces.NASBench201()


def searched(kind, seed, evaluations=40):
    strategy = kind(SPACE, generator=torch.Generator().manual_seed(seed))
    values = []
    while len(values) < evaluations:
        nets = strategy.ask(4 if values else 10)
        found = [float(net.spec.count("none") - net.spec.count("3x3")) for net in nets]
        strategy.tell(nets, found)
        values += found
    return strategy, values


def test_it_learns_what_random_search_does_not(capfd):
    ours = [searched(TPE, seed)[1] for seed in range(3)]
    random = [searched(RandomSearch, seed)[1] for seed in range(3)]
    assert [row[:10] for row in ours] == [row[:10] for row in random]  # the same start
    assert all(sum(one[10:]) < sum(two[10:]) - 20 for one, two in zip(ours, random, strict=True))
    assert "A new study" not in capfd.readouterr().err


def test_it_goes_on_from_its_state_and_repeats_nothing():
    strategy, values = searched(TPE, 0)
    assert len({SPACE.key(one.network) for one in strategy.observations}) == len(values)
    other = TPE(SPACE, generator=torch.Generator())
    other.load_state_dict(strategy.state_dict())
    assert other.ask(3) == strategy.ask(3)


def test_failed_evaluations_and_awaited_ones_are_passed_over():
    strategy = TPE(SPACE, generator=torch.Generator().manual_seed(0), num_initial=4)
    nets = strategy.ask(4)
    strategy.tell(nets[:3], [1.0, float("nan"), 2.0])
    assert not set(strategy.ask(5)) & set(nets)


def test_a_space_whose_columns_are_no_choices_is_refused():
    with pytest.raises(ValueError, match="every filling of the columns is a network"):
        TPE(ht.spaces.NASBench101(), generator=torch.Generator())
