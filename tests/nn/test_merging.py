"""Merges against their formulas, and pooling."""

import pytest
import torch
from torch.nn import functional

from hotnas_torch.nn.merging import AttentionSum, Concatenation, WeightedSum, pool_to


@pytest.fixture
def tensors(rng):
    return [torch.randn(2, 3, 4, 5, generator=rng, dtype=torch.float64) for _ in range(3)]


def test_weighted_sum(tensors, rng):
    merge = WeightedSum(3).double()
    assert merge.weights.tolist() == [1.0, 1.0, 1.0]
    torch.testing.assert_close(
        merge(tensors), sum(tensors) * torch.sigmoid(torch.tensor(1.0, dtype=torch.float64))
    )
    with torch.no_grad():
        merge.weights.copy_(torch.randn(3, generator=rng))
    gates = merge.weights.sigmoid()
    torch.testing.assert_close(
        merge(tensors), gates[0] * tensors[0] + gates[1] * tensors[1] + gates[2] * tensors[2]
    )
    for tensor in tensors:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda weights, *xs: torch.func.functional_call(merge, {"weights": weights}, (xs,)),
        (merge.weights, *tensors),
    )
    merge.reset_parameters()
    assert merge.weights.tolist() == [1.0, 1.0, 1.0]


def test_attention_sum(tensors):
    first = tensors[0]
    expected = torch.stack(
        [
            (image - image.min()) / (image.max() - image.min()) * (second + third)
            for image, second, third in zip(*tensors, strict=True)
        ]
    )
    torch.testing.assert_close(AttentionSum()(tensors), expected, rtol=1e-4, atol=1e-5)
    # A constant image masks everything.
    assert not AttentionSum()([torch.ones_like(first), *tensors[1:]]).any()


def test_concatenation(tensors, rng):
    narrow = tensors[0][:, :1]
    with torch.device("meta"):
        merge = Concatenation([1, 3], 2).double()
    merge.to_empty(device="cpu")
    with torch.no_grad():
        merge.projection.weight.copy_(torch.randn(2, 4, 1, 1, generator=rng))
    expected = torch.einsum(
        "oi,nihw->nohw", merge.projection.weight[..., 0, 0], torch.cat([narrow, tensors[1]], 1)
    )
    torch.testing.assert_close(merge([narrow, tensors[1]]), expected)


@pytest.mark.parametrize("size", [(4, 6), (2, 3), (1, 1), (2, 4), (3, 6)])
def test_pooling_is_torchs_adaptive_pooling(size, rng):
    images = torch.randn(2, 3, 4, 6, generator=rng)
    torch.testing.assert_close(pool_to(images, size), functional.adaptive_avg_pool2d(images, size))
    if size == (4, 6):
        assert pool_to(images, size) is images
