from collections import Counter
from itertools import combinations

import pytest
import scipy.stats
import torch

from hotnas_torch.search import sample_kdpp


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sets_come_with_the_probability_of_their_determinant(size, rng):
    factors = torch.randn(5, 4, generator=rng, dtype=torch.float64)
    matrix = factors @ factors.T
    places = list(combinations(range(5), size))
    volumes = [torch.linalg.det(matrix[list(s)][:, list(s)]).item() for s in places]
    drawn = Counter(tuple(sample_kdpp(matrix, size, generator=rng)) for _ in range(3000))
    expected = [3000 * volume / sum(volumes) for volume in volumes]
    found = [drawn[s] for s in places]
    assert sum(found) == 3000
    assert scipy.stats.chisquare(found, expected).pvalue > 1e-3


def test_all_and_none_and_scales(rng):
    matrix = torch.diag(torch.tensor([1e-200, 2e-200, 3e-200], dtype=torch.float64))
    assert sample_kdpp(matrix, 3, generator=rng) == [0, 1, 2]
    assert sample_kdpp(matrix, 0, generator=rng) == []
    before = rng.get_state()
    first = sample_kdpp(matrix, 2, generator=rng)
    rng.set_state(before)
    assert sample_kdpp(matrix, 2, generator=rng) == first


def test_what_is_wrong_is_named(rng):
    equal = torch.ones(4, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="rank of matrix, 1; got 2"):
        sample_kdpp(equal, 2, generator=rng)
    with pytest.raises(ValueError, match="must be square"):
        sample_kdpp(equal[:2], 1, generator=rng)
    with pytest.raises(ValueError, match="finite"):
        sample_kdpp(equal * torch.nan, 1, generator=rng)
