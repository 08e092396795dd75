from collections import Counter

import pytest

from hotnas_torch import spaces


@pytest.fixture(params=[spaces.NASBench201, spaces.NASBenchMacro, spaces.TransNASMicro])
def space(request):
    return request.param()


def test_neighbors_change_one_place(space, rng):
    net = space.sample_one(generator=rng)
    neighbors = space.neighbors(net)
    assert len(neighbors) == space.dim * (len(space.operations) - 1)
    changed = (space.encode(neighbors) != space.encode([net])).sum(dim=1)
    assert changed.tolist() == [1] * len(neighbors)


def test_samples_are_uniform_per_place(space, rng):
    rows = space.encode(space.sample(6000, generator=rng))
    expected = 6000 / len(space.operations)
    for column in rows.T:
        counts = Counter(column.tolist())
        assert len(counts) == len(space.operations)
        # Six standard deviations of a binomial count.
        assert all(abs(count - expected) < 6 * expected**0.5 for count in counts.values())


def test_mutations_change_each_place_at_the_stated_rate(space, rng):
    net = space.sample_one(generator=rng)
    code = space.code_of(net)
    changes = sum(
        sum(a != b for a, b in zip(code, space.mutate_code(code, rng), strict=True))
        for _ in range(3000)
    )
    choices = len(space.operations)
    rate = (choices - 1) / choices / space.mutation_period
    expected = 3000 * space.dim * rate
    assert abs(changes - expected) < 6 * expected**0.5
