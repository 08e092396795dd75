import importlib.util
import math

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.special import logsumexp

from hotnas_torch import segments
from hotnas_torch.segments import segment_logsumexp, segment_max, segment_sum

SCATTER = pytest.param(
    "torch_scatter",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("torch_scatter") is None,
        reason="torch_scatter is not installed (the `scatter` extra compiles it)",
    ),
)


@pytest.fixture(params=["auto", "torch", SCATTER])
def implementation(request):
    return request.param


@pytest.fixture
def ragged(rng):
    """Values of 40 graphs, some of them empty, in no order."""
    segment = torch.randint(40, (300,), generator=rng)
    segment[segment == 7] = 8
    return torch.randn(300, 3, generator=rng, dtype=torch.float64), segment


def test_sums_are_those_of_a_sparse_matrix(ragged, implementation):
    values, segment = ragged
    into = scipy.sparse.coo_array((np.ones(300), (segment.numpy(), np.arange(300))), (41, 300))
    found = segment_sum(values, segment, 41, implementation=implementation)
    torch.testing.assert_close(found, torch.from_numpy(into @ values.numpy()))
    across = segment_sum(values.T, segment, 41, dim=-1, implementation=implementation)
    assert torch.equal(across, found.T)
    each = segment_sum(
        values.T.contiguous(),
        segment.expand(3, -1).contiguous(),
        41,
        dim=1,
        implementation=implementation,
    )
    assert torch.equal(each, found.T)


def test_maxima_and_log_sum_exps_are_those_of_each_part(ragged, implementation):
    values, segment = ragged
    largest = segment_max(values, segment, 41, empty=-9.0, implementation=implementation)
    total = segment_logsumexp(1e3 * values, segment, 41, implementation=implementation)
    for k in range(41):
        part = values[segment == k].numpy()
        if not len(part):
            assert (largest[k] == -9.0).all()
            assert (total[k] == -math.inf).all()
            continue
        assert (largest[k].numpy() == part.max(axis=0)).all()
        np.testing.assert_allclose(total[k], logsumexp(1e3 * part, axis=0), rtol=1e-12)


def test_values_that_are_not_finite_stay_what_they_are(implementation):
    values = torch.tensor([math.nan, 1.0, -math.inf, -math.inf, 2.0])
    segment = torch.tensor([0, 0, 1, 1, 3])
    largest = segment_max(values, segment, 4, implementation=implementation)
    assert largest[0].isnan()
    assert largest[1:].tolist() == [-math.inf, 0.0, 2.0]
    total = segment_logsumexp(values, segment, 4, implementation=implementation)
    assert total[0].isnan()
    assert total[1:].tolist() == [-math.inf, -math.inf, 2.0]


def test_integers_are_added_exactly_and_wrap_around(implementation):
    values = torch.tensor([2**63 - 1, 1, 2**53 + 1])
    found = segment_sum(values, torch.tensor([0, 0, 1]), 2, implementation=implementation)
    assert found.tolist() == [-(2**63), 2**53 + 1]
    assert (
        segment_max(values, torch.tensor([0, 0, 1]), 3, implementation=implementation).tolist()[2]
        == 0
    )


def test_gradients_are_right(ragged, implementation):
    values, segment = ragged[0][:20].requires_grad_(), ragged[1][:20] % 5
    for reduce in (segment_sum, segment_logsumexp):
        assert torch.autograd.gradcheck(
            lambda x, reduce=reduce: reduce(x, segment, 5, implementation=implementation), values
        )


def test_nothing_is_reduced_to_nothing(implementation):
    none = torch.empty(0, dtype=torch.int64)
    found = segment_sum(torch.empty(0, 2), none, 3, implementation=implementation)
    assert found.tolist() == [[0.0, 0.0]] * 3
    assert segment_max(torch.empty(0), none, 0, implementation=implementation).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], torch.tensor([0]), 1), TypeError, "values must be a torch Tensor"),
        ((torch.ones(2), torch.ones(2), 1), TypeError, "segment must be int64"),
        ((torch.ones(2), torch.tensor([0]), 1), ValueError, r"segment must have shape \(2,\)"),
        ((torch.ones(2), torch.tensor([0, 1]), 1), ValueError, r"0\.\.0; got 1"),
        ((torch.ones(2), torch.tensor([0, -1]), 1), ValueError, r"0\.\.0; got -1"),
        ((torch.ones(()), torch.tensor(0), 1), ValueError, "a dimension to reduce"),
        ((torch.ones(2), torch.tensor([0, 0]), -1), ValueError, "num_segments"),
    ],
)
def test_what_is_wrong_is_named(arguments, error, message):
    for reduce in (segment_sum, segment_max, segment_logsumexp):
        with pytest.raises(error, match=message):
            reduce(*arguments)


def test_an_unknown_or_missing_implementation_is_refused(monkeypatch):
    ones, first = torch.ones(1), torch.tensor([0])
    with pytest.raises(ValueError, match="implementation must be one of"):
        segment_sum(ones, first, 1, implementation="numpy")
    with pytest.raises(ValueError, match="dim must be"):
        segment_sum(ones, first, 1, dim=1)
    with pytest.raises(TypeError, match="floating-point"):
        segment_logsumexp(first, first, 1)
    monkeypatch.setattr(segments, "_torch_scatter", lambda: None)
    with pytest.raises(ImportError, match=r"hotnas-torch\[scatter\]"):
        segment_sum(ones, first, 1, implementation="torch_scatter")
    assert segment_sum(ones, first, 1).tolist() == [1.0]
