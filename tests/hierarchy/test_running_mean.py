import pytest
import torch

from hotnas_torch.hierarchy.running_mean import RunningMean, SharedMean


@pytest.mark.parametrize("initial", [1.0, 0.0, None])
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.95])
def test_many_at_once_equal_one_after_the_other(beta, initial, rng):
    slots = torch.randint(6, (200,), generator=rng)
    rewards = torch.rand(200, generator=rng, dtype=torch.float64)
    mean = RunningMean(7, beta=beta, initial=initial)
    mean.record(slots[:80], rewards[:80])
    mean.record(slots[80:], rewards[80:])
    mean.record(slots[:0], rewards[:0])
    for slot in range(7):
        own = rewards[slots == slot].tolist()
        assert int(mean.count[slot]) == len(own)
        if initial is None:
            weights = [beta**age for age in reversed(range(len(own)))]
            total = sum(w * r for w, r in zip(weights, own, strict=True))
            expected = total / sum(weights) if own else 0.0
        else:
            expected = initial
            for reward in own:
                expected = beta * expected + (1 - beta) * reward
        assert float(mean.value[slot]) == pytest.approx(expected, abs=1e-12)


def test_the_order_in_which_rewards_came_counts_not_that_of_the_list():
    mean = RunningMean(1, beta=0.5, initial=0.0)
    mean.record(torch.zeros(2, dtype=torch.int64), torch.tensor([1.0, 0.0]).double())
    turned = RunningMean(1, beta=0.5, initial=0.0)
    turned.record(
        torch.zeros(2, dtype=torch.int64), torch.tensor([0.0, 1.0]).double(), torch.tensor([1, 0])
    )
    assert mean.value.tolist() == turned.value.tolist() == [0.25]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\); got 1"):
        RunningMean(2, beta=1.0, initial=None)
    mean = RunningMean(2, beta=0.5, initial=None)
    with pytest.raises(ValueError, match="another set of architectures"):
        mean.load_state_dict(RunningMean(3, beta=0.5, initial=None).state_dict())


@pytest.mark.parametrize("initial", [1.0, None])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_slots_of_a_group_learn_together(weight, initial, rng):
    group = torch.tensor([0, 1, 0, -1, 1, 0, -1])
    slots = torch.randint(7, (60,), generator=rng)
    rewards = torch.rand(60, generator=rng, dtype=torch.float64)
    mean = SharedMean(group, beta=0.8, weight=weight, initial=initial)
    mean.record(slots[:25], rewards[:25])
    mean.record(slots[25:].flip(0), rewards[25:].flip(0), torch.arange(35).flip(0))
    for slot in range(7):
        values, masses = (0.0 if initial is None else initial), 0.0
        for other, reward in zip(slots.tolist(), rewards.tolist(), strict=True):
            shares = group[slot] >= 0 and group[other] == group[slot]
            rate = 0.2 * (1.0 if other == slot else weight if shares else 0.0)
            values += rate * (reward - values)
            masses += rate * (1.0 - masses)
        expected = values if initial is not None else values / masses if masses else 0.0
        assert float(mean.value[slot]) == pytest.approx(expected, abs=1e-12)
    assert mean.count.tolist() == torch.bincount(slots, minlength=7).tolist()
    copy = SharedMean(group, beta=0.8, weight=weight, initial=initial)
    copy.load_state_dict(mean.state_dict())
    assert torch.equal(copy.value, mean.value)
    with pytest.raises(ValueError, match="belongs to another set of architectures"):
        SharedMean(group[:5], beta=0.8, weight=weight, initial=initial).load_state_dict(
            mean.state_dict()
        )


def test_sharing_nothing_is_the_mean_of_each_alone(rng):
    slots = torch.randint(4, (50,), generator=rng)
    rewards = torch.rand(50, generator=rng, dtype=torch.float64)
    alone = RunningMean(4, beta=0.9, initial=1.0)
    shared = SharedMean(torch.zeros(4, dtype=torch.int64), beta=0.9, weight=0.0, initial=1.0)
    for mean in (alone, shared):
        mean.record(slots, rewards)
    torch.testing.assert_close(shared.value, alone.value)
